"""Overfitting views against a plain loop over views that uses torch.optim.Adam.

    python -m benchmarks.bench_views

TinyNeRF with 128 units on views of the demo scene, 100 x 100, 10 Adam steps of 2,500 rays with 32 depths each, layer1:
the size of the lego task. The benchmark measures the processor time of one thread, times the two in turns, and takes
the median of the rounds' ratios. Both see the same rays; drawing them is not timed. The loop copies the base network
for each view and trains only `layer1.weight`, in float32; the time does not depend on the weights. Both compute the
same products with 80,000 points per step; the library processes a step in parts of 250 rays, whose activations stay in
the cache.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import copy
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from ocd_core.network.cut import CutModel
from ocd_core.overfit.params import NOT_REFINED, OverfitParams
from ocd_core.overfit.steps import StepPart, overfit
from ocd_core.report.markdown import markdown_table
from ocd_core.samples import Batch
from ocd_core.tasks.views.params import ViewsData
from ocd_core.tasks.views.task import ViewSynthesis

VIEWS, ROUNDS = int(os.environ.get("OCD_BENCH_ROWS", "2")), int(os.environ.get("OCD_BENCH_TURNS", "5"))
STEPS, LR, LAYER = 10, 5e-3, "layer1"
DATA = {
    "source": "demo",
    "path": None,
    "size": 100,
    "train_views": VIEWS + 1,
    "test_views": 1,
    "background": "black",
    "near": 2.0,
    "far": 6.0,
    "depths": 32,
    "base_rays": 1,
    "rays_per_step": 2500,
    "rays_per_update": 1,
    "scoring_rays": 1,
    "fixed_rays": False,
    "vgg11": None,
    "split_seed": 0,
}


def loop(model, task, batches):
    deltas = []
    for view in range(VIEWS):
        net = copy.deepcopy(model)
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name == f"{LAYER}.weight")
        weight = net.get_submodule(LAYER).weight
        optimizer = torch.optim.Adam([weight], lr=LR)
        for batch in batches[:STEPS]:
            optimizer.zero_grad()
            inputs = [x[view : view + 1] for x in batch.inputs]
            task.loss(net(*inputs), batch.target[view : view + 1]).sum().backward()
            optimizer.step()
        with torch.no_grad():  # the last loss, which the store also keeps
            task.loss(net(*(x[view : view + 1] for x in batches[STEPS].inputs)), batches[STEPS].target[view : view + 1])
        deltas.append(weight.detach() - model.get_submodule(LAYER).weight)
    return torch.stack(deltas)


def chunked(split, task, ids, batches, params):
    deltas = []
    for view in range(VIEWS):  # as in the stage: the memory bound would allow more at once, but the cache does not

        def inputs(step, view=view):
            batch = batches[step]
            one = Batch(tuple(x[view : view + 1] for x in batch.inputs), batch.target[view : view + 1], ids[:1])
            for part, weight in task.parts(one):
                yield StepPart(split.prefix(part.inputs), part.target, weight)

        deltas.append(overfit(split, inputs, task.loss, params, inputs_change=True).delta_NOI)
    return torch.cat(deltas)


def main() -> int:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    task = ViewSynthesis(ViewsData.model_validate(DATA), "tinynerf", {})
    with tempfile.TemporaryDirectory() as folder:
        task.prepare(Path(folder))
        data = task.open(Path(folder), "train")
    model = task.build_model()
    ids = torch.arange(VIEWS)
    batches = [task.overfit_batch(data, ids, torch.zeros_like(ids), step, 0) for step in range(STEPS + 1)]
    works = {"loop, float32": lambda: loop(model, task, batches)}
    for precision in ("float32", "float64"):
        params = OverfitParams(
            optimizer="adam",
            lr=LR,
            steps=STEPS,
            until_converged=False,
            tolerance=1e-3,
            replicas=1,
            precision=precision,
            layout="dense",
            refine=NOT_REFINED,
            memory_mb=512,
            shard_mb=32,
        )
        split = CutModel(model, LAYER, precision)
        works[f"here, {precision}"] = lambda split=split, params=params: chunked(split, task, ids, batches, params)
    found = {name: work() for name, work in works.items()}  # also the warm-up
    plain = found["loop, float32"]
    times = []
    for _ in range(ROUNDS):
        spent = {}
        for name, work in works.items():
            start = time.thread_time()
            work()
            spent[name] = time.thread_time() - start
        times.append(spent)
    rows = []
    for name, deltas in found.items():
        ratio = statistics.median(t["loop, float32"] / t[name] for t in times)
        cosine = torch.cosine_similarity(deltas.flatten(1), plain.flatten(1)).min()
        seconds = statistics.median(t[name] for t in times) / VIEWS
        rows.append([name, f"{seconds:.2f}", f"{ratio:.2f}", f"{cosine:.5f}"])
    print(f"{VIEWS} views, median of {ROUNDS} rounds\n")
    print(markdown_table(["", "s per view", "speed relative to the loop", "cosine with the loop's Δ"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
