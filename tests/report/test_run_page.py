"""The page of a task's report: its parts, and what a reader of it sees in a browser at two widths."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ocd_core.artifacts import Artifacts
from ocd_core.files import sha256_files
from ocd_core.provenance import write_manifest
from ocd_core.report import run_report
from ocd_core.report.run_report import write_report
from ocd_core.report.store_page import store_page
from ocd_core.store import OverfitStore
from tests.report.test_store_page import Page
from tests.support.browser import measure, need_chromium

PARTS = ["verdict", "what-was-done", "results", "diagnosis", "samples", "layers", "training", "weight-changes",
         "memorisation", "cost", "environment-and-config"]  # fmt: skip


@pytest.fixture(scope="module")
def reports(run_of_domain: Callable[[str], Artifacts]) -> dict[str, Artifacts]:
    """Digits, and views, whose domain has figures of its own."""
    found = {domain: run_of_domain(domain) for domain in ("images", "views")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_report, "store_page", lambda _store: "")  # it takes seconds, and has tests of its own
        for run in found.values():
            write_report(run.task, run.root)
    return found


def page_of(run: Artifacts) -> tuple[str, Page]:
    text = (run.report / "index.html").read_text(encoding="utf-8")
    return text, Page(text)


def sections(page: Page) -> list[str]:
    return [attrs["id"] for tag, attrs in page.found if tag == "section"]


def test_the_parts_of_the_page(reports: dict[str, Artifacts]) -> None:
    _, page = page_of(reports["images"])
    assert sections(page) == [*PARTS[:5], "calibration", *PARTS[5:]]
    _, views = page_of(reports["views"])
    assert sections(views) == PARTS
    for run in reports.values():
        _, page = page_of(run)
        first = {
            "images": "minus the logarithm of the probability",
            "views": "the mean squared error of a view's colours",
        }
        for words in ("overfit.steps", "torch", "operations per test sample", "OCD draws Δ", first[run.task]):
            assert words in page.text
        for _, target in [(tag, attrs["href"]) for tag, attrs in page.found if tag == "a"]:
            assert target.startswith("#") or (run.report / target).is_file(), target


def test_it_opens_offline(reports: dict[str, Artifacts]) -> None:
    for run in reports.values():
        text, page = page_of(run)
        assert not {tag for tag, _ in page.found} & {"script", "link", "iframe", "object", "embed", "base", "form"}
        sources = [attrs["src"] for tag, attrs in page.found if tag == "img"]
        assert len(sources) >= 5
        assert all(source.startswith(("data:image/png;base64,", "data:image/gif;base64,")) for source in sources)
        assert "url(" not in text
        assert "http" not in text.split("</style>")[1].replace("http-", "")


def test_the_result_comes_first_and_then_what_was_said_beforehand_if_there_is_a_diagnosis(
    reports: dict[str, Artifacts], monkeypatch, tmp_path: Path
) -> None:
    run = reports["images"]
    for name in ("_cards", "plot_curves", "plot_layer_scores", "plot_store"):  # as they are
        monkeypatch.setattr(run_report, name, lambda *_: [])
    folder = run.diagnosis
    shutil.move(folder, tmp_path / "kept")
    try:
        write_report("images", run.root)
        text, page = page_of(run)
        assert sections(page)[:3] == ["verdict", "what-was-done", "results"]
        assert page.text.index("The base network's cross entropy is") < page.text.index("A base network (")
        assert "the diagnosis said" not in text
        assert "diagnosis" not in sections(page)
        folder.mkdir()
        (folder / "verdict.md").write_text("OCD **cannot** gain here.\n")
        write_manifest(folder, {"stage": "diagnose", "params": {}, "code": "", "inputs": {}}, sha256_files(folder))
        write_report("images", run.root)
        text, page = page_of(run)
        assert "the diagnosis said: OCD <strong>cannot</strong> gain here." in text
        assert "diagnosis" in sections(page)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(tmp_path / "kept", folder)


@pytest.fixture(scope="module")
def store_file(reports: dict[str, Artifacts], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "store.html"
    path.write_text(store_page(OverfitStore(reports["images"].overfit("test"))), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", ["images", "views", "store"])
def test_in_a_browser(reports: dict[str, Artifacts], store_file: Path, name: str, width: int, tmp_path: Path) -> None:
    """Every picture shows, no text sticks out, and wide tables are cards on a narrow screen."""
    need_chromium()
    page = store_file if name == "store" else reports[name].report / "index.html"
    found = measure(page, width, tmp_path)
    assert found["wrong"] == []
    assert found["images"] == page.read_text(encoding="utf-8").count("<img")
    assert (found["cards"] > 5) == (width == 400)


def test_the_measure_finds_what_is_wrong(tmp_path: Path) -> None:
    need_chromium()
    page = tmp_path / "bad.html"
    wide, tall = "x" * 300, "<br>".join("abcdefghijkl")
    page.write_text(
        f"<!doctype html><p>{wide}</p><img alt='lost' src='data:image/png;base64,AAAA'>"
        f"<table style='table-layout: fixed; width: 50px'><tr><td>{wide}</td></tr></table>"
        f"<table><tr><td>{tall}</td></tr></table>"
        "<table style='table-layout: fixed; width: 50px; overflow-wrap: anywhere'><tr><td>fingerprint</td></tr></table>"
    )
    wrong = " ".join(measure(page, 400, tmp_path)["wrong"])
    for words in ("picture: lost", "page is ", "text: xxx", "cell: xxx", "row of ", "broken word: fingerprint"):
        assert words in wrong
