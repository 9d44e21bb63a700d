"""NDCG of ranked rows (documents of a query)."""

import numpy as np
import torch
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.samples import flat
from ocd_core.tasks.metric import Metric
from ocd_core.tasks.tabular.columns import Column, numbers_of

MOST_RELEVANT = 30  # gains are powers of 2


def ndcg_metric(k: int, mean: float, std: float) -> Metric:
    """The mean over groups of NDCG@k, in percent.

    Args:
        mean, std: turn standardised targets into relevances of 0, 1, 2, ...
    """

    def per_group(output: Tensor, target: Tensor) -> float:
        relevance_N = (flat(target)[:, 0].double() * std + mean).round()
        return 100 * ndcg(flat(output)[:, 0].double(), relevance_N, k)

    return Metric(
        f"ndcg_{k}",
        per_group=per_group,
        higher_is_better=True,
        unit="%",
        decimals=2,
        about=f"the normalised discounted cumulative gain of the first {k} of a group, ranked by the answers; 100 is "
        "the best order",
    )


def check_relevance(values: Column, where: str) -> None:
    """Refuse targets that are not relevances.

    Raises:
        UserError: one is not a whole number from 0 to `MOST_RELEVANT`.
    """
    numbers = numbers_of(values, "target", where)
    bad = np.flatnonzero((numbers != np.round(numbers)) | (numbers < 0) | (numbers > MOST_RELEVANT))
    if len(bad):
        raise UserError(
            f"data.ranking_at: {where} has the target {numbers[bad[0]]:g} ({len(bad)} such rows); a relevance is a "
            f"whole number from 0 to {MOST_RELEVANT}"
        )


def ndcg(score_N: Tensor, relevance_N: Tensor, k: int) -> float:
    """NDCG@k of one group with gains 2^relevance − 1 (Burges et al., 2005), in 0..1.

    0 for a group without relevant rows, as LETOR's own script counts it; tied scores share their ranks' mean gain.
    """
    from sklearn.metrics import ndcg_score

    gain_N = torch.exp2(relevance_N) - 1
    if len(gain_N) == 1:  # scikit-learn refuses it
        return float(gain_N[0] > 0)
    return float(ndcg_score(gain_N[None].numpy(), score_N[None].numpy(), k=k))
