"""The four calls, and what lies in the folder afterwards."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ocd_core import OCD, OverfitStore, Predictor
from ocd_core.config import load_params
from ocd_core.errors import UserError
from ocd_core.files import locked
from ocd_core.provenance import Lineage
from ocd_core.running.runner import stage_states
from ocd_core.store import verify_store
from ocd_core.tasks.base import Metric
from tests.bundles.support import edit_json, rehash
from tests.calls.support import QUICK, cross_entropy, perceptron, points


def made(out: Path, **changes: Any) -> OCD:
    return OCD(perceptron(), cross_entropy, out=out, **{"layer": "0", **QUICK, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[OCD, Any]:
    ocd = made(tmp_path_factory.mktemp("calls") / "mine")
    ocd.fit(points(40), points(16, 1))
    return ocd, ocd.evaluate(points(12, 2))


def test_the_frame_has_a_line_for_each_row(finished) -> None:
    _, frame = finished
    assert {"base", "mean_delta", "ocd", "ocd_ensemble", "bound"} <= set(frame.index)
    model, (x, y) = perceptron(), points(12, 2)
    assert frame.loc["base", "loss"] == pytest.approx(cross_entropy(model(x), y).mean().item(), rel=1e-5)
    assert frame.loc["base", "accuracy"] == pytest.approx(100 * float((model(x).argmax(1) == y).float().mean()))
    assert frame.loc["bound", "loss"] < frame.loc["base", "loss"]
    assert "<table" in frame._repr_html_()
    assert frame.attrs["layer"] == "0"


def test_the_stores_are_those_of_the_pipeline_and_hold_gradient_steps(finished) -> None:
    """Δ of one sample against two plain steps of gradient descent on the layer's weight alone."""
    ocd, _ = finished
    for split in ("train", "val", "test"):
        assert verify_store(str(ocd.artifacts.overfit(split))) == []
    store, (x, y) = OverfitStore(ocd.artifacts.overfit("train")), points(40)
    model = perceptron().double()
    start = model[0].weight.detach().clone()
    for _ in range(2):
        model.zero_grad()
        cross_entropy(model(x[3:4].double()), y[3:4]).sum().backward()
        model[0].weight.data -= 0.1 * model[0].weight.grad
    torch.testing.assert_close(
        torch.from_numpy(store.delta(3)).double(), model[0].weight.detach() - start, rtol=1e-4, atol=1e-7
    )


def test_the_folder_is_a_run_of_the_pipeline_and_nothing_is_done_twice(finished) -> None:
    ocd, frame = finished
    root, name = ocd.artifacts.root, ocd.artifacts.task
    params = load_params(name, root)
    assert params.diffusion.representation.name == "factored"  # exact for a linear layer
    states = {s.stage: s.state for s in stage_states(Lineage(ocd.artifacts, params))}
    assert {stage for stage, state in states.items() if state != "done"} <= {"diagnose", "report"}  # nobody asked
    assert (root / "reports" / name / "index.html").is_file()
    before = {p: p.stat().st_mtime_ns for p in (root / "data").rglob("*") if p.is_file()}
    again = made(root).fit(points(40), points(16, 1))
    assert again.evaluate(points(12, 2)).equals(frame)
    assert {p: p.stat().st_mtime_ns for p in (root / "data").rglob("*") if p.is_file()} == before


def test_what_was_lost_is_made_again_and_other_data_or_weights_start_anew(finished, tmp_path) -> None:
    source, _ = finished
    shutil.copytree(source.artifacts.root, tmp_path / "mine")
    ocd = made(tmp_path / "mine")
    run, base = ocd.artifacts, (source.artifacts.base / "model.safetensors").read_bytes()
    shutil.rmtree(run.diffusion)
    ocd.fit(points(40), points(16, 1))
    name = "model.safetensors"
    assert (run.diffusion / name).read_bytes() == (source.artifacts.diffusion / name).read_bytes()
    ocd.fit(points(44, 5), points(16, 1))
    assert len(OverfitStore(run.overfit("train"))) == 44
    other = OCD(perceptron(seed=1), cross_entropy, layer="0", out=tmp_path / "mine", **QUICK)
    other.fit(points(44, 5), points(16, 1))
    assert (run.base / name).read_bytes() != base


def test_other_test_rows_give_another_table(finished, tmp_path) -> None:
    source, frame = finished
    shutil.copytree(source.artifacts.root, tmp_path / "mine")
    ocd = made(tmp_path / "mine").fit(points(40), points(16, 1))
    x, y = points(12, 3)
    other = ocd.evaluate((x, y), report=False)
    assert other.loc["base", "loss"] == pytest.approx(cross_entropy(perceptron()(x), y).mean().item(), rel=1e-5)
    assert other.loc["base", "loss"] != frame.loc["base", "loss"]


def count_of(value: float) -> list[Metric]:
    return [Metric("mine", lambda o, t: torch.full((len(t),), value), higher_is_better=None)]


def test_new_or_changed_metrics_are_evaluated_and_nothing_else(finished, tmp_path) -> None:
    source, frame = finished
    shutil.copytree(source.artifacts.root, tmp_path / "mine")
    run = source.artifacts.rank_dir.relative_to(source.artifacts.root)
    others = [p for p in (tmp_path / "mine" / run).rglob("*") if p.is_file() and "evaluation" not in str(p)]
    before = {p: p.stat().st_mtime_ns for p in others}
    table = tmp_path / "mine" / run / "evaluation/table.json"
    made = []
    for metrics, wanted in ((count_of(1.0), 1.0), (count_of(1.0), 1.0), (count_of(3.0), 3.0), ([], None)):
        ocd = OCD(perceptron(), cross_entropy, layer="0", out=tmp_path / "mine", metrics=metrics, **QUICK)
        found = ocd.fit(points(40), points(16, 1)).evaluate(points(12, 2), report=False)
        assert (found.loc["base", "mine"] if wanted is not None else None) == wanted
        made.append(table.stat().st_mtime_ns)
    assert found.equals(frame)
    assert made[0] == made[1]
    assert len({*made}) == 3
    assert {p: p.stat().st_mtime_ns for p in others} == before


def test_a_label_that_is_no_class_is_refused_before_anything_is_fitted(finished, tmp_path) -> None:
    x, y = points(40)
    ocd = made(tmp_path / "mine")
    late = torch.where(torch.arange(40) == 30, 5, y)
    for bad, train, val in (("train", (x, late), (x, y)), ("val", (x, y), (x, y - 1))):
        with pytest.raises(UserError, match=f"{bad}: row .* has the label"):
            ocd.fit(train, val)
        assert not ocd.artifacts.base.exists()
    with pytest.raises(UserError, match="test: row 0 has the label -100, but the model has 2 outputs"):
        finished[0].evaluate((x, y * 0 - 100))


def test_params_of_another_task_are_kept(tmp_path) -> None:
    path = tmp_path / "mine" / "params" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("domain: images\ndata: {}\n")
    with pytest.raises(UserError, match=r"params/mine\.yaml is the params file of another task; give another out"):
        made(tmp_path / "mine").fit(points(8), points(4, 1))
    assert path.read_text() == "domain: images\ndata: {}\n"
    assert not (tmp_path / "mine" / "data").exists()


def test_one_evaluation_at_a_time(finished) -> None:
    ocd, frame = finished
    held = locked(ocd.artifacts.task_dir / ".evaluate.lock", "")
    with held, pytest.raises(UserError, match=r"the evaluation in .*mine is being written by process"):
        ocd.evaluate(points(12, 3))
    assert ocd.evaluate(points(12, 2)).equals(frame)


def squared(output, target):
    return (output - target).square().flatten(1).mean(1)


def test_val_and_test_are_compared_with_train(finished, tmp_path) -> None:
    """A loss would stretch targets (N,) to (N, N) without an error."""
    x, y = torch.randn(16, 6), torch.randn(16, 1)
    ocd = OCD(perceptron(outputs=1), squared, out=tmp_path / "mine", layer="0", **QUICK)
    for bad, words in (
        ((x, y[:, 0]), r"val: its targets are \(y0: shape \(\)"),
        ((x[:, :5], y), r"val: the model fails on a batch of inputs of shape \(8, 5\)"),
        ((x, y * torch.nan), "val: row 0 holds NaN"),
        (
            (x.repeat(3, 1), torch.arange(48.0)[:, None].where(torch.arange(48)[:, None] < 47, torch.nan)),
            "val: row 47 h",
        ),
    ):
        with pytest.raises(UserError, match=words):
            ocd.fit((x, y), bad)
        assert not ocd.artifacts.root.exists()
    x, y = points(12, 2)
    with pytest.raises(UserError, match=r"test: its targets are .*floating-point numbers"):
        finished[0].evaluate((x, y.float()))
    with pytest.raises(UserError, match=r"test: the model fails .* \(8, 5\)"):
        finished[0].evaluate((x[:, :5], y))


def test_inputs_unlike_those_of_the_training_are_refused(finished, tmp_path) -> None:
    ocd, _ = finished
    ocd.save(tmp_path / "bundle")
    loaded = OCD.load(tmp_path / "bundle", perceptron(), cross_entropy)
    x, _ = points(5, 4)
    for one in (ocd, loaded):
        with pytest.raises(UserError, match=r"the model fails on a batch of inputs of shape \(1, 5\)"):
            one.predict(x[:, :5])
        with pytest.raises(UserError, match="x: row 3 holds NaN"):
            one.predict(torch.where(torch.arange(5)[:, None] == 3, torch.nan, x))
        with pytest.raises(UserError, match=r"x: its inputs|the model fails"):
            one.predict(x.long())


def test_predictions_travel_as_a_bundle(finished, tmp_path, monkeypatch) -> None:
    ocd, _ = finished
    x, _ = points(5, 4)
    found = ocd.predict(x, draws=3)
    assert found.draws.shape == (3, 5, 2)
    torch.testing.assert_close(found.base_output.float(), perceptron()(x))
    monkeypatch.setenv("HOME", str(tmp_path))
    ocd.save("~/bundle")
    loaded = OCD.load(tmp_path / "bundle", perceptron(seed=9), cross_entropy)  # other weights: the bundle's count
    assert torch.equal(loaded.predict(x, draws=3).output, found.output)
    with pytest.raises(UserError, match="loaded from a bundle"):
        loaded.fit(points(40), points(16, 1))
    with pytest.raises(UserError, match="holds no results to plot"):
        loaded.plot("curves")
    with pytest.raises(UserError, match="another"):
        OCD.load(tmp_path / "bundle", perceptron(outputs=3), cross_entropy)
    with pytest.raises(UserError, match="code of its own"):
        Predictor.from_pretrained(tmp_path / "bundle")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("data.inputs", ["x=open('stolen', 'w')"], "data.inputs: input .* must be names"),
        ("data.inputs", ["x): open('stolen', 'w')\ndef forward(self, x"], "data.inputs: input .* must be names"),
        ("data.inputs", ["class"], "must be names"),
        ("data.inputs", ["x", "x"], "data.inputs: input 'x' is named twice"),
        ("data.inputs", "x0", "data.inputs: Input should be a valid list"),
        ("data.taken", "os:system", "data.taken: "),
    ],
)
@pytest.mark.parametrize("by_name", [True, False])
def test_a_bundle_of_a_stranger_runs_nothing(
    finished, tmp_path, monkeypatch, by_name: bool, key: str, value: Any, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    finished[0].save("bundle")
    edit_json(Path("bundle/config.json"), "data.by_name", by_name)
    edit_json(Path("bundle/config.json"), key, value)
    rehash(Path("bundle"))
    with pytest.raises(UserError, match=f"config.json: {words}" if words.startswith("data") else words) as failure:
        OCD.load("bundle", perceptron(), cross_entropy)
    assert "\n" not in str(failure.value)
    assert not Path("stolen").exists()


def test_plots_are_figures_of_the_run(finished) -> None:
    """Each shows numbers of the table, the store or the stages' tables; nothing is written."""
    ocd, frame = finished
    before = set(ocd.artifacts.root.rglob("*"))
    differences = ocd.plot("differences").axes[0]
    shown = [line.get_xdata()[0] for line in differences.lines if line.get_marker() == "o"]
    rows = ["mean_delta", "ocd", "ocd_ensemble"]  # the bound sees labels
    assert shown == pytest.approx(list(frame.loc[rows, "difference"]))
    assert ocd.plot("reliability").axes[0].get_title() == frame.loc["base", "title"]
    norms = OverfitStore(ocd.artifacts.overfit("train")).read("rho")
    assert any(f"{norms.max():.2g}" in axis.get_title() for axis in ocd.plot("overfit").axes)
    assert [label.get_text() for label in ocd.plot("layers").axes[0].get_yticklabels()] == ["2", "0"]  # best first
    assert [axis.get_title() for axis in ocd.plot("curves").axes][:2] == ["base network", "diffusion"]
    assert set(ocd.artifacts.root.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("curve", "there is no plot 'curve'; plots are diagnosis, layers, "),
        ("diagnosis", "diagnosis is missing; call diagnose first"),
        ("layers", "layers is missing; call fit first"),
        ("differences", "evaluation is missing; call evaluate first"),
    ],
)
def test_plots_of_nothing_are_refused(tmp_path, name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        made(tmp_path / "mine").plot(name)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"overfitt": {"steps": 2}}, "unknown option 'overfitt'; did you mean 'overfit'?"),
        ({"overfit": 3}, "overfit: give a dict of params"),
        ({"layer": "fc9"}, "layer 'fc9' does not exist; the layers to choose from are 0, 2"),
    ],
)
def test_options_that_cannot_be_are_refused_at_once(tmp_path, changes, words) -> None:
    with pytest.raises(UserError, match=words.replace("?", r"\?")):
        OCD(perceptron(), cross_entropy, out=tmp_path / "mine", **{**QUICK, **changes})


def test_params_have_the_errors_of_params_files(tmp_path) -> None:
    with pytest.raises(UserError, match=r"overfit\.steps: .* \(found 0\)"):
        made(tmp_path / "mine", overfit={"steps": 0}).fit(points(8), points(4, 1))


def test_calls_in_the_wrong_order(tmp_path) -> None:
    ocd = made(tmp_path / "mine")
    assert "not fitted" in repr(ocd)
    for call in (lambda: ocd.predict(torch.zeros(1, 6)), lambda: ocd.evaluate(points(4)), lambda: ocd.save(tmp_path)):
        with pytest.raises(UserError, match="call fit first"):
            call()


def test_a_diagnosis_before_anything_is_trained(tmp_path) -> None:
    ocd = made(tmp_path / "mine", layer={"select": "0", "probe": {"samples": 20}})
    text = ocd.diagnose(points(40), points(24, 1))
    assert "0" in text
    assert (ocd.artifacts.diagnosis / "layers.tsv").is_file()
    assert {label.get_text() for label in ocd.plot("diagnosis").axes[1].get_yticklabels()} == {"0", "2"}
    assert not ocd.artifacts.diffusion.exists()
