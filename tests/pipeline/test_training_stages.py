"""The training stages: live curves, equal bytes, devices, and several processes as a user starts them."""

import hashlib
import shutil
from importlib import import_module
from pathlib import Path

import pytest
import torch

from ocd_core import artifacts
from ocd_core.artifacts import Artifacts
from ocd_core.codes.representations.pca import Pca
from ocd_core.config import load_params
from ocd_core.errors import UserError
from ocd_core.network.covariances import layer_covariances
from ocd_core.network.loading import load_cut_model
from ocd_core.predictor import Predictor
from ocd_core.running import train_diffusion as running_train_diffusion
from ocd_core.running import train_scale as running_train_scale
from ocd_core.running import tune_diffusion as running_tune_diffusion
from ocd_core.store import OverfitStore
from ocd_core.training.loop import Checkpoints, Settings, optimise
from ocd_core.weights import read_tensors
from stages import (
    evaluate,
    illustrate,
    report,
    train_base,
    train_controls,
    train_diffusion,
    train_scale,
    tune_diffusion,
)
from stages._training import followed
from tests.diffusion.together import torchrun
from tests.support.toy import run_stages, write_toy_params


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory) -> Path:
    """A folder in which the toy's stages ran up to the overfit stores."""
    root = tmp_path_factory.mktemp("overfitted")
    write_toy_params(root, diffusion={"updates": 30, "validate_every": 8, "batch_size": 11})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run_stages(upto="overfit")
    return root


@pytest.fixture
def toy(overfitted, tmp_path, monkeypatch) -> Artifacts:
    """A copy of it, as the current folder."""
    shutil.copytree(overfitted, tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    return Artifacts("toy")


def read_table(path: Path) -> list[dict[str, float]]:
    return [{k: float(v) for k, v in row.items() if v} for row in artifacts.read_table(path)]


def read_live(live: Path) -> list[dict[str, float]]:
    """The rows of dvclive's files, one file a column."""
    rows: dict[float, dict[str, float]] = {}
    for path in (live / "plots/metrics").glob("*.tsv"):
        for row in read_table(path):
            found = rows.setdefault(row["step"], {"update": row["step"]})
            assert path.stem not in found, f"update {row['step']} twice"
            found[path.stem] = row[path.stem]
    return [rows[step] for step in sorted(rows)]


class Slope:
    """w - update, minimised; a fixed validation loss."""

    def __init__(self, module):
        self.module = module

    def loss(self, update, part, parts):
        return (self.module.weight.sum() - update) ** 2 / parts

    def validate(self):
        return {"val_loss": float(self.module.weight.sum() ** 2)}


def follow(live, work, stop=None):
    """20 updates with rows at 3, 6, ... and checkpoints at 4, 8, ...; what `on_row` left after each update."""
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(module.weight)
    seen = {}
    with followed("toy", 20, live) as (bar, on_row):

        def progress(done, note):
            bar(done, note)
            seen[done] = read_live(live) if (live / "plots").exists() else []
            if done == stop:
                raise InterruptedError

        return seen, optimise(
            module, Slope(module), Settings(20, 0.1, 3, 99), 0, "toy", progress, on_row, Checkpoints(work, 4, "mine")
        )


def test_live_curves_grow_row_by_row_and_a_run_that_goes_on_has_each_row_once(tmp_path):
    live, work = tmp_path / "live", tmp_path / "c.pt"
    with pytest.raises(InterruptedError):
        follow(live, work, stop=10)
    assert [row["update"] for row in read_live(live)] == [3, 6, 9]  # the checkpoint is of update 8
    seen, found = follow(live, work)
    assert found.resumed_at == 8
    assert [[row["update"] for row in seen[k]] for k in (9, 11, 12)] == [[3, 6, 9], [3, 6, 9], [3, 6, 9, 12]]
    assert read_live(live) == found.curve
    assert [row["update"] for row in found.curve] == [3, 6, 9, 12, 15, 18, 20]


@pytest.mark.parametrize(("stage", "name"), [(train_diffusion, "diffusion"), (train_scale, "scale")])
def test_stages_show_their_curve_live_and_their_outs_repeat_byte_for_byte(toy, monkeypatch, stage, name):
    module, live = import_module(f"ocd_core.running.train_{name}"), []
    train = getattr(module, f"train_{name}")

    def spy(*args, **kwargs):
        found = train(*args, **kwargs)
        live.append(read_live(toy.work / f"{name}-toy-seed0-rank1/live"))
        return found

    monkeypatch.setattr(module, f"train_{name}", spy)
    folder, hashes = toy.rank_dir / name, []
    for _ in range(2):
        stage.main("toy")
        hashes.append({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()})
    assert hashes[0] == hashes[1]
    assert {"model.safetensors", "config.json", "params.json", "metrics.json", "curve.tsv"} <= set(hashes[0])
    assert live[0] == live[1] == read_table(folder / "curve.tsv")
    assert list(toy.work.iterdir()) == []


PCA = {
    "representation": {"name": "pca", "components": 3, "metric": "euclidean"},
    "updates": 8,
    "validate_every": 8,
    "batch_size": 11,
}
SCALE_FILES = {"model.safetensors", "config.json", "params.json", "metrics.json", "manifest.json", "curve.tsv",
               "comparison.tsv"}  # fmt: skip


def forbidden(*_args, **_kwargs):
    raise AssertionError("this is work for nothing")


def test_no_scale_network_is_trained_that_nothing_would_use(toy, monkeypatch, capsys):
    why = "the representation pca has no scale of its own"
    train_scale.main("toy")
    assert {p.name for p in toy.scale.iterdir()} == SCALE_FILES
    train_diffusion.main("toy")
    write_toy_params(Path(), diffusion=PCA)
    train_diffusion.main("toy")
    with pytest.raises(UserError, match=r"scale is out of date: diffusion\.representation\.name was 'factored' and is"):
        train_controls.main("toy")
    capsys.readouterr()
    with monkeypatch.context() as patch:
        for name in ("train_scale", "compare_scales"):
            patch.setattr(running_train_scale, name, forbidden)
        patch.setattr(OverfitStore, "condition", forbidden)
        train_scale.main("toy")
    assert capsys.readouterr().out == f"train scale: nothing to do, because {why}\n"
    assert {p.name for p in toy.scale.iterdir()} == SCALE_FILES
    assert artifacts.read_json(toy.scale / "metrics.json") == {"unused": why}
    assert read_tensors(toy.scale / "model.safetensors") == {}
    assert read_table(toy.scale / "curve.tsv") == []
    for stage in (tune_diffusion, train_controls, evaluate, illustrate, report):
        stage.main("toy")
    assert list(artifacts.read_json(toy.controls / "metrics.json")["cost_flops"]["ocd"]) == [
        "overfit", "diffusion", "total",
    ]  # fmt: skip
    assert f"No scale network, because {why}." in (toy.report / "scale.md").read_text()
    predictor = Predictor.from_artifacts(toy.rank_dir)
    assert predictor.scale is None
    assert predictor.predict(torch.zeros(2, 3, 4)).rho is None


def test_components_weighted_by_kfac_reach_the_model_and_the_controls(toy):
    """Both compute the layer's covariances from the base network and the training split."""
    write_toy_params(Path(), diffusion={**PCA, "representation": {"name": "pca", "components": 3, "metric": "kfac"}})
    for stage in (train_diffusion, train_scale, tune_diffusion, train_controls, evaluate):
        stage.main("toy")
    predictor = Predictor.from_artifacts(toy.rank_dir)
    found = predictor.diffusion.representation
    run = load_params("toy")
    task = run.build_task(toy.prepared)
    covariances = layer_covariances(task, load_cut_model(toy, task), task.open(toy.prepared, "train"), 0)
    store = OverfitStore(toy.overfit("train"))
    wanted = Pca.fit_weighted(torch.from_numpy(store.deltas()), run.diffusion.representation, covariances)
    torch.testing.assert_close(found.encode(wanted.decode(torch.eye(3), None)), torch.eye(3), rtol=1e-3, atol=1e-3)
    config = artifacts.read_json(toy.controls / "config.json")
    assert config["space"]["args"]["weighted"] is True


@pytest.mark.parametrize("representation", [PCA, {}])
def test_the_tasks_loss_beside_the_diffusions_needs_the_network_and_counts_as_cost(toy, representation, monkeypatch):
    sides = []
    side = running_train_diffusion.TaskSide
    monkeypatch.setattr(running_train_diffusion, "TaskSide", lambda *args: sides.append(side(*args)) or sides[-1])
    write_toy_params(Path(), diffusion={**representation, "task_loss": 2.0, "task_batch": 4})
    for stage in (train_diffusion, train_scale, tune_diffusion, train_controls):
        stage.main("toy")
    metrics = artifacts.read_json(toy.diffusion / "metrics.json")
    row = read_table(toy.diffusion / "curve.tsv")[-1]
    assert row["val_loss"] == pytest.approx(row["val_delta_loss"] + 2 * row["val_task_loss"])
    cost = artifacts.read_json(toy.controls / "metrics.json")["cost_flops"]["ocd"]
    assert cost["diffusion"] > metrics["task_flops"] > 0
    stored = OverfitStore(toy.overfit("train")).read("rho")
    assert [each.mean_rho for each in sides] == [pytest.approx(stored.mean())]


def test_errors_of_codes_count_by_the_rows_own_losses(toy, monkeypatch):
    write_toy_params(Path(), diffusion={**PCA, "metric": "gauss_newton"})
    seen = []

    def spy(*args, metrics, **kwargs):
        seen.append((args[0], args[2], metrics))
        return train_with(*args, metrics=metrics, **kwargs)

    train_with = running_train_diffusion.train_diffusion
    monkeypatch.setattr(running_train_diffusion, "train_diffusion", spy)
    train_diffusion.main("toy")
    ((codes, val_codes, (train, val)),) = seen
    assert train.shape == (len(codes), 3, 3)
    assert val.shape == (len(val_codes), 3, 3)
    assert float(train.diagonal(dim1=1, dim2=2).mean()) == pytest.approx(1.0, rel=1e-4)
    train_scale.main("toy")
    kept = []
    tune_with = running_tune_diffusion.tune
    monkeypatch.setattr(running_tune_diffusion, "tune", lambda *args: (kept.append(args[-1]), tune_with(*args))[1])
    write_toy_params(Path(), diffusion={**PCA, "metric": "gauss_newton"}, tuning={**TUNING, "delta_weight": 0.3})
    tune_diffusion.main("toy")
    for found, wanted in zip(kept[0], (train, val), strict=True):
        assert torch.equal(found, wanted)
    train_controls.main("toy")
    cost = artifacts.read_json(toy.controls / "metrics.json")["cost_flops"]["ocd"]
    assert 0 < cost["metric"] == cost["total"] - cost["overfit"] - cost["diffusion"]
    assert cost["metric"] % len(codes) == 0
    write_toy_params(Path(), diffusion={"metric": "gauss_newton"})
    with pytest.raises(UserError, match=r"diffusion\.metric gauss_newton needs whole Δ, but representation factored"):
        train_diffusion.main("toy")


def test_a_model_that_needs_a_scale_refuses_a_run_without(toy, monkeypatch):
    train_diffusion.main("toy")
    write_toy_params(Path(), diffusion=PCA)
    train_scale.main("toy")
    write_toy_params(Path(), diffusion={"updates": 30, "validate_every": 8, "batch_size": 11})
    with pytest.raises(UserError, match=r"scale is out of date: diffusion\.representation\.name was 'pca' and is 'fac"):
        train_controls.main("toy")
    with pytest.raises(UserError, match=r"scale holds no scale network, which the diffusion model needs"):
        Predictor.from_run(toy, load_params("toy"))


@pytest.mark.parametrize("stage", [train_base, train_diffusion, train_scale, tune_diffusion, train_controls, evaluate])
def test_a_gpu_that_is_not_there_is_refused(toy, monkeypatch, stage):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=r"--device cuda \(OCD_DEVICE\): torch sees no GPU here"):
        stage.main("toy", device="cuda")


def test_torchrun_trains_with_two_processes_and_one_writes(toy):
    """Weights and curve are those of one process with the same global batch, within rounding."""
    train_diffusion.main("toy")
    one, rows = read_tensors(toy.diffusion / "model.safetensors"), read_table(toy.diffusion / "curve.tsv")
    shutil.rmtree(toy.diffusion)
    status, output = torchrun("stages.train_diffusion", "--task", "toy", cwd=".")
    assert status == 0, output
    assert output.count("world_size 2, device cpu") == 1
    assert output.count("train diffusion ━") == 1  # one bar
    torch.testing.assert_close(read_tensors(toy.diffusion / "model.safetensors"), one, rtol=1e-4, atol=1e-6)
    two = read_table(toy.diffusion / "curve.tsv")
    assert [row["update"] for row in two] == [row["update"] for row in rows] == [8, 16, 24, 30]
    for mine, theirs in zip(two, rows, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)
    assert list(toy.work.iterdir()) == []


TUNING = {"updates": 12, "validate_every": 4, "batch_size": 11, "lrs": [1e-2, 1e-3], "draws": 2, "accumulate": 2}
ROWS = ["base", "ocd", "ocd_tuned", "ocd_tuned_ensemble", "bound"]


def write_tuned_params(**tuning):
    write_toy_params(
        Path(), diffusion={"updates": 30, "validate_every": 8, "batch_size": 11}, tuning=tuning,
        controls={"fit": []}, evaluate={"rows": ROWS, "draws": [2], "bootstrap": 100},
    )  # fmt: skip


def test_without_updates_the_tuned_model_is_the_diffusion_model(toy, monkeypatch):
    write_tuned_params(updates=0)
    train_diffusion.main("toy")
    train_scale.main("toy")
    with monkeypatch.context() as patch:
        patch.setattr(running_tune_diffusion, "tune", forbidden)
        tune_diffusion.main("toy")
    for name in ("model.safetensors", "config.json"):
        assert (toy.tuned / name).read_bytes() == (toy.diffusion / name).read_bytes()
    assert read_table(toy.tuned / "curve.tsv") == []
    for stage in (train_controls, evaluate):
        stage.main("toy")
    table = artifacts.read_json(toy.evaluation / "table.json")
    why = {a["row"]: a["why"] for a in table["absent"]}
    assert why == dict.fromkeys(ROWS[2:4], "the diffusion model was not tuned (tuning.updates is 0)")
    assert list(table["cost_flops"]) == ["ocd"]
    with pytest.raises(UserError, match=r"holds the untuned model, because tuning\.updates is 0"):
        Predictor.from_artifacts(toy.rank_dir, tuned=True)


def test_tuning_stops_and_goes_on_and_its_rows_are_in_the_table(toy, monkeypatch):
    write_tuned_params(**TUNING)
    train_diffusion.main("toy")
    train_scale.main("toy")
    assert tune_diffusion.main("toy") == {"resumed": False}
    files = {p.name: p.read_bytes() for p in toy.tuned.iterdir()}
    assert set(files) == SCALE_FILES - {"comparison.tsv"}
    real = running_tune_diffusion.tune

    def interrupted(*args, **kwargs):
        def progress(done, _text):
            if done == 17:
                raise InterruptedError

        return real(*args[:10], progress, *args[11:], **kwargs)

    monkeypatch.setattr(running_tune_diffusion, "CHECKPOINT_EVERY", 3)
    with monkeypatch.context() as patch:
        patch.setattr(running_tune_diffusion, "tune", interrupted)
        with pytest.raises(InterruptedError):
            tune_diffusion.main("toy")
    assert tune_diffusion.main("toy") == {"resumed": True}
    assert {p.name: p.read_bytes() for p in toy.tuned.iterdir()} == files
    assert list(toy.work.iterdir()) == []
    for stage in (train_controls, evaluate):
        stage.main("toy")
    table = artifacts.read_json(toy.evaluation / "table.json")
    results = {r["row"]: r for r in table["results"]}
    assert list(results) == ROWS
    flops, cost = artifacts.read_json(toy.tuned / "metrics.json")["flops"], table["cost_flops"]
    assert cost["ocd_tuned"]["total"] == cost["ocd"]["total"] + flops == results["ocd_tuned_ensemble"]["fit_flops"]
    predictor = Predictor.from_artifacts(toy.rank_dir, tuned=True)
    split = predictor.task.open(toy.prepared, "test")
    batch = split.batch(torch.arange(len(split)))
    losses = [predictor.task.loss(predictor.predict(batch.inputs, k).output, batch.target).mean() for k in (1, 2)]
    for row, loss in zip(ROWS[2:4], losses, strict=True):
        assert results[row]["mean"] == pytest.approx(float(loss) ** 0.5, rel=1e-5)
    assert results["ocd_tuned"]["mean"] != results["ocd"]["mean"]


def test_two_processes_tune_as_one(toy):
    write_tuned_params(**TUNING, delta_weight=0.3)
    train_diffusion.main("toy")
    train_scale.main("toy")
    tune_diffusion.main("toy")
    one, rows = read_tensors(toy.tuned / "model.safetensors"), read_table(toy.tuned / "curve.tsv")
    shutil.rmtree(toy.tuned)
    status, output = torchrun("stages.tune_diffusion", "--task", "toy", cwd=".")
    assert status == 0, output
    assert output.count("world_size 2, device cpu") == 1
    torch.testing.assert_close(read_tensors(toy.tuned / "model.safetensors"), one, rtol=1e-3, atol=1e-5)
    for mine, theirs in zip(read_table(toy.tuned / "curve.tsv"), rows, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3)
