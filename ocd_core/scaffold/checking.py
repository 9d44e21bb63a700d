"""Check a task before it runs: params against the data, which layers can move, what each stage needs.

Times are measured on this machine with one batch, or a few updates, so they are right to within a factor of about two.
They are those of trainings that do not stop early.

Dims: N samples, O out_features, I in_features.
"""

import copy
import math
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ocd_core.config import Params
from ocd_core.errors import UserError
from ocd_core.network.cut import CutModel
from ocd_core.network.fits import check_fits
from ocd_core.network.layers import matrix_layers
from ocd_core.network.training import load_base, seeded_network, set_training_mode
from ocd_core.overfit.base_values import storable
from ocd_core.overfit.layout import check_selected
from ocd_core.overfit.rows import RowBuilder
from ocd_core.provenance import Lineage
from ocd_core.samples import SPLITS, Batch, Split, SplitName, rows_at_once
from ocd_core.scaffold.controls import Budget, Controls
from ocd_core.scaffold.trials import REPRESENTATIONS, SAMPLES, Trials, activations, bytes_of, seconds
from ocd_core.tasks.base import Task

_MB = 2**20
_OF_OCD = ("overfit", "train_diffusion", "train_scale", "tune_diffusion")  # stages


@dataclass(frozen=True)
class Layer:
    """A layer of the base network. shape: (O, I). positions: that it sees in a sample. why_not: None if it can move."""

    name: str
    kind: str
    shape: tuple[int, int]
    positions: int
    candidate: bool
    why_not: str | None


@dataclass(frozen=True)
class Need:
    """What a stage needs; None: not known beforehand. minutes: of one process on this machine, at most."""

    stage: str
    minutes: float | None
    memory_mb: float | None
    disk_mb: float | None
    note: str = ""


@dataclass(frozen=True)
class Check:
    """The result. samples: of each split."""

    samples: dict[SplitName, int]
    layers: list[Layer]
    layer: str
    needs: list[Need]


def check_task_params(lineage: Lineage) -> Check:
    """Check a task's params against its data.

    The prepared data of a run is used if it is current; otherwise the data is prepared in a temporary folder.

    Raises:
        UserError: the data is missing or not as the params say, the network does not fit it, the loss is wrong, or no
            candidate layer can move as the params say.
    """
    params = lineage.params
    with ExitStack() as stack:
        prepared, took = lineage.artifacts.prepared, None
        if lineage.outdated("prepared") is not None:
            prepared = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "prepared"
            prepared.mkdir()
            took = seconds(lambda: params.build_task().prepare(prepared))
        task = params.build_task(prepared)
        splits = {name: task.open(prepared, name) for name in SPLITS}
        for name, split in splits.items():
            if len(split) == 0:
                raise UserError(f"the {name} split is empty; see data in params/{lineage.artifacts.task}.yaml")
        seed = lineage.artifacts.seed
        network = seeded_network(task, seed) if params.base.checkpoint is None else load_base(task, params.base, seed)
        _check_loss(task, network, splits["train"])
        layers = _layers(network, task, splits["train"], params)
        layer = _selected(layers, params)
        needs = [Need("prepare", None if took is None else took / 60, None, _size(prepared))]
        needs += _needs(lineage, task, network, splits, layer, layers)
    return Check({name: len(split) for name, split in splits.items()}, layers, layer, needs)


def _first(split: Split, count: int) -> Batch:
    return split.batch(torch.arange(min(len(split), rows_at_once(split, count))))


def _check_loss(task: Task, network: nn.Module, train: Split) -> None:
    storable(task.stored_target(_first(train, 2)))
    check_fits(task, network, train)


def _layers(network: nn.Module, task: Task, train: Split, params: Params) -> list[Layer]:
    wanted = params.layer.candidates
    named = [] if params.layer.named is None else [params.layer.named]
    names = list(dict.fromkeys([*named, *(wanted.names or ()), *matrix_layers(network)]))
    batch, found = _first(train, 1), []
    for name in names:
        try:
            model = CutModel(network, name)
            cut = model.prefix(batch.inputs)
        except UserError as error:
            if name in named or (wanted.names and name in wanted.names):
                raise
            found.append(Layer(name, "", (0, 0), 0, False, str(error)))
            continue
        try:
            check_selected(network, name, task, train, params)
            why = None
        except UserError as error:
            why = str(error)
        among = name in wanted.names if wanted.names is not None else model.kind in wanted.kinds
        outs, ins = model.weight_OI.shape
        found.append(Layer(name, model.kind, (outs, ins), cut.x_NPI.shape[1], among or name in named, why))
    return found


def _selected(layers: list[Layer], params: Params) -> str:
    """The layer that will move if it is named, else the largest candidate, for upper bounds."""
    known = {layer.name: layer for layer in layers}
    if params.layer.named is not None:
        why = known[params.layer.named].why_not
        if why is not None:
            raise UserError(why)
        return params.layer.named
    possible = [layer for layer in layers if layer.candidate and layer.why_not is None]
    if not possible:
        reasons = "; ".join(f"{x.name}: {x.why_not}" for x in layers if x.candidate) or "none is a candidate"
        raise UserError(f"layer.select: no layer can move as the params say ({reasons})")
    return max(possible, key=lambda x: x.shape[0] * x.shape[1]).name


def _needs(
    lineage: Lineage, task: Task, network: nn.Module, splits: dict[SplitName, Split], layer: str, layers: list[Layer]
) -> list[Need]:
    params, train = lineage.params, splits["train"]
    outs, ins = next(x.shape for x in layers if x.name == layer)
    base, epoch = _base(params, task, network, train)
    model = CutModel(network, layer, params.overfit.precision)
    builder = RowBuilder(task, model, train, params.overfit, 0)
    schema = builder.schema()
    rows = min(builder.rows, builder.batch_rows, SAMPLES)
    buffers = builder.buffers(schema)
    builder.fill(slice(0, 1), buffers)  # what is made once does not count
    each = seconds(lambda: builder.fill(slice(0, rows), buffers)) / rows
    count = sum(len(split) for split in splits.values()) + builder.rows - len(train)
    row_mb = sum(math.prod(spec.shape[1:]) * 4 for spec in schema.arrays().values()) / _MB
    scored = [x for x in layers if x.candidate]
    tried = min(params.scoring.samples, len(train)) * params.scoring.draws * len(scored)
    batch = _first(train, 8)
    forward = seconds(lambda: model.prefix(batch.inputs)) / len(batch)
    needs = [
        base,
        Need("score_layers", tried * forward / 60, None, None, f"{len(scored)} layers, at most"),
        Need("overfit", count * each / 60, float(params.overfit.memory_mb), count * row_mb),
    ]
    kind = params.diffusion.representation
    if kind.name == "pca":
        most = min(builder.rows - 1, outs * ins)
        if kind.components > most:
            raise UserError(
                f"diffusion.representation.components is {kind.components}, but {builder.rows} training Δ of "
                f"{outs * ins} entries have at most {most}; lower it"
            )
    if kind.name in REPRESENTATIONS:
        trials = Trials(params, task, CutModel(network, layer, "float32"), train, len(splits["val"]))
        needs += _trainings(params, trials, builder.rows)
        trained = sum(need.minutes or 0.0 for need in needs if need.stage in _OF_OCD)
        budget = Budget(lambda of: epoch if of is task else _epoch(params, of, train), trained)
        needs.append(_controls(Controls(lineage, trials, splits, builder.rows, budget, forward)))
    return needs


def _trainings(params: Params, trials: Trials, rows: int) -> list[Need]:
    """What the trainings of OCD need.

    Args:
        rows: of the training store.
    """
    outs, ins = trials.model.weight_OI.shape
    matrix = 12 * rows * outs * ins if params.diffusion.representation.name == "pca" else 0
    minutes, memory = trials.diffusion()
    needs = [
        Need("train_diffusion", minutes, (memory + matrix) / _MB, None, f"{params.diffusion.updates} updates at most")
    ]
    scale = trials.scale()
    if scale is None:
        name = params.diffusion.representation.name
        needs.append(Need("train_scale", 0.0, None, None, f"{name} has no scale of its own"))
    else:
        needs.append(Need("train_scale", scale[0], scale[1] / _MB, None, f"{params.scale.updates} updates at most"))
    tuning, rates = params.tuning, len(params.tuning.lrs)
    if not tuning.updates:
        needs.append(Need("tune_diffusion", 0.0, None, None, "tuning.updates is 0"))
    else:
        found = trials.tuning()
        note = f"{tuning.updates} updates with each of {rates} learning rates at most"
        needs.append(Need("tune_diffusion", found[0], found[1] / _MB, None, note))
    return needs


def _controls(controls: Controls) -> Need:
    """What fitting the controls needs, with the minutes of each in the note."""
    found = controls.estimate()
    told = [f"{name} {minutes:.2g}" for name, minutes in found.minutes.items()]
    parts = {"": told, "not known: ": found.unknown, "left out: ": list(found.left_out)}
    note = "; ".join(f"{what}{', '.join(names)}" for what, names in parts.items() if names)
    return Need("train_controls", sum(found.minutes.values()), None, None, note)


class _Updates:
    """Updates of the training of a network, one like the base of its task unless it is given."""

    def __init__(self, params: Params, task: Task, train: Split, network: nn.Module | None = None) -> None:
        self.task, self.train, self.smoothing = task, train, params.base.label_smoothing
        self.size = min(len(train), params.base.batch_size)
        self.network = task.build_model() if network is None else network

    def run(self) -> None:
        set_training_mode(self.network)
        batch = self.task.training_batch(self.train, torch.arange(self.size), 0, 1)
        loss_N = self.task.training_loss(self.network(*batch.inputs), batch.target, self.smoothing)
        loss_N.mean().backward()  # type: ignore[no-untyped-call]
        self.network.zero_grad(set_to_none=True)

    def epoch(self) -> float:
        """Its seconds, without validation; what happens once must have happened in an earlier update."""
        return seconds(self.run) * math.ceil(len(self.train) / self.size)


def _epoch(params: Params, task: Task, train: Split) -> float:
    """The seconds of an epoch of a task whose base network has not been tried yet."""
    updates = _Updates(params, task, train)
    updates.run()
    return updates.epoch()


def _base(params: Params, task: Task, network: nn.Module, train: Split) -> tuple[Need, float]:
    """What train_base needs, and the seconds of an epoch."""
    trained = any(p.requires_grad for p in network.parameters())
    epoch, kept = 0.0, [0]
    if trained:
        updates = _Updates(params, task, train, copy.deepcopy(network))
        with activations() as kept:
            updates.run()
        epoch = updates.epoch()
    if params.base.checkpoint is not None or not trained:
        return Need("train_base", 0.0, None, None, "given weights"), epoch
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    memory = (kept[0] + bytes_of(network)) / _MB
    note = f"{params.base.epochs} epochs at most"
    return Need("train_base", epoch * params.base.epochs / 60, memory, weights / _MB, note), epoch


def _size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / _MB
