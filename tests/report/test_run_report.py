"""The whole report of a toy run: its files, and the seconds that are joined into its results."""

import shutil
from pathlib import Path

import pytest

from ocd_core.artifacts import Artifacts, read_json
from ocd_core.errors import UserError
from ocd_core.evaluation.result import Absent, Result
from ocd_core.provenance import PAGE, read_manifest, write_manifest
from ocd_core.report import run_report
from ocd_core.report.paper_tables import PaperTask
from ocd_core.report.run_report import write_report
from ocd_core.timing import Stopwatch
from ocd_core.verify import verify
from tests.support.runs import reseal
from tests.support.toy import run_stages, write_toy_params


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """A toy run with all stages; tests must not write there."""
    root = tmp_path_factory.mktemp("toy")
    write_toy_params(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run_stages()
    return Artifacts("toy", root=root)


@pytest.fixture
def run(finished: Artifacts, tmp_path: Path) -> Artifacts:
    """A copy of it."""
    shutil.copytree(finished.root, tmp_path / "copy")
    return Artifacts("toy", root=tmp_path / "copy")


@pytest.fixture
def tables_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is drawn, which takes most of the time."""
    for name in ("_cards", "plot_curves", "plot_layer_scores", "plot_store", "run_page"):
        monkeypatch.setattr(run_report, name, lambda *_: "")


def files(run: Artifacts) -> set[str]:
    return {str(path.relative_to(run.report)) for path in run.report.iterdir()}


def test_a_report_has_tables_plots_and_cards(run: Artifacts) -> None:
    shutil.rmtree(run.report)
    (run.pictures / "view.gif").write_bytes(b"a figure of the domain")
    reseal(run.pictures)
    (entry,) = write_report("toy", run.root)
    assert files(run) == {
        "index.html", "table.md", "results.json", "scale.md", "runtime.md", "cards", "curves.png", "layer_scores.png",
        "overfit_test.png", "view.gif", "manifest.json", "page.json",
    }  # fmt: skip
    assert (run.report / "view.gif").read_bytes() == b"a figure of the domain"
    assert {path.name for path in (run.report / "cards").iterdir()} == {
        f"seed0-rank1-{split}" for split in ("train", "val", "test")
    }
    assert (run.report / "cards" / "seed0-rank1-test" / "index.html").is_file()
    assert "**toy, layer head (rank 1), 20 test samples, seed 0**" in (run.report / "table.md").read_text()
    assert [*entry.rows()] == [*dict.fromkeys(r["row"] for r in read_json(run.evaluation / "table.json")["results"])]


@pytest.mark.usefixtures("tables_only")
def test_results_are_those_of_the_evaluation(run: Artifacts) -> None:
    (stored,) = read_json(run.report / "results.json")
    assert (stored["task"], stored["rank"], stored["seeds"]) == ("toy", 1, [0])
    table = read_json(run.evaluation / "table.json")
    assert [(r["row"], r["mean"]) for r in stored["results"]] == [(r["row"], r["mean"]) for r in table["results"]]
    assert [Absent(**a) for a in stored["absent"]] == [Absent(**a) for a in table["absent"]]
    shown = [r.model_copy(update={"seconds": None}) for r in write_report("toy", run.root)[0].results]
    assert [Result(**r) for r in stored["results"]] == shown, "no times, which differ from run to run"


@pytest.mark.usefixtures("tables_only")
def test_what_dvc_does_not_keep_is_sealed_apart(run: Artifacts, monkeypatch) -> None:
    """After `dvc checkout` the tables are another run's; after `dvc pull` there are no times at all."""
    monkeypatch.chdir(run.root)
    write_report("toy")
    assert set(read_manifest(run.report)["files"]).isdisjoint({"index.html", "runtime.md", "page.json"})
    assert verify(str(run.report)) == []
    page, kept = run.report / "index.html", {name: (run.report / name).read_bytes() for name in ("index.html", PAGE)}
    page.write_text("changed")
    assert "index.html is damaged: its content does not match page.json" in str(verify(str(run.report))[0])
    for name, data in kept.items():
        (run.report / name).write_bytes(data)
    made = {**read_manifest(run.report)}
    files = made.pop("files")
    write_manifest(run.report, {**made, "inputs": {"seed0/rank1/evaluation": "another"}}, files)
    assert "index.html shows other evaluations than the files beside it" in str(verify(str(run.report))[0])
    write_manifest(run.report, made, files)
    for name in ("index.html", "runtime.md"):
        (run.report / name).unlink()
    assert "index.html is missing" in str(verify(str(run.report))[0])
    (run.report / PAGE).unlink()
    assert verify(str(run.report)) == []


@pytest.mark.usefixtures("tables_only")
def test_nothing_of_an_earlier_report_is_left(run: Artifacts) -> None:
    (run.report / "cards" / "seed7-rank1-test").mkdir(parents=True)
    (run.report / "paper.md").write_text("of an earlier task")
    write_report("toy", run.root)
    assert not (run.report / "paper.md").exists()
    assert not (run.report / "cards" / "seed7-rank1-test").exists()


def test_a_report_can_be_verified(run: Artifacts) -> None:
    assert verify(str(run.report)) == []
    card = run.report / "cards" / "seed0-rank1-val" / "card.json"
    card.write_text(card.read_text().replace("toy", "tox"))
    (problem,) = verify(str(run.report))
    assert problem.what == f"{card} is damaged: its content does not match manifest.json"
    assert problem.remedy == "run 'python -m stages.report --task toy'"


@pytest.mark.usefixtures("tables_only")
def test_seconds_are_joined_if_they_are_recorded(run: Artifacts) -> None:
    def seconds() -> dict[str, float | None]:
        return {r.row: r.seconds for r in write_report("toy", run.root)[0].results}

    unknown = seconds()
    assert {*unknown.values()} == {None}
    known = {row: float(i) for i, row in enumerate(unknown)}
    inference = {way: {"samples": 1, "base_ms": 1.0, "ocd_ms": 2.0} for way in ("one_by_one", "batched")}
    Stopwatch().write(run, "evaluate", "cpu", rows=known, inference=inference)
    assert seconds() == known
    made = read_manifest(run.evaluation)
    files = made.pop("files")
    write_manifest(run.evaluation, {**made, "code": "another, from the cache"}, files)
    assert seconds() == unknown


@pytest.mark.usefixtures("tables_only")
def test_the_page_beside_the_paper_is_there_if_the_paper_has_the_task(
    run: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    absent = lambda run, done: [Absent(row=f"{run.task}, {sorted(done)}", status="not run", why="a test")]  # noqa: E731
    monkeypatch.setattr(run_report, "presets_not_run", absent)
    page = lambda entry, _compared, not_run: seen.append((entry.rank, not_run[0].row)) or "a page"  # noqa: E731
    monkeypatch.setattr(run_report, "paper_markdown", page)
    write_report("toy", run.root)
    assert not seen  # the paper has no such data set
    assert not (run.report / "paper.md").exists()
    monkeypatch.setattr(run_report, "paper_task", lambda _task: PaperTask(dataset="MNIST", architecture="LeNet5"))
    shutil.copytree(run.task_dir, run.root / "data" / "toy_paper")
    (entry,) = write_report("toy", run.root)
    assert (run.report / "paper.md").read_text() == "a page"
    assert seen == [(1, "toy, ['paper']")]
    assert "ocd_paper" in entry.rows()


def test_a_report_needs_an_evaluation_and_the_figures(run: Artifacts) -> None:
    with pytest.raises(UserError, match="no evaluated run of task 'other'"):
        write_report("other", run.root)
    shutil.rmtree(run.pictures)
    with pytest.raises(UserError, match=r"pictures is missing; run .*stages\.illustrate"):
        write_report("toy", run.root)
