"""All rows where a sample is a view: rays in training, whole pictures in evaluation, float32 from the layer on."""

import json

import pytest
import torch

from ocd_core.artifacts import Artifacts
from ocd_core.config import load_params
from ocd_core.evaluation.rows.neighbour import Neighbours
from ocd_core.store import OverfitStore
from tests.support.views import views_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Artifacts:
    return views_run(tmp_path_factory.mktemp("views"), "evaluate")


def test_every_row_that_views_have_is_measured(run: Artifacts) -> None:
    table = json.loads((run.evaluation / "table.json").read_text())
    params = load_params("views", run.root)
    rows = {r["row"]: r for r in table["results"] if r["metric"] == "mse"}
    assert list(rows) == [r for r in params.evaluate.rows if r != "ocd_no_scale"]
    (absent,) = table["absent"]
    assert (absent["row"], absent["status"]) == ("ocd_no_scale", "left out")
    assert "pca" in absent["why"]
    assert all(row["n"] == 3 and row["temperature"] is None for row in rows.values())
    assert rows["bound"]["mean"] < rows["base"]["mean"]
    assert len({row["mean"] for row in rows.values()}) >= len(rows) - 1


def test_the_nearest_view_is_the_nearest_camera(run: Artifacts) -> None:
    task = load_params("views", run.root).build_task()
    train, test = (task.open(run.prepared, split) for split in ("train", "test"))
    batch = test.batch(torch.arange(3))
    found = Neighbours(task, train, OverfitStore(run.overfit("train"))).nearest(batch)
    poses = [split.views.pose_V44 for split in (train, test)]
    place = [pose[:, :3, 3].double() for pose in poses]
    look = [-pose[:, :3, 2].double() for pose in poses]  # a camera looks along its own -z
    # the cameras of the demo look at one point from one distance, so that both agree on the order
    by_place = torch.cdist(place[1], place[0])
    by_look = torch.cdist(look[1], look[0])
    assert found.tolist() == by_place.argmin(1).tolist() == by_look.argmin(1).tolist()
    features = task.neighbour_features(batch)
    torch.testing.assert_close(features[:, :3].double(), place[1], rtol=1e-5, atol=1e-5)
