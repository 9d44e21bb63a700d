"""Times of inference, with a clock that calls set."""

from types import SimpleNamespace

import pytest
import torch

from ocd_core.artifacts import Artifacts
from ocd_core.evaluation import speed
from ocd_core.evaluation.speed import inference_times
from ocd_core.samples import Batch
from tests.support.runs import context_of


class Split:
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def batch(self, sample_id: torch.Tensor) -> Batch:
        return Batch((torch.zeros(len(sample_id), 2),), torch.zeros(len(sample_id)), sample_id)


class Calls:
    """Stands in for a predictor: a call takes a fixed time and a time per sample, in seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, base: float, ocd: float, fixed: float = 0.0) -> None:
        self.now, self.made = 0.0, []
        self.device = torch.device("cpu")
        self.model = SimpleNamespace(network=lambda x: self._take("base", len(x), base, 0.0))
        self.predict = lambda inputs, sample_id: self._take("ocd", len(sample_id), ocd, fixed)
        monkeypatch.setattr(speed, "rows_within", lambda *_args, **_named: 100)
        monkeypatch.setattr(speed.time, "perf_counter", lambda: self.now)

    def _take(self, name: str, count: int, each: float, fixed: float) -> None:
        self.made.append((name, count))
        self.now += fixed + count * each


def test_base_and_ocd_take_turns_one_by_one_and_in_a_batch(monkeypatch) -> None:
    calls = Calls(monkeypatch, base=1e-4, ocd=2e-4, fixed=8e-4)
    found = inference_times(calls, Split(300))
    assert found["one_by_one"] == pytest.approx({"samples": 20, "base_ms": 0.1, "ocd_ms": 1.0})
    assert found["batched"] == pytest.approx({"samples": 256, "base_ms": 0.1, "ocd_ms": 0.2 + 0.8 / 256})
    assert calls.made[:42] == [("base", 1), ("ocd", 1)] * 21
    one_batch = [("base", 100), ("base", 100), ("base", 56), ("ocd", 256)]  # the base in parts that fit memory
    assert calls.made[-12:] == one_batch * 3


def test_the_split_may_be_small(monkeypatch) -> None:
    found = inference_times(Calls(monkeypatch, base=1e-4, ocd=1e-4), Split(7))
    assert [part["samples"] for part in found.values()] == [7, 7]
    found = inference_times(Calls(monkeypatch, base=1e-4, ocd=1e-4), Split(1))
    assert [part["samples"] for part in found.values()] == [1, 1]


@pytest.mark.parametrize(
    ("ocd", "single", "batch", "at_most"), [(0.03, 20, 4, 2.2), (0.15, 7, 1, 2.2), (24.0, 1, 1, 49.0)]
)
def test_large_samples_are_fewer(monkeypatch, ocd: float, single: int, batch: int, at_most: float) -> None:
    calls = Calls(monkeypatch, base=1e-3, ocd=ocd)
    found = inference_times(calls, Split(1000))
    assert (found["one_by_one"]["samples"], found["batched"]["samples"]) == (single, batch)
    assert found["batched"]["ocd_ms"] == pytest.approx(1000 * ocd)
    assert calls.now < at_most


def test_a_real_predictor(run: Artifacts) -> None:
    context = context_of(run)
    for part in inference_times(context.predictor, context.split("test")).values():
        assert 1 <= part["samples"] <= 20
        assert 0 < part["base_ms"] < part["ocd_ms"]
