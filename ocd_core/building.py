"""The overfit stage's loop: every row of a split, shard by shard, into a store (Alg. 1, lines 1-5).

While one shard is encoded and written by a thread, the next one is computed: two sets of shard buffers take turns, so
memory does not grow with the number of samples, and Δ is written straight into them.
"""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ocd_core.apply import pass_from_cut, row_chunks, rows_within
from ocd_core.artifacts import Artifacts
from ocd_core.base_network import load_split_model
from ocd_core.checkpoints import sha256_file
from ocd_core.config import OverfitParams, Params
from ocd_core.devices import check_device, local_device
from ocd_core.errors import UserError
from ocd_core.executors import SERIAL, Execution, MakeShard, run_shards
from ocd_core.fingerprint import digest, module_code, task_code
from ocd_core.layers import Cut, SplitModel
from ocd_core.overfit import StepPart, check_layout, one_position, overfit
from ocd_core.progress import Progress, no_progress
from ocd_core.store import Damage, RemoteSink, RemoteWriter, ShardSink, StoreSchema, StoreWriter
from ocd_core.tasks.base import Batch, Condition, Split, SplitName, Task

Arrays = dict[str, npt.NDArray[Any]]
Writer = StoreWriter | RemoteWriter

# (O, I) float64 matrices alive a row while overfitting: Δ, a gradient, and Adam's two moments with temporaries
_MATRICES = {"sgd": 3, "adam": 6}
_SHARDS_ALIVE = 3  # one is filled, one is written, and its encoded bytes


class RowBuilder:
    """Turns rows of a split into the arrays of the store.

    A row is one repetition (replica) of one sample: row r is sample r // replicas, replica r % replicas.

    Raises:
        UserError: the factored layout where it is not exact.
    """

    def __init__(self, task: Task, split_model: SplitModel, split: Split, params: OverfitParams, seed: int) -> None:
        self.task, self.model, self.split, self.params, self.seed = task, split_model, split, params, seed
        self.rows = len(split) * params.replicas
        # smaller shards where memory is short
        self._shard_mb = min(float(params.shard_mb), params.memory_mb / (2 * (_SHARDS_ALIVE + 1)))
        batch_mb = params.memory_mb - _SHARDS_ALIVE * self._shard_mb
        zero = torch.zeros(1, dtype=torch.int64)
        cut = next(iter(self._step_inputs(zero, zero)(0))).cut
        change = task.inputs_change_per_step
        check_layout(split_model, cut, params, change)
        matrices = 0 if one_position(cut, change) else _MATRICES[params.optimizer]
        self.batch_rows = rows_within(split_model, split.batch(zero), batch_mb, matrices)

    def ids(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """sample_id and replica of every row, int64."""
        rows = np.arange(self.rows)
        return rows // self.params.replicas, rows % self.params.replicas

    def schema(self) -> StoreSchema:
        """The shapes of the store, from one row.

        Raises:
            UserError: the factored layout, where the domain's condition() does not keep i_L.
        """
        zero = torch.zeros(1, dtype=torch.int64)
        steps = self._step_inputs(zero, zero)
        batch, cut = self._whole(zero, steps)
        condition = pass_from_cut(self.task, self.model, batch, cut).condition
        if self.params.layout == "factored" and not torch.equal(condition.layer_input, cut.x_NPI[:, 0]):
            raise UserError(
                "overfit.layout: factored rebuilds Δ from the stored i_L, but this domain's condition() keeps "
                "something else in its place; use dense"
            )
        target = self.task.stored_target(batch).cpu().numpy()
        out_features, in_features = self.model.weight_OI.shape
        return StoreSchema.plan(
            shard_mb=self._shard_mb,
            layout=self.params.layout,
            rows=self.rows,
            out_features=out_features,
            in_features=in_features,
            steps=self.params.steps,
            layer_input=tuple(condition.layer_input.shape[1:]),
            layer_activation=tuple(condition.layer_activation.shape[1:]),
            base_output=tuple(condition.base_output.shape[1:]),
            target_shape=target.shape[1:],
            target_dtype=str(target.dtype),
        )

    def buffers(self, schema: StoreSchema) -> Arrays:
        """Arrays of a full shard to be filled by `fill`, all but sample_id and replica."""
        return {
            name: np.empty((min(schema.shard_rows, schema.rows), *spec.shape[1:]), spec.dtype)
            for name, spec in schema.arrays().items()
            if name not in ("sample_id", "replica")
        }

    def fill(self, rows: slice, buffers: Arrays, progress: Progress = no_progress) -> Arrays:
        """Compute these rows, in batches within the memory bound, into the first rows of `buffers`; views of those.

        The batches start at `rows.start`, so that a shard depends on its rows alone: not on what was computed before
        it, nor by whom.
        """
        views = {name: buffer[: rows.stop - rows.start] for name, buffer in buffers.items()}
        for chunk in row_chunks(rows.stop - rows.start, self.batch_rows):
            index = torch.arange(rows.start + chunk.start, rows.start + chunk.stop)
            self._fill(index, {name: view[chunk] for name, view in views.items()})
            progress(rows.start + chunk.stop, "")
        return views

    def _step_inputs(self, sample_id: Tensor, replica: Tensor) -> "_StepInputs":
        return _StepInputs(self.task, self.model, self.split, sample_id, replica, self.seed)

    def _fill(self, rows: Tensor, views: Arrays) -> None:
        sample_id, replica = rows // self.params.replicas, rows % self.params.replicas
        steps = self._step_inputs(sample_id, replica)
        change = self.task.inputs_change_per_step
        result = overfit(
            self.model, steps, self.task.loss, self.params, inputs_change=change,
            out_NOI=torch.from_numpy(views["delta"]) if "delta" in views else None,
        )  # fmt: skip
        batch, cut = self._whole(sample_id, steps)
        if result.activation is None or result.output is None:
            condition = pass_from_cut(self.task, self.model, batch, cut).condition
        else:
            condition = self._condition(batch, cut, result.activation, result.output)
        values = {
            "layer_input": condition.layer_input,
            "layer_activation": condition.layer_activation,
            "base_output": condition.base_output,
            "rho": result.rho_N,
            "loss_before": result.loss_before_N,
            "loss_after": result.loss_after_NS,
            "target": self.task.stored_target(batch),
        }
        if result.grad_u_NSO is not None:
            values["grad_u"] = result.grad_u_NSO
        for name, value in values.items():
            torch.from_numpy(views[name]).copy_(value)

    def _whole(self, sample_id: Tensor, steps: "_StepInputs") -> tuple[Batch, Cut]:
        """What I(x) and the label are of: whole samples, even where a step sees a part of them."""
        if not self.task.inputs_change_per_step:
            (part,) = steps(0)
            return steps.batch(0), part.cut
        batch = self.split.batch(sample_id).to(self.model.device)
        return batch, self.model.prefix(batch.inputs)

    def _condition(self, batch: Batch, cut: Cut, activation: Tensor, output: Tensor) -> Condition:
        with torch.no_grad():
            return self.task.condition(batch, cut.layer_input, activation.float(), output.float(), self.model.model)


class _StepInputs:
    """The cut inputs of each step, part by part; run once where they do not change."""

    def __init__(
        self, task: Task, model: SplitModel, split: Split, sample_id: Tensor, replica: Tensor, seed: int
    ) -> None:
        self._task, self._model = task, model
        self._args = (split, sample_id, replica)
        self._seed = seed
        self._kept: tuple[int, Batch] | None = None
        self._part: StepPart | None = None

    def __call__(self, step: int) -> Iterator[StepPart]:
        if not self._task.inputs_change_per_step:
            if self._part is None:
                batch = self.batch(0)
                self._part = StepPart(self._model.prefix(batch.inputs), batch.target)
            yield self._part
            return
        for part, weight in self._task.parts(self.batch(step)):
            yield StepPart(self._model.prefix(part.inputs), part.target, weight)

    def batch(self, step: int) -> Batch:
        """The inputs and targets themselves."""
        wanted = step if self._task.inputs_change_per_step else 0
        if self._kept is None or self._kept[0] != wanted:
            batch = self._task.overfit_batch(*self._args, wanted, self._seed)
            self._kept = (wanted, batch.to(self._model.device))
        return self._kept[1]


@dataclass(frozen=True)
class Recipe:
    """What a `RowBuilder` is made from: small, so that any worker can make its own.

    device: `cpu`, or `cuda` for a GPU of the machine it is made on.
    """

    artifacts: Artifacts
    params: Params
    split: SplitName
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_device(self.device)

    def builder(self, worker: int = 0) -> RowBuilder:
        """Load the base network and the prepared data; on the GPU whose turn it is, for worker number `worker`."""
        device = local_device(self.device, worker % max(1, torch.cuda.device_count()))
        task = self.params.build_task()
        overfit_params = self.params.overfit.of_split(self.split)
        model = load_split_model(self.artifacts, task, device, overfit_params.precision)
        split = task.open(self.artifacts.need(self.artifacts.prepared, "prepare"), self.split)
        return RowBuilder(task, model, split, overfit_params, self.artifacts.seed)


@dataclass(frozen=True)
class ShardJob:
    """The shards of one store, for workers: they compute and write, and send nothing back."""

    recipe: Recipe
    schema: StoreSchema
    place: Path | str
    fingerprint: str
    base_sha256: str
    code: str

    @classmethod
    def of(cls, recipe: Recipe, schema: StoreSchema, place: Path | str, fingerprint: str) -> "ShardJob":
        """A job for a work folder or a URL; paths become absolute, for workers are anywhere."""
        artifacts = replace(recipe.artifacts, root=recipe.artifacts.root.absolute())
        base, code = sha256_file(_weights(artifacts)), _own_code(recipe.params)
        return cls(replace(recipe, artifacts=artifacts), schema, place, fingerprint, base, code)

    def open(self, worker: int) -> MakeShard:
        """Load what the shards need.

        Raises:
            UserError: this worker has other code or another base network than where the job comes from.
        """
        torch.set_num_threads(1)
        if _code_at_start(self.recipe.params) != self.code:
            raise UserError("a worker runs other code than this process: update it and start the workers again")
        if sha256_file(_weights(self.recipe.artifacts)) != self.base_sha256:
            raise UserError(f"a worker sees another {_weights(self.recipe.artifacts)}: workers need the same folder")
        builder = self.recipe.builder(worker)
        sink: ShardSink | RemoteSink
        if isinstance(self.place, str):
            sink = RemoteSink(self.place, self.schema, *builder.ids())
        else:
            sink = ShardSink(self.place, self.schema, *builder.ids())

        def make(shard: int) -> None:
            sink.write(shard, builder.fill(self.schema.shard_slice(shard), builder.buffers(self.schema)))

        return make


def _weights(artifacts: Artifacts) -> Path:
    return artifacts.base / "model.safetensors"


def _own_code(params: Params) -> str:
    return digest([module_code(__name__), task_code(params)])


_started_with: dict[str, str] = {}


def _code_at_start(params: Params) -> str:
    """The code as it was when this process first used it: a worker that lives long does not see changes."""
    return _started_with.setdefault(f"{params.domain} {params.base.model.name}", _own_code(params))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums depend on how many threads share them; a shard must not depend on where it is computed."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def build_store(
    dest: Path | str, builder: RowBuilder, attributes: Mapping[str, Any], fingerprint: str, work: Path,
    progress: Progress, recipe: Recipe | None = None, execution: Execution = SERIAL,
) -> int:  # fmt: skip
    """Fill the store at `dest`, resuming from finished shards of an interrupted run; returns the count of rows.

    Args:
        dest: a path, or an fsspec URL as text.
        attributes: group attributes (the effective config, the layer, the base checkpoint's sha256, …).
        fingerprint: of params, code and inputs; only work of the same fingerprint is resumed.
        work: where unfinished stores live; not used for a URL.
        recipe: of `builder`, for workers.
        execution: how shards are run. The store is the same.

    Raises:
        UserError: the disk is full, another process writes this store, or a shard cannot be made.
    """
    sample_id, replica = builder.ids()
    schema = builder.schema()
    args = (schema, dict(attributes), sample_id, replica)
    writer: Writer
    if isinstance(dest, str):
        writer = RemoteWriter(dest, *args, fingerprint=fingerprint)
    else:
        writer = StoreWriter(dest, *args, work_root=work, fingerprint=fingerprint)
    with writer:
        missing = writer.missing()
        if execution.executor == "serial":
            _fill_here(writer, missing, builder, progress)
        elif missing:
            assert recipe is not None
            _fill_elsewhere(writer, missing, recipe, execution, progress)
        writer.finish()
    return builder.rows


def _fill_here(writer: Writer, missing: list[int], builder: RowBuilder, progress: Progress) -> None:
    """A thread writes one shard while the next one is computed; its error ends the loop at the next shard."""
    turns = [builder.buffers(writer.schema) for _ in missing[:2]]
    writing: Future[None] | None = None
    with _one_thread(), ThreadPoolExecutor(1, "store") as thread:
        for turn, shard in enumerate(missing):
            arrays = builder.fill(writer.schema.shard_slice(shard), turns[turn % 2], progress)
            if writing is not None:
                writing.result()  # its buffers are the next turn's
            writing = thread.submit(writer.write, shard, arrays)
        if writing is not None:
            writing.result()


def _fill_elsewhere(
    writer: Writer, missing: list[int], recipe: Recipe, execution: Execution, progress: Progress
) -> None:
    sink = writer.sink()
    place = sink.url if isinstance(sink, RemoteSink) else sink.folder
    job = ShardJob.of(recipe, writer.schema, place, writer.fingerprint)
    done = writer.schema.rows - sum(_size(writer.schema.shard_slice(shard)) for shard in missing)

    def accept(shard: int) -> list[Damage]:
        nonlocal done
        damage = writer.accept(shard)
        if not damage:
            done += _size(writer.schema.shard_slice(shard))
            progress(done, "")
        return damage

    run_shards(job, missing, execution, accept, default_workers(recipe.device))


def _size(rows: slice) -> int:
    return int(rows.stop - rows.start)


def default_workers(device: str) -> int:
    """One worker a GPU, or a core that this process may use."""
    if device == "cuda":
        return torch.cuda.device_count()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
