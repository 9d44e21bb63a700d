"""Few-shot text over several random draws of the shots: the paper's Tab. 6 and 8, with their spread.

    python -m experiments.few_shots queue --draws 10     # one `dvc exp run` per task and draw (data.split_seed)
    dvc exp run --run-all --jobs 1
    python -m experiments.few_shots table

A draw covers the shots, the fine-tuned encoder, and everything that is trained on them; the run's seed stays 0.
"""

import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments import run
from experiments.search import done_or_queued, experiments
from ocd_core.config import load_params
from ocd_core.errors import UserError
from ocd_core.presets.overrides import override
from ocd_core.report.markdown import markdown_table
from ocd_core.tasks.metric import Metric

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Few-shot text over several draws of the shots.")
TASKS = "sst5,amazon_counterfactual_en,cr,emotion,enron_spam"
Tasks = Annotated[str, typer.Option(help="Tasks of the domain text, separated by commas.")]

Rows = Mapping[str, Any]  # of one run: {row: {metric: number or None}}, and n
_PREFIX = "few-shots--"
_INSTANCES = ("ocd", "ocd_mean_network")  # Tab. 8
_CROSS_ENTROPY = "cross_entropy"


def metric_names(task: str) -> tuple[str, str]:
    """The metric of Tab. 6 (accuracy or mcc), and its unit.

    Raises:
        UserError: the task has no params file, or is of another domain.
    """
    params = load_params(task)
    headline = getattr(params.data, "headline", None)
    if params.domain != "text" or headline is None:
        raise UserError(f"{task} is not a task of the domain text")
    metric: Metric = next(m for m in params.build_task().metrics if m.name == headline)
    return metric.name, metric.unit


def command(task: str, draw: int) -> list[str]:
    """The command that queues one draw, up to the evaluation."""
    args = ["dvc", "exp", "run", "--queue", "--name", run_name(task, draw)]
    if Path("data/raw").is_dir():
        args += ["--copy-paths", "data/raw"]
    args += ["--set-param", f"tasks=[{task}]", "--set-param", "seeds=[0]"]
    return [*args, "--set-param", override(task, "data.split_seed", draw), f"evaluate@{task}-0-1"]


def run_name(task: str, draw: int) -> str:
    """The experiment's name."""
    return f"{_PREFIX}{task}--{draw}"


def finished(task: str, entries: Sequence[Mapping[str, Any]]) -> list[Rows]:
    """The rows of a task's finished draws, in the order of the draws."""
    found = {}
    for entry in entries:
        name, _, draw = (entry["name"] or "").rpartition("--")
        rows = entry["metrics"].get(f"data/{task}/seed0/rank1/evaluation/metrics.json")
        if name == f"{_PREFIX}{task}" and entry["status"] == "success" and rows:
            found[int(draw)] = rows
    return [found[draw] for draw in sorted(found)]


def over_draws(draws: Sequence[Rows], row: str, metric: str) -> list[float]:
    """The values of a row, without draws in which it was left out.

    Matthews' correlation of a row that answers one class alone counts as 0, as in scikit-learn: without its worst draws
    a row would look better.
    """
    found = [draw[row].get(metric) for draw in draws if row in draw]
    if metric == "mcc":
        return [value or 0.0 for value in found]
    return [value for value in found if value is not None]


def cell(values: Sequence[float], decimals: int) -> str:
    """Mean ± standard deviation over draws (n − 1); a dash without values."""
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.{decimals}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{decimals}f}"


def table6(draws: Mapping[str, Sequence[Rows]], metrics: Mapping[str, tuple[str, str]]) -> str:
    """Every row with each task's metric, and the mean over the tasks (only if the row has a value for each)."""
    rows: dict[str, None] = {}
    for of_task in draws.values():
        for draw in of_task:
            rows |= dict.fromkeys(name for name, values in draw.items() if isinstance(values, Mapping))
    lines = []
    for row in rows:
        found = {task: over_draws(of_task, row, metrics[task][0]) for task, of_task in draws.items()}
        whole = all(found.values())
        mean = f"{statistics.fmean(statistics.fmean(v) for v in found.values()):.1f}" if whole else "–"
        lines.append([row, *(cell(values, 1) for values in found.values()), mean])
    heads = [f"{task}, {' '.join(metrics[task])}" for task in draws]
    return markdown_table(["row", *heads, "mean"], lines)


def table8(draws: Mapping[str, Sequence[Rows]]) -> str:
    """The cross entropy of the base, of one instance, and of the mean network of several."""
    rows = ("base", *_INSTANCES)
    lines = [[row, *(cell(over_draws(d, row, _CROSS_ENTROPY), 4) for d in draws.values())] for row in rows]
    return markdown_table(["row", *draws], lines)


@app.command()
def queue(
    draws: Annotated[int, typer.Option(min=1, help="How many draws; the paper's protocol has ten.")] = 3,
    tasks: Tasks = TASKS,
) -> None:
    """Queue the draws of each task, except those that are already done or queued."""
    names = tasks.split(",")
    for task in names:
        metric_names(task)
    present = done_or_queued(experiments())
    for task in names:
        for draw in range(draws):
            if run_name(task, draw) not in present:
                subprocess.run(command(task, draw), check=True)


@app.command()
def table(tasks: Tasks = TASKS) -> None:
    """Show the finished draws as Markdown."""
    entries = experiments()
    draws = {task: finished(task, entries) for task in tasks.split(",")}
    none = [task for task, found in draws.items() if not found]
    if none:
        raise UserError(f"no draw of {none[0]} has finished; queue the draws and run 'dvc exp run --run-all' first")
    print(", ".join(f"{task}: {len(found)} draws" for task, found in draws.items()), end="\n\n")
    print(table6(draws, {task: metric_names(task) for task in draws}), table8(draws), sep="\n")


if __name__ == "__main__":
    run(app)
