"""Probe a layer: overfit some samples in it, and see what Δ that are predicted from I(x) gain on others.

A probe costs a small part of a run. Some training samples and some validation samples are overfitted (Eq. 1); two
regressions, with a kernel and by a small network, predict the principal components of Δ from I(x), with the training
samples alone; what they predict for validation samples, times a factor, moves their weights. Then the network goes on
learning from the task's loss of the training samples, and is tried at some moments of this training. Method, factor and
moment are chosen on one half of the validation samples and judged on the other, and the reverse, so the change of the
loss is not that of a choice made on the same samples.

If none of these predicts a Δ that helps, a diffusion model hardly will: nearly everywhere that it was measured,
diffusion equals regression of Δ or loses to it, and the tuned one gains where the network does that learned from Δ and
then from the loss (docs/results.md).

Dims: N training samples, M validation samples that are judged, K of them that were overfitted, O out_features,
I in_features, d coordinates, C choices.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ocd_core.codes.encode import fit_representation
from ocd_core.codes.params import RepresentationParams
from ocd_core.codes.principal import directions
from ocd_core.codes.representations.pca import Pca
from ocd_core.errors import UserError
from ocd_core.evaluation.costs import overfit_flops
from ocd_core.evaluation.delta_networks import Hypernetwork, RegressionLoss, TrainingParams, run_phase
from ocd_core.evaluation.regression import RidgeParams, fit_ridge
from ocd_core.evaluation.space import DeltaSpace
from ocd_core.evaluation.statistics import Groups, halves, independent, paired_interval, paired_z
from ocd_core.network.cut import CutModel
from ocd_core.network.moves import Move, base_pass, outputs_with_move, row_chunks, rows_within
from ocd_core.overfit.params import NOT_REFINED, OverfitParams
from ocd_core.overfit.rows import RowBuilder
from ocd_core.probing.tuned import tuned_losses
from ocd_core.progress import Progress, no_progress, part_of
from ocd_core.rng import permutation
from ocd_core.samples import Batch, Condition, Samples, Split, groups_of, rows_at_once
from ocd_core.scoring.params import ProbeParams
from ocd_core.tasks.base import Task
from ocd_core.tasks.draws_inputs import step_batch

GAINS = (0.25, 0.5, 1.0, 2.0, 4.0)  # factors of a predicted Δ; 0, the base, is always a choice too
KERNEL, NETWORK, TUNED, NONE = "kernel", "network", "tuned network", "none"
_RIDGE = RidgeParams(
    rows=4, folds=5, widths=[0.5, 1.0, 2.0, 4.0], penalties=[1e-3, 1e-2, 1e-1, 1.0, 10.0], metric="euclidean"
)
_TRAINING = TrainingParams(
    widths=[128], updates=500, batch_size=64, lrs=[1e-3], ema=0.99, validate_every=50, patience=5
)
_HELD_OUT = 5  # one of so many training samples is for the early stopping of the network
_MORE = 4  # times as many samples as are overfitted teach through the loss, or are judged, at most
_MEMORY_MB = 512
_DELTAS_MB = 1024  # of the Δ of a split in memory, and of I(x)
_FEWEST = 20  # samples
_PLAIN = {"layout": "dense", "replicas": 1, "refine": NOT_REFINED}
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Probe:
    """What a layer's probe found, plain numbers.

    samples: training samples that were overfitted. val_samples: that were judged, some of which were overfitted.
    components: of Δ that were predicted. loss, val_loss: means under the base network; bound: val_loss with the mean
    change by overfitting. rho, val_rho: medians. r2, network_r2: of the two regressions,
    1 - Σ‖Δ̂ - Δ‖² / Σ‖Δ - mean‖² on val, where the mean is of train. cosine, network_cosine: the mean on val between Δ̂
    and Δ. regression, gain: the choice that is best on all of val. change: of val's mean loss with cross-fitted
    choices, low and high its 95 % interval by Student's t, z its paired z. val_groups: of the judged samples, each its
    own group if the split has none; halves, interval and z are of groups. flops: operations of overfitting and of both
    trainings, counted as those of a run (`ocd_core.evaluation.costs`).
    """

    layer: str
    samples: int
    val_samples: int
    components: int
    loss: float
    val_loss: float
    bound: float
    rho: float
    val_rho: float
    r2: float
    cosine: float
    network_r2: float
    network_cosine: float
    regression: str
    gain: float
    change: float
    low: float
    high: float
    z: float
    val_groups: int
    flops: int


def probe_layer(
    network: nn.Module,
    task: Task,
    train: Split,
    val: Split,
    layer: str,
    overfit: OverfitParams,
    params: ProbeParams,
    seed: int,
    progress: Progress = no_progress,
) -> Probe:
    """Probe one layer of the base network, which does not change.

    Args:
        overfit: as for the run; replicas, refinement and the layout of stores play no part.
        progress: called with the number of overfitted samples, out of `probe_steps`.

    Raises:
        UserError: the layer cannot move, its Δ are too large for memory or do not differ, or a loss is not finite.
    """
    model = CutModel(network, layer, overfit.precision)
    taught = _Overfitted.of(model, task, train, "train", overfit, params, seed, progress)
    held = _Overfitted.of(model, task, val, "val", overfit, params, seed, part_of(progress, len(taught), layer))
    space = _space(taught.delta_NOI, layer, params.components)
    code_Nd = space.representation.encode(taught.delta_NOI, None)
    judged = _with_more(model, task, val, "val", held, seed)
    hypernetwork, flops = _network(taught, code_Nd, seed)
    flops += _overfit_flops(model, task, train, overfit, seed) * (len(taught) + len(held))
    predictors: dict[str, Callable[[Condition], Tensor]] = {
        KERNEL: _ridge(taught, code_Nd, seed),
        NETWORK: torch.no_grad()(hypernetwork),
    }
    scores = {}
    for name, predict in predictors.items():
        delta_KOI = space.representation.decode(predict(held.condition), None)
        scores[name] = r2(delta_KOI, held.delta_NOI, taught.delta_NOI.mean(0)), cosine(delta_KOI, held.delta_NOI)
    choices = [(NONE, 0.0), *((name, gain) for name in predictors for gain in GAINS)]
    codes = [predict(judged.condition) for predict in predictors.values()]
    losses_CM = _losses(model, task, judged, space, codes, seed)
    base_M = losses_CM[0]
    if params.updates:
        known = _with_more(model, task, train, "train", taught, seed)
        tail = CutModel(network, layer, "float32")  # trainings are in float32
        tuned_CM, cost = tuned_losses(hypernetwork, space, task, tail, known, judged, params.updates, seed)
        choices, flops = [*choices, *[(TUNED, 1.0)] * len(tuned_CM)], flops + cost
        losses_CM = np.concatenate([losses_CM, tuned_CM.numpy()])
    of_split = groups_of(val)
    groups_M = None if of_split is None else of_split[judged.sample_id(torch.arange(len(judged)))].numpy()
    best, chosen_M = cross_fitted(losses_CM, seed, groups_M)
    low, high = paired_interval(chosen_M, base_M, groups_M)
    return Probe(
        layer=layer,
        samples=len(taught),
        val_samples=len(judged),
        components=space.size,
        loss=float(taught.values["loss_before"].mean()),
        val_loss=float(base_M.mean()),
        bound=float(base_M.mean() + (held.values["loss_after"][:, -1] - held.values["loss_before"]).mean()),
        rho=float(np.median(taught.values["rho"])),
        val_rho=float(np.median(held.values["rho"])),
        r2=scores[KERNEL][0],
        cosine=scores[KERNEL][1],
        network_r2=scores[NETWORK][0],
        network_cosine=scores[NETWORK][1],
        regression=choices[best][0],
        gain=choices[best][1],
        change=float((chosen_M - base_M).mean()),
        low=low,
        high=high,
        z=paired_z(chosen_M, base_M, groups_M),
        val_groups=independent(len(judged), groups_M),
        flops=flops,
    )


def probe_steps(train: Split, val: Split, params: ProbeParams) -> int:
    """The total that `probe_layer` reports progress towards, if memory does not lower the number of samples."""
    return min(len(train), params.samples) + min(len(val), params.samples)


@dataclass(frozen=True)
class _Overfitted:
    """Overfitted samples of a split: rows as in a store of the dense layout, in memory."""

    values: Mapping[str, npt.NDArray[Any]]

    @classmethod
    def of(
        cls,
        model: CutModel,
        task: Task,
        split: Split,
        name: str,
        overfit: OverfitParams,
        params: ProbeParams,
        seed: int,
        progress: Progress,
    ) -> "_Overfitted":
        count = min(len(split), params.samples, _DELTAS_MB * 2**20 // (4 * model.weight_OI.numel()))
        if count < min(_FEWEST, len(split)):
            raise UserError(
                f"layer {model.layer_name!r} has {model.weight_OI.numel():,} weights, too many to probe: the Δ of "
                f"{_FEWEST} samples take more than {_DELTAS_MB} MiB; leave it out of layer.candidates"
            )
        builder = RowBuilder(task, model, split, overfit.model_copy(update=_PLAIN), seed)
        sample_id = _order(split, name, seed)[:count].sort().values
        return cls(builder.some(sample_id, progress))

    def __len__(self) -> int:
        return len(self.sample_id)

    @property
    def sample_id(self) -> Tensor:
        return torch.from_numpy(self.values["sample_id"])

    @property
    def delta_NOI(self) -> Tensor:
        return torch.from_numpy(self.values["delta"])

    @cached_property
    def condition(self) -> Condition:
        nothing = np.empty((len(self), 0), np.float32)  # of a part that the task leaves empty
        names = ("layer_input", "layer_activation", "base_output")
        return Condition(*(torch.from_numpy(self.values.get(name, nothing)) for name in names))


def _space(delta_NOI: Tensor, layer: str, components: int) -> DeltaSpace:
    """As many principal components as wanted, or as there are."""
    count = min(components, directions(delta_NOI))
    if count == 0:
        raise UserError(f"layer {layer!r}: overfitting gives every sample the same Δ; nothing can be predicted")
    representation = fit_representation(
        RepresentationParams(name="pca", components=count, metric="euclidean"), delta_NOI, None, unit_variance=False
    )
    assert isinstance(representation, Pca)
    return DeltaSpace(representation)


def _ridge(rows: _Overfitted, code_Nd: Tensor, seed: int) -> Callable[[Condition], Tensor]:
    params = _RIDGE.model_copy(update={"rows": max(4, len(rows)), "folds": min(_RIDGE.folds, len(rows))})
    return fit_ridge(rows.condition, code_Nd, rows.sample_id, params, seed).ridge


def _overfit_flops(model: CutModel, task: Task, train: Split, overfit: OverfitParams, seed: int) -> int:
    """The operations of overfitting one sample."""
    return overfit_flops(task, model, train, overfit.model_copy(update=_PLAIN), seed) // len(train)


def _network(rows: _Overfitted, code_Nd: Tensor, seed: int) -> tuple[Hypernetwork, int]:
    """The network of the row `regression`, stopped early on some of the training samples, not on val; and its cost."""
    order = permutation(len(rows), seed, "held out by a probe")
    out, kept = order[: max(1, len(order) // _HELD_OUT)], order[len(order) // _HELD_OUT :]
    cond, scale = rows.condition, float(code_Nd.square().mean().sqrt())
    network = Hypernetwork.fresh(cond.select(kept), _TRAINING.widths[0], code_Nd.shape[1], scale, seed)
    objective = RegressionLoss(
        network, cond.select(kept), code_Nd[kept], cond.select(out), code_Nd[out], _TRAINING.batch_size, seed
    )
    return network, run_phase(network, objective, _TRAINING.settings(), _TRAINING.lrs, seed).flops


@torch.no_grad()
def _with_more(model: CutModel, task: Task, split: Split, name: str, overfitted: _Overfitted, seed: int) -> Samples:
    """The samples of a split that were overfitted, and more, for which I(x) is enough."""
    known, count = overfitted.condition, len(overfitted)
    one = sum(part[:1].numel() * part.element_size() for part in known.parts())
    room = max(count, _DELTAS_MB * 2**20 // max(one, 1))
    more = _order(split, name, seed)[count : min(_MORE * count, room)].sort().values
    if not len(more):
        return Samples(split, known, overfitted.sample_id)
    size = rows_at_once(split, rows_within(model, split.batch(more[:1]).to(model.device), _MEMORY_MB, matrices=1))
    found = [known]
    for rows in row_chunks(len(more), size):
        batch = split.batch(more[rows]).to(model.device)
        found.append(base_pass(task, model, batch).condition.to("cpu"))
    sample_id, places = torch.cat([overfitted.sample_id, more]).sort()
    return Samples(split, Condition.joined(found).select(places), sample_id)


def _order(split: Split, name: str, seed: int) -> Tensor:
    """A split's samples in the order in which they are taken: the first are overfitted."""
    return permutation(len(split), seed, "probed samples", name)


@torch.no_grad()
def _losses(
    model: CutModel, task: Task, samples: Samples, space: DeltaSpace, codes: Sequence[Tensor], seed: int
) -> Values:
    """The loss of each sample under θ, then under each of its predicted Δ times each factor, float64 (C, M).

    It is of the inputs that overfitting sees.

    Args:
        codes: of each method's predicted Δ, (M, d).
    """
    losses_CM = np.empty((1 + len(codes) * len(GAINS), len(samples)))

    def inputs(rows: Tensor) -> Batch:
        sample_id = samples.sample_id(rows)
        return step_batch(task, samples.split, sample_id, torch.zeros_like(sample_id), 0, seed).to(model.device)

    places = torch.arange(len(samples))
    size = rows_at_once(samples.split, rows_within(model, inputs(places[:1]), _MEMORY_MB, matrices=3))
    for rows in row_chunks(len(samples), size):
        batch = inputs(places[rows])
        cut = model.prefix(batch.inputs)
        moves = (space.move(code_Md[rows].to(model.device), cut.layer_input_NI) for code_Md in codes)
        for choice, move in enumerate(_scaled(moves)):
            output = outputs_with_move(model, cut, move)
            losses_CM[choice, rows] = task.loss(output, batch.target).double().cpu().numpy()
    if not np.isfinite(losses_CM).all():
        raise UserError(f"layer {model.layer_name!r}: a loss under a predicted Δ is not finite; lower overfit.lr")
    return losses_CM


def _scaled(moves: Iterable[Move]) -> Iterator[Move]:
    """No move, in which all methods are the base, then each method's move times each factor."""
    for i, move in enumerate(moves):
        if i == 0:
            yield 0.0 * move
        yield from (gain * move for gain in GAINS)


def cross_fitted(losses_CM: Values, seed: int, groups_M: Groups | None = None) -> tuple[int, Values]:
    """The choice that is best on all samples, and each sample's loss under the choice that is best on the other half.

    A single sample or group has no other half; its choice is the first, the base.

    Args:
        losses_CM: by choice and sample.
        groups_M: of the samples; a group is in one half. None: each sample is its own group.
    """
    chosen_M = losses_CM[0].copy()
    if independent(len(chosen_M), groups_M) < 2:
        return 0, chosen_M
    half_M = halves(len(chosen_M), groups_M, seed, "halves of a probe")
    for half in (0, 1):
        best = int(losses_CM[:, half_M != half].mean(1).argmin())
        chosen_M[half_M == half] = losses_CM[best, half_M == half]
    return int(losses_CM.mean(1).argmin()), chosen_M


def r2(predicted_MOI: Tensor, delta_MOI: Tensor, mean_OI: Tensor) -> float:
    """1 - Σ‖Δ̂ - Δ‖² / Σ‖Δ - mean‖²; 0 if all Δ equal the mean."""
    rest = float((delta_MOI - mean_OI).double().square().sum())
    return 1 - float((predicted_MOI - delta_MOI).double().square().sum()) / rest if rest else 0.0


def cosine(predicted_MOI: Tensor, delta_MOI: Tensor) -> float:
    """The mean cosine between predicted and real Δ; pairs of which one is 0 count as 0."""
    return float(nn.functional.cosine_similarity(predicted_MOI.flatten(1), delta_MOI.flatten(1)).mean())
