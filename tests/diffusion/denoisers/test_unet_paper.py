"""Section 3.3: a square, attention at each level, two in the bottleneck."""

from tests.diffusion.denoisers.common import attentions, small


def test_as_the_paper_says():
    net = small("unet_paper", (5, 13))
    assert net.size == (16, 16)
    assert [attentions(block) for block in net.unet.down_blocks] == [1, 1, 1]
    assert [attentions(block) for block in net.unet.up_blocks] == [2, 2, 2]
    assert attentions(net.unet.mid_block) == 2
