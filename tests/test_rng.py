import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ocd_core.rng import derive_seed, numpy_generator, permutation, sample_normal, sample_uniform, torch_generator

SEEDS = st.integers(0, 2**63)
WORDS = st.lists(st.one_of(st.text("abc", min_size=1, max_size=3), st.integers(0, 9)), max_size=3)


def test_seeds_by_hand() -> None:
    """The first eight bytes of a SHA-256, without the last bit: the same on every machine and for ever."""
    digest = hashlib.sha256(b"0/base/order/3").hexdigest()
    assert derive_seed(0, "base", "order", 3) == int(digest[:16], 16) // 2


@given(seed=SEEDS, purpose=WORDS)
def test_seeds_fit_torch_and_repeat(seed: int, purpose: list[str | int]) -> None:
    found = derive_seed(seed, *purpose)
    assert 0 <= found < 2**63
    assert found == derive_seed(seed, *purpose)
    torch.Generator().manual_seed(found)


@given(seed=SEEDS, a=WORDS, b=WORDS)
def test_purposes_do_not_collide(seed: int, a: list[str | int], b: list[str | int]) -> None:
    if list(map(str, a)) != list(map(str, b)):
        assert derive_seed(seed, *a) != derive_seed(seed, *b)
    assert derive_seed(seed, *a) != derive_seed(seed + 1, *a)


def test_generators_repeat_and_differ_by_purpose() -> None:
    assert torch.equal(
        torch.rand(5, generator=torch_generator(1, "a")), torch.rand(5, generator=torch_generator(1, "a"))
    )
    assert not torch.equal(
        torch.rand(5, generator=torch_generator(1, "a")), torch.rand(5, generator=torch_generator(1, "b"))
    )
    assert np.array_equal(numpy_generator(1, "a").random(5), numpy_generator(1, "a").random(5))
    assert not np.array_equal(numpy_generator(1, "a").random(5), numpy_generator(2, "a").random(5))


@settings(max_examples=30)
@given(n=st.integers(0, 200), seed=SEEDS)
def test_permutations_hold_every_number_once(n: int, seed: int) -> None:
    order = permutation(n, seed, "x")
    assert order.dtype == torch.int64
    assert sorted(order.tolist()) == list(range(n))
    assert torch.equal(order, permutation(n, seed, "x"))


def test_every_first_place_is_as_likely() -> None:
    firsts = [int(permutation(5, seed, "p")[0]) for seed in range(2000)]
    assert stats.chisquare(np.bincount(firsts, minlength=5)).pvalue > 1e-3


@settings(max_examples=50)
@given(
    counters=st.lists(st.integers(0, 2**63), max_size=6),
    shape=st.lists(st.integers(1, 4), max_size=3),
    seed=SEEDS,
    data=st.data(),
)
def test_a_row_depends_on_its_counter_alone(
    counters: list[int], shape: list[int], seed: int, data: st.DataObject
) -> None:
    whole = sample_normal(shape, counters, seed, "draw", 1)
    assert whole.shape == (len(counters), *shape)
    assert whole.dtype == torch.float32
    order = data.draw(st.permutations(range(len(counters))))
    some = sample_normal(shape, [counters[i] for i in order], seed, "draw", 1)
    assert torch.equal(some, whole[list(order)])
    for i, counter in enumerate(counters):
        assert torch.equal(sample_normal(shape, [counter], seed, "draw", 1)[0], whole[i])


def test_rows_of_neighbouring_counters_are_independent_standard_normal() -> None:
    draws = sample_normal((50,), range(400), 3, "n").double().numpy()
    assert stats.kstest(draws.ravel(), "norm").pvalue > 1e-3
    # a row that ran into its neighbour's stream would repeat its numbers
    assert len(np.unique(draws)) > 0.999 * draws.size
    assert abs(np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]) < 4 / np.sqrt(draws.size)
    other = sample_normal((50,), range(400), 3, "m").double().numpy()
    assert abs(np.corrcoef(draws.ravel(), other.ravel())[0, 1]) < 4 / np.sqrt(draws.size)


def test_another_process_draws_the_same() -> None:
    code = (
        "from ocd_core.rng import *; print(sample_normal((2,), [7], 1, 'a').tolist(), permutation(5, 1, 'b').tolist())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == f"{sample_normal((2,), [7], 1, 'a').tolist()} {permutation(5, 1, 'b').tolist()}"


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_no_counters_give_no_rows(shape: tuple[int, ...]) -> None:
    assert sample_normal(shape, [], 0, "a").shape == (0, *shape)


def test_a_row_is_that_of_a_generator_of_its_own() -> None:
    key = derive_seed(3, "draw", 0)
    for counter in (0, 5, 2**63):
        own = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, counter]))
        wanted = own.standard_normal((2, 3), dtype=np.float32)
        assert np.array_equal(sample_normal((2, 3), [9, counter], 3, "draw", 0)[1].numpy(), wanted)
        own = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, counter]))
        assert np.array_equal(sample_uniform((2, 3), [9, counter], 3, "draw", 0)[1].numpy(), own.random((2, 3)))


def test_threads_do_not_disturb_each_other() -> None:
    def rows(seed: int) -> list[torch.Tensor]:
        return [sample_normal((7,), [seed, k], seed, "t") for k in range(200)]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(rows, range(4)))
    for seed, one in enumerate(found):
        assert all(torch.equal(a, b) for a, b in zip(one, rows(seed), strict=True))
