"""Which cameras have the rays of a field of view alone: by projecting these rays with the file's own intrinsics."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from ocd_core.errors import UserError
from ocd_core.models.parts.rendering import camera_rays, focal_length
from ocd_core.tasks.views.intrinsics import check_intrinsics

WIDTH, HEIGHT, ANGLE = 40, 30, 0.9
FOCAL = focal_length(WIDTH, ANGLE)
PLAIN = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2}


def off(camera: dict[str, float]) -> float:
    """By how many pixels the rays of the corners miss them, for a camera with this matrix of intrinsics."""
    corners = torch.tensor([[[0.0, 0.0], [WIDTH, 0.0], [0.0, HEIGHT], [WIDTH, HEIGHT]]])
    _, ray_1R3 = camera_rays(torch.eye(4)[None], corners, HEIGHT, WIDTH, FOCAL)
    # OpenCV's axes: y down, z forward
    x, y, z = (ray_1R3[0].double() * torch.tensor([1.0, -1.0, -1.0])).numpy().T
    matrix = np.array([[camera["fl_x"], 0, camera["cx"]], [0, camera["fl_y"], camera["cy"]], [0, 0, 1]])
    projected = matrix @ np.stack([x, y, z])
    return float(np.abs(projected[:2] / projected[2] - corners[0].numpy().T).max())


def refused(**values: Any) -> str | None:
    try:
        check_intrinsics(values, ANGLE, WIDTH, HEIGHT, "a file")
    except UserError as error:
        return str(error)
    return None


@given(st.sampled_from(list(PLAIN)), st.floats(-3, 3))
def test_a_camera_is_refused_if_a_ray_misses_its_pixel_by_more_than_half_a_pixel(key: str, change: float) -> None:
    camera = {**PLAIN, key: PLAIN[key] + change}
    assume(abs(off(camera) - 0.5) > 1e-3)
    assert (refused(**camera) is not None) == (off(camera) > 0.5)
    angles = {"camera_angle_x": 2 * math.atan(WIDTH / 2 / camera["fl_x"]),
              "camera_angle_y": 2 * math.atan(HEIGHT / 2 / camera["fl_y"])}  # fmt: skip
    if key.startswith("fl"):
        assert (refused(**angles) is not None) == (off(camera) > 0.5)


def test_the_file_may_speak_of_larger_photographs() -> None:
    larger = {"w": 3 * WIDTH, "h": 3 * HEIGHT, **{key: 3 * value for key, value in PLAIN.items()}}
    assert refused(**larger) is None
    assert refused(w=WIDTH + 1, h=HEIGHT) is None  # rounded when they were shrunk
    assert "cx is 20, but the centre of the image is at 60" in str(refused(**PLAIN, w=3 * WIDTH, h=3 * HEIGHT))
    assert refused(w=HEIGHT, h=WIDTH) == "a file: w and h are 30 and 40, but the photograph has 40x30 pixels"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"camera_model": "OPENCV_FISHEYE"},
            "camera_model is 'OPENCV_FISHEYE'; make the photographs those of a pinhole",
        ),
        ({"is_fisheye": True}, "is_fisheye is set; make"),
        ({"camera_model": "OPENCV", "k3": 0.1}, r"the photographs are distorted \(k3 is 0\.1\); make"),
        ({"distortion_params": [0, 0.2]}, r"the photographs are distorted \(distortion_params\[1\] is 0\.2\); make"),
        ({"fl_x": "30"}, "fl_x must be a number, not '30'"),
        ({"cy": math.nan}, "cy must be a number, not nan"),
        ({"k1": True}, "k1 must be a number, not True"),
        ({"fl_y": 0}, "fl_y is 0, which no camera has"),
        ({"camera_angle_y": 4}, "camera_angle_y is 4, which no camera has"),
        ({"w": 0, "h": 0}, "w and h are 0 and 0, but the photograph has 40x30 pixels"),
    ],
)
def test_what_cannot_be_read(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"a file: {message}"):
        check_intrinsics(values, ANGLE, WIDTH, HEIGHT, "a file")


def test_what_is_missing_null_or_zero_is_no_obstacle() -> None:
    assert refused() is None
    assert refused(camera_model="pinhole", is_fisheye=False, k1=0, distortion_params=[0, 0.0], cx=None) is None
