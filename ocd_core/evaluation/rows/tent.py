"""`tent`: the base network adapted to unlabelled test batches by minimising the entropy of its predictions.

There is a variant per number of iterations and mode. Episodic: each batch starts from the base network. Online:
parameters and optimiser are carried over from batch to batch. The batches are drawn from the split in a random order,
since that of a part of the source may be by class. `ocd_core.network.adapting` is the method.
"""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from ocd_core.config import Params as RunParams
from ocd_core.errors import UserError
from ocd_core.evaluation.context import Context, Fitting
from ocd_core.evaluation.row import Fit, FittedRow, Saved
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.network.adapting import Adaptation, Moved, moved_parameters
from ocd_core.rng import permutation
from ocd_core.samples import SplitName, Tensors, concatenate, map_tensors, rows_at_once, select, whole_split
from ocd_core.strict import Positive, PositiveInt, StrictModel, distinct

_ONLINE = "_online"


class TentParams(StrictModel):
    """`controls.tent`."""

    # updates per batch; each number gives a row of each mode
    iterations: Annotated[list[PositiveInt], Field(min_length=1), AfterValidator(distinct)]
    modes: Annotated[list[Literal["episodic", "online"]], Field(min_length=1), AfterValidator(distinct)]
    lrs: Annotated[list[Positive], Field(min_length=1), AfterValidator(distinct)]  # of Adam; the best on val is chosen
    batch_size: PositiveInt  # at most: the batches are of nearly equal size

    @property
    def variants(self) -> tuple[str, ...]:
        """The iterations of the first mode, then of the second."""
        return tuple(
            f"{count}{_ONLINE if mode == 'online' else ''}" for mode in self.modes for count in self.iterations
        )


class Tent(FittedRow):
    """The outputs of the adapted network. It runs in float32, as in the official implementation."""

    Params = TentParams
    quick: ClassVar[Mapping[str, Any]] = {
        "iterations": [1],
        "modes": ["episodic", "online"],
        "lrs": [1e-3],
        "batch_size": 4,
    }
    params: TentParams
    chosen_on = "val"
    whole_split = True
    lrs: Mapping[str, float]  # of each variant

    @classmethod
    def variants(cls, params: RunParams) -> tuple[str, ...]:
        """Such as 1, 10, 1_online, 10_online."""
        own = params.controls.of_row("tent")
        assert isinstance(own, TentParams)
        return own.variants

    @property
    def title(self) -> str:
        """The title says how many iterations there are, whether they carry over, and if biases move."""
        iterations, online = _parsed(self.variant)
        words = [f"{iterations} iteration{'s' if iterations > 1 else ''}"]
        words += [] if self._moved.of_normalisation else ["on biases"]
        words += ["online"] if online else []
        return f"Tent ({', '.join(words)})"

    def left_out(self) -> str | None:
        """Entropy needs classes, a parameter must move, and a batch must hold its samples whole."""
        if not self.context.has_classes:
            return "the task gives no probabilities of classes"
        if not self._moved.names:
            return "the base network has neither normalisation layers nor biases to train"
        if rows_at_once(self.context.split("val"), 2) == 1:
            return "the samples differ in shape, so that a batch to adapt to would leave parts of them out"
        return None

    @cached_property
    def _moved(self) -> Moved:
        return moved_parameters(self.context.as_built)

    def fit(self, fitting: Fitting) -> Fit:
        """Choose each variant's learning rate by the mean loss on the validation split, adapted to in the same way.

        Raises:
            UserError: no learning rate gives finite losses.
        """
        val = fitting.split("val")
        target = concatenate([val.batch(rows).target for rows in torch.split(whole_split(val), self.params.batch_size)])
        found: dict[str, dict[float, float]] = {variant: {} for variant in self.params.variants}
        for variant, losses in found.items():
            for lr in self.params.lrs:
                output = self._adapted(fitting, "val", variant, lr)
                losses[lr] = float(fitting.task.loss(output, target).double().mean())
        self.lrs = {variant: _best(losses, variant) for variant, losses in found.items()}
        metrics = {
            variant: {"lr": self.lrs[variant], "val_loss": losses[self.lrs[variant]]}
            for variant, losses in found.items()
        }
        curve = []
        for variant, losses in found.items():
            iterations, online = _parsed(variant)
            start = {"iterations": float(iterations), "online": float(online)}
            curve += [{**start, "lr": lr, "val_loss": loss} for lr, loss in losses.items()]
        return Fit(metrics, curve)

    def config(self) -> dict[str, Any]:
        """The learning rates."""
        return {"lrs": dict(self.lrs)}

    def load(self, saved: Saved) -> None:
        """The learning rates."""
        self.lrs = {variant: float(lr) for variant, lr in saved.config["lrs"].items()}

    @cached_property
    def _kept(self) -> dict[SplitName, Tensors]:
        """The outputs for a whole split, which must not depend on how the evaluation divides it."""
        return {}

    def outputs(self, shared: SharedPass) -> Tensors:
        """The outputs of the network as it was when it had adapted to the sample's batch of the split."""
        if shared.split not in self._kept:
            self._kept[shared.split] = self._adapted(self.context, shared.split, self.variant, self.lrs[self.variant])
        kept = self._kept[shared.split]
        return map_tensors(lambda x: x.to(self.context.device), select(kept, shared.batch.sample_id))

    def _adapted(self, context: Context, name: SplitName, variant: str, lr: float) -> Tensors:
        """The outputs for a split, on the CPU; its labels are out of reach."""
        iterations, online = _parsed(variant)
        adaptation = Adaptation(context.predictor.model.network, self._moved.names, self._log_probabilities, lr)
        outputs = []
        split = context.unlabelled(name)
        order = permutation(len(split), context.seed, "batches to adapt to")
        # of nearly equal size: a last one of one sample would break batch normalisation
        for rows in order.tensor_split(math.ceil(len(split) / self.params.batch_size)):
            inputs = split.batch(rows).to(context.device).inputs
            if not online:
                adaptation.reset()
            for _ in range(iterations):
                adaptation.update(inputs)
            outputs.append(map_tensors(Tensor.cpu, adaptation.output(inputs)))
        return select(concatenate(outputs), order.argsort())

    def _log_probabilities(self, output: Tensors) -> Tensor:
        found = self.context.task.log_probabilities(output)
        assert found is not None
        return found


def _parsed(variant: str) -> tuple[int, bool]:
    """The iterations, and whether the mode is online."""
    return int(variant.removesuffix(_ONLINE)), variant.endswith(_ONLINE)


def _best(losses: Mapping[float, float], variant: str) -> float:
    finite = {lr: loss for lr, loss in losses.items() if math.isfinite(loss)}
    if not finite:
        raise UserError(
            f"controls.tent.lrs: no learning rate gives finite losses on val (tent_{variant}); add lower ones"
        )
    return min(finite, key=finite.__getitem__)


ROW = Tent
