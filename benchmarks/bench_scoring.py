"""Layer scores against a loop that sets perturbed weights and runs a forward pass for each draw and sample.

    python -m benchmarks.bench_scoring

The benchmark measures the CPU time of one thread. The two are timed in turns, so that other work on the machine slows
both, and the result is the median of the rounds' ratios. LeNet5 on 28 x 28 digits (scikit-learn's, enlarged); the time
does not depend on the weights. The loop is the obvious implementation: float64 (which the scores need), one sample,
`copy_` of the perturbed weights, forward pass, loss.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import ks_2samp
from torch import Tensor

from ocd_core.models.lenet5 import LeNet5
from ocd_core.network.cut import CutModel
from ocd_core.network.layers import find_layers, matrix_layers
from ocd_core.samples import Batch
from ocd_core.scoring.entropy import entropy_gkde
from ocd_core.scoring.perturb import perturbed_losses
from ocd_core.strict import StrictModel
from ocd_core.tasks.base import Task

SAMPLES, DRAWS, LOOP_DRAWS, ROUNDS, SCALE = 8, 1000, 100, 9, 0.03
AT_LEAST = {"conv1": 4, "conv2": 10, "conv3": 70, "fc1": 70, "fc2": 70}
BOUND_BY = {
    "conv1": "the tail: conv2's products, ReLU and pooling of 6 x 28 x 28 values",
    "conv2": "the product of 100 patches with the drawn weights, then conv3",
    "conv3": "fc1's product (84 x 120), 120 normal numbers",
    "fc1": "84 normal numbers, memory traffic of ReLU",
    "fc2": "10 normal numbers, log-softmax",
}


class Digits(Task):
    """Cross-entropy; the benchmark provides the batch itself."""

    def prepare(self, dest):
        raise NotImplementedError

    def open(self, prepared, split):
        raise NotImplementedError

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target, reduction="none")

    @property
    def metrics(self):
        return []


def digits(count: int) -> Batch:
    from sklearn.datasets import load_digits

    data = load_digits()
    image = torch.from_numpy(data.images[:count]).float()[:, None] / 16
    image = F.interpolate(image, size=(28, 28), mode="bilinear")
    return Batch((image,), torch.from_numpy(data.target[:count]).long(), torch.arange(count))


@torch.no_grad()
def loop(model: torch.nn.Module, layer: str, image: Tensor, label: Tensor, draws: int) -> Tensor:
    weight = find_layers(model, layer)[0].weight
    base = weight.clone()
    losses = torch.empty(draws, dtype=torch.float64)
    for i in range(draws):
        weight.copy_(base + SCALE * torch.randn(base.shape, dtype=base.dtype))
        losses[i] = F.cross_entropy(model(image), label)
    weight.copy_(base)
    return losses


def rounds(*works: Callable[[], Any]) -> tuple[list[tuple[float, ...]], tuple[list[Any], ...]]:
    """Seconds of each work in each round, after a warm-up, and the results of each work."""
    results = tuple([work()] for work in works)
    times = []
    for _ in range(ROUNDS):
        spent = []
        for work, result in zip(works, results, strict=True):
            start = time.thread_time()
            result.append(work())
            spent.append(time.thread_time() - start)
        times.append(tuple(spent))
    return times, results


def median(values) -> float:
    return statistics.median(values)


def main() -> int:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, batch, task = LeNet5(), digits(SAMPLES), Digits(StrictModel(), "lenet5", {})
    double = LeNet5().double().eval()
    double.load_state_dict(model.state_dict())
    image, label = batch.inputs[0][:1].double(), batch.target[:1]
    print(f"{SAMPLES} samples x {DRAWS} draws against {LOOP_DRAWS} turns of the loop; microseconds per draw and sample")
    print("KS: p-value of the two-sample test of the loop's losses and the library's, for one sample\n")
    print(f"{'layer':7}{'loop':>9}{'here':>9}{'ratio':>8}{'target':>7}{'KS':>7}  bound by")
    failed = []
    for name in matrix_layers(model):
        split = CutModel(model, name)
        times, (plain, losses) = rounds(
            lambda name=name: loop(double, name, image, label, LOOP_DRAWS),
            lambda split=split: perturbed_losses(split, task, batch, SCALE, DRAWS, 0),
        )
        slow, fast = [t[0] / LOOP_DRAWS for t in times], [t[1] / SAMPLES / DRAWS for t in times]
        ratio = median(a / b for a, b in zip(slow, fast, strict=True))
        print(
            f"{name:7}{1e6 * median(slow):9.1f}{1e6 * median(fast):9.2f}{ratio:8.1f}{AT_LEAST[name]:7}"
            f"{ks_2samp(torch.cat(plain), losses[0][0]).pvalue:7.2f}  {BOUND_BY[name]}",
            flush=True,
        )
        if ratio < AT_LEAST[name]:
            failed.append(name)
    compare_entropies()
    if failed:
        print(f"below the target: {', '.join(failed)}")
    return 1 if failed else 0


def compare_entropies() -> None:
    """Compare the density estimate with scipy's, on losses of 10,000 draws."""
    from scipy.special import entr
    from scipy.stats import gaussian_kde

    rows = np.exp(np.random.default_rng(0).standard_normal((20, 10_000)) - 5)

    def by_scipy() -> float:
        kde = gaussian_kde(rows[0], "silverman")
        grid = np.linspace(rows[0].min() - 0.01, rows[0].max() + 0.01, 1000)
        return float(entr(kde(grid)).sum() * (grid[1] - grid[0]))

    times, _ = rounds(by_scipy, lambda: entropy_gkde(rows))
    slow, fast = median(t[0] for t in times), median(t[1] / len(rows) for t in times)
    print(
        f"\nentropy of 10,000 draws: scipy on 1,000 points {slow * 1e3:.1f} ms, here {fast * 1e3:.2f} ms "
        f"({slow / fast:.0f} times; {fast / 10_000 * 1e6:.3f} microseconds per draw)"
    )


if __name__ == "__main__":
    sys.exit(main())
