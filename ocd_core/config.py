"""The params of one task, typed: `params/<task>.yaml`, one group a stage.

Files are complete (every key is there), because DVC tracks groups and `-S` changes existing keys only.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import Field, ValidationError, model_validator

from ocd_core.errors import UserError
from ocd_core.tasks.base import SplitName, StrictModel, Task

_Model = TypeVar("_Model", bound=StrictModel)
PositiveInt = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class ModelParams(StrictModel):
    """A base network: `name` in `ocd_core.models.MODELS` or `module:Class`, and its constructor's arguments."""

    name: str
    args: dict[str, Any]


class BaseParams(StrictModel):
    """Training of the base network by Adam with early stopping on the validation loss, or a given checkpoint."""

    model: ModelParams
    checkpoint: str | None  # a file of weights to use as they are; null: train
    epochs: PositiveInt  # at most
    patience: PositiveInt  # epochs without a better validation loss before it stops
    batch_size: PositiveInt
    lr: Positive
    weight_decay: NonNegative


class CandidateParams(StrictModel):
    """Which layers can be selected; all are scored either way."""

    names: list[str] | None  # null: every layer of `kinds`
    kinds: Annotated[list[Literal["linear", "conv"]], Field(min_length=1)]


class LayerParams(StrictModel):
    """Which layer moves. `select: auto` takes the candidates by rank; a name overrides rank 1."""

    select: str
    candidates: CandidateParams


class ScoringParams(StrictModel):
    """Layer scores (Eq. 3)."""

    samples: PositiveInt  # training samples, a seeded subset
    draws: Annotated[int, Field(ge=10)]  # perturbed weights a sample
    noise: Literal["absolute", "relative"]  # relative: times the layer's rms weight
    scale: Positive  # standard deviation of the perturbation


class OverfitParams(StrictModel):
    """Overfitting of every sample by itself (Eq. 1)."""

    optimizer: Literal["sgd", "adam"]
    lr: Positive
    steps: PositiveInt  # with until_converged: at most
    until_converged: bool  # a sample stops when a step lowers its loss by less than `tolerance` of it
    tolerance: Positive
    replicas: PositiveInt  # repetitions of each training sample, where a step draws its inputs
    precision: Literal["float32", "float64"]  # of the network from the moved layer on, while overfitting
    layout: Literal["dense", "factored"]  # what the store keeps
    memory_mb: PositiveInt  # bound on the working set of a batch
    shard_mb: PositiveInt  # uncompressed size of a shard

    def of_split(self, split: SplitName) -> "OverfitParams":
        """The same for one split: only training samples are repeated."""
        return self if split == "train" else self.model_copy(update={"replicas": 1})


class RepresentationParams(StrictModel):
    """The space in which Δ is generated."""

    name: Literal["dense", "factored", "pca"]
    components: PositiveInt  # pca only


class DenoiserParams(StrictModel):
    """The network ε_Ω: `mlp` for codes of any shape, the U-Nets for `dense` (see `ocd_core.diffusion.denoisers`)."""

    name: Literal["mlp", "unet", "unet_paper", "unet_released"]
    width: PositiveInt  # mlp: hidden units; U-Nets: channels of the first level
    depth: PositiveInt  # mlp: residual blocks; U-Nets: residual blocks of a level
    multipliers: Annotated[list[PositiveInt], Field(min_length=1)]  # U-Nets only: channels of each level / width
    dropout: Fraction


class DiffusionParams(StrictModel):
    """Training of the conditional diffusion model (Alg. 1, lines 6-11)."""

    representation: RepresentationParams
    denoiser: DenoiserParams
    embedding: PositiveInt  # dims of e = PE(t) + E_i + E_a + E_o
    schedule: Literal["paper", "released", "zero_snr"]
    timesteps: Annotated[int, Field(ge=2)]
    prediction: Literal["epsilon", "x0", "v"]
    loss: Literal["mse", "norm", "min_snr"]  # norm: ||.|| as printed in Eq. 7, not squared; min_snr: weighted mse
    unit_variance: bool  # train on sqrt(d) Δ/||Δ|| rather than Δ/||Δ|| as printed
    updates: PositiveInt
    batch_size: PositiveInt  # samples of one update
    accumulate: PositiveInt  # parts that a batch is cut into to save memory; the gradient is the same
    precision: Literal["float32", "bf16"]  # bf16: autocast, the weights stay float32
    lr: Positive
    lr_schedule: Literal["constant", "cosine"]  # cosine: down to 0 at the last update
    warmup: Annotated[int, Field(ge=0)]  # updates over which the learning rate rises from 0
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
        if self.denoiser.name != "mlp" and self.representation.name != "dense":
            raise ValueError(
                f"denoiser {self.denoiser.name} takes Δ as a matrix, representation {self.representation.name} gives a "
                "vector; use representation dense, or denoiser mlp"
            )
        if self.embedding % 2:
            raise ValueError(f"embedding must be even (sines and cosines), not {self.embedding}")
        if self.accumulate > self.batch_size:
            raise ValueError("accumulate cannot cut a batch into more parts than it has samples (batch_size)")
        return self


class WarmStartParams(StrictModel):
    """Where training on `scale.loss` starts: a network trained on the squared error of ln ρ."""

    updates: Annotated[int, Field(ge=0)]  # at most; 0: start from the geometric mean of the training ρ
    lr: Positive


class SmallNetworkParams(StrictModel):
    """A small network and its training: hidden units, and how `ocd_core.optimise` runs."""

    width: PositiveInt
    updates: PositiveInt
    batch_size: PositiveInt
    lr: Positive
    validate_every: PositiveInt
    patience: PositiveInt


class ScaleParams(SmallNetworkParams):
    """How large a drawn Δ is: training of the scale network ρ(x, I(x)) (Eq. 8), and one factor for all."""

    gain: Literal["none", "validated"]  # validated: every drawn Δ times the factor that the control ocd_gain chose
    loss: Literal["eq8", "log_mse"]
    warm_start: WarmStartParams


class SamplingParams(StrictModel):
    """Drawing Δ (Alg. 2)."""

    sampler: Literal["ancestral", "ddim", "dpm"]  # dpm: DPM-Solver++ of second order
    steps: PositiveInt  # ddim, dpm: how many of the timesteps; ancestral walks all of them
    eta: Annotated[float, Field(ge=0, le=1)]  # ddim: 0 is deterministic after the first noise
    renormalise: bool  # bring a drawn Ω_0 to unit norm before it is scaled


class FurtherParams(StrictModel):
    """`base_further`: the base trained further, all layers, from its own weights with a new Adam."""

    epochs: PositiveInt | None  # at most; null: as many as cost what OCD's training did
    patience: PositiveInt | None  # epochs without a better validation loss before it stops; null: it does not stop
    lr: Positive


class RidgeParams(StrictModel):
    """`ridge`: kernel ridge regression of Δ on I(x); width and penalty by cross-validation on training samples."""

    rows: Annotated[int, Field(ge=4)]  # rows of the training store at most, a seeded subset of its samples
    folds: Annotated[int, Field(ge=2)]  # replicas of a sample are in one fold
    widths: Annotated[list[Positive], Field(min_length=1)]  # of the RBF, times the median distance of samples
    penalties: Annotated[list[Positive], Field(min_length=1)]


class HypernetworkParams(SmallNetworkParams):
    """`hypernetwork`: a network from I(x) to Δ, trained end to end on the task's own loss."""


FittedRow = Literal["base_further", "mean_delta", "ridge", "hypernetwork", "ocd_gain"]


class ControlsParams(StrictModel):
    """What could explain a gain without diffusion, fitted on train and val only."""

    fit: list[FittedRow]  # which of them
    components: PositiveInt  # of Δ, for ridge and hypernetwork where the diffusion's representation is dense
    further: FurtherParams
    ridge: RidgeParams
    hypernetwork: HypernetworkParams
    # ocd_gain (and scale.gain): factors of a drawn Δ to choose from on val
    gains: Annotated[list[Positive], Field(min_length=1)]

    @model_validator(mode="after")
    def _each_once(self) -> "ControlsParams":
        return _no_repeats(self, "fit", self.fit)


def _no_repeats(model: _Model, key: str, names: Sequence[str]) -> _Model:
    again = [n for i, n in enumerate(names) if n in names[:i]]
    if again:
        raise ValueError(f"{key} names {again[0]!r} twice")
    return model


ResultRow = Literal[
    "base", "base_further", "mean_delta", "neighbour", "ridge", "hypernetwork", "ocd_no_scale", "ocd", "ocd_gain",
    "ocd_mean_network", "ocd_ensemble", "bound",
]  # fmt: skip


class EvaluateParams(StrictModel):
    """Evaluation on the test split."""

    rows: list[ResultRow]  # of the table, in this order; base is one of them
    draws: PositiveInt  # networks of the ensemble
    precision: Literal["float32", "float64"]  # of the network from the moved layer on
    bootstrap: Annotated[int, Field(ge=100)]

    @model_validator(mode="after")
    def _with_base(self) -> "EvaluateParams":
        if "base" not in self.rows:
            raise ValueError("rows must name 'base', which all others are compared with")
        return _no_repeats(self, "rows", self.rows)


GROUPS_UP_TO = {  # what determines each artifact, in the order of the pipeline
    "prepare": ("domain", "data"),
    "base": ("domain", "data", "base"),
    "layers": ("domain", "data", "base", "layer", "scoring"),
    "overfit": ("domain", "data", "base", "layer", "scoring", "overfit"),
    "diffusion": ("domain", "data", "base", "layer", "scoring", "overfit", "diffusion"),
    "scale": ("domain", "data", "base", "layer", "scoring", "overfit", "scale"),
    "controls": (
        "domain", "data", "base", "layer", "scoring", "overfit", "diffusion", "scale", "sampling", "controls",
    ),
    "evaluation": (
        "domain", "data", "base", "layer", "scoring", "overfit", "diffusion", "scale", "sampling", "controls",
        "evaluate",
    ),
    "pictures": (
        "domain", "data", "base", "layer", "scoring", "overfit", "diffusion", "scale", "sampling", "controls",
    ),
}  # fmt: skip


class Params(StrictModel):
    """All params of one task."""

    domain: str
    data: StrictModel
    base: BaseParams
    layer: LayerParams
    scoring: ScoringParams
    overfit: OverfitParams
    diffusion: DiffusionParams
    scale: ScaleParams
    sampling: SamplingParams
    controls: ControlsParams
    evaluate: EvaluateParams

    @model_validator(mode="after")
    def _possible(self) -> "Params":
        if self.overfit.optimizer == "adam" and self.diffusion.representation.name == "factored":
            raise ValueError(
                "overfit.optimizer adam does not leave Δ = u ⊗ i_L, which diffusion.representation.name factored "
                "needs; use sgd, or representation dense or pca"
            )
        if self.sampling.sampler != "ancestral" and self.sampling.steps > self.diffusion.timesteps:
            raise ValueError(
                f"sampling.steps is {self.sampling.steps}, but the diffusion has only {self.diffusion.timesteps} "
                "timesteps (diffusion.timesteps); lower it"
            )
        lost = [r for r in self.evaluate.rows if r in get_args(FittedRow) and r not in self.controls.fit]
        if lost:
            raise ValueError(f"evaluate.rows names {lost[0]!r}, which controls.fit does not; add it there")
        if self.scale.gain == "validated" and "ocd_gain" not in self.controls.fit:
            raise ValueError("scale.gain is validated, which the control ocd_gain does; add it to controls.fit")
        return self

    def build_task(self) -> Task:
        """The task that these params describe."""
        from ocd_core.tasks import task_class

        return task_class(self.domain)(self.data, self.base.model.name, self.base.model.args)

    def effective(self, artifact: str) -> dict[str, Any]:
        """The groups that determine an artifact (a key of `GROUPS_UP_TO`), as plain values."""
        return {
            g: v if isinstance(v := getattr(self, g), str) else v.model_dump(mode="json")
            for g in GROUPS_UP_TO[artifact]
        }


def params_path(task: str, root: Path | str = ".") -> Path:
    """Where a task's params are."""
    return Path(root) / "params" / f"{task}.yaml"


def task_names(root: Path | str = ".") -> list[str]:
    """The tasks that have a params file."""
    return sorted(p.stem for p in (Path(root) / "params").glob("*.yaml"))


def load_params(task: str, root: Path | str = ".") -> Params:
    """Read and check `params/<task>.yaml`.

    Raises:
        UserError: no such task, not YAML, or an unknown, missing, mistyped or impossible value; the message names
            the file and the key.
    """
    path = params_path(task, root)
    if not path.is_file():
        known = ", ".join(task_names(root)) or "none"
        raise UserError(f"unknown task {task!r}: there is no {path} (tasks here: {known})")
    return parse_params(read_yaml(path), str(path))


def read_yaml(path: Path) -> Any:
    """A YAML 1.2 file (so that 1e-4 is a number) as plain values."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error


def parse_params(values: Any, where: str) -> Params:
    """Check plain values, as `load_params`; `where` names their origin in errors."""
    from ocd_core.tasks import task_class

    if not isinstance(values, dict):
        raise UserError(f"{where}: expected groups of params, found {type(values).__name__}")
    values = dict(values)
    domain = values.get("domain")
    if not isinstance(domain, str):
        raise UserError(f"{where}: domain: name the task's domain, such as 'images'")
    try:
        data_model = task_class(domain).Data
    except UserError as error:
        raise UserError(f"{where}: domain: {error}") from error
    try:
        values["data"] = data_model.model_validate(values.get("data"))
    except ValidationError as error:
        raise UserError(_readable(error, where, "data", values.get("data"))) from error
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise UserError(_readable(error, where, "", values)) from error


def _readable(error: ValidationError, where: str, prefix: str, values: Any) -> str:
    """One line for the first problem, and how many more there are."""
    problems = error.errors(include_url=False)
    # a misspelt key is also a missing one: name the spelling
    first = min(problems, key=lambda problem: problem["type"] != "extra_forbidden")
    key = ".".join([p for p in [prefix] if p] + [str(part) for part in first["loc"]])
    if first["type"] == "extra_forbidden":
        text = "unknown key; remove it or correct its spelling"
    elif first["type"] == "missing":
        text = "missing; params files are complete, so add it"
    else:
        text = first["msg"].removeprefix("Value error, ")
        if not isinstance(first.get("input"), dict | StrictModel):
            text += f" (found {first.get('input')!r})"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return ": ".join([where, *([key] if key else []), f"{text}{more}"])
