"""`hypernetwork_stochastic`: the denoiser with fresh weights, trained as the tuned model is, on the task's loss alone.

At t = T it maps I(x) and noise to Δ in one step. It has never seen a Δ, so it shows what the tuned diffusion model has
from them.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field
from torch import Tensor

from ocd_core.codes.condition import ConditionEncoder
from ocd_core.diffusion.model import DiffusionModel
from ocd_core.diffusion.training import fresh_model
from ocd_core.diffusion.tuning import tune
from ocd_core.diffusion.tuning_params import TuningParams
from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.row import CombinedRow, DrawnRow, Fit, FittedRow, Saved
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.predictor import Predictor
from ocd_core.rng import derive_seed
from ocd_core.samples import Tensors
from ocd_core.strict import Fraction, Positive, PositiveInt, StrictModel, distinct


class StochasticParams(StrictModel):
    """`controls.hypernetwork_stochastic`; see `TuningParams`. The denoiser is that of the group `diffusion`.

    Batches are cut into as many parts as those of the tuning (`tuning.accumulate`).
    """

    updates: PositiveInt
    draws: PositiveInt
    lrs: Annotated[list[Positive], Field(min_length=1), AfterValidator(distinct)]
    batch_size: PositiveInt
    ema: Fraction
    clip: Positive | None
    validate_every: PositiveInt
    patience: PositiveInt

    def tuning(self, accumulate: int) -> TuningParams:
        """The same as params of a tuning through one step, with batches cut into at most `accumulate` parts."""
        return TuningParams(
            **self.model_dump(),
            through="last",
            steps=1,
            delta_weight=0.0,
            delta_timesteps="all",
            accumulate=min(accumulate, self.batch_size),
        )


class Stochastic(CombinedRow, DrawnRow, FittedRow):
    """An ensemble of its draws."""

    Params = StochasticParams
    quick: ClassVar[Mapping[str, Any]] = {
        "updates": 1,
        "draws": 2,
        "lrs": [1e-3],
        "batch_size": 4,
        "ema": 0.0,
        "clip": None,
        "validate_every": 1,
        "patience": 1,
    }
    params: StochasticParams
    model: DiffusionModel
    predictor: Predictor

    @property
    def title(self) -> str:
        """The title says how many draws there are."""
        return f"denoiser with fresh weights on the task's loss, ensemble of {self.draws}"

    def fit(self, fitting: Fitting) -> Fit:
        """Train on the run's device, in float32, with early stopping on the validation split."""
        own = fitting.predictor.diffusion
        train, val = fitting.samples("train"), fitting.samples("val")
        seed = derive_seed(fitting.seed, "stochastic hypernetwork")
        representation = deepcopy(own.representation).cpu()
        model = fresh_model(train.condition, own.params, representation, seed).to(fitting.device)
        found = tune(
            fitting.task,
            fitting.tail,
            model,
            fitting.predictor.scale,
            train,
            val,
            self.params.tuning(fitting.params.tuning.accumulate),
            fitting.params.sampling.renormalise,
            seed,
            inputs_seed=fitting.seed,
        )
        self.model = model.cpu()
        flops = int(found.metrics["flops"])
        metrics = {name: value for name, value in found.metrics.items() if name != "flops"}
        return Fit(metrics, found.curve, {"allowed": flops, "total": flops})

    def tensors(self) -> Mapping[str, Tensor]:
        """The model's tensors, with those of its representation."""
        return self.model.state_dict()

    def config(self) -> dict[str, Any]:
        """The sizes of its encoders."""
        return {"condition_sizes": list(self.model.encoder.sizes)}

    def load(self, saved: Saved) -> None:
        """Load the model; all variants of the row draw with the same predictor."""

        def predictor() -> Predictor:
            plain = self.context.predictor
            params = plain.diffusion.params
            encoder = ConditionEncoder(saved.config["condition_sizes"], params.embedding)
            model = DiffusionModel(encoder, deepcopy(plain.diffusion.representation).cpu(), params)
            saved.load_into(model)
            sampling = self.params.tuning(1).sampling(self.context.params.sampling)
            return plain.with_diffusion(model.to(self.context.device), sampling)

        self.predictor = self.context.once((Stochastic, self.family), predictor)

    def distribution(self, shared: SharedPass) -> Tensors:
        """The draws' outputs."""
        return shared.drawn(self.predictor).outputs(self.draws)


ROW = Stochastic
