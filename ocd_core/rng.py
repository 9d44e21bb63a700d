"""Counter-based randomness: every draw is a pure function of (seed, purpose, counters).

Nothing depends on the order in which samples are visited, on batch sizes or on the number of workers,
so a resumed or distributed run draws the same numbers as an undisturbed one.
"""

import hashlib
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose; equal arguments give equal seeds on every platform."""
    text = "/".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def torch_generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


def numpy_generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A numpy generator (Philox) for one purpose."""
    return np.random.Generator(np.random.Philox(key=derive_seed(seed, *purpose)))


def permutation(n: int, seed: int, *purpose: str | int) -> Tensor:
    """A random order of range(n), int64, shape (n,)."""
    return torch.from_numpy(numpy_generator(seed, *purpose).permutation(n))


class _Generators(threading.local):
    """A generator of each thread's own, and the state in which a new Philox starts."""

    def __init__(self) -> None:
        self.generator = np.random.Generator(np.random.Philox(key=0))
        self.state: Any = self.generator.bit_generator.state


_GENERATORS = _Generators()


def sample_normal(shape: Sequence[int], counters: Sequence[int], seed: int, *purpose: str | int) -> Tensor:
    """Standard normal numbers of shape `shape` for each counter (a sample id, for example).

    Returns float32 of shape (len(counters), *shape). Row i depends only on counters[i], not on the other rows.
    """
    rows = np.empty((len(counters), math.prod(shape)), np.float32)
    for row, generator in zip(rows, _at_counters(counters, seed, *purpose), strict=True):
        generator.standard_normal(dtype=np.float32, out=row)
    return torch.from_numpy(rows.reshape(len(counters), *shape))


def sample_uniform(shape: Sequence[int], counters: Sequence[int], seed: int, *purpose: str | int) -> Tensor:
    """Uniform numbers in [0, 1) for each counter, float64 of shape (len(counters), *shape); see `sample_normal`."""
    rows = np.empty((len(counters), math.prod(shape)))
    for row, generator in zip(rows, _at_counters(counters, seed, *purpose), strict=True):
        generator.random(out=row)
    return torch.from_numpy(rows.reshape(len(counters), *shape))


def _at_counters(counters: Sequence[int], seed: int, *purpose: str | int) -> Iterator[np.random.Generator]:
    """A generator for each counter in turn; the next one replaces the last.

    They draw as from a new Philox(key=key, counter=[0, 0, 0, counter]), which would cost several times as much.
    """
    generator, state = _GENERATORS.generator, _GENERATORS.state
    state["state"]["key"][:] = derive_seed(seed, *purpose), 0
    for counter in counters:
        state["state"]["counter"][3] = int(counter)
        generator.bit_generator.state = state
        yield generator
