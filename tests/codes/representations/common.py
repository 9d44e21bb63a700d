"""Toy Δ for the tests of representations."""

import numpy as np
import torch


def deltas(n: int, o: int, i: int, seed: int = 0) -> torch.Tensor:
    """Δ whose norms span six decades."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, o, i)) * 10.0 ** rng.uniform(-6, 0, (n, 1, 1))
    return torch.from_numpy(x.astype(np.float32))


def outer(n: int, o: int, i: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    u, x = rng.normal(size=(n, o)) * 10.0 ** rng.uniform(-6, 0, (n, 1)), rng.normal(size=(n, i))
    delta = np.stack([np.outer(a, b) for a, b in zip(u, x, strict=True)])
    return torch.from_numpy(delta.astype(np.float32)), torch.from_numpy(x.astype(np.float32))
