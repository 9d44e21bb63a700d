import pytest
import torch
from torch import nn

from ocd_core.config import Params, parse_params
from ocd_core.errors import UserError
from ocd_core.overfit.layout import check_selected
from tests.support.arrays import ArraySplit, ArrayTask
from tests.support.toy import PLANE as PARAMS

SPLIT = ArraySplit(torch.linspace(-1, 1, 24).view(4, 1, 6), torch.linspace(-1, 1, 8).view(4, 2))


class Net(nn.Module):
    """`conv` sees four positions, `head` one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(1, 2, 3), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(x)).flatten(1))


def params(layout: str = "dense", representation: str = "dense") -> Params:
    overfit = {**PARAMS["overfit"], "layout": layout}
    chosen = {**PARAMS["diffusion"]["representation"], "name": representation}
    diffusion = {**PARAMS["diffusion"], "representation": chosen}
    return parse_params({**PARAMS, "overfit": overfit, "diffusion": diffusion}, "test")


@pytest.mark.parametrize("chosen", [{"layout": "factored"}, {"representation": "factored"}])
def test_factored_is_refused_for_a_layer_with_several_positions(chosen):
    check_selected(Net(), "head", ArrayTask(), SPLIT, params(**chosen))
    with pytest.raises(UserError, match="factored is not exact for layer 'conv', which sees 4 positions per sample"):
        check_selected(Net(), "conv", ArrayTask(), SPLIT, params(**chosen))
    check_selected(Net(), "conv", ArrayTask(), SPLIT, params())


def test_a_layer_that_cannot_move_is_refused():
    class Twice(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + super().forward(-x)

    with pytest.raises(UserError, match="layer 'head' is used 2 times"):
        check_selected(Twice(), "head", ArrayTask(), SPLIT, params())
