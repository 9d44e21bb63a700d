"""Crop and flip against a loop over samples and pixels; its randomness; that only the base's training sees it."""

import math

import numpy as np
import torch
from scipy.ndimage import map_coordinates

from ocd_core.rng import sample_uniform
from ocd_core.tasks.images.augment import PADDING, affine, crop_flip


def images(count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Every pixel is another number."""
    return torch.arange(1, count * 3 * 5 * 4 + 1).view(count, 3, 5, 4).to(dtype)


FILL = torch.tensor([-1.0, -2.0, -3.0])


def found_at(result_CHW: torch.Tensor, image_CHW: torch.Tensor) -> list[tuple[int, int, bool]]:
    """All shifts and flips that turn an image into the result, tried pixel by pixel."""
    _, height, width = image_CHW.shape
    possible = []
    for dy in range(-PADDING, PADDING + 1):
        for dx in range(-PADDING, PADDING + 1):
            for flip in (False, True):
                wanted = torch.empty_like(image_CHW)
                for y in range(height):
                    for x in range(width):
                        at = (y + dy, (width - 1 - x if flip else x) + dx)
                        inside = 0 <= at[0] < height and 0 <= at[1] < width
                        wanted[:, y, x] = image_CHW[:, at[0], at[1]] if inside else FILL
                if torch.equal(wanted, result_CHW):
                    possible.append((dy, dx, flip))
    return possible


def test_each_result_is_a_crop_of_the_padded_image_or_its_mirror_image() -> None:
    image = images(12)
    result = crop_flip(image, FILL, torch.arange(12), seed=0, epoch=1)
    assert result.dtype == image.dtype
    assert result.shape == image.shape
    assert all(found_at(r, i) for r, i in zip(result, image, strict=True))


def test_shifts_and_flips_are_uniform() -> None:
    """On one-pixel images in a wide frame, the pixel tells the shift; 4,000 draws, bounds of five deviations."""
    size, count = 11, 4000
    image = torch.zeros(count, 1, size, size)
    image[:, 0, 5, 6] = 1  # beside the middle, so that a flip shows
    result = crop_flip(image, torch.zeros(1), torch.arange(count), seed=3, epoch=2)
    places = result.flatten(1).argmax(1)
    rows = torch.bincount(places // size, minlength=size)[1:10]
    assert rows.sum() == count
    expected = count / 9
    assert ((rows - expected).abs() < 5 * (expected * 8 / 9) ** 0.5).all()
    # without a flip, the pixel is in columns 2 to 10; with one, in 0 to 8: the ends tell them apart
    columns = torch.bincount(places % size, minlength=size).float() / count
    assert (columns[[0, 1, 9, 10]] - 1 / 18).abs().max() < 5 * (1 / 18 / count) ** 0.5
    assert (columns[2:9] - 1 / 9).abs().max() < 5 * (1 / 9 / count) ** 0.5


def test_it_depends_on_seed_epoch_and_sample_id_alone() -> None:
    image = images(8)
    ids = torch.tensor([5, 0, 70000, 3, 2, 9, 11, 4])
    result = crop_flip(image, FILL, ids, seed=1, epoch=4)
    order = torch.tensor([7, 2, 0])
    assert torch.equal(crop_flip(image[order], FILL, ids[order], seed=1, epoch=4), result[order])
    for other in ({"seed": 2, "epoch": 4}, {"seed": 1, "epoch": 5}):
        assert not torch.equal(crop_flip(image, FILL, ids, **other), result)
    assert not torch.equal(crop_flip(image, FILL, ids + 1, seed=1, epoch=4), result)


def test_bytes_stay_bytes() -> None:
    image = (images(2) % 256).byte()
    result = crop_flip(image, torch.zeros(3, dtype=torch.uint8), torch.tensor([0, 1]), seed=0, epoch=0)
    assert result.dtype == torch.uint8


def test_the_numbers_are_those_of_the_counters() -> None:
    """What is drawn for a sample: two shifts, then the flip below one half."""
    dy, dx, flip = sample_uniform((3,), [17], 5, "augment", 6)[0].tolist()
    image = images(1)
    (found,) = {
        f for f in found_at(crop_flip(image, FILL, torch.tensor([17]), seed=5, epoch=6)[0], image[0])
        if f == (int(dy * 9) - 4, int(dx * 9) - 4, flip < 0.5)
    }  # fmt: skip
    assert found


def test_affine_is_the_map_of_each_pixel_with_bilinear_interpolation() -> None:
    """Against scipy: the inverse map written out for pixel coordinates about the centre."""
    height, width = 9, 7
    image = torch.rand(4, 2, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fill, ids = torch.tensor([0.3, -0.5], dtype=torch.float64), torch.tensor([5, 2, 9, 5])
    result = affine(image, fill, ids, seed=3, epoch=4)
    for n, i in enumerate(ids.tolist()):
        turn, zoom, shear, dx, dy = (2 * sample_uniform((5,), [i], 3, "affine", 4)[0] - 1).tolist()
        angle, zoom, shear = math.radians(12 * turn), 1 + 0.1 * zoom, 0.15 * shear
        rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        matrix = zoom * rotation @ np.array([[1, shear], [0, 1]])
        y, x = np.mgrid[:height, :width]
        centre = np.array([(width - 1) / 2, (height - 1) / 2])[:, None]
        at = matrix @ (np.stack([x.ravel(), y.ravel()]) - centre) + centre + 2 * np.array([[dx], [dy]])
        for c in range(2):
            # the surroundings are the fill, which a border of one pixel blends into
            padded = np.pad(image[n, c].numpy(), 12, constant_values=float(fill[c]))
            wanted = map_coordinates(padded, [at[1] + 12, at[0] + 12], order=1).reshape(height, width)
            np.testing.assert_allclose(result[n, c], wanted, rtol=1e-9, atol=1e-9)
    assert not torch.equal(affine(image, fill, ids, seed=3, epoch=5), result)
    torch.testing.assert_close(affine(image[1:2], fill, ids[1:2], seed=3, epoch=4)[0], result[1])
