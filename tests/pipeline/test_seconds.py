"""What stages record about their time, when they run as commands."""

import shutil
import sys
from pathlib import Path

import pytest

from ocd_core.artifacts import Artifacts, read_json
from ocd_core.timing import read_seconds
from stages import code, evaluate, overfit, prepare, train_diffusion
from stages._common import run
from tests.support.toy import SIZES, run_stages, write_toy_params


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    write_toy_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    return Artifacts("toy")


def command(main, *options: str, status: int = 0, **named) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["stage", "--task", "toy", *options])
        with pytest.raises(SystemExit) as ended:
            run(main, **named)
    assert (ended.value.code or 0) == status


def names(toy: Artifacts) -> set[str]:
    return {path.name for path in (toy.task_dir / "seconds").glob("*")}


def test_a_stage_that_succeeds_records_its_time(toy: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    command(code.main)
    command(evaluate.main, stage="evaluate", status=1)  # nothing to evaluate
    assert names(toy) == set()
    command(prepare.main, stage="prepare")
    assert names(toy) == {"prepare.json"}
    assert read_seconds(toy, "prepare")["stage"] == "prepare"
    run_stages("train_controls")
    monkeypatch.setenv("RANK", "1")  # one of several processes, but not the main one
    command(evaluate.main, "--seed", "0", "--rank", "1", stage="evaluate")
    assert "evaluate-seed0-rank1.json" not in names(toy)
    monkeypatch.delenv("RANK")
    command(evaluate.main, "--seed", "0", "--rank", "1", stage="evaluate")
    record = read_seconds(toy, "evaluate")
    assert record["inference"]["one_by_one"]["samples"] == SIZES["test"]
    command(train_diffusion.main, stage="train_diffusion", shared=True)
    assert read_seconds(toy, "train_diffusion")["resumed"] is False


def test_each_split_records_its_rows_and_a_complete_one_keeps_its_record(toy: Artifacts) -> None:
    run_stages("score_layers")
    overfit.main("toy")
    assert names(toy) == {f"overfit-seed0-rank1-{split}.json" for split in SIZES}
    records = {split: read_seconds(toy, "overfit", split) for split in SIZES}
    for split, record in records.items():
        assert (record["rows"], record["resumed"], record["threads"]) == (SIZES[split], False, 1)
    overfit.main("toy")
    assert {split: read_seconds(toy, "overfit", split) for split in SIZES} == records
    shutil.rmtree(toy.overfit("val"))
    overfit.main("toy", split="val")
    assert read_seconds(toy, "overfit", "val")["seconds"] != records["val"]["seconds"]
    assert (
        records["train"].items() <= read_json(toy.seconds("overfit", "train")).items()
    )  # the file has a checksum, too
