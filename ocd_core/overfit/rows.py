"""Rows of a store from rows of a split (Alg. 1, lines 1-5)."""

import copy
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.network.cut import CutModel
from ocd_core.network.moves import base_pass, fitting_rows, pass_from_cut, row_chunks
from ocd_core.overfit.base_values import CONDITION, TARGET, BaseValues
from ocd_core.overfit.layout import check_layout
from ocd_core.overfit.params import OverfitParams
from ocd_core.overfit.refine import Coordinates, Refinement, RowLosses, fit_coordinates, mean_curvature, refine
from ocd_core.overfit.rules import MATRICES
from ocd_core.overfit.steps import Overfitted, StepPart, one_position, overfit, refuse_infinite, within_float32
from ocd_core.overfit.threads import in_threads, one_thread
from ocd_core.progress import Progress, no_progress
from ocd_core.rng import permutation
from ocd_core.samples import Batch, Split, Tensors, flat, map_tensors, rows_at_once, spread_rows
from ocd_core.store import StoreSchema
from ocd_core.tasks.base import Task
from ocd_core.tasks.draws_inputs import draws_inputs, parts_of_step, step_batch

Arrays = dict[str, npt.NDArray[Any]]

_PREDICTED = 32  # samples that show whether the base's output is class scores
_SHARDS_ALIVE = 3  # one being filled, one being written, and the encoded bytes of that
_CURVED = 64  # samples from which the mean curvature of losses is computed
_GRAPHS = 4  # a graph of derivatives takes about as much memory as so many passes


class RowBuilder:
    """Turns rows of a split into the arrays of the store.

    A row is one repetition (replica) of one sample: row r is sample r // replicas, replica r % replicas.

    Args:
        refinement: from a builder of the training split (`fit_refinement`), if `params.refine.steps` is above 0.

    Raises:
        UserError: the factored layout is asked for but not exact.
    """

    def __init__(
        self,
        task: Task,
        cut_model: CutModel,
        split: Split,
        params: OverfitParams,
        seed: int,
        refinement: Refinement | None = None,
    ) -> None:
        self.task, self.model, self.split, self.params, self.seed = task, cut_model, split, params, seed
        self.refinement = refinement
        self._reading = threading.Lock()  # a split may read from a file
        self._base_values = BaseValues(task, cut_model, split, self._reading)
        self.rows = len(split) * params.replicas
        # smaller shards if memory is short
        self._shard_mb = min(float(params.shard_mb), params.memory_mb / (2 * (_SHARDS_ALIVE + 1)))
        batch_mb = params.memory_mb - _SHARDS_ALIVE * self._shard_mb
        zero = torch.zeros(1, dtype=torch.int64)
        cut = next(iter(self._step_inputs(zero, zero)(0))).cut
        change = draws_inputs(task)
        check_layout(cut_model, cut, params, change)
        matrices = 0 if one_position(cut, change) else MATRICES[params.optimizer]
        fitting = fitting_rows(cut_model, split.batch(zero), batch_mb, matrices)
        self.batch_rows = rows_at_once(split, fitting.rows)
        # a network that is not traced runs with hooks, which other threads' passes would set off too
        threads = cut_model.device.type == "cpu" and cut_model.traced
        self._at_once = max(2, fitting.in_memory // self.batch_rows) if threads else 1
        self.refined_rows = 0
        if params.refine.steps:
            j_bytes = 2 * 8 * params.refine.components * flat(cut_model.forward(cut)[1]).shape[1]
            self.refined_rows = max(1, min(self.batch_rows // _GRAPHS, int(batch_mb * 2**20) // j_bytes))

    def fit_refinement(self) -> Refinement:
        """What refines Δ in all splits, from a seeded subset of the samples of this one, the training split.

        Raises:
            UserError: their Δ do not span `refine.components` directions.
        """
        params = self.params.refine
        drawn = permutation(len(self.split), self.seed, "refinement")[: params.samples]
        # the curvature is that of the first that are drawn: a split may be sorted by class
        samples, curved = drawn.sort().values, drawn[:_CURVED].sort().values
        of_curved = torch.searchsorted(samples, curved)
        first = torch.zeros_like(samples)  # replica
        deltas_NOI = torch.empty(len(samples), *self.model.weight_OI.shape)

        def overfit_these(chunk: slice) -> None:
            self._overfit(self._step_inputs(samples[chunk], first[chunk]), deltas_NOI[chunk])

        def measure_these(chunk: slice) -> None:
            rows = self._row_losses(curved[chunk], first[chunk], coordinates)
            delta_NOI = deltas_NOI[of_curved[chunk]].to(self.model.device)
            code_Nk = coordinates.encode(delta_NOI).to(self.model.dtype)
            curvature_Nkk[chunk] = rows.quadratic(code_Nk).curvature_Nkk

        with one_thread() as cores:
            threads = min(cores, self._at_once)
            in_threads(list(row_chunks(len(samples), self.batch_rows)), threads, overfit_these, no_progress)
            coordinates = fit_coordinates(deltas_NOI, params)
            count, size = len(curved), params.components
            curvature_Nkk = torch.empty(count, size, size, dtype=self.model.dtype, device=self.model.device)
            chunks = list(row_chunks(count, self.refined_rows))
            measure_these(chunks[0])  # alone: it decides whether the network's elements are independent
            in_threads(chunks[1:], threads, measure_these, no_progress)
            return Refinement(coordinates, params.damping * mean_curvature(curvature_Nkk))

    def classes(self) -> int | None:
        """C if `base_output` is C scores and the largest is the predicted class, else None; tested on some samples."""
        classes = None
        for row in torch.split(spread_rows(len(self.split), _PREDICTED), 1):  # one by one: a sample may be large
            batch = self.split.batch(row).to(self.model.device)
            found = base_pass(self.task, self.model, batch)
            predicted_1 = self.task.predicted_class(map_tensors(Tensor.float, found.output))
            scores_1D = found.condition.base_output
            if predicted_1 is None or scores_1D.dim() != 2 or scores_1D.shape[1] == 0:  # I(x) may leave it out
                return None
            if not torch.equal(scores_1D.argmax(1), predicted_1):
                return None
            classes = int(scores_1D.shape[1])
        return classes

    def ids(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """sample_id and replica of every row, int64."""
        return self._ids(slice(0, self.rows))

    def _ids(self, rows: slice) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        index = np.arange(rows.start, rows.stop)
        return index // self.params.replicas, index % self.params.replicas

    def schema(self) -> StoreSchema:
        """The shapes of the store, from one row.

        Raises:
            UserError: the factored layout is asked for, but the domain's condition() does not keep i_L.
        """
        zero = torch.zeros(1, dtype=torch.int64)
        steps = self._step_inputs(zero, zero)
        values = self._values(zero, steps)
        if self.params.layout == "factored":
            _refuse_another_input(values, steps)  # before there is a store
        target = values[TARGET].cpu().numpy()
        shapes = {name: tuple(values[name].shape[1:]) for name in CONDITION}
        out_features, in_features = self.model.weight_OI.shape
        return StoreSchema.plan(
            shard_mb=self._shard_mb,
            layout=self.params.layout,
            rows=self.rows,
            out_features=out_features,
            in_features=in_features,
            steps=self.params.all_steps,
            **shapes,
            target_shape=target.shape[1:],
            target_dtype=str(target.dtype),
        )

    def buffers(self, schema: StoreSchema, rows: int | None = None) -> Arrays:
        """Arrays of so many rows, by default a full shard, to be filled by `fill`: all but sample_id and replica."""
        rows = min(schema.shard_rows, schema.rows) if rows is None else rows
        return {
            name: np.empty((rows, *spec.shape[1:]), spec.dtype)
            for name, spec in schema.arrays().items()
            if name not in ("sample_id", "replica")
        }

    def fill(self, rows: slice, buffers: Arrays, progress: Progress = no_progress) -> Arrays:
        """Compute these rows, in batches within the memory bound, into the first rows of `buffers`.

        The batches start at `rows.start`, so a shard depends only on its rows, not on what was computed before it or by
        which worker.

        Returns:
            all arrays of the rows: views of the buffers, and sample_id and replica.

        Raises:
            UserError: see `overfit` and `schema`; or I(x) is not finite.
        """
        self._base_values.forget()
        views = {name: buffer[: rows.stop - rows.start] for name, buffer in buffers.items()}
        for chunk in row_chunks(rows.stop - rows.start, self.batch_rows):
            index = torch.arange(rows.start + chunk.start, rows.start + chunk.stop)
            self._fill(index, {name: view[chunk] for name, view in views.items()})
            progress(rows.start + chunk.stop, "")
        sample_id, replica = self._ids(rows)
        return {**views, "sample_id": sample_id, "replica": replica}

    def some(self, rows: Tensor, progress: Progress = no_progress) -> Arrays:
        """The arrays of any rows (int64, (R,)), in this order, all in memory; computed on all cores.

        They agree with those of the store up to the rounding of batches of another size.
        """
        arrays = self.buffers(self.schema(), len(rows))

        def fill_these(chunk: slice) -> None:
            alone = copy.copy(self)
            alone._base_values = self._base_values.anew()
            alone._fill(rows[chunk], {name: array[chunk] for name, array in arrays.items()})

        threads = min(torch.get_num_threads(), self._at_once)
        in_threads(list(row_chunks(len(rows), self.batch_rows)), threads, fill_these, progress)
        numbers = rows.numpy()
        return {**arrays, "sample_id": numbers // self.params.replicas, "replica": numbers % self.params.replicas}

    def _step_inputs(self, sample_id: Tensor, replica: Tensor) -> "_StepInputs":
        return _StepInputs(self.task, self.model, self.split, sample_id, replica, self.seed, self._reading)

    def _fill(self, rows: Tensor, views: Arrays) -> None:
        sample_id, replica = rows // self.params.replicas, rows % self.params.replicas
        steps = self._step_inputs(sample_id, replica)
        result = self._overfit(steps, torch.from_numpy(views["delta"]) if "delta" in views else None)
        rho_N, loss_after_NS = result.rho_N, result.loss_after_NS
        if self.params.refine.steps:
            rho_N, refined_NR = self._refine(sample_id, replica, torch.from_numpy(views["delta"]))
            loss_after_NS = torch.cat([loss_after_NS, refined_NR], 1)
        values = {
            **self._values(sample_id, steps, result.activation, result.output),
            "rho": rho_N,
            "loss_before": result.loss_before_N,
            "loss_after": loss_after_NS,
        }
        if result.grad_u_NSO is not None:
            _refuse_another_input(values, steps)  # each row: one that is clamped, say, need not be the first
            values["grad_u"] = result.grad_u_NSO
        for name, value in values.items():
            if not value[:1].numel():  # a part of I(x) that the task leaves out
                continue
            view = torch.from_numpy(views[name]).copy_(value)
            if name in CONDITION and not within_float32(view):
                bad = next(i for i, row in enumerate(view) if not within_float32(row))
                raise UserError(
                    f"{name} of sample {int(sample_id[bad])} is not finite in the base network; check the data for NaN "
                    "and the network for infinite outputs"
                )

    def _overfit(self, steps: "_StepInputs", out_NOI: Tensor | None) -> Overfitted:
        change = draws_inputs(self.task)
        return overfit(self.model, steps, self.task.loss, self.params, inputs_change=change, out_NOI=out_NOI)

    def _refine(self, sample_id: Tensor, replica: Tensor, delta_NOI: Tensor) -> tuple[Tensor, Tensor]:
        """Refine Δ in place; ρ (N,) and the losses (N, R)."""
        assert self.refinement is not None, "overfit.refine needs what fit_refinement gives"
        rho, losses = [], []
        for chunk in row_chunks(len(sample_id), self.refined_rows):
            rows = self._row_losses(sample_id[chunk], replica[chunk], self.refinement.coordinates)
            found = refine(rows, delta_NOI[chunk], self.refinement, self.params.refine.steps)
            refuse_infinite({"Δ": found.delta_NOI}, "raise overfit.refine.damping")
            delta_NOI[chunk] = found.delta_NOI.float()
            rho.append(torch.linalg.vector_norm(found.delta_NOI, dim=(1, 2), dtype=torch.float64))
            losses.append(found.loss_NR)
        return torch.cat(rho), torch.cat(losses)

    def _row_losses(self, sample_id: Tensor, replica: Tensor, coordinates: Coordinates) -> RowLosses:
        count = self.params.steps if draws_inputs(self.task) else 1
        moves = coordinates.moves(self.model)
        inputs = self._step_inputs(sample_id, replica)
        return RowLosses(self.model, inputs, self.task.loss, moves, count, min(count, self.params.refine.inputs))

    def _values(
        self, sample_id: Tensor, steps: "_StepInputs", activation: Tensor | None = None, output: Tensors | None = None
    ) -> dict[str, Tensor]:
        """I(x) and the label: of whole samples if a step sees a part of them, else of what all steps see.

        activation, output: the base network's, if it has run on what all steps see.
        """
        if draws_inputs(self.task):
            return self._base_values.of(sample_id)
        batch, (part,) = steps.batch(0), steps(0)
        if activation is None or output is None:
            condition = pass_from_cut(self.task, self.model, batch, part.cut).condition
        else:
            with torch.no_grad():
                values = activation.float(), map_tensors(Tensor.float, output)
                condition = self.task.condition(batch, part.cut.layer_input, *values, self.model.network)
        return self._base_values.named(condition, batch)


def _refuse_another_input(values: dict[str, Tensor], steps: "_StepInputs") -> None:
    (part,) = steps(0)
    kept, read = values["layer_input"], part.cut.x_NPI[:, 0]
    if kept.shape != read.shape or not bool(((kept == read) | (kept.isnan() & read.isnan())).all()):
        raise UserError(
            "overfit.layout: factored rebuilds Δ from the stored i_L, but this domain's condition() keeps something "
            "else in its place; use dense"
        )


class _StepInputs:
    """The cut inputs of each step, part by part; run once if they do not change."""

    def __init__(
        self,
        task: Task,
        model: CutModel,
        split: Split,
        sample_id: Tensor,
        replica: Tensor,
        seed: int,
        reading: AbstractContextManager[Any],
    ) -> None:
        self._task, self._model, self._reading = task, model, reading
        self._args = (split, sample_id, replica)
        self._seed = seed
        self._kept: tuple[int, Batch] | None = None
        self._part: StepPart | None = None

    def __call__(self, step: int) -> Iterator[StepPart]:
        if not draws_inputs(self._task):
            if self._part is None:
                batch = self.batch(0)
                self._part = StepPart(self._model.prefix(batch.inputs), batch.target)
            yield self._part
            return
        for part, weight in parts_of_step(self._task, self.batch(step)):
            yield StepPart(self._model.prefix(part.inputs), part.target, weight)

    def batch(self, step: int) -> Batch:
        """The inputs and targets of a step."""
        wanted = step if draws_inputs(self._task) else 0
        if self._kept is None or self._kept[0] != wanted:
            with self._reading:
                batch = step_batch(self._task, *self._args, wanted, self._seed)
            self._kept = (wanted, batch.to(self._model.device))
        return self._kept[1]
