"""`class_mean_delta`: the mean training Δ of the class that the base network predicts.

It shows how much of a gain knows no more of x than its predicted class. The class of a training sample is the predicted
one too, not its label, so that both sides mean the same: it is the conditional mean of Δ given the predicted class.

Dims: N samples, C classes, O out_features, I in_features.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ocd_core.codes.encode import read_deltas
from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.row import Fit, FittedRow, MovedRow, Saved
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.network.moves import Move
from ocd_core.store import OverfitStore


class ClassMeanDelta(MovedRow, FittedRow):
    """The base network with one Δ per predicted class."""

    chosen_on = "train"
    title = "mean Δ of the predicted class"
    delta_COI: Tensor  # the last one, of all samples, is for a class that is never predicted in training

    def left_out(self) -> str | None:
        """The base network must predict classes."""
        predicted = self.context.task.predicted_class(self.context.example_output)
        return "the task has no classes" if predicted is None else None

    def fit(self, fitting: Fitting) -> Fit:
        """The means over the rows of the training store."""
        store = fitting.store("train")
        class_N = fitting.task.predicted_class(fitting.base_answers("train")[0])
        assert class_N is not None
        self.delta_COI = means_by_class(store, class_N[torch.from_numpy(store.read("sample_id"))])
        return Fit({"classes": int(class_N.bincount().count_nonzero())})

    def tensors(self) -> Mapping[str, Tensor]:
        """Δ of every class."""
        return {"": self.delta_COI}

    def load(self, saved: Saved) -> None:
        """Δ of every class, float32 (C + 1, O, I)."""
        self.delta_COI = saved.tensors[""].to(self.context.device)

    def move(self, shared: SharedPass) -> Move:
        """Δ of each sample's class."""
        class_N = self.context.task.predicted_class(shared.base.output)
        assert class_N is not None
        return self.delta_COI[class_N.clamp_max(len(self.delta_COI) - 1)]


def means_by_class(store: OverfitStore, class_N: Tensor) -> Tensor:
    """The mean Δ of each class and then of all rows, which also stands for a class without rows.

    They are summed in float64.

    Args:
        class_N: of each row of the store.

    Returns:
        float32 (C + 1, O, I), where C − 1 is the largest class of a row.
    """
    classes = int(class_N.max()) + 1
    total_COI = torch.zeros(classes, store.schema.out_features, store.schema.in_features, dtype=torch.float64)
    for rows, delta_NOI, _ in read_deltas(store):
        total_COI.index_add_(0, class_N[rows], delta_NOI.double())
    count_C = class_N.bincount(minlength=classes)
    overall_OI = total_COI.sum(0) / len(store)
    mean_COI = torch.where((count_C > 0)[:, None, None], total_COI / count_C.clamp_min(1)[:, None, None], overall_OI)
    return torch.cat([mean_COI, overall_OI[None]]).float()


ROW = ClassMeanDelta
