"""Modules that fx cannot follow inside of, named by the model: one node each, so that the prefix still runs once."""

import copy

import pytest
import torch
from torch import Tensor, nn

from ocd_core.network.cut import CutModel
from ocd_core.overfit.params import NOT_REFINED, OverfitParams
from ocd_core.overfit.steps import Overfitted, StepPart, overfit


class Branching(nn.Module):
    """Not to be traced; counts its calls by the number of samples."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(4, 6)
        self.calls: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        h = self.inside(x)
        return torch.tanh(h) if float(h.sum()) < 1e9 else h


class Named(nn.Module):
    fx_leaves: tuple[object, ...] = ("body",)

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = Branching(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class ByType(Named):
    fx_leaves = (Branching,)


class Unnamed(Named):
    fx_leaves = ()


def calls(cut_model: CutModel) -> list[int]:
    return cut_model.network.body.calls


@pytest.mark.parametrize("kind", [Named, ByType])
def test_a_leaf_runs_once_per_sample(kind: type[Named]) -> None:
    torch.manual_seed(0)
    model, x = kind(), torch.randn(5, 4)
    cut_model = CutModel(model, "head")
    cut_model.prefix((x,))  # compares the trace with the model
    assert cut_model.traced
    calls(cut_model).clear()
    cut = cut_model.prefix((x,))
    delta = torch.randn(5, 3, 6)
    output = cut_model.forward(cut, delta)[1]
    cut_model.forward(cut)
    assert calls(cut_model) == [5]
    with torch.no_grad():
        h = model.body(x)
        wanted = torch.einsum("noi,ni->no", model.head.weight + delta, h) + model.head.bias
    torch.testing.assert_close(output, wanted.double(), rtol=1e-5, atol=1e-5)


def test_without_the_name_the_same_answer_takes_more_passes() -> None:
    torch.manual_seed(0)
    named, x, delta = Named(), torch.randn(5, 4), torch.randn(5, 3, 6)
    unnamed = Unnamed()
    unnamed.load_state_dict(named.state_dict())
    one, other = CutModel(named, "head"), CutModel(unnamed, "head")
    outputs = [model.forward(model.prefix((x,)), delta)[1] for model in (one, other)]
    torch.testing.assert_close(*outputs)
    assert not other.traced


def test_a_leaf_that_holds_the_layer_is_opened() -> None:
    torch.manual_seed(0)
    model, x = Named(), torch.randn(5, 4)
    cut_model = CutModel(model, "body.inside")
    cut = cut_model.prefix((x,))
    assert not cut_model.traced
    assert torch.equal(cut.x_NPI[:, 0], x)


# --- a distilled transformer from a library


transformers = pytest.importorskip("transformers")


class Distilled(nn.Module):
    """A DeiT of two layers; the mean of its two heads, which read the class token and the distillation token."""

    fx_leaves: tuple[str, ...] = ("net.deit",)

    def __init__(self) -> None:
        super().__init__()
        config = transformers.DeiTConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=16,
            patch_size=8, num_channels=3, num_labels=5,
        )  # fmt: skip
        self.net = transformers.DeiTForImageClassificationWithTeacher(config)
        self.net.deit.requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.net.deit(pixels).last_hidden_state
        first = self.net.cls_classifier(tokens[:, 0])
        return (first + self.net.distillation_classifier(tokens[:, 1])) / 2


class DistilledWhole(Distilled):
    fx_leaves = ()


HEADS = "net.cls_classifier+net.distillation_classifier"
PARAMS = OverfitParams(
    optimizer="sgd", lr=0.1, steps=3, until_converged=False, tolerance=1e-3, replicas=1, precision="float64",
    layout="dense", refine=NOT_REFINED, memory_mb=64, shard_mb=1,
)  # fmt: skip


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output, target, reduction="none")


def overfitted(model: CutModel, x: Tensor, target: Tensor) -> Overfitted:
    part = StepPart(model.prefix((x,)), target)
    return overfit(model, lambda _step: [part], cross_entropy, PARAMS)


@pytest.fixture(scope="module")
def distilled() -> tuple[Distilled, DistilledWhole, Tensor, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, whole = Distilled().eval(), DistilledWhole().eval()
        with torch.no_grad():  # as they are made, both tokens and both heads begin with zeros or nearly
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        whole.load_state_dict(model.state_dict())
        return model, whole, torch.randn(4, 3, 16, 16), torch.tensor([0, 3, 1, 4])


def test_both_heads_of_a_distilled_transformer_move_as_one(distilled) -> None:
    model, _, x, target = distilled
    cut_model = CutModel(model, HEADS)
    cut_model.prefix((x,))
    assert cut_model.traced
    seen: list[int] = []
    hook = cut_model.network.net.deit.register_forward_pre_hook(lambda _m, args: seen.append(len(args[0])))
    found = overfitted(cut_model, x, target)
    hook.remove()
    assert seen == [4]  # one pass of the body, three steps of the heads
    assert found.delta_NOI.shape == (4, 10, 16)
    assert bool((found.loss_after_NS[:, -1] < found.loss_before_N).all())
    for i in range(4):
        single = copy.deepcopy(model).double()
        heads = [single.net.cls_classifier.weight, single.net.distillation_classifier.weight]
        before = [w.detach().clone() for w in heads]
        optimiser = torch.optim.SGD(heads, lr=0.1)
        for _ in range(3):
            optimiser.zero_grad()
            cross_entropy(single(x[i : i + 1].double()), target[i : i + 1]).sum().backward()
            optimiser.step()
        wanted = torch.cat([w.detach() - b for w, b in zip(heads, before, strict=True)])
        torch.testing.assert_close(found.delta_NOI[i].double(), wanted, rtol=1e-4, atol=1e-6)


def test_the_same_changes_as_without_a_trace(distilled) -> None:
    model, whole, x, target = distilled
    cut_model, untraced = CutModel(model, HEADS), CutModel(whole, HEADS)
    one, other = overfitted(cut_model, x, target), overfitted(untraced, x, target)
    assert not untraced.traced
    torch.testing.assert_close(one.delta_NOI, other.delta_NOI, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(one.loss_after_NS, other.loss_after_NS, rtol=1e-5, atol=1e-7)


class Observed(Named):
    """Its activation is a module, of which the output is a function."""

    fx_observed: tuple[str, ...] = ("act",)

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.act(self.head(self.body(x)))


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_what_an_observed_module_gives_comes_with_the_output(precision) -> None:
    torch.manual_seed(0)
    model, x = Observed(), torch.randn(5, 4)
    cut_model = CutModel(model, "head", precision)
    cut = cut_model.prefix((x,))
    calls(cut_model).clear()
    activation, output, observed = cut_model.observe(cut_model.layer_output(cut), cut)
    assert calls(cut_model) == [], "nothing runs again"
    with torch.no_grad():
        wanted = torch.sigmoid(model.head(model.body(x)))
    assert observed is not None
    (found,) = observed
    torch.testing.assert_close(found.float(), wanted)
    torch.testing.assert_close(output.float(), 2 * wanted)
    plain = cut_model.tail(cut_model.layer_output(cut), cut)
    for one, other in zip((activation, output), plain, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("names", [(), ("act", "body"), ("nothing",)])
def test_without_a_module_behind_the_layer_nothing_is_observed(names: tuple[str, ...]) -> None:
    """None to observe; one that is before the layer; one that the network does not have."""
    model = Observed()
    model.fx_observed = names
    cut_model = CutModel(model, "head")
    cut = cut_model.prefix((torch.randn(5, 4),))
    assert cut_model.observe(cut_model.layer_output(cut), cut)[2] is None


def test_a_network_that_is_not_traced_observes_nothing() -> None:
    class Blind(Observed):
        fx_leaves = ()

    cut_model = CutModel(Blind(), "head")
    cut = cut_model.prefix((torch.randn(5, 4),))
    assert not cut_model.traced
    assert cut_model.observe(cut_model.layer_output(cut), cut)[2] is None
