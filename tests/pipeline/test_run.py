"""The toy's whole pipeline in one process: what stages leave behind, prediction, evaluation, and bad input."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ocd_core.artifacts import Artifacts
from ocd_core.codes.encode import encode_store, fit_to_store
from ocd_core.codes.params import RepresentationParams
from ocd_core.config import load_params
from ocd_core.diffusion.draw import draw
from ocd_core.diffusion.sampling_params import SamplingParams
from ocd_core.diffusion.training import train_diffusion
from ocd_core.errors import UserError
from ocd_core.network.loading import load_cut_model
from ocd_core.network.moves import base_pass
from ocd_core.predictor import Predictor
from ocd_core.samples import whole_split
from ocd_core.scoring.scores import LayerScore
from ocd_core.store import OverfitStore, verify_store
from tests.support.params import denoiser_params, diffusion_params
from tests.support.repository import REPO
from tests.support.toy import SIZES, run_stages, write_toy_params

HEAD = {"layer": {"select": "head"}}
# a layer with three positions a sample: only dense or pca can represent its Δ
EMBED = {
    "layer": {"select": "embed"},
    "diffusion": {"representation": {"name": "pca", "components": 5, "metric": "euclidean"},
                  "updates": 40, "batch_size": 16, "validate_every": 20, "embedding": 16,
                  "denoiser": {"name": "mlp", "width": 16, "depth": 1, "multipliers": [1], "dropout": 0.0}},
}  # fmt: skip


@pytest.fixture(scope="module", params=["head", "embed"])
def run(request, tmp_path_factory) -> Artifacts:
    root = tmp_path_factory.mktemp(request.param)
    write_toy_params(root, **(HEAD if request.param == "head" else EMBED))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run_stages()
    return Artifacts("toy", root=root)


@pytest.fixture
def copy(run: Artifacts, tmp_path, monkeypatch) -> Artifacts:
    """A copy of the run to damage, as the current folder."""
    shutil.copytree(run.root, tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    return Artifacts("toy")


def test_every_artifact_is_there_with_its_config(run: Artifacts) -> None:
    for folder in (run.prepared, run.base, run.layers, run.evaluation):
        assert json.loads((folder / "config.json").read_text())["domain"] == "tests.support.toy:ToyTask"
    for split, size in SIZES.items():
        store = OverfitStore(run.overfit(split))
        assert len(store) == size
        assert store.attributes["config"] == load_params("toy", run.root).effective("overfit")
        assert verify_store(run.overfit(split)) == []
    assert {"table.md", "results.json", "curves.png", "layer_scores.png", "overfit_test.png"} <= {
        p.name for p in run.report.iterdir()
    }
    assert not list(run.root.glob("data/**/*.partial"))


def test_store_holds_what_the_definitions_say(run: Artifacts) -> None:
    """Δ applied to the base gives the stored loss after the last step; ρ is its norm; the target is the label."""
    params = load_params("toy", run.root)
    task = params.build_task()
    model = load_cut_model(run, task)
    split = task.open(run.prepared, "val")
    batch = split.batch(whole_split(split))
    store = OverfitStore(run.overfit("val"))
    base = base_pass(task, model, batch)
    delta = torch.from_numpy(store.deltas())
    after = task.loss(model.forward(base.cut, delta)[1], batch.target)
    np.testing.assert_allclose(store.read("loss_after")[:, -1], after, rtol=1e-5)
    np.testing.assert_allclose(store.read("loss_before"), task.loss(base.output, batch.target), rtol=1e-6)
    np.testing.assert_allclose(store.read("rho"), delta.flatten(1).norm(dim=1), rtol=1e-5)
    np.testing.assert_array_equal(store.read("target"), batch.target)
    np.testing.assert_array_equal(store.condition().base_output, base.condition.base_output)


def test_evaluation_equals_a_loop_over_samples(run: Artifacts) -> None:
    """The base row and the bound, one test sample at a time with weights set by hand in float64."""
    params = load_params("toy", run.root)
    task = params.build_task()
    model = load_cut_model(run, task)
    split = task.open(run.prepared, "test")
    store = OverfitStore(run.overfit("test"))
    losses = {"base": [], "bound": []}
    for i in range(len(split)):
        batch = split.batch(torch.tensor([i]))
        for row, delta in (("base", 0.0), ("bound", torch.from_numpy(store.delta(i)).double())):
            net = task.build_model().double()
            net.load_state_dict(model.replay_network.state_dict())
            layer = net.get_submodule(model.layer_name)
            layer.weight.data += delta
            output = net(*(x.double() for x in batch.inputs))
            losses[row].append(task.loss(output, batch.target.double()).item())
    metrics = json.loads((run.evaluation / "metrics.json").read_text())
    assert metrics["n"] == len(split)
    for row, values in losses.items():
        assert metrics[row]["rmse"] == pytest.approx(np.mean(values) ** 0.5, rel=1e-5)
    assert metrics["bound"]["rmse"] < metrics["base"]["rmse"]


def test_eight_stored_deltas_are_learned_by_heart_and_drawn_again(run: Artifacts) -> None:
    store = OverfitStore(run.overfit("train"))
    params = diffusion_params(
        representation=RepresentationParams(name="dense", components=1, metric="euclidean"),
        schedule="zero_snr", prediction="x0",
        timesteps=50, updates=700, batch_size=64, lr=3e-3, ema=0.99, validate_every=100,
        denoiser=denoiser_params(width=96),
    )  # fmt: skip
    space = fit_to_store(store, params)
    codes, cond = encode_store(space, store)
    codes, cond = codes[:8], cond.select(slice(8))
    found = train_diffusion(codes, cond, codes, cond, params, space, 0)
    assert found.metrics["val_loss"] < 1e-2
    moved = store.deltas()[store.read("rho") > 0][:8]
    for sampler in ("ddim", "ancestral", "dpm"):
        sampling = SamplingParams(sampler=sampler, steps=10, eta=0.0, renormalise=True)
        drawn = space.decode(draw(found.model, cond, torch.arange(8), 0, 0, sampling, 8), torch.ones(8))
        assert torch.cosine_similarity(drawn.flatten(1), torch.from_numpy(moved).flatten(1)).min() > 0.99


def test_prediction_is_reproducible_and_free_of_batches(run: Artifacts) -> None:
    predictor = Predictor.from_artifacts(run.rank_dir)
    x = torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(0))
    whole = predictor.predict(x, draws=3)
    assert whole.output.shape == whole.base_output.shape == (7, 2)
    assert whole.draws.shape == (3, 7, 2)
    again = Predictor.from_artifacts(run.rank_dir).predict(x, draws=3)
    torch.testing.assert_close(again.output, whole.output, rtol=0, atol=0)
    part = predictor.predict(x[4:6], draws=3, sample_id=torch.tensor([4, 5]))
    torch.testing.assert_close(part.draws, whole.draws[:, 4:6], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(whole.output, whole.draws.mean(0))
    assert not torch.equal(whole.draws[0], whole.draws[1])
    one = predictor.predict(x)
    torch.testing.assert_close(one.output, whole.draws[0])


def test_stage_is_repeatable_bit_for_bit(copy: Artifacts) -> None:
    files = [copy.base / "model.safetensors", copy.diffusion / "model.safetensors", copy.scale / "model.safetensors",
             copy.evaluation / "table.json", copy.report / "overfit_test.png", copy.layers / "layers.json"]  # fmt: skip
    stored = {f: f.read_bytes() for f in files}
    deltas = OverfitStore(copy.overfit("train")).deltas()
    shutil.rmtree(copy.task_dir)
    shutil.rmtree(copy.report)
    run_stages()
    for file, data in stored.items():
        assert file.read_bytes() == data, file
    np.testing.assert_array_equal(OverfitStore(copy.overfit("train")).deltas(), deltas)


@pytest.mark.parametrize(
    ("missing", "stage", "message"),
    [
        ("prepared", "train_base", r"stages\.prepare --task toy"),
        ("base", "overfit", r"stages\.train_base"),
        ("layers", "overfit", r"stages\.score_layers"),
        ("diffusion", "evaluate", r"stages\.train_diffusion"),
        ("scale", "evaluate", r"stages\.train_scale"),
        ("pictures", "report", r"stages\.illustrate"),
    ],
)
def test_a_missing_artifact_names_the_stage_that_makes_it(copy: Artifacts, missing, stage, message) -> None:
    from importlib import import_module

    shutil.rmtree(getattr(copy, missing))
    before = {p: p.stat().st_mtime_ns for p in Path("data").rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=message):
        import_module(f"stages.{stage}").main("toy")
    assert {p: p.stat().st_mtime_ns for p in Path("data").rglob("*") if p.is_file()} == before


def test_a_rank_that_does_not_exist(copy: Artifacts) -> None:
    from stages import overfit

    with pytest.raises(UserError, match="no layer of rank 9"):
        overfit.main("toy", rank=9)


def test_an_unknown_split_or_task(copy: Artifacts) -> None:
    from stages import overfit, prepare

    with pytest.raises(UserError, match="unknown split 'tset'"):
        overfit.main("toy", split="tset")
    with pytest.raises(UserError, match=r"unknown task 'toyy': there is no params/toyy.yaml \(tasks here: toy\)"):
        prepare.main("toyy")


@pytest.mark.parametrize("run", ["embed"], indirect=True)
def test_factored_is_refused_where_a_layer_sees_several_positions(copy: Artifacts) -> None:
    """Δ is no outer product there: the representation says so, and the old model stays."""
    from stages import train_diffusion

    write_toy_params(Path(), layer={"select": "embed"})
    before = (copy.diffusion / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="factored is exact only for a linear layer that sees one position"):
        train_diffusion.main("toy")
    assert (copy.diffusion / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("run", ["head"], indirect=True)
def test_a_tie_between_layers_is_told_by_the_stage_and_below_the_table(copy: Artifacts, capsys, monkeypatch) -> None:
    """Where the layer was left to the ranking; the scores are made up."""
    from ocd_core.running import score_layers

    write_toy_params(Path(), layer={"select": "entropy"})
    draws = ((15, 2.0), (30, 2.0))
    tied = [LayerScore("head", "linear", 12, 2.0, 0.1, 6, 0, 30, 0.1, 1, convergence=draws),
            LayerScore("embed", "linear", 24, 1.9, 0.1, 6, 0, 30, 0.1, 2, convergence=draws)]  # fmt: skip
    monkeypatch.setattr(score_layers, "score_layers", lambda *_: tied)
    run_stages()
    assert "warning: the scores of head and embed differ by 0.1 " in capsys.readouterr().err
    assert "which is first may be chance" in (copy.report / "table.md").read_text()


def test_nan_in_training_is_one_error_and_leaves_no_base(copy: Artifacts) -> None:
    from stages import train_base

    shutil.rmtree(copy.base)
    write_toy_params(Path(), **HEAD, base={**{"epochs": 3, "batch_size": 16, "lr": 1e30},
                                           "model": {"name": "tests.support.toy:PointSet", "args": {}}})  # fmt: skip
    with pytest.raises(UserError, match=r"base\.lr|lower"):
        train_base.main("toy")
    assert not copy.base.exists()


def test_errors_are_one_line_and_a_status(tmp_path) -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "stages.prepare", "--task", "nosuch"], cwd=tmp_path, capture_output=True, text=True,
        check=False, env={"PYTHONPATH": str(REPO)},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.strip() == "error: unknown task 'nosuch': there is no params/nosuch.yaml (tasks here: none)"
