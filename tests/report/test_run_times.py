"""The table of times, against times written by hand."""

from pathlib import Path
from typing import Any

import pytest

from ocd_core.artifacts import Artifacts, write_json
from ocd_core.report.run_times import paper_cells, run_times, runtime_markdown, seconds_to_fit
from ocd_core.sealed import read_sealed, write_sealed
from ocd_core.timing import Stopwatch

SECONDS = {"train_base": 10.0, "overfit": 4.0, "train_diffusion": 20.0, "train_scale": 6.0, "tune_diffusion": 7.0}
INFERENCE = {
    "one_by_one": {"samples": 20, "base_ms": 2.0, "ocd_ms": 5.0},
    "batched": {"samples": 64, "base_ms": 0.5, "ocd_ms": 2.0},
}


def record(run: Artifacts, stage: str, seconds: float, split: str = "", **more: Any) -> None:
    """A record with this time, of the artifact as it is."""
    Stopwatch().write(run, stage, "cpu", split, **{"threads": 1, **more})
    path = run.seconds(stage, split)
    write_sealed(path, {**read_sealed(path, ""), "seconds": seconds})


def timed(
    root: Path, seed: int = 0, rank: int = 1, slower: float = 1.0, checkpoint: str | None = None, task: str = "toy"
) -> Artifacts:
    run = Artifacts(task, seed, rank, root)
    for name in ("base", "diffusion", "scale", "tuned", "controls", "evaluation"):
        write_json(run.path(name) / "manifest.json", name)
    write_json(run.overfit("train") / "zarr.json", {})
    write_json(run.base / "config.json", {"base": {"checkpoint": checkpoint}})
    for stage, seconds in SECONDS.items():
        if stage == "overfit":
            record(run, stage, slower * seconds, "train", rows=200, resumed=False, executor="serial", workers=None)
        else:
            record(run, stage, slower * seconds)
    record(run, "evaluate", 3.0, inference=INFERENCE)
    return run


def cells(text: str) -> list[str]:
    return [line.split(" | ")[1].removesuffix(" |") for line in text.splitlines() if line.startswith("| ")][2:]


def test_times_and_ratios_of_one_run(tmp_path: Path) -> None:
    times = run_times(timed(tmp_path))
    assert times == pytest.approx(
        {"base": 10, "overfit": 4, "diffusion": 20, "scale": 6, "overfit_sample": 0.02, "ocd": 30, "ocd_ratio": 3,
         "base_single": 0.002, "ocd_single": 0.005, "single_ratio": 2.5, "base_batched": 0.0005,
         "ocd_batched": 0.002, "batched_ratio": 4, "tuned": 7}
    )  # fmt: skip
    text = runtime_markdown([timed(tmp_path)])
    assert "**toy, layer of rank 1, seed 0**" in text
    assert cells(text) == [
        "10.0 s", "4.00 s", "20.0 ms", "20.0 s", "6.00 s", "30.0 s", "× 3.00", "7.00 s", "2.00 ms", "5.00 ms", "× 2.50",
        "0.50 ms", "2.00 ms", "× 4.00",
    ]  # fmt: skip
    assert "Measured on: cpu, 1 thread." in text
    assert "Inference: 20 samples one by one, 64 in a batch." in text
    assert "–: not known" not in text


def test_the_time_to_fit_is_that_of_a_row_or_of_its_run(tmp_path: Path) -> None:
    run = timed(tmp_path)
    assert seconds_to_fit(run) == {"ocd": 30.0, "ocd_tuned": 37.0}
    record(run, "train_controls", 9.0, rows={"ridge": 1.5, "deep_ensemble": 4.0})
    assert seconds_to_fit(run) == {"ocd": 30.0, "ocd_tuned": 37.0, "ridge": 1.5, "deep_ensemble": 4.0}


def test_seeds_are_averaged_and_ranks_are_apart(tmp_path: Path) -> None:
    runs = [timed(tmp_path, 0), timed(tmp_path, 1, slower=900.0), timed(tmp_path, 0, 2)]
    one, two = runtime_markdown(runs).split("**toy, layer of rank ")[1:]
    assert one.startswith("1, seeds 0, 1**")
    assert cells(one)[:4] == ["1.25 h", "30.0 min", "9.01 s", "2.50 h"]
    assert cells(two)[:2] == ["10.0 s", "4.00 s"]


def test_what_is_not_known_is_a_dash_with_a_note(tmp_path: Path) -> None:
    run = timed(tmp_path)
    write_json(run.diffusion / "manifest.json", "another, from the cache")
    run.seconds("evaluate").unlink()
    text = runtime_markdown([run, timed(tmp_path, 1)])
    assert cells(text)[:8] == ["10.0 s", "4.00 s", "20.0 ms", "–", "6.00 s", "–", "–", "7.00 s"]
    assert cells(text)[8:] == ["–"] * 6
    assert (
        "–: not known. Times are recorded when a stage runs; an artifact that comes from DVC's cache has none." in text
    )
    for path in (run.task_dir / "seconds").iterdir():
        path.unlink()
    assert set(cells(runtime_markdown([run]))) == {"–"}


def test_notes_say_where_and_what_of_a_part(tmp_path: Path) -> None:
    run = timed(tmp_path, checkpoint="weights.pt")
    record(run, "overfit", 1.0, "train", rows=100, resumed=True, executor="process", workers=4)
    record(run, "train_diffusion", 9.0, threads=8)
    text = runtime_markdown([run])
    assert cells(text)[:7] == ["–", "1.00 s", "10.0 ms", "9.00 s", "6.00 s", "16.0 s", "–"]
    assert "Measured on: cpu, 1 thread; cpu, 1 thread per worker (executor process); cpu, 8 threads." in text
    assert "An interrupted stage went on from where it was: its time is that of the last attempt." in text
    assert "The base network was loaded from a checkpoint, not trained." in text


def test_the_papers_times_are_beside_those_of_its_tasks(tmp_path: Path) -> None:
    text = runtime_markdown([timed(tmp_path, task="mnist5k"), timed(tmp_path, rank=2, task="mnist5k")])
    for part in text.split("**mnist5k, layer of rank ")[1:]:
        first, rule, *rows = [line[2:-2].split(" | ") for line in part.splitlines() if line.startswith("| ")]
        assert first == ["", "measured", "the paper's"]
        assert len(rule) == 3
        assert {title: (ours, cited) for title, ours, cited in rows if cited} == {
            "training of the base": ("10.0 s", "0.5 h"),
            "overfitting of the training samples": ("4.00 s", "1.0 h"),
            "training of the diffusion model": ("20.0 s", "6.0 h"),
            "inference of the base, samples one by one": ("2.00 ms", "15 ms"),
            "inference of OCD, samples one by one": ("5.00 ms", "288 ms"),
        } | {rows[10][0]: ("× 2.50", "× 19.2")}
        assert (
            "The paper's: cited from ICML 2023, Tab. 7 (LeNet5, on an RTX 2060), not measured here; its diffusion "
            "model is a U-Net; this task uses 5,000 of the paper's 70,000 digits." in part
        )


def test_the_papers_times_by_task() -> None:
    assert paper_cells("mnist") == paper_cells("mnist5k")
    assert paper_cells("tinynerf") == {
        "base": "1.1 h",
        "overfit": "0.2 h",
        "diffusion": "5.2 h",
        "base_single": "230 ms",
        "ocd_single": "510 ms",
        "single_ratio": "× 2.22",
    }
    assert paper_cells("tinynerf_demo") == paper_cells("toy") == {}


def test_a_task_that_the_paper_lacks_has_no_column(tmp_path: Path) -> None:
    text = runtime_markdown([timed(tmp_path)])
    assert "|  | measured |\n" in text
    assert "aper" not in text.split("**")[2]
