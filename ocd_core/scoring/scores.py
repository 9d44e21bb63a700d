"""Layer scores: the entropy of a sample's loss when one layer's weights are perturbed (Eq. 3), and the selection.

    Score(L) = 1/|S| Σ_{(x,y) ∈ S} Entropy_{θ_L}( L(f(x, θ^L), y) )

The entropy is that of a Gaussian kernel density estimate of the losses under many perturbations θ^L (`perturb`,
`entropy`).

**Samples without density.** A sample whose loss is the same for every draw (a dead unit, a saturated
output) has no density; its differential entropy is -∞, which would make any mean -∞. The score is therefore the mean
over the samples that have a density; the others are counted and reported. A layer for which more than half of the
samples have none ranks after every layer for which at least half have one: for most samples it cannot change the loss.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ocd_core.errors import UserError
from ocd_core.network.cut import CutModel
from ocd_core.network.layers import find_layers, matrix_layers
from ocd_core.progress import Progress, no_progress, part_of
from ocd_core.rng import permutation
from ocd_core.samples import Batch, Split
from ocd_core.scoring.entropy import Doubles, entropy_gkde
from ocd_core.scoring.params import ENTROPY, LayerParams, ScoringParams
from ocd_core.scoring.perturb import layer_scale, perturbed_losses
from ocd_core.tasks.base import Task
from ocd_core.tasks.draws_inputs import scoring_batch

__all__ = [
    "LayerScore",
    "candidate_order",
    "close_call",
    "convergence_table",
    "entropy_gkde",
    "layers_report",
    "layers_to_score",
    "rank_layers",
    "score_layers",
    "score_table",
    "scored_batch",
    "scores_to_json",
    "scoring_steps",
    "select_layer",
]

_HALVINGS = 4  # how often the draws are halved in `LayerScore.convergence`
_FEWEST_DRAWS = 10


@dataclass(frozen=True)
class LayerScore:
    """The score of one layer.

    kind: `linear` or `conv`. parameters: the size of its weight. entropy: the score in nats; NaN if no sample has a
    density. stderr: standard error of that mean over samples. samples: how many were perturbed, of which
    `without_density` are not in the mean. draws: perturbations per sample. scale_absolute: their standard deviation.
    rank: from 1. convergence: pairs (number of draws, the score from that many), with doubling numbers. per_sample: the
    entropy of each sample's loss, NaN without density, for the same samples in every layer; not in `layers.json`.
    """

    name: str
    kind: str
    parameters: int
    entropy: float
    stderr: float
    samples: int
    without_density: int
    draws: int
    scale_absolute: float
    rank: int
    convergence: tuple[tuple[int, float], ...] = ()
    per_sample: tuple[float, ...] = field(default=(), repr=False, compare=False)


def score_layers(
    model: nn.Module,
    task: Task,
    split: Split,
    params: ScoringParams,
    seed: int,
    progress: Progress = no_progress,
    layers: Sequence[str] | None = None,
) -> list[LayerScore]:
    """Score layers of the base network, best first (Eq. 3).

    Args:
        model: the base network with its weights; not changed.
        split: the training samples, of which the seed selects `params.samples`.
        progress: called with the number of finished (layer, sample) pairs, out of `scoring_steps`.
        layers: the names of the layers; by default, every layer whose weight is a matrix.

    Raises:
        UserError: no layer can be perturbed, or a loss is not finite.
    """
    batch = scored_batch(task, split, params.samples, seed)
    scores: list[LayerScore] = []
    for index, name in enumerate(matrix_layers(model) if layers is None else layers):
        try:
            cut_model = CutModel(model, name)
            local = batch.to(cut_model.device)
            cut_model.prefix([x[:2] for x in local.inputs])
        except UserError as error:
            warnings.warn(f"layer {name!r} is left out of the ranking: {error}", stacklevel=2)
            continue
        scale = layer_scale(cut_model, params.noise, params.scale)
        losses_ND = perturbed_losses(
            cut_model, task, local, scale, params.draws, seed, progress=part_of(progress, index * len(batch), name)
        )
        if not torch.isfinite(losses_ND).all():
            raise UserError(
                f"layer {name!r}: a loss under perturbation is not finite; lower scoring.scale (the standard deviation "
                f"is {scale:g}) or check the base network"
            )
        scores.append(_score(cut_model, losses_ND.numpy(), scale))
    if not scores:
        raise UserError("the base network has no layer that can be scored (Linear, Conv1d or Conv2d without groups)")
    return rank_layers(scores)


def scored_batch(task: Task, split: Split, samples: int, seed: int) -> Batch:
    """At most `samples` samples that the seed selects, with the inputs that their domain scores layers on."""
    sample_id = permutation(len(split), seed, "scored samples")[:samples].sort().values
    return scoring_batch(task, split, sample_id, seed)


def scoring_steps(layers: Sequence[str], split: Split, params: ScoringParams) -> int:
    """The total that `score_layers` reports progress towards."""
    return len(layers) * min(params.samples, len(split))


def layers_to_score(model: nn.Module, params: LayerParams) -> list[str]:
    """The names of the layers that are scored: those that the params name; if there are none, all that are not frozen.

    If all layers of a network are frozen, all are scored. A layer that `select` names is always scored.

    Raises:
        UserError: the params name an unknown layer; see `find_layers`.
    """
    layers = matrix_layers(model)
    trained = [name for name, layer in layers.items() if all(p.requires_grad for p in layer.parameters())]
    named = dict.fromkeys([*(params.candidates.names or []), *([params.named] if params.named else [])])
    for name in named:
        find_layers(model, name)
    others = [] if params.candidates.names else trained or list(layers)
    return list(dict.fromkeys([*(n for n in layers if n in others or n in named), *named]))


def _score(model: CutModel, losses_ND: Doubles, scale: float) -> LayerScore:
    count, draws = losses_ND.shape
    entropy_N = entropy_gkde(losses_ND)
    mean, stderr, without = _mean(entropy_N)
    fewer = [d for d in (draws >> k for k in range(_HALVINGS, 0, -1)) if d >= _FEWEST_DRAWS]
    return LayerScore(
        name=model.layer_name,
        kind=model.kind,
        parameters=model.weight_OI.numel(),
        entropy=mean,
        stderr=stderr,
        samples=count,
        without_density=without,
        draws=draws,
        scale_absolute=scale,
        rank=0,
        convergence=(*((d, _mean(entropy_gkde(losses_ND[:, :d]))[0]) for d in fewer), (draws, mean)),
        per_sample=tuple(entropy_N.tolist()),
    )


def _mean(entropy_N: Doubles) -> tuple[float, float, int]:
    """Mean and standard error over the samples with a density, and the number of samples without one."""
    found = entropy_N[~np.isnan(entropy_N)]
    mean = float(found.mean()) if len(found) else math.nan
    stderr = float(found.std(ddof=1) / math.sqrt(len(found))) if len(found) > 1 else math.nan
    return mean, stderr, len(entropy_N) - len(found)


def rank_layers(scores: Sequence[LayerScore]) -> list[LayerScore]:
    """The scores in ranking order, with ranks from 1: highest entropy first (missing densities: see the module)."""

    def key(score: LayerScore) -> tuple[bool, float]:
        return 2 * score.without_density > score.samples, -score.entropy if not math.isnan(score.entropy) else math.inf

    return [replace(score, rank=i) for i, score in enumerate(sorted(scores, key=key), start=1)]


def close_call(scores: Sequence[LayerScore]) -> str | None:
    """A warning if the scores of the two best of these layers differ by no more than their standard error, else None.

    The layers are scored on the same samples, so the error is that of the paired differences, if `per_sample` is given.
    """
    if len(scores) < 2:
        return None
    first, second = scores[:2]
    gap, error = first.entropy - second.entropy, math.hypot(first.stderr, second.stderr)
    if first.per_sample and len(first.per_sample) == len(second.per_sample):
        gap, error, _ = _mean(np.subtract(first.per_sample, second.per_sample))
    if gap > error:
        return None
    return (
        f"the scores of {first.name} and {second.name} differ by {gap:.3g} with a standard error of {error:.2g}: which "
        "is first may be chance; raise scoring.samples, or name the layer"
    )


def select_layer(scores: Sequence[LayerScore], params: LayerParams, rank: int) -> str:
    """The layer used at `rank` (from 1).

    `select: entropy` takes the rank-th candidate. A name overrides rank 1 only; rank r > 1 is then the (r-1)-th of the
    remaining candidates.

    Raises:
        UserError: an unknown name, or fewer candidates than the rank.
    """
    order = candidate_order(scores, params)
    if not 1 <= rank <= len(order):
        raise UserError(
            f"layer rank {rank} does not exist: there are {len(order)} to choose from ({', '.join(order)}); lower the "
            "rank or widen layer.candidates"
        )
    return order[rank - 1]


def candidate_order(scores: Sequence[LayerScore], params: LayerParams) -> list[str]:
    """The layers that can be used: by their scores, but a layer that `select` names is first.

    Raises:
        UserError: the params name a layer that is not scored, or leave none.
    """
    ranked = sorted(scores, key=lambda s: s.rank)
    known = [s.name for s in ranked]
    names = params.candidates.names
    for key, wanted in (("candidates.names", names or []), ("select", [params.named] if params.named else [])):
        for name in wanted:
            if name not in known:
                raise UserError(f"layer.{key}: layer {name!r} does not exist; the scored layers are {', '.join(known)}")
    candidates = [s.name for s in ranked if (s.kind in params.candidates.kinds if names is None else s.name in names)]
    if params.named is not None:
        candidates = [params.named, *(c for c in candidates if c != params.named)]
    if not candidates:
        raise UserError(f"layer.candidates: no scored layer is of kind {' or '.join(params.candidates.kinds)}")
    return candidates


def scores_to_json(scores: Sequence[LayerScore]) -> list[dict[str, Any]]:
    """The scores as plain values without `per_sample`; undefined numbers are None."""
    rows = []
    for score in scores:
        row = {k: _plain(v) for k, v in asdict(score).items() if k not in ("per_sample", "convergence")}
        rows.append(row | {"convergence": [[draws, _plain(entropy)] for draws, entropy in score.convergence]})
    return rows


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def layers_report(
    scores: Sequence[LayerScore], params: LayerParams, validated: Sequence[str] | None = None
) -> dict[str, Any]:
    """The contents of `layers.json`: `scores` of all layers, the layer `used` at each rank ("1", "2", …), `warning`.

    The warning is that of `close_call` among the candidates; it is None unless the scores select the layer.

    Args:
        validated: with `select: validated`, the candidates in the order of their probes, best first.

    Raises:
        UserError: see `candidate_order`.
    """
    order = candidate_order(scores, params) if validated is None else list(validated)
    by_name = {s.name: s for s in scores}
    warning = close_call([by_name[name] for name in order]) if params.select == ENTROPY else None
    used = {str(rank): name for rank, name in enumerate(order, start=1)}
    return {"scores": scores_to_json(scores), "used": used, "warning": warning}


def score_table(scores: Sequence[LayerScore]) -> list[dict[str, Any]]:
    """The rows of a table and a plot (the paper's Fig. 3), best layer first."""
    return [
        {
            "layer": row["name"],
            "kind": row["kind"],
            "rank": row["rank"],
            "entropy": row["entropy"],
            "stderr": row["stderr"],
            "samples": row["samples"],
            "draws": row["draws"],
            "without_density": row["without_density"] / row["samples"],
            "scale_absolute": row["scale_absolute"],
        }
        for row in scores_to_json(scores)
    ]


def convergence_table(scores: Sequence[LayerScore]) -> list[dict[str, Any]]:
    """The rows of a plot of the score against the number of draws."""
    return [
        {"layer": score.name, "draws": draws, "entropy": _plain(entropy)}
        for score in scores
        for draws, entropy in score.convergence
    ]
