"""`linear`: multinomial logistic regression on the inputs, for any task with classes whose first input is a vector.

For text, the inputs are the encoder's embeddings, so this is SetFit as published: an encoder and scikit-learn's
`LogisticRegression` with its defaults, as in the package `setfit`. It shows what the layer that moves costs or gives.

Dims: N samples, D features, C classes.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.row import Fit, FittedRow, Saved
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.samples import Batch, Tensors, whole_split
from ocd_core.strict import Positive, PositiveInt, StrictModel


class LinearParams(StrictModel):
    """`controls.linear`, named as in scikit-learn; SetFit keeps its defaults, 1.0 and 100."""

    C: Positive  # the smaller, the stronger the regularisation
    max_iter: PositiveInt


class Linear(FittedRow):
    """The logarithms of the regression's probabilities."""

    Params = LinearParams
    quick: ClassVar[Mapping[str, Any]] = {"C": 1.0, "max_iter": 100}
    params: LinearParams
    title = "logistic regression on the inputs (SetFit's own head)"
    chosen_on = "train"
    weight_CD: Tensor  # float64
    bias_C: Tensor

    @torch.no_grad()
    def left_out(self) -> str | None:
        """There must be a vector to regress on, at least two classes in train, and one tensor to answer with."""
        context = self.context
        split = context.split("train")
        one = split.batch(torch.zeros(1, dtype=torch.int64))
        if not context.has_classes:
            return "the task gives no probabilities of classes"
        if one.inputs[0].dim() != 2 or not one.inputs[0].is_floating_point():
            return "the first input is not a vector of numbers"
        if not isinstance(one.target, Tensor) or one.target.dtype != torch.int64 or one.target.dim() != 1:
            return "the target is not one class"
        target = split.batch(whole_split(split)).target
        assert isinstance(target, Tensor)
        if len(torch.unique(target)) < 2:
            return "train has one class alone"
        output = context.predictor.model.network(*one.to(context.device).inputs)
        return None if isinstance(output, Tensor) else "the base network has several outputs"

    def fit(self, fitting: Fitting) -> Fit:
        """Fit on the training split, in float64."""
        from sklearn.linear_model import LogisticRegression

        batch = _whole(fitting)
        assert isinstance(batch.target, Tensor)
        regression = LogisticRegression(C=self.params.C, max_iter=self.params.max_iter)
        regression.fit(batch.inputs[0].double().numpy(), batch.target.numpy())
        weight_CD, bias_C = torch.from_numpy(regression.coef_), torch.from_numpy(regression.intercept_)
        if len(weight_CD) == 1:  # of two classes, the score of the first is 0
            weight_CD, bias_C = F.pad(weight_CD, (0, 0, 1, 0)), F.pad(bias_C, (1, 0))
        found = torch.from_numpy(regression.classes_)
        classes = self._classes(fitting)
        self.weight_CD = torch.zeros(classes, weight_CD.shape[1], dtype=torch.float64)
        # a class that train lacks gets a probability of about 0, with a finite logarithm
        self.bias_C = torch.full((classes,), math.log(1e-12), dtype=torch.float64)
        self.weight_CD[found], self.bias_C[found] = weight_CD, bias_C
        return Fit({"iterations": int(regression.n_iter_.max())})

    @torch.no_grad()
    def _classes(self, fitting: Fitting) -> int:
        batch = fitting.split("train").batch(torch.zeros(1, dtype=torch.int64)).to(fitting.device)
        found = fitting.task.log_probabilities(fitting.predictor.model.network(*batch.inputs))
        assert found is not None
        return found.shape[1]

    def tensors(self) -> Mapping[str, Tensor]:
        """The weights."""
        return {"weight": self.weight_CD, "bias": self.bias_C}

    def load(self, saved: Saved) -> None:
        """The weights."""
        self.weight_CD, self.bias_C = (saved.tensors[name].to(self.context.device) for name in ("weight", "bias"))

    def outputs(self, shared: SharedPass) -> Tensors:
        """Log-probabilities, float64 (N, C)."""
        return F.log_softmax(F.linear(shared.on_device.inputs[0].double(), self.weight_CD, self.bias_C), -1)


def _whole(fitting: Fitting) -> Batch:
    split = fitting.split("train")
    return split.batch(whole_split(split))


ROW = Linear
