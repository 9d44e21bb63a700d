"""The work folder of a training: one process at a time, kept if the stage fails."""

import multiprocessing
from pathlib import Path

import pytest

from ocd_core.artifacts import Artifacts
from ocd_core.errors import UserError
from ocd_core.running.work import work_folder


def write_in(root: Path, told) -> None:
    """What a second run of the stage does; its error goes to `told`."""
    try:
        with work_folder(Artifacts("toy", root=root), "diffusion") as work:
            (work / "checkpoint.pt").write_text("mine")
    except UserError as error:
        told.send(str(error))


def fail_in(run: Artifacts) -> None:
    with work_folder(run, "scale") as work:
        work.mkdir()
        (work / "checkpoint.pt").touch()
        raise ZeroDivisionError


def test_a_second_process_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    told, say = multiprocessing.Pipe(duplex=False)
    with work_folder(Artifacts("toy", root=tmp_path), "diffusion") as work:
        work.mkdir()
        (work / "checkpoint.pt").write_text("first")
        second = multiprocessing.get_context("forkserver").Process(target=write_in, args=(tmp_path, say))
        second.start()
        assert told.poll(60)
        message = told.recv()
        second.join()
        assert f"{Artifacts('toy', root=tmp_path).diffusion} is being written by process " in message
        assert (work / "checkpoint.pt").read_text() == "first"
    assert list((tmp_path / "data" / ".work").iterdir()) == []


def test_other_artifacts_and_runs_have_their_own(tmp_path: Path) -> None:
    run = Artifacts("toy", root=tmp_path)
    with (
        work_folder(run, "diffusion") as first,
        work_folder(run, "tuned") as second,
        work_folder(Artifacts("toy", 1, root=tmp_path), "diffusion") as third,
    ):
        assert len({first, second, third}) == 3


def test_what_a_failed_training_left_is_kept(tmp_path: Path) -> None:
    run = Artifacts("toy", root=tmp_path)
    with pytest.raises(ZeroDivisionError):
        fail_in(run)
    with work_folder(run, "scale") as again:
        assert (again / "checkpoint.pt").exists()
    assert not again.exists()


def test_processes_that_train_together_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Artifacts("toy", root=tmp_path)
    with work_folder(run, "diffusion") as of_main:
        of_main.mkdir()
        monkeypatch.setenv("RANK", "1")
        with work_folder(run, "diffusion") as of_second:
            assert of_second == of_main
        assert of_main.exists()
