"""Two small domains that run every stage within a test.

- `ToyTask`, no classification: a set of points -> two numbers. Layer `embed` sees three positions a sample, layer
  `head` one.
- `PlaneTask`, of two classes: is a point of the plane above the curve?
"""

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from ruamel.yaml import YAML
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.params_files import read_yaml
from ocd_core.pipeline import STAGES as PIPELINE
from ocd_core.rng import torch_generator
from ocd_core.samples import SPLITS, Batch, Split, SplitName
from ocd_core.strict import StrictModel
from ocd_core.tasks.base import Metric, Task
from ocd_core.tasks.classification import classification_metrics
from ocd_core.weights import read_tensors, save_tensors
from tests.support.repository import REPO

SIZES = {"train": 48, "val": 16, "test": 20}
STAGES = ("code", *PIPELINE)
# of mnist5k's file, with many updates
SLOW_ROWS = ("layer_further", "base_further_augmented", "regression", "hypernetwork_pretrained",
             "hypernetwork_stochastic", "deep_ensemble")  # fmt: skip


class PointSet(nn.Module):
    """(N, 3, 4) -> (N, 2)."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.embed = nn.Linear(4, width)
        self.head = nn.Linear(width, 2)

    def forward(self, points: Tensor) -> Tensor:
        return self.head(torch.relu(self.embed(points)).mean(1))


class ToyData(StrictModel):
    noise: float


class ToySplit:
    def __init__(self, path: Path) -> None:
        self.tensors = read_tensors(path)

    def __len__(self) -> int:
        return len(self.tensors["y"])

    def batch(self, sample_id: Tensor) -> Batch:
        return Batch((self.tensors["x"][sample_id],), self.tensors["y"][sample_id], sample_id)


class ToyTask(Task):
    Data = ToyData

    def prepare(self, dest: Path) -> dict[str, Any]:
        assert isinstance(self.data, ToyData)
        g = torch_generator(0, "toy")
        for split, size in SIZES.items():
            x = torch.randn(size, 3, 4, generator=g)
            clean = torch.stack([x.square().sum((1, 2)) / 12, x[:, :, 0].sum(1)], 1)
            y = clean + self.data.noise * torch.randn(size, 2, generator=g)
            save_tensors({"x": x, "y": y}, dest / f"{split}.safetensors")
        return dict(SIZES)

    def open(self, prepared: Path, split: SplitName) -> Split:
        return ToySplit(prepared / f"{split}.safetensors")

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().mean(1)

    @property
    def metrics(self) -> Sequence[Metric]:
        return [Metric("rmse", self.loss, higher_is_better=False, finish=lambda v: v**0.5)]

    def read_input(self, path: Path) -> tuple[Tensor, ...]:
        x = read_tensors(path)["x"]
        if x.shape != (3, 4):
            raise UserError(f"{path}: expected points of shape (3, 4), found {tuple(x.shape)}")
        return (x[None],)


def toy_params(**groups: dict[str, Any]) -> dict[str, Any]:
    """mnist5k's params with this domain and small numbers; keyword arguments update a group."""
    values = read_yaml(REPO / "params" / "mnist5k.yaml")
    values["domain"] = "tests.support.toy:ToyTask"
    values["data"] = {"noise": 0.1}
    # not imported: rows would belong to the code of this module's domain, and thus of every stage
    row_class = import_module("ocd_core.evaluation.rows").row_class
    changes: dict[str, dict[str, Any]] = {
        "base": {"model": {"name": "tests.support.toy:PointSet", "args": {"width": 6}}, "epochs": 15, "batch_size": 16,
                 "lr": 0.02},
        "layer": {"select": "head", "probe": {**values["layer"]["probe"], "updates": 50}},
        "scoring": {"samples": 6, "draws": 30},
        "overfit": {"memory_mb": 8, "shard_mb": 1},
        "diffusion": {"updates": 60, "batch_size": 16, "validate_every": 20, "embedding": 16,
                      "denoiser": {**values["diffusion"]["denoiser"], "width": 16, "depth": 1}},
        "scale": {"updates": 60, "batch_size": 16, "validate_every": 20, "width": 16},
        "sampling": {"steps": 3},
        "tuning": {"updates": 6, "draws": 2, "lrs": [1e-2], "batch_size": 8, "validate_every": 3},
        "controls": {
            **{name: dict(row_class(name).quick) for name in SLOW_ROWS},
            "components": 2, "ocd_gain": {"gains": [0.5, 1.0]},
            "base_further": {"epochs": 3, "patience": 3, "lrs": [1e-3]},
            "ridge": {"rows": 40, "folds": 3, "widths": [1.0, 3.0], "penalties": [0.1, 1.0], "metric": "euclidean"},
            "hypernetwork": {"widths": [8], "updates": 20, "batch_size": 8, "lrs": [1e-3], "ema": 0.0,
                             "validate_every": 10, "patience": 5},
        },
        "evaluate": {"draws": [3], "bootstrap": 100},
    }  # fmt: skip
    for group, keys in [*changes.items(), *groups.items()]:
        values[group] = {**values[group], **keys}
    return values


def write_toy_params(root: Path, **groups: dict[str, Any]) -> None:
    """params/toy.yaml in `root`."""
    (root / "params").mkdir(parents=True, exist_ok=True)
    with (root / "params" / "toy.yaml").open("w") as file:
        YAML().dump(toy_params(**groups), file)


def run_stages(upto: str = "report", task: str = "toy") -> None:
    """Run a task's stages in this process, in the current folder."""
    assert upto in STAGES
    for stage in STAGES[: STAGES.index(upto) + 1]:
        import_module(f"stages.{stage}").main(task)


class PlaneData(StrictModel):
    samples: int


class PlaneTask(Task):
    Data = PlaneData
    data: PlaneData

    def prepare(self, dest: Path) -> dict[str, Any]:
        for split in SPLITS:
            x = torch.randn(self.data.samples, 2, generator=torch_generator(0, "toy", split))
            save_tensors({"x": x, "y": (x[:, 0] + 0.3 * x[:, 1] ** 2 > 0).long()}, dest / f"{split}.safetensors")
        return {"source": "random points", "licence": "CC0-1.0"}

    def open(self, prepared: Path, split: SplitName) -> Split:
        return ToySplit(prepared / f"{split}.safetensors")

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target, reduction="none")

    @property
    def metrics(self) -> Sequence[Metric]:
        return classification_metrics(self.loss)

    def log_probabilities(self, output: Tensor) -> Tensor:
        return F.log_softmax(output, -1)

    def read_input(self, path: Path) -> tuple[Tensor, ...]:
        try:
            return (torch.tensor([json.loads(path.read_text())], dtype=torch.float32),)
        except ValueError as error:
            raise UserError(f"{path} is not a JSON list of two numbers") from error


def plane_params() -> dict[str, Any]:
    """The toy's params with this domain and as few updates as there can be."""
    values = toy_params(
        base={
            "model": {"name": "mlp", "args": {"in_features": 2, "out_features": 2, "hidden": [6]}},
            "epochs": 2,
            "patience": 2,
            "batch_size": 20,
            "lr": 0.01,
        },
        layer={"select": "layers.0"},
        scoring={"samples": 4, "draws": 20},
        overfit={"lr": 0.1, "steps": 2, "memory_mb": 64},
        diffusion={
            "representation": {"name": "dense", "components": 4, "metric": "euclidean"},
            "denoiser": {"name": "mlp", "width": 8, "depth": 1, "multipliers": [1], "dropout": 0.0},
            "embedding": 8,
            "timesteps": 10,
            "updates": 4,
            "lr_schedule": "constant",
            "warmup": 0,
            "validate_every": 2,
        },
        scale={"width": 8, "updates": 4, "validate_every": 2},
        sampling={"steps": 2},
        controls={
            "fit": ["mean_delta", "ridge", "ocd_gain"],
            "ridge": {"rows": 20, "folds": 2, "widths": [1.0], "penalties": [0.1], "metric": "euclidean"},
        },
        evaluate={"rows": ["base", "mean_delta", "ridge", "ocd", "ocd_gain", "ocd_ensemble", "bound"], "draws": [2]},
        tuning={"updates": 0},  # no row shows it, and it would take longer than everything else
    )
    for row in ("base_further", "hypernetwork"):
        values["controls"].pop(row)
    return {**values, "domain": "tests.support.toy:PlaneTask", "data": {"samples": 40}}


PLANE = plane_params()
