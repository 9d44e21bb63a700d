"""The scale network on held-out ρ, compared with what it must beat: a linear model, a constant, and ρ̂ = 0.

Dims: N training rows, M validation rows, D features of I(x).
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ocd_core.codes.condition import features
from ocd_core.rng import permutation
from ocd_core.samples import Condition
from ocd_core.scale.losses import above_zero, scale_metrics
from ocd_core.scale.network import ScaleNetwork
from ocd_core.store import OverfitStore
from ocd_core.store.summary import read_rows

Entry = dict[str, str | float]
_PENALTIES = np.logspace(-2, 6, 17)
_LINEAR_NUMBERS = 2**24  # in the linear model's design matrix: 128 MiB, and a few copies


def compare_scales(network: ScaleNetwork, loss: str, train: OverfitStore, val: OverfitStore, seed: int) -> list[Entry]:
    """One entry per estimate of ρ and group of validation rows: all rows, those with the base right, and with it wrong.

    The estimates: the scale network; a linear model of ln ρ in the standardised I(x), with a ridge penalty chosen by
    leave-one-out; the median training ρ for all; 0 for all. Nothing is fitted to `val`, but it decided when the network
    stopped. If the store is not of a classification, the only group is `all`.

    Args:
        loss: what the network was trained on, for its name.
        seed: selects the training rows that the linear model sees, if there are too many.

    Returns:
        estimate, rows, n (rows with ρ > 0) and the values of `scale_metrics`.
    """
    cond, val_cond = train.condition(), val.condition()
    rho_N, rho_M = (torch.from_numpy(store.read("rho")) for store in (train, val))
    floored_N = above_zero(rho_N)
    once_N = torch.from_numpy(train.read("replica") == 0)  # otherwise leave-one-out would keep a replica of the sample
    estimates = {
        f"scale network ({loss})": network.estimate(val_cond).cpu(),
        "linear model": linear_estimate(cond.select(once_N), floored_N[once_N], val_cond, seed),
        "median of training ρ": floored_N.median().expand(len(rho_M)),
        "ρ̂ = 0": torch.zeros(len(rho_M)),
    }
    groups = {"all": torch.ones(len(rho_M), dtype=torch.bool)}
    correct: npt.NDArray[np.bool_] | None = read_rows(val, most=len(val)).correct
    if correct is not None:
        groups |= {"base right": torch.from_numpy(correct), "base wrong": torch.from_numpy(~correct)}
    return [
        {
            "estimate": name,
            "rows": group,
            "n": int((kept_M & (rho_M > 0)).sum()),
            **scale_metrics(estimate_M[kept_M], rho_M[kept_M]),
        }
        for name, estimate_M in estimates.items()
        for group, kept_M in groups.items()
    ]


def linear_estimate(cond: Condition, rho_N: Tensor, new: Condition, seed: int) -> Tensor:
    """ρ̂ of the rows of `new` by a ridge regression of ln ρ on the standardised I(x); float64 (M,).

    The penalty has the smallest leave-one-out error. A seeded subset represents a large set.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    width = features(cond.select(slice(1))).shape[1]
    rows = permutation(len(cond), seed, "rows of the linear model")[: max(2, _LINEAR_NUMBERS // width)]
    model = make_pipeline(StandardScaler(), RidgeCV(_PENALTIES))
    model.fit(features(cond.select(rows)).double().numpy(), rho_N[rows].double().log().numpy())
    return torch.from_numpy(np.exp(model.predict(features(new).double().numpy())))
