"""A torch data set over a store: shuffled by shard, read ahead by a thread.

Dims: N samples of a batch, K steps, O out_features, I in_features.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ocd_core.rng import numpy_generator
from ocd_core.store.reader import OverfitStore
from ocd_core.tasks.base import Condition


@dataclass(frozen=True)
class OverfitBatch:
    """N samples of a store.

    delta_NOI: float32, or None where factors were asked for. grad_u_NKO: float32, or None where they were not
    (i is condition.layer_input). rho_N: float32. sample_id_N: int64.
    """

    delta_NOI: Tensor | None
    grad_u_NKO: Tensor | None
    condition: Condition
    rho_N: Tensor
    sample_id_N: Tensor

    def __len__(self) -> int:
        return len(self.sample_id_N)

    def select(self, rows: Tensor | slice) -> "OverfitBatch":
        """The same for some of the samples."""
        return OverfitBatch(
            None if self.delta_NOI is None else self.delta_NOI[rows],
            None if self.grad_u_NKO is None else self.grad_u_NKO[rows],
            self.condition.select(rows),
            self.rho_N[rows],
            self.sample_id_N[rows],
        )


class OverfitDataset(IterableDataset[OverfitBatch]):
    """Batches of a store, in a new order each epoch that depends on the seed and the epoch alone.

    Shards come in random order; the samples of `mix` shards in a row are shuffled together. In memory are
    `mix` shards in use and the next ones being read. With a DataLoader's workers each takes its share of the shards
    (use `batch_size=None` there: these are batches already).

    Args:
        store: what to read.
        batch_size: samples a batch; the last one of an epoch may be smaller.
        seed: of the order.
        shuffle: False gives the stored order.
        factors: give grad_u instead of Δ (factored stores only).
        mix: see above.
        drop_last: leave the smaller last batch out.
    """

    def __init__(
        self,
        store: OverfitStore,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool = True,
        factors: bool = False,
        mix: int = 2,
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        assert batch_size >= 1
        assert mix >= 1
        assert store.layout == "factored" or not factors, "a dense store has no factors"
        self.store, self.batch_size, self.seed = store, batch_size, seed
        self.shuffle, self.factors, self.mix, self.drop_last = shuffle, factors, mix, drop_last
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration has."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[OverfitBatch]:
        worker = get_worker_info()
        share = (worker.id, worker.num_workers) if worker else (0, 1)
        left: OverfitBatch | None = None
        for group in _read_ahead(self._groups(*share)):
            pool = group if left is None else _join(left, group)
            whole = len(pool) // self.batch_size * self.batch_size
            for start in range(0, whole, self.batch_size):
                yield pool.select(slice(start, start + self.batch_size))
            left = pool.select(slice(whole, None))
        if left is not None and len(left) and not self.drop_last:
            yield left

    def _groups(self, worker: int, workers: int) -> Iterator[OverfitBatch]:
        """`mix` shards at a time, shuffled."""
        rng = numpy_generator(self.seed, "overfit-store", self.epoch)
        shards = np.arange(self.store.schema.shard_count)
        if self.shuffle:
            rng.shuffle(shards)
        shards = shards[worker::workers]
        for first in range(0, len(shards), self.mix):
            group = [self._read(self.store.schema.shard_slice(int(s))) for s in shards[first : first + self.mix]]
            pool = _join(*group)
            if self.shuffle:
                order = numpy_generator(self.seed, "overfit-store", self.epoch, int(shards[first])).permutation(
                    len(pool)
                )
                pool = pool.select(torch.from_numpy(order))
            yield pool

    def _read(self, rows: slice) -> OverfitBatch:
        store = self.store
        return OverfitBatch(
            None if self.factors else torch.from_numpy(store.deltas(rows)),
            torch.from_numpy(store.read("grad_u", rows)) if self.factors else None,
            store.condition(rows),
            torch.from_numpy(store.read("rho", rows)).float(),
            torch.from_numpy(store.read("sample_id", rows)),
        )


def _join(*parts: OverfitBatch) -> OverfitBatch:
    def cat(name: str) -> Tensor | None:
        values = [getattr(p, name) for p in parts]
        return None if values[0] is None else torch.cat(values)

    conditions = zip(*(p.condition.parts() for p in parts), strict=True)
    rho_N, sample_id_N = cat("rho_N"), cat("sample_id_N")
    assert rho_N is not None
    assert sample_id_N is not None
    return OverfitBatch(
        cat("delta_NOI"), cat("grad_u_NKO"), Condition(*(torch.cat(c) for c in conditions)), rho_N, sample_id_N
    )


def _read_ahead(source: Iterator[OverfitBatch]) -> Iterator[OverfitBatch]:
    """The items of `source`, the next of which is made in a thread while one is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        coming = pool.submit(next, source, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, source, None)
            yield item
