"""`ridge`: kernel ridge regression of Δ on I(x), which shows how good a smooth function of I(x) can be."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.regression import Ridge, RidgeParams, fit_ridge
from ocd_core.evaluation.row import Fit, FittedRow, MovedRow, Saved
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.evaluation.space import DeltaSpace
from ocd_core.network.moves import Move


class RidgeRow(MovedRow, FittedRow):
    """Δ from the regression."""

    Params = RidgeParams
    quick: ClassVar[Mapping[str, Any]] = {"rows": 8, "folds": 2, "widths": [1.0], "penalties": [0.1]}
    params: RidgeParams
    chosen_on = "train, by cross-validation"
    title = "kernel ridge regression of Δ"
    space: DeltaSpace
    ridge: Ridge

    def fit(self, fitting: Fitting) -> Fit:
        """Fit on the rows of the training store."""
        sample_id = torch.from_numpy(fitting.store("train").read("sample_id"))
        fit = fit_ridge(fitting.train_condition, fitting.coordinates_Nd, sample_id, self.params, fitting.seed)
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
