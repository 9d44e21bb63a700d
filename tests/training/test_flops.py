import torch
from torch import nn

from ocd_core.training.flops import backward_flops, flops


def test_products_are_counted_by_hand():
    layer, x = nn.Linear(5, 3, bias=False), torch.randn(7, 5)
    assert flops(lambda: layer(x)) == 2 * 7 * 5 * 3
    # the gradient of the weight is one more product; x has none
    assert backward_flops(lambda: layer(x).sum(), list(layer.parameters())) == 2 * 2 * 7 * 5 * 3
    assert layer.weight.grad is None
