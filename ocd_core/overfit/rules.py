"""Update rules of overfitting: SGD and Adam on gradients that are outer products, and SGD on matrices.

Adam on matrices is `ocd_core.adam.Adam`.

Dims: N rows, O out_features, I in_features.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ocd_core.adam import EPS, Moments

# matrices alive per row while overfitting: Δ, a gradient, and Adam's two moments with temporaries
MATRICES = {"sgd": 3, "adam": 6}
_BLOCK_BYTES = 2**20  # size of a (rows, O, I) float32 temporary on a CPU: it should stay in the cache of one core


class RankOneSgd:
    """SGD on gradients u_k ⊗ x: Δ = -lr (Σ_k u_k) ⊗ x, and step k moves the output by -lr ‖x‖² u_k."""

    def __init__(self, x_NI: Tensor, lr: float) -> None:
        self._x_NI, self._lr = x_NI, lr
        self._squared_N1 = x_NI.double().square().sum(1, keepdim=True)
        self._total_NO: Tensor | None = None

    def __call__(self, u_NO: Tensor, moving_N1: Tensor) -> Tensor:
        """Take a step; returns how it moves the layer's output, (N, O) float64."""
        step_NO = -self._lr * u_NO
        self._total_NO = step_NO if self._total_NO is None else self._total_NO + step_NO
        return self._squared_N1 * step_NO

    def finish(self, out_NOI: Tensor | None) -> Tensor:
        """Write Δ into `out_NOI` if given; returns ρ = ‖Δ‖, (N,) float64, infinite if float32 cannot hold Σ_k u_k."""
        assert self._total_NO is not None
        total_NO = self._total_NO.float()
        if out_NOI is not None:
            _outer(total_NO, self._x_NI, out_NOI)
        rho_N: Tensor = self._total_NO.norm(dim=1) * self._squared_N1[:, 0].sqrt()
        return rho_N.masked_fill(total_NO.isinf().any(1), math.inf)


class OuterAdam:
    """Adam (torch.optim.Adam with its defaults) on gradients u_k ⊗ x.

    Its moments are sums of u_j ⊗ x and of u_j² ⊗ x² with weights that all elements share: m ⊗ x and v ⊗ x², where m and
    v are the moments of u alone. With a_k = m / (1 - β1^k) and b_k = √(v / (1 - β2^k)), step k adds

        -lr a_k x / (b_k |x| + ε)  =  -lr sign(x) a_k / (b_k + ε / |x|)

    to Δ, element by element. This takes two passes over a matrix per step, in blocks that fit the cache; matrices of
    moments are not kept. If x is 0, ε / |x| is infinite and the element stays 0, as it should.

    The elements are in float32, like the stored Δ; u, m, v and the layer's output are in float64.
    """

    def __init__(self, x_NI: Tensor, lr: float) -> None:
        self._lr = lr
        self._x_NI = x_NI
        self._floor_NI = EPS / x_NI.abs()
        self._moments: Moments[Tensor] = Moments()
        self._steps: list[tuple[Tensor, Tensor]] = []

    def __call__(self, u_NO: Tensor, moving_N1: Tensor) -> Tensor:
        """Take a step; returns how it moves the layer's output, (N, O) float64."""
        self._moments.update(u_NO)
        top_NO = ((-self._lr / self._moments.correction) * moving_N1 * self._moments.mean).float()
        root_NO = self._moments.root.float()
        self._steps.append((top_NO, root_NO))
        change_NO = torch.empty_like(top_NO)
        for rows, part_NOI, _ in self._blocks():
            torch.add(root_NO[rows, :, None], self._floor_NI[rows, None, :], out=part_NOI)
            torch.div(top_NO[rows, :, None], part_NOI, out=part_NOI)
            change_NO[rows] = (part_NOI @ self._x_NI[rows, :, None].abs())[:, :, 0]
        return change_NO.double()

    def finish(self, out_NOI: Tensor | None) -> Tensor:
        """Write Δ into `out_NOI` if given; returns ρ = ‖Δ‖, (N,) float64."""
        sign_NI = self._x_NI.sign()
        rho_N = []
        for rows, part_NOI, sum_NOI in self._blocks():
            sum_NOI.zero_()
            for top_NO, root_NO in self._steps:
                torch.add(root_NO[rows, :, None], self._floor_NI[rows, None, :], out=part_NOI)
                sum_NOI.addcdiv_(top_NO[rows, :, None], part_NOI)
            # squares of small numbers would be 0 in float32
            rho_N.append(torch.linalg.vector_norm(sum_NOI, dim=(1, 2), dtype=torch.float64))
            if out_NOI is not None:
                if out_NOI.device == sum_NOI.device:
                    torch.mul(sum_NOI, sign_NI[rows, None, :], out=out_NOI[rows])
                else:
                    out_NOI[rows].copy_(sum_NOI.mul_(sign_NI[rows, None, :]))
        return torch.cat(rho_N)

    def _blocks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Row ranges with two temporaries (rows, O, I)."""
        rows, outs, ins = len(self._x_NI), self._moments.mean.shape[1], self._x_NI.shape[1]
        size = rows if self._x_NI.is_cuda else max(1, min(rows, _BLOCK_BYTES // (4 * outs * ins)))
        first, second = self._x_NI.new_empty(2, size, outs, ins)
        for start in range(0, rows, size):
            count = min(size, rows - start)
            yield slice(start, start + count), first[:count], second[:count]


def _outer(left_NO: Tensor, right_NI: Tensor, out_NOI: Tensor) -> None:
    if out_NOI.device == left_NO.device:
        torch.mul(left_NO[:, :, None], right_NI[:, None, :], out=out_NOI)
    else:
        out_NOI.copy_(left_NO[:, :, None] * right_NI[:, None, :])


class Sgd:
    """SGD on matrices: moves `delta` in place."""

    def __init__(self, delta: Tensor, lr: float) -> None:
        self._delta, self._lr = delta, lr

    def __call__(self, grad: Tensor, moving: Tensor) -> None:
        """Take a step."""
        self._delta.addcmul_(grad, moving, value=-self._lr)
