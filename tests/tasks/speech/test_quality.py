"""SI-SDR against torchmetrics, the assignment against all permutations, ensembles against hand-made cases."""

import itertools

import pytest
import torch
from torchmetrics.functional.audio import permutation_invariant_training, scale_invariant_signal_distortion_ratio

from ocd_core.tasks.speech.quality import (
    assigned,
    best_assignment,
    combined,
    mixture_si_sdr,
    pairwise_si_sdr,
    separation_si_sdr,
    si_sdr,
    sounding,
)


def signals(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) + 0.3


def mixed(source: torch.Tensor, seed: int = 1) -> torch.Tensor:
    """Estimates in which each source leaks into the others, in another order."""
    count = source.shape[1]
    leak = torch.eye(count, dtype=source.dtype)[torch.randperm(count, generator=torch.Generator().manual_seed(seed))]
    leak = leak + 0.4 * signals(count, count, seed=seed, dtype=source.dtype)
    return leak @ source + 0.1 * signals(*source.shape, seed=seed + 1, dtype=source.dtype)


def test_si_sdr_is_torchmetrics_with_zero_mean() -> None:
    estimate, source = signals(4, 3, 500), signals(4, 3, 500, seed=1) + signals(4, 3, 500)
    wanted = scale_invariant_signal_distortion_ratio(estimate, source, zero_mean=True)
    torch.testing.assert_close(si_sdr(estimate, source), wanted, rtol=1e-6, atol=1e-6)


def test_si_sdr_by_hand_without_scale_and_sign() -> None:
    source = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    noise = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64)  # orthogonal to it
    estimate = -7 * (source + 0.1 * noise) + 3
    assert float(si_sdr(estimate, source)) == pytest.approx(20, abs=1e-5)
    assert float(si_sdr(source, source)) == pytest.approx(80, abs=1e-3)
    assert float(si_sdr(noise, source)) == pytest.approx(-80)


def test_every_pair_is_si_sdr() -> None:
    estimate, source = signals(2, 4, 300), mixed(signals(2, 3, 300, seed=5))
    found = pairwise_si_sdr(estimate, source)
    for n, d, c in itertools.product(range(2), range(4), range(3)):
        assert float(found[n, d, c]) == pytest.approx(float(si_sdr(estimate[n, d], source[n, c])), abs=1e-6)


def test_assignment_is_the_best_of_120_permutations() -> None:
    score = signals(20, 5, 5)
    chosen = best_assignment(score)
    for n in range(20):
        sums = {
            order: sum(float(score[n, d, c]) for c, d in enumerate(order)) for order in itertools.permutations(range(5))
        }
        assert len(sums) == 120
        assert tuple(chosen[n].tolist()) == max(sums, key=sums.__getitem__)


def test_separation_equals_torchmetrics_and_the_best_permutation() -> None:
    source = signals(3, 5, 400)
    estimate = mixed(source)
    found = separation_si_sdr(estimate, source)
    wanted, _ = permutation_invariant_training(
        estimate, source, scale_invariant_signal_distortion_ratio, eval_func="max", zero_mean=True
    )
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    best = torch.stack(
        [si_sdr(estimate[:, list(order)], source).mean(1) for order in itertools.permutations(range(5))]
    ).amax(0)
    torch.testing.assert_close(found, best)


def test_gradient_is_that_of_the_best_permutation() -> None:
    source = signals(1, 4, 200)
    estimate = mixed(source).requires_grad_()
    (found,) = torch.autograd.grad(separation_si_sdr(estimate, source).sum(), estimate)
    orders = list(itertools.permutations(range(4)))
    values = [si_sdr(estimate[:, list(order)], source).mean() for order in orders]
    (wanted,) = torch.autograd.grad(max(values), estimate)
    torch.testing.assert_close(found, wanted)


def test_silent_sources_are_left_out() -> None:
    source = signals(2, 3, 300)
    source[0, 1] = 0
    source[1] = 0.25  # constant: silent too
    assert sounding(source).tolist() == [[True, False, True], [False] * 3]
    estimate = mixed(source + 0.01 * signals(2, 3, 300, seed=9))
    heard = source[:1, [0, 2]]
    best = max(float(si_sdr(estimate[:1, list(pair)], heard).mean()) for pair in itertools.permutations(range(3), 2))
    found = separation_si_sdr(estimate, source)
    assert float(found[0]) == pytest.approx(best, abs=1e-6)
    assert float(found[1]) == 0
    mixture = source.sum(1)
    alone = si_sdr(mixture[:1, None], heard).mean()
    assert float(mixture_si_sdr(mixture, source)[0]) == pytest.approx(float(alone))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_silent_estimates_and_sources_have_finite_gradients(dtype: torch.dtype) -> None:
    source = signals(1, 3, 100, dtype=dtype)
    source[0, 0] = 0
    estimate = torch.zeros(1, 3, 100, dtype=dtype).index_fill_(1, torch.tensor([2]), 0.0)
    estimate[0, 2] = source[0, 2]
    estimate.requires_grad_()
    found = separation_si_sdr(estimate, source)
    (gradient,) = torch.autograd.grad(found.sum(), estimate)
    assert torch.isfinite(gradient).all()
    assert float(found.detach()) == pytest.approx((80 - 80) / 2, abs=0.1)


def test_estimates_are_put_in_the_order_of_the_sources() -> None:
    source = signals(2, 4, 100)
    order = torch.tensor([[2, 0, 3, 1], [1, 2, 3, 0]])
    estimate = source.gather(1, order[..., None].expand(-1, -1, 100))
    torch.testing.assert_close(assigned(estimate, source), source)


def test_permuted_networks_are_aligned_before_the_mean() -> None:
    """Two networks with the same answers in another order, louder and upside down: the mean is the answer itself."""
    first = signals(2, 3, 100)
    first -= first.mean(-1, keepdim=True)
    other = -3 * first[:, [1, 2, 0]]
    found = combined(torch.stack([first, other]))
    torch.testing.assert_close(found, 2 * first)  # the energy is the mean of 1 and 3
    naive = torch.stack([first, other]).mean(0)
    assert float(separation_si_sdr(naive, first).max()) < 40
    assert float(separation_si_sdr(found, first).min()) > 79


def test_an_ensemble_averages_the_noise_away() -> None:
    """K estimates with independent noise of equal energy: SI-SDR rises by 10 log10 K."""
    source = signals(1, 3, 20_000)
    orders = [[0, 1, 2], [2, 0, 1], [1, 2, 0], [0, 2, 1]]
    networks = torch.stack(
        [source[:, order] + signals(1, 3, 20_000, seed=10 + k) - 0.3 for k, order in enumerate(orders)]
    )
    alone = separation_si_sdr(networks[0], source)
    together = separation_si_sdr(combined(networks), source)
    assert float(together - alone) == pytest.approx(6.02, abs=0.2)


def test_an_ensemble_does_not_depend_on_the_order_of_its_networks() -> None:
    source = signals(3, 3, 200)
    networks = torch.stack([mixed(source, seed) for seed in range(4)])
    wanted = combined(networks)
    found = combined(networks[[2, 0, 3, 1]])
    for n in range(3):
        assert float(separation_si_sdr(found[n : n + 1], wanted[n : n + 1])) > 79
