"""Tune the diffusion model: train it further on the task's own loss under θ + Δ.

With `tuning.updates: 0` the artifact is the diffusion model as it is. An interrupted tuning resumes from its last
checkpoint, under data/.work. Several processes can tune together.
"""

import shutil
import sys
from typing import Any

import torch

from ocd_core.artifacts import write_json, write_table, write_text
from ocd_core.codes.curvature import CodedRows, metrics_of_codes
from ocd_core.codes.encode import condition_of_samples, encode_store
from ocd_core.diffusion.model import DiffusionModel
from ocd_core.diffusion.tuning import Tuning, tune
from ocd_core.fingerprint import digest
from ocd_core.network.loading import load_cut_model
from ocd_core.provenance import Lineage
from ocd_core.running.following import Follow, with_bar
from ocd_core.running.work import work_folder
from ocd_core.samples import Samples
from ocd_core.scale.network import ScaleNetwork
from ocd_core.store import OverfitStore
from ocd_core.training.processes import Processes, join_processes
from ocd_core.training.tried import Resume
from ocd_core.weights import CONFIG, WEIGHTS

STAGE = "tune_diffusion"
CHECKPOINT_EVERY = 500  # updates


def run(lineage: Lineage, device: str = "cpu", follow: Follow = with_bar) -> dict[str, bool]:
    """Write data/<task>/seed<k>/rank<r>/tuned, and return whether the tuning found a checkpoint.

    The device and the number of processes are not parameters: they change the result only within rounding.
    """
    artifacts = lineage.artifacts
    with work_folder(artifacts, "tuned") as work:
        with join_processes(device) as (processes, place):
            lineage.check(STAGE)
            if not lineage.params.tuning.updates:
                if processes.is_main:
                    write_unchanged(lineage)
                return {}
            if processes.is_main:
                print(f"tune diffusion: world_size {processes.count}, device {place}", file=sys.stderr)
            resume = Resume(work, CHECKPOINT_EVERY, digest(lineage.made_by(STAGE)))
            model, result = tuned(lineage, place, resume, processes, follow)
        if not processes.is_main:
            return {}
        with lineage.write("tuned") as dest:
            model.save(dest, OverfitStore(artifacts.overfit("train")).base)
            write_json(dest / "params.json", lineage.params.effective("tuned"))
            write_json(dest / "metrics.json", result.metrics)
            write_table(dest / "curve.tsv", result.curve)
        return {"resumed": result.resumed}


def tuned(
    lineage: Lineage, device: torch.device, resume: Resume, processes: Processes, follow: Follow
) -> tuple[DiffusionModel, Tuning]:
    """The tuned model."""
    params, run, seed = lineage.params, lineage.artifacts, lineage.artifacts.seed
    task = params.build_task(run.prepared)
    stores: dict[Any, OverfitStore] = {name: OverfitStore(run.overfit(name)) for name in ("train", "val")}
    samples = {name: Samples(task.open(run.prepared, name), condition_of_samples(s)) for name, s in stores.items()}
    base = load_cut_model(run, task, device, "float32")
    model, scale = DiffusionModel.load(run.diffusion), ScaleNetwork.load(run.scale)
    rho = None if scale is None else scale.to(device)
    deltas, metrics = None, None
    if params.tuning.delta_weight:
        deltas = encode_store(model.representation, stores["train"]), encode_store(model.representation, stores["val"])
        if model.params.metric == "gauss_newton":
            parts = [CodedRows(samples[n].split, stores[n], d[0]) for n, d in zip(stores, deltas, strict=True)]
            on_cpu = load_cut_model(run, task, precision="float32")  # all processes get the same bits
            train, val = metrics_of_codes(task, on_cpu, model.representation, parts, seed)
            metrics = train, val
    updates = params.tuning.updates * len(params.tuning.lrs)
    with follow("tune diffusion", updates, resume.folder / "live", processes) as (progress, on_row):
        result = tune(
            task, base, model.to(device), rho, samples["train"], samples["val"], params.tuning,
            params.sampling.renormalise, seed, deltas, progress, on_row, resume, processes, metrics,
        )  # fmt: skip
    return model, result


def write_unchanged(lineage: Lineage) -> None:
    """Write the diffusion model itself, and a curve without rows, with the columns of DVC's plot."""
    print("tune diffusion: nothing to do, because tuning.updates is 0")
    with lineage.write("tuned") as dest:
        for name in (WEIGHTS, CONFIG):
            shutil.copyfile(lineage.artifacts.diffusion / name, dest / name)
        write_json(dest / "params.json", lineage.params.effective("tuned"))
        write_json(dest / "metrics.json", {"updates": 0.0, "flops": 0.0})
        write_text(dest / "curve.tsv", "update\tval_loss\n")
