"""Overfitting a mixture in the last projection of a Gated-LSTM: one torch thread, a store written as by the stage.

References, measured in turns with it: the *loop* (a batch of one, a deep copy of the base, torch.optim, full forward
and backward passes, as in the released procedure), and the *lean loop*, in which only the layer's weight needs a
gradient. The recordings and weights are random: they do not change the work. `OCD_BENCH_SPEECH=libri5mix` takes the
network and the 4 seconds of params/libri5mix.yaml. The last column is the peak memory of a process that only overfits.
"""

import copy
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

from benchmarks import bench_overfit
from benchmarks.machine import in_subprocess, peak_rss_mib, timed
from ocd_core.config import Params, load_params
from ocd_core.network.cut import CutModel
from ocd_core.overfit.params import OverfitParams
from ocd_core.overfit.rows import RowBuilder
from ocd_core.report.markdown import markdown_table
from ocd_core.samples import Batch, only
from ocd_core.tasks.base import Task

TASK = os.environ.get("OCD_BENCH_SPEECH", "speech_small")
TURNS = int(os.environ.get("OCD_BENCH_TURNS", "5"))
SECONDS = {"speech_small": 2.0, "libri5mix": 4.0}
ROWS, LOOP_ROWS = {"speech_small": (8, 3), "libri5mix": (2, 1)}[TASK]
TARGET = 3.0  # times the loop


class Mixtures:
    """Random recordings of one length."""

    def __init__(self, rows: int, params: Params) -> None:
        length = round(SECONDS[TASK] * params.data.sample_rate)
        generator = torch.Generator().manual_seed(0)
        self.target = 0.1 * torch.randn(rows, params.data.sources, length, generator=generator)

    def __len__(self) -> int:
        return len(self.target)

    def batch(self, sample_id: torch.Tensor) -> Batch:
        target = self.target[sample_id]
        return Batch((target.sum(1),), target, sample_id)


def overfit_params(params: Params, precision: str) -> OverfitParams:
    return params.overfit.model_copy(update={"precision": precision})


def network(task: Task) -> nn.Module:
    torch.manual_seed(0)
    return task.build_model().eval()


def lean_loop(task: Task, net: nn.Module, layer: str, split: Mixtures, p: OverfitParams) -> list[torch.Tensor]:
    """Δ of the first recordings, with gradients of the layer's weight alone."""
    deltas = []
    for row in range(LOOP_ROWS):
        batch = split.batch(torch.tensor([row]))
        own = copy.deepcopy(net).requires_grad_(False)
        weight = own.get_submodule(layer).weight.requires_grad_()
        update = torch.optim.SGD([weight], lr=p.lr)
        for _ in range(p.steps):
            update.zero_grad()
            task.loss(own(*batch.inputs), only(batch.target)).sum().backward()
            update.step()
        deltas.append((weight - net.get_submodule(layer).weight).detach())
    return deltas


def loop(task: Task, net: nn.Module, layer: str, split: Mixtures, p: OverfitParams) -> None:
    """The same with the gradients of all weights, as the released procedure computes them."""
    for row in range(LOOP_ROWS):
        batch = split.batch(torch.tensor([row]))
        own = copy.deepcopy(net).requires_grad_(True)
        update = torch.optim.SGD([own.get_submodule(layer).weight], lr=p.lr)
        for _ in range(p.steps):
            own.zero_grad()
            task.loss(own(*batch.inputs), only(batch.target)).sum().backward()
            update.step()


def peak(precision: str) -> float:
    """MiB of a process that overfits one mixture."""
    params = load_params(TASK)
    task, split = params.build_task(), Mixtures(1, params)
    model = CutModel(network(task), params.layer.select, precision)
    builder = RowBuilder(task, model, split, overfit_params(params, precision), 0)
    builder.fill(slice(0, 1), builder.buffers(builder.schema()))
    return peak_rss_mib()


def main() -> int:
    torch.set_num_threads(1)
    params = load_params(TASK)
    task, layer = params.build_task(), params.layer.select
    net, split = network(task), Mixtures(ROWS, params)
    models = {precision: CutModel(net, layer, precision) for precision in ("float32", "float64")}
    plain = lean_loop(task, copy.deepcopy(net).double(), layer, _double(split), params.overfit)
    seconds: dict[str, list[float]] = {"loop": [], "lean loop": [], **{name: [] for name in models}}
    with tempfile.TemporaryDirectory(prefix="ocd-bench-", dir=os.environ.get("OCD_BENCH_DIR")) as name:
        for turn in range(-1, TURNS):
            measured = {
                "loop": timed(lambda: loop(task, net, layer, split, params.overfit))[1] / LOOP_ROWS,
                "lean loop": timed(lambda: lean_loop(task, net, layer, split, params.overfit))[1] / LOOP_ROWS,
            }
            for precision, model in models.items():
                own = overfit_params(params, precision)
                measured[precision] = bench_overfit.store(Path(name), task, model, split, own)["cpu"] / ROWS
            for key, value in measured.items():
                if turn >= 0:
                    seconds[key].append(value)
    rows = []
    ratios = {}
    for key, values in seconds.items():
        ratios[key] = statistics.median(one / own for one, own in zip(seconds["loop"], values, strict=True))
        extra = ["", ""]
        if key in models:
            builder = RowBuilder(task, models[key], split, overfit_params(params, key), 0)
            arrays = builder.fill(slice(0, LOOP_ROWS), builder.buffers(builder.schema()))
            found = torch.from_numpy(arrays["delta"]).flatten(1).double()
            cosine = torch.cosine_similarity(found, torch.stack(plain).flatten(1).double()).min()
            extra = [f"{float(cosine):.6f}", f"{in_subprocess('benchmarks.bench_speech', precision=key):.0f}"]
        rows.append([key, f"{statistics.median(values) * 1e3:.0f}", f"{ratios[key]:.2f}", *extra])
    print(f"{TASK}: {SECONDS[TASK]:g} s, {params.overfit.steps} SGD steps, median of {TURNS} turns\n")
    head = ["", "CPU ms per mixture", "speed relative to the loop", "least cosine with Δ in float64", "peak MiB"]
    print(markdown_table(head, rows), flush=True)
    return int(ratios[params.overfit.precision] < TARGET)


def _double(split: Mixtures) -> Mixtures:
    other = copy.copy(split)
    other.target = split.target.double()
    return other


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(peak(**json.loads(sys.argv[1]))))
