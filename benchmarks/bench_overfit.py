"""Overfitting each of 60,000 digits into a store: LeNet5, fc1, one torch thread.

There are two references, measured in the same process and in turns with what they are compared with: the *loop* (the
procedure of the released code: a batch of one, a deep copy of the base, torch.optim, three full forward and backward
passes), and the *ceiling* P (samples per second of the batched forward pass of the frozen prefix alone, as the network
defines it, in the batches that the stage uses). `own prefix` is the same prefix as `CutModel` runs it, with the
channels innermost.
"""

import copy
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import mnist
from benchmarks.machine import in_subprocess, peak_rss_mib, timed
from ocd_core.network.cut import CutModel
from ocd_core.network.moves import row_chunks, rows_within
from ocd_core.overfit.build import build_store
from ocd_core.overfit.params import NOT_REFINED, OverfitParams
from ocd_core.overfit.rows import RowBuilder
from ocd_core.progress import no_progress
from ocd_core.report.markdown import markdown_table
from ocd_core.tasks.images.splits import ImageSplit
from ocd_core.tasks.images.task import ImageClassification

TURNS = int(os.environ.get("OCD_BENCH_TURNS", "5"))
LOOP_ROWS = 300
MEMORY_MB, SHARD_MB = 512, 32  # as in params/mnist.yaml
CASES = {  # optimiser, layout, target: the smallest acceptable share of P
    "sgd factored": ("sgd", "factored", 0.8),
    "sgd dense": ("sgd", "dense", 0.5),
    "adam factored": ("adam", "factored", None),
    "adam dense": ("adam", "dense", 0.25),
}


def params(optimizer: str, layout: str, memory_mb: int = MEMORY_MB) -> OverfitParams:
    return OverfitParams.model_validate(
        {
            "optimizer": optimizer,
            "lr": 0.01 if optimizer == "sgd" else 5e-4,
            "steps": 3,
            "until_converged": False,
            "tolerance": 1e-3,
            "replicas": 1,
            "precision": "float64",
            "layout": layout,
            "refine": NOT_REFINED,
            "memory_mb": memory_mb,
            "shard_mb": SHARD_MB,
        }
    )


def store(
    folder: Path, task: ImageClassification, model: CutModel, split: ImageSplit, p: OverfitParams
) -> dict[str, Any]:
    """Build one store, as the stage does, and remove it."""
    dest = folder / "bench.zarr"
    attributes = {"config": {"overfit": p.model_dump()}}
    builder = RowBuilder(task, model, split, p, 0)
    wall, cpu = timed(lambda: build_store(dest, builder, attributes, "bench", folder / "work", no_progress))
    size = sum(path.stat().st_size for path in dest.rglob("*") if path.is_file())
    shutil.rmtree(dest)
    return {"wall": wall, "cpu": cpu, "bytes": size}


def _batches(split: ImageSplit, batch: int) -> list[Tensor]:
    return [split.batch(torch.arange(c.start, c.stop)).inputs[0] for c in row_chunks(len(split), batch)]


def ceiling(folder: Path, split: ImageSplit, batch: int) -> tuple[float, float]:
    """Seconds (clock, processor) of LeNet5's layers before fc1 on all samples, in plain torch without this project."""
    net, inputs = mnist.network(folder), _batches(split, batch)

    @torch.inference_mode()
    def run() -> None:
        for x in inputs:
            h = F.max_pool2d(F.relu(net.conv1(x)), 2)
            h = F.max_pool2d(F.relu(net.conv2(h)), 2)
            F.relu(net.conv3(h)).flatten(1)

    return timed(run)


def own_prefix(model: CutModel, split: ImageSplit, batch: int) -> tuple[float, float]:
    """Seconds (clock, processor) of the same layers as the stage runs them."""
    inputs = _batches(split, batch)

    def run() -> None:
        for x in inputs:
            model.prefix((x,))

    return timed(run)


def loop(
    task: ImageClassification, net: nn.Module, layer: str, split: ImageSplit, optimizer: str, rows: int
) -> tuple[float, float]:
    """Seconds (clock, processor) of the released procedure on the first `rows` samples."""
    base = copy.deepcopy(net).eval().requires_grad_(True)
    make = torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam
    p = params(optimizer, "dense")
    batches = [split.batch(torch.tensor([row])) for row in range(rows)]

    def run() -> None:
        for batch in batches:
            own = copy.deepcopy(base)
            weight = own.get_parameter(f"{layer}.weight")
            update = make([weight], lr=p.lr)
            for _ in range(p.steps):
                own.zero_grad()
                task.loss(own(*batch.inputs), batch.target).mean().backward()
                update.step()
            (weight - base.get_parameter(f"{layer}.weight")).detach()

    return timed(run)


def turns(folder: Path, rows: int, cores: int) -> dict[str, Any]:
    """Measure all cases and references TURNS times, after a short warm-up; every result is a list over turns."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    torch.set_num_threads(1)
    task, model, split = mnist.load(folder, rows)
    _, _, few = mnist.load(folder, 2000)
    net = mnist.network(folder)
    batch = rows_within(model, split.batch(torch.zeros(1, dtype=torch.int64)), MEMORY_MB, 0)
    found: dict[str, list[Any]] = {name: [] for name in ("P", "own prefix", "loop sgd", "loop adam", *CASES)}
    for turn in range(-1, TURNS):
        data = few if turn < 0 else split
        measured: dict[str, Any] = {
            "P": ceiling(folder, data, batch),
            "own prefix": own_prefix(model, data, batch),
            "loop sgd": loop(task, net, model.layer_name, split, "sgd", LOOP_ROWS),
            "loop adam": loop(task, net, model.layer_name, split, "adam", LOOP_ROWS),
        }
        for name, (optimizer, layout, _) in CASES.items():
            measured[name] = store(folder, task, model, data, params(optimizer, layout))
        for name, value in measured.items():
            if turn >= 0:
                found[name].append(value)
    return {"batch": batch, **found}


def memory(folder: Path, rows: int, optimizer: str, layout: str) -> dict[str, float]:
    """Peak memory of this process before and after one store, MiB."""
    torch.set_num_threads(1)
    task, model, split = mnist.load(folder, rows)
    before = peak_rss_mib()
    done = store(folder, task, model, split, params(optimizer, layout))
    return {"before": before, "peak": peak_rss_mib(), **done}


def _ratio_table(found: dict[str, Any], rows: int) -> str:
    """Samples per second and ratios to both references; ratios are medians of the ratios within a turn."""
    ceilings = [rows / wall for wall, _ in found["P"]]
    lines = []
    for name in ("loop sgd", "loop adam", "P", "own prefix", *CASES):
        count = LOOP_ROWS if name.startswith("loop") else rows
        optimizer = "adam" if "adam" in name else "sgd"
        loops = [LOOP_ROWS / wall for wall, _ in found[f"loop {optimizer}"]]
        walls = [v["wall"] if isinstance(v, dict) else v[0] for v in found[name]]
        cpus = [v["cpu"] if isinstance(v, dict) else v[1] for v in found[name]]
        share = statistics.median(count / w / p for w, p in zip(walls, ceilings, strict=True))
        cpu_share = statistics.median(
            p_cpu / rows / (c / count) for c, (_, p_cpu) in zip(cpus, found["P"], strict=True)
        )
        times = statistics.median(count / w / one for w, one in zip(walls, loops, strict=True))
        target = CASES[name][2] if name in CASES else None
        lines.append(
            [
                name,
                f"{count / statistics.median(walls):,.0f}",
                f"{statistics.median(cpus) / count * 1e6:.1f}",
                f"{share:.3f}" if name.startswith("loop") else f"{share:.2f}",
                f"{cpu_share:.3f}" if name.startswith("loop") else f"{cpu_share:.2f}",
                f"{target:.2f}" if target else "",
                f"{times:.0f}",
                f"{statistics.median(walls):.1f}" if not name.startswith("loop") else "",
                f"{found[name][0]['bytes'] / 2**20:,.0f}" if name in CASES else "",
            ]
        )
    return markdown_table(
        [
            "",
            "samples/s",
            "CPU µs per sample",
            "of P",
            "of P, by CPU time",
            "target",
            "times the loop",
            "s in all",
            "MiB",
        ],
        lines,
    )


def main() -> None:
    rows = int(os.environ.get("OCD_BENCH_ROWS", mnist.ROWS))
    with tempfile.TemporaryDirectory(prefix="ocd-bench-", dir=os.environ.get("OCD_BENCH_DIR")) as name:
        source = mnist.prepare(Path(name))
        print(f"{source}; {rows:,} samples, median of {TURNS} turns.\n", flush=True)
        available = len(os.sched_getaffinity(0))
        for cores in sorted({1, min(2, available)}, reverse=True):
            found = in_subprocess("benchmarks.bench_overfit", what="turns", folder=name, rows=rows, cores=cores)
            print(f"### {cores} core{'s' * (cores > 1)} (batches of {found['batch']})\n")
            print(_ratio_table(found, rows) + "\n", flush=True)
        lines = []
        for optimizer, layout in (("sgd", "dense"), ("adam", "dense"), ("sgd", "factored")):
            for count in (rows // 4, rows):
                got = in_subprocess(
                    "benchmarks.bench_overfit",
                    what="memory",
                    folder=name,
                    rows=count,
                    optimizer=optimizer,
                    layout=layout,
                )
                lines.append([f"{optimizer} {layout}, {count:,}", f"{got['before']:,.0f}", f"{got['peak']:,.0f}"])
        print(f"### Memory (overfit.memory_mb: {MEMORY_MB}, overfit.shard_mb: {SHARD_MB})\n")
        print(markdown_table(["", "MiB before", "peak MiB"], lines), flush=True)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    measure = {"turns": turns, "memory": memory}[given.pop("what")]
    print(json.dumps(measure(Path(given.pop("folder")), **given)))
