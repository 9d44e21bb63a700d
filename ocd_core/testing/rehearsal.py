"""One step of every stage and of every row of the table, on a few samples: what would stop a run shows here first.

The library is called as the stages call it, with params that are fast.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ocd_core.artifacts import Artifacts, write_json
from ocd_core.codes.encode import condition_of_samples, encode_store, fit_to_store
from ocd_core.config import Params
from ocd_core.diffusion.training import train_diffusion
from ocd_core.diffusion.tuning import tune
from ocd_core.evaluation.context import Context, Fitting
from ocd_core.evaluation.evaluate import evaluate
from ocd_core.evaluation.fitted import fit_rows, load_rows
from ocd_core.evaluation.rows import ROWS, row_class
from ocd_core.network.cut import CutModel
from ocd_core.network.params import BaseParams
from ocd_core.network.training import BaseTraining, fit_base
from ocd_core.overfit.build import build_store
from ocd_core.overfit.rows import RowBuilder
from ocd_core.predictor import Predictor
from ocd_core.progress import no_progress
from ocd_core.samples import SPLITS, Samples, Split, SplitName, as_tuple
from ocd_core.scaffold.few import first_samples
from ocd_core.scale.training import train_scale
from ocd_core.scoring.scores import score_layers
from ocd_core.store import OverfitStore
from ocd_core.tasks.base import Task
from ocd_core.testing.common import SEED, require
from ocd_core.weights import WEIGHTS, BaseId, save_weights

_FEW = {"train": 8, "val": 4, "test": 4}
_BASE: dict[str, Any] = {
    "checkpoint": None, "epochs": 1, "patience": 1, "batch_size": 4, "optimizer": "sgd", "lr": 1e-4,
    "weight_decay": 0.0, "momentum": 0.0, "nesterov": False, "lr_schedule": "constant", "lr_steps": [],
    "lr_factor": 0.1, "warmup": 0, "label_smoothing": 0.0,
}  # fmt: skip
_SMALL: dict[str, Any] = {
    "width": 4, "updates": 1, "batch_size": 4, "lr": 1e-3, "validate_every": 1, "patience": 1,
}  # fmt: skip
_PARAMS: dict[str, Any] = {
    "layer": {
        "select": "entropy", "candidates": {"names": None, "kinds": ["linear", "conv"]},
        "probe": {"samples": 20, "components": 2, "updates": 1},
    },
    "scoring": {"samples": 2, "draws": 10, "noise": "relative", "scale": 0.1},
    "overfit": {
        "optimizer": "sgd", "lr": 1e-3, "steps": 2, "until_converged": False, "tolerance": 1e-3, "replicas": 1,
        "precision": "float64", "layout": "dense", "memory_mb": 256, "shard_mb": 16,
        "refine": {"steps": 0, "components": 1, "damping": 1.0, "samples": 2, "inputs": 1},
    },
    "diffusion": {
        "representation": {"name": "dense", "components": 2, "metric": "euclidean"},
        "denoiser": {"name": "mlp", "width": 4, "depth": 1, "multipliers": [1], "dropout": 0.0},
        "embedding": 4, "schedule": "zero_snr", "timesteps": 4, "prediction": "x0", "loss": "mse",
        "metric": "euclidean", "task_loss": 0.0, "task_batch": 4,
        "unit_variance": True, "updates": 1, "batch_size": 4, "accumulate": 1, "precision": "float32", "lr": 1e-3,
        "lr_schedule": "constant", "warmup": 0, "ema": 0.0, "clip": None, "validate_every": 1, "patience": 1,
    },
    "scale": {**_SMALL, "gain": "none", "loss": "eq8", "warm_start": {"updates": 0, "lr": 1e-3}},
    "sampling": {"sampler": "ddim", "steps": 2, "eta": 0.0, "renormalise": True},
    "tuning": {
        "updates": 1, "through": "last", "steps": 2, "draws": 2, "delta_weight": 0.0, "delta_timesteps": "all",
        "lrs": [1e-3], "batch_size": 4, "accumulate": 1, "ema": 0.0, "clip": None, "validate_every": 1, "patience": 1,
    },
}  # fmt: skip


def rehearse(task: Task, prepared: Path, layer: str, folder: Path) -> None:
    """Run every stage after `prepare` on a few samples.

    Args:
        layer: the layer that moves.
        folder: an empty folder for artifacts.

    Raises:
        AssertionError: a stage fails; the message names it.
    """
    task = _on_few_samples(task, prepared)
    splits = {name: task.open(prepared, name) for name in SPLITS}
    params, run = _params(task), Artifacts("rehearsal", SEED, 1, folder)
    run.prepared.mkdir(parents=True)
    with _stage("train_base"):
        network = _base(task, splits, params.base)
        save_weights(network, run.base / WEIGHTS)
    with _stage("score_layers"):
        score_layers(network, task, splits["train"], params.scoring, SEED, layers=[layer])
    with _stage("overfit"):
        stores = {name: _overfit(task, network, layer, split, name, run, params) for name, split in splits.items()}
    with _stage("train_diffusion and train_scale"):
        predictor = _predictor(task, network, layer, stores, run, params)
    with _stage("tune_diffusion"):
        _tune(predictor, splits, stores, run, params)
    with _stage("train_controls"):
        fitted = fit_rows(Fitting(run, params, predictor))
        run.controls.mkdir(parents=True)
        fitted.save(run.controls, BaseId.of(run.base / WEIGHTS, layer))
    with _stage("evaluate"):
        context = Context(run, params, predictor, SPLITS)
        found = evaluate(context, *load_rows(context, params.evaluate.rows))
        for absent in found.absent:
            require(absent.status != "failed", f"the row {absent.row} fails on a few samples: {absent.why}")
        found.results(params.evaluate, SEED)
    with _stage("predict"):
        inputs = splits["test"].batch(torch.zeros(1, dtype=torch.int64)).inputs
        prediction = predictor.predict(inputs, draws=2)
        require(all(len(x) == 1 for x in as_tuple(prediction.output)), "a prediction must be of one sample")


@contextmanager
def _stage(name: str) -> Iterator[None]:
    """Any error inside fails the check with the stage's name."""
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"the stage {name} fails on a few samples: {type(error).__name__}: {error}") from error


def _on_few_samples(task: Task, prepared: Path) -> Task:
    """A copy whose splits end after a few samples; they keep their class, which the task may inspect."""
    few = copy.copy(task)

    def open_few(_prepared: Path, split: SplitName) -> Split:
        return first_samples(task.open(prepared, split), _FEW[split])

    object.__setattr__(few, "open", open_few)
    return few


def _params(task: Task) -> Params:
    rows = [name for name in ROWS.own() if row_class(name).Params is None or row_class(name).quick]
    of_rows = {name: dict(row_class(name).quick) for name in rows if row_class(name).Params is not None}
    fitted = [name for name in rows if row_class(name).fitted]
    return Params.model_validate({
        **_PARAMS,
        "domain": f"{type(task).__module__}:{type(task).__qualname__}",
        "data": task.data,
        "base": {**_BASE, "model": {"name": "rehearsal", "args": {}}},
        "controls": {"fit": fitted, "components": 2, **of_rows},
        "evaluate": {"rows": rows, "draws": [1, 2], "precision": "float64", "bootstrap": 100},
    })  # fmt: skip


def _base(task: Task, splits: dict[SplitName, Split], params: BaseParams) -> nn.Module:
    """The base network, trained twice to check that training is repeatable."""
    first, second = (fit_base(task, splits["train"], splits["val"], params, SEED) for _ in range(2))
    require(
        isinstance(first, BaseTraining) and bool(first.curve) and "val_loss" in first.metrics,
        "fit must return a BaseTraining with a curve and metrics, such as `fit.by_gradient()` gives",
    )
    wanted, found, again = (m.state_dict() for m in (task.build_model(), first.model, second.model))
    shapes = [{name: x.shape for name, x in state.items()} for state in (wanted, found)]
    require(shapes[0] == shapes[1], "fit must return a network like that of build_model: its tensors differ")
    require(
        all(torch.equal(found[name], x) for name, x in again.items()),
        "fit must give the same weights for the same seed: all randomness must be a function of fit.seed",
    )
    _check_frozen(task, first.model)
    return first.model


def _check_frozen(task: Task, trained: nn.Module) -> None:
    # a task's own fit may forget to restore what it froze for a phase; later stages rely on build_model
    frozen = [name for name, p in task.build_model().named_parameters() if not p.requires_grad]
    thawed = [name for name, p in trained.named_parameters() if name in frozen and p.requires_grad]
    require(not thawed, f"fit returns {', '.join(thawed[:3])} trainable, which build_model freezes")


def _overfit(
    task: Task, network: nn.Module, layer: str, split: Split, name: SplitName, run: Artifacts, params: Params
) -> OverfitStore:
    builder = RowBuilder(task, CutModel(network, layer), split, params.overfit, SEED)
    attributes = {
        "layer": layer, "split": name, "config": {"overfit": params.overfit.model_dump()}, "classes": builder.classes(),
    }  # fmt: skip
    build_store(run.overfit(name), builder, attributes, "rehearsal", run.root / "work", no_progress)
    return OverfitStore(run.overfit(name))


def _predictor(
    task: Task, network: nn.Module, layer: str, stores: dict[SplitName, OverfitStore], run: Artifacts, params: Params
) -> Predictor:
    train, val = stores["train"], stores["val"]
    representation = fit_to_store(train, params.diffusion)
    codes, condition = encode_store(representation, train)
    require(len(codes) > 0, "the loss of no sample has a gradient in the selected layer: every Δ is zero")
    diffusion = train_diffusion(
        codes, condition, *encode_store(representation, val), params.diffusion, representation, SEED
    )
    rho = [torch.from_numpy(store.read("rho")) for store in (train, val)]
    scale = train_scale(train.condition(), rho[0], val.condition(), rho[1], params.scale, SEED)
    for folder, found in ((run.diffusion, diffusion.metrics), (run.scale, scale.metrics)):
        folder.mkdir(parents=True)
        write_json(folder / "metrics.json", cast(dict[str, Any], found))
    return Predictor(task, CutModel(network, layer), diffusion.model, scale.network, params.sampling, SEED)


def _tune(
    predictor: Predictor, splits: dict[SplitName, Split], stores: dict[SplitName, OverfitStore], run: Artifacts,
    params: Params,
) -> None:  # fmt: skip
    base, rho = predictor.model, predictor.scale
    train, val = (Samples(splits[name], condition_of_samples(stores[name])) for name in ("train", "val"))
    model = copy.deepcopy(predictor.diffusion)
    cut = CutModel(base.network, base.layer_name, "float32")
    found = tune(predictor.task, cut, model, rho, train, val, params.tuning, params.sampling.renormalise, SEED)
    model.save(run.tuned, BaseId.of(run.base / WEIGHTS, base.layer_name))
    write_json(run.tuned / "metrics.json", found.metrics)
