import pytest

from ocd_core.diffusion.denoisers import build_denoiser
from ocd_core.diffusion.denoisers.base import padded_size
from ocd_core.errors import UserError
from tests.diffusion.denoisers.common import attentions, small
from tests.support.params import denoiser_params

UNET = {"name": "unet", "width": 16, "depth": 1, "multipliers": [1, 2]}


def test_padding_by_hand():
    assert padded_size((84, 120), 6, square=1) == (128, 128)
    assert padded_size((10, 84), 6, square=1) == (96, 96)
    assert padded_size((10, 84), 6, square=128) == (128, 128)
    assert padded_size((130, 63), 4, square=128) == (136, 136)
    assert padded_size((84, 120), 3, square=None) == (84, 120)
    assert padded_size((10, 84), 4, square=None) == (16, 88)
    assert padded_size((5, 7), 1, square=None) == (5, 7)


def test_a_unet_is_refused_for_codes_that_are_not_matrices():
    with pytest.raises(UserError, match=r"denoiser unet works on matrices, but the codes have shape \(84,\)"):
        build_denoiser(denoiser_params(**UNET), (84,), 12)


def test_attention_is_at_the_lowest_level_and_padding_is_no_square():
    net = small("unet", (5, 13))
    assert net.size == (8, 16)
    assert [attentions(block) for block in net.unet.down_blocks] == [0, 0, 1]
    assert attentions(net.unet.mid_block) == 1
