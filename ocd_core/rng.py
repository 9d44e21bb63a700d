"""Counter-based randomness: every draw is a pure function of (seed, purpose, counters).

Nothing depends on the order in which samples are visited, on batch sizes or on the number of workers,
so a resumed or distributed run draws the same numbers as an undisturbed one.
"""

import hashlib
from collections.abc import Sequence

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


def sample_normal(shape: Sequence[int], counters: Sequence[int], seed: int, *purpose: str | int) -> Tensor:
    """Standard normal numbers of shape `shape` for each counter (a sample id, for example).

    Returns float32 of shape (len(counters), *shape). Row i depends only on counters[i], not on the other rows.
    """
    key = derive_seed(seed, *purpose)
    rows = [
        np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, int(c)])).standard_normal(
            tuple(shape), dtype=np.float32
        )
        for c in counters
    ]
    if not rows:
        return torch.empty((0, *shape))
    return torch.from_numpy(np.stack(rows))
