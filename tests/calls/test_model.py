"""Networks as the pipeline calls them."""

import pytest
import torch
from torch import Tensor, nn

from ocd_core.calls.model import adapted, check_names, pick_of, plain_network, taken_of
from ocd_core.errors import UserError
from ocd_core.network.cut import CutModel


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, a: Tensor, *, b: Tensor) -> dict[str, Tensor]:
        return {"logits": self.two(torch.relu(self.one(a)) * b)}


def test_a_copy_in_float32_that_leaves_the_model_alone() -> None:
    model = nn.DataParallel(nn.Sequential(nn.Linear(2, 2), nn.Dropout())).double().train()
    found = plain_network(model)
    assert isinstance(found, nn.Sequential)
    assert found[0].weight.dtype == torch.float32
    assert not found.training
    assert model.training
    assert model.module[0].weight.dtype == torch.float64
    with pytest.raises(UserError, match=r"give a torch\.nn\.Module, not int"):
        plain_network(3)  # type: ignore[arg-type]
    model.module.kept = model.module[0](torch.ones(1, 2).double())  # a tensor with a graph
    with pytest.raises(UserError, match="the model cannot be copied"):
        plain_network(model)


def test_keywords_become_positions_and_layers_keep_their_names_and_are_traced() -> None:
    torch.manual_seed(0)
    model = Keywords()
    a, b = torch.randn(5, 3), torch.randn(5, 4)
    taken = taken_of(model(a, b=b), None)
    network = adapted(plain_network(model), ["b", "a"], True, pick_of(taken, None))
    torch.testing.assert_close(network(b, a), model(a, b=b)["logits"])
    cut_model = CutModel(network, "one")
    cut_model.prefix((b, a))
    assert cut_model.traced
    assert list(network.state_dict()) == list(model.state_dict())


def test_what_is_taken_of_an_output() -> None:
    x = torch.zeros(2)
    assert [taken_of(o, None) for o in (x, (x, x), [x, x], {"logits": x})] == ["all", "all", "list", "logits"]
    assert taken_of({"y": x}, lambda out: out["y"]) == "own"
    assert pick_of("list", None)([x, x]) == (x, x)
    with pytest.raises(UserError, match="is a dict with 'y'"):
        taken_of({"y": x}, None)
    with pytest.raises(UserError, match="the same output="):
        pick_of("own", None)


def test_an_input_may_have_any_name() -> None:
    class Named(nn.Module):
        def forward(self, base: Tensor, pick: Tensor, answer: Tensor) -> Tensor:
            return base - pick * answer

    x, y, z = torch.randn(3, 4)
    network = adapted(Named(), ["pick", "base", "answer"], True, None)
    assert torch.equal(network(x, y, z), y - x * z)
    assert torch.equal(torch.fx.symbolic_trace(network)(x, y, z), y - x * z)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a", "a b"], "input 'a b'"),
        (["a", "lambda"], "input 'lambda'"),
        (["a=print()"], "must be names"),
        (["a", "b", "a"], "input 'a' is named twice"),
    ],
)
def test_names_that_are_no_keywords(names: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_names(names)
    for by_name in (False, True):
        with pytest.raises(UserError, match=words):
            adapted(nn.Linear(1, 1), names, by_name, None)
