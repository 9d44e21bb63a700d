"""What a DeiT-B costs per image on one core: its forward pass, and overfitting its last layer.

    python -m benchmarks.bench_deit

DeiT-B/16 with two heads, fresh weights (the time does not depend on them), images of 224 x 224 pixels in batches of 8,
processor time of one thread, the median of OCD_BENCH_TURNS turns. Overfitting takes three SGD steps in float64 from
what the forward pass left. The last column is computed: 1,281,167 images, ImageNet's training set, on one core.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import sys
import time

import torch
import torch.nn.functional as F

from ocd_core.models.deit import DeiT
from ocd_core.network.cut import CutModel
from ocd_core.overfit.params import NOT_REFINED, OverfitParams
from ocd_core.overfit.steps import StepPart, overfit
from ocd_core.report.markdown import markdown_table

TURNS = int(os.environ.get("OCD_BENCH_TURNS", "5"))
BATCH, IMAGENET = 8, 1_281_167
LAYERS = {"cls_classifier": "factored", "cls_classifier+distillation_classifier": "dense"}


def params(layout):
    return OverfitParams(
        optimizer="sgd",
        lr=0.01,
        steps=3,
        until_converged=False,
        tolerance=1e-3,
        replicas=1,
        precision="float64",
        layout=layout,
        refine=NOT_REFINED,
        memory_mb=512,
        shard_mb=32,
    )


def loss(output, target):
    return F.cross_entropy(output, target, reduction="none")


def per_image(work, repeat=1):
    work()  # a warm-up
    spent = []
    for _ in range(TURNS):
        start = time.thread_time()
        for _ in range(repeat):
            work()
        spent.append((time.thread_time() - start) / repeat / BATCH)
    return statistics.median(spent)


def row(name, seconds):
    return [name, f"{1e3 * seconds:.3g}", f"{seconds * IMAGENET / 3600:.3g}"]


def main() -> int:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.randn(BATCH, 3, 224, 224)
    rows = []
    for classes in (200, 1000):
        model, target = DeiT(classes).eval().requires_grad_(False), torch.arange(BATCH)
        if not rows:
            rows.append(row("forward pass", per_image(lambda model=model: model(x))))
        for layer, layout in LAYERS.items():
            cut_model = CutModel(model, layer)
            part = StepPart(cut_model.prefix((x,)), target)
            assert cut_model.traced, "the body must run once per image"

            def work(cut_model=cut_model, part=part, target=target, layout=layout):
                overfit(cut_model, lambda _step: [part], loss, params(layout))

            rows.append(row(f"overfitting {layer}, {classes} classes, {layout}", per_image(work, 5)))
    print(markdown_table(["", "ms per image", "hours for ImageNet"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
