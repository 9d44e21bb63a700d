"""The bound in all layers: each test sample overfitted by hand, and what it may not have."""

import copy

import pytest
import torch
from torch import Tensor

from ocd_core.artifacts import Artifacts
from ocd_core.evaluation.fitted import load_rows
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.network.loading import load_base_network
from tests.support.runs import assert_same_outputs, context_of, evaluated, params_of, row_of, whole_test_batch
from tests.support.toy import ToyTask


def by_hand(run: Artifacts, frozen: str | None = None) -> Tensor:
    """The outputs of copies of the base network, each trained by torch.optim on one test sample; float64 (N, 2)."""
    context = context_of(run)
    batch, p = whole_test_batch(context), params_of(run).overfit
    base, found = load_base_network(run, context.task).double().eval(), []
    for i in range(len(batch)):
        network = copy.deepcopy(base)
        moved = [q for name, q in network.named_parameters() if name != frozen]
        optimizer = torch.optim.SGD(moved, lr=p.lr)
        for _ in range(p.steps):
            optimizer.zero_grad()
            output = network(batch.inputs[0][i : i + 1].double())
            context.task.loss(output, batch.target[i : i + 1].double()).sum().backward()
            optimizer.step()
        found.append(network(batch.inputs[0][i : i + 1].double()).detach())
    return torch.cat(found)


def test_each_sample_moves_all_layers(run: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    row, shared = row_of(run, "bound_all_layers")
    assert row.title == "overfitted on test, all layers (bound)"
    expected = by_hand(run)
    assert_same_outputs(row.outputs(shared), expected)
    assert row.details() is None
    row, shared = row_of(run, "bound_all_layers")  # a chunk of few samples gives the same
    monkeypatch.setattr(type(row), "_at_once", 7)
    assert_same_outputs(row.outputs(shared), expected)
    part = row.outputs(SharedPass(shared.predictor, shared.batch.select(torch.tensor([4, 11])), "test"))
    assert_same_outputs(part, expected[[4, 11]])


def test_answers_for_whole_samples_have_their_own_memory(run: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step may see a part of a sample, such as some rays of a view, and an answer needs several times as much."""
    row, shared = row_of(run, "bound_all_layers")
    expected = row.outputs(shared)
    row, shared = row_of(run, "bound_all_layers")
    monkeypatch.setattr(type(row), "_at_once", 7)
    monkeypatch.setitem(vars(row), "_overfit", row._overfit.model_copy(update={"memory_mb": 1e-6}))
    outputs, sizes = row._answering.outputs, []

    def counted(weights: dict[str, Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
        sizes.append(len(inputs[0]))
        return outputs(weights, inputs)

    monkeypatch.setattr(row._answering, "outputs", counted)
    assert_same_outputs(row.outputs(shared), expected)
    assert sizes == [1] * len(shared)


def test_it_is_better_than_the_bound_of_one_layer(run: Artifacts) -> None:
    found = evaluated(run, rows=["base", "bound", "bound_all_layers"])
    means = [found.figures[row]["rmse"].mean for row in ("base", "bound", "bound_all_layers")]
    assert means[2] < means[1] < means[0]
    assert found.gap_closed("bound_all_layers") > 1


def test_the_evaluation_has_its_own_precision(run: Artifacts) -> None:
    context = context_of(run)
    context.predictor.model.dtype = torch.float32
    ((row,), _) = load_rows(context, ["bound_all_layers"])
    output = row.outputs(SharedPass(context.predictor, whole_test_batch(context), "test"))
    assert output.dtype == torch.float32
    torch.testing.assert_close(output.double(), by_hand(run), rtol=1e-4, atol=1e-5)


def test_what_is_frozen_stays(run: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    build = ToyTask.build_model

    def frozen(self, *names: str):
        network = build(self)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name not in names and bool(names))
        return network

    monkeypatch.setattr(ToyTask, "build_model", lambda self: frozen(self, "embed.weight"))
    row, shared = row_of(run, "bound_all_layers")
    assert_same_outputs(row.outputs(shared), by_hand(run, frozen="embed.weight"))
    monkeypatch.setattr(ToyTask, "build_model", lambda self: frozen(self))
    rows, left_out = load_rows(context_of(run), ["bound_all_layers"])
    assert (rows, left_out) == ([], {"bound_all_layers": "every parameter of the base network is frozen"})
