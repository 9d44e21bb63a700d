"""NDCG by hand and against a loop, and what is no relevance."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ocd_core.errors import UserError
from ocd_core.tasks.tabular.ranking import check_relevance, ndcg, ndcg_metric
from ocd_core.tasks.tabular.targets import Number


@pytest.mark.parametrize("bad", [-1.0, 0.5, 31.0])
def test_targets_that_are_no_relevance(bad: float) -> None:
    check_relevance(np.array([0.0, 4.0]), "the val split")
    with pytest.raises(UserError, match=rf"data\.ranking_at: the val split has the target {bad:g} \(1 such rows\)"):
        check_relevance(np.array([0.0, bad]), "the val split")


def by_loop(score: list[float], relevance: list[int], k: int) -> float:
    order = sorted(range(len(score)), key=lambda i: -score[i])
    gains = [2 ** relevance[i] - 1 for i in order]
    best = sorted((2**r - 1 for r in relevance), reverse=True)
    dcg, ideal = (sum(g / math.log2(i + 2) for i, g in enumerate(values[:k])) for values in (gains, best))
    return dcg / ideal if ideal else 0.0


@given(st.lists(st.integers(0, 4), min_size=1, max_size=14), st.integers(1, 12), st.randoms(use_true_random=False))
def test_ndcg_is_the_sum_by_hand(relevance: list[int], k: int, random: Any) -> None:
    score = [float(i) for i in range(len(relevance))]
    random.shuffle(score)
    found = ndcg(torch.tensor(score).double(), torch.tensor(relevance).double(), k)
    assert found == pytest.approx(by_loop(score, relevance, k), abs=1e-12)


def test_the_metric_reads_standardised_targets() -> None:
    targets = Number.fit(np.array([0.0, 0.0, 1.0, 2.0]), "relevance")
    metric = ndcg_metric(2, targets.mean, targets.std)
    assert metric.per_group is not None
    y = targets.encode(np.array([0.0, 2.0, 1.0]), "")
    found = metric.per_group(torch.tensor([[3.0], [2.0], [1.0]]), y)
    assert found == pytest.approx(100 * (3 / math.log2(3)) / (3 + 1 / math.log2(3)))
    assert metric.name == "ndcg_2"
