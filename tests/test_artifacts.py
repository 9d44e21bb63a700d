import json
import math
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocd_core.artifacts import Artifacts, read_json, read_table, replaced_folder, write_json, write_table
from ocd_core.errors import UserError
from ocd_core.params_files import read_params


def test_paths_follow_the_documented_layout(tmp_path) -> None:
    run = Artifacts("mnist5k", 3, 2, tmp_path)
    assert run.prepared == tmp_path / "data/mnist5k/prepared"
    assert run.base == tmp_path / "data/mnist5k/seed3/base"
    assert run.overfit("val") == tmp_path / "data/mnist5k/seed3/rank2/overfit/val.zarr"
    assert Artifacts.from_folder(run.rank_dir) == run


@pytest.mark.parametrize("folder", ["data/mnist5k", "data/mnist5k/seed0", "data/mnist5k/seedx/rank1"])
def test_a_folder_that_is_not_a_run(tmp_path, folder) -> None:
    with pytest.raises(UserError, match="not a run's folder"):
        Artifacts.from_folder(tmp_path / folder)


@pytest.mark.parametrize(("seed", "rank"), [(-1, 1), (0, 0)])
def test_impossible_seed_or_rank(seed, rank) -> None:
    with pytest.raises(UserError, match="at least"):
        Artifacts("mnist5k", seed, rank)


def test_need_names_the_stage(tmp_path) -> None:
    run = Artifacts("mnist5k", root=tmp_path)
    with pytest.raises(UserError, match=r"stages\.train_base --task mnist5k"):
        run.need(run.base, "train_base")


def test_replaced_folder_is_complete_or_absent(tmp_path) -> None:
    dest = tmp_path / "a" / "base"
    with replaced_folder(dest) as work:
        (work / "x").write_text("1")
        assert not dest.exists()
    assert (dest / "x").read_text() == "1"
    with pytest.raises(ZeroDivisionError), replaced_folder(dest) as work:
        (work / "x").write_text(str(1 / 0))
    assert (dest / "x").read_text() == "1"
    assert [p.name for p in dest.parent.iterdir()] == ["base"]


def put(dest: Path, text: str) -> None:
    """An artifact of three files."""
    with replaced_folder(dest) as work:
        for name in "abc":
            (work / name).write_text(text)


def content(dest: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(dest.iterdir())}


OLD, NEW = dict.fromkeys("abc", "old"), dict.fromkeys("abc", "new")
MOMENTS = {  # what the process does when it is killed: (the function, its call that kills, before or after it)
    "no folder yet": (tempfile, "mkdtemp", 1, "before", OLD),
    "an empty folder": (tempfile, "mkdtemp", 1, "after", OLD),
    "half of the files": (Path, "write_text", 2, "after", OLD),
    "all files": (Path, "rename", 1, "before", OLD),
    "the old one aside": (Path, "rename", 1, "after", None),
    "the new one in place": (Path, "rename", 2, "after", NEW),
    "about to delete the old one": (shutil, "rmtree", 1, "before", NEW),
    "in the middle of deleting it": (os, "unlink", 2, "before", NEW),
    "the old one deleted": (shutil, "rmtree", 1, "after", NEW),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_process_that_is_killed_leaves_the_old_or_the_new_one(tmp_path, moment) -> None:
    place, name, number, when, left = MOMENTS[moment]
    dest = tmp_path / "base"
    put(dest, "old")
    child = os.fork()
    if not child:  # it ends without any clean-up, as after SIGKILL
        real, calls = getattr(place, name), 0

        def deadly(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == number and when == "before":
                os._exit(9)
            result = real(*args, **kwargs)
            if calls == number:
                os._exit(9)
            return result

        setattr(place, name, deadly)
        put(dest, "new")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert (content(dest) if dest.exists() else None) == left
    with pytest.raises(ZeroDivisionError), replaced_folder(dest) as work:  # whoever comes next
        (work / "x").write_text(str(1 / 0))
    assert content(dest) == (left or OLD)
    put(dest, "new")
    assert content(dest) == NEW
    assert [p.name for p in tmp_path.iterdir()] == ["base"]


def test_replaced_folder_refuses_a_second_writer_and_leaves_its_work_alone(tmp_path) -> None:
    dest = tmp_path / "base"
    with replaced_folder(dest) as work:
        (work / "x").write_text("1")
        with pytest.raises(UserError, match=r"base is being written by process \d+ on .*wait"), replaced_folder(dest):
            pass
    assert content(dest) == {"x": "1"}


def test_replaced_folder_sweeps_only_what_it_made(tmp_path) -> None:
    """Not what strangers named alike, nor what a live process writes for another place."""
    others = [
        ".base.partial",
        ".base.abc.partial",
        ".base.ocd-.partial",
        ".b[a]se.ocd-12345678.partial",
        "base.partial",
    ]
    for name in others:
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").touch()
    (tmp_path / ".base.ocd-abcd_123.partial").mkdir()
    with replaced_folder(tmp_path / "base.v2") as other:
        put(tmp_path / "base", "new")
        assert other.is_dir()
    assert {p.name for p in tmp_path.iterdir()} == {*others, "base", "base.v2"}


@pytest.mark.parametrize("kind", ["file", "link", "dangling"])
def test_replaced_folder_takes_the_place_of_whatever_is_there(tmp_path, kind) -> None:
    dest, elsewhere = tmp_path / "base", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x").write_text("1")
    if kind == "file":
        dest.write_text("x")
    else:
        dest.symlink_to("elsewhere" if kind == "link" else "nowhere")
    with pytest.raises(UserError, match="created in the meantime"), replaced_folder(dest, only_new=True):
        pass
    assert os.path.lexists(dest)
    put(dest, "new")
    assert content(dest) == NEW
    assert not dest.is_symlink()
    assert content(elsewhere) == {"x": "1"}


@pytest.mark.parametrize("task", ["../evil", "a/b", "..", "", ".hidden", "/etc", "a\\b", "a\x1b[2J", "a\0"])
def test_a_task_that_would_lead_elsewhere(task) -> None:
    with pytest.raises(UserError, match="is not the name of a task"):
        Artifacts(task)
    with pytest.raises(UserError, match="is not the name of a task"):
        read_params(task)


@pytest.mark.parametrize("task", ["a" * 129, "ä" * 65, "好" * 43])
def test_a_task_whose_name_is_too_long_for_what_is_named_after_it(task) -> None:
    with pytest.raises(UserError, match=r"at most 128 bytes, and .* has 1(29|30)"):
        Artifacts(task)


def test_json_that_cannot_be_read_is_one_line(tmp_path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "deep").write_text("[" * 100_000)
    (tmp_path / "long").write_text("9" * 5000)
    (tmp_path / "latin").write_bytes(b'"\xe9"')
    for name, said in {"folder": "a folder", "pipe": "a pipe", "dangling": "is missing"}.items():
        with pytest.raises(UserError, match=said):
            read_json(tmp_path / name)
    for name in ("deep", "long", "latin"):
        with pytest.raises(UserError, match="not valid JSON"):
            read_json(tmp_path / name)


@given(names=st.lists(st.text(st.characters(codec=None, categories=None)), max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_names_that_are_no_utf8_come_back(tmp_path, names: list[str]) -> None:
    """File systems hold any bytes, of which Python makes lone surrogates."""
    names.append(os.fsdecode(b"caf\xe9"))
    write_json(tmp_path / "m.json", names)
    assert read_json(tmp_path / "m.json") == names
    assert json.loads((tmp_path / "m.json").read_text(encoding="utf-8")) == names


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path) -> None:
    path = tmp_path / "m.json"
    write_json(path, {"loss": 1.0})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"loss": math.nan})
    assert read_json(path) == {"loss": 1.0}
    path.write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(path)


def test_table_leaves_missing_values_empty(tmp_path) -> None:
    write_table(tmp_path / "t.tsv", [{"a": 1, "b": 0.5}, {"a": 2, "c": math.nan}])
    assert (tmp_path / "t.tsv").read_text() == "a\tb\tc\n1\t0.5\t\n2\t\t\n"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=6), min_size=1))
def test_a_table_gives_back_any_names(names: list[str]) -> None:
    """A layer's name may hold tabs, line breaks and quotes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.tsv"
        write_table(path, [{"layer": name, "n": str(i)} for i, name in enumerate(names)])
        assert [row["layer"] for row in read_table(path)] == names


@pytest.mark.parametrize("name", ["bogus", "overfit", "overfit/other", "base/x", "path", "seed1/rank1/bogus"])
def test_a_name_that_no_artifact_has(name: str) -> None:
    with pytest.raises(UserError, match="no artifact"):
        Artifacts("toy").path(name)


def test_a_name_in_the_task_is_that_of_another_run(tmp_path: Path) -> None:
    first, other = Artifacts("toy", root=tmp_path), Artifacts("toy", 3, 2, tmp_path)
    assert other.name_in_task("evaluation") == "seed3/rank2/evaluation"
    assert first.path("seed3/rank2/evaluation") == other.evaluation
