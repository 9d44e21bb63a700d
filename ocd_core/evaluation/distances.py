"""Squared Euclidean distances.

Dims: M and N samples, D features.
"""

from torch import Tensor


def squared_distances(x_MD: Tensor, y_ND: Tensor) -> Tensor:
    """‖x - y‖² of all pairs, float64 (M, N)."""
    x_MD, y_ND = x_MD.double(), y_ND.double()
    square_MN = x_MD.square().sum(1)[:, None] + y_ND.square().sum(1) - 2 * x_MD @ y_ND.T
    return square_MN.clamp_min_(0)
