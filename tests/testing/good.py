"""A task that keeps the protocol, and its parts."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ocd_core.rng import sample_normal
from ocd_core.samples import SPLITS, Batch, Split, SplitName
from ocd_core.strict import StrictModel
from ocd_core.tasks.base import Metric, Task
from ocd_core.tasks.draws_inputs import DrawsInputs
from ocd_core.weights import read_tensors, save_tensors
from tests.support.arrays import ArraySplit


class Data(StrictModel):
    rows: int


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 8)
        self.last = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))


class Good(Task):
    """Regression of two numbers."""

    Data = Data

    def __init__(self) -> None:
        super().__init__(Data(rows=6), "", {})

    def prepare(self, dest: Path) -> dict[str, Any]:
        for k, name in enumerate(SPLITS):
            x = sample_normal((3,), range(self.data.rows), k, "x")
            save_tensors({"x": x, "y": x[:, :2].sin()}, dest / f"{name}.safetensors")
        return {"rows": self.data.rows}

    def open(self, prepared: Path, split: SplitName) -> Split:
        tensors = read_tensors(prepared / f"{split}.safetensors")
        return ArraySplit(tensors["x"], tensors["y"])

    def build_model(self) -> nn.Module:
        return Net()

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().sum(1)

    @property
    def metrics(self) -> Sequence[Metric]:
        return (Metric("rmse", self.loss, higher_is_better=False, finish=np.sqrt),)

    def read_input(self, path: Path) -> tuple[Tensor, ...]:
        return (torch.tensor([json.loads(path.read_text())]),)


class Drawing(DrawsInputs, Good):
    """Overfits on inputs that it draws at each step, by sample and step."""

    def overfit_batch(self, split: Split, sample_id: Tensor, replica: Tensor, step: int, seed: int) -> Batch:
        batch = split.batch(sample_id)
        noise = torch.stack([
            sample_normal((3,), [int(s)], seed, "noise", step, int(r))[0]
            for s, r in zip(sample_id, replica, strict=True)
        ])  # fmt: skip
        return replace(batch, inputs=(batch.inputs[0] + noise,))
