"""How long a task's runs took to train and take to infer (the paper's Tab. 7): reports/<task>/runtime.md."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ocd_core.artifacts import Artifacts, read_json
from ocd_core.report.by_rank import page_by_rank
from ocd_core.report.markdown import markdown_table
from ocd_core.report.paper_tables import paper_runtimes, paper_task
from ocd_core.timing import read_seconds

Times = dict[str, float | None]  # {key of `_ROWS`: seconds, or a ratio}; None: not known

_ROWS = {
    "base": "training of the base",
    "overfit": "overfitting of the training samples",
    "overfit_sample": "– per sample",
    "diffusion": "training of the diffusion model",
    "scale": "training of the scale network",
    "ocd": "OCD's training in total, without tuning",
    "ocd_ratio": "– as a multiple of the base's",
    "tuned": "tuning of the diffusion model on the task's loss",
    "base_single": "inference of the base, samples one by one",
    "ocd_single": "inference of OCD, samples one by one",
    "single_ratio": "– as a multiple of the base's",
    "base_batched": "inference of the base, batched",
    "ocd_batched": "inference of OCD, batched",
    "batched_ratio": "– as a multiple of the base's",
}
_PAPER = {  # column of the paper's table: our row
    "Training[hrs] Base": "base",
    "Training[hrs] Overfit": "overfit",
    "Training[hrs] Diffusion": "diffusion",
    "Inference[ms] Base": "base_single",
    "Inference[ms] OCD": "ocd_single",
}
_ABOUT = """# Runtime

Training: of the whole stage, on the clock. Inference: per sample, the median of repetitions on test samples, with one
draw for OCD. Overfitting of validation samples is not counted.
"""


def runtime_markdown(runs: Sequence[Artifacts]) -> str:
    """One table per layer rank; with several seeds, the means over seeds. A dash: the time is not known."""
    return page_by_rank(_ABOUT, runs, _table)


def _table(runs: list[Artifacts]) -> str:
    measured, paper = _means([run_times(run) for run in runs]), paper_cells(runs[0].task)
    columns = ["", "measured", *(["the paper's"] if paper else [])]
    rows = [[text, _cell(key, measured[key]), *([paper.get(key, "")] if paper else [])] for key, text in _ROWS.items()]
    notes = "".join(f"\n{note}\n" for note in [*_notes(runs), *_paper_notes(runs[0].task)])
    return f"{markdown_table(columns, rows)}\n{notes}"


def run_times(run: Artifacts) -> Times:
    """The times of one run in seconds, and their ratios.

    Raises:
        UserError: a record is not JSON.
    """
    records = _records(run)
    seconds = {name: None if found is None else float(found["seconds"]) for name, found in records.items()}
    overfit, evaluation = records["overfit"], records["evaluate"]
    if _given_base(run):
        seconds["base"] = None
    ocd = _total(seconds["overfit"], seconds["diffusion"], seconds["scale"])
    inference = {
        f"{name}_{way}": None if evaluation is None else evaluation["inference"][key][f"{name}_ms"] / 1000
        for way, key in (("single", "one_by_one"), ("batched", "batched"))
        for name in ("base", "ocd")
    }
    return {
        **{name: seconds[name] for name in ("base", "overfit", "diffusion", "scale", "tuned")},
        "overfit_sample": None if overfit is None else float(overfit["seconds"]) / int(overfit["rows"]),
        "ocd": ocd,
        "ocd_ratio": _ratio(ocd, seconds["base"]),
        **inference,
        **{f"{way}_ratio": _ratio(inference[f"ocd_{way}"], inference[f"base_{way}"]) for way in ("single", "batched")},
    }


def seconds_to_fit(run: Artifacts) -> dict[str, float]:
    """How long each row's training took, {row: seconds}, as far as it is known; of OCD, as `ocd` and `ocd_tuned`.

    Raises:
        UserError: a record is not JSON.
    """
    times, controls = run_times(run), read_seconds(run, "train_controls")
    found = {} if controls is None else dict(controls.get("rows", {}))
    found |= {"ocd": times["ocd"], "ocd_tuned": _total(times["ocd"], times["tuned"])}
    return {row: float(seconds) for row, seconds in found.items() if seconds is not None}


def paper_cells(task: str) -> dict[str, str]:
    """{key of `_ROWS`: the paper's time as printed}, with the ratio of its inference times; empty if it has none."""
    found = {_PAPER[v.column]: v for v in paper_runtimes(task)}
    cells = {key: f"{v.printed} {v.unit}" for key, v in found.items()}
    if found:
        cells["single_ratio"] = _cell("single_ratio", _ratio(found["ocd_single"].value, found["base_single"].value))
    return cells


def _paper_notes(task: str) -> list[str]:
    """Where the paper's times come from."""
    values, compared = paper_runtimes(task), paper_task(task)
    if not values or compared is None:
        return []
    first = values[0]
    differs = "" if compared.note is None else f"; {compared.note}"
    source = f"ICML 2023, Tab. {first.table} ({first.printed_row}, {first.note})"
    return [f"The paper's: cited from {source}, not measured here; its diffusion model is a U-Net{differs}."]


def _records(run: Artifacts) -> dict[str, dict[str, Any] | None]:
    return {
        "base": read_seconds(run, "train_base"),
        "overfit": read_seconds(run, "overfit", "train"),
        "diffusion": read_seconds(run, "train_diffusion"),
        "scale": read_seconds(run, "train_scale"),
        "tuned": read_seconds(run, "tune_diffusion"),
        "evaluate": read_seconds(run, "evaluate"),
    }


def _given_base(run: Artifacts) -> bool:
    """Whether the base network was not trained, but loaded from a checkpoint."""
    return read_json(run.base / "config.json")["base"]["checkpoint"] is not None


def _total(*parts: float | None) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def _means(times: Sequence[Times]) -> Times:
    """The mean over seeds of each time that all seeds have."""
    found: Times = {}
    for key in _ROWS:
        known = [value for each in times if (value := each[key]) is not None]
        found[key] = statistics.mean(known) if len(known) == len(times) else None
    return found


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"× {_three_digits(value)}" if key.endswith("_ratio") else duration(value)


def duration(seconds: float) -> str:
    """Three digits, in the largest unit that gives at least 1: h, min, s, or else ms."""
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= size:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{_three_digits(1000 * seconds)} ms"


def _three_digits(value: float) -> str:
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def _notes(runs: Sequence[Artifacts]) -> list[str]:
    """Where the times were taken, how many samples inference had, and which times are not known or of a part."""
    all_records = [_records(run) for run in runs]
    known = [record for records in all_records for record in records.values() if record is not None]
    notes = []
    if known:
        notes.append(f"Measured on: {'; '.join(dict.fromkeys(map(_machine, known)))}.")
    samples = sorted({_samples(r["evaluate"]["inference"]) for r in all_records if r["evaluate"] is not None})
    if samples:
        text = " or ".join(f"{single} samples one by one, {batched} in a batch" for single, batched in samples)
        notes.append(f"Inference: {text}.")
    if any(record.get("resumed") for record in known):
        notes.append("An interrupted stage went on from where it was: its time is that of the last attempt.")
    if any(map(_given_base, runs)):
        notes.append("The base network was loaded from a checkpoint, not trained.")
    if any(None in records.values() for records in all_records):
        notes.append(
            "–: not known. Times are recorded when a stage runs; an artifact that comes from DVC's cache has none."
        )
    return notes


def _machine(record: Mapping[str, Any]) -> str:
    threads = f"{record['threads']} thread{'s' if record['threads'] > 1 else ''}"
    executor = record.get("executor", "serial")
    return f"{record['device']}, {threads}" + ("" if executor == "serial" else f" per worker (executor {executor})")


def _samples(inference: Mapping[str, Any]) -> tuple[int, int]:
    return inference["one_by_one"]["samples"], inference["batched"]["samples"]
