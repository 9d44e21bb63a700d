"""What cannot work together is refused before hours of training."""

import pytest
from pydantic import ValidationError

from tests.support.params import denoiser_params, diffusion_params


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "zero_snr", "prediction": "epsilon"}, "prediction epsilon divides by zero"),
        ({"schedule": "zero_snr", "loss": "min_snr"}, "gives weight 0 to t = T"),
        ({"embedding": 7}, "embedding must be even"),
        ({"batch_size": 3, "accumulate": 4}, "more parts than it has samples"),
        ({"metric": "gauss_newton", "denoiser": denoiser_params(name="unet")}, "is for the coordinates of .* pca"),
        ({"task_loss": 1.0, "task_batch": 3, "batch_size": 8, "accumulate": 4}, r"than it has samples \(task_batch\)"),
    ],
)
def test_impossible_combinations(changes, message):
    with pytest.raises(ValidationError, match=message):
        diffusion_params(**changes)


@pytest.mark.parametrize("unet", ["unet", "unet_paper", "unet_released"])
def test_a_unet_takes_matrices(unet):
    net = denoiser_params(name=unet)
    matrices = diffusion_params(denoiser=net).representation
    assert matrices.name == "dense"
    vectors = matrices.model_copy(update={"name": "pca"})
    with pytest.raises(ValidationError, match=f"denoiser {unet} takes Δ as a matrix, but representation pca gives"):
        diffusion_params(denoiser=net, representation=vectors)


def test_an_unknown_denoiser():
    with pytest.raises(ValidationError, match="unknown denoiser 'dit'; known are mlp, unet, unet_paper, unet_released"):
        denoiser_params(name="dit")
