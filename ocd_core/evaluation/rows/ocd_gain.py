"""`ocd_gain`: one draw times the factor with the lowest loss on the validation split.

`scale.gain: validated` multiplies every drawn Δ by this factor; the row then equals the row `ocd` and is left out.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.row import Fit, FittedRow, MovedRow, Saved
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.evaluation.statistics import paired_z
from ocd_core.network.moves import Move, row_chunks, rows_within
from ocd_core.predictor import Predictor
from ocd_core.samples import Split, Tensors, groups_of, rows_at_once, whole_split
from ocd_core.strict import Positive, StrictModel

_MEMORY_MB = 512


class GainParams(StrictModel):
    """`controls.ocd_gain`."""

    gains: Annotated[list[Positive], Field(min_length=1)]  # factors of a drawn Δ to choose from


class OcdGain(MovedRow, FittedRow):
    """The first draw, scaled."""

    Params = GainParams
    quick: ClassVar[Mapping[str, Any]] = {"gains": [0.5, 1.0]}
    params: GainParams
    gain: float
    costs_as = "ocd"

    @property
    def title(self) -> str:
        """The title says the factor."""
        return f"OCD (one draw) × {self.gain:g}"

    def left_out(self) -> str | None:
        """If every draw already has the gain, there is nothing to show."""
        gain = self.context.predictor.gain
        return None if gain is None else f"every OCD row has the gain of {gain:g} that validation chose"

    def fit(self, fitting: Fitting) -> Fit:
        """Choose among the params' factors; the losses with factors 0 (the base) and 1 are reported too.

        Raises:
            UserError: no factor gives a finite loss.
        """
        tried = sorted({0.0, 1.0, *self.params.gains})
        val = fitting.split("val")
        groups = groups_of(val)
        losses_GN = losses_by_gain(fitting.predictor, val, tried)
        base_N, one_draw_N = (losses_GN[tried.index(gain)].numpy() for gain in (0.0, 1.0))
        losses = dict(zip(tried, losses_GN.mean(1).tolist(), strict=True))
        finite = [(losses[c], c) for c in self.params.gains if math.isfinite(losses[c])]
        if not finite:
            raise UserError("controls.ocd_gain.gains: no factor gives a finite loss on val; add smaller ones")
        self.gain = min(finite)[1]
        metrics = {
            "gain": self.gain,
            "val_loss": losses[self.gain],
            "val_loss_base": losses[0.0],
            "val_loss_one_draw": losses[1.0],
            "val_z_one_draw": paired_z(one_draw_N, base_N, None if groups is None else groups.numpy()),
        }
        return Fit(metrics, [{"gain": c, "val_loss": loss} for c, loss in losses.items()])

    def config(self) -> dict[str, Any]:
        """The factor."""
        return {"gain": self.gain}

    def load(self, saved: Saved) -> None:
        """The factor."""
        self.gain = float(saved.config["gain"])

    def outputs(self, shared: SharedPass) -> Tensors:
        """f(x; θ + Δ); with the factor 1, the answer of the first draw, which is computed once for all rows."""
        return shared.drawn().output(0) if self.gain == 1 else super().outputs(shared)

    def move(self, shared: SharedPass) -> Move:
        """The factor times the first draw."""
        return self.gain * shared.drawn().move(0)


@torch.no_grad()
def losses_by_gain(predictor: Predictor, split: Split, gains: Sequence[float]) -> Tensor:
    """The loss of each sample of a split under one drawn Δ times each of G factors, float64 (G, N); 0 is the base."""
    losses_GN = torch.empty(len(gains), len(split), dtype=torch.float64)
    example = split.batch(torch.zeros(1, dtype=torch.int64))
    size = rows_at_once(split, rows_within(predictor.model, example, _MEMORY_MB, matrices=2))
    for rows in row_chunks(len(split), size):
        batch = split.batch(whole_split(split)[rows])
        shared = SharedPass(predictor, batch, "val")
        target = batch.to(predictor.device).target
        move = shared.drawn().move(0)
        for i, gain in enumerate(gains):
            output = shared.outputs_with(gain * move) if gain else shared.base.output
            losses_GN[i, rows] = predictor.task.loss(output, target).double().cpu()
    return losses_GN


ROW = OcdGain
