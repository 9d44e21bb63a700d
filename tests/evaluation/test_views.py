"""All rows where a sample is a view: rays in training, whole pictures in evaluation, float32 from the layer on."""

import json

import pytest
import torch

from ocd_core.artifacts import Artifacts
from ocd_core.config import load_params
from ocd_core.evaluation.fitted import load_rows
from ocd_core.evaluation.rows.neighbour import Neighbours
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.network.loading import load_base_network
from ocd_core.store import OverfitStore
from tests.support.runs import context_of
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


def test_all_layers_move_on_the_rays_that_the_store_saw(run: Artifacts) -> None:
    """Each test view overfitted by torch.optim.Adam on the rays of its steps; the whole view is rendered."""
    context = context_of(run)
    params, task, test = context.params.overfit, context.task, context.split("test")
    assert (params.optimizer, params.precision, params.steps) == ("adam", "float32", 2)
    ((row,), _) = load_rows(context, ["bound_all_layers"])
    shared = SharedPass(context.predictor, test.batch(torch.arange(3)), "test")
    found = row.outputs(shared)
    for view in range(3):
        network = load_base_network(run, task)
        optimizer, sample_id = torch.optim.Adam(network.parameters(), lr=params.lr), torch.tensor([view])
        for step in range(params.steps):
            rays = task.overfit_batch(test, sample_id, torch.zeros_like(sample_id), step, run.seed)
            optimizer.zero_grad()
            task.loss(network(*rays.inputs), rays.target).sum().backward()
            optimizer.step()
        whole = test.batch(sample_id)
        torch.testing.assert_close(found[view : view + 1], network(*whole.inputs).detach(), rtol=1e-3, atol=1e-4)


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
