"""Train the conditional diffusion model over Δ of the training samples (Alg. 1, lines 6-11).

An interrupted training resumes from its last checkpoint, under data/.work. Several processes can train together.
"""

import shutil
import sys

import torch

from ocd_core.artifacts import write_json, write_table
from ocd_core.codes.encode import condition_of_samples, encode_store, fit_to_store
from ocd_core.diffusion.joint import TaskSide
from ocd_core.diffusion.training import train_diffusion
from ocd_core.fingerprint import digest
from ocd_core.network.covariances import layer_covariances
from ocd_core.network.loading import load_cut_model
from ocd_core.provenance import Lineage
from ocd_core.running.following import Follow, with_bar
from ocd_core.samples import Samples
from ocd_core.store import OverfitStore
from ocd_core.training.processes import join_processes


def run(lineage: Lineage, device: str = "cpu", follow: Follow = with_bar) -> dict[str, bool]:
    """Write data/<task>/seed<k>/rank<r>/diffusion, and return whether the training found a checkpoint.

    The device and the number of processes are not parameters: they change the result only within rounding.
    """
    params, artifacts = lineage.params, lineage.artifacts
    lineage.check("train_diffusion")
    train = OverfitStore(artifacts.overfit("train"))
    val = OverfitStore(artifacts.overfit("val"))
    work = artifacts.work / f"diffusion-{artifacts.task}-seed{artifacts.seed}-rank{artifacts.rank}"
    resumed = (work / "checkpoint.pt").exists()
    with join_processes(device) as (processes, place):
        covariances, side = None, None
        if params.diffusion.representation.metric == "kfac":
            domain = params.build_task(artifacts.prepared)
            base = load_cut_model(artifacts, domain, precision="float32")  # on the CPU, for the same bits everywhere
            covariances = layer_covariances(domain, base, domain.open(artifacts.prepared, "train"), artifacts.seed)
        if params.diffusion.task_loss:
            side = task_side(lineage, place, train, val)
        representation = fit_to_store(train, params.diffusion, covariances)
        codes, condition = encode_store(representation, train)
        val_codes, val_condition = encode_store(representation, val)
        if processes.is_main:
            print(f"train diffusion: world_size {processes.count}, device {place}", file=sys.stderr)
        with follow("train diffusion", params.diffusion.updates, work / "live", processes) as (progress, on_row):
            result = train_diffusion(
                codes, condition, val_codes, val_condition, params.diffusion, representation, artifacts.seed, progress,
                on_row, place, work, processes=processes, side=side,
            )  # fmt: skip
    if not processes.is_main:
        return {}
    with lineage.write("diffusion") as dest:
        result.model.save(dest, train.base)
        write_json(dest / "params.json", params.effective("diffusion"))
        write_json(dest / "metrics.json", result.metrics)
        write_table(dest / "curve.tsv", result.curve)
    shutil.rmtree(work, ignore_errors=True)  # missing if the training was too short for a checkpoint
    return {"resumed": resumed}


def task_side(lineage: Lineage, device: torch.device, train: OverfitStore, val: OverfitStore) -> TaskSide:
    """What the task's loss beside the diffusion's is taken on."""
    artifacts = lineage.artifacts
    task = lineage.params.build_task(artifacts.prepared)
    base = load_cut_model(artifacts, task, device, "float32")
    parts = (
        Samples(task.open(artifacts.prepared, "train"), condition_of_samples(train)),
        Samples(task.open(artifacts.prepared, "val"), condition_of_samples(val)),
    )
    return TaskSide(task, base, *parts, digest(lineage.made_by("train_diffusion")))
