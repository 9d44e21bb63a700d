"""Find samples with equal content in different splits, such as test data that was trained on.

Files that are named twice are refused elsewhere; this counts copies that names do not reveal. If a domain's summary has
no count, its inputs are compared.

Dims: N samples.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from ocd_core.samples import Split, SplitName, rows_at_once, whole_split

SHARED_ROWS = "shared_rows"  # the key of the summary
_DIGEST_BYTES = 16


def shared_rows(splits: Mapping[SplitName, Iterable[tuple[bytes, ...]]]) -> dict[str, int]:
    """How many samples of one split have the content of a sample of another.

    Args:
        splits: in order (train, val, test), the keys of each sample: hashes of its content. Two samples are equal if
            they share a key, so a view can be recognised by its photograph or by its pose.

    Returns:
        "first/second" -> the number of samples of the second split that are equal to one of the first.
    """
    rows = {name: [frozenset(keys) for keys in samples] for name, samples in splits.items()}
    known = {name: frozenset().union(*samples) for name, samples in rows.items()}
    return {
        f"{first}/{second}": sum(not keys.isdisjoint(known[first]) for keys in rows[second])
        for first, second in combinations(rows, 2)
    }


def row_hashes(*columns: Tensor) -> Iterator[tuple[bytes, ...]]:
    """The key of each sample: one hash of its rows in all these tensors (N, ...).

    Equal numbers have equal hashes: -0.0 counts as 0.0.
    """
    for row in zip(*(x.numpy() for x in columns), strict=True):
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        for value in row:
            digest.update((value + 0).tobytes())
        yield (digest.digest(),)


def shared_inputs(splits: Mapping[SplitName, Split], batch_size: int) -> dict[str, int]:
    """`shared_rows` by the inputs of the samples, for any domain."""
    return shared_rows({name: _input_hashes(split, batch_size) for name, split in splits.items()})


def _input_hashes(split: Split, batch_size: int) -> Iterator[tuple[bytes, ...]]:
    for rows in torch.split(whole_split(split), rows_at_once(split, batch_size)):
        yield from row_hashes(*split.batch(rows).inputs)


def warnings(summary: Mapping[str, Any]) -> list[str]:
    """A sentence for each pair of splits that share samples."""
    return [
        f"{count} samples of {second} have the same content as samples of {first}"
        for pair, count in summary.get(SHARED_ROWS, {}).items()
        for first, second in [pair.split("/")]
        if count
    ]
