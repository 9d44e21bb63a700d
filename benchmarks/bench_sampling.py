"""Drawing Δ and predicting with it: against the base network, batched against one at a time, and `factored` + mlp
against a U-Net on `dense`.

LeNet5 on mnist5k; the layer that moves is fc1. The benchmark trains everything with the library's own functions and the
task's params; only the number of the U-Net's updates is limited, so that they take about two minutes. It uses one torch
thread and measures its processor time, the median of interleaved rounds after a warm-up; ratios are medians of the
ratios within a round.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.machine import timed
from ocd_core.codes.encode import encode_store, fit_to_store
from ocd_core.config import Params, load_params
from ocd_core.diffusion.params import DenoiserParams, DiffusionParams
from ocd_core.diffusion.training import DiffusionTraining, train_diffusion
from ocd_core.network.cut import CutModel
from ocd_core.network.training import fit_base
from ocd_core.overfit.build import build_store
from ocd_core.overfit.rows import RowBuilder
from ocd_core.predictor import Predictor
from ocd_core.progress import no_progress
from ocd_core.report.markdown import markdown_table
from ocd_core.samples import Batch, whole_split
from ocd_core.scale.training import train_scale
from ocd_core.store import OverfitStore
from ocd_core.tasks.base import Task

LAYER = "fc1"
SAMPLES = int(os.environ.get("OCD_BENCH_ROWS", "1000"))  # samples of the test split
UPDATES = int(os.environ.get("OCD_BENCH_UPDATES", "100"))  # updates of the U-Net
TURNS = int(os.environ.get("OCD_BENCH_TURNS", "5"))
LOOP = 50  # samples that are timed one by one
UNET_BATCH, UNET_LOOP = 16, 3  # the U-Net's samples that are timed in a batch, and one by one
UNET = DenoiserParams(name="unet", width=8, depth=1, multipliers=[1, 2, 2], dropout=0.0)
STEPS = (50, 10, 5, 3, 2, 1)  # of DDIM, compared on the validation split
# ratios with their titles and targets, which they must reach or stay below
AT_LEAST = {"batched": ("`factored`, one by one / at once", 5.0), "unet": ("unet / `factored`, at once", 50.0)}
AT_MOST = {"singly": ("`factored` / base, one by one", 5.0), "at once": ("`factored` / base, at once", 2.0)}


@dataclass(frozen=True)
class Trained:
    """Both predictors, which share one base and one scale network, and the trainings that made them."""

    task: Task
    base: nn.Module
    factored: Predictor
    unet: Predictor
    factored_training: DiffusionTraining
    unet_training: DiffusionTraining
    inputs: Tensor
    target: Tensor
    validation: Batch


def train(folder: Path, params: Params, unet_updates: int, samples: int) -> Trained:
    """Train the base, Δ of fc1, scale and both diffusion models; also take the first test samples and all of val."""
    task, seed = params.build_task(), 0
    task.prepare(folder)
    splits = {name: task.open(folder, name) for name in ("train", "val", "test")}
    base = fit_base(task, splits["train"], splits["val"], params.base, seed).model
    cut_model, stores = CutModel(base, LAYER), {}
    for name in ("train", "val"):
        dest = folder / f"{name}.zarr"
        builder = RowBuilder(task, cut_model, splits[name], params.overfit, seed)
        build_store(dest, builder, {"config": params.effective("overfit")}, name, folder / "work", no_progress)
        stores[name] = OverfitStore(dest)
    rho = {name: torch.from_numpy(store.read("rho")) for name, store in stores.items()}
    scale = train_scale(
        stores["train"].condition(), rho["train"], stores["val"].condition(), rho["val"], params.scale, seed
    ).network

    def diffusion(p: DiffusionParams) -> DiffusionTraining:
        space = fit_to_store(stores["train"], p)
        code = {name: encode_store(space, store) for name, store in stores.items()}
        return train_diffusion(*code["train"], *code["val"], p, space, seed)

    small = {"updates": unet_updates, "batch_size": 32, "validate_every": unet_updates, "warmup": 0}
    dense = params.diffusion.model_copy(
        update={
            "representation": params.diffusion.representation.model_copy(update={"name": "dense"}),
            "denoiser": UNET,
            **small,
        }
    )
    factored_training, unet_training = diffusion(params.diffusion), diffusion(dense)
    batch = splits["test"].batch(torch.arange(min(samples, len(splits["test"]))))
    validation = splits["val"].batch(whole_split(splits["val"]))
    both = [
        Predictor(task, cut_model, training.model, scale, params.sampling, seed)
        for training in (factored_training, unet_training)
    ]
    return Trained(task, base, *both, factored_training, unet_training, batch.inputs[0], batch.target, validation)


def predicted(predictor: Predictor, inputs: Tensor) -> Tensor:
    """The output of one draw for all inputs at once."""
    return predictor.predict(inputs, sample_id=torch.arange(len(inputs))).output


def predicted_singly(predictor: Predictor, inputs: Tensor) -> Tensor:
    """The same, one input at a time."""
    return torch.cat([predictor.predict(x[None], sample_id=torch.tensor([i])).output for i, x in enumerate(inputs)])


@torch.inference_mode()
def base_at_once(base: nn.Module, inputs: Tensor) -> Tensor:
    return base(inputs)


@torch.inference_mode()
def base_singly(base: nn.Module, inputs: Tensor) -> Tensor:
    return torch.cat([base(x[None]) for x in inputs])


def rounds(trained: Trained, turns: int) -> dict[str, list[float]]:
    """Milliseconds of processor time per sample for each way, turn by turn, after a warm-up."""
    x, few = trained.inputs, trained.inputs[:LOOP]
    works: dict[str, tuple[Callable[[], Tensor], int]] = {
        "base": (lambda: base_at_once(trained.base, x), len(x)),
        "factored": (lambda: predicted(trained.factored, x), len(x)),
        "unet": (lambda: predicted(trained.unet, x[:UNET_BATCH]), len(x[:UNET_BATCH])),
        "base singly": (lambda: base_singly(trained.base, few), len(few)),
        "factored singly": (lambda: predicted_singly(trained.factored, few), len(few)),
        "unet singly": (lambda: predicted_singly(trained.unet, x[:UNET_LOOP]), len(x[:UNET_LOOP])),
    }
    found: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(-1, turns):
        for name, (work, count) in works.items():
            _, cpu = timed(work)
            if turn >= 0:
                found[name].append(1e3 * cpu / count)
    return found


def quality(trained: Trained) -> list[list[str]]:
    """Cross entropy and accuracy on the test samples, of the base and of one draw of each model."""
    rows = []
    outputs = {
        "base": (base_at_once(trained.base, trained.inputs), None),
        "`factored` + mlp": (predicted(trained.factored, trained.inputs), trained.factored_training),
        "`dense` + unet": (predicted(trained.unet, trained.inputs), trained.unet_training),
    }
    for name, (output, training) in outputs.items():
        loss = trained.task.loss(output, trained.target).double().mean()
        right = (output.argmax(1) == trained.target).double().mean()
        numbers = (
            ["", ""]
            if training is None
            else [f"{training.metrics['updates']:,.0f}", f"{training.metrics['parameters']:,.0f}"]
        )
        rows.append([name, *numbers, f"{loss:.4f}", f"{100 * right:.2f}"])
    return rows


def by_steps(trained: Trained) -> list[list[str]]:
    """The loss of one draw on the validation split by the number of steps, and its paired difference to the most."""
    own, val = trained.factored, trained.validation
    losses: dict[int, Tensor] = {}
    for steps in STEPS:
        sampling = own.sampling.model_copy(update={"steps": steps})
        one = Predictor(own.task, own.model, own.diffusion, own.scale, sampling, own.seed)
        losses[steps] = trained.task.loss(predicted(one, val.inputs[0]), val.target).double()
    rows = []
    for steps, loss in losses.items():
        gap = loss - losses[STEPS[0]]
        error = gap.std() / len(gap) ** 0.5
        rows.append([f"{steps}", f"{loss.mean():.5f}", f"{gap.mean():+.5f}", f"{error:.5f}"])
    return rows


def ratios(found: dict[str, list[float]]) -> dict[str, float]:
    """Medians of the ratios within a round."""

    def ratio(one: str, other: str) -> float:
        return median(a / b for a, b in zip(found[one], found[other], strict=True))

    return {
        "singly": ratio("factored singly", "base singly"),
        "at once": ratio("factored", "base"),
        "batched": ratio("factored singly", "factored"),
        "unet": ratio("unet", "factored"),
    }


def main() -> int:
    torch.set_num_threads(1)
    params = load_params("mnist5k", Path(__file__).parents[1])
    with tempfile.TemporaryDirectory(prefix="ocd-bench-") as folder:
        trained = train(Path(folder), params, UPDATES, SAMPLES)
    few = trained.inputs[:LOOP]
    torch.testing.assert_close(
        predicted_singly(trained.factored, few), predicted(trained.factored, few), rtol=1e-4, atol=1e-4
    )
    found = rounds(trained, TURNS)
    print(f"LeNet5, {LAYER}, {params.sampling.steps} steps of {params.sampling.sampler}, median of {TURNS} rounds.\n")
    print("Milliseconds of processor time per sample (one draw):\n")
    head = ["", "base", "OCD, `factored` + mlp", "OCD, `dense` + unet"]
    ways = ("base", "factored", "unet")
    lines = [
        [f"{len(trained.inputs):,} at once (unet: {UNET_BATCH})", *(f"{median(found[w]):.3g}" for w in ways)],
        [f"one by one ({LOOP}; unet: {UNET_LOOP})", *(f"{median(found[f'{w} singly']):.3g}" for w in ways)],
    ]
    print(markdown_table(head, lines) + "\n")
    rows, failed = [], []
    for name, ratio in ratios(found).items():
        (title, target), most = (AT_MOST | AT_LEAST)[name], name in AT_MOST
        rows.append([title, f"{ratio:,.1f}" if most else f"{ratio:,.0f}", f"{'≤' if most else '≥'} {target:g}"])
        if ratio > target if most else ratio < target:
            failed.append(title)
    print(markdown_table(["ratio", "measured", "target"], rows) + "\n")
    print("The validation split, one draw of `factored` + mlp:\n")
    print(
        markdown_table(["steps", "cross entropy", f"more than with {STEPS[0]}", "its error"], by_steps(trained)) + "\n"
    )
    print(f"The first {len(trained.inputs):,} test samples, one draw:\n")
    print(markdown_table(["", "updates", "weights", "cross entropy", "accuracy %"], quality(trained)), flush=True)
    if failed:
        print(f"\nmisses the target: {', '.join(failed)}")
    return 1 if failed else 0
