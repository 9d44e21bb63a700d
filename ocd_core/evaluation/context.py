"""The parts of a run that rows can use: its params, predictor, splits and stores, and what fits share.

Dims: N rows of the training store, M of the validation store, d coordinates of Δ.
"""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ocd_core.artifacts import Artifacts, read_json
from ocd_core.codes.encode import condition_of_samples
from ocd_core.config import Params
from ocd_core.evaluation.costs import (
    base_epoch_flops,
    covariance_flops,
    diffusion_flops,
    metric_flops,
    overfit_flops,
    scale_flops,
)
from ocd_core.evaluation.space import DeltaSpace
from ocd_core.network.blocks import network_outputs
from ocd_core.network.covariances import layer_covariances
from ocd_core.network.cut import CutModel
from ocd_core.predictor import Predictor
from ocd_core.samples import (
    Batch,
    Condition,
    Samples,
    Split,
    SplitName,
    Tensors,
    concatenate,
    map_tensors,
    rows_at_once,
    whole_split,
)
from ocd_core.store import OverfitStore
from ocd_core.tasks.base import Task

T = TypeVar("T")
WITHOUT_TEST: tuple[SplitName, ...] = ("train", "val")


@dataclass(frozen=True)
class Unlabelled:
    """A split with zeros in place of its targets."""

    split: Split

    def __len__(self) -> int:
        return len(self.split)

    @property
    def one_by_one(self) -> bool:
        """Whether samples differ in shape, as `rows_at_once` asks."""
        return bool(getattr(self.split, "one_by_one", False))

    def batch(self, sample_id: Tensor) -> Batch:
        """The samples of these rows, in this order."""
        return self.split.batch(sample_id).without_labels()


@dataclass(frozen=True)
class Context:
    """A run as rows see it. Splits and stores are opened on first use.

    splits: the splits that may be read. without_labels: the splits of which only the inputs may be read.
    """

    run: Artifacts
    params: Params
    predictor: Predictor
    splits: tuple[SplitName, ...]
    without_labels: tuple[SplitName, ...] = ()
    _shared: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @property
    def task(self) -> Task:
        """The domain."""
        return self.predictor.task

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.run.seed

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.predictor.device

    @property
    def draws(self) -> int:
        """The largest number of drawn networks in a row (`evaluate.draws`)."""
        return max(self.params.evaluate.draws)

    @property
    def gain_note(self) -> str:
        """A suffix for the titles of rows with drawn Δ if validation chose a gain for all of them, else empty."""
        return "" if self.predictor.gain is None else ", with gain"

    @property
    def as_built(self) -> nn.Module:
        """The base network with fresh weights, which says what the task freezes; not to be changed."""
        return self.once("as built", self.task.build_model)

    @property
    def all_frozen(self) -> str | None:
        """Why no row can train the base network further; None if some parameter trains."""
        trains = any(p.requires_grad for p in self.as_built.parameters())
        return None if trains else "every parameter of the base network is frozen"

    @property
    def not_afresh(self) -> str | None:
        """Why no row can train a network like the base from fresh weights; None if the task builds such a network."""
        if self.task.trains_afresh:
            return None
        return "the task has its network with given weights, and cannot train another from fresh ones"

    @property
    def untuned(self) -> str | None:
        """Why no row can have the tuned diffusion model; None if it was tuned."""
        return None if self.params.tuning.updates else "the diffusion model was not tuned (tuning.updates is 0)"

    @property
    def tuned(self) -> Predictor:
        """The predictor with the tuned diffusion model."""
        return self.once("tuned", lambda: self.predictor.tuned(self.run, self.params))

    @property
    def example_output(self) -> Tensors:
        """The base network's output for the first training sample, each (1, ...)."""
        return self.once("example output", self._first_output)

    @torch.no_grad()
    def _first_output(self) -> Tensors:
        batch = self.split("train").batch(torch.zeros(1, dtype=torch.int64)).to(self.device)
        output: Tensors = self.predictor.model.network(*batch.inputs)
        return output

    @property
    def has_classes(self) -> bool:
        """Whether the task gives probabilities of classes."""
        return self.task.log_probabilities(self.example_output) is not None

    def without_test(self) -> "Context":
        """The same, without access to the store and the labels of the test split."""
        hidden = tuple(s for s in self.splits if s not in WITHOUT_TEST)
        return replace(
            self,
            splits=tuple(s for s in self.splits if s in WITHOUT_TEST),
            without_labels=(*self.without_labels, *hidden),
        )

    def split(self, name: SplitName) -> Split:
        """A part of the prepared data."""
        assert name in self.splits, f"the {name} split is not for this row"
        return self._open(name)

    def unlabelled(self, name: SplitName) -> Split:
        """A part of the prepared data with zeros in place of the targets."""
        assert name in (*self.splits, *self.without_labels), f"the {name} split is not for this row"
        return Unlabelled(self._open(name))

    def _open(self, name: SplitName) -> Split:
        return self.once(("split", name), lambda: self.task.open(self.run.need(self.run.prepared, "prepare"), name))

    def store(self, name: SplitName) -> OverfitStore:
        """The overfit store of a split."""
        assert name in self.splits, f"the {name} store is not for this row"
        return self.once(("store", name), lambda: OverfitStore(self.run.need(self.run.overfit(name), "overfit")))

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The result of the first call of `compute` with this key, for all rows (a network that two share)."""
        if key not in self._shared:
            self._shared[key] = compute()
        found: T = self._shared[key]
        return found


@dataclass(frozen=True)
class Fitting(Context):
    """The context in which rows are fitted: the training and validation splits, and what several fits need.

    Its predictor has no gain, because the gain is chosen here.
    """

    splits: tuple[SplitName, ...] = WITHOUT_TEST

    def __post_init__(self) -> None:
        assert self.predictor.gain is None

    @cached_property
    def train_condition(self) -> Condition:
        """I(x) of every row of the training store."""
        return self.store("train").condition()

    def samples(self, name: SplitName) -> Samples:
        """A split, and I(x) of each of its samples once."""
        return Samples(self.split(name), condition_of_samples(self.store(name)))

    @torch.no_grad()
    def base_answers(self, name: SplitName) -> tuple[Tensors, Tensors]:
        """The base network's outputs of a split, in float32, and the targets, each (N, ...) on the CPU."""

        def answers() -> tuple[Tensors, Tensors]:
            split, network, found = self.split(name), self.predictor.model.network, []
            for rows in torch.split(whole_split(split), rows_at_once(split, self.task.evaluation_batch)):
                batch = split.batch(rows)
                output = network_outputs(network, batch.to(self.device).inputs)
                found.append((map_tensors(Tensor.cpu, output), batch.target))
            return concatenate([output for output, _ in found]), concatenate([target for _, target in found])

        return self.once(("base answers", name), answers)

    @cached_property
    def space(self) -> DeltaSpace:
        """Coordinates of Δ for rows that regress, fitted on the training store; saved once for all of them."""
        params, covariances = self.params, None
        if params.diffusion.representation.metric == "kfac":
            covariances = layer_covariances(self.task, self.tail, self.split("train"), self.seed)
        return DeltaSpace.fit(self.store("train"), params.diffusion, params.controls.components, covariances)

    @cached_property
    def tail(self) -> CutModel:
        """The base network cut at the layer, in float32, for what is trained or fitted through it."""
        base = self.predictor.model
        return CutModel(base.network, base.layer_name, "float32")

    @cached_property
    def coordinates_Nd(self) -> Tensor:
        """Δ of every row of the training store in `space`, float32."""
        return self.space.encode_store(self.store("train"))

    @cached_property
    def val_coordinates_Md(self) -> Tensor:
        """The same of every row of the validation store."""
        return self.space.encode_store(self.store("val"))

    @cached_property
    def ocd_flops(self) -> dict[str, int]:
        """The floating-point operations of OCD's own trainings without tuning, by part and in total."""
        predictor, params = self.predictor, self.params
        cond = self.store("train").condition(slice(0, 1))
        parts = {
            "overfit": overfit_flops(self.task, predictor.model, self.split("train"), params.overfit, self.seed),
            "diffusion": diffusion_flops(predictor.diffusion, cond, _updates(self.run.diffusion))
            + int(read_json(self.run.diffusion / "metrics.json").get("task_flops", 0)),
        }
        if params.diffusion.metric == "gauss_newton":
            representation, rows = predictor.diffusion.representation, len(self.store("train"))
            parts["metric"] = metric_flops(self.task, self.tail, self.split("train"), representation, rows, self.seed)
        if params.diffusion.representation.metric == "kfac":
            parts["covariances"] = covariance_flops(self.task, self.tail, self.split("train"), self.seed)
        if predictor.diffusion.representation.uses_scale:
            assert predictor.scale is not None
            parts["scale"] = scale_flops(predictor.scale, cond, params.scale.batch_size, _updates(self.run.scale))
        return {**parts, "total": sum(parts.values())}

    @cached_property
    def tuned_flops(self) -> dict[str, int]:
        """The same with tuning."""
        parts = {name: count for name, count in self.ocd_flops.items() if name != "total"}
        parts["tuning"] = int(read_json(self.run.need(self.run.tuned, "tune_diffusion") / "metrics.json")["flops"])
        return {**parts, "total": sum(parts.values())}

    def affordable(self, task: Task, networks: int = 1) -> tuple[int, int]:
        """The operations of one epoch of a task's network, and the epochs that cost as much as OCD's training.

        That includes the tuning, if there is any.

        Args:
            networks: how many share the cost; each has the number of epochs that is returned, at least one.
        """
        epoch = base_epoch_flops(task, self.split("train"), self.seed)
        return epoch, max(math.ceil(self.budget_flops / (epoch * networks)), 1)

    @property
    def budget_flops(self) -> int:
        """The operations of OCD's training, with the tuning if there is any: what a control may cost."""
        return (self.ocd_flops if self.untuned else self.tuned_flops)["total"]


def _updates(folder: Path) -> int:
    """How many updates the training of an artifact took."""
    return int(read_json(folder / "metrics.json")["updates"])
