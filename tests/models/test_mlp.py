"""The perceptron against a loop over its layers in numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from ocd_core.models.mlp import MLP


@pytest.mark.parametrize("hidden", [[], [7], [7, 1, 4]])
def test_outputs_against_numpy(hidden: list[int]) -> None:
    torch.manual_seed(0)
    model = MLP(5, 3, hidden).double()
    x = torch.randn(6, 5, dtype=torch.float64)
    h = x.numpy()
    for i in range(len(hidden) + 1):
        weight, bias = (model.state_dict()[f"layers.{i}.{name}"].numpy() for name in ("weight", "bias"))
        h = (np.maximum(h, 0) if i else h) @ weight.T + bias
    np.testing.assert_allclose(model(x).detach().numpy(), h, rtol=1e-12)
    assert [layer.weight.shape for layer in model.layers] == [
        (b, a) for a, b in zip([5, *hidden], [*hidden, 3], strict=True)
    ]


@pytest.mark.parametrize("widths", [(0, 3, [4]), (5, 0, [4]), (5, 3, [4, 0])])
def test_widths_below_one_are_refused(widths: tuple[int, int, list[int]]) -> None:
    with pytest.raises(ValueError, match="every width must be at least 1"):
        MLP(*widths)


def test_layers_can_be_named_for_overfitting() -> None:
    assert isinstance(MLP(5, 3).get_submodule("layers.2"), nn.Linear)
