"""Spectrograms against numpy's FFT, and what I(x) keeps of them."""

import numpy as np
import pytest
import torch

from ocd_core.models.parts.vgg import VGG11Features, pooled_features
from ocd_core.tasks.speech.spectrograms import encoded, magnitudes, pictures, pooled_over_time


def test_magnitudes_are_a_windowed_fft_of_1024_samples() -> None:
    wave = torch.randn(2, 3000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = magnitudes(wave)
    padded = np.pad(wave[1].numpy(), 512, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    for w in range(found.shape[2]):
        wanted = np.abs(np.fft.rfft(window * padded[256 * w : 256 * w + 1024]))
        np.testing.assert_allclose(found[1, :, w], wanted, atol=1e-9)
    assert found.shape == (2, 513, 12)


def test_pictures_are_decibels_below_the_loudest_bin_of_the_mixture() -> None:
    mixture = torch.sin(2 * torch.pi * 64 / 1024 * torch.arange(2048.0))[None]
    found = pictures(torch.stack([mixture, 0.1 * mixture, 1e-5 * mixture, 0 * mixture], 1), mixture)
    assert found.shape == (1, 4, 513, 9)
    peak = found[0, :, 64, 4]
    torch.testing.assert_close(peak, torch.tensor([1.0, 0.75, 0.0, 0.0]), atol=1e-4, rtol=0)
    assert found.min() >= 0
    assert found.max() <= 1


def test_fixed_encoder_averages_bands_and_stretches_of_time() -> None:
    picture = torch.rand(2, 3, 512, 64, generator=torch.Generator().manual_seed(0))
    found = encoded(picture, None)
    assert found.shape == (2, 3 * 128)
    wanted = picture.view(2, 3, 16, 32, 8, 8).mean((3, 5)).flatten(1)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("length", [1024, 5000, 16000])
def test_size_of_the_code_does_not_depend_on_the_length(length: int) -> None:
    wave = torch.randn(1, 2, length)
    assert encoded(pictures(wave, wave.sum(1)), None).shape == (1, 256)


def test_vgg11_sees_each_channel_alone() -> None:
    torch.manual_seed(0)
    model = VGG11Features().eval().requires_grad_(False)
    picture = torch.rand(1, 2, 80, 70)
    found = encoded(picture, model)
    assert found.shape == (1, 4096)
    one = pooled_features(model, picture[:, 1:].expand(-1, 3, -1, -1))
    torch.testing.assert_close(found[:, 2048:], one, rtol=1e-4, atol=1e-6)


def test_mean_and_deviation_over_time() -> None:
    values = torch.randn(2, 5, 4, 3)
    found = pooled_over_time(values)
    positions = values.reshape(2, 20, 3).numpy()
    np.testing.assert_allclose(found, np.concatenate([positions.mean(1), positions.std(1)], 1), atol=1e-6)
    channels = torch.randn(2, 3, 20)
    wanted = np.concatenate([channels.numpy().mean(2), channels.numpy().std(2)], 1)
    np.testing.assert_allclose(pooled_over_time(channels), wanted, atol=1e-6)
