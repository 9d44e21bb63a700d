"""A torch data set over a store: shuffled by shard, and read ahead by a thread.

Dims: N samples of a batch, S steps, O out_features, I in_features.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ocd_core.rng import numpy_generator
from ocd_core.samples import Condition
from ocd_core.store.reader import OverfitStore


@dataclass(frozen=True)
class OverfitBatch:
    """N samples of a store.

    delta_NOI: float32, or None if factors were requested. grad_u_NSO: float32, or None if they were not
    (i is condition.layer_input). rho_N: float32. sample_id_N: int64.
    """

    delta_NOI: Tensor | None
    grad_u_NSO: Tensor | None
    condition: Condition
    rho_N: Tensor
    sample_id_N: Tensor

    def __len__(self) -> int:
        return len(self.sample_id_N)

    def select(self, rows: Tensor | slice) -> "OverfitBatch":
        """The same for some of the samples."""
        return OverfitBatch(
            None if self.delta_NOI is None else self.delta_NOI[rows],
            None if self.grad_u_NSO is None else self.grad_u_NSO[rows],
            self.condition.select(rows),
            self.rho_N[rows],
            self.sample_id_N[rows],
        )


class OverfitDataset(IterableDataset[OverfitBatch]):
    """Batches of a store, in a new order each epoch that depends only on the seed and the epoch.

    Shards come in random order; the samples of `mix` consecutive shards are shuffled together. The `mix` shards in use
    and the next ones being read are in memory. Each worker of a DataLoader takes its share of the shards (use
    `batch_size=None` there: these are already batches).

    Args:
        store: the store to read.
        batch_size: samples per batch; the last one of an epoch may be smaller.
        seed: of the order.
        shuffle: False gives the stored order.
        factors: give grad_u instead of Δ (factored stores only).
        mix: see above.
        drop_last: leave out the last batch if it is smaller.
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
        """Choose the epoch that gives the order of the next iteration."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[OverfitBatch]:
        worker = get_worker_info()
        share = (worker.id, worker.num_workers) if worker else (0, 1)
        left: OverfitBatch | None = None
        for pool in _read_ahead(self._pools(*share)):
            at = 0
            if left is not None:
                at = self.batch_size - len(left)
                left = _join(left, pool.take(slice(0, at)))
                if len(left) < self.batch_size:
                    continue
                yield left
            while at + self.batch_size <= len(pool):
                yield pool.take(slice(at, at + self.batch_size))
                at += self.batch_size
            left = pool.take(slice(at, None)) if at < len(pool) else None
        if left is not None and not self.drop_last:
            yield left

    def _pools(self, worker: int, workers: int) -> Iterator["_Pool"]:
        """`mix` shards at a time, shuffled."""
        shards = np.arange(self.store.schema.shard_count)
        if self.shuffle:
            shards = numpy_generator(self.seed, "overfit-store", self.epoch).permutation(shards)
        shards = shards[worker::workers]
        for first in range(0, len(shards), self.mix):
            parts = [self._read(self.store.schema.shard_slice(int(s))) for s in shards[first : first + self.mix]]
            count = sum(map(len, parts))
            order = torch.arange(count)
            if self.shuffle:
                purpose = ("overfit-store", self.epoch, int(shards[first]))
                order = torch.from_numpy(numpy_generator(self.seed, *purpose).permutation(count))
            yield _Pool(parts, order)

    def _read(self, rows: slice) -> OverfitBatch:
        store = self.store
        return OverfitBatch(
            None if self.factors else torch.from_numpy(store.deltas(rows)),
            torch.from_numpy(store.read("grad_u", rows)) if self.factors else None,
            store.condition(rows),
            torch.from_numpy(store.read("rho", rows)).float(),
            torch.from_numpy(store.read("sample_id", rows)),
        )


class _Pool:
    """Some shards, and an order over all their samples; only batches are copied."""

    def __init__(self, parts: list[OverfitBatch], order: Tensor) -> None:
        self._parts, self._order = parts, order
        self._starts = torch.tensor([0, *(len(p) for p in parts)]).cumsum(0)

    def __len__(self) -> int:
        return len(self._order)

    def take(self, places: slice) -> OverfitBatch:
        """The samples at these places of the order."""
        wanted = self._order[places]
        part_of = torch.bucketize(wanted, self._starts[1:], right=True)
        found = [p.select(wanted[part_of == i] - self._starts[i]) for i, p in enumerate(self._parts)]
        back = torch.argsort(torch.argsort(part_of, stable=True))  # from the order by part to the given order
        return _join(*found).select(back)


def _join(*parts: OverfitBatch) -> OverfitBatch:
    def cat(name: str) -> Tensor | None:
        values = [getattr(p, name) for p in parts]
        return None if values[0] is None else torch.cat(values)

    rho_N, sample_id_N = cat("rho_N"), cat("sample_id_N")
    assert rho_N is not None
    assert sample_id_N is not None
    condition = Condition.joined(part.condition for part in parts)
    return OverfitBatch(cat("delta_NOI"), cat("grad_u_NSO"), condition, rho_N, sample_id_N)


_Item = TypeVar("_Item")


def _read_ahead(source: Iterator[_Item]) -> Iterator[_Item]:
    """The items of `source`; a thread prepares the next item while one is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        coming = pool.submit(next, source, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, source, None)
            yield item
