"""Δ from factors against torch.optim, step by step, in float64."""

import numpy as np
import pytest
import torch

from ocd_core.store.factored import rebuild_delta


def loop(u_SO, i_I, optimizer, lr):
    """What the optimiser itself makes of the gradients u_k ⊗ i, float64."""
    weight = torch.zeros(u_SO.shape[1], len(i_I), dtype=torch.float64, requires_grad=True)
    step = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer]([weight], lr=lr)
    for u_O in u_SO:
        weight.grad = torch.outer(torch.from_numpy(u_O), torch.from_numpy(i_I))
        step.step()
    return weight.detach().numpy()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-8, 1e-12])  # Adam's ε matters from 1e-8 down
@pytest.mark.parametrize("steps", [1, 3, 10])
def test_equals_the_optimizer(optimizer, scale, steps):
    rng = np.random.default_rng(steps)
    u_NSO = rng.standard_normal((6, steps, 5)) * scale * 10.0 ** rng.integers(-3, 3, (6, 1, 5))
    i_NI = np.maximum(rng.standard_normal((6, 7)), 0).astype(np.float32)  # zeros, as after a ReLU
    found = rebuild_delta(u_NSO.astype(np.float32), i_NI, optimizer, 5e-3)
    assert found.dtype == np.float32
    for n in range(6):
        expected = loop(u_NSO[n], i_NI[n].astype(np.float64), optimizer, 5e-3)
        assert np.linalg.norm(found[n] - expected) <= 1e-6 * np.linalg.norm(expected)


def test_hand_worked_sgd():
    """Two steps with u = (1, 0), (2, -1), i = (3, 5), lr 0.1: Δ = -0.1 (3, -1) ⊗ (3, 5)."""
    found = rebuild_delta(np.array([[[1.0, 0.0], [2.0, -1.0]]]), np.array([[3.0, 5.0]]), "sgd", 0.1)
    np.testing.assert_allclose(found[0], [[-0.9, -1.5], [0.3, 0.5]], rtol=1e-6)


def test_hand_worked_adam():
    """Its first step is lr times the gradient's sign, whatever its size."""
    found = rebuild_delta(np.array([[[3.0, -0.5]]]), np.array([[2.0, -4.0]]), "adam", 0.1)
    np.testing.assert_allclose(found[0], [[-0.1, 0.1], [0.1, -0.1]], rtol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_diverged_sample_shows_and_keeps_to_itself(optimizer):
    rng = np.random.default_rng(0)
    u_NSO, i_NI = rng.standard_normal((2, 4, 3)), rng.standard_normal((2, 5))
    u_NSO[0, 2:] = np.nan
    found = rebuild_delta(u_NSO, i_NI, optimizer, 0.01)
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


def test_batches_do_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    u_NSO, i_NI = rng.standard_normal((7, 3, 4)), rng.standard_normal((7, 5))
    whole = rebuild_delta(u_NSO, i_NI, "adam", 0.01)
    monkeypatch.setattr("ocd_core.store.factored.BATCH_BYTES", 8 * 4 * 5 * 3)
    np.testing.assert_array_equal(rebuild_delta(u_NSO, i_NI, "adam", 0.01), whole)
