"""Denoisers by name, with the params of their own."""

import pytest
import torch
from torch import nn

from ocd_core.diffusion.denoisers import DENOISERS, build_denoiser
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
