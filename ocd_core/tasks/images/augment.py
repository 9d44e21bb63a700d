"""Augmentations of small images: a random crop after padding with a random flip, and small affine maps.

They are for training the base network only. Layer scores, overfitting and evaluation see the images as they are.

Dims: N images, C channels, H height, W width.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ocd_core.rng import sample_uniform

PADDING = 4  # pixels on each side
DEGREES, SCALE, SHEAR, SHIFT = 12.0, 0.1, 0.15, 2.0  # the largest of each: of a rotation, as shares, in pixels


def crop_flip(image_NCHW: Tensor, fill_C: Tensor, sample_id: Tensor, seed: int, epoch: int) -> Tensor:
    """Each image shifted by up to `PADDING` pixels in both directions, and mirrored in half of the cases.

    A shift is a crop of the original size from the padded image.

    Args:
        image_NCHW: any dtype.
        fill_C: the value of the padding in each channel, same dtype.
        sample_id: int64 (N,). What happens to an image depends on it, on `seed` and on `epoch` alone.
    """
    count, channels, height, width = image_NCHW.shape
    padded = fill_C.view(1, -1, 1, 1).repeat(count, 1, height + 2 * PADDING, width + 2 * PADDING)
    padded[:, :, PADDING:-PADDING, PADDING:-PADDING] = image_NCHW
    draw_N3 = sample_uniform((3,), sample_id.tolist(), seed, "augment", epoch)
    shift_N2 = (draw_N3[:, :2] * (2 * PADDING + 1)).long()
    rows_NH = shift_N2[:, :1] + torch.arange(height)
    columns_NW = shift_N2[:, 1:] + torch.arange(width)
    columns_NW = torch.where(draw_N3[:, 2:] < 0.5, columns_NW.flip(1), columns_NW)
    sample = torch.arange(count).view(-1, 1, 1, 1)
    channel = torch.arange(channels).view(1, -1, 1, 1)
    return padded[sample, channel, rows_NH[:, None, :, None], columns_NW[:, None, None, :]]


def affine(image_NCHW: Tensor, fill_C: Tensor, sample_id: Tensor, seed: int, epoch: int) -> Tensor:
    """Each image rotated, scaled, sheared and shifted a little about its centre, with bilinear interpolation.

    A flip would turn a 2 into another character, and so would a large rotation; handwriting varies like this.

    Args:
        image_NCHW: floating point. fill_C, sample_id: as for `crop_flip`.
    """
    height, width = image_NCHW.shape[2:]
    draw_N5 = (2 * sample_uniform((5,), sample_id.tolist(), seed, "affine", epoch) - 1).to(image_NCHW.dtype)
    turn_N, shear_N = draw_N5[:, 0] * math.radians(DEGREES), draw_N5[:, 2] * SHEAR
    zoom_N, shift_N2 = 1 + draw_N5[:, 1] * SCALE, draw_N5[:, 3:] * SHIFT
    # where each pixel of the result lies in the image, in pixels from the centre: rotation, shear and zoom, then shift
    rows_N23 = torch.stack(
        [
            torch.stack([turn_N.cos(), shear_N * turn_N.cos() - turn_N.sin()], 1) * zoom_N[:, None],
            torch.stack([turn_N.sin(), shear_N * turn_N.sin() + turn_N.cos()], 1) * zoom_N[:, None],
        ],
        1,
    )
    half_2 = torch.tensor([width / 2, height / 2], dtype=image_NCHW.dtype)  # torch counts in halves of the image
    theta_N23 = torch.cat([rows_N23 * half_2[None, None, :], shift_N2[:, :, None]], 2) / half_2[None, :, None]
    grid = F.affine_grid(theta_N23, list(image_NCHW.shape), align_corners=False)
    fill = fill_C.view(1, -1, 1, 1)
    moved: Tensor = F.grid_sample(image_NCHW - fill, grid, padding_mode="zeros", align_corners=False)
    return moved + fill


AUGMENTATIONS: dict[str, Callable[[Tensor, Tensor, Tensor, int, int], Tensor]] = {
    "crop_flip": crop_flip,
    "affine": affine,
}
