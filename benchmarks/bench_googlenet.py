"""Overfitting images in GoogLeNet's last layer and in a convolution in its middle: one torch thread.

References, measured in turns with what they are compared with: for `linear`, the rate of the batched forward pass of
everything before it (plain torch, in the batches that the stage uses); for the convolution, the *loop* (a batch of one,
a deep copy of the base, torch.optim, full forward and backward passes). The images and weights are random: they do not
change the work.
"""

import copy
import os
import statistics
import tempfile
from pathlib import Path

import torch
from torch import nn

from benchmarks import bench_overfit, mnist
from benchmarks.machine import timed
from ocd_core.models.googlenet import GoogLeNet
from ocd_core.network.cut import CutModel
from ocd_core.network.moves import row_chunks, rows_within
from ocd_core.report.markdown import markdown_table
from ocd_core.tasks.images.sources import Pictures
from ocd_core.tasks.images.splits import ImageSplit
from ocd_core.tasks.images.task import ImageClassification

TURNS = int(os.environ.get("OCD_BENCH_TURNS", "5"))
WIDTH = float(os.environ.get("OCD_BENCH_WIDTH", "0.125"))  # as in params/cifar10_small.yaml
ROWS, CONVOLUTION_ROWS, LOOP_ROWS = 256, 32, 4
LAST, MIDDLE = "linear", "c4.b2.3"
TARGETS = {LAST: 0.7, MIDDLE: 4.0}  # of the forward rate; times the loop
DATA = mnist.DATA.model_copy(update={"channels": 3, "height": 32, "width": 32})


def split(rows: int) -> ImageSplit:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (rows, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return ImageSplit.of_pixels(Pictures(image, torch.randint(0, 10, (rows,), generator=generator)), DATA)


def forward(net: nn.Module, data: ImageSplit, batch: int) -> float:
    """Processor seconds of all layers before the last one, in plain torch."""
    body = copy.deepcopy(net).eval()
    body.linear = nn.Identity()
    inputs = [data.batch(torch.arange(c.start, c.stop)).inputs[0] for c in row_chunks(len(data), batch)]

    @torch.inference_mode()
    def run() -> None:
        for x in inputs:
            body(x)

    return timed(run)[1]


def main() -> int:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net, task = GoogLeNet(width=WIDTH), ImageClassification(DATA, "googlenet", {"classes": 10, "width": WIDTH})
    last, middle = CutModel(net, LAST), CutModel(net, MIDDLE)
    data, few = split(ROWS), split(CONVOLUTION_ROWS)
    batch = rows_within(last, data.batch(torch.tensor([0])), bench_overfit.MEMORY_MB, 0)
    per_sample: dict[str, list[float]] = {"forward": [], LAST: [], "loop": [], MIDDLE: []}
    with tempfile.TemporaryDirectory(prefix="ocd-bench-", dir=os.environ.get("OCD_BENCH_DIR")) as name:
        folder = Path(name)
        for turn in range(-1, TURNS):
            factored, dense = (bench_overfit.params("sgd", layout) for layout in ("factored", "dense"))
            measured = {
                "forward": forward(net, data, batch) / ROWS,
                LAST: bench_overfit.store(folder, task, last, data, factored)["cpu"] / ROWS,
                "loop": bench_overfit.loop(task, net, MIDDLE, few, "sgd", LOOP_ROWS)[1] / LOOP_ROWS,
                MIDDLE: bench_overfit.store(folder, task, middle, few, dense)["cpu"] / CONVOLUTION_ROWS,
            }
            for key, value in measured.items():
                if turn >= 0:
                    per_sample[key].append(value)
    ratios = {
        LAST: statistics.median(f / own for f, own in zip(per_sample["forward"], per_sample[LAST], strict=True)),
        MIDDLE: statistics.median(one / own for one, own in zip(per_sample["loop"], per_sample[MIDDLE], strict=True)),
    }
    compared = {LAST: "of the forward rate", MIDDLE: "times the loop"}
    print(f"GoogLeNet of width {WIDTH:g}, three SGD steps, batches of {batch}, median of {TURNS} turns.\n")
    lines = [
        [key, f"{statistics.median(values) * 1e3:.2f}", f"{ratios[key]:.2f} {compared[key]}" if key in ratios else "",
         f"{TARGETS[key]:g}" if key in TARGETS else ""]
        for key, values in per_sample.items()
    ]  # fmt: skip
    print(markdown_table(["", "CPU ms per sample", "ratio", "target"], lines), flush=True)
    return int(any(ratios[key] < target for key, target in TARGETS.items()))


if __name__ == "__main__":
    raise SystemExit(main())
