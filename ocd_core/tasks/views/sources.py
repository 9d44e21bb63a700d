"""Posed images from Blender folders, from `tiny_nerf_data.npz`, or from the demo scene.

Dims: V views, H height, W width, C colours (3, or 4 with alpha).
"""

import json
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.files import is_shortage
from ocd_core.models.parts.rendering import focal_length
from ocd_core.tasks.image_files import read_image
from ocd_core.tasks.views.demo_scene import CAMERA_ANGLE_X, demo_poses, render_views
from ocd_core.tasks.views.intrinsics import check_intrinsics

DEMO_LICENCE = "MIT, that of ocd-core, which renders the scene"
_ROTATION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Views:
    """Posed images of one scene.

    image_VHWC: float32 in 0..1, three colours. pose_V44: camera-to-world, float32. focal: in pixels.
    """

    image_VHWC: Tensor
    pose_V44: Tensor
    focal: float

    def __len__(self) -> int:
        return len(self.image_VHWC)

    def select(self, rows: Tensor) -> "Views":
        """Some of the views (int64, (N,))."""
        return Views(self.image_VHWC[rows], self.pose_V44[rows], self.focal)


@dataclass(frozen=True)
class _Frame:
    """One entry of a transforms file; `where` names it. camera: what the file says of it, see `check_intrinsics`."""

    where: str
    photograph: Path
    pose_44: Tensor
    camera: Mapping[str, Any]


def read_blender(folder: Path, background: float, size: int | None) -> dict[str, Views]:
    """The views of `transforms_<part>.json` and their photographs (NeRF's synthetic scenes), for train, test and,
    if the scene has one, val.

    Args:
        background: grey level 0..1 behind transparent pixels.
        size: shrink the photographs to this width and height by area averaging (of premultiplied colours); it must
            divide theirs. None: keep them.

    Raises:
        UserError: the folder, a photograph or a pose is missing, damaged or different from the others, a photograph is
            named twice, in one part or in two, or a camera is no simple one (see `check_intrinsics`).
    """
    if not folder.is_dir():
        raise UserError(f"data.path: {folder} does not exist or is not a folder; it should hold transforms_train.json")
    found = {}
    for part in ("train", "val", "test"):
        path = folder / f"transforms_{part}.json"
        if path.is_file():
            found[part] = path, *_read_transforms(path)
        elif part != "val":
            raise UserError(f"{path} does not exist")
    _refuse_repeated([frame for _, frames, _ in found.values() for frame in frames])
    return {part: _read_views(*values, background, size) for part, values in found.items()}


def _refuse_repeated(frames: Sequence[_Frame]) -> None:
    """Refuse a photograph that is named twice: in two parts it would be test data that was trained on."""
    seen: dict[str, _Frame] = {}
    for frame in frames:
        other = seen.setdefault(os.path.realpath(frame.photograph), frame)
        if other is not frame:
            raise UserError(
                f"{frame.where}: {frame.photograph} is also the photograph of {other.where}; name each one once "
                "(without transforms_val.json, val is taken from train)"
            )


def _read_views(path: Path, frames: Sequence[_Frame], angle: float, background: float, size: int | None) -> Views:
    images: list[Tensor] = []
    size_of_first: tuple[int, ...] = ()
    for frame in frames:
        photograph_HWC = _read_photograph(frame.photograph, background)
        height, width = photograph_HWC.shape[:2]
        size_here = (width, height)
        size_of_first = size_of_first or size_here
        if size_here != size_of_first:
            here, first = ("x".join(map(str, s)) for s in (size_here, size_of_first))
            raise UserError(
                f"{frame.where}: the photograph is {here} pixels, the first one {first}; all must have the same size"
            )
        check_intrinsics(frame.camera, angle, *size_here, frame.where)
        # at once, so that one photograph at a time is held at full size
        images.append(photograph_HWC if size is None else _shrink(photograph_HWC, size, str(path)))
    image_VHWC = torch.stack(images)
    pose_V44 = torch.stack([frame.pose_44 for frame in frames])
    return Views(image_VHWC, pose_V44, focal_length(image_VHWC.shape[2], angle))


def _read_transforms(path: Path) -> tuple[list[_Frame], float]:
    """The frames, and the horizontal field of view."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
    entries = values.get("frames") if isinstance(values, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path} has no list of frames")
    angle = check_angle(values.get("camera_angle_x"), str(path))
    shared = {key: value for key, value in values.items() if key != "frames"}
    frames = []
    for number, entry in enumerate(entries):
        where = f"{path}, frame {number}"
        name = entry.get("file_path") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise UserError(f"{where}: file_path is missing")
        file = path.parent / name
        photograph = file if file.suffix else file.with_name(file.name + ".png")
        pose_44 = check_pose(entry.get("transform_matrix"), where)
        frames.append(_Frame(where, photograph, pose_44, shared | entry))
    return frames, angle


def check_angle(value: Any, where: str) -> float:
    """A horizontal field of view in radians.

    Raises:
        UserError: it is not a number between 0 and π.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.pi:
        raise UserError(f"{where}: camera_angle_x must be an angle in radians between 0 and pi, found {value!r}")
    return float(value)


def check_pose(value: Any, where: str) -> Tensor:
    """A camera-to-world matrix, float32 (4, 4).

    Raises:
        UserError: it is not a finite 4x4 matrix of a rotation and a shift.
    """
    try:
        pose_44 = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{where}: transform_matrix is not a 4x4 matrix of numbers") from error
    if pose_44.shape != (4, 4) or not bool(torch.isfinite(pose_44).all()):
        raise UserError(f"{where}: transform_matrix is not a 4x4 matrix of finite numbers")
    turn_33, last_4 = pose_44[:3, :3], pose_44[3]
    off = max(
        float((turn_33 @ turn_33.T - torch.eye(3, dtype=torch.float64)).abs().max()),
        float((last_4 - last_4.new_tensor([0.0, 0.0, 0.0, 1.0])).abs().max()),
        abs(float(torch.linalg.det(turn_33)) - 1),
    )
    if off > _ROTATION_TOLERANCE:
        raise UserError(
            f"{where}: transform_matrix must be a rotation and a shift with the last row 0 0 0 1 (off by {off:.2g})"
        )
    return pose_44.float()


def _read_photograph(path: Path, background: float) -> Tensor:
    """A photograph over a grey background, float32 (H, W, 3) in 0..1."""
    values_HWC = read_image(path)
    channels = values_HWC.shape[2]
    colour_HWC = values_HWC[..., :1].repeat(3, 2) if channels <= 2 else values_HWC[..., :3]
    alpha_HW1 = values_HWC[..., -1:] if channels in (2, 4) else np.full_like(values_HWC[..., :1], 255)
    rgba_HW4 = np.concatenate([colour_HWC, alpha_HW1], 2).astype(np.float32) / 255
    return over_background(torch.from_numpy(rgba_HW4), background)


def over_background(rgba_HW4: Tensor, background: float) -> Tensor:
    """Straight-alpha colours over a grey background, (..., 3)."""
    alpha = rgba_HW4[..., 3:]
    return rgba_HW4[..., :3] * alpha + background * (1 - alpha)


def _shrink(image_HWC: Tensor, size: int, where: str) -> Tensor:
    height, width = image_HWC.shape[:2]
    if height % size or width % size or height != width:
        raise UserError(f"data.size: {size} does not divide the {width}x{height} images of {where} evenly")
    # averaging is linear, so averaging over the background is averaging premultiplied colours, then the background
    return F.avg_pool2d(image_HWC.movedim(-1, 0), height // size).movedim(0, -1).contiguous()


def read_npz(path: Path) -> Views:
    """`tiny_nerf_data.npz`: images (V, H, W, 3) in 0..1, poses (V, 4, 4), focal; nothing is unpickled.

    Raises:
        UserError: the file is missing or damaged, or an array is missing, has another shape, or is not finite.
    """
    if not path.is_file():
        raise UserError(f"data.path: {path} does not exist or is not a file; it should be tiny_nerf_data.npz")
    try:
        with np.load(path, allow_pickle=False) as file:
            images, poses, focal = (np.asarray(file[name], dtype=np.float64) for name in ("images", "poses", "focal"))
    except KeyError as error:
        raise UserError(f"{path} must hold the arrays images, poses and focal: {error.args[0]}") from error
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
        if is_shortage(error):
            raise
        raise UserError(f"{path} is not an .npz file of plain numbers: {error}") from error
    if images.ndim != 4 or images.shape[-1] != 3 or not images.size:
        raise UserError(f"{path}: images must be (views, height, width, 3), found {images.shape}")
    if not np.isfinite(images).all() or images.min() < 0 or images.max() > 1:
        raise UserError(f"{path}: images must be finite and in 0..1")
    if poses.shape != (len(images), 4, 4):
        raise UserError(f"{path}: poses must be ({len(images)}, 4, 4), one per image, found {poses.shape}")
    if focal.size != 1 or not np.isfinite(focal).all() or focal.item() <= 0:
        raise UserError(f"{path}: focal must be one positive number")
    pose_V44 = torch.stack([check_pose(pose, f"{path}, view {i}") for i, pose in enumerate(poses)])
    return Views(torch.from_numpy(images.astype(np.float32)), pose_V44, focal.item())


def read_demo(part: str, views: int, size: int, background: float) -> Views:
    """Views of the demo scene (`ocd_core.tasks.views.demo_scene`), part `train` or `test`."""
    pose_V44 = demo_poses(part, views)
    return Views(render_views(pose_V44, size, background), pose_V44.float(), focal_length(size, CAMERA_ANGLE_X))
