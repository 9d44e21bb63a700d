import pytest
import torch

from ocd_core.diffusion.denoisers import build_denoiser
from tests.support.params import denoiser_params

UNET = {"name": "unet", "width": 16, "depth": 1, "multipliers": [1, 2]}


@pytest.mark.parametrize(
    ("changes", "shape"),
    [({}, (5,)), ({"depth": 1}, (3, 4)), (UNET, (5, 7)), ({**UNET, "multipliers": [1, 1, 2]}, (9, 3))],
)
def test_output_has_the_codes_shape_and_every_parameter_gets_gradient(changes, shape):
    torch.manual_seed(0)
    net = build_denoiser(denoiser_params(**changes), shape, 12)
    out = net(torch.randn(6, *shape), torch.randn(6, 12))
    assert out.shape == (6, *shape)
    (out - torch.randn(out.shape)).square().mean().backward()
    # softmax does not see what is added to all keys alike, so a key's bias has no gradient but rounding
    silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-9]
    assert [n for n in silent if not n.endswith("to_k.bias")] == []


@pytest.mark.parametrize("changes", [{}, UNET])
def test_samples_do_not_see_each_other_and_e_and_omega_both_matter(changes):
    torch.manual_seed(0)
    shape = (6, 4)
    net = build_denoiser(denoiser_params(**changes), shape, 12).eval()
    omega, e = torch.randn(4, *shape), torch.randn(4, 12)
    whole = net(omega, e)
    torch.testing.assert_close(torch.cat([net(omega[n : n + 1], e[n : n + 1]) for n in range(4)]), whole)
    assert (net(omega, e.flip(0)) - whole).abs().max() > 1e-3
    assert (net(omega.flip(0), e) - whole).abs().max() > 1e-3
