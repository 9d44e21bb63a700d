"""How long the trainings over Δ take, and what memory they need: a few of their updates, tried on a few real samples.

The networks have their real sizes, which depend on I(x) and on the representation of Δ. Their inputs are I(x) of some
samples of the training split, and codes of Δ are random numbers, because times depend on shapes alone.

Dims: N samples.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ocd_core.codes.representations.base import Representation
from ocd_core.codes.representations.dense import Dense
from ocd_core.codes.representations.factored import Factored
from ocd_core.codes.representations.pca import Pca
from ocd_core.config import Params
from ocd_core.diffusion.joint import TaskSide
from ocd_core.diffusion.memory import training_memory
from ocd_core.diffusion.model import DiffusionModel
from ocd_core.diffusion.training import train_diffusion
from ocd_core.diffusion.tuning import tune
from ocd_core.evaluation.space import DeltaSpace
from ocd_core.network.cut import CutModel
from ocd_core.network.moves import base_pass
from ocd_core.predictor import Predictor
from ocd_core.samples import Samples, Split
from ocd_core.scaffold.few import first_samples
from ocd_core.scale.network import ScaleNetwork
from ocd_core.scale.training import train_scale
from ocd_core.tasks.base import Task

REPRESENTATIONS = ("factored", "pca", "dense")  # of known sizes
SAMPLES = 32  # that are tried
_UPDATES = 4  # that are timed, after one that is not
_TRAININGS = ((1, 1), (1 + _UPDATES, 1 + _UPDATES), (2, 1))  # updates, validate_every
_SLOW = 2.0  # seconds of an update after which one is enough
_BYTES = 100 * 2**20  # of activations, above which a part of a batch is tried
_COPIES = 6  # of the weights: themselves, gradients, Adam's two moments, the moving average, its best state


@dataclass(frozen=True)
class Trial:
    """What was measured, in seconds. update: one update; validation: one on `samples`; start: what happens once."""

    update: float
    validation: float
    start: float
    samples: int

    def minutes(self, updates: int, validate_every: int, validated: int) -> float:
        """Of a whole training that does not stop early.

        Args:
            validated: how many samples the validation split has.
        """
        validations = updates / validate_every * max(1.0, validated / self.samples)
        return (self.start + updates * self.update + validations * self.validation) / 60


def tried(train: Callable[[int, int], object], samples: int) -> Trial:
    """Run a training for very few updates, so often that what happens once (imports, compilation) does not count.

    Args:
        train: trains for so many updates, with a validation after every so many; it validates on `samples` samples.
    """
    first = seconds(lambda: train(1, 1))
    if first > _SLOW:
        return Trial(first, first, 0.0, samples)
    one, more, twice = (seconds(lambda n=n, every=every: train(n, every)) for n, every in _TRAININGS)  # type: ignore[misc]
    update = max(0.0, more - one) / _UPDATES
    validation = max(0.0, twice - one - update)
    return Trial(update, validation, max(0.0, one - update - validation), samples)


def seconds(work: Callable[[], object]) -> float:
    """How long a piece of work takes on the clock."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def kernel_seconds(rows: int) -> float:
    """Of inverting one kernel matrix of so many rows, measured on a smaller one."""
    size = min(rows, 300)
    matrix = torch.eye(size, dtype=torch.float64) + 1.0 / size
    return seconds(lambda: torch.cholesky_inverse(torch.linalg.cholesky(matrix))) * (rows / size) ** 3


@contextmanager
def activations() -> Iterator[list[int]]:
    """Adds up in the list's one number the bytes that autograd keeps for backward passes in the block."""
    total, seen = [0], set()

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield total


def bytes_of(network: nn.Module) -> int:
    """What the copies of its weights take during a training."""
    return _COPIES * sum(p.numel() * p.element_size() for p in network.parameters())


class Trials:
    """The trainings over Δ of a task, tried on its first training samples.

    Args:
        model: the base network cut at the layer that moves, in float32.
        validated: how many samples the validation split has.
    """

    def __init__(self, params: Params, task: Task, model: CutModel, train: Split, validated: int) -> None:
        self.params, self.task, self.model, self.validated = params, task, model, validated
        self.samples = self.first(train, SAMPLES)
        self.count = len(self.samples)
        outs, ins = model.weight_OI.shape
        self.representation = _empty(params, outs, ins)
        self.codes = torch.randn(self.count, *self.representation.shape, generator=torch.Generator().manual_seed(0))
        self._model: DiffusionModel | None = None
        self._scale: ScaleNetwork | None = None

    @torch.no_grad()
    def first(self, split: Split, count: int) -> Samples:
        """The first samples of a split, at most `count`, and their I(x)."""
        few = first_samples(split, count)
        batch = few.batch(torch.arange(len(few)))
        return Samples(few, base_pass(self.task, self.model, batch).condition)

    def diffusion(self) -> tuple[float, float]:
        """(minutes, bytes) of the stage train_diffusion, at most."""
        params = self.params.diffusion
        need = training_memory(params, self.representation.shape)
        part = -(-params.batch_size // params.accumulate)
        size = max(1, min(part, int(part * _BYTES / max(1, need.activations))))
        side = TaskSide(self.task, self.model, self.samples, self.samples, 1.0, "") if params.task_loss else None
        found = tried(lambda updates, every: self._train_diffusion(size, updates, every, side), self.count)
        whole = replace(found, update=found.update * params.batch_size / size)
        return whole.minutes(params.updates, params.validate_every, self.validated), need.total

    def scale(self) -> tuple[float, float] | None:
        """(minutes, bytes) of the stage train_scale, at most; None if the representation needs no scale."""
        if not self.representation.uses_scale:
            return None
        params = self.params.scale
        rho_N = torch.rand(self.count, generator=torch.Generator().manual_seed(0)) + 0.1

        def train(updates: int, every: int) -> None:
            few = params.model_copy(update={"updates": updates, "validate_every": every})
            few = few.model_copy(update={"warm_start": params.warm_start.model_copy(update={"updates": 0})})
            condition = self.samples.condition
            self._scale = train_scale(condition, rho_N, condition, rho_N, few, 0).network

        with activations() as kept:
            train(1, 1)
        found = tried(train, self.count)
        assert self._scale is not None
        updates = params.updates + params.warm_start.updates
        return found.minutes(updates, params.validate_every, self.validated), kept[0] + bytes_of(self._scale)

    def tuning(self) -> tuple[float, float]:
        """(minutes, bytes) of the stage tune_diffusion, at most; after `diffusion` and `scale`."""
        params, model = self.params.tuning, self._model
        assert model is not None
        coded = (self.codes, self.samples.condition)
        part = -(-params.batch_size // params.accumulate)

        def train(updates: int, every: int) -> None:
            changes = {"updates": updates, "validate_every": every, "lrs": params.lrs[:1], "accumulate": 1}
            few = params.model_copy(update={**changes, "batch_size": part})
            renormalise = self.params.sampling.renormalise
            deltas = (coded, coded) if params.delta_weight else None
            tune(self.task, self.model, model, self._scale, self.samples, self.samples, few, renormalise, 0, deltas)

        with activations() as kept:
            train(1, 1)
        found = tried(train, self.count)
        whole = replace(found, update=found.update * params.accumulate)
        minutes = len(params.lrs) * whole.minutes(params.updates, params.validate_every, self.validated)
        return minutes, kept[0] + bytes_of(model)

    def _train_diffusion(self, size: int, updates: int, every: int, side: TaskSide | None) -> None:
        changes: dict[str, Any] = {"batch_size": size, "accumulate": 1, "updates": updates, "validate_every": every}
        few = self.params.diffusion.model_copy(update={**changes, "warmup": 0, "metric": "euclidean"})
        condition = self.samples.condition
        self._model = train_diffusion(
            self.codes, condition, self.codes, condition, few, self.representation, 0, side=side
        ).model

    def predictor(self) -> Predictor:
        """Draws with the models that were tried; after `diffusion` and `scale`."""
        assert self._model is not None
        model = CutModel(self.model.network, self.model.layer_name, self.params.evaluate.precision)
        return Predictor(self.task, model, self._model, self._scale, self.params.sampling)

    def space(self) -> DeltaSpace:
        """That of the controls, not fitted to any Δ; a dense representation is replaced by components."""
        outs, ins = self.model.weight_OI.shape
        if self.representation.name == "pca":
            return DeltaSpace(self.representation)
        if self.representation.name == "factored":
            return DeltaSpace(Factored(outs, ins, unit_variance=False))
        return DeltaSpace(Pca(outs, ins, self.params.controls.components))


def _empty(params: Params, outs: int, ins: int) -> Representation:
    """The representation, not fitted to any Δ."""
    wanted = params.diffusion.representation
    if wanted.name == "pca":
        return Pca(outs, ins, wanted.components)
    cls = {"dense": Dense, "factored": Factored}[wanted.name]
    return cls(outs, ins, params.diffusion.unit_variance)
