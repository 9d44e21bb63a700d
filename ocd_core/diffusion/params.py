"""The params group `diffusion`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from ocd_core.codes.params import RepresentationParams
from ocd_core.diffusion.denoisers import DENOISERS
from ocd_core.strict import Count, Depth, Fraction, NonNegative, Positive, PositiveInt, Rate, StrictModel, Width

_MOST_TABLE = 2**28  # numbers, 1 GiB in float32


class DenoiserParams(StrictModel):
    """The network ε_Ω: `mlp` for codes of any shape, U-Nets for `dense` only (see `ocd_core.diffusion.denoisers`)."""

    name: Annotated[str, AfterValidator(DENOISERS.check)]
    width: Width  # mlp: hidden units; U-Nets: channels of the first level
    depth: Depth  # mlp: residual blocks; U-Nets: residual blocks per level
    multipliers: Annotated[list[Depth], Field(min_length=1, max_length=16)]  # U-Nets: channels of each level / width
    dropout: Fraction


class DiffusionParams(StrictModel):
    """Training of the conditional diffusion model (Alg. 1, lines 6-11)."""

    representation: RepresentationParams
    denoiser: DenoiserParams
    embedding: Width  # dims of e = PE(t) + E_i + E_a + E_o
    schedule: Literal["paper", "released", "zero_snr"]
    timesteps: Annotated[int, Field(ge=2, le=10**6)]
    prediction: Literal["epsilon", "x0", "v"]
    loss: Literal["mse", "norm", "min_snr"]  # norm: ||.|| as printed in Eq. 7, not squared; min_snr: weighted mse
    metric: Literal["euclidean", "gauss_newton"]  # of errors of codes; gauss_newton: JᵀHJ of each row's own loss
    task_loss: NonNegative  # weight of the task's loss under θ + Δ, beside Eq. 7; 0: none
    task_batch: PositiveInt  # its samples per update
    unit_variance: bool  # train on sqrt(d) Δ/||Δ|| rather than Δ/||Δ|| as printed
    updates: PositiveInt
    batch_size: PositiveInt  # samples per update
    accumulate: PositiveInt  # parts that a batch is cut into to save memory; the gradient is the same
    precision: Literal["float32", "bf16"]  # bf16: autocast, the weights stay float32
    lr: Rate
    lr_schedule: Literal["constant", "cosine"]  # cosine: down to 0 at the last update
    warmup: Count  # updates over which the learning rate rises from 0
    ema: Fraction
    clip: Positive | None  # of the gradient's norm; null: none
    validate_every: PositiveInt
    patience: PositiveInt  # validations without a better loss before it stops

    @model_validator(mode="after")
    def _possible(self) -> "DiffusionParams":
        if self.schedule == "zero_snr" and self.prediction == "epsilon":
            raise ValueError(
                "schedule zero_snr leaves no signal at t = T, where prediction epsilon divides by zero; "
                "use prediction x0 or v, or another schedule"
            )
        if self.schedule == "zero_snr" and self.loss == "min_snr":
            raise ValueError(
                "loss min_snr gives weight 0 to t = T under schedule zero_snr, so the first step of every draw would "
                "be untrained; use loss mse, or another schedule"
            )
        if self.denoiser.name.startswith("unet") and self.representation.name != "dense":
            raise ValueError(
                f"denoiser {self.denoiser.name} takes Δ as a matrix, but representation {self.representation.name} "
                "gives a vector; use representation dense, or denoiser mlp"
            )
        if self.metric == "gauss_newton" and self.denoiser.name.startswith("unet"):
            raise ValueError(
                f"metric gauss_newton is for the coordinates of representation pca, but denoiser {self.denoiser.name} "
                "takes Δ as a matrix; use metric euclidean"
            )
        if self.embedding % 2:
            raise ValueError(f"embedding must be even (sines and cosines), not {self.embedding}")
        if self.timesteps * self.embedding > _MOST_TABLE:
            raise ValueError(
                f"timesteps × embedding is {self.timesteps * self.embedding:,}, above {_MOST_TABLE:,}, the largest "
                "table of PE(t); lower one of them"
            )
        if self.accumulate > self.batch_size:
            raise ValueError("accumulate cannot cut a batch into more parts than it has samples (batch_size)")
        if self.task_loss and self.accumulate > self.task_batch:
            raise ValueError("accumulate cannot cut a batch into more parts than it has samples (task_batch)")
        return self
