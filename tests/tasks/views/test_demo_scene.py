import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ocd_core.rng import torch_generator
from ocd_core.tasks.views.demo_scene import SOLIDS, demo_poses, distance, render_views, trace
from ocd_core.tasks.views.sources import check_pose


@pytest.fixture(scope="module")
def pictures():
    return render_views(demo_poses("train", 6), 24)


def test_pictures_are_the_same_each_time_and_in_range(pictures):
    assert pictures.shape == (6, 24, 24, 3)
    assert pictures.dtype == torch.float32
    assert 0 <= pictures.min() < pictures.max() <= 1
    assert torch.equal(pictures[2:3], render_views(demo_poses("train", 6)[2:3], 24))


def test_several_colours_are_seen_before_a_black_background(pictures):
    red, green, blue = pictures.flatten(0, 2).unbind(-1)
    share = {
        "red": (red > 2 * green) & (red > 2 * blue),
        "blue": (blue > 1.5 * red) & (blue > 1.2 * green),
        "yellow": (red > 0.3) & (green > 0.6 * red) & (blue < 0.5 * red),
        "green": (green > 1.5 * red) & (green > 1.5 * blue),
        "black": red + green + blue == 0,
    }
    assert {name: round(mask.float().mean().item(), 3) > 0.005 for name, mask in share.items()} == dict.fromkeys(
        share, True
    )
    assert 0.2 < share["black"].float().mean() < 0.7


def test_white_background_changes_only_what_the_solids_leave_free(pictures):
    white = render_views(demo_poses("train", 6)[:1], 24, background=1.0)
    difference = white - pictures[:1]
    assert difference.max() == 1
    assert difference.min() > -1e-6
    torch.testing.assert_close(difference[..., 0], difference[..., 1], atol=1e-6, rtol=0)
    assert (difference.abs() < 1e-6).any()


@pytest.mark.parametrize(("split", "views"), [("train", 60), ("test", 30)])
def test_cameras_look_at_the_middle_from_above(split, views):
    poses = demo_poses(split, views)
    for pose in poses:
        check_pose(pose, "demo")
    position, forward, up = poses[:, :3, 3], -poses[:, :3, 2], poses[:, :3, 1]
    torch.testing.assert_close(torch.linalg.vector_norm(position, dim=1), torch.full((views,), 4.0).double())
    torch.testing.assert_close(position + 4 * forward, torch.zeros(views, 3).double())
    assert bool((position[:, 2] > 0).all())
    assert bool((up[:, 2] > 0).all())


def test_test_cameras_are_new():
    train, test = demo_poses("train", 60)[:, :3, 3], demo_poses("test", 30)[:, :3, 3]
    assert torch.cdist(test, train).min() > 0.01


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6))
def test_distances_never_grow_faster_than_the_way(seed):
    generator = torch_generator(seed, "points")
    a, b = (torch.rand(40, 3, generator=generator, dtype=torch.float64) * 3 - 1.5 for _ in range(2))
    way = torch.linalg.vector_norm(a - b, dim=1)
    for solid in SOLIDS:
        assert bool(((solid.distance(a) - solid.distance(b)).abs() <= way + 1e-9).all())


def test_rays_hit_where_dense_sampling_finds_a_solid():
    generator = torch_generator(5, "rays")
    origin = torch.nn.functional.normalize(torch.randn(300, 3, generator=generator, dtype=torch.float64), dim=-1) * 4
    origin[:, 2] = origin[:, 2].abs()
    aim = torch.rand(300, 3, generator=generator, dtype=torch.float64) * 3 - 1.5
    way = torch.nn.functional.normalize(aim - origin, dim=-1)
    along = torch.linspace(2, 6.5, 3000, dtype=torch.float64)
    points = origin[:, None] + along[:, None] * way[:, None]
    nearest = distance(points.flatten(0, 1)).reshape(300, -1).amin(1)
    hit = trace(origin, way)[1].bool()
    assert hit[nearest < -1e-3].all()
    assert not hit[nearest > 4e-3].any()
    assert 0.1 < hit.double().mean() < 0.9


def test_highlights_depend_on_the_viewing_direction():
    top = torch.tensor([-0.5, -0.45, 0.05]) + 0.45 * torch.tensor([0.35, -0.25, math.sqrt(1 - 0.35**2 - 0.25**2)])
    origin = torch.tensor([[2.0, -1.5, 3.0], [-2.0, 1.5, 3.0]])
    colour, hit = trace(origin, top - origin)
    assert hit.tolist() == [1, 1]
    assert (colour[0] - colour[1]).abs().max() > 0.05
