"""Each rule against torch.optim on the matrix itself, one sample at a time."""

import pytest
import torch
from torch import Tensor

from ocd_core.overfit import rules
from ocd_core.overfit.rules import OuterAdam, RankOneSgd, Sgd

N, OUTS, INS, STEPS, LR = 5, 4, 6, 4, 0.03
MOVING = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0], dtype=torch.float64)[:, None]  # the third sample has converged


def case() -> tuple[Tensor, Tensor]:
    """u of each step (S, N, O) float64, and x (N, I) float32 with a zero in it."""
    g = torch.Generator().manual_seed(0)
    u_SNO = torch.randn(STEPS, N, OUTS, generator=g, dtype=torch.float64)
    x_NI = torch.randn(N, INS, generator=g)
    x_NI[:, 2] = 0
    return u_SNO, x_NI


def by_torch(optimizer: type[torch.optim.Optimizer], u_SNO: Tensor, x_NI: Tensor) -> Tensor:
    """Δ after each step (S, N, O, I), float64; the third sample stays."""
    found = []
    for n in range(N):
        delta = torch.zeros(OUTS, INS, dtype=torch.float64, requires_grad=True)
        steps = optimizer([delta], lr=LR)
        for u_O in u_SNO[:, n]:
            delta.grad = torch.outer(u_O, x_NI[n].double())
            steps.step()
            found.append(delta.detach().clone() * MOVING[n])
    return torch.stack(found).view(N, STEPS, OUTS, INS).transpose(0, 1)


@pytest.mark.parametrize(
    ("rule", "optimizer"), [(RankOneSgd, torch.optim.SGD), (OuterAdam, torch.optim.Adam)], ids=["sgd", "adam"]
)
@pytest.mark.parametrize("block", [1, 2**20])
def test_outer_products_move_as_their_matrices_do(rule, optimizer, block, monkeypatch) -> None:
    monkeypatch.setattr(rules, "_BLOCK_BYTES", block)
    u_SNO, x_NI = case()
    expected = by_torch(optimizer, u_SNO, x_NI)
    update = rule(x_NI, LR)
    output_NO = torch.zeros(N, OUTS, dtype=torch.float64)
    for u_NO, delta_NOI in zip(u_SNO, expected, strict=True):
        output_NO += update(u_NO * MOVING, MOVING)
        wanted = (delta_NOI @ x_NI.double()[:, :, None])[:, :, 0]
        torch.testing.assert_close(output_NO, wanted, rtol=1e-5, atol=1e-7)
    out_NOI = torch.full((N, OUTS, INS), 7.0)
    rho_N = update.finish(out_NOI)
    torch.testing.assert_close(out_NOI.double(), expected[-1], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(rho_N, expected[-1].flatten(1).norm(dim=1), rtol=1e-5, atol=1e-9)
    assert bool((out_NOI[:, :, 2] == 0).all()), "where x is 0 nothing moves"
    again = rule(x_NI, LR)
    for u_NO in u_SNO:
        again(u_NO * MOVING, MOVING)
    torch.testing.assert_close(again.finish(None), rho_N)


def test_sgd_on_matrices() -> None:
    u_SNO, x_NI = case()
    delta_NOI = torch.zeros(N, OUTS, INS, dtype=torch.float64)
    update = Sgd(delta_NOI, LR)
    for u_NO in u_SNO:
        update(u_NO[:, :, None] * x_NI.double()[:, None, :], MOVING[:, :, None])
    torch.testing.assert_close(delta_NOI, by_torch(torch.optim.SGD, u_SNO, x_NI)[-1], rtol=1e-12, atol=1e-14)
