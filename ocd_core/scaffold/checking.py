"""Check a task before it runs: params against the data, which layers can move, what each stage needs.

Times are measured on this machine with one batch, or a few updates, so they are right to within a factor of about two.
They are those of trainings that do not stop early.

Dims: N samples, O out_features, I in_features.
"""

import math
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ocd_core.config import Params
from ocd_core.errors import UserError
from ocd_core.evaluation.delta_networks import TrainingParams
from ocd_core.evaluation.further import FurtherParams
from ocd_core.evaluation.regression import RidgeParams
from ocd_core.network.cut import CutModel
from ocd_core.network.layers import matrix_layers
from ocd_core.network.training import load_base, seeded_network, set_training_mode
from ocd_core.overfit.layout import check_selected
from ocd_core.overfit.rows import RowBuilder
from ocd_core.provenance import Lineage
from ocd_core.samples import SPLITS, Batch, Split, SplitName, rows_at_once
from ocd_core.scaffold.trials import REPRESENTATIONS, SAMPLES, Trials, activations, bytes_of, kernel_seconds, seconds
from ocd_core.tasks.base import Task

_MB = 2**20


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
        needs += _needs(params, task, network, splits, layer, layers)
    return Check({name: len(split) for name, split in splits.items()}, layers, layer, needs)


def _first(split: Split, count: int) -> Batch:
    return split.batch(torch.arange(min(len(split), rows_at_once(split, count))))


def _check_loss(task: Task, network: nn.Module, train: Split) -> None:
    batch = _first(train, 2)
    with torch.no_grad():
        try:
            loss_N = task.loss(network.eval()(*batch.inputs), batch.target)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            shapes = ", ".join(str(tuple(x.shape)) for x in batch.inputs)
            raise UserError(
                f"the base network does not fit the data (inputs {shapes}); change base.model: "
                f"{' '.join(str(error).split())[:300]}"
            ) from error
    if loss_N.shape != (len(batch),) or not bool(torch.isfinite(loss_N).all()):
        raise UserError(f"the loss of {len(batch)} samples is {loss_N.tolist()}; one finite number for each is needed")


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
    params: Params, task: Task, network: nn.Module, splits: dict[SplitName, Split], layer: str, layers: list[Layer]
) -> list[Need]:
    train = splits["train"]
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
    forward = seconds(lambda: model.prefix(_first(train, 8).inputs)) / min(8, len(train))
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
        needs += _trainings(params, trials, builder.rows, epoch)
    return needs


def _trainings(params: Params, trials: Trials, rows: int, epoch: float) -> list[Need]:
    """What the stages after overfitting need.

    Args:
        rows: of the training store.
        epoch: seconds of training the base network.
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
    trained = sum(need.minutes or 0.0 for need in needs[:2])
    known = {name: _control(params, name, trials, rows, trained, epoch) for name in params.controls.fit}
    timed = {name: found for name, found in known.items() if found is not None}
    told = [f"{name} {found:.2g}" for name, found in timed.items()]
    left = [name for name in known if name not in timed]
    note = "; ".join([*([", ".join(told)] if told else []), *([f"not known: {', '.join(left)}"] if left else [])])
    needs.append(Need("train_controls", sum(timed.values()), None, None, note))
    return needs


def _control(params: Params, name: str, trials: Trials, rows: int, trained: float, epoch: float) -> float | None:
    """Minutes of fitting a control; None if they are not known.

    Args:
        trained: minutes of OCD's trainings, on which the base may be trained further.
    """
    own = params.controls.of_row(name)
    if isinstance(own, TrainingParams):
        return trials.hypernetwork(own)
    if isinstance(own, FurtherParams):
        return trained if own.epochs is None else len(own.lrs) * own.epochs * epoch / 60
    if isinstance(own, RidgeParams):
        return len(own.widths) * len(own.penalties) * kernel_seconds(min(rows, own.rows)) / 60
    return 0.0 if name == "mean_delta" else None


def _base(params: Params, task: Task, network: nn.Module, train: Split) -> tuple[Need, float]:
    """What train_base needs, and the seconds of an epoch."""
    size = min(len(train), params.base.batch_size)
    trained = any(p.requires_grad for p in network.parameters())

    def update() -> None:
        set_training_mode(network)
        batch = task.training_batch(train, torch.arange(size), 0, 1)
        loss_N = task.training_loss(network(*batch.inputs), batch.target, params.base.label_smoothing)
        loss_N.mean().backward()  # type: ignore[no-untyped-call]
        network.zero_grad(set_to_none=True)

    epoch, kept = 0.0, [0]
    if trained:
        state = {name: value.clone() for name, value in network.state_dict().items()}
        with activations() as kept:
            update()
        epoch = seconds(update) * math.ceil(len(train) / size)
        network.load_state_dict(state)  # batch norms have moved
        network.eval()
    if params.base.checkpoint is not None or not trained:
        return Need("train_base", 0.0, None, None, "given weights"), epoch
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    memory = (kept[0] + bytes_of(network)) / _MB
    note = f"{params.base.epochs} epochs at most"
    return Need("train_base", epoch * params.base.epochs / 60, memory, weights / _MB, note), epoch


def _size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / _MB
