"""How close a rendering is to its photograph: PSNR and SSIM.

Dims: N views, H height, W width, C channels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ocd_core.errors import UserError


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in dB of colours in 0..1; infinite for a perfect image."""
    return -10 * math.log10(mse) if mse > 0 else math.inf


def ssim(output_NHWC: Tensor, target_NHWC: Tensor) -> Tensor:
    """Structural similarity of each image (Wang et al., 2004), (N,): Gaussian window of 11 pixels, σ = 1.5.

    Colours are in 0..1; the mean is over colours and over the places where the whole window is inside the image.

    Raises:
        UserError: the images are smaller than the window.
    """
    size, sigma = 11, 1.5
    if min(output_NHWC.shape[1:3]) < size:
        raise UserError(f"SSIM needs images of at least {size}x{size} pixels, found {tuple(output_NHWC.shape[1:3])}")
    x, y = (t.movedim(-1, 1).flatten(0, 1).unsqueeze(1).to(output_NHWC.dtype) for t in (output_NHWC, target_NHWC))
    place = torch.arange(size, dtype=x.dtype, device=x.device) - size // 2
    window = torch.exp(-(place**2) / (2 * sigma**2))
    window = window / window.sum()

    def blur(t: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(t, window[None, None, :, None]), window[None, None, None, :])

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    return similarity.reshape(len(output_NHWC), -1).mean(1)
