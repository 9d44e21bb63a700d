"""The overfit stage's loop: every row of a split, shard by shard, into a store (Alg. 1, lines 1-5)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ocd_core.apply import pass_from_cut, row_chunks, rows_within
from ocd_core.config import OverfitParams
from ocd_core.errors import UserError
from ocd_core.layers import Cut, SplitModel
from ocd_core.overfit import Overfitted, check_layout, overfit
from ocd_core.progress import Progress, no_progress
from ocd_core.store import StoreSchema, StoreWriter
from ocd_core.tasks.base import Split, Task

# (O, I) float64 matrices alive a row while overfitting: Δ, a gradient, and Adam's two moments with temporaries
_MATRICES = {"sgd": 3, "adam": 6}


class RowBuilder:
    """Turns rows of a split into the arrays of the store.

    A row is one repetition (replica) of one sample: row r is sample r // replicas, replica r % replicas.
    """

    def __init__(self, task: Task, split_model: SplitModel, split: Split, params: OverfitParams, seed: int) -> None:
        self.task, self.model, self.split, self.params, self.seed = task, split_model, split, params, seed
        self.rows = len(split) * params.replicas
        example = split.batch(torch.zeros(1, dtype=torch.int64))
        self.batch_rows = rows_within(split_model, example, params.memory_mb, _MATRICES[params.optimizer])

    def ids(self) -> tuple[np.ndarray, np.ndarray]:
        """sample_id and replica of every row, int64."""
        rows = np.arange(self.rows)
        return rows // self.params.replicas, rows % self.params.replicas

    def schema(self) -> StoreSchema:
        """The shapes of the store, from one row."""
        cut, _ = self._step_inputs(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))(0)
        check_layout(self.model, cut, self.params, self.task.inputs_change_per_step)
        arrays = self._arrays(torch.zeros(1, dtype=torch.int64))
        if self.params.layout == "factored" and not np.array_equal(arrays["layer_input"][0], cut.x_NPI[0, 0].numpy()):
            raise UserError(
                "overfit.layout: factored rebuilds Δ from the stored i_L, but this domain's condition() keeps "
                "something else in its place; use dense"
            )
        out_features, in_features = self.model.weight_OI.shape
        row_bytes = sum(a.nbytes for a in arrays.values())
        shard_rows = max(1, min(self.rows, self.params.shard_mb * 2**20 // row_bytes))
        return StoreSchema(
            layout=self.params.layout,
            rows=self.rows,
            out_features=out_features,
            in_features=in_features,
            steps=self.params.steps,
            layer_input=arrays["layer_input"].shape[1:],
            layer_activation=arrays["layer_activation"].shape[1:],
            base_output=arrays["base_output"].shape[1:],
            target_shape=arrays["target"].shape[1:],
            target_dtype=str(arrays["target"].dtype),
            shard_rows=shard_rows,
        )

    def arrays(self, rows: slice, progress: Progress = no_progress) -> dict[str, np.ndarray]:
        """The arrays of these rows, computed in batches within the memory bound."""
        parts = []
        for chunk in row_chunks(rows.stop - rows.start, self.batch_rows):
            index = torch.arange(rows.start + chunk.start, rows.start + chunk.stop)
            parts.append(self._arrays(index))
            progress(rows.start + chunk.stop, "")
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def _step_inputs(self, sample_id: Tensor, replica: Tensor) -> "_StepInputs":
        return _StepInputs(self.task, self.model, self.split, sample_id, replica, self.seed)

    def _arrays(self, rows: Tensor) -> dict[str, np.ndarray]:
        sample_id, replica = rows // self.params.replicas, rows % self.params.replicas
        steps = self._step_inputs(sample_id, replica)
        result = overfit(self.model, steps, self.task.loss, self.params, inputs_change=self.task.inputs_change_per_step)
        batch = self.split.batch(sample_id)
        # I(x) is of the whole sample, even where a step sees a part of it
        cut = self.model.prefix(batch.inputs) if self.task.inputs_change_per_step else steps(0)[0]
        condition = pass_from_cut(self.task, self.model, batch, cut).condition
        arrays = {
            "layer_input": condition.layer_input,
            "layer_activation": condition.layer_activation,
            "base_output": condition.base_output,
            "rho": result.rho_N,
            "loss_before": result.loss_before_N,
            "loss_after": result.loss_after_NS,
            "sample_id": sample_id,
            "replica": replica,
            "target": self.task.stored_target(batch),
            **_change(result),
        }
        return {name: value.cpu().numpy() for name, value in arrays.items()}


class _StepInputs:
    """The cut inputs of each step; run once where they do not change."""

    def __init__(
        self, task: Task, model: SplitModel, split: Split, sample_id: Tensor, replica: Tensor, seed: int
    ) -> None:
        self._args = (task, model, split, sample_id, replica, seed)
        self._kept: tuple[int, tuple[Cut, Tensor]] | None = None

    def __call__(self, step: int) -> tuple[Cut, Tensor]:
        task, model, split, sample_id, replica, seed = self._args
        wanted = step if task.inputs_change_per_step else 0
        if self._kept is None or self._kept[0] != wanted:
            batch = task.overfit_batch(split, sample_id, replica, wanted, seed).to(model.device)
            self._kept = (wanted, (model.prefix(batch.inputs), batch.target))
        return self._kept[1]


def _change(result: Overfitted) -> dict[str, Tensor]:
    if result.delta_NOI is not None:
        return {"delta": result.delta_NOI}
    assert result.grad_u_NSO is not None
    return {"grad_u": result.grad_u_NSO}


def build_store(
    dest: Path, builder: RowBuilder, attributes: Mapping[str, Any], fingerprint: str, work: Path, progress: Progress
) -> int:
    """Fill the store at `dest`, resuming from finished shards of an interrupted run; returns the count of rows.

    Args:
        attributes: group attributes (the effective config, the layer, the base checkpoint's sha256, …).
        fingerprint: of params, code and inputs; only work of the same fingerprint is resumed.
        work: where unfinished stores live.
    """
    sample_id, replica = builder.ids()
    with StoreWriter(
        dest, builder.schema(), dict(attributes), sample_id, replica, work_root=work, fingerprint=fingerprint
    ) as writer:
        for shard in writer.missing():
            writer.write(shard, builder.arrays(writer.schema.shard_slice(shard), progress))
        writer.finish()
    return builder.rows
