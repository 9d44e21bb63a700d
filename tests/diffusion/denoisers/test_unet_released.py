"""The authors' code: a square of 128 at least, attention where 16 rows are left and in the bottleneck."""

from tests.diffusion.denoisers.common import attentions, small


def test_as_the_authors_code_has_it():
    net = small("unet_released", (5, 13), multipliers=[1, 1, 1, 1, 1], width=4)
    assert net.size == (128, 128)
    # 128, 64, 32, 16, 8 rows
    assert [attentions(block) for block in net.unet.down_blocks] == [0, 0, 0, 1, 0]
    assert attentions(net.unet.mid_block) == 1
    assert small("unet_released", (130, 7)).size == (132, 132)
