"""`ocd_permuted`: OCD with the Δ that are drawn for other test samples, as an ensemble; untuned, and tuned if it was.

It keeps everything of OCD but the connection between x and Δ.
"""

from functools import cached_property

import torch
from torch import Tensor

from ocd_core.config import Params as RunParams
from ocd_core.diffusion.training import other_rows
from ocd_core.evaluation.row import CombinedRow
from ocd_core.evaluation.shared_pass import Drawn, SharedPass
from ocd_core.predictor import Predictor
from ocd_core.samples import SplitName, Tensors, stack

_TUNED = "tuned"


class OcdPermuted(CombinedRow):
    """An ensemble of `evaluate.draws` networks, the largest number; each sample lends its Δ to one other."""

    @classmethod
    def variants(cls, params: RunParams) -> tuple[str, ...]:
        """The tuned model's draws too, if there is one."""
        return ("", _TUNED) if params.tuning.updates else ("",)

    @classmethod
    def training_of(cls, variant: str) -> str | None:
        """Of the model that draws."""
        return "ocd_tuned" if variant else "ocd"

    @property
    def title(self) -> str:
        """The title says which model draws, and how often."""
        tuned = " tuned" if self.variant else ""
        note = "" if self.variant else self.context.gain_note
        return f"OCD{tuned}, Δ drawn for other samples, ensemble of {self.context.draws}{note}"

    def left_out(self) -> str | None:
        """There must be another sample."""
        return None if len(self.context.unlabelled("test")) > 1 else "the test split has a single sample"

    @cached_property
    def predictor(self) -> Predictor:
        """What draws."""
        return self.context.tuned if self.variant else self.context.predictor

    def others(self, name: SplitName) -> Tensor:
        """The sample whose Δ each sample of a split takes, int64."""
        count = len(self.context.unlabelled(name))
        if count < 2:  # a validation split of one sample, which only its temperature is chosen on
            return torch.zeros(count, dtype=torch.int64)
        return self.context.once(("permuted", name), lambda: other_rows(count, self.context.seed))

    def distribution(self, shared: SharedPass) -> Tensors:
        """The networks' outputs."""

        def compute() -> Tensors:
            other = self.others(shared.split)[shared.batch.sample_id]
            batch = self.context.unlabelled(shared.split).batch(other).to(self.context.device)
            drawn = Drawn(self.predictor, self.predictor.base_pass(batch), other)
            return stack([shared.outputs_with(drawn.delta(k)) for k in range(self.context.draws)])

        return shared.once((OcdPermuted, self.name), compute)


ROW = OcdPermuted
