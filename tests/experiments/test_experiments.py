"""The search and the comparison of layers: what they queue, and what they make of results."""

import json

import pytest

from experiments import layer_gain, search
from ocd_core.config import load_params, parse_params
from ocd_core.errors import UserError
from ocd_core.params_files import params_path, read_yaml
from ocd_core.presets import apply_preset, preset_names
from ocd_core.presets.overrides import group_of
from tests.support.repository import REPO, files_in


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(REPO)


AXES = {"prediction": {"v": {"diffusion.prediction": "v"}}, "steps": {"one": {"sampling.steps": 1}}, "lr": {"low": {}}}


def entry(name: str, losses: dict[int, tuple[float, float]], task: str = "mnist5k") -> dict:
    """What DVC tells of a run: {seed: (base, one draw)}."""
    metrics = {
        f"data/{task}/seed{s}/rank1/controls/metrics.json": {
            "ocd_gain": {
                "gain": 0.5,
                "val_loss": b - 1,
                "val_loss_base": b,
                "val_loss_one_draw": d,
                "val_z_one_draw": s,
            }
        }
        for s, (b, d) in losses.items()
    }
    return {"name": f"{task}--{name}", "status": "success", "metrics": {**metrics, "other/metrics.json": {"x": 1}}}


@pytest.mark.parametrize("path", files_in("experiments/axes", ".yaml"), ids=lambda p: p.stem)
def test_every_setting_of_every_axis_is_possible_and_changes_something(path):
    task, values = path.stem, load_params(path.stem).model_dump()
    for axis, settings in search.read_axes(task).items():
        for setting, overrides in settings.items():
            changed = 0
            for key, value in overrides.items():
                inner = values
                for part in key.split("."):
                    inner = inner[part]
                changed += inner != value
            assert changed, f"{axis}-{setting} is the default"


@pytest.mark.parametrize("task", ["mnist5k", "tinynerf"])
@pytest.mark.parametrize("name", preset_names())
def test_a_preset_in_the_search_is_the_preset_but_for_its_network(task, name):
    values = read_yaml(params_path(task))
    for key, value in search.read_axes(task)["preset"][f"{name}-mlp"].items():
        group, last = group_of(values, key)
        group[last] = value
    own, (preset, _) = load_params(task).diffusion, apply_preset(name, task)
    network = {"denoiser": own.denoiser, "embedding": own.embedding}
    expected = preset.model_copy(update={"diffusion": preset.diffusion.model_copy(update=network)})
    assert parse_params(values, "here") == expected
    assert preset.diffusion.denoiser != own.denoiser


def test_names_become_overrides():
    assert search.resolve(AXES, "default") == {}
    assert search.resolve(AXES, "prediction-v+steps-one") == {"diffusion.prediction": "v", "sampling.steps": 1}
    with pytest.raises(UserError, match="unknown setting 'steps-two'; known are prediction-v, steps-one, lr-low"):
        search.resolve(AXES, "steps-two")


def test_impossible_settings_are_refused_before_anything_is_queued():
    with pytest.raises(UserError, match=r"params/mnist5k\.yaml has no key diffusion\.predicton"):
        search.check("mnist5k", {"diffusion.predicton": "v"}, "here")
    with pytest.raises(UserError, match="zero_snr leaves no signal"):
        search.check("mnist5k", {"diffusion.prediction": "epsilon"}, "here")
    with pytest.raises(UserError, match=r"none\.yaml does not exist"):
        search.read_axes("none")


def test_results_are_averaged_over_seeds_and_ranked_by_the_ratio_to_their_own_base():
    entries = [
        entry("default", {0: (2.0, 2.0)}),
        entry("prediction-v", {0: (4.0, 3.0)}),
        entry("steps-one--and--lr-low-seeds3", {0: (2.0, 1.0), 1: (4.0, 2.0), 2: (6.0, 3.0)}),
        entry("default-test", {0: (2.0, 0.1)}),
        entry("prediction-v", {0: (2.0, 0.1)}, task="mnist"),
        {**entry("steps-one", {0: (2.0, 0.1)}), "status": "running"},
    ]
    found = search.results("mnist5k", entries)
    assert [(r.name, r.seeds, r.score) for r in found] == [
        ("steps-one+lr-low-seeds3", 3, 0.5),
        ("prediction-v", 1, 0.75),
        ("default", 1, 1.0),
    ]
    first = found[0]
    assert (first.base, first.one_draw, first.z, first.gain, first.with_gain) == (4.0, 2.0, 1.0, 0.5, 3.0)
    assert "| prediction-v | 1 | 4.00000 | 3.00000 | 0.750 |" in search.table(found)


def test_other_ranks_and_seeds_in_the_repository_do_not_count():
    own, others = entry("prediction-v", {0: (4.0, 3.0)}), entry("", {0: (1.0, 9.0), 1: (1.0, 9.0)})["metrics"]
    strange = {path.replace("rank1", "rank2"): values for path, values in others.items()}
    strange |= {path: values for path, values in others.items() if "seed1" in path}
    (found,) = search.results("mnist5k", [{**own, "metrics": {**strange, **own["metrics"]}}])
    assert (found.seeds, found.base, found.one_draw) == (1, 4.0, 3.0)
    assert search.results("mnist5k", [{**own, "metrics": strange}]) == []
    two_of_three = entry("prediction-v-seeds3", {0: (4.0, 3.0), 1: (4.0, 3.0)})
    assert search.results("mnist5k", [two_of_three]) == []


def test_only_settings_that_beat_the_default_are_crossed():
    def scores(**values):
        return [search.Result(n.replace("_", "-"), 1, 1.0, v, 0.0, 1.0, 1.0) for n, v in values.items()]

    axes = {**AXES, "prediction": {"v": {}, "w": {}}}
    ran = scores(default=1.0, prediction_v=0.9, prediction_w=0.8, steps_one=0.7, lr_low=1.1)
    assert search.crossed(axes, ran, 3) == ["steps-one+prediction-w"]
    better = scores(default=1.0, prediction_v=0.9, steps_one=0.7, lr_low=0.6)
    assert search.crossed(axes, better, 2) == ["lr-low+steps-one"]
    assert search.crossed(axes, better, 3)[-1] == "lr-low+steps-one+prediction-v"
    clashing = {"a": {"x": {"diffusion.prediction": "v"}}, "b": {"y": {"diffusion.prediction": "epsilon"}}}
    assert search.crossed(clashing, scores(default=1.0, a_x=0.9, b_y=0.8), 2) == []
    with pytest.raises(UserError, match=r"give different values to diffusion\.prediction"):
        search.resolve(clashing, "a-x+b-y")
    with pytest.raises(UserError, match="'default' has not finished"):
        search.crossed(axes, [], 3)


def test_a_search_stops_before_the_test_split():
    words = search.command("mnist5k", "prediction-v", {"diffusion.prediction": "v"}, (0, 1))
    assert words[-2:] == ["train_controls@mnist5k-0-1", "train_controls@mnist5k-1-1"]
    assert "params/mnist5k.yaml:diffusion.prediction=v" in words
    assert "params/mnist5k.yaml:controls.fit=[ocd_gain]" in words
    typed = search.command("mnist5k", "x", {"diffusion.clip": None, "overfit.until_converged": True}, (0,))
    assert "params/mnist5k.yaml:diffusion.clip=null" in typed
    assert "params/mnist5k.yaml:overfit.until_converged=true" in typed
    final = search.command("mnist5k", "default", {}, (0,), on_test=True)
    assert final[-1] == "evaluate@mnist5k-0-1"
    assert "params/mnist5k.yaml:controls.fit=[ocd_gain]" in final
    whole = search.command("mnist5k", "default", {}, (0,), on_test=True, whole=True)
    assert whole[-1] == "evaluate@mnist5k-0-1"
    assert not any("controls.fit" in w for w in whole)


def test_layers_are_compared_by_rank_and_seed(tmp_path):
    for seed, rank, layer, ocd in ((0, 1, "fc2", 0.5), (0, 2, "fc1", 0.75), (1, 1, "fc2", 0.25), (1, 2, "fc1", 1.5)):
        folder = tmp_path / f"data/t/seed{seed}/rank{rank}/evaluation"
        folder.mkdir(parents=True)
        results = [
            {
                "row": r,
                "metric": metric,
                "temperature": t,
                "noise": None,
                "mean": v if metric == "ce" and t is None else 9.0,
                "z": -2.0,
            }
            for r, v in (("base", 1.0), ("ocd", ocd), ("bound", 0.1))
            for metric, t in (("ce", None), ("ce", 1.5), ("accuracy", None))
        ]
        table = {"seed": seed, "rank": rank, "layer": layer, "results": results}
        table["metrics"] = [{"name": "ce", "higher_is_better": False}]
        (folder / "table.json").write_text(json.dumps(table))
    found = layer_gain.gains("t", tmp_path)
    assert [(g.seed, g.rank, g.gain) for g in found] == [(0, 1, 0.5), (0, 2, 0.25), (1, 1, 0.75), (1, 2, -0.5)]
    # ranks 1 2 1 2 (mid-ranks 1.5 3.5 1.5 3.5) against gains whose ranks are 3 2 4 1: -2 / sqrt(4 * 5)
    assert "rank and gain: -0.89" in layer_gain.table(found)
    with pytest.raises(UserError, match="no evaluated run of u"):
        layer_gain.gains("u", tmp_path)


@pytest.mark.parametrize(("base", "ocd"), [(10.0, 11.0), (-10.0, -9.0)])
def test_a_higher_figure_is_a_gain_where_higher_is_better(base, ocd):
    assert layer_gain.Gain(0, 1, "a", base, ocd, 12.0, 2.0, higher_is_better=True).gain == pytest.approx(0.1)
    assert layer_gain.Gain(0, 1, "a", base, ocd, 12.0, 2.0, higher_is_better=False).gain == pytest.approx(-0.1)


def test_every_layer_of_a_network_is_a_rank():
    assert layer_gain.layer_count("mnist5k") == 5
    words = layer_gain.command("mnist5k", "0,1", {"layer.select": "entropy"}, 5)
    assert words[:4] == ["dvc", "exp", "run", "evaluate"]
    assert "layer_ranks=[1,2,3,4,5]" in words
    assert "params/mnist5k.yaml:layer.select=entropy" in words
    assert "seeds=[0,1]" in words


def test_the_axes_are_of_tasks_that_exist():
    assert {p.stem for p in files_in("experiments/axes", ".yaml")} <= {p.stem for p in files_in("params", ".yaml")}
