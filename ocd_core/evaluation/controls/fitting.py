"""Fit every control that the params name, on the training and the validation split alone."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ocd_core.codes.encode import read_deltas
from ocd_core.config import Params
from ocd_core.evaluation.controls.controls import Controls
from ocd_core.evaluation.controls.costs import base_epoch_flops, diffusion_flops, overfit_flops, scale_flops
from ocd_core.evaluation.controls.hypernetwork import Samples, train_hypernetwork
from ocd_core.evaluation.controls.ridge import fit_ridge
from ocd_core.evaluation.controls.space import DeltaSpace
from ocd_core.evaluation.statistics import paired_z
from ocd_core.network.cut import CutModel
from ocd_core.network.moves import base_pass, outputs_with_move, row_chunks, rows_within
from ocd_core.network.params import BaseParams
from ocd_core.network.training import fit_base
from ocd_core.predictor import Predictor
from ocd_core.rng import derive_seed
from ocd_core.samples import Condition, Split, whole_split
from ocd_core.store import OverfitStore

_MEMORY_MB = 512
Curve = list[dict[str, float]]


@dataclass(frozen=True)
class TrainingData:
    """The two splits and their overfit stores."""

    train: Split
    val: Split
    train_store: OverfitStore
    val_store: OverfitStore


@dataclass(frozen=True)
class ControlsFit:
    """controls: the result. metrics: {control: plain numbers}. curves: of what was trained, {control: rows}."""

    controls: Controls
    metrics: dict[str, dict[str, Any]]
    curves: dict[str, Curve]


def fit_controls(
    predictor: Predictor,
    data: TrainingData,
    params: Params,
    updates: dict[str, int],
    seed: int,
    started: Callable[[str], None] = lambda _name: None,
) -> ControlsFit:
    """Fit `params.controls.fit`.

    What takes gradients or draws runs on the predictor's device; the controls come back on the CPU.

    Args:
        predictor: the run's trained model, without a gain.
        updates: how many updates the diffusion and the scale network took, by name.
        started: called with the name of each control before it is fitted.
    """
    assert predictor.gain is None
    wanted, task = params.controls.fit, predictor.task
    metrics: dict[str, dict[str, Any]] = {}
    curves: dict[str, Curve] = {}
    train_condition = data.train_store.condition()
    cost = {"ocd": _ocd_cost(predictor, data.train, train_condition, params, updates, seed)}
    mean_delta = further = space = ridge = hypernetwork = gain = None
    if "mean_delta" in wanted:
        started("mean_delta")
        mean_delta = mean_of_deltas(data.train_store)
        metrics["mean_delta"] = {"norm": float(mean_delta.norm())}
    if "base_further" in wanted:
        started("base_further")
        epoch_flops = base_epoch_flops(task, data.train, seed)
        chosen = _further_params(params, math.ceil(cost["ocd"]["total"] / epoch_flops))
        base_seed = derive_seed(seed, "base further")  # other orders of the samples than the base has seen
        result = fit_base(
            task, data.train, data.val, chosen, base_seed, start=predictor.model.network, device=predictor.device
        )
        further, metrics["base_further"], curves["base_further"] = result.model, result.metrics, result.curve
        used = epoch_flops * int(result.metrics["epochs"])
        cost["base_further"] = {"allowed": epoch_flops * chosen.epochs, "total": used}
    if "ridge" in wanted or "hypernetwork" in wanted:
        space = DeltaSpace.fit(data.train_store, params.diffusion, params.controls.components)
        code_Nd = space.encode_store(data.train_store)
        if "ridge" in wanted:
            started("ridge")
            sample_id = torch.from_numpy(data.train_store.read("sample_id"))
            fit = fit_ridge(train_condition, code_Nd, sample_id, params.controls.ridge, seed)
            ridge, metrics["ridge"] = fit.ridge, fit.metrics
        if "hypernetwork" in wanted:
            started("hypernetwork")
            single = CutModel(predictor.model.network, predictor.model.layer_name, "float32")
            training = train_hypernetwork(
                task, single, space.to(predictor.device), float(code_Nd.square().mean().sqrt()),
                Samples(data.train, condition_of_samples(data.train_store)),
                Samples(data.val, condition_of_samples(data.val_store)), params.controls.hypernetwork, seed,
            )  # fmt: skip
            hypernetwork = training.network.cpu()
            space.cpu()
            metrics["hypernetwork"], curves["hypernetwork"] = training.metrics, training.curve
    if "ocd_gain" in wanted:
        started("ocd_gain")
        tried = sorted({0.0, 1.0, *params.controls.gains})
        losses_GN = losses_by_gain(predictor, data.val, tried)
        losses = dict(zip(tried, losses_GN.mean(1).tolist(), strict=True))
        gain = min((losses[c], c) for c in params.controls.gains)[1]
        metrics["ocd_gain"] = {
            "gain": gain,
            "val_loss": losses[gain],
            "val_loss_base": losses[0.0],
            "val_loss_one_draw": losses[1.0],
            "val_z_one_draw": paired_z(losses_GN[tried.index(1.0)].numpy(), losses_GN[tried.index(0.0)].numpy()),
        }
        curves["ocd_gain"] = [{"gain": c, "val_loss": loss} for c, loss in losses.items()]
    rho = data.train_store.read("rho")
    controls = Controls(float(rho.mean()), mean_delta, further, space, ridge, hypernetwork, gain, cost)
    return ControlsFit(controls, metrics, curves)


def _ocd_cost(
    predictor: Predictor, train: Split, cond: Condition, params: Params, updates: dict[str, int], seed: int
) -> dict[str, int]:
    parts = {
        "overfit": overfit_flops(predictor.task, predictor.model, train, params.overfit, seed),
        "diffusion": diffusion_flops(predictor.diffusion, cond, updates["diffusion"]),
    }
    if predictor.diffusion.representation.uses_scale:
        parts["scale"] = scale_flops(predictor.scale, cond, params.scale.batch_size, updates["scale"])
    return {**parts, "total": sum(parts.values())}


def _further_params(params: Params, as_long_as_ocd: int) -> BaseParams:
    further = params.controls.further
    epochs = as_long_as_ocd if further.epochs is None else further.epochs
    patience = epochs if further.patience is None else further.patience
    return params.base.model_copy(update={"checkpoint": None, "epochs": epochs, "patience": patience, "lr": further.lr})


def mean_of_deltas(store: OverfitStore) -> Tensor:
    """The mean Δ of a store's rows, summed in float64; float32 (O, I)."""
    total_OI = torch.zeros(store.schema.out_features, store.schema.in_features, dtype=torch.float64)
    for _, delta_NOI, _ in read_deltas(store):
        total_OI += delta_NOI.sum(0, dtype=torch.float64)
    return (total_OI / len(store)).float()


def condition_of_samples(store: OverfitStore) -> Condition:
    """I(x) of each sample once (its first replica), in the split's order."""
    first = np.flatnonzero(store.read("replica") == 0)
    return store.condition(first[np.argsort(store.read("sample_id")[first])])


@torch.no_grad()
def losses_by_gain(predictor: Predictor, split: Split, gains: Sequence[float]) -> Tensor:
    """The loss of each sample of a split under one drawn Δ times each of G factors, float64 (G, N); 0 is the base."""
    losses_GN = torch.empty(len(gains), len(split), dtype=torch.float64)
    example = split.batch(torch.zeros(1, dtype=torch.int64))
    for rows in row_chunks(len(split), rows_within(predictor.model, example, _MEMORY_MB, matrices=2)):
        batch = split.batch(whole_split(split)[rows]).to(predictor.device)
        base = base_pass(predictor.task, predictor.model, batch)
        move = predictor.move(base, predictor.code(base, batch.sample_id, 0), predictor.estimate_rho(base))
        for i, gain in enumerate(gains):
            output = outputs_with_move(predictor.model, base.cut, gain * move) if gain else base.output
            losses_GN[i, rows] = predictor.task.loss(output, batch.target).double().cpu()
    return losses_GN
