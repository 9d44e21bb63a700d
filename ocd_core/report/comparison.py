"""Several runs side by side: what each row of their tables scored, and which params differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocd_core.artifacts import Artifacts, read_json
from ocd_core.errors import UserError
from ocd_core.evaluation.result import Result
from ocd_core.params_files import flat
from ocd_core.report.dvc_experiments import Experiment, chosen_run
from ocd_core.report.page import Markdown, Section, Table, html_page
from ocd_core.report.results import read_run_table
from ocd_core.report.run_tables import cell, heading
from ocd_core.terminal import print_table

_NOT_SET = "–"


@dataclass(frozen=True)
class Run:
    """One evaluated run. name: as the user gave it. table: see the stage `evaluate`. config: its params, flat."""

    name: str
    table: dict[str, Any]
    config: dict[str, Any]

    def results(self, metric: str) -> dict[str, Result]:
        """{row: its result of a metric, not adjusted}."""
        found = (Result(**r) for r in self.table["results"])
        return {r.row: r for r in found if r.metric == metric and not r.adjusted}


def read_runs(named: Sequence[str]) -> list[Run]:
    """Runs by their folders `data/<task>/seed<k>/rank<r>`, or of DVC experiments by name.

    `FOLDER@NAME` is a run of an experiment. `NAME` alone is the same run as the first folder that is named beside it,
    or the only run of the experiment. Folders are named by the parts in which their paths differ.

    Raises:
        UserError: fewer than two, one twice, or one that is no evaluated run.
    """
    if len(named) < 2:
        raise UserError("compare needs at least two runs, such as data/mnist5k/seed0/rank1 data/mnist5k/seed1/rank1")
    folders = [name for name in named if _is_folder(name)]
    if len({*map(_identity, named)}) < len(named):
        raise UserError("compare needs different runs; one is named twice")
    shown = dict(zip(folders, _names([Path(folder).resolve() for folder in folders]), strict=True))
    return [_of_folder(shown[name], name) if name in shown else _of_experiment(name, folders) for name in named]


def _is_folder(name: str) -> bool:
    """A path with a separator is meant as a folder, whether it exists or not; `FOLDER@NAME` is not."""
    return Path(name).is_dir() or ("/" in name and "@" not in name)


def _identity(name: str) -> str:
    return str(Path(name).resolve()) if _is_folder(name) else name


def _of_folder(shown: str, folder: str) -> Run:
    run = Artifacts.from_folder(folder)
    evaluation = run.need(run.evaluation, "evaluate")
    return Run(shown, read_run_table(evaluation), flat(read_json(evaluation / "config.json")))


def _of_experiment(name: str, folders: Sequence[str]) -> Run:
    folder, _, bare = name.rpartition("@")
    experiment = Experiment.named(bare)
    table, config = experiment.read_run(folder.rstrip("/") or chosen_run(experiment, folders))
    return Run(name, table, flat(config))


def _names(paths: Sequence[Path]) -> list[str]:
    """The paths without the beginning that all of them share, and without `data`."""
    shared = 0
    if len(paths) == 1:
        return ["/".join(paths[0].parts[-3:])]
    while len({path.parts[: shared + 1] for path in paths}) == 1:
        shared += 1
    return ["/".join(part for part in path.parts[shared:] if part != "data") for path in paths]


def metric_table(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: each row's first metric in every run; and the difference from its own base, with a star if that
    is more than chance.

    Raises:
        UserError: the runs have different first metrics.
    """
    metrics = [run.table["metrics"][0] for run in runs]
    if len({m["name"] for m in metrics}) > 1:
        names = ", ".join(f"{run.name}: {m['name']}" for run, m in zip(runs, metrics, strict=True))
        raise UserError(f"these runs have different first metrics ({names}); compare runs of one kind of task")
    metric = metrics[0]
    found = [run.results(metric["name"]) for run in runs]
    titles = {row: result.title for results in reversed(found) for row, result in results.items()}
    order = list(dict.fromkeys(row for results in found for row in results))
    columns = ["method", *(f"{run.name}: {heading(metric)}" for run in runs)]
    rows = [[titles[row], *(_cell(results.get(row), metric) for results in found)] for row in order]
    return columns, rows


def _cell(result: Result | None, metric: dict[str, Any]) -> str:
    if result is None:
        return _NOT_SET
    text = cell(result, metric, True).replace("\\*", "*")
    if result.difference is None:
        return text
    return f"{text} ({result.difference:+z.{metric['decimals']}f})"


def param_table(runs: Sequence[Run]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: the params in which the runs differ, and their seeds, ranks and layers."""
    facts = [
        {key: run.table[key] for key in ("task", "seed", "rank", "layer")}
        | {"test samples": run.table["results"][0]["n"]}
        | run.config
        for run in runs
    ]
    keys = dict.fromkeys(key for values in facts for key in values)
    rows = []
    for key in keys:
        texts = [str(values[key]) if key in values else _NOT_SET for values in facts]
        if len({*texts}) > 1:
            rows.append([key, *texts])
    return ["param", *(run.name for run in runs)], rows


_NOTE = (
    "In brackets: the difference from the same run's base. *: differs from it with a corrected p below 0.05. Runs with "
    "other seeds or data have other bases."
)


def as_plain(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The runs as plain values, for programs: name, params (flat) and results, see `ocd_core.evaluation.result`."""
    return [{"run": run.name, "params": run.config, "results": run.table["results"]} for run in runs]


def print_comparison(runs: Sequence[Run]) -> None:
    """Show both tables on the terminal."""
    for columns, rows in (metric_table(runs), param_table(runs)):
        print_table(columns, rows, framed=True, numbers=True)
    print(_NOTE)


def comparison_page(runs: Sequence[Run]) -> str:
    """Both tables as a page."""
    columns, rows = metric_table(runs)
    keys, params = param_table(runs)
    differing = Table(keys, params) if params else Markdown("None.")
    return html_page(
        "Runs side by side",
        ", ".join(run.name for run in runs),
        [
            Section("Results", [Table(columns, rows, numbers=len(runs)), Markdown(_NOTE)]),
            Section("Params that differ", [differing]),
        ],
    )
