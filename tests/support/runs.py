"""Toy runs with all rows: layer `head` (factored, two replicas) or `embed` (three positions a sample, pca)."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from torch import Tensor

from ocd_core.artifacts import Artifacts
from ocd_core.config import Params, load_params
from ocd_core.evaluation.context import Context, Fitting
from ocd_core.evaluation.evaluate import Evaluation, evaluate
from ocd_core.evaluation.fitted import load_rows
from ocd_core.evaluation.row import Fit, FittedRow, Row, Saved
from ocd_core.evaluation.rows import row_class
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.files import sha256_files
from ocd_core.network.moves import BasePass, Move
from ocd_core.predictor import Predictor
from ocd_core.provenance import MANIFEST, read_manifest, write_manifest
from ocd_core.samples import SPLITS, Batch, Tensors, whole_split
from stages import evaluate as evaluate_stage
from stages import train_controls
from tests.support.toy import ToyTask, run_stages, write_toy_params

TUNING = {"updates": 6, "draws": 2, "lrs": [1e-2], "batch_size": 8, "validate_every": 3}
GROUPS: dict[str, dict[str, Any]] = {
    "head": {"tuning": TUNING, "layer": {"select": "head"}, "overfit": {"memory_mb": 8, "shard_mb": 1, "replicas": 2}},
    "embed": {
        "tuning": {**TUNING, "through": "sampler", "steps": 2},
        "layer": {"select": "embed"},
        "diffusion": {
            "representation": {"name": "pca", "components": 5, "metric": "euclidean"},
            "updates": 40,
            "batch_size": 16,
            "validate_every": 20,
            "embedding": 16,
            "denoiser": {"name": "mlp", "width": 16, "depth": 1, "multipliers": [1], "dropout": 0.0},
        },
    },
}


def toy_run(root: Path, layer: str) -> Artifacts:
    """All stages up to the evaluation; while rows are fitted, there is no test split."""
    write_toy_params(root, **GROUPS[layer])
    run = Artifacts("toy", root=root)
    opened = ToyTask.open

    def without_test(self, prepared, split):
        assert split != "test"
        return opened(self, prepared, split)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run_stages("tune_diffusion")
        shutil.move(run.overfit("test"), root / "hidden")
        patch.setattr(ToyTask, "open", without_test)
        train_controls.main("toy")
        patch.undo()
        patch.chdir(root)
        shutil.move(root / "hidden", run.overfit("test"))
        evaluate_stage.main("toy")
    return run


def run_of(root: Path, task: str, values: dict[str, Any], upto: str = "report") -> Artifacts:
    """The stages of a task with these params, up to one of them."""
    (root / "params").mkdir()
    with (root / "params" / f"{task}.yaml").open("w") as file:
        YAML().dump(values, file)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run_stages(upto, task)
    return Artifacts(task, root=root)


def reseal(folder: Path) -> None:
    """Write a stage's manifest anew for the files that are there, as anybody can who changes them."""
    made = read_manifest(folder)
    files = {name: sha for name, sha in sha256_files(folder).items() if name != MANIFEST}
    write_manifest(folder, {key: made[key] for key in ("stage", "params", "code", "inputs")}, files)


def params_of(run: Artifacts) -> Params:
    return load_params(run.task, run.root)


def context_of(run: Artifacts, predictor: Predictor | None = None, **changes: Any) -> Context:
    """The context of an evaluation; keyword arguments change the group `evaluate`."""
    params = params_of(run)
    params = params.model_copy(update={"evaluate": params.evaluate.model_copy(update=changes)})
    return Context(run, params, predictor or Predictor.from_run(run, params), SPLITS)


def evaluated(run: Artifacts, predictor: Predictor | None = None, **changes: Any) -> Evaluation:
    context = context_of(run, predictor, **changes)
    return evaluate(context, *load_rows(context, context.params.evaluate.rows))


def row_of(run: Artifacts, name: str, predictor: Predictor | None = None) -> tuple[Row, SharedPass]:
    """A row, ready to answer, and one pass over the whole test split."""
    context = context_of(run, predictor)
    ((row,), left_out) = load_rows(context, [name])
    assert not left_out
    return row, SharedPass(context.predictor, whole_test_batch(context), "test")


def whole_test_batch(context: Context) -> Batch:
    split = context.split("test")
    return split.batch(whole_split(split))


def moved_by_hand(predictor: Predictor, batch: Batch, delta_NOI: Tensor) -> Tensor:
    """Each sample's outputs, float64, from a whole network whose weights are set to θ + Δ."""
    found = []
    for i, delta_OI in enumerate(delta_NOI):
        network = predictor.task.build_model().double()
        network.load_state_dict(predictor.model.replay_network.state_dict())
        network.get_submodule(predictor.model.layer_name).weight.data += delta_OI.double()
        found.append(network(batch.inputs[0][i : i + 1].double()))
    return torch.cat(found).detach()


def drawn_deltas(predictor: Predictor, batch: Batch, k: int, rho_N: Tensor | None = None) -> Tensor:
    """The Δ of draw k, (N, O, I), decoded one sample at a time."""
    from ocd_core.network.moves import base_pass

    found = []
    for i in range(len(batch)):
        one = batch.select(slice(i, i + 1))
        base = base_pass(predictor.task, predictor.model, one)
        rho = predictor.estimate_rho(base) if rho_N is None else rho_N[i : i + 1]
        code = predictor.code(base, one.sample_id, k)
        found.append(predictor.diffusion.representation.decode(code, rho, base.cut.layer_input_NI))
    return torch.cat(found)


def assert_same_outputs(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected, rtol=2e-5, atol=1e-6)


def count_answers(monkeypatch: pytest.MonkeyPatch) -> list[Predictor]:
    """A list that grows by one with each pass through a tail with a moved layer."""
    calls: list[Predictor] = []
    answer = Predictor.answer

    def counted(self: Predictor, base: BasePass, move: Move) -> Tensors:
        calls.append(self)
        return answer(self, base, move)

    monkeypatch.setattr(Predictor, "answer", counted)
    return calls


def fit_row(run: Artifacts, name: str, variant: str = "", **values: Any) -> tuple[Any, Fitting, Fit]:
    """A row fitted with these params of its own, beside its quick ones, and what it was fitted with and reports."""
    cls, params = row_class(name), params_of(run)
    assert cls.Params is not None
    own = cls.Params.model_validate({**cls.quick, **values})
    params = params.model_copy(update={"controls": params.controls.model_copy(update={name: own, "fit": [name]})})
    fitting = Fitting(run, params, Predictor.from_run(run, params, with_gain=False))
    row = cls(name, fitting)
    assert isinstance(row, FittedRow)
    assert row.left_out() is None
    fit = row.fit(fitting)
    loaded = cls(name, fitting, variant)
    assert isinstance(loaded, FittedRow)
    loaded.load(Saved({k: v.clone() for k, v in row.tensors().items()}, row.config(), run.controls, name, row.space))
    return loaded, fitting, fit


def val_pass(fitting: Fitting) -> SharedPass:
    """One pass over the whole validation split."""
    split = fitting.split("val")
    return SharedPass(fitting.predictor, split.batch(whole_split(split)), "val")
