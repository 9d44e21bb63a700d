"""Tent's row: what it adapts to, the learning rates that it chooses, and its way through the stages."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from ruamel.yaml import YAML
from torch import Tensor, nn

from ocd_core.artifacts import Artifacts, read_json, read_table
from ocd_core.config import parse_params
from ocd_core.errors import UserError
from ocd_core.evaluation.context import Context, Fitting
from ocd_core.evaluation.fitted import load_rows
from ocd_core.evaluation.row import Saved
from ocd_core.evaluation.rows.tent import Tent, TentParams
from ocd_core.rng import permutation
from ocd_core.samples import Batch
from tests.support.arrays import ArraySplit, ArrayTask
from tests.support.runs import context_of, params_of
from tests.support.toy import plane_params, run_stages

PARAMS = TentParams(iterations=[1, 3], modes=["episodic", "online"], lrs=[1e-3, 0.1], batch_size=8)
VARIANTS = ("1", "3", "1_online", "3_online")


class Classifier(ArrayTask):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def build_model(self) -> nn.Module:
        return copy.deepcopy(self.network)

    def log_probabilities(self, output: Tensor) -> Tensor | None:
        return F.log_softmax(output, -1)


ORDER = permutation(21, 0, "batches to adapt to")  # of the test split


def net(norm: nn.Module | None = None) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Linear(5, 6), *([] if norm is None else [norm]), nn.Tanh(), nn.Linear(6, 3)]
        return nn.Sequential(*layers)


def splits(order: Tensor | None = None) -> dict[str, ArraySplit]:
    """Three splits of 30, 20 and 21 samples with labels from another network; `order`: of the test split."""
    g = torch.Generator().manual_seed(0)
    found = {}
    for name, count in (("train", 30), ("val", 20), ("test", 21)):
        x = torch.randn(count, 5, generator=g)
        y = (2 * x[:, :3] + 0.5 * torch.randn(count, 3, generator=g)).argmax(1)
        found[name] = ArraySplit(x, y)
    if order is not None:
        found["test"] = ArraySplit(found["test"].x[order], found["test"].y[order])
    return found


def of(kind: type[Context], task: Classifier, params: TentParams = PARAMS, **parts: ArraySplit) -> Any:
    """A context whose splits are in memory."""
    network = task.build_model().eval().requires_grad_(False)
    device = torch.device("cpu")
    predictor = SimpleNamespace(
        task=task, model=SimpleNamespace(network=network, device=device), device=device, gain=None
    )
    controls = SimpleNamespace(of_row=lambda name: params if name == "tent" else None)
    opened = {("split", name): split for name, split in (splits() | parts).items()}
    which: Any = {} if kind is Fitting else {"splits": ("train", "test")}
    context = kind(SimpleNamespace(seed=0), SimpleNamespace(controls=controls), predictor, **which, _shared=opened)
    return context if kind is Fitting else context.without_test()


def row(task: Classifier, variant: str, lr: float, **parts: ArraySplit) -> Tent:
    found = Tent("tent", of(Context, task, **parts), variant)
    found.lrs = {variant: lr}
    return found


def answers(found: Tent, ids: Tensor) -> Tensor:
    zeros = torch.zeros(len(ids), dtype=torch.int64)
    return found.outputs(SimpleNamespace(batch=Batch((torch.zeros(len(ids), 5),), zeros, ids), split="test"))


def by_hand(network: nn.Module, moved: list[str], x: Tensor, size: int, variant: str, lr: float) -> Tensor:
    """torch.optim.Adam on named parameters of a copy, the entropy written out, on batches in the seeded order."""
    order = permutation(len(x), 0, "batches to adapt to")
    iterations, online = int(variant.split("_")[0]), variant.endswith("online")
    found, own = [], None
    for part in x[order].tensor_split(math.ceil(len(x) / size)):
        if own is None or not online:
            own = copy.deepcopy(network).eval()
            for module in own.modules():
                module.training = isinstance(module, nn.BatchNorm1d)
            named = dict(own.named_parameters())
            optimizer = torch.optim.Adam([named[name] for name in moved], lr=lr)
        for _ in range(iterations):
            p_NC = own(part).softmax(1)
            optimizer.zero_grad()
            (-(p_NC * p_NC.log()).sum(1)).mean().backward()
            optimizer.step()
        found.append(own(part).detach())
    outputs = torch.empty(len(x), found[0].shape[1])
    outputs[order] = torch.cat(found)
    return outputs


@pytest.mark.parametrize(
    ("norm", "moved"),
    [
        (None, ["0.bias", "2.bias"]),
        (nn.LayerNorm(6), ["1.weight", "1.bias"]),
        (nn.BatchNorm1d(6), ["1.weight", "1.bias"]),
    ],
    ids=["biases", "layer norm", "batch norm"],
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_it_adapts_to_batches_of_the_split(variant: str, norm: nn.Module | None, moved: list[str]) -> None:
    network = net(norm)
    task, x = Classifier(network), splits()["test"].x
    before = copy.deepcopy(network.state_dict())
    found = row(task, variant, 0.05)
    expected = by_hand(network, moved, x, 8, variant, 0.05)
    # the evaluation may divide the split otherwise, and ask in any order
    for ids in (torch.arange(21), torch.arange(13, 21), torch.tensor([20, 0, 7])):
        torch.testing.assert_close(answers(found, ids), expected[ids], rtol=1e-4, atol=1e-5)
    assert (expected - network.eval()(x)).abs().max() > 1e-2
    for one in (network, found.context.predictor.model.network):
        assert all(torch.equal(tensor, before[name]) for name, tensor in one.state_dict().items())


@pytest.mark.parametrize(("variant", "depends"), [("3", False), ("3_online", True)])
def test_only_online_batches_depend_on_those_before(variant: str, depends: bool) -> None:
    order = torch.empty_like(ORDER)
    order[ORDER] = ORDER.roll(-7)  # the first batch of seven comes last
    task = Classifier(net(nn.LayerNorm(6)))
    first = answers(row(task, variant, 0.05), ORDER[:7])
    last = answers(row(task, variant, 0.05, **splits(order)), ORDER[14:])
    assert torch.allclose(first, last, atol=1e-6) != depends


def test_a_split_sorted_by_class_is_not_adapted_to_class_by_class() -> None:
    y = splits()["test"].y
    batches = y.sort().values[ORDER].tensor_split(3)
    assert all(len(batch.unique()) > 1 for batch in batches)


@pytest.mark.parametrize("variant", VARIANTS)
def test_labels_never_matter(variant: str) -> None:
    task, test = Classifier(net()), splits()["test"]
    ids = torch.arange(21)
    seen = answers(row(task, variant, 0.05), ids)
    assert torch.equal(seen, answers(row(task, variant, 0.05, test=ArraySplit(test.x, torch.zeros_like(test.y))), ids))
    context = row(task, variant, 0.05).context
    with pytest.raises(AssertionError, match="the test split is not for this row"):
        context.split("test")


@pytest.mark.parametrize("variant", VARIANTS)
def test_with_a_learning_rate_near_zero_it_is_the_base(variant: str) -> None:
    network = net(nn.LayerNorm(6))
    found = answers(row(Classifier(network), variant, 1e-12), torch.arange(21))
    torch.testing.assert_close(found, network.eval()(splits()["test"].x).detach(), rtol=1e-6, atol=1e-6)


def test_each_variant_has_the_learning_rate_with_the_lowest_validation_loss() -> None:
    network = net()
    params = PARAMS.model_copy(update={"lrs": [1e-3, 0.05, 1.0]})
    task, x = Classifier(network), splits()["val"].x
    label = network(x).argmax(1)
    val = ArraySplit(x, torch.cat([label[:-6], (label[-6:] + 1) % 3]))  # the network is right about most
    fitting = of(Fitting, task, params, val=val)
    fitted = Tent("tent", fitting)
    fit = fitted.fit(fitting)
    assert list(fitted.lrs) == list(fit.metrics) == list(VARIANTS)
    for variant in VARIANTS:
        losses = {
            lr: float(F.cross_entropy(by_hand(network, ["0.bias", "2.bias"], val.x, 8, variant, lr), val.y))
            for lr in params.lrs
        }
        best = min(losses, key=losses.__getitem__)
        assert fitted.lrs[variant] == fit.metrics[variant]["lr"] == best
        assert fit.metrics[variant]["val_loss"] == pytest.approx(losses[best], rel=1e-4)
        online, iterations = float(variant.endswith("online")), float(variant[0])
        curve = [row for row in fit.curve if (row["iterations"], row["online"]) == (iterations, online)]
        assert [row["lr"] for row in curve] == params.lrs
        assert [row["val_loss"] for row in curve] == pytest.approx(list(losses.values()), rel=1e-4)
    assert len(set(fitted.lrs.values())) > 1, "the case must have variants with different learning rates"
    assert fitted.tensors() == {}
    loaded = Tent("tent", of(Context, task), "3")
    loaded.load(Saved({}, fitted.config(), Path("controls"), "tent", None))
    assert loaded.lrs == fitted.lrs


def test_a_rate_whose_loss_is_not_finite_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Classifier(net())
    calls: list[int] = []

    def first_is_nan(output: Tensor, target: Tensor) -> Tensor:
        calls.append(1)
        return F.cross_entropy(output, target, reduction="none") * (torch.nan if len(calls) % 2 else 1)

    monkeypatch.setattr(task, "loss", first_is_nan)
    fitting = of(Fitting, task)
    fitted = Tent("tent", fitting)
    fitted.fit(fitting)
    assert set(fitted.lrs.values()) == {0.1}
    monkeypatch.setattr(task, "loss", lambda output, target: output[:, 0] * torch.nan)
    with pytest.raises(UserError, match=r"controls\.tent\.lrs: no learning rate gives finite losses .*\(tent_1\)"):
        Tent("tent", fitting).fit(fitting)


def test_titles() -> None:
    titles = [Tent("tent", of(Context, Classifier(net(nn.LayerNorm(6)))), variant).title for variant in VARIANTS]
    assert titles == [
        "Tent (1 iteration)", "Tent (3 iterations)", "Tent (1 iteration, online)", "Tent (3 iterations, online)"
    ]  # fmt: skip
    assert Tent("tent", of(Context, Classifier(net())), "3_online").title == "Tent (3 iterations, on biases, online)"


def test_it_needs_classes_and_something_to_move() -> None:
    task = Classifier(net())
    fitting = of(Fitting, task)
    assert Tent("tent", fitting).left_out() is None
    fitting.split("val").one_by_one = True
    assert Tent("tent", fitting).left_out() == (
        "the samples differ in shape, so that a batch to adapt to would leave parts of them out"
    )
    task.network.requires_grad_(False)
    reason = Tent("tent", of(Context, task), "1").left_out()
    assert reason == "the base network has neither normalisation layers nor biases to train"
    task.log_probabilities = lambda output: None
    assert Tent("tent", of(Context, task), "1").left_out() == "the task gives no probabilities of classes"


@pytest.mark.parametrize(
    "change",
    [{"iterations": []}, {"iterations": [0]}, {"iterations": [1, 1]}, {"modes": []}, {"modes": ["offline"]},
     {"modes": ["online", "online"]}, {"lrs": []}, {"lrs": [0.0]}, {"lrs": [1e-3, 1e-3]}, {"batch_size": 0}],
)  # fmt: skip
def test_params_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TentParams.model_validate({**PARAMS.model_dump(), **change})


def test_through_the_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = plane_params()
    values["controls"] = {**values["controls"], "fit": ["mean_delta", "tent"], "tent": PARAMS.model_dump()}
    values["evaluate"] = {**values["evaluate"], "rows": ["base", "tent", "ocd", "bound_all_layers"]}
    (tmp_path / "params").mkdir()
    with (tmp_path / "params" / "toy.yaml").open("w") as file:
        YAML().dump(values, file)
    monkeypatch.chdir(tmp_path)
    run_stages("report")
    run = Artifacts("toy", root=tmp_path)
    results = read_json(run.evaluation / "table.json")["results"]
    table = {r["row"]: r for r in results if r["metric"] == "cross_entropy" and r["temperature"] is None}
    names = [f"tent_{variant}" for variant in VARIANTS]
    assert list(table) == ["base", *names, "ocd", "bound_all_layers"]
    chosen = read_json(run.controls / "config.json")["rows"]["tent"]["lrs"]
    assert list(chosen) == list(VARIANTS)
    curve = [row for row in read_table(run.controls / "curves.tsv") if row["control"] == "tent"]
    assert len(curve) == len(VARIANTS) * 2
    context = context_of(run)
    test = context.split("test")
    network, batch = context.predictor.model.network, test.batch(torch.arange(len(test)))
    moved = [name for name, _ in network.named_parameters() if name.endswith("bias")]
    for name, variant in zip(names, VARIANTS, strict=True):
        expected = by_hand(network.requires_grad_(True), moved, batch.inputs[0], 8, variant, chosen[variant])
        loss = context.task.loss(expected, batch.target).mean().item()
        assert table[name]["mean"] == pytest.approx(loss, rel=1e-4)
        assert table[name]["title"] in (run.report / "table.md").read_text()


def test_a_task_without_classes_leaves_it_out(run: Artifacts) -> None:
    values = params_of(run).plain()
    values["controls"]["tent"] = PARAMS.model_dump()
    context = replace(context_of(run), params=parse_params(values, "x"))
    rows, left_out = load_rows(context, ["tent", "base"])
    assert [found.name for found in rows] == ["base"]
    assert left_out == {"tent": "the task gives no probabilities of classes"}
