"""Draws that gradients pass through; values and gradients are compared with a loop in test_tuning.py."""

import torch

from ocd_core.codes.representations.pca import Pca
from ocd_core.diffusion.drawn_moves import DrawnMoves
from ocd_core.diffusion.training import fresh_model
from tests.support.arrays import condition
from tests.support.params import denoiser_params, diffusion_params, representation_params


def setting() -> tuple:
    space = Pca.fit(torch.randn(9, 2, 3, generator=torch.Generator().manual_seed(0)), None,
                    representation_params("pca", 3), True)  # fmt: skip
    params = diffusion_params(denoiser=denoiser_params(width=8), representation=representation_params("pca", 3))
    return fresh_model(condition(5), params, space, 0), condition(5)


def test_draws_depend_on_counter_update_and_draw_alone() -> None:
    model, cond = setting()
    moves = DrawnMoves(model, None, 2, 3, False, 7)
    counter = torch.arange(5)
    first, second = moves(cond, None, counter, 4)
    assert first.shape == (5, 2, 3)
    assert not torch.equal(first, second)
    again = next(iter(moves(cond, None, counter, 4)))
    assert torch.equal(first, again)
    for other in (next(iter(moves(cond, None, counter, update))) for update in (5, None)):
        assert not torch.equal(first, other)
    alone = next(iter(moves(cond.select(slice(3, 4)), None, counter[3:4], 4)))
    torch.testing.assert_close(alone, first[3:4], rtol=1e-4, atol=1e-6)


def test_gradients_reach_encoders_and_denoiser() -> None:
    model, cond = setting()
    torch.nn.init.normal_(model.denoiser.last.weight)  # zero at first
    (move,) = DrawnMoves(model, None, 1, 2, False, 7)(cond, None, torch.arange(5), 0)
    move.square().sum().backward()
    for part in (model.encoder, model.denoiser, model.time):
        assert max(float(p.grad.abs().max()) for p in part.parameters() if p.grad is not None) > 0
