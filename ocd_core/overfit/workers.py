"""The jobs that workers receive, so that each can compute and write shards of a store."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ocd_core.allocator import keep_freed_memory
from ocd_core.artifacts import Artifacts
from ocd_core.config import Params
from ocd_core.errors import UserError
from ocd_core.files import locked, make_folder, sha256_file
from ocd_core.fingerprint import digest
from ocd_core.network.loading import load_cut_model
from ocd_core.overfit.executors import MakeShard
from ocd_core.overfit.refine import Refinement
from ocd_core.overfit.rows import RowBuilder
from ocd_core.pipeline import STAGES
from ocd_core.samples import SplitName
from ocd_core.stage_code import code_of
from ocd_core.store import Sink
from ocd_core.training.devices import check_device, local_device


@dataclass(frozen=True)
class Recipe:
    """What a `RowBuilder` is made from; it is small, so that any worker can make its own.

    device: `cpu`, or `cuda` for a GPU of the worker's machine. refinement: the file, below the folder of unfinished
    work, that holds what refines Δ; see `with_refinement`.
    """

    artifacts: Artifacts
    params: Params
    split: SplitName
    device: str = "cpu"
    refinement: str | None = None

    def __post_init__(self) -> None:
        check_device(self.device)

    @contextmanager
    def with_refinement(self, name: str) -> Iterator["Recipe"]:
        """The same recipe, with a file of this name that all splits and workers read, if the params ask to refine Δ.

        The file is made from the training split, and removed in the end; a lock keeps another process from both.

        Raises:
            UserError: another process uses a file of this name.
        """
        if not self.params.overfit.refine.steps:
            yield self
            return
        path = self.artifacts.work / name
        make_folder(path.parent)
        with locked(path.with_name(f".{name}.lock"), str(path)):
            replace(self, split="train").builder().fit_refinement().save(path)
            try:
                yield replace(self, refinement=name)
            finally:
                path.unlink(missing_ok=True)

    def builder(self, worker: int = 0) -> RowBuilder:
        """Load the base network and the prepared data, for worker number `worker`; workers take GPUs in turn."""
        device = local_device(self.device, worker % max(1, torch.cuda.device_count()))
        prepared = self.artifacts.need(self.artifacts.prepared, "prepare")
        task = self.params.build_task(prepared)
        overfit_params = self.params.overfit.of_split(self.split)
        model = load_cut_model(self.artifacts, task, device, overfit_params.precision)
        split = task.open(prepared, self.split)
        refinement = None if self.refinement is None else Refinement.load(self.artifacts.work / self.refinement)
        return RowBuilder(task, model, split, overfit_params, self.artifacts.seed, refinement)


@dataclass(frozen=True)
class ShardJob:
    """The shards of one store, for workers: they compute and write, and send nothing back."""

    recipe: Recipe
    sink: Sink
    fingerprint: str
    base_sha256: str
    code: str

    @classmethod
    def of(cls, recipe: Recipe, sink: Sink, fingerprint: str) -> "ShardJob":
        """A job for a store's sink; paths become absolute, because workers may run anywhere."""
        artifacts = replace(recipe.artifacts, root=recipe.artifacts.root.absolute())
        base, code = sha256_file(_weights(artifacts)), _own_code(recipe.params)
        return cls(replace(recipe, artifacts=artifacts), sink, fingerprint, base, code)

    def open(self, worker: int) -> MakeShard:
        """Load what the shards need.

        Raises:
            UserError: this worker's code or base network differs from that of the process that made the job.
        """
        torch.set_num_threads(1)
        keep_freed_memory()
        if _code_at_start(self.recipe.params) != self.code:
            raise UserError("a worker runs different code than this process: update it and start the workers again")
        if sha256_file(_weights(self.recipe.artifacts)) != self.base_sha256:
            raise UserError(f"a worker has a different {_weights(self.recipe.artifacts)}: workers need the same folder")
        builder, schema = self.recipe.builder(worker), self.sink.schema

        def make(shard: int) -> None:
            self.sink.write(shard, builder.fill(schema.shard_slice(shard), builder.buffers(schema)))

        return make


def _weights(artifacts: Artifacts) -> Path:
    return artifacts.base / "model.safetensors"


def _own_code(params: Params) -> str:
    return digest(code_of(__name__, params.plain(), STAGES["overfit"].params))


_started_with: dict[str, str] = {}


def _code_at_start(params: Params) -> str:
    """The code as it was when this process first used it: a long-lived worker does not see changes."""
    return _started_with.setdefault(f"{params.domain} {params.base.model.name}", _own_code(params))
