"""Components and their variances against numpy's singular values; messages name the caller's own param."""

import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from ocd_core.codes.principal import directions, principal_components
from ocd_core.errors import UserError
from tests.codes.representations.common import deltas


@pytest.mark.parametrize(("n", "o", "i"), [(30, 3, 4), (9, 6, 5)])  # fewer entries than samples, and more
def test_against_numpy(n: int, o: int, i: int) -> None:
    delta = deltas(n, o, i)
    found = principal_components(delta.split(4), 3, "what", "its.key")
    x = delta.flatten(1).double().numpy()
    _, s, vt = np.linalg.svd(x - x.mean(0), full_matrices=False)
    np.testing.assert_allclose(found.mean_d, x.mean(0), atol=1e-12)
    np.testing.assert_allclose((found.basis_kd.numpy() @ vt[:3].T).round(6) ** 2, np.eye(3), atol=1e-5)
    np.testing.assert_allclose(found.squares_k, s[:3] ** 2, rtol=1e-6)
    assert float(found.total) == pytest.approx((s**2).sum(), rel=1e-6)
    assert float(found.scale) == pytest.approx(((s[:3] ** 2).mean() / n) ** 0.5, rel=1e-6)
    largest = found.basis_kd.abs().argmax(1)
    assert (found.basis_kd[torch.arange(3), largest] > 0).all(), "signs are fixed"


@pytest.mark.parametrize("rows", [1, 7, 13, 100])
def test_the_chunks_do_not_matter(rows: int) -> None:
    """Also where Δ lie far from 0, and the first of them far from the rest."""
    delta = deltas(100, 3, 4) + 1e3
    delta[:20] += 50
    found, whole = (principal_components(delta.split(n), 5, "what", "its.key") for n in (rows, 100))
    for name in ("mean_d", "squares_k", "total"):
        torch.testing.assert_close(getattr(found, name), getattr(whole, name), rtol=1e-10, atol=0)
    torch.testing.assert_close(found.basis_kd, whole.basis_kd, rtol=0, atol=1e-7)
    x = delta.flatten(1).double().numpy()
    s = np.linalg.svd(x - x.mean(0), compute_uv=False)
    np.testing.assert_allclose(found.squares_k, s[:5] ** 2, rtol=1e-6)


def test_chunks_are_not_kept_if_there_are_more_deltas_than_entries() -> None:
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def chunks() -> Iterator[Tensor]:
        nonlocal most
        for _ in range(30):
            chunk = torch.randn(4, 2, 4)
            alive.append(weakref.ref(chunk))
            most = max(most, sum(x() is not None for x in alive))
            yield chunk
            del chunk

    principal_components(chunks(), 2, "what", "its.key")
    assert most <= 4  # three until there are more than 8 Δ, and the next


def test_too_few_deltas_name_the_param() -> None:
    with pytest.raises(UserError, match=r"what: 3 training Δ of 4 entries have at most 2 .*; lower its\.key from 3"):
        principal_components([torch.randn(3, 2, 2)], 3, "what", "its.key")


def test_directions_are_the_rank_about_the_mean() -> None:
    g = torch.Generator().manual_seed(0)
    for rank in (1, 3, 5):
        delta = torch.randn(30, rank, generator=g) @ torch.randn(rank, 12, generator=g) + 7
        assert directions(delta.view(30, 3, 4)) == rank == np.linalg.matrix_rank((delta - delta.mean(0)).numpy(), 1e-3)
    assert directions(torch.ones(9, 2, 2)) == 0
