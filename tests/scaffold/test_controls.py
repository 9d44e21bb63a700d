"""What fitting the controls takes: every row is tried, and the parts add up."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ocd_core.errors import UserError
from ocd_core.evaluation.rows import ROWS, row_class
from ocd_core.network.cut import CutModel
from ocd_core.network.training import seeded_network
from ocd_core.provenance import Lineage
from ocd_core.samples import SPLITS
from ocd_core.scaffold import controls as module
from ocd_core.scaffold.checking import check_task_params
from ocd_core.scaffold.controls import Budget, Controls
from ocd_core.scaffold.trials import Trial, Trials
from tests.support.toy import PLANE, toy_params
from tests.support.views import views_run

FITTED = [name for name in ROWS.own() if row_class(name).fitted]
QUICK = {name: dict(row_class(name).quick) for name in FITTED if row_class(name).Params is not None}
EPOCH, TRAINED, PASS = 60.0, 7.0, 0.25  # seconds, minutes, seconds per sample


def controls_of(root: Path, values: dict[str, Any], fit: list[str], **groups: dict[str, Any]) -> Controls:
    """Of a task `mine` in `root`, whose epochs take a minute; `groups` update the groups of rows."""
    own = {name: {**keys, **groups.get(name, {})} for name, keys in QUICK.items()}
    values = {
        **values,
        "controls": {"fit": fit, "components": 2, **own},
        "evaluate": {**values["evaluate"], "rows": ["base"]},
    }
    (root / "params").mkdir()
    with (root / "params" / "mine.yaml").open("w") as file:
        YAML().dump(values, file)
    lineage = Lineage.of("mine", root=root)
    params = lineage.params
    task = params.build_task()
    task.prepare(root)
    splits = {name: task.open(root, name) for name in SPLITS}
    layer = params.layer.named
    assert layer is not None
    trials = Trials(params, task, CutModel(seeded_network(task, 0), layer, "float32"), splits["train"], 40)
    trials.diffusion()
    trials.scale()
    return Controls(lineage, trials, splits, 40, Budget(lambda of: EPOCH, TRAINED), PASS)


@pytest.mark.parametrize(("values", "absent"), [
    (PLANE, {"base_further_augmented", "mc_dropout", "mean_variance", "class_mean_delta"}),
    (toy_params(), {"base_further_augmented", "mc_dropout", "mean_variance", "laplace", "tent", "linear",
                    "class_mean_delta"}),
])  # fmt: skip
def test_every_row_is_tried_unless_the_task_cannot_have_it(
    values: dict[str, Any], absent: set[str], tmp_path: Path
) -> None:
    found = controls_of(tmp_path, values, FITTED).estimate()
    assert found.unknown == []
    assert set(found.left_out) == absent
    assert set(found.minutes) == set(FITTED) - absent
    assert all(minutes >= 0 for minutes in found.minutes.values())
    assert found.minutes["regression"] > 0


def test_trainings_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an update of one second: as many as there are updates, with each width, learning rate and teacher."""
    monkeypatch.setattr(module, "tried", lambda train, samples: train(1, 1) or Trial(1.0, 0.0, 0.0, samples))
    fit = ["mean_delta", "regression", "hypernetwork", "hypernetwork_pretrained", "hypernetwork_stochastic",
           "equal_head", "base_further", "layer_further", "deep_ensemble"]  # fmt: skip
    found = controls_of(
        tmp_path,
        PLANE,
        fit,
        regression={"widths": [4, 8], "lrs": [1e-3, 1e-2, 1e-1], "updates": 100},
        hypernetwork={"widths": [4], "lrs": [1e-3, 1e-2], "updates": 30},
        hypernetwork_pretrained={
            "widths": [4, 8], "lrs": [1e-3], "updates": 30, "regression": {"updates": 50, "lrs": [1e-3, 1e-2]}
        },
        hypernetwork_stochastic={"lrs": [1e-3, 1e-2], "updates": 40},
        equal_head={"updates": None},
        base_further={"epochs": 15, "lrs": [1e-4, 1e-3]},
        layer_further={"epochs": None, "lrs": [1e-4, 1e-3]},
        deep_ensemble={"members": [2, 5], "epochs": 3},
    ).estimate()  # fmt: skip
    wanted = {
        "mean_delta": 40 * PASS / 60,
        "regression": 2 * 3 * 100 / 60,
        "hypernetwork": 2 * 30 / 60,
        "hypernetwork_pretrained": 2 * (30 + 2 * 50) / 60,
        "hypernetwork_stochastic": 2 * 40 / 60,
        "equal_head": TRAINED,
        "base_further": 2 * 15 * EPOCH / 60,
        "layer_further": TRAINED,
        "deep_ensemble": 4 * 3 * EPOCH / 60,
    }
    assert found.minutes == pytest.approx(wanted)


@pytest.mark.parametrize(("start", "each", "seconds"), [(0.3, 0.05, 0.3 + 40 * 0.05), (3.0, 0.5, (3 + 8 * 0.5) * 5)])
def test_work_grows_with_the_samples(
    start: float, each: float, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From two numbers of samples; from the smaller alone, of which there are five times as many, if that is slow."""
    taken = []

    def fit(row: Any, fitting: Any) -> None:
        taken.append(start + each * len(fitting.split("train")))

    monkeypatch.setattr(row_class("laplace"), "fit", fit)
    monkeypatch.setattr(module, "seconds", lambda work: work() or taken[-1])
    found = controls_of(tmp_path, PLANE, ["laplace"]).estimate()
    assert found.minutes["laplace"] * 60 == pytest.approx(seconds)


def test_a_row_that_refuses_a_few_samples_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(row: Any, fitting: Any) -> None:
        raise UserError("too few")

    monkeypatch.setattr(row_class("laplace"), "fit", fit)
    assert controls_of(tmp_path, PLANE, ["laplace"]).estimate().unknown == ["laplace"]


def test_views_are_tried_too(tmp_path: Path) -> None:
    """A domain that draws new inputs of its own splits at each step."""

    def tuned(values: dict[str, Any]) -> dict[str, Any]:
        values["tuning"].update(updates=2, draws=2, lrs=[1e-3], batch_size=4, validate_every=1)
        return values

    run = views_run(tmp_path, "prepare", tuned)
    needs = {need.stage: need for need in check_task_params(Lineage.of("views", root=run.root)).needs}
    assert needs["tune_diffusion"].minutes
    assert needs["train_controls"].minutes
    assert "not known" not in needs["train_controls"].note
