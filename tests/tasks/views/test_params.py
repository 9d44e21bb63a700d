"""Params of view synthesis that fit no source are refused."""

import pytest
from pydantic import ValidationError

from ocd_core.tasks.views.params import ViewsData
from tests.support.scenes import BLENDER, DEMO, NPZ

BLENDER_PATH = {**BLENDER, "path": "scene"}
NPZ_PATH = {**NPZ, "path": "scene.npz"}


@pytest.mark.parametrize("values", [DEMO, BLENDER_PATH, {**BLENDER_PATH, "size": 8}, NPZ_PATH])
def test_each_source_has_its_own_keys(values):
    assert ViewsData.model_validate(values).model_dump() == values


@pytest.mark.parametrize(
    ("values", "change", "message"),
    [
        (DEMO, {"path": "somewhere"}, "source demo reads no path"),
        (BLENDER_PATH, {"path": None}, "source blender needs a path"),
        (NPZ_PATH, {"path": None}, "source npz needs a path"),
        *((DEMO, {key: None}, f"source demo needs {key}") for key in ("size", "train_views", "test_views")),
        (NPZ_PATH, {"test_views": None}, "source npz needs test_views"),
        (NPZ_PATH, {"size": 8}, "source npz does not use size; set it to null"),
        (BLENDER_PATH, {"test_views": 2}, "source blender does not use test_views; set it to null"),
        (DEMO, {"far": 2.0}, "far must be larger than near"),
        (NPZ_PATH, {"background": "white"}, r"tiny_nerf_data\.npz is over black; set background to black"),
        (DEMO, {"depths": 1}, r"depths\n.*greater than or equal to 2"),
        (DEMO, {"near": -1.0}, r"near\n.*greater than 0"),
        (DEMO, {"unknown": 1}, r"unknown\n.*Extra inputs are not permitted"),
    ],
)
def test_impossible_params(values, change, message):
    with pytest.raises(ValidationError, match=message):
        ViewsData.model_validate({**values, **change})
