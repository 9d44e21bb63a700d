"""The usual augmentation of small images: a random crop after padding, and a random horizontal flip.

It is for training the base network only. Layer scores, overfitting and evaluation see the images as they are.

Dims: N images, C channels, H height, W width.
"""

import torch
from torch import Tensor

from ocd_core.rng import sample_uniform

PADDING = 4  # pixels on each side


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
