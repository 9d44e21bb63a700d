"""Squared distances against a loop."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ocd_core.evaluation.distances import squared_distances


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=25)
def test_squared_distances_are_those_of_pairs(m: int, n: int, d: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(m, d, generator=g), torch.randn(n, d, generator=g)
    expected = [[float((a.double() - b.double()).square().sum()) for b in y] for a in x]
    np.testing.assert_allclose(squared_distances(x, y), expected, atol=1e-12)
