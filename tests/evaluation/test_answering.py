"""The cost of answers, against operations counted by hand."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from ocd_core.artifacts import Artifacts, read_json
from ocd_core.evaluation.answering import cost_of_answers, with_cost
from ocd_core.evaluation.context import Context
from ocd_core.evaluation.rows.tent import Tent
from ocd_core.samples import Batch
from stages import evaluate as evaluate_stage
from tests.support.runs import context_of, row_of, run_of, whole_test_batch
from tests.support.toy import plane_params


def cost(run: Artifacts, name: str):
    row, shared = row_of(run, name)
    row.outputs(shared)  # the first pass also checks how the network is cut
    return cost_of_answers(row, shared.predictor, whole_test_batch(context_of(run)))


def test_the_base_costs_its_products(run: Artifacts) -> None:
    """Three positions through 4 -> 6, then 6 -> 2: twice as many operations as weights, once each."""
    found = cost(run, "base")
    assert found.flops == 2 * (3 * 4 * 6 + 6 * 2)
    assert 0 < found.seconds < 1


def test_draws_cost_more_than_the_base_and_an_ensemble_more_than_a_draw(run: Artifacts) -> None:
    base, one, five = (cost(run, name).flops for name in ("base", "ocd", "ocd_ensemble"))
    assert base < one < five
    assert five - base == pytest.approx(3 * (one - base), rel=0.35)  # three draws share the base's pass and ρ


def test_a_whole_split_is_answered_once_and_its_cost_shared_by_the_samples() -> None:
    calls: list[int] = []

    def answer() -> Tensor:
        calls.append(1)
        return torch.ones(20, 100) @ torch.ones(100, 2)

    output, found = with_cost(answer, 20, torch.device("cpu"))
    assert (len(calls), output.shape) == (1, (20, 2))
    assert found.flops == 2 * 100 * 2
    assert found.seconds > 0


class _Gpu:
    """A device that works after a call has returned: a tenth of a second for each piece of work."""

    def __init__(self) -> None:
        self.done, self.given = 0.0, 0

    def work(self) -> Tensor:
        self.given += 1
        return torch.zeros(1)

    def synchronize(self, _device: torch.device) -> None:
        self.done, self.given = self.done + 0.1 * self.given, 0


def test_the_work_of_a_gpu_counts_and_that_of_earlier_calls_does_not(monkeypatch) -> None:
    gpu = _Gpu()
    monkeypatch.setattr(torch.cuda, "synchronize", gpu.synchronize)
    monkeypatch.setattr("ocd_core.training.devices.time.perf_counter", lambda: gpu.done)
    gpu.work()
    _, found = with_cost(gpu.work, 2, torch.device("cuda", 0))
    assert found.seconds == pytest.approx(0.05)

    def outputs(_shared: object) -> Tensor:
        return gpu.work()

    row = SimpleNamespace(whole_split=False, outputs=outputs)
    predictor = SimpleNamespace(device=torch.device("cuda", 0))
    monkeypatch.setattr("ocd_core.evaluation.answering.SharedPass", lambda *_args: None)
    batch = Batch((torch.zeros(4, 1),), torch.zeros(4), torch.arange(4))
    assert cost_of_answers(row, predictor, batch).seconds == pytest.approx(0.1 / 4)  # not that of the count


def test_the_evaluation_measures_rows_of_whole_splits_while_they_answer(tmp_path: Path, monkeypatch) -> None:
    values = plane_params()
    values["controls"] |= {"fit": ["tent"], "tent": {**Tent.quick}}
    values["evaluate"]["rows"] = ["base", "tent"]
    run = run_of(tmp_path, "plane", values, "train_controls")
    monkeypatch.chdir(tmp_path)
    calls: list[str] = []
    adapted = Tent._adapted

    def counted(self: Tent, context: Context, name: str, variant: str, lr: float) -> Tensor:
        calls.append(name)
        return adapted(self, context, name, variant, lr)

    monkeypatch.setattr(Tent, "_adapted", counted)
    evaluate_stage.main("plane")
    assert sorted(calls) == ["test", "test", "val", "val"]  # two modes
    results = {r["row"]: r for r in read_json(run.evaluation / "table.json")["results"]}
    assert results["base"]["flops"] == 2 * (2 * 6 + 6 * 2)
    # an update, with gradients from the output to the hidden layer's bias, and the answer
    assert results["tent_1"]["flops"] == 48 + 2 * 6 * 2 + 48
