"""How long inference takes, of the base network and of OCD: the paper's Tab. 7.

OCD is what users call, `Predictor.predict` with one draw; the base network is the plain module, in its own precision.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from ocd_core.network.moves import row_chunks, rows_within
from ocd_core.predictor import Predictor
from ocd_core.samples import Batch, Split, rows_at_once
from ocd_core.training.devices import seconds_when_done

_SINGLE = 20  # samples that are timed one by one
_BATCH = 256  # samples of the timed batch
_TURNS = 3  # repetitions of the batch
_SECONDS = 1.0  # of the samples one by one, of which there are fewer if they take longer
_BATCH_SECONDS = 0.2  # of one batch, which is smaller if it takes longer
_MEMORY_MB = 512
_CALLS = ("base", "ocd")


def inference_times(predictor: Predictor, split: Split) -> dict[str, dict[str, Any]]:
    """Milliseconds per sample on the predictor's device: medians over repetitions in which base and OCD take turns.

    It takes about two seconds, and more only if a single sample takes longer. Each kind of call is made once before
    it is timed.

    Returns:
        {"one_by_one": {"samples": count, "base_ms": time, "ocd_ms": time}, "batched": the same for one batch}.
    """
    count = len(split)
    batches = [split.batch(torch.tensor([i])) for i in range(min(_SINGLE, count))]
    timed = _Timed(predictor, batches[0])
    for name in _CALLS:  # not kept: the first calls are slower
        timed.milliseconds(name, batches[0])
    single: dict[str, list[float]] = {name: [] for name in _CALLS}
    begun = time.perf_counter()
    for batch in batches:
        for name in _CALLS:
            single[name].append(timed.milliseconds(name, batch))
        if time.perf_counter() - begun > _SECONDS:
            break
    one_by_one = _medians(single)
    size, longest = 1, max(one_by_one["base_ms"], one_by_one["ocd_ms"])
    largest = rows_at_once(split, min(_BATCH, count))
    while size < largest and longest <= 1000 * _BATCH_SECONDS / 2:
        size = min(2 * size, largest)
        batch = split.batch(torch.arange(size))
        longest = max(size * timed.milliseconds(name, batch) for name in _CALLS)
    if size == 1:
        return {"one_by_one": one_by_one, "batched": {**one_by_one, "samples": 1}}
    batched: dict[str, list[float]] = {name: [] for name in _CALLS}
    for _ in range(_TURNS):
        for name in _CALLS:
            batched[name].append(timed.milliseconds(name, batch))
    return {"one_by_one": one_by_one, "batched": {**_medians(batched), "samples": size}}


def _medians(times: dict[str, list[float]]) -> dict[str, Any]:
    return {"samples": len(times["base"]), **{f"{name}_ms": statistics.median(each) for name, each in times.items()}}


class _Timed:
    """The two kinds of calls; the base network takes its samples in parts of a fixed size, as `predict` does."""

    def __init__(self, predictor: Predictor, example: Batch) -> None:
        self._predictor = predictor
        self._rows = rows_within(predictor.model, example, _MEMORY_MB, matrices=1)

    def milliseconds(self, name: str, batch: Batch) -> float:
        """The time of one call per sample of a batch."""
        call: Callable[[Batch], None] = self._base if name == "base" else self._ocd
        begun = seconds_when_done(self._predictor.device)
        call(batch)
        return 1000 * (seconds_when_done(self._predictor.device) - begun) / len(batch)

    def _ocd(self, batch: Batch) -> None:
        self._predictor.predict(batch.inputs, sample_id=batch.sample_id)

    @torch.inference_mode()
    def _base(self, batch: Batch) -> None:
        for rows in row_chunks(len(batch), self._rows):
            self._predictor.model.network(*batch.select(rows).to(self._predictor.device).inputs)
