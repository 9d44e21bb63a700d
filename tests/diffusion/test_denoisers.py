import pytest
import torch

from ocd_core.diffusion.denoisers import build_denoiser, padded_size
from ocd_core.errors import UserError
from tests.diffusion.common import denoiser_params

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


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    net = build_denoiser(denoiser_params(dropout=0.5), (5,), 12)
    x, e = torch.randn(4, 5), torch.randn(4, 12)
    assert not torch.equal(net(x, e), net(x, e))
    net.eval()
    assert torch.equal(net(x, e), net(x, e))


def test_padding_by_hand():
    assert padded_size((84, 120), 6, square=1) == (128, 128)
    assert padded_size((10, 84), 6, square=1) == (96, 96)
    assert padded_size((10, 84), 6, square=128) == (128, 128)
    assert padded_size((130, 63), 4, square=128) == (136, 136)
    assert padded_size((84, 120), 3, square=None) == (84, 120)
    assert padded_size((10, 84), 4, square=None) == (16, 88)
    assert padded_size((5, 7), 1, square=None) == (5, 7)


def test_a_unet_is_refused_for_codes_that_are_not_matrices():
    with pytest.raises(UserError, match=r"denoiser unet works on matrices and the codes have shape \(84,\)"):
        build_denoiser(denoiser_params(**UNET), (84,), 12)
