import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ocd_core.models.parts.rendering import (
    LAST_INTERVAL,
    camera_rays,
    depths_in_bins,
    focal_length,
    pixel_xy,
    volume_render,
    volume_weights,
)
from ocd_core.rng import torch_generator
from ocd_core.tasks.views.demo_scene import look_at_middle


def composite_by_hand(density, depths):
    """Weights of one ray, front to back, in Python floats."""
    light, weights = 1.0, []
    for i, (sigma, depth) in enumerate(zip(density, depths, strict=True)):
        gap = depths[i + 1] - depth if i + 1 < len(depths) else LAST_INTERVAL
        alpha = 1 - math.exp(-max(sigma, 0.0) * gap)
        weights.append(light * alpha)
        light *= 1 - alpha
    return weights


def test_focal_length_sees_half_the_angle_at_the_edge():
    focal = focal_length(100, 0.6911112070083618)
    assert math.atan(50 / focal) == pytest.approx(0.6911112070083618 / 2)
    assert focal_length(2, math.pi / 2) == pytest.approx(1.0)


def test_pixel_numbers_run_along_rows():
    assert pixel_xy(torch.tensor([[0, 4, 5, 14]]), 5)[0].tolist() == [[0, 0], [4, 0], [0, 1], [4, 2]]


def test_rays_of_a_camera_that_was_not_moved():
    xy = torch.tensor([[[2.0, 1.0], [0.0, 0.0], [4.0, 2.0]]])
    origins, directions = camera_rays(torch.eye(4)[None], xy, height=2, width=4, focal=2.0)
    assert torch.equal(origins, torch.zeros(1, 3, 3))
    assert directions[0].tolist() == [[0, 0, -1], [-1, 0.5, -1], [1, -0.5, -1]]


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 40), width=st.integers(1, 40), depth=st.floats(0.5, 9))
def test_points_on_a_ray_project_back_to_its_pixel(seed, height, width, depth):
    generator = torch_generator(seed, "rays")
    pose = look_at_middle(torch.randn(2, 3, generator=generator, dtype=torch.float64) + torch.tensor([0.0, 4.0, 0.3]))
    focal = 0.7 * width
    pixel = torch.randint(height * width, (2, 5), generator=generator)
    origins, directions = camera_rays(pose, pixel_xy(pixel, width), height, width, focal)
    for view in range(2):
        for ray in range(5):
            point = np.append((origins + depth * directions)[view, ray].numpy(), 1.0)
            x, y, z, _ = np.linalg.inv(pose[view].numpy()) @ point
            assert -z == pytest.approx(depth)
            column, row = focal * x / -z + width / 2, height / 2 - focal * y / -z
            assert column == pytest.approx(pixel[view, ray].item() % width, abs=1e-6)
            assert row == pytest.approx(pixel[view, ray].item() // width, abs=1e-6)


def test_mid_bin_depths():
    assert depths_in_bins(2.0, 6.0, torch.full((2, 4), 0.5)).tolist() == [[2.5, 3.5, 4.5, 5.5]] * 2


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 40), near=st.floats(0.1, 3), extent=st.floats(0.1, 5))
def test_each_depth_stays_in_its_bin(seed, count, near, extent):
    position = torch.rand(3, count, generator=torch_generator(seed, "depths"), dtype=torch.float64)
    depths = depths_in_bins(near, near + extent, position)
    edges = torch.from_numpy(np.linspace(near, near + extent, count + 1))
    assert bool((depths >= edges[:-1] - 1e-9).all())
    assert bool((depths <= edges[1:] + 1e-9).all())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_weights_match_front_to_back_compositing(dtype, tolerance):
    generator = torch_generator(3, "weights")
    # the last density is large: with its interval of 1e10 it would swallow the other terms of a plain cumulative sum
    density = torch.randn(6, 9, generator=generator) * 3
    density[:3, -1] = 5.0
    depths = torch.sort(torch.rand(6, 9, generator=generator) * 4 + 2).values
    weights = volume_weights(density.to(dtype), depths.to(dtype))
    expected = [
        composite_by_hand(s, z) for s, z in zip(density.double().tolist(), depths.double().tolist(), strict=True)
    ]
    torch.testing.assert_close(weights.double(), torch.tensor(expected, dtype=torch.float64), atol=tolerance, rtol=1e-4)


def test_constant_density_has_geometric_weights():
    sigma, gap = 0.7, 0.25
    weights = volume_weights(torch.full((8,), sigma, dtype=torch.float64), torch.arange(8) * gap + 2.0)
    expected = [(1 - math.exp(-sigma * gap)) * math.exp(-sigma * gap * i) for i in range(7)]
    assert weights[:7].tolist() == pytest.approx(expected)
    assert weights.sum().item() == pytest.approx(1)  # the last interval takes what is left


def rendered(field, depths, background):
    return volume_render(field, volume_weights(field[..., 3], depths), background)


def test_a_wall_shows_its_own_colour_and_nothing_shows_the_background():
    depths = depths_in_bins(2.0, 6.0, torch.full((1, 5), 0.5))
    field = torch.full((1, 5, 4), -3.0)
    assert rendered(field, depths, 0.0).tolist() == [[0, 0, 0]]
    assert rendered(field, depths, 1.0).tolist() == [[1, 1, 1]]
    field[0, 2] = torch.tensor([0.0, 2.0, -1.0, 1e6])
    field[0, 4] = torch.tensor([9.0, 9.0, 9.0, 1e6])  # hidden behind the wall
    expected = [1 / (1 + math.exp(-v)) for v in (0.0, 2.0, -1.0)]
    assert rendered(field, depths, 1.0)[0].tolist() == pytest.approx(expected)


def test_gradients_pass_a_numerical_check():
    generator = torch_generator(4, "gradient")
    field = torch.randn(2, 4, 4, generator=generator, dtype=torch.float64) + 0.5
    field[..., -1, 3] = 2.0
    depths = depths_in_bins(2.0, 6.0, torch.rand(2, 4, generator=generator, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda f: rendered(f, depths, 1.0), (field.requires_grad_(True),))
