"""Train the conditional diffusion model over Δ of the training samples (Alg. 1, lines 6-11).

An interrupted training resumes from its last checkpoint, under data/.work. Several processes can train together.
"""

import sys
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ocd_core.artifacts import write_json, write_table
from ocd_core.codes.curvature import CodedRows, metrics_of_codes
from ocd_core.codes.encode import condition_of_samples, encode_store, fit_to_store
from ocd_core.codes.representations.base import Representation
from ocd_core.diffusion.joint import TaskSide
from ocd_core.diffusion.params import DiffusionParams
from ocd_core.diffusion.training import train_diffusion
from ocd_core.fingerprint import digest
from ocd_core.network.covariances import LayerCovariances, layer_covariances
from ocd_core.network.cut import CutModel
from ocd_core.network.loading import load_cut_model
from ocd_core.provenance import Lineage
from ocd_core.running.following import Follow, with_bar
from ocd_core.running.work import work_folder
from ocd_core.samples import Samples, Split, SplitName
from ocd_core.store import OverfitStore
from ocd_core.tasks.base import Task
from ocd_core.training.processes import join_processes


def run(lineage: Lineage, device: str = "cpu", follow: Follow = with_bar) -> dict[str, bool]:
    """Write data/<task>/seed<k>/rank<r>/diffusion, and return whether the training found a checkpoint.

    The device and the number of processes are not parameters: they change the result only within rounding.
    """
    params, artifacts = lineage.params, lineage.artifacts
    lineage.check("train_diffusion")
    train = OverfitStore(artifacts.overfit("train"))
    val = OverfitStore(artifacts.overfit("val"))
    with work_folder(artifacts, "diffusion") as work:
        with join_processes(device) as (processes, place):
            network = _Network(lineage, train, val)
            representation = fit_to_store(train, params.diffusion, network.covariances())
            codes, condition = encode_store(representation, train)
            val_codes, val_condition = encode_store(representation, val)
            metrics = network.metrics(representation, codes, val_codes)
            if processes.is_main:
                print(f"train diffusion: world_size {processes.count}, device {place}", file=sys.stderr)
            with follow("train diffusion", params.diffusion.updates, work / "live", processes) as (progress, on_row):
                result = train_diffusion(
                    codes, condition, val_codes, val_condition, params.diffusion, representation, artifacts.seed,
                    progress, on_row, place, work, processes=processes, side=network.side(place), metrics=metrics,
                )  # fmt: skip
        if not processes.is_main:
            return {}
        with lineage.write("diffusion") as dest:
            result.model.save(dest, train.base)
            write_json(dest / "params.json", params.effective("diffusion"))
            write_json(dest / "metrics.json", result.metrics)
            write_table(dest / "curve.tsv", result.curve)
        return {"resumed": result.resumed}


@dataclass(frozen=True)
class _Network:
    """What a training needs of the base network and the prepared data; nothing with the usual params."""

    lineage: Lineage
    train: OverfitStore
    val: OverfitStore

    @property
    def params(self) -> DiffusionParams:
        """The group `diffusion`."""
        return self.lineage.params.diffusion

    @cached_property
    def task(self) -> Task:
        """The domain."""
        return self.lineage.params.build_task(self.lineage.artifacts.prepared)

    def cut(self, device: torch.device | str = "cpu") -> CutModel:
        """The base network; on the CPU for what is computed once, so that all processes get the same bits."""
        return load_cut_model(self.lineage.artifacts, self.task, device, "float32")

    def split(self, name: SplitName) -> Split:
        """A part of the prepared data."""
        return self.task.open(self.lineage.artifacts.prepared, name)

    def covariances(self) -> LayerCovariances | None:
        """For `representation.metric: kfac`."""
        if self.params.representation.metric != "kfac":
            return None
        return layer_covariances(self.task, self.cut(), self.split("train"), self.lineage.artifacts.seed)

    def metrics(self, representation: Representation, codes: Tensor, val_codes: Tensor) -> tuple[Tensor, Tensor] | None:
        """For `metric: gauss_newton`."""
        if self.params.metric != "gauss_newton":
            return None
        parts = (
            CodedRows(self.split("train"), self.train, codes),
            CodedRows(self.split("val"), self.val, val_codes),
        )
        train, val = metrics_of_codes(self.task, self.cut(), representation, parts, self.lineage.artifacts.seed)
        return train, val

    def side(self, device: torch.device) -> TaskSide | None:
        """For `task_loss`."""
        if not self.params.task_loss:
            return None
        train = Samples(self.split("train"), condition_of_samples(self.train))
        val = Samples(self.split("val"), condition_of_samples(self.val))
        mean_rho = float(self.train.read("rho").mean())
        made_by = digest(self.lineage.made_by("train_diffusion"))
        return TaskSide(self.task, self.cut(device), train, val, mean_rho, made_by)
