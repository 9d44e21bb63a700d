"""A few samples of a split, on which trials and rehearsals run."""

import copy
from typing import Any

from ocd_core.samples import Split, groups_of


def first_samples(split: Split, count: int) -> Split:
    """The split's first samples, at most `count`; it keeps its class, which the task may inspect."""
    if len(split) <= count:
        return split
    groups = groups_of(split)
    members: dict[str, Any] = {"__len__": lambda _self: count, "__slots__": ()}  # of the layout of a class with slots
    if groups is not None:
        members["groups"] = property(lambda _self: groups[:count])
    shorter = copy.copy(split)
    object.__setattr__(shorter, "__class__", type(type(split).__name__, (type(split),), members))
    return shorter
