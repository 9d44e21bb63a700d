"""Both forms of Adam against torch.optim.Adam."""

import numpy as np
import pytest
import torch

from ocd_core.adam import EPS, Adam, Moments

STEPS = 7


def gradients(*shape: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return (
        torch.randn(STEPS, *shape, generator=g, dtype=torch.float64)
        * 10.0 ** torch.arange(STEPS).view(-1, *[1] * len(shape)).neg()
    )


def by_torch(grads: torch.Tensor, lr: float) -> torch.Tensor:
    """The weight after each step, from 0."""
    weight = torch.zeros_like(grads[0], requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=lr, foreach=False)
    found = []
    for grad in grads:
        weight.grad = grad.clone()
        optimizer.step()
        found.append(weight.detach().clone())
    return torch.stack(found)


def test_in_place_it_is_torchs() -> None:
    grads = gradients(4, 3, 2)
    weight = torch.zeros(4, 3, 2, dtype=torch.float64)
    adam = Adam(weight, 0.1)
    for grad, expected in zip(grads, by_torch(grads, 0.1), strict=True):
        adam(grad.clone(), torch.ones(4, 1, 1))
        torch.testing.assert_close(weight, expected, rtol=1e-14, atol=0)


def test_a_sample_that_stays_does_not_move() -> None:
    weight = torch.zeros(2, 3, dtype=torch.float64)
    adam = Adam(weight, 0.1)
    adam(torch.ones(2, 3, dtype=torch.float64), torch.tensor([[1.0], [0.0]]))
    assert bool((weight[0] != 0).all())
    assert bool((weight[1] == 0).all())


@pytest.mark.parametrize("library", ["torch", "numpy"])
def test_moments_give_torchs_steps_in_either_library(library: str) -> None:
    grads, total = gradients(5), torch.zeros(5, dtype=torch.float64)
    moments: Moments = Moments()
    for grad, expected in zip(grads, by_torch(grads, 0.1), strict=True):
        moments.update(grad if library == "torch" else grad.numpy())
        assert isinstance(moments.root, torch.Tensor if library == "torch" else np.ndarray)
        total = total - 0.1 * torch.as_tensor(moments.mean / moments.correction / (moments.root + EPS))
        torch.testing.assert_close(total, expected, rtol=1e-12, atol=0)
