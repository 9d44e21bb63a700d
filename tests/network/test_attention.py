"""The output projection of torch's attention as a layer that moves."""

import copy

import pytest
import torch
from torch import Tensor, nn

from ocd_core.network.attention import CallingAttention, call_projections
from ocd_core.network.cut import CutModel


class Sequences(nn.Module):
    """(N, 5, 8) -> (N, 2)."""

    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.batch_first = batch_first
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        found = self.encoder(x) if self.batch_first else self.encoder(x.transpose(0, 1)).transpose(0, 1)
        return self.head(found.mean(1))


def test_attention_gives_the_same_outputs() -> None:
    torch.manual_seed(0)
    for kwargs in ({"batch_first": True}, {"batch_first": False}, {"kdim": 6, "vdim": 4, "batch_first": True}):
        plain = nn.MultiheadAttention(8, 2, **kwargs).eval()
        calling = copy.deepcopy(nn.Sequential(plain))
        call_projections(calling, ["0.out_proj"])
        assert isinstance(calling[0], CallingAttention)
        q, k, v = (
            torch.randn(4, 5, 8),
            torch.randn(4, 5, kwargs.get("kdim", 8)),
            torch.randn(4, 5, kwargs.get("vdim", 8)),
        )
        for wanted, found in zip(plain(q, k, v), calling[0](q, k, v), strict=True):
            torch.testing.assert_close(found, wanted)


def test_other_layers_leave_the_attention_as_it_is() -> None:
    network = Sequences()
    call_projections(network, ["encoder.layers.0.linear1", "head"])
    assert not any(isinstance(m, CallingAttention) for m in network.modules())


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_moved_projection_answers_like_the_model_with_that_weight(batch_first: bool) -> None:
    torch.manual_seed(0)
    model, x = Sequences(batch_first).eval(), torch.randn(3, 5, 8)
    name = "encoder.layers.1.self_attn.out_proj"
    if not batch_first:  # positions in the first axis: not a batch of samples
        with pytest.raises(Exception, match="first axis"):
            CutModel(model, name).prefix((x,))
        return
    cut_model = CutModel(model, name)
    cut = cut_model.prefix((x,))
    assert not cut_model.traced
    delta_NOI = torch.randn(3, 8, 8) / 10
    _, outputs = cut_model.tail(cut_model.layer_output(cut, delta_NOI), cut)
    for i in range(3):
        moved = copy.deepcopy(model).double()
        moved.get_submodule(name).weight.data += delta_NOI[i].double()
        torch.testing.assert_close(outputs[i : i + 1], moved(x[i : i + 1].double()), rtol=1e-5, atol=1e-6)
