"""Params and files of small scenes for view synthesis."""

import json

import numpy as np
from PIL import Image

from ocd_core.tasks.views.demo_scene import CAMERA_ANGLE_X, demo_poses
from ocd_core.tasks.views.params import ViewsData
from ocd_core.tasks.views.task import ViewSynthesis

SIZE = 16


DEMO = {
    "source": "demo",
    "path": None,
    "size": SIZE,
    "train_views": 10,
    "test_views": 3,
    "background": "black",
    "near": 2.0,
    "far": 6.0,
    "depths": 8,
    "base_rays": 20,
    "rays_per_step": 100,
    "rays_per_update": 40,
    "scoring_rays": 30,
    "fixed_rays": False,
    "vgg11": None,
    "split_seed": 0,
}


BLENDER = {**DEMO, "source": "blender", "size": None, "train_views": None, "test_views": None}


NPZ = {**BLENDER, "source": "npz", "test_views": 3}


MODEL = {"width": 16, "frequencies": 4}


def make_task(values, **changes):
    return ViewSynthesis(ViewsData.model_validate({**values, **changes}), "tinynerf", MODEL)


def rgba(views, seed=0):
    """Pictures with transparent, half transparent and opaque parts, uint8 (V, H, W, 4)."""
    return np.random.default_rng(seed).integers(0, 256, (views, SIZE, SIZE, 4), dtype=np.uint8)


def write_blender(folder, pictures, part="train"):
    (folder / part).mkdir(parents=True)
    frames = []
    for i, (picture, pose) in enumerate(zip(pictures, demo_poses("train", len(pictures)), strict=True)):
        Image.fromarray(picture).save(folder / part / f"r_{i}.png")
        frames.append({"file_path": f"./{part}/r_{i}", "transform_matrix": pose.tolist()})
    transforms = {"camera_angle_x": CAMERA_ANGLE_X, "frames": frames}
    (folder / f"transforms_{part}.json").write_text(json.dumps(transforms))


def write_npz(path, **changes):
    arrays = {
        "images": np.random.default_rng(0).random((8, SIZE, SIZE, 3), dtype=np.float32),
        "poses": demo_poses("train", 8).numpy(),
        "focal": np.array(22.0),
    }
    arrays = {k: v for k, v in (arrays | changes).items() if v is not None}
    np.savez(path, **arrays)
    return arrays
