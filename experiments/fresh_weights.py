"""The other reading of Eq. 3: a layer's weights are drawn afresh, and the entropy is across samples.

It is that of the code of Lutati and Wolf (2021), which the paper follows in selecting a layer:

    Score(L) = max_W Entropy_{(x,y) ∈ S}( L(f(x, θ with W as the weight of layer L), y) ),  W ~ N(0, 2 / fan_in)

The W are those of `torch.nn.init.kaiming_normal_`; biases stay. For each W, the density of the samples' losses is a
Gaussian KDE with the fixed bandwidth .2, in the units of the loss. That code evaluates the density f at 100 points from
0 to 100, and takes -Σ f ln f as the entropy. The distance between the points is five bandwidths, so the sum is not the
entropy: it depends on where the losses are between the points. Here both are computed.

Dims: N samples, D draws, G points of the grid.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from ocd_core.network.cut import CutModel
from ocd_core.network.layers import matrix_layers
from ocd_core.progress import Progress, no_progress, part_of
from ocd_core.report.markdown import markdown_table
from ocd_core.samples import Split
from ocd_core.scoring.entropy import Doubles, entropy_gkde
from ocd_core.scoring.perturb import perturbed_losses
from ocd_core.scoring.scores import scored_batch
from ocd_core.tasks.base import Task

BANDWIDTH = 0.2
_GRID = np.linspace(0, 100, 100)


@dataclass(frozen=True)
class FreshScore:
    """The score of one layer with fresh weights.

    kind: `linear` or `conv`. parameters: the size of its weight. entropy: in nats, the largest over all draws.
    from_half: the largest over the first half of them. median: over all draws. on_grid: the largest -Σ f ln f over the
    100 points of the authors' code.
    """

    name: str
    kind: str
    parameters: int
    entropy: float
    from_half: float
    median: float
    on_grid: float


def fresh_scores(
    model: nn.Module,
    task: Task,
    split: Split,
    samples: int,
    draws: int,
    seed: int = 0,
    progress: Progress = no_progress,
) -> list[FreshScore]:
    """Score every layer whose weight is a matrix, highest entropy first.

    Args:
        model: the base network with its weights; not changed.
        split: the training samples, of which the seed selects `samples`, the same for all draws.
        draws: how many weights are drawn for each layer, at least 2.
        progress: called with the number of finished (layer, sample) pairs.
    """
    batch = scored_batch(task, split, samples, seed)
    scores = []
    for index, name in enumerate(matrix_layers(model)):
        cut_model = CutModel(model, name)
        losses_ND = perturbed_losses(
            cut_model,
            task,
            batch.to(cut_model.device),
            math.sqrt(2 / cut_model.weight_OI.shape[1]),
            draws,
            seed,
            fresh=True,
            progress=part_of(progress, index * len(batch), name),
        )
        losses_DN = losses_ND.numpy().T
        entropy_D = entropy_gkde(losses_DN, BANDWIDTH)
        score = FreshScore(
            name=name,
            kind=cut_model.kind,
            parameters=cut_model.weight_OI.numel(),
            entropy=float(entropy_D.max()),
            from_half=float(entropy_D[: draws // 2].max()),
            median=float(np.median(entropy_D)),
            on_grid=float(entropy_on_grid(losses_DN).max()),
        )
        scores.append(score)
    return sorted(scores, key=lambda s: -s.entropy)


def entropy_on_grid(losses_DN: Doubles) -> Doubles:
    """-Σ f ln f over 100 points from 0 to 100, as in the authors' code, where f is the density of a row; (D,)."""
    from scipy.special import entr
    from scipy.stats import norm

    def of_row(losses_N: Doubles) -> float:
        density_NG = norm.pdf(_GRID, loc=losses_N[:, None], scale=BANDWIDTH)
        return float(entr(density_NG.mean(0)).sum())

    return np.array([of_row(losses_N) for losses_N in losses_DN])


def fresh_table(scores: Sequence[FreshScore]) -> str:
    """The scores as a table, best first, with the rank by the authors' sum."""
    by_grid = sorted(scores, key=lambda s: -s.on_grid)
    columns = ["layer", "kind", "weights", "rank", "entropy (nats)", "from half the draws", "median draw"]
    rows = [
        [
            s.name,
            s.kind,
            f"{s.parameters:,}",
            str(rank),
            f"{s.entropy:.3f}",
            f"{s.from_half:.3f}",
            f"{s.median:.3f}",
            f"{s.on_grid:.3f}",
            str(by_grid.index(s) + 1),
        ]
        for rank, s in enumerate(scores, start=1)
    ]
    return markdown_table([*columns, "sum on 100 points", "its rank"], rows, text_columns=2)
