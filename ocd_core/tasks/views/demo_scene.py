"""A scene that needs no data: shaded solids on a tiled disc, ray-marched from a formula.

Everything is deterministic. z is up, the scene fits in a ball of radius 1.45, and cameras look at its middle from a
distance of 4, as in the Blender scenes of Mildenhall et al. (2021). Highlights depend on the viewing direction, which
a field of positions alone cannot represent: each view needs a different field.

Dims: V views, K points or rays, S solids.
"""

import math
from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ocd_core.models.parts.rendering import camera_rays, focal_length, pixel_xy

CAMERA_ANGLE_X = 0.6911112070083618  # radians, as in the Blender scenes
CAMERA_DISTANCE = 4.0
_BALL = 1.45
_SUN = torch.tensor([0.45, -0.35, 0.82], dtype=torch.float64)
_SUN /= torch.linalg.vector_norm(_SUN)


class Solid(NamedTuple):
    """One solid of the scene.

    distance: points (K, 3) to signed distances (K,). colour, second_colour: of its two patterns. shine: the strength of
    its highlights.
    """

    distance: Callable[[Tensor], Tensor]
    colour: tuple[float, float, float]
    second_colour: tuple[float, float, float]
    shine: float


def _length(v: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(v, dim=-1)
    return length


def _sphere(p: Tensor) -> Tensor:
    return _length(p - p.new_tensor([-0.5, -0.45, 0.05])) - 0.45


def _box(p: Tensor) -> Tensor:
    q = p - p.new_tensor([0.55, -0.3, 0.0])
    c, s = math.cos(0.6), math.sin(0.6)
    q = torch.stack([c * q[:, 0] + s * q[:, 1], c * q[:, 1] - s * q[:, 0], q[:, 2]], -1)
    q = q.abs() - p.new_tensor([0.32, 0.32, 0.36])
    return _length(q.clamp(min=0)) + q.amax(-1).clamp(max=0) - 0.04


def _torus(p: Tensor) -> Tensor:
    q = p - p.new_tensor([0.1, 0.6, 0.12])
    c, s = math.cos(0.9), math.sin(0.9)
    y, z = c * q[:, 1] + s * q[:, 2], c * q[:, 2] - s * q[:, 1]
    ring = torch.hypot(q[:, 0], y) - 0.42
    return torch.hypot(ring, z) - 0.15


def _pillar(p: Tensor) -> Tensor:
    q = p - p.new_tensor([0.05, 0.1, 0.1])
    height = q[:, 2].clamp(-0.4, 0.75)
    return _length(torch.stack([q[:, 0], q[:, 1], q[:, 2] - height], -1)) - 0.13


def _disc(p: Tensor) -> Tensor:
    radial, level = torch.hypot(p[:, 0], p[:, 1]) - 1.25, (p[:, 2] + 0.45).abs() - 0.05
    outside = torch.stack([radial, level], -1)
    return _length(outside.clamp(min=0)) + outside.amax(-1).clamp(max=0)


SOLIDS = (
    Solid(_sphere, (0.90, 0.20, 0.16), (0.90, 0.20, 0.16), 0.7),
    Solid(_box, (0.16, 0.36, 0.85), (0.30, 0.58, 0.95), 0.2),
    Solid(_torus, (0.96, 0.76, 0.15), (0.96, 0.76, 0.15), 0.6),
    Solid(_pillar, (0.20, 0.70, 0.33), (0.90, 0.93, 0.88), 0.3),
    Solid(_disc, (0.72, 0.72, 0.76), (0.42, 0.42, 0.48), 0.0),
)


def distance(p_K3: Tensor) -> Tensor:
    """Signed distance to the nearest solid, (K,)."""
    return torch.stack([solid.distance(p_K3) for solid in SOLIDS]).amin(0)


def _march(origin_K3: Tensor, direction_K3: Tensor, start_K: Tensor, end_K: Tensor) -> Tensor:
    """Distance along unit rays to the first solid by sphere tracing, (K,); inf if there is none before `end_K`."""
    found_K = torch.full_like(start_K, math.inf)
    active = torch.nonzero(start_K < end_K).squeeze(1)
    t = start_K[active]
    for _ in range(96):
        gap = distance(origin_K3[active] + t[:, None] * direction_K3[active])
        hit = gap < 1e-3
        found_K[active[hit]] = t[hit]
        t = t + gap
        going = ~hit & (t < end_K[active])
        active, t = active[going], t[going]
        if not len(active):
            break
    return found_K


def _shade(p_K3: Tensor, view_K3: Tensor) -> Tensor:
    """Colours (K, 3) of surface points seen from the unit directions `view_K3` (towards the camera)."""
    eps = 1e-3
    offsets = torch.eye(3, dtype=p_K3.dtype) * eps
    normal_K3 = torch.stack([distance(p_K3 + o) - distance(p_K3 - o) for o in offsets], -1)
    normal_K3 = F.normalize(normal_K3, dim=-1)
    solid_K = torch.stack([solid.distance(p_K3) for solid in SOLIDS]).argmin(0)
    tiles = torch.floor(p_K3 / 0.31 + 0.13).long()
    odd_K = torch.where(solid_K == 4, tiles[:, 0] + tiles[:, 1], tiles[:, 2]) % 2 == 1
    first, second = (torch.tensor([s[i] for s in SOLIDS], dtype=p_K3.dtype)[solid_K] for i in (1, 2))
    shine_K = torch.tensor([s.shine for s in SOLIDS], dtype=p_K3.dtype)[solid_K]

    start = torch.full((len(p_K3),), 0.02, dtype=p_K3.dtype)
    lit_K = torch.isinf(_march(p_K3 + 5e-3 * normal_K3, _SUN.expand_as(p_K3), start, torch.full_like(start, 3.0)))
    facing_K = (normal_K3 @ _SUN).clamp(min=0) * lit_K
    half_K3 = F.normalize(view_K3 + _SUN, dim=-1)
    highlight_K = shine_K * lit_K * (normal_K3 * half_K3).sum(-1).clamp(min=0) ** 40
    ambient_K = 0.35 + 0.1 * normal_K3[:, 2]
    colour_K3 = torch.where(odd_K[:, None], second, first)
    return (colour_K3 * (ambient_K + 0.65 * facing_K)[:, None] + highlight_K[:, None]).clamp(0, 1)


def trace(origin_K3: Tensor, direction_K3: Tensor) -> tuple[Tensor, Tensor]:
    """Colours (K, 3) and coverage (K,) in {0, 1} of rays, float64; both are 0 if a ray meets nothing."""
    origin, direction = origin_K3.double(), direction_K3.double()
    direction = F.normalize(direction, dim=-1)
    middle = -(origin * direction).sum(-1)
    inside = _BALL**2 - ((origin + middle[:, None] * direction) ** 2).sum(-1)
    half = inside.clamp(min=0).sqrt()
    t = _march(origin, direction, (middle - half).clamp(min=0), torch.where(inside > 0, middle + half, -math.inf))
    hit = torch.isfinite(t)
    colour = torch.zeros_like(origin)
    colour[hit] = _shade(origin[hit] + t[hit, None] * direction[hit], -direction[hit])
    return colour, hit.double()


def look_at_middle(position_V3: Tensor) -> Tensor:
    """Camera-to-world matrices (V, 4, 4) of cameras that look at the origin, with z up."""
    back = F.normalize(position_V3, dim=-1)
    right = F.normalize(torch.linalg.cross(position_V3.new_tensor([0.0, 0.0, 1.0]).expand_as(back), back), dim=-1)
    pose = torch.eye(4, dtype=position_V3.dtype).repeat(len(position_V3), 1, 1)
    pose[:, :3, :] = torch.stack([right, torch.linalg.cross(back, right), back, position_V3], -1)
    return pose


def demo_poses(split: str, views: int) -> Tensor:
    """Camera poses, (views, 4, 4) float64.

    `train` covers the upper half of the sphere with a golden spiral; `test` is a flight around the scene.
    """
    k = torch.arange(views, dtype=torch.float64)
    if split == "train":
        height = 0.08 + 0.84 * (k + 0.5) / views
        angle = k * math.pi * (3 - math.sqrt(5))
    else:
        angle = 2 * math.pi * k / views
        height = 0.5 + 0.2 * torch.sin(2 * angle)
    radius = (1 - height**2).sqrt()
    return look_at_middle(CAMERA_DISTANCE * torch.stack([radius * angle.cos(), radius * angle.sin(), height], -1))


def render_views(pose_V44: Tensor, size: int, background: float = 0.0, supersampling: int = 2) -> Tensor:
    """Images of the scene, (V, size, size, 3) float32 in 0..1, averaged over supersampling² rays per pixel."""
    xy = pixel_xy(torch.arange(size * size)[None], size).double()
    focal = focal_length(size, CAMERA_ANGLE_X)
    steps = (torch.arange(supersampling, dtype=torch.float64) + 0.5) / supersampling - 0.5
    shifts = torch.cartesian_prod(steps, steps)
    every = torch.cat([xy + shift for shift in shifts], 1)  # of a view at once: marching few rays costs as much as many
    pictures = []
    for pose_44 in pose_V44.double():
        origin, direction = camera_rays(pose_44[None], every, size, size, focal)
        colour, covered = trace(origin[0], direction[0])
        total = reduce(torch.add, (colour + background * (1 - covered[:, None])).reshape(len(shifts), -1, 3))
        pictures.append((total / len(shifts)).reshape(size, size, 3).float())
    return torch.stack(pictures)
