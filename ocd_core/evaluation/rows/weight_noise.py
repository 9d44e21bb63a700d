"""`weight_noise`: Gaussian moves of the norm of OCD's, as an ensemble."""

from torch import Tensor

from ocd_core.evaluation.same_norm import SameNormRow
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.rng import sample_normal


class WeightNoise(SameNormRow):
    """Every direction is equally likely; it depends only on the seed, the sample and the draw."""

    @property
    def title(self) -> str:
        """The title says how many networks there are."""
        return f"Gaussian moves of equal norm, ensemble of {self.draws}"

    def directions(self, shared: SharedPass, k: int) -> Tensor:
        """Standard normal, (N, O, I)."""
        shape = tuple(self.context.predictor.model.weight_OI.shape)
        noise = sample_normal(shape, shared.batch.sample_id.tolist(), self.context.seed, "weight noise", k)
        return noise.to(self.context.device)


ROW = WeightNoise
