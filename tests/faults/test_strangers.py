"""What comes from strangers cannot run code, take memory, or write where it should not."""

import ast
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from ocd_core.artifacts import Artifacts, read_json, replaced_folder, write_json
from ocd_core.cli import app
from ocd_core.codes.representations import representation_class
from ocd_core.config import trusted
from ocd_core.errors import UserError
from ocd_core.files import flush_tree, sha256_files
from ocd_core.models import build_model
from ocd_core.provenance import MANIFEST, read_manifest, write_manifest
from ocd_core.registry import check_reference, without_references
from ocd_core.report.page import Markdown, Section, html_page
from ocd_core.report.run_export import export_run
from ocd_core.report.run_report import write_report
from ocd_core.report.run_tables import print_tables
from ocd_core.report.store_card import card_files
from ocd_core.report.store_page import store_page
from ocd_core.report.store_terminal import headline
from ocd_core.store import OverfitStore
from ocd_core.weights import save_tensors
from tests.support.repository import REPO, repository_files
from tests.support.runs import reseal
from tests.support.stores import ABOUT, class_store, complete, make_schema, make_values, open_writer
from tests.support.toy import ToyTask, run_stages, write_toy_params

TOUCH = {"command": "touch stolen"}


# --- code


def as_a_module() -> nn.Module:
    return nn.Linear(1, 1)


def unannotated():
    Path("stolen").touch()
    return nn.Linear(1, 1)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("os:system", TOUCH),
        ("subprocess:call", {"args": ["touch", "stolen"]}),
        ("builtins:exec", {}),
        ("builtins:dict", {}),
        ("pathlib:Path", {}),
        (f"{__name__}:unannotated", {}),
        (f"{__name__}:TOUCH", {}),
    ],
)
def test_only_what_makes_networks_is_called(name: str, args: dict[str, Any], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"is no torch\.nn\.Module, nor a function"):
        build_model(name, args)
    assert not list(tmp_path.iterdir())
    assert isinstance(build_model(f"{__name__}:as_a_module", {}), nn.Linear)


def params_file(root: Path, domain: str, model: str) -> None:
    (root / "params").mkdir(exist_ok=True)
    (root / "params" / "toy.yaml").write_text(f"domain: '{domain}'\nbase: {{model: {{name: '{model}'}}}}\n")


def test_a_run_names_no_other_code_than_the_params_file(tmp_path: Path) -> None:
    """Whatever its config says: any file of it may name code."""
    for own in (None, ("mine:Task", "mine:Model"), ("images", "lenet5")):
        if own is not None:
            params_file(tmp_path, *own)
        with (
            trusted("toy", tmp_path, "the run"),
            pytest.raises(UserError, match=r"the run names code .*trust_remote_code"),
        ):
            check_reference("model", "os:system")
    params_file(tmp_path, "mine:Task", "os:system")
    with trusted("toy", tmp_path, "the run"):
        assert check_reference("model", "os:system") == "os:system"
        with without_references("a bundle in it"), pytest.raises(UserError, match="a bundle in it names code"):
            check_reference("model", "os:system")
    with without_references("a bundle"), trusted("toy", tmp_path, "the run"), pytest.raises(UserError):
        check_reference("model", "os:system")


@pytest.mark.parametrize("file", ["diffusion/config.json", "tuned/config.json", "evaluation/table.json"])
def test_no_file_of_a_run_chooses_code(toy_run: Path, tmp_path: Path, monkeypatch, file: str) -> None:
    """A run that is whole but for one name; its hashes are right, since anybody can make them."""
    from ocd_core.predictor import Predictor

    shutil.copytree(toy_run, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("evil.py").write_text("open('stolen', 'w')\n\ndef X(*args, **kwargs): ...\n")
    run = Artifacts("toy")
    path = run.rank_dir / file
    values = read_json(path)
    if file.startswith("evaluation"):
        values["results"][-1]["row"] = "evil:X"
    else:
        values["representation"]["name"] = "evil:X"
    write_json(path, values)
    reseal(path.parent)
    use: Callable[[], object] = partial(write_report, "toy")
    if not file.startswith("evaluation"):
        use = partial(Predictor.from_artifacts, run.rank_dir, tuned=file.startswith("tuned"))
        with pytest.raises(
            UserError, match=r"names code of its own, the representation 'evil:X', which is not imported"
        ):
            use()
    else:
        use()
    if file.startswith("tuned"):  # which the proof that the bundle loads reads
        with pytest.raises(UserError, match=r"names code of its own, the representation 'evil:X'"):
            export_run(run.rank_dir, "bundle")
        assert not Path("bundle").exists()
    assert not Path("stolen").exists()


def test_a_representation_is_one_before_it_is_called(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"representation 'os:system' is no subclass"):
        representation_class("os:system")


def test_a_run_from_a_stranger_imports_nothing(tmp_path: Path, monkeypatch) -> None:
    from ocd_core.predictor import Predictor

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("evil.py").write_text("open('stolen', 'w')\n")
    run = Artifacts("toy", root=tmp_path)
    for name, stage in (("prepared", "prepare"), ("diffusion", "train_diffusion"), ("scale", "train_scale"),
                        ("evaluation", "evaluate")):  # fmt: skip
        folder = run.path(name)
        write_json(folder / "config.json", {"domain": "evil:X", "data": {}, "base": {}})
        write_manifest(folder, {"stage": stage, "params": {}, "code": "", "inputs": {}}, sha256_files(folder))
    with pytest.raises(UserError, match=r"names code of its own, the domain 'evil:X', which is not imported"):
        Predictor.from_artifacts(run.rank_dir)
    assert not Path("stolen").exists()


def source_files() -> list[str]:
    folders = ("ocd_core/", "stages/", "experiments/", "benchmarks/")
    return [name for name in repository_files() if name.startswith(folders) and name.endswith(".py")]


def calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


FORBIDDEN = ("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "joblib.load", "dill.load", "eval",
             "exec", "os.system", "os.popen", "yaml.load")  # fmt: skip


# ruamel's objects are also named yaml, and are safe or round-trip loaders; the text of `exec` is made of a number alone
ALLOWED = {
    ("yaml.load", "ocd_core/presets/__init__.py"),
    ("yaml.load", "ocd_core/scaffold/new.py"),
    ("exec", "ocd_core/calls/model.py"),
}


def test_nothing_is_unpickled() -> None:
    found = []
    for name in source_files():
        for call in calls(ast.parse((REPO / name).read_text(encoding="utf-8"))):
            function, given = ast.unparse(call.func), {k.arg: ast.unparse(k.value) for k in call.keywords}
            if function == "torch.load" and given.get("weights_only") != "True":
                found.append(f"{name}:{call.lineno}: torch.load without weights_only=True")
            if given.get("allow_pickle", "False") != "False":
                found.append(f"{name}:{call.lineno}: allow_pickle")
            if function in FORBIDDEN and (function, name) not in ALLOWED:
                found.append(f"{name}:{call.lineno}: {function}")
    assert not found


def test_the_test_sees_what_is_forbidden() -> None:
    (call,) = calls(ast.parse("pickle.load(file)"))
    assert ast.unparse(call.func) in FORBIDDEN


# --- texts

NAME = "fc1\x1b[31m<script>alert(1)</script>`|\n# Title\u202e"


@pytest.fixture
def named(tmp_path: Path) -> OverfitStore:
    return class_store(tmp_path / "train.zarr", attributes={**ABOUT, "layer": NAME, "task": NAME,
                                                            "data": {"source": NAME, "licence": NAME}})  # fmt: skip


def test_names_neither_move_the_terminal_nor_end_a_cards_texts(named: OverfitStore) -> None:
    line = headline(named)
    assert "\x1b" not in line
    assert "\u202e" not in line
    files = card_files(named)
    assert json.loads(files["card.json"])["layer"]["name"] == NAME
    for text in (files["README.md"], store_page(named)):
        assert "<script>alert" not in text
        assert "\x1b" not in text
    assert "\n# Title" not in files["README.md"]
    assert files["README.md"].count("# Overfitted weights") == 1


MARKUP = "![x](http://evil/p.png) <img src=http://evil/q.png> [y](http://evil)\n\n# Title\x1b[31m"


def test_a_table_loads_nothing_and_moves_no_terminal(toy_run: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    shutil.copytree(toy_run, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    run = Artifacts("toy")
    table, summary = read_json(run.evaluation / "table.json"), read_json(run.prepared / "summary.json")
    table["remarks"] = [MARKUP]
    table["absent"] = [{"row": MARKUP, "status": "failed", "why": MARKUP}]
    table["results"] = [{**r, "title": r["title"] + MARKUP} for r in table["results"]]
    write_json(run.evaluation / "table.json", table)
    write_json(run.prepared / "summary.json", {**summary, "source": MARKUP, "licence": MARKUP})
    (run.pictures / "TABLE.md").write_text("mine")
    for folder in (run.evaluation, run.prepared, run.pictures):
        reseal(folder)
    with pytest.raises(UserError, match=r"pictures/TABLE\.md has the name of a file of the report; call the picture"):
        write_report("toy")
    (run.pictures / "TABLE.md").unlink()
    reseal(run.pictures)
    print_tables(write_report("toy"))
    shown = capsys.readouterr().out
    assert "evil" in shown
    assert "\x1b" not in shown
    export_run(run.rank_dir, "bundle")
    page = (run.report / "index.html").read_text()
    assert "evil" in page
    assert 'src="http' not in page
    assert "<img src=http" not in page
    for text in ((run.report / "table.md").read_text(), Path("bundle/README.md").read_text()):
        assert "![x](" not in text
        assert "<img" not in text.replace("\\<img", "")
        assert "\n# Title" not in text
        assert "\x1b" not in text


def test_markdown_on_a_page_loads_nothing() -> None:
    page = html_page("title", "lead", [Section("one", [Markdown(MARKUP)])])
    assert "evil" in page
    assert 'src="http' not in page
    assert "<img src=http" not in page


def test_answers_and_summaries_move_no_terminal(toy_run: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    shutil.copytree(toy_run, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    name = "a\x9b31m\x1b]0;x\x07\u202eb é"
    monkeypatch.setattr(ToyTask, "describe_output", lambda self, output: {"class": name})
    monkeypatch.setattr("ocd_core.running.runner.run_stages", lambda *args, **kwargs: [])
    save_tensors({"x": torch.zeros(3, 4)}, tmp_path / "one.safetensors")
    folder = Artifacts("toy").diagnosis
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "verdict.md").write_text(f"# Verdict {name}\n")
    for arguments in (["predict", "toy", "one.safetensors"], ["diagnose", "toy"]):
        found = CliRunner().invoke(app, ["--root", str(tmp_path), *arguments], catch_exceptions=False).output
        assert " é" in found or "\\u00e9" in found
        assert not {*"\x1b\x07\x9b\u202e"} & {*found}
        if arguments[0] == "predict":
            assert json.loads(found)["ocd"]["class"] == name


@pytest.mark.parametrize("stage", ["prepare", "score_layers"])
def test_stages_move_no_terminal(stage: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_toy_params(tmp_path)
    prepare = ToyTask.prepare
    monkeypatch.setattr(ToyTask, "prepare", lambda self, dest: {**prepare(self, dest), "source": NAME})
    monkeypatch.setattr("ocd_core.running.prepare.warnings", lambda summary: [NAME])
    monkeypatch.setattr(
        "ocd_core.running.score_layers.layers_report",
        lambda *args: {"used": {"1": "head"}, "warning": NAME, "scores": []},
    )
    run_stages(stage)
    shown = capsys.readouterr()
    assert "\\x1b" in shown.out + shown.err
    assert "\x1b[31m" not in shown.out + shown.err


# --- places


LINKS: dict[str, Callable[[Path, Path], None]] = {
    "symlink": lambda path, secret: path.symlink_to(secret),
    "hard link": lambda path, secret: path.hardlink_to(secret),
    "pipe": lambda path, secret: os.mkfifo(path),
    "folder": lambda path, secret: path.mkdir(),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", LINKS)
def test_a_lock_is_no_way_out(tmp_path: Path, secret: Path, kind: str) -> None:
    lock = tmp_path / ".base.lock"
    LINKS[kind](lock, secret)
    with (
        pytest.raises(UserError, match=r"\.base\.lock is a link, a folder or a pipe, .*; remove it"),
        replaced_folder(tmp_path / "base"),
    ):
        pass
    assert os.path.lexists(lock)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", LINKS)
def test_a_temporary_file_is_no_way_out(tmp_path: Path, secret: Path, kind: str) -> None:
    LINKS[kind](tmp_path / "x.json.partial", secret)
    if kind == "folder":
        with pytest.raises(UserError, match=r"x\.json\.partial is a folder, .*; move it or delete it"):
            write_json(tmp_path / "x.json", {})
        assert (tmp_path / "x.json.partial").is_dir()
        return
    write_json(tmp_path / "x.json", {"a": 1})
    assert read_json(tmp_path / "x.json") == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.timeout(60)
def test_a_pipe_in_a_folder_that_is_flushed(tmp_path: Path, secret: Path) -> None:
    for kind, link in LINKS.items():
        link(tmp_path / kind, secret)
    flush_tree(tmp_path)


def test_a_work_folder_of_a_store_is_no_way_out(tmp_path: Path, secret: Path) -> None:
    schema = make_schema()
    values = make_values(schema)
    with open_writer(tmp_path / "a.zarr", schema, values) as writer:
        work = writer.work
    shutil.rmtree(work)
    work.symlink_to(secret.parent)
    complete(tmp_path / "a.zarr", schema, values)
    assert [path.name for path in secret.parent.iterdir()] == ["secret"]


@pytest.mark.parametrize("task", ["../evil", "a/b", "/etc", "..", "", ".hidden", "a\nb", "a\x00b", "a\\b"])
def test_a_task_is_no_path(task: str) -> None:
    with pytest.raises(UserError, match="is not the name of a task"):
        Artifacts(task)


def test_what_only_looks_like_ours_is_left_alone(tmp_path: Path) -> None:
    stranger = tmp_path / ".mine.partial"
    stranger.mkdir()
    (stranger / "work").write_text("a week")
    for name in (".mine.ocd-short.partial", "mine.partial", ".mine.ocd-abcdefgh.partial.kept"):
        (tmp_path / name).write_text("kept")
    before = {path.name for path in tmp_path.iterdir()}
    with replaced_folder(tmp_path / "mine") as work:
        (work / "a").write_text("b")
    assert {path.name for path in tmp_path.iterdir()} == {*before, "mine"}
    assert (stranger / "work").read_text() == "a week"


def test_a_manifest_names_no_file_elsewhere(tmp_path: Path) -> None:
    for name in ("../secret", "/etc/passwd", "a/../../b"):
        write_manifest(tmp_path, {"stage": "x", "params": {}, "code": "", "inputs": {}}, {name: "0"})
        with pytest.raises(UserError, match=f"{MANIFEST} is damaged"):
            read_manifest(tmp_path)
    assert read_json(tmp_path / MANIFEST)["files"] == {name: "0"}
