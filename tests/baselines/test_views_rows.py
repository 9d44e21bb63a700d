"""All rows where a sample is a view: rays in training, whole pictures in evaluation, float32 from the layer on."""

import json
from importlib import import_module

import pytest
import torch
from ruamel.yaml import YAML

from ocd_core.artifacts import Artifacts
from ocd_core.baselines.neighbour import Neighbours
from ocd_core.config import load_params, read_yaml
from ocd_core.store import OverfitStore
from tests.toy import STAGES
from tests.workspace import REPO


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Artifacts:
    """tinynerf_demo with twelve pixels a side and a few updates."""
    values = read_yaml(REPO / "params" / "tinynerf_demo.yaml")
    changes = {
        "data": {"size": 12, "train_views": 12, "test_views": 3, "depths": 4, "base_rays": 32, "rays_per_step": 32},
        "base": {"epochs": 2, "model": {"name": "tinynerf", "args": {"width": 8, "frequencies": 2,
                 "direction_frequencies": None, "background": "black"}}},
        "scoring": {"samples": 2, "draws": 10},
        "overfit": {"steps": 2},
        "diffusion": {"updates": 4, "validate_every": 2, "batch_size": 8, "embedding": 8,
                      "representation": {"name": "pca", "components": 3}},
        "scale": {"updates": 4, "validate_every": 2},
        "evaluate": {"draws": 2, "bootstrap": 100},
    }  # fmt: skip
    for group, keys in changes.items():
        values[group].update(keys)
    values["diffusion"]["denoiser"].update(width=8, depth=1)
    values["controls"]["hypernetwork"].update(width=8, updates=2, validate_every=1)
    values["controls"]["further"]["epochs"] = 1
    root = tmp_path_factory.mktemp("views")
    (root / "params").mkdir()
    with (root / "params" / "views.yaml").open("w") as file:
        YAML().dump(values, file)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for stage in STAGES[: STAGES.index("evaluate") + 1]:
            import_module(f"stages.{stage}").main("views")
    return Artifacts("views", root=root)


def test_every_row_that_views_have_is_measured(run: Artifacts) -> None:
    table = json.loads((run.evaluation / "table.json").read_text())
    params = load_params("views", run.root)
    assert [row["row"] for row in table["rows"]] == [r for r in params.evaluate.rows if r != "ocd_no_scale"]
    assert "pca" in table["left_out"]["ocd_no_scale"]
    rows = {row["row"]: row for row in table["rows"]}
    assert all(row["n"] == 3 for row in rows.values())
    assert rows["bound"]["mse"]["value"] < rows["base"]["mse"]["value"]
    assert len({row["mse"]["value"] for row in rows.values()}) >= len(rows) - 1


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
