"""Spectrograms of recordings as pictures, and what I(x) keeps of them.

Dims: N recordings, C sources, T samples, B bins of a spectrogram, W windows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ocd_core.models.parts.vgg import VGG11Features, pooled_features

BINS = 1024  # of the FFT, the paper's
_HOP = 256
_RANGE_DB = 80.0
GRID = (16, 8)  # of the fixed encoder: averages over so many bands and stretches of time


def pictures(wave_NCT: Tensor, mixture_NT: Tensor) -> Tensor:
    """Spectrograms with values in 0..1, (N, C, B, W): 1 is the mixture's loudest bin, 0 is 80 dB below it or less."""
    loudest = magnitudes(mixture_NT).flatten(1).amax(1).clamp(min=torch.finfo(mixture_NT.dtype).tiny)
    relative = _folded(magnitudes(wave_NCT.flatten(0, 1)), wave_NCT) / loudest[:, None, None, None]
    return (1 + 20 * torch.log10(relative.clamp(min=1e-10)) / _RANGE_DB).clamp(0, 1)


def magnitudes(wave_NT: Tensor) -> Tensor:
    """|STFT| with a Hann window of 1,024 samples, (N, B, W); T is at least a window."""
    window = torch.hann_window(BINS, dtype=wave_NT.dtype, device=wave_NT.device)
    return torch.stft(wave_NT, BINS, _HOP, window=window, return_complex=True).abs()


def encoded(picture_NCBW: Tensor, vgg11: VGG11Features | None) -> Tensor:
    """What I(x) keeps of each picture, side by side, (N, C · D).

    With the weights of VGG11: its features on a 2x2 grid, D = 2,048. Without: averages on a 16x8 grid, D = 128.
    """
    flat = picture_NCBW.flatten(0, 1)[:, None]
    if vgg11 is None:
        found = F.adaptive_avg_pool2d(flat, GRID).flatten(1)
    else:
        with torch.no_grad():
            found = pooled_features(vgg11.to(flat.device), flat.expand(-1, 3, -1, -1))
    return _folded(found, picture_NCBW).flatten(1)


def _folded(value: Tensor, like: Tensor) -> Tensor:
    """(N · C, ...) as (N, C, ...)."""
    return value.view(*like.shape[:2], *value.shape[1:])


def pooled_over_time(value: Tensor) -> Tensor:
    """Mean and standard deviation over a recording, float (N, 2 · D), of a layer's values with features at the end.

    The values are those of a linear layer, (N, ..., D), or, with three axes, of the encoder's convolution, (N, D, L).
    """
    value_NPD = value.transpose(1, 2) if value.dim() == 3 else value.flatten(1, -2)
    return torch.cat([value_NPD.mean(1), value_NPD.std(1, correction=0)], 1)
