"""Rays of posed photographs, against the camera's equation pixel by pixel."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from ocd_core.tasks.views.demo_scene import demo_poses
from ocd_core.tasks.views.params import ViewsData
from ocd_core.tasks.views.sources import Views
from ocd_core.tasks.views.split import ViewSplit, in_random_order, pixels_in_random_order
from tests.support.scenes import DEMO

HEIGHT, WIDTH, FOCAL = 3, 5, 4.0
PIXELS = HEIGHT * WIDTH


@pytest.fixture
def split() -> ViewSplit:
    image = torch.rand(4, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(0))
    return ViewSplit(Views(image, demo_poses("train", 4).float(), FOCAL), "train", ViewsData.model_validate(DEMO))


@cache
def direction(view: int, row: int, column: int) -> Tensor:
    """Of the ray through a pixel: the camera looks along -z, x to the right, y up."""
    own = np.array([(column - WIDTH / 2) / FOCAL, -(row - HEIGHT / 2) / FOCAL, -1.0])
    return torch.from_numpy(demo_poses("train", 4)[view, :3, :3].double().numpy() @ own).float()


def test_whole_views_are_images_of_rays(split: ViewSplit) -> None:
    batch = split.batch(torch.tensor([2, 0]))
    origins, directions, depths = batch.inputs
    assert torch.equal(batch.target, split.views.image_VHWC[[2, 0]])
    assert batch.sample_id.tolist() == [2, 0]
    middles = [2 + 4 * (d + 0.5) / 8 for d in range(8)]
    offset = directions[0, 0, 0] - direction(2, 0, 0)  # a pixel's corner or its middle: the same for all pixels
    assert offset.abs().max() < 0.5 / FOCAL * math.sqrt(2)
    for n, view in enumerate((2, 0)):
        for row in range(HEIGHT):
            for column in range(WIDTH):
                assert torch.equal(origins[n, row, column], split.views.pose_V44[view, :3, 3])
                torch.testing.assert_close(
                    directions[n, row, column] - directions[n, 0, 0],
                    direction(view, row, column) - direction(view, 0, 0),
                )
                assert depths[n, row, column].tolist() == pytest.approx(middles)


def test_chosen_pixels_are_those_of_the_whole_view(split: ViewSplit) -> None:
    ids, pixel = torch.tensor([1, 3]), torch.tensor([[14, 0, 7], [3, 3, 9]])
    place = torch.rand(2, 3, 8, generator=torch.Generator().manual_seed(1))
    whole, rays = split.batch(ids), split.rays(ids, pixel, place)
    for n in range(2):
        for r in range(3):
            row, column = divmod(int(pixel[n, r]), WIDTH)
            for found, wanted in zip((*rays.inputs[:2], rays.target), (*whole.inputs[:2], whole.target), strict=True):
                assert torch.equal(found[n, r], wanted[n, row, column])
            wanted = [2 + 4 * (d + float(place[n, r, d])) / 8 for d in range(8)]
            assert rays.inputs[2][n, r].tolist() == pytest.approx(wanted)


def test_each_view_and_replica_has_an_order_of_all_pixels_that_repeats(split: ViewSplit) -> None:
    ids, replica, places = torch.tensor([1, 1, 3]), torch.tensor([0, 1, 0]), torch.arange(2 * PIXELS)
    found = pixels_in_random_order(split, ids, replica, places, seed=5)
    for row in found.tolist():
        assert sorted(row[:PIXELS]) == list(range(PIXELS))
        assert row[PIXELS:] == row[:PIXELS]
    orders = {tuple(row) for row in found.tolist()}
    orders.add(tuple(pixels_in_random_order(split, ids[:1], replica[:1], places, seed=6)[0].tolist()))
    other = ViewSplit(split.views, "val", split.data)
    orders.add(tuple(pixels_in_random_order(other, ids[:1], replica[:1], places, seed=5)[0].tolist()))
    assert len(orders) == 5
    alone = pixels_in_random_order(split, ids[2:], replica[2:], places[4:9], seed=5)
    assert torch.equal(alone, found[2:, 4:9])


def test_rays_in_that_order(split: ViewSplit) -> None:
    ids, replica, places = torch.tensor([0, 2]), torch.tensor([1, 0]), torch.tensor([3, 20])
    found = in_random_order(split, ids, replica, places, 5)
    wanted = split.rays(ids, pixels_in_random_order(split, ids, replica, places, 5))
    assert torch.equal(found.target, wanted.target)
    assert all(torch.equal(a, b) for a, b in zip(found.inputs, wanted.inputs, strict=True))
