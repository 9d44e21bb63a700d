"""A domain that is quick to run: is a point of the plane above the diagonal?"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.rng import torch_generator
from ocd_core.samples import SPLITS, Batch, Split, SplitName
from ocd_core.strict import StrictModel
from ocd_core.tasks.base import Metric, Task
from ocd_core.weights import read_tensors, save_tensors
from tests.support.base import USUAL


class ToyData(StrictModel):
    samples: int


class ToySplit:
    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.x, self.y = tensors["x"], tensors["y"]

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, sample_id: Tensor) -> Batch:
        return Batch((self.x[sample_id],), self.y[sample_id], sample_id)


class ToyTask(Task):
    Data: ClassVar[type[StrictModel]] = ToyData
    data: ToyData

    def prepare(self, dest: Path) -> dict[str, Any]:
        for split in SPLITS:
            x = torch.randn(self.data.samples, 2, generator=torch_generator(0, "toy", split))
            save_tensors({"x": x, "y": (x[:, 0] + 0.3 * x[:, 1] ** 2 > 0).long()}, dest / f"{split}.safetensors")
        return {"source": "random points", "licence": "CC0-1.0"}

    def open(self, prepared: Path, split: SplitName) -> Split:
        return ToySplit(read_tensors(prepared / f"{split}.safetensors"))

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target, reduction="none")

    @property
    def metrics(self) -> Sequence[Metric]:
        return (Metric("cross_entropy", self.loss, higher_is_better=False),)

    def read_input(self, path: Path) -> tuple[Tensor, ...]:
        try:
            return (torch.tensor([json.loads(path.read_text())], dtype=torch.float32),)
        except ValueError as error:
            raise UserError(f"{path} is not a JSON list of two numbers") from error


PARAMS: dict[str, Any] = {
    "domain": "tests.toy_task:ToyTask",
    "data": {"samples": 40},
    "base": {
        "model": {"name": "mlp", "args": {"in_features": 2, "out_features": 2, "hidden": [6]}}, **USUAL,
        "epochs": 2, "patience": 2, "batch_size": 20, "lr": 0.01,
    },
    "layer": {"select": "layers.0", "candidates": {"names": None, "kinds": ["linear"]}},
    "scoring": {"samples": 4, "draws": 20, "noise": "absolute", "scale": 0.1},
    "overfit": {
        "optimizer": "sgd", "lr": 0.1, "steps": 2, "until_converged": False, "tolerance": 1e-3, "replicas": 1,
        "precision": "float64",
        "layout": "dense", "memory_mb": 64, "shard_mb": 1,
    },
    "diffusion": {
        "representation": {"name": "dense", "components": 4},
        "denoiser": {"name": "mlp", "width": 8, "depth": 1, "multipliers": [1], "dropout": 0.0},
        "embedding": 8, "schedule": "zero_snr", "timesteps": 10, "prediction": "x0", "loss": "mse",
        "unit_variance": True, "updates": 4, "batch_size": 16, "accumulate": 1, "precision": "float32", "lr": 1e-3,
        "lr_schedule": "constant", "warmup": 0, "ema": 0.5, "clip": 1.0, "validate_every": 2, "patience": 2,
    },
    "scale": {
        "gain": "none", "loss": "eq8", "warm_start": {"updates": 0, "lr": 1e-3}, "width": 8, "updates": 4,
        "batch_size": 16, "lr": 1e-3, "validate_every": 2, "patience": 2,
    },
    "sampling": {"sampler": "ddim", "steps": 2, "eta": 0.0, "renormalise": True},
    "controls": {
        "fit": ["mean_delta", "ridge", "ocd_gain"], "components": 2, "ocd_gain": {"gains": [0.5, 1.0]},
        "ridge": {"rows": 20, "folds": 2, "widths": [1.0], "penalties": [0.1]},
    },
    "evaluate": {
        "rows": ["base", "mean_delta", "ridge", "ocd", "ocd_gain", "ocd_ensemble", "bound"], "draws": 2,
        "precision": "float64", "bootstrap": 100,
    },
}  # fmt: skip
