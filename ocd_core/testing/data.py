"""Checks of the data that a task prepares, and of its batches."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.samples import Batch, Split, as_tuple, groups_of, rows_at_once
from ocd_core.tasks.base import Task
from ocd_core.tasks.draws_inputs import DrawsInputs
from ocd_core.testing.common import SEED, described, equal, finite, require, row, some_ids


def check_prepare(task: Task, folder: Path) -> Path:
    """Prepare the data twice; returns the first folder."""
    first, second = folder / "prepared", folder / "prepared_again"
    for dest in (first, second):
        dest.mkdir(parents=True)
        summary = task.prepare(dest)
        try:
            require(isinstance(summary, dict), "prepare must return a dict of plain values")
            json.dumps(summary, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise AssertionError(f"prepare must return plain values that JSON can hold: {error}") from error
    files = [
        {str(p.relative_to(dest)): hashlib.sha256(p.read_bytes()).hexdigest() for p in dest.rglob("*") if p.is_file()}
        for dest in (first, second)
    ]
    require(bool(files[0]), "prepare wrote no file into the given folder")
    changed = sorted(set(files[0].items()) ^ set(files[1].items()))
    require(
        not changed,
        f"prepare must write the same bytes every time, but {', '.join(sorted({n for n, _ in changed}))} differ: "
        "seed what is random, keep times and paths out of the files",
    )
    return first


def check_split(split: Split, name: str) -> None:
    """Check that batches keep the requested order, and the groups."""
    require(isinstance(split, Split), f"open(..., {name!r}) must return a Split: __len__ and batch(sample_id)")
    require(len(split) > 0, f"the {name} split is empty")
    ids = some_ids(split)
    if rows_at_once(split, len(ids)) < len(ids):
        ids = ids[:1]  # samples that differ in shape are whole only alone
    batch = split.batch(ids)
    _check_batch(batch, ids, f"the {name} split's batch")
    for i, sample in enumerate(ids):
        alone = split.batch(sample.reshape(1))
        require(
            equal(row(batch, i), alone),
            f"the {name} split's batch must give the samples in the requested order, each the same at every call and "
            f"whatever its neighbours: sample {int(sample)} at place {i} is not what batch([{int(sample)}]) gives",
        )
    try:
        groups_of(split)
    except UserError as error:
        raise AssertionError(f"the {name} split: {error}") from error


def _check_batch(batch: Batch, ids: Tensor, what: str) -> None:
    require(isinstance(batch, Batch), f"{what} must be an ocd_core.tasks.Batch")
    require(
        isinstance(batch.inputs, tuple) and len(batch.inputs) > 0 and all(isinstance(x, Tensor) for x in batch.inputs),
        f"{what}: inputs must be a tuple of tensors, what the model is called with",
    )
    target = batch.target
    require(
        isinstance(target, Tensor) or (isinstance(target, tuple) and all(isinstance(x, Tensor) for x in target)),
        f"{what}: target must be a tensor or a tuple of tensors",
    )
    for part, value in (("inputs", batch.inputs), ("target", as_tuple(target))):
        for x in value:
            require(
                x.dim() > 0 and len(x) == len(ids),
                f"{what}: {part} of shape {described(x)} for {len(ids)} samples; keep the samples in the first axis",
            )
            require(finite(x), f"{what}: {part} has NaN or infinite values")
    require(
        batch.sample_id.dtype == torch.int64 and torch.equal(batch.sample_id, ids),
        f"{what}: sample_id must be the requested rows (int64), in their order",
    )


def check_step_batches(task: Task, train: Split) -> None:
    """Check the batches of the base's training and, if the task draws inputs, those of overfitting and scoring."""
    ids = some_ids(train)
    _check_drawn("training_batch", lambda some: task.training_batch(train, some, SEED, 1), ids)
    if not isinstance(task, DrawsInputs):
        return

    def overfit_batch(some: Tensor) -> Batch:
        return task.overfit_batch(train, some, torch.zeros_like(some), 0, SEED)

    _check_drawn("overfit_batch", overfit_batch, ids)
    _check_drawn("scoring_batch", lambda some: task.scoring_batch(train, some, SEED), ids)
    batch = overfit_batch(ids)
    for i in range(len(ids)):
        require(
            equal(row(batch, i), row(overfit_batch(ids[i:]), 0)),
            "overfit_batch must give a sample the same inputs whatever its neighbours: draw by sample id and replica "
            "(ocd_core.rng.sample_normal), not once per batch",
        )
    shares = [share for _, share in task.parts(batch)]
    require(abs(sum(shares) - 1) < 1e-6, f"the shares of parts must add up to 1, not {sum(shares):g}")
    seen = task.seen_while_overfitting(train, ids, 1, SEED)
    whole = as_tuple(train.batch(ids).target)[0]
    require(
        seen is None or (seen.dtype == torch.bool and seen.shape == whole.shape[: seen.dim()]),
        "seen_while_overfitting must be bool over the first axes of a whole sample's target, or None",
    )


def _check_drawn(name: str, make: Callable[[Tensor], Batch], ids: Tensor) -> None:
    batch = make(ids)
    _check_batch(batch, ids, name)
    require(equal(batch, make(ids)), f"{name} must be a function of its arguments: use ocd_core.rng for draws")
