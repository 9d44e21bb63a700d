"""A domain that is no classification, small enough to run every stage within a test: a set of points -> two numbers.

Layer `embed` sees three positions a sample, layer `head` one.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ocd_core import pipeline
from ocd_core.errors import UserError
from ocd_core.params_files import read_yaml
from ocd_core.rng import torch_generator
from ocd_core.tasks import Batch, Metric, Split, SplitName, StrictModel, Task
from tests.workspace import REPO

SIZES = {"train": 48, "val": 16, "test": 20}
STAGES = ("code", *pipeline.STAGES)


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
        self.tensors = load_file(path)

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
            save_file({"x": x, "y": y}, dest / f"{split}.safetensors")
        return dict(SIZES)

    def open(self, prepared: Path, split: SplitName) -> Split:
        return ToySplit(prepared / f"{split}.safetensors")

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().mean(1)

    @property
    def metrics(self) -> Sequence[Metric]:
        return [Metric("rmse", self.loss, higher_is_better=False, finish=lambda v: v**0.5)]

    def read_input(self, path: Path) -> tuple[Tensor, ...]:
        x = load_file(path)["x"]
        if x.shape != (3, 4):
            raise UserError(f"{path}: expected points of shape (3, 4), found {tuple(x.shape)}")
        return (x[None],)


def toy_params(**groups: dict[str, Any]) -> dict[str, Any]:
    """mnist5k's params with this domain and small numbers; keyword arguments update a group."""
    values = read_yaml(REPO / "params" / "mnist5k.yaml")
    values["domain"] = "tests.toy:ToyTask"
    values["data"] = {"noise": 0.1}
    changes: dict[str, dict[str, Any]] = {
        "base": {"model": {"name": "tests.toy:PointSet", "args": {"width": 6}}, "epochs": 15, "batch_size": 16,
                 "lr": 0.02},
        "layer": {"select": "head"},
        "scoring": {"samples": 6, "draws": 30},
        "overfit": {"memory_mb": 8, "shard_mb": 1},
        "diffusion": {"updates": 60, "batch_size": 16, "validate_every": 20, "embedding": 16,
                      "denoiser": {**values["diffusion"]["denoiser"], "width": 16, "depth": 1}},
        "scale": {"updates": 60, "batch_size": 16, "validate_every": 20, "width": 16},
        "sampling": {"steps": 3},
        "controls": {
            "components": 2, "ocd_gain": {"gains": [0.5, 1.0]},
            "base_further": {"epochs": 3, "patience": 3, "lr": 1e-3},
            "ridge": {"rows": 40, "folds": 3, "widths": [1.0, 3.0], "penalties": [0.1, 1.0]},
            "hypernetwork": {"width": 8, "updates": 20, "batch_size": 8, "lr": 1e-3, "validate_every": 10,
                             "patience": 5},
        },
        "evaluate": {"draws": 3, "bootstrap": 100},
    }  # fmt: skip
    for group, keys in [*changes.items(), *groups.items()]:
        values[group] = {**values[group], **keys}
    return values


def write_toy_params(root: Path, **groups: dict[str, Any]) -> None:
    """params/toy.yaml in `root`."""
    from ruamel.yaml import YAML

    (root / "params").mkdir(parents=True, exist_ok=True)
    with (root / "params" / "toy.yaml").open("w") as file:
        YAML().dump(toy_params(**groups), file)


def run_stages(upto: str = "report") -> None:
    """Run the toy's stages in this process, in the current folder."""
    assert upto in STAGES
    for stage in STAGES[: STAGES.index(upto) + 1]:
        import_module(f"stages.{stage}").main("toy")
