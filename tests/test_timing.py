"""Times of stages, which belong to one artifact and are no part of it."""

import time
from pathlib import Path
from unittest.mock import ANY

import pytest
import torch

from ocd_core.artifacts import Artifacts, read_json, write_json
from ocd_core.errors import UserError
from ocd_core.sealed import SEAL
from ocd_core.timing import Stopwatch, read_seconds, recorded


def made(root: Path, text: str = "one") -> Artifacts:
    run = Artifacts("toy", 3, 2, root)
    write_json(run.base / "manifest.json", text)
    write_json(run.overfit("val") / "zarr.json", text)
    return run


def test_a_record_says_how_long_where_and_of_what(tmp_path: Path) -> None:
    run = made(tmp_path)
    watch = Stopwatch()
    time.sleep(0.02)
    sum(range(10**6))
    watch.write(run, "train_base", "cpu", epochs=7)
    record = read_seconds(run, "train_base")
    assert {**record, SEAL: ANY} == read_json(tmp_path / "data/toy/seconds/train_base-seed3.json")
    assert list(record) == ["stage", "seconds", "cpu_seconds", "device", "threads", "epochs", "artifact"]
    assert (record["stage"], record["device"], record["epochs"]) == ("train_base", "cpu", 7)
    assert record["threads"] == torch.get_num_threads()
    assert 0.02 < record["seconds"] < 60
    assert 0 < record["cpu_seconds"] < 60


def test_a_split_has_a_record_of_its_own(tmp_path: Path) -> None:
    run = made(tmp_path)
    Stopwatch().write(run, "overfit", "cpu", "val", threads=1)
    assert [p.name for p in (run.task_dir / "seconds").iterdir()] == ["overfit-seed3-rank2-val.json"]
    assert read_seconds(run, "overfit", "val")["threads"] == 1
    assert read_seconds(run, "overfit", "train") is None


def test_the_time_of_another_artifact_is_not_that_of_this_one(tmp_path: Path) -> None:
    run = made(tmp_path)
    for stage, split in (("train_base", ""), ("overfit", "val")):
        assert read_seconds(run, stage, split) is None
        Stopwatch().write(run, stage, "cpu", split)
        assert read_seconds(run, stage, split) is not None
    made(tmp_path, "another")
    for stage, split in (("train_base", ""), ("overfit", "val")):
        assert read_seconds(run, stage, split) is None
    made(tmp_path)
    (run.base / "manifest.json").unlink()
    assert read_seconds(run, "train_base") is None
    assert read_seconds(run, "overfit", "val") is not None
    run.seconds("overfit", "val").write_text("{")
    with pytest.raises(UserError, match="is not valid JSON"):
        read_seconds(run, "overfit", "val")
    run.seconds("overfit", "val").write_text('{"seconds": 1.0}')
    with pytest.raises(UserError, match=r"is damaged.*delete it"):
        read_seconds(run, "overfit", "val")


def test_a_gpu_is_recorded_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a fast one")
    run = made(tmp_path)
    Stopwatch().write(run, "train_base", "cuda")
    assert read_seconds(run, "train_base")["device"] == "a fast one"


def test_work_is_recorded_with_what_it_returns_by_the_main_process_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(tmp_path)

    def work() -> dict[str, int]:
        time.sleep(0.02)
        return {"epochs": 7}

    monkeypatch.setenv("RANK", "1")
    recorded(work, run, "train_base", "cpu")
    assert read_seconds(run, "train_base") is None
    monkeypatch.setenv("RANK", "0")
    recorded(work, run, "train_base", "cpu")
    record = read_seconds(run, "train_base")
    assert record["epochs"] == 7
    assert record["seconds"] > 0.02
    with pytest.raises(ZeroDivisionError):
        recorded(lambda: {"never": 1 // 0}, made(tmp_path, "two"), "train_base", "cpu")
    assert read_seconds(run, "train_base") is None  # the old record is not of this artifact
