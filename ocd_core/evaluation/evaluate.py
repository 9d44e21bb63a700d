"""Every method's outputs on the test split, measured in the same way.

The rows are those of `evaluate.rows`: the base network, OCD in its variants, the controls, and the bound, which
overfits each test sample with its own label and so cannot be reached. Everything is done batch by batch: one pass of
the base network, then each row's Δ from the moved layer on.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.evaluation.controls.controls import Controls
from ocd_core.evaluation.controls.neighbour import Neighbours
from ocd_core.evaluation.params import EvaluateParams
from ocd_core.evaluation.statistics import Values, bootstrap_interval, paired_z
from ocd_core.network.moves import BasePass, Move, base_pass, outputs_with_move, row_chunks, rows_within
from ocd_core.predictor import Predictor
from ocd_core.progress import Progress, no_progress
from ocd_core.samples import Batch, Split, Tensors, is_finite, map_tensors, stack, whole_split
from ocd_core.store import OverfitStore
from ocd_core.tasks.base import Metric
from ocd_core.tasks.draws_inputs import seen_while_overfitting

ROW_TITLES = {
    "base": "base network",
    "base_further": "base trained further",
    "mean_delta": "mean Δ for all",
    "neighbour": "Δ of the nearest neighbour",
    "ridge": "kernel ridge regression of Δ",
    "hypernetwork": "hypernetwork, end to end",
    "ocd_no_scale": "OCD without scale (mean ρ)",
    "ocd": "OCD (one draw)",
    "ocd_gain": "OCD (one draw) × {gain:g}",
    "ocd_mean_network": "OCD, mean network of {draws}",
    "ocd_ensemble": "OCD, ensemble of {draws}",
    "bound": "overfitted on test (bound)",
}
_DRAWN_ROWS = {"ocd_no_scale", "ocd", "ocd_gain", "ocd_mean_network", "ocd_ensemble"}
_MANY_DRAWS_ROWS = {"ocd_mean_network", "ocd_ensemble"}
_MEMORY_MB = 512


@dataclass(frozen=True)
class Evaluation:
    """Per-sample values of each row and metric, {row: {metric: (N,) float64}}, and of ρ.

    left_out: {row: why it has no values}. titles: {row: its name in tables}. bound_parts: see `BoundParts`.
    """

    values: dict[str, dict[str, Values]]
    rho: Values | None
    metrics: tuple[Metric, ...]
    titles: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)
    bound_parts: "BoundParts | None" = None

    @property
    def samples(self) -> int:
        """How many test samples."""
        return len(next(iter(self.values["base"].values())))

    def gap_closed(self, row: str) -> float | None:
        """(base - row) / (base - bound) of the first metric's mean: 0 is the base, 1 the bound; None without a gap."""
        if "bound" not in self.values:
            return None
        means = {r: float(self.values[r][self.metrics[0].name].mean()) for r in ("base", row, "bound")}
        gap = means["base"] - means["bound"]
        return (means["base"] - means[row]) / gap if gap else None

    def table(self, params: EvaluateParams, seed: int) -> list[dict[str, Any]]:
        """One entry a row: title, gap_closed, and each metric's value, 95 % interval and paired z against the base.

        z is of the metric's `per_sample` values, with the sign of what is reported: where the PSNR is higher, positive.
        """
        reported = self.summary()
        rows = []
        for row, values in self.values.items():
            entry: dict[str, Any] = {
                "row": row, "title": self.titles[row], "n": self.samples, "gap_closed": self.gap_closed(row),
            }  # fmt: skip
            for m in self.metrics:
                low, high = bootstrap_interval(values[m.name], params.bootstrap, seed, m.finish)
                value, base = reported[row][m.name], reported["base"][m.name]
                z = paired_z(values[m.name], self.values["base"][m.name])
                entry[m.name] = {
                    "value": value, "low": low, "high": high, "z_against_base": -z if z * (value - base) < 0 else z,
                }  # fmt: skip
            rows.append(entry)
        return rows

    def summary(self) -> dict[str, Any]:
        """{row: {metric: value}} and the count of samples, for `dvc metrics`."""
        rows = {
            row: {m.name: m.finish(float(values[m.name].mean())) for m in self.metrics}
            for row, values in self.values.items()
        }
        return {"n": self.samples, **rows}

    def per_sample(self) -> list[dict[str, Any]]:
        """One entry a test sample with every row's metrics as they are reported: a view's own PSNR, say."""
        columns = {
            f"{row}_{m.name}": [m.finish(float(v)) for v in values[m.name]]
            for row, values in self.values.items()
            for m in self.metrics
        }
        rho = {} if self.rho is None else {"rho": self.rho.tolist()}
        return [
            {"sample_id": i, **{name: column[i] for name, column in (columns | rho).items()}}
            for i in range(self.samples)
        ]


@dataclass(frozen=True)
class BoundParts:
    """The bound's first metric where overfitting a test sample sees a part of it (some of a view's rays).

    share_seen: of a sample. seen, unseen: the metric on either part; unseen is None where nothing is.
    """

    metric: str
    share_seen: float
    seen: float
    unseen: float | None


@torch.no_grad()
def evaluate(
    predictor: Predictor,
    split: Split,
    bound: OverfitStore,
    controls: Controls,
    neighbours: Neighbours | None,
    params: EvaluateParams,
    progress: Progress = no_progress,
) -> Evaluation:
    """Evaluate `params.rows` on every sample of a split.

    Args:
        bound: the overfit store of the same split (its own labels: for the bound alone).
        controls: holds what the rows need, on the predictor's device.
        neighbours: of the training split; needed by the row `neighbour`.

    Raises:
        UserError: the store is of another split, a row was not fitted, or an output is not finite.
    """
    count = len(split)
    if bound.rows_of_replica(0) != count:
        raise UserError(f"the overfit store has {bound.rows_of_replica(0)} samples, the split {count}; run 'dvc repro'")
    metrics = tuple(predictor.task.metrics)
    rows = _Rows(predictor, bound, controls, neighbours, params)
    collected: dict[str, dict[str, list[Values]]] = {row: {m.name: [] for m in metrics} for row in rows.names}
    rho: list[Values] = []
    parts = _PartsSeen(predictor, split, bound.schema.steps, metrics[0])
    example = split.batch(torch.zeros(1, dtype=torch.int64))
    # matrices: the codes of all draws, float32, and two Δ
    size = rows_within(predictor.model, example, _MEMORY_MB, matrices=2 + params.draws // 2)
    for chunk in row_chunks(count, size):
        batch = split.batch(whole_split(split)[chunk])
        base = base_pass(predictor.task, predictor.model, batch.to(predictor.device))
        estimate = predictor.estimate_rho(base)
        for row, computed in rows.outputs(batch, base, estimate):
            output = map_tensors(Tensor.cpu, computed)
            for metric, measured in _measure(metrics, row, output, batch):
                collected[row][metric].append(measured)
            if row == "bound":
                parts.add(batch, output)
        if estimate is not None:
            rho.append(estimate.double().cpu().numpy())
        progress(chunk.stop, "")
    values = {row: {m: np.concatenate(v) for m, v in by_metric.items()} for row, by_metric in collected.items()}
    titles = {
        row: ROW_TITLES[row].format(draws=params.draws, gain=controls.gain)
        + (", with gain" if row in _DRAWN_ROWS and predictor.gain is not None else "")
        for row in rows.names
    }
    return Evaluation(values, np.concatenate(rho) if rho else None, metrics, titles, rows.left_out, parts.result())


class _Rows:
    """Each row's outputs for a batch.

    names: the rows that there are, in order. left_out: the others, and why.
    """

    def __init__(
        self,
        predictor: Predictor,
        bound: OverfitStore,
        controls: Controls,
        neighbours: Neighbours | None,
        params: EvaluateParams,
    ) -> None:
        self.predictor, self.bound, self.controls, self.neighbours = predictor, bound, controls, neighbours
        self.draws = params.draws if _MANY_DRAWS_ROWS & {*params.rows} else 1
        fitted: dict[str, object] = {
            "base_further": controls.further, "mean_delta": controls.mean_delta_OI, "ridge": controls.ridge,
            "hypernetwork": controls.hypernetwork, "ocd_gain": controls.gain,
        }  # fmt: skip
        lost = [row for row in params.rows if row in fitted and fitted[row] is None]
        if lost:
            raise UserError(f"the controls hold no {lost[0]!r}; run the stage train_controls again ('dvc repro')")
        self.left_out: dict[str, str] = {}
        space = predictor.diffusion.representation
        if not space.uses_scale:
            self.left_out["ocd_no_scale"] = f"the representation {space.name} has no scale of its own"
        if predictor.gain is not None:
            self.left_out["ocd_gain"] = f"every OCD row has the gain of {predictor.gain:g} that validation chose"
        self.left_out = {row: why for row, why in self.left_out.items() if row in params.rows}
        self.names: list[str] = [row for row in params.rows if row not in self.left_out]
        if controls.further is not None:
            self.further = copy.deepcopy(controls.further).to(predictor.model.dtype)

    def outputs(self, batch: Batch, base: BasePass, rho_N: Tensor | None) -> Iterator[tuple[str, Tensors]]:
        """(row, outputs (N, ...)) on the predictor's device, one row after the other; the batch is on the CPU."""
        predictor = self.predictor
        draws = self.draws if _DRAWN_ROWS & {*self.names} else 0
        codes = [predictor.code(base, batch.sample_id, k) for k in range(draws)]
        drawn: dict[int, Tensors] = {}  # the outputs of one draw are used by two rows

        def one_draw(k: int) -> Tensors:
            if k not in drawn:
                drawn[k] = self._with(base, predictor.move(base, codes[k], rho_N))
            return drawn[k]

        for row in self.names:
            if row == "base":
                output = base.output
            elif row == "base_further":
                output = self.further(*(_as(x.to(predictor.device), predictor.model.dtype) for x in batch.inputs))
            elif row == "ocd":
                output = one_draw(0)
            elif row == "ocd_ensemble":
                output = predictor.task.combine(stack([one_draw(k) for k in range(draws)]))
            else:
                output = self._with(base, self._move(row, batch, base, codes, rho_N))
            yield row, output

    def _with(self, base: BasePass, move: Move) -> Tensors:
        return outputs_with_move(self.predictor.model, base.cut, move)

    def _move(self, row: str, batch: Batch, base: BasePass, codes: list[Tensor], rho_N: Tensor | None) -> Move:
        controls, predictor = self.controls, self.predictor
        if row == "mean_delta":
            assert controls.mean_delta_OI is not None
            return controls.mean_delta_OI.expand(len(batch), -1, -1)
        if row == "neighbour":
            assert self.neighbours is not None
            return self.neighbours.deltas(batch).to(predictor.device)
        if row in ("ridge", "hypernetwork"):
            network = controls.ridge if row == "ridge" else controls.hypernetwork
            assert network is not None
            assert controls.space is not None
            return controls.space.move(network(base.condition), base.cut.layer_input_NI)
        if row == "bound":
            return torch.from_numpy(self.bound.deltas_of_samples(batch.sample_id.numpy())).to(predictor.device)
        if row == "ocd_no_scale":
            return predictor.move(base, codes[0], torch.full((len(batch),), controls.mean_rho, device=predictor.device))
        if row == "ocd_gain":
            assert controls.gain is not None
            return controls.gain * predictor.move(base, codes[0], rho_N)
        assert row == "ocd_mean_network"
        total = torch.zeros(())
        for code in codes:
            total = total + predictor.move(base, code, rho_N) / len(codes)
        return total


class _PartsSeen:
    """Gathers `BoundParts` batch by batch; nothing for a task whose samples are seen whole."""

    def __init__(self, predictor: Predictor, split: Split, steps: int, metric: Metric) -> None:
        self.predictor, self.split, self.steps, self.metric = predictor, split, steps, metric
        self.shares: list[float] = []
        self.values: dict[bool, list[float]] = {True: [], False: []}  # by whether it was seen

    def add(self, batch: Batch, output: Tensors) -> None:
        task, seed = self.predictor.task, self.predictor.seed
        seen = seen_while_overfitting(task, self.split, batch.sample_id, self.steps, seed)
        if seen is None:
            return
        assert isinstance(output, Tensor)
        assert isinstance(batch.target, Tensor)
        assert self.metric.per_sample is not None
        self.shares += seen.flatten(1).double().mean(1).tolist()
        for row, whole in enumerate(seen):
            for which, mask in ((True, whole), (False, ~whole)):
                if mask.any():
                    part = self.metric.per_sample(output[row][mask][None], batch.target[row][mask][None])
                    self.values[which].append(float(part))

    def result(self) -> BoundParts | None:
        if not self.shares:
            return None
        seen, unseen = (self.metric.finish(float(np.mean(v))) if v else None for v in self.values.values())
        assert seen is not None
        return BoundParts(self.metric.name, float(np.mean(self.shares)), seen, unseen)


def _as(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype) if x.is_floating_point() else x


def _measure(metrics: tuple[Metric, ...], row: str, output: Tensors, batch: Batch) -> Iterator[tuple[str, Values]]:
    if not is_finite(output):
        raise UserError(f"{ROW_TITLES[row]!r} gives outputs that are not finite; look at the drawn Δ and at ρ")
    for metric in metrics:
        yield metric.name, metric.measure(output, batch).double().numpy()
