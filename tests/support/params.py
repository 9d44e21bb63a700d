"""Params of the base network's training."""

from typing import Any

from ocd_core.codes.params import RepresentationParams
from ocd_core.config import Params
from ocd_core.diffusion.params import DenoiserParams, DiffusionParams
from ocd_core.diffusion.tuning_params import TuningParams
from ocd_core.network.params import BaseParams
from ocd_core.overfit.params import NOT_REFINED, OverfitParams, RefineParams
from ocd_core.presets import apply_preset
from ocd_core.scale.params import ScaleParams
from tests.support.repository import REPO

# what the reference tasks have; the rest is each test's own
USUAL: dict[str, Any] = {
    "checkpoint": None, "optimizer": "adam", "weight_decay": 0.0, "momentum": 0.0, "nesterov": False,
    "lr_schedule": "constant", "lr_steps": [], "lr_factor": 0.1, "warmup": 0, "label_smoothing": 0.0,
}  # fmt: skip

# `layer.probe` where only that layers are probed counts
QUICK_PROBE = {"samples": 20, "components": 5, "updates": 2}


def base_params(name: str, args: dict[str, Any], **values: Any) -> BaseParams:
    """epochs, patience, batch_size and lr must be given."""
    return BaseParams.model_validate({"model": {"name": name, "args": args}, **USUAL, **values})


def overfit_params(**changes) -> OverfitParams:
    values = {
        "optimizer": "sgd",
        "lr": 0.05,
        "steps": 2,
        "until_converged": False,
        "tolerance": 0.01,
        "replicas": 1,
        "precision": "float64",
        "layout": "dense",
        "refine": NOT_REFINED,
        "memory_mb": 8,
        "shard_mb": 1,
    }
    return OverfitParams.model_validate({**values, **changes})


def refine_params(**changes) -> RefineParams:
    return RefineParams.model_validate(
        {"steps": 1, "components": 3, "damping": 0.01, "samples": 40, "inputs": 1, **changes}
    )


def denoiser_params(**changes: Any) -> DenoiserParams:
    return DenoiserParams(**{"name": "mlp", "width": 64, "depth": 2, "multipliers": [1], "dropout": 0.0, **changes})


def diffusion_params(**changes: Any) -> DiffusionParams:
    denoiser = changes.get("denoiser", denoiser_params())
    values: dict[str, Any] = {
        "representation": RepresentationParams(
            name="factored" if denoiser.name == "mlp" else "dense", components=4, metric="euclidean"
        ),
        "denoiser": denoiser,
        "embedding": 32,
        "schedule": "zero_snr",
        "timesteps": 20,
        "prediction": "x0",
        "loss": "mse",
        "metric": "euclidean",
        "task_loss": 0.0,
        "task_batch": 8,
        "unit_variance": True,
        "updates": 20,
        "batch_size": 16,
        "accumulate": 1,
        "precision": "float32",
        "lr": 1e-3,
        "lr_schedule": "constant",
        "warmup": 0,
        "ema": 0.9,
        "clip": 1.0,
        "validate_every": 10,
        "patience": 100,
    }
    return DiffusionParams(**{**values, **changes})


def preset_params(preset: str, task: str = "mnist") -> Params:
    return apply_preset(preset, task, REPO)[0]


def scale_params(warm=0, **changes):
    values = {
        "gain": "none",
        "loss": "eq8",
        "warm_start": {"updates": warm, "lr": 3e-3},
        "width": 32,
        "updates": 300,
        "batch_size": 64,
        "lr": 3e-3,
        "validate_every": 50,
        "patience": 20,
    }
    return ScaleParams.model_validate({**values, **changes})


def representation_params(name: str, components: int = 2, metric: str = "euclidean") -> RepresentationParams:
    return RepresentationParams(name=name, components=components, metric=metric)


def tuning_params(**changes: Any) -> TuningParams:
    values = {
        "updates": 20,
        "through": "last",
        "steps": 3,
        "draws": 2,
        "delta_weight": 0.0,
        "delta_timesteps": "all",
        "lrs": [1e-3],
        "batch_size": 8,
        "accumulate": 1,
        "ema": 0.5,
        "clip": 1.0,
        "validate_every": 5,
        "patience": 100,
    }
    return TuningParams.model_validate({**values, **changes})
