"""The overfit stage's loop: every row of a split, shard by shard, into a store (Alg. 1, lines 1-5).

While a thread encodes and writes one shard, the next one is computed: two sets of shard buffers take turns, so memory
does not grow with the number of samples, and Δ is written directly into them.
"""

import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from ocd_core.overfit.executors import SERIAL, Execution, run_shards
from ocd_core.overfit.rows import RowBuilder
from ocd_core.overfit.threads import one_thread
from ocd_core.overfit.workers import Recipe, ShardJob
from ocd_core.progress import Progress
from ocd_core.store import Content, Damage, Writer, open_writer


def build_store(
    dest: Path | str,
    builder: RowBuilder,
    attributes: Mapping[str, Any],
    fingerprint: str,
    work: Path,
    progress: Progress,
    recipe: Recipe | None = None,
    execution: Execution = SERIAL,
) -> int:
    """Fill the store at `dest`, resuming from finished shards of an interrupted run.

    Args:
        dest: a path or an fsspec URL.
        attributes: group attributes (the effective config, the layer, the sha256 of the base weights, …).
        fingerprint: of params, code and inputs; only work with the same fingerprint is resumed.
        work: where unfinished stores live; not used for a URL.
        recipe: how workers make `builder`.
        execution: how shards are run. It does not change the store.

    Returns:
        how many rows were computed: fewer than the store has if shards were there already.

    Raises:
        UserError: the disk is full, another process writes this store, or a shard cannot be made.
    """
    content = Content(builder.schema(), dict(attributes), *builder.ids(), fingerprint)
    with open_writer(dest, content, work) as writer:
        missing = writer.missing()
        made = sum(_size(writer.schema.shard_slice(shard)) for shard in missing)
        if execution.executor == "serial":
            _fill_here(writer, missing, builder, progress)
        elif missing:
            assert recipe is not None
            _fill_elsewhere(writer, missing, recipe, execution, progress)
        writer.finish()
    return made


def _fill_here(writer: Writer, missing: list[int], builder: RowBuilder, progress: Progress) -> None:
    """A thread writes one shard while the next one is computed; an error in it ends the loop at the next shard."""
    turns = [builder.buffers(writer.schema) for _ in missing[:2]]
    writing: Future[None] | None = None
    with one_thread(), ThreadPoolExecutor(1, "store") as thread:
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
    job = ShardJob.of(recipe, writer.sink(), writer.fingerprint)
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
    """One worker per GPU, or per core that this process may use."""
    if device == "cuda":
        return torch.cuda.device_count()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
