"""Spectrograms of recordings as pictures, and what I(x) keeps of them.

Dims: N recordings, C sources, T samples, B bins of a spectrogram, W windows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


def features_first(layer_input: Tensor, activation: Tensor, model: nn.Module | None) -> bool:
    """Whether a layer's values are those of a convolution, (N, D, ...), rather than of a linear layer, (N, ..., D).

    The layers of `model` tell: the one whose features fit. If both kinds do, or without a model, three axes are taken
    for the encoder's convolution, more for a linear layer.
    """
    usual = layer_input.dim() == 3
    if model is None or layer_input.dim() < 3 or activation.dim() != layer_input.dim():
        return usual
    first, last = ((layer_input.shape[axis], activation.shape[axis]) for axis in (1, -1))
    convolution = linear = False
    for layer in model.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d):
            convolution = convolution or (layer.in_channels, layer.out_channels) == first
        elif isinstance(layer, nn.Linear):
            linear = linear or (layer.in_features, layer.out_features) == last
    return usual if convolution == linear else convolution


def pooled_over_time(value: Tensor, first: bool | None = None) -> Tensor:
    """Mean and standard deviation over a recording, float (N, 2 · D), of a layer's values.

    Args:
        first: whether they are (N, D, ...), see `features_first`, or (N, ..., D); None: the former with three axes.
    """
    first = value.dim() == 3 if first is None else first
    value_NPD = value.flatten(2).transpose(1, 2) if first else value.flatten(1, -2)
    return torch.cat([value_NPD.mean(1), value_NPD.std(1, correction=0)], 1)
