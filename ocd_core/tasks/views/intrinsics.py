"""What transforms files say of a camera besides NeRF's `camera_angle_x` (as instant-ngp and nerfstudio write it).

Rays are those of a pinhole camera with square pixels whose axis meets the image at its centre. A file that says
otherwise is refused, because its rays would be shifted without a word.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from ocd_core.errors import UserError
from ocd_core.models.parts.rendering import focal_length

_PINHOLE = ("PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE")
_DISTORTED = ("OPENCV", "FULL_OPENCV", "RADIAL", "SIMPLE_RADIAL")  # pinhole cameras if their coefficients are 0
_COEFFICIENT = re.compile(r"[kp]\d")
_CLOSE = 0.5  # pixels by which a ray may be off
_LEAST = 1e-6  # focal length or angle
_REMEDY = (
    "make the photographs those of a pinhole camera whose axis is at their centre (undistort and crop them), and give "
    "its camera_angle_x"
)


def check_intrinsics(values: Mapping[str, Any], angle: float, width: int, height: int, where: str) -> None:
    """Refuse a camera whose rays are not those that the field of view alone gives.

    Args:
        values: what the file says of the camera, for one frame; every key may be missing.
        angle: the horizontal field of view in radians.
        width, height: of the photograph in pixels; the file may speak of another size (`w`, `h`).

    Raises:
        UserError: the camera has a distortion, another model, an axis that is not at the centre, or other focal lengths
            or angles than `angle` says; `w` and `h` have other proportions than the photograph; or a value is not a
            number.
    """
    model = values.get("camera_model")
    if model is not None and str(model).upper() not in (*_PINHOLE, *_DISTORTED):
        raise UserError(f"{where}: camera_model is {model!r}; {_REMEDY}")
    if values.get("is_fisheye"):
        raise UserError(f"{where}: is_fisheye is set; {_REMEDY}")
    several = values.get("distortion_params")
    listed = several if isinstance(several, list) else [several]
    coefficients = {f"distortion_params[{i}]": value for i, value in enumerate(listed)}
    coefficients |= {key: value for key, value in values.items() if _COEFFICIENT.fullmatch(key)}
    for key in coefficients:
        found = _number(coefficients, key, where)
        if found:
            raise UserError(f"{where}: the photographs are distorted ({key} is {found:g}); {_REMEDY}")
    w, h = (_number(values, key, where) for key in ("w", "h"))
    w, h = width if w is None else w, height if h is None else h
    if w <= 0 or h <= 0 or abs(w * height - h * width) > max(w, h):
        raise UserError(f"{where}: w and h are {w:g} and {h:g}, but the photograph has {width}x{height} pixels")
    focal = focal_length(1, angle) * w
    for key, size in (("cx", w), ("cy", h)):
        found = _number(values, key, where)
        if found is not None and abs(found - size / 2) > _CLOSE:
            raise UserError(f"{where}: {key} is {found:g}, but the centre of the image is at {size / 2:g}; {_REMEDY}")
    for key, size in (("fl_x", w), ("fl_y", h), ("camera_angle_x", w), ("camera_angle_y", h)):
        found = _number(values, key, where)
        if found is None:
            continue
        if found < _LEAST or (key.startswith("camera") and found >= math.pi):
            raise UserError(f"{where}: {key} is {found:g}, which no camera has")
        length = focal_length(1, found) * size if key.startswith("camera") else found
        if abs(length / focal - 1) * size / 2 > _CLOSE:
            raise UserError(
                f"{where}: {key} is {found:g}, a focal length of {length:g} pixels, but camera_angle_x stands for "
                f"{focal:g}; {_REMEDY}"
            )


def _number(values: Mapping[str, Any], key: str, where: str) -> float | None:
    """A finite number; None if it is missing or null.

    Raises:
        UserError: it is something else.
    """
    value = values.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e15:
        raise UserError(f"{where}: {key} must be a number, not {value!r}")
    return float(value)
