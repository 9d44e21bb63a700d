"""Denoisers by name, with the params of their own."""

import pytest
import torch
from torch import nn

from ocd_core.diffusion.denoisers import DENOISERS, build_denoiser, for_drawing
from ocd_core.diffusion.denoisers.mlp import MLPDenoiser
from ocd_core.errors import UserError
from tests.support.params import denoiser_params


class Nothing(nn.Module):
    """Shows the arguments that it was built with."""

    def __init__(self, *args: object) -> None:
        super().__init__()
        self.args = args


def test_the_names():
    assert DENOISERS.own() == ["mlp", "unet", "unet_paper", "unet_released"]


def test_params_reach_the_denoiser():
    net = build_denoiser(denoiser_params(width=10, depth=3, dropout=0.25), (2, 3), 12)
    assert isinstance(net, MLPDenoiser)
    assert (net.first.weight.shape, net.modulation.weight.shape) == ((10, 6), (20, 12))
    assert [block.dropout.p for block in net.blocks] == [0.25] * 3
    assert net(torch.zeros(4, 2, 3), torch.zeros(4, 12)).shape == (4, 2, 3)


def test_a_denoiser_of_yours_is_built_with_the_same_arguments():
    params = denoiser_params(name=f"{__name__}:Nothing")
    assert build_denoiser(params, (5,), 8).args == (params, (5,), 8)


def test_an_unknown_name_lists_the_known_ones():
    params = denoiser_params().model_copy(update={"name": "none"})
    with pytest.raises(UserError, match=r"^unknown denoiser 'none'; known are .*mlp"):
        build_denoiser(params, (5,), 8)


class Sum(nn.Module):
    """A denoiser without a way of its own to draw."""

    def forward(self, noisy, embedding):  # not the names that the denoisers here have
        return noisy + embedding.sum(1, keepdim=True)


@pytest.mark.parametrize("own", [False, True])
def test_drawing_calls_the_denoiser_at_each_e_unless_it_has_a_way_of_its_own(own):
    net, omega, e = Sum(), torch.randn(3, 4), torch.randn(2, 3, 5)
    if own:
        net.for_drawing = lambda: lambda e_SNE: [lambda omega_t: -omega_t] * len(e_SNE)
    for step, e_NE in zip(for_drawing(net)(e), e, strict=True):
        assert torch.equal(step(omega), -omega if own else net(omega, e_NE))
