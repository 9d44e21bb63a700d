"""What the first two samples show of a network: whether it can be cut at a layer, and how a refusal says why."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.network.cut import CutModel


class Plain(nn.Module):
    """(N, 5) -> (N, 3)."""

    def __init__(self, make: Callable[[int, int], nn.Module] = nn.Linear) -> None:
        super().__init__()
        self.first = make(5, 4)
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)))


class MixesSamples(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0))


class DrawsNumbers(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, 0.5))


class ChangesItsInput(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.sub_(0.5).div_(0.25))


class ChangesItsInputAndBranches(Plain):
    def forward(self, x: Tensor) -> Tensor:
        x -= 1
        return super().forward(x) if float(x.sum()) < 1e6 else x[:, :3]


class Squeezes(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).squeeze()


class Casts(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).float()


class GivesADict(Plain):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": super().forward(x)}


class TiedAndBranches(nn.Module):
    """The weight of `first` is used a second time, in a model that fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        return F.linear(h, self.first.weight.T) if float(h.sum()) < 1e6 else h


class Masked(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.tril(), self.bias)


class Standardised(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, F.normalize(self.weight, dim=1), self.bias)


class StartsAsItIs(nn.Linear):
    """Gives x Wᵀ + b for the weight that it has at first, and something else for any other."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("size", self.weight.detach().norm(dim=1, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.size * F.normalize(self.weight, dim=1), self.bias)


class LowRank(nn.Linear):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.more = nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.more(x)


def hooked(inputs: int, outputs: int) -> nn.Module:
    layer = nn.Linear(inputs, outputs)
    layer.register_forward_hook(lambda _module, _args, output: 2 * output)
    return layer


def cut_of(model: nn.Module, precision: str = "float64") -> CutModel:
    torch.manual_seed(1)
    cut_model = CutModel(model, "first", precision)
    cut_model.prefix((torch.randn(4, 5, generator=torch.Generator().manual_seed(2)),))
    return cut_model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (MixesSamples, "mixes the samples of a batch"),
        (DrawsNumbers, "another output at a second call"),
        (ChangesItsInput, "changes its input in place"),
        (ChangesItsInputAndBranches, "changes its input in place"),
        (Squeezes, r"shape \(3,\) for one sample and \(2, 3\) for two; let it squeeze only the axes"),
        (GivesADict, "must return a tensor or a tuple of tensors, not a dict"),
        (Casts, "output is torch.float32 for weights and inputs in torch.float64; let it not cast"),
        (TiedAndBranches, "'first' cannot move: .* or a weight that something else uses too"),
    ],
)
def test_networks_that_cannot_be_cut(model: type[nn.Module], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cut_of(model())


@pytest.mark.parametrize("make", [Masked, Standardised, StartsAsItIs, LowRank, hooked])
def test_layers_that_are_not_what_their_weight_says(make: Callable[[int, int], nn.Module]) -> None:
    with pytest.raises(UserError, match=r"'first' cannot move: .* subclass with its own forward, a hook"):
        cut_of(Plain(make))


def test_a_cast_to_float32_is_right_in_float32() -> None:
    assert cut_of(Casts(), "float32").traced


def test_a_subclass_that_is_a_linear_layer_moves() -> None:
    class Named(nn.Linear):
        pass

    assert cut_of(Plain(Named)).traced


@pytest.mark.parametrize("normed", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
def test_a_layer_whose_weight_is_computed_moves_around_that_weight(normed: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(0)
    model = Plain()
    x = torch.randn(3, 5)
    plain = model(x)
    normed(model.first)
    with torch.no_grad():
        model(x)
        if normed is nn.utils.weight_norm:
            model.first.weight = model.first.weight.detach()  # as after loading: without a graph
    cut_model = CutModel(model, "first")
    torch.testing.assert_close(cut_model.forward(cut_model.prefix((x,)))[1].float(), plain, rtol=1e-5, atol=1e-6)


def test_a_model_that_cannot_be_copied() -> None:
    model = Plain()
    model.kept = model(torch.randn(2, 5))  # a tensor with a graph, as a forward may keep it
    with pytest.raises(UserError, match=r"the model cannot be copied .* must be detached"):
        cut_of(model)


def test_one_thread_tries_for_all() -> None:
    """The others wait, since the way in which the network runs is settled by it."""
    x = torch.randn(4, 5)
    model = CutModel(Plain(), "first")
    with ThreadPoolExecutor(4) as pool:
        cuts = list(pool.map(lambda _: model.prefix((x,)), range(8)))
    assert all(torch.equal(cut.x_NPI, cuts[0].x_NPI) for cut in cuts)


@pytest.mark.parametrize("lacking", ["trace", "channels last", "cut"])
def test_too_little_memory_is_no_reason_for_another_way(lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(32, 2))
    if lacking == "trace":
        monkeypatch.setattr("ocd_core.network.tracing._Tracer.trace", fails)
    elif lacking == "channels last":
        monkeypatch.setattr("ocd_core.network.cut.with_channels_last", fails)
    else:
        monkeypatch.setattr(CutModel, "forward", fails)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        CutModel(network, "4").prefix((torch.randn(2, 1, 8, 8),))
