"""Camera rays and volume rendering (Mildenhall et al., 2021, Sec. 4).

Cameras follow Blender: the pose is a camera-to-world matrix, the camera looks along its own −z axis, and y is up. All
functions are plain tensor expressions in the dtype of their inputs, so that torch.fx can trace a model that uses them.

Dims: N views, R rays (or any number of ray axes, written ...), D depths along a ray.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAST_INTERVAL = 1e10  # the last depth stands for everything behind it


def focal_length(width: int, camera_angle_x: float) -> float:
    """The focal length in pixels, from the horizontal field of view in radians."""
    return 0.5 * width / math.tan(0.5 * camera_angle_x)


def pixel_xy(pixel_NR: Tensor, width: int) -> Tensor:
    """Column and row of each pixel, (N, R, 2) float32, from its number row · width + column (int64)."""
    return torch.stack([pixel_NR % width, torch.div(pixel_NR, width, rounding_mode="floor")], -1).float()


def camera_rays(pose_N44: Tensor, xy_NR2: Tensor, height: int, width: int, focal: float) -> tuple[Tensor, Tensor]:
    """Rays through points of the image.

    Args:
        pose_N44: camera-to-world matrices, float.
        xy_NR2: column and row, in pixels from the upper left corner; a pixel's ray goes through the pixel's upper left
            corner, as in TinyNeRF.
        height, width: image size in pixels.
        focal: focal length in pixels.

    Returns:
        Origins and directions, each (N, R, 3), in the dtype of the poses. Directions have length 1 along the camera's
        axis, so that a depth is a distance from the camera's plane.
    """
    x_NR, y_NR = xy_NR2.to(pose_N44.dtype).unbind(-1)
    local_NR3 = torch.stack([(x_NR - 0.5 * width) / focal, -(y_NR - 0.5 * height) / focal, -torch.ones_like(x_NR)], -1)
    # not a matrix product, because its rounding would depend on the number of rays
    directions_NR3 = (local_NR3.unsqueeze(-2) * pose_N44[:, None, :3, :3]).sum(-1)
    origins_NR3 = pose_N44[:, None, :3, 3].expand_as(directions_NR3)
    return origins_NR3.contiguous(), directions_NR3


def depths_in_bins(near: float, far: float, position: Tensor) -> Tensor:
    """One depth in each of D equal bins from near to far.

    Args:
        position: (..., D) in 0..1, the place within each bin: 0.5 for mid-bin depths, uniform random numbers for
            stratified depths.
    """
    count = position.shape[-1]
    return near + (far - near) / count * (torch.arange(count, dtype=position.dtype) + position)


def volume_weights(density: Tensor, depths: Tensor) -> Tensor:
    """w_i = T_i (1 − exp(−σ_i δ_i)), T_i = exp(−Σ_{j<i} σ_j δ_j), with σ = relu(density).

    Both arguments and the result are (..., D); δ_i is the distance to the next depth, `LAST_INTERVAL` for the last.
    """
    gap = torch.cat([depths[..., 1:] - depths[..., :-1], torch.full_like(depths[..., :1], LAST_INTERVAL)], -1)
    optical = F.relu(density) * gap
    # summed without the last entry, which is so large that the others would be lost in rounding
    before = F.pad(torch.cumsum(optical[..., :-1], -1), (1, 0))
    return -torch.expm1(-optical) * torch.exp(-before)


class VolumeWeights(nn.Module):
    """`volume_weights` as a module, so that what it gives can be observed."""

    def forward(self, density: Tensor, depths: Tensor) -> Tensor:
        """Both arguments and the result are (..., D)."""
        return volume_weights(density, depths)


def volume_render(field: Tensor, weights: Tensor, background: float) -> Tensor:
    """Colours (..., 3) of rays.

    Args:
        field: (..., D, 4), colour before its sigmoid and density before its relu at each depth.
        weights: (..., D), the `volume_weights` of the field.
        background: grey level in 0..1 behind everything.
    """
    colour = (weights.unsqueeze(-1) * torch.sigmoid(field[..., :3])).sum(-2)
    return colour + background * (1 - weights.sum(-1, keepdim=True))
