"""Whether drawn Δ are training Δ again, and what the representation of Δ throws away.

*Memorisation.* Each drawn Δ has a nearest training Δ, and so has the real Δ of the same validation sample, which no
training has seen. If draws are much nearer to the training Δ than real Δ are, the diffusion model repeats what it was
trained on. Besides, a draw that is nearer to one training Δ than a third of its distance to the next counts as a copy
(as in Yoon et al., 2023). Distances are Euclidean, between the codes that the diffusion model is trained on.

*The representation.* A code need not hold all of Δ (`pca` keeps some components). The loss under decode(encode(Δ)) is
what a perfect draw could reach; with the whole Δ it is the loss after overfitting.

Both use a seeded subset of the validation samples, and every training sample (its first replica).

Dims: M validation samples, N training samples, O out_features, I in_features, d numbers of a code.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ocd_core.codes.encode import read_deltas
from ocd_core.codes.representations.base import Representation
from ocd_core.evaluation.context import Context
from ocd_core.evaluation.distances import squared_distances
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.network.moves import row_chunks, rows_within
from ocd_core.rng import permutation
from ocd_core.samples import rows_at_once
from ocd_core.store import OverfitStore

SAMPLES = 200  # of validation, at most
COPY = 1 / 3  # of the distance to the second nearest
_MEMORY_MB = 512


@dataclass(frozen=True)
class Nearest:
    """The distances of M codes to their nearest and second nearest training code, float64 (M,)."""

    first_M: Tensor
    second_M: Tensor

    @property
    def copies(self) -> float:
        """The share of codes that are copies of a training code."""
        return float((self.first_M < COPY * self.second_M).double().mean())


@dataclass(frozen=True)
class Memorisation:
    """What `measure_memorisation` finds.

    training: N. held_out: of the real Δ. drawn: {model: of one draw for each of the same samples}. before, overfitted,
    decoded: the loss of each sample under θ, θ + Δ and θ + decode(encode(Δ)), float64 (M,). loss_after: as the store
    has it, on what overfitting saw.
    """

    training: int
    held_out: Nearest
    drawn: Mapping[str, Nearest]
    before: Tensor
    overfitted: Tensor
    decoded: Tensor
    loss_after: Tensor

    def summary(self) -> dict[str, Any]:
        """Plain numbers. `kept`: the share of the gain of overfitting that decode(encode(Δ)) has, None without one."""
        held = float(self.held_out.first_M.median())
        gain = float((self.before - self.overfitted).mean())
        return {
            "samples": len(self.before),
            "training": self.training,
            "nearest": {
                "held_out": {"median": held, "copies": self.held_out.copies},
                **{
                    model: {
                        "median": (median := float(found.first_M.median())),
                        "of_held_out": median / held if held else None,
                        "copies": found.copies,
                    }
                    for model, found in self.drawn.items()
                },
            },
            "representation": {
                "loss": float(self.before.mean()),
                "loss_overfitted": float(self.overfitted.mean()),
                "loss_decoded": float(self.decoded.mean()),
                "loss_after": float(self.loss_after.mean()),
                "kept": float((self.before - self.decoded).mean()) / gain if gain else None,
            },
        }

    def per_sample(self) -> list[dict[str, float]]:
        """The distances of every sample, for plots."""
        columns = {"held_out": self.held_out.first_M, **{name: found.first_M for name, found in self.drawn.items()}}
        return [{name: float(values[m]) for name, values in columns.items()} for m in range(len(self.before))]


@torch.no_grad()
def measure_memorisation(context: Context) -> Memorisation | None:
    """Compare drawn with held-out Δ of at most `SAMPLES` validation samples; None if all their Δ are 0.

    A Δ of 0 has no direction, so it is left out if the representation is one of directions.

    Args:
        context: may read train and val.
    """
    predictor, train, val = context.predictor, context.store("train"), context.store("val")
    models = {"ocd": predictor} | ({} if context.untuned else {"ocd_tuned": context.tuned})
    representation = predictor.diffusion.representation
    split = context.split("val")
    wanted = permutation(len(split), context.seed, "memorisation")[:SAMPLES].sort().values
    rho_M = _first_replicas(val, "rho")[wanted]
    wanted, rho_M = (x[rho_M > 0] for x in (wanted, rho_M)) if representation.uses_scale else (wanted, rho_M)
    if not len(wanted):
        return None
    example = split.batch(wanted[:1])
    size = rows_at_once(split, rows_within(predictor.model, example, _MEMORY_MB, matrices=4))
    real: list[Tensor] = []
    drawn: dict[str, list[Tensor]] = {model: [] for model in models}
    losses: dict[str, list[Tensor]] = {name: [] for name in ("before", "overfitted", "decoded")}
    for rows in row_chunks(len(wanted), size):
        batch = split.batch(wanted[rows])
        shared, target = SharedPass(predictor, batch, "val"), batch.to(context.device).target
        delta_MOI = torch.from_numpy(val.deltas_of_samples(wanted[rows].numpy())).to(context.device)
        layer_input_MI = shared.base.cut.layer_input_NI
        code = representation.encode(delta_MOI, layer_input_MI)
        rho = delta_MOI.flatten(1).norm(dim=1) if representation.uses_scale else None
        outputs = {
            "before": shared.base.output,
            "overfitted": shared.outputs_with(delta_MOI),
            "decoded": shared.outputs_with(representation.move(code, rho, layer_input_MI)),
        }
        real.append(code.flatten(1).cpu())
        for model, who in models.items():
            drawn[model].append(shared.drawn(who).code(0).flatten(1).cpu())
        for name, output in outputs.items():
            losses[name].append(context.task.loss(output, target).double().cpu())
    found = _nearest(representation, train, {"held_out": torch.cat(real)} | {m: torch.cat(c) for m, c in drawn.items()})
    held_out = found.pop("held_out")
    before, overfitted, decoded = (torch.cat(parts) for parts in losses.values())
    loss_after = _first_replicas(val, "loss_after")[wanted]
    return Memorisation(
        int((train.read("replica") == 0).sum()), held_out, found, before, overfitted, decoded,
        loss_after.reshape(len(wanted), -1)[:, -1].double(),
    )  # fmt: skip


def _first_replicas(store: OverfitStore, name: str) -> Tensor:
    """An array's values of each sample's first replica, in the order of the split."""
    first = np.flatnonzero(store.read("replica") == 0)
    return torch.from_numpy(store.read(name)[first[np.argsort(store.read("sample_id")[first])]])


def _nearest(representation: Representation, train: OverfitStore, codes: Mapping[str, Tensor]) -> dict[str, Nearest]:
    """The two smallest distances of each code (M, d) to training codes, read block by block."""
    best = {name: torch.full((len(code_Md), 2), torch.inf, dtype=torch.float64) for name, code_Md in codes.items()}
    for train_Nd in _training_codes(representation, train):
        for name, code_Md in codes.items():
            near = torch.cat([best[name], squared_distances(code_Md, train_Nd)], 1)
            best[name] = near.topk(2, largest=False).values
    return {name: Nearest(*near.sqrt().unbind(1)) for name, near in best.items()}


def _training_codes(representation: Representation, train: OverfitStore) -> Iterator[Tensor]:
    """The codes of the first replicas that have one, (n, d), block by block on the CPU."""
    replica, device = train.read("replica"), next(iter(representation.buffers()), torch.zeros(())).device
    for rows, delta_NOI, layer_input_NI in read_deltas(train):
        kept = torch.from_numpy(replica[rows] == 0)
        if representation.uses_scale:
            kept &= delta_NOI.flatten(1).norm(dim=1) > 0
        delta = delta_NOI[kept].to(device)
        layer_input = None if layer_input_NI is None else layer_input_NI[kept].to(device)
        yield representation.encode(delta, layer_input).flatten(1).cpu()
