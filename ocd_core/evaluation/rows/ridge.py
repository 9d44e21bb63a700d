"""`ridge`: kernel ridge regression of Δ on I(x), which shows how good a smooth function of I(x) can be."""

from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from ocd_core.codes.curvature import as_metrics, mean_diagonal, row_curvatures
from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.regression import Ridge, RidgeParams, fit_ridge
from ocd_core.evaluation.row import Fit, FittedRow, MovedRow, Saved
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.evaluation.space import DeltaSpace
from ocd_core.network.moves import Move


def _metrics(fitting: Fitting, sample_id_N: Tensor, rows: Tensor) -> Tensor:
    """The metrics of some rows of the training store."""
    replica_N = torch.from_numpy(fitting.store("train").read("replica"))
    space = deepcopy(fitting.space).to(fitting.device)
    found = row_curvatures(
        fitting.task, fitting.tail, fitting.split("train"), sample_id_N[rows], replica_N[rows],
        fitting.coordinates_Nd[rows], space.move, fitting.seed,
    )  # fmt: skip
    return as_metrics(found, mean_diagonal(found))


class RidgeRow(MovedRow, FittedRow):
    """Δ from the regression."""

    Params = RidgeParams
    quick: ClassVar[Mapping[str, Any]] = {
        "rows": 8,
        "folds": 2,
        "widths": [1.0],
        "penalties": [0.1],
        "metric": "euclidean",
    }
    params: RidgeParams
    chosen_on = "train, by cross-validation"
    title = "kernel ridge regression of Δ"
    space: DeltaSpace
    ridge: Ridge

    def fit(self, fitting: Fitting) -> Fit:
        """Fit on the rows of the training store."""
        sample_id = torch.from_numpy(fitting.store("train").read("sample_id"))
        by_loss = self.params.metric == "gauss_newton"
        metric_of = partial(_metrics, fitting, sample_id) if by_loss else None
        cond, code_Nd = fitting.train_condition, fitting.coordinates_Nd
        fit = fit_ridge(cond, code_Nd, sample_id, self.params, fitting.seed, metric_of)
        self.space, self.ridge = fitting.space, fit.ridge
        return Fit(fit.metrics)

    def tensors(self) -> Mapping[str, Tensor]:
        """The regression's tensors."""
        return self.ridge.state_dict()

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"shape": [*self.ridge.x_ND.shape, self.ridge.alpha_Nd.shape[1]]}

    def load(self, saved: Saved) -> None:
        """Load the regression and the space of its answers."""
        self.space = saved.shared_space()
        self.ridge = Ridge(*saved.config["shape"])
        saved.load_into(self.ridge)
        self.ridge.to(self.context.device)

    def move(self, shared: SharedPass) -> Move:
        """Δ at I(x)."""
        return self.space.move(self.ridge(shared.base.condition), shared.base.cut.layer_input_NI)


ROW = RidgeRow
