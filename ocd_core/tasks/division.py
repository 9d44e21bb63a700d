"""Divide the parts of a source into train, val and test.

Dims: N samples of a part.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.rng import numpy_generator
from ocd_core.samples import SPLITS, SplitName

_VAL_FRACTION = 10  # a tenth of train becomes val if the source has none


def stratified_order(label_N: Tensor, seed: int, purpose: str) -> Tensor:
    """A random order of all rows, int64 (N,), in which every stretch holds the classes in proportion.

    Sample j of the n in its class is placed at the fraction (j + 1/2) / n of the whole, with ties in random order, so
    the number of samples of a class among the first m is its share of m, to within one sample.
    """
    rng = numpy_generator(seed, purpose)
    labels = label_N.numpy()
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    classes, counts = np.unique(labels, return_counts=True)
    at = np.concatenate([(np.arange(n) + 0.5) / n for n in counts]) if len(classes) else np.empty(0)
    ties = rng.permutation(len(labels))
    return torch.from_numpy(by_class[np.lexsort((ties, at))])


def grouped_order(group_N: Tensor, seed: int, purpose: str) -> Tensor:
    """A random order of the groups, int64 (N,); the rows of a group are together, in their own order."""
    groups = group_N.numpy()
    names, index = np.unique(groups, return_inverse=True)
    place = numpy_generator(seed, purpose).permutation(len(names))
    return torch.from_numpy(np.argsort(place[index], kind="stable"))


def divide(
    orders: Mapping[str, Tensor],
    sizes: Mapping[SplitName, int | None],
    groups: Mapping[str, Tensor] | None = None,
) -> dict[SplitName, tuple[str, Tensor]]:
    """The part of the source and its rows that make each split: split -> (part, rows int64).

    A part of the source that is used completely keeps its order. Samples taken from a part (for test, then val, then
    train, if several splits come from it) are the next in the part's order, and stay in it.

    Args:
        orders: {part: the order in which its rows are taken}; `train` is always there.
        sizes: {split: how many samples, or None: all of its part, or a tenth of train for val}.
        groups: {part: the group of each row}: groups are not divided, so a split takes at least its size.

    Raises:
        UserError: more samples are requested than exist, or nothing is left for train.
    """
    used: dict[str, int] = dict.fromkeys(orders, 0)
    splits: dict[SplitName, tuple[str, Tensor]] = {}
    for split in ("test", "val", "train"):
        part = split if split in orders else "train"
        order = orders[part]
        start, left = used[part], len(order) - used[part]
        size = sizes[split]
        if size is None:
            size = left if part == split else max(left // _VAL_FRACTION, 1)
        if size > left or left == 0:
            raise UserError(
                f"data.{split}_size: {size} samples are asked for, but {left} of the {len(order)} in the "
                f"source's {part} part are left"
            )
        if groups is not None:
            size = _whole_groups(groups[part][order], start, size)
        used[part] = start + size
        rows = torch.arange(size) if size == len(order) else order[start : start + size]
        splits[split] = (part, rows)
    return {split: splits[split] for split in SPLITS}


def _whole_groups(group_N: Tensor, start: int, size: int) -> int:
    """The smallest number of rows from `start`, at least `size`, after which another group begins."""
    end = start + size
    while end < len(group_N) and group_N[end] == group_N[end - 1]:
        end += 1
    return end - start
