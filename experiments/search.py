"""Find the best settings of a task by many runs of `dvc exp run`, ranked on the validation split.

The search varies one axis at a time around `params/<task>.yaml`, as listed in `experiments/axes/<task>.yaml`, then
combines the best settings of different axes, and then runs the finalists with more seeds. Only `test` reads the test
split; call it once, with the winner and what it is compared with:

    python -m experiments.search axes mnist5k       # queue; `dvc exp run --run-all --jobs 2` then runs the queue
    python -m experiments.search cross mnist5k
    python -m experiments.search queue mnist5k representation-pca+steps-one
    python -m experiments.search finalists mnist5k prediction-v prediction-v+steps-one
    python -m experiments.search rank mnist5k
    python -m experiments.search test mnist5k prediction-v

A run is named by its settings (`axis-setting`, joined by `+`), and its results stay in DVC's experiments.
"""

import itertools
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments import CHEAP, run
from ocd_core.config import parse_params
from ocd_core.errors import UserError
from ocd_core.params_files import params_path, read_yaml
from ocd_core.presets import preset_names, preset_values
from ocd_core.presets.overrides import group_of, override
from ocd_core.report.markdown import markdown_table

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Search for a task's best settings on validation.")
Task = Annotated[str, typer.Argument(help="A task with a file in experiments/axes.")]

Overrides = dict[str, Any]  # {"diffusion.prediction": "v"}
DEFAULT = "default"
AXES = Path(__file__).parent / "axes"
FINAL_SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Result:
    """The results of one run on validation, averaged over its seeds."""

    name: str
    seeds: int
    base: float
    one_draw: float
    z: float  # of one draw against the base, paired over validation samples
    gain: float
    with_gain: float

    @property
    def score(self) -> float:
        """The loss of one draw divided by the base's: below 1 is a gain. It is a ratio because bases differ by seed."""
        return self.one_draw / self.base


def read_axes(task: str) -> dict[str, dict[str, Overrides]]:
    """{axis: {setting: overrides}} of a task, with every setting checked against the params.

    Every task has the axis `preset`: the presets, with the task's own small network in place of their U-Net.

    Raises:
        UserError: the file does not exist, or a setting gives invalid params.
    """
    path = AXES / f"{task}.yaml"
    if not path.is_file():
        raise UserError(f"{path} does not exist; it must list the settings to try (see the other files in {AXES})")
    axes: dict[str, dict[str, Overrides]] = read_yaml(path)
    domain = read_yaml(params_path(task))["domain"]
    axes["preset"] = {f"{name}-mlp": small_preset(name, domain) for name in preset_names()}
    for axis, settings in axes.items():
        for setting, overrides in settings.items():
            check(task, overrides, f"{path}: {axis}.{setting}")
    return axes


def small_preset(name: str, domain: str) -> Overrides:
    """The params of a preset except its U-Net, which needs a GPU."""
    network = ("diffusion.denoiser.", "diffusion.embedding")
    return {key: value for key, value in preset_values(name, domain).items() if not key.startswith(network)}


def check(task: str, overrides: Overrides, where: str) -> None:
    """Refuse overrides of unknown keys, and overrides that give an impossible configuration."""
    values = read_yaml(params_path(task))
    for key, value in overrides.items():
        group, last = group_of(values, key)
        if last not in group:
            raise UserError(f"{where}: params/{task}.yaml has no key {key}")
        group[last] = value
    parse_params(values, where)


def resolve(axes: dict[str, dict[str, Overrides]], name: str) -> Overrides:
    """The overrides that a run's name stands for (`axis-setting`, several joined by `+`)."""
    overrides: Overrides = {}
    known = {f"{axis}-{setting}": values for axis, settings in axes.items() for setting, values in settings.items()}
    for part in [] if name == DEFAULT else name.split("+"):
        if part not in known:
            raise UserError(f"unknown setting {part!r}; known are {', '.join(known)}")
        clash = [key for key, value in known[part].items() if overrides.get(key, value) != value]
        if clash:
            raise UserError(f"{name}: two of its settings give different values to {clash[0]}")
        overrides |= known[part]
    return overrides


def command(
    task: str, name: str, overrides: Overrides, seeds: tuple[int, ...], on_test: bool = False, whole: bool = False
) -> list[str]:
    """The `dvc exp run` command that queues one run; without `on_test` the run stops before it reads the test split.

    whole: with all controls and rows in the task's file.
    """
    settings = {**({} if whole else CHEAP), **overrides}
    args = ["dvc", "exp", "run", "--queue", "--name", run_name(task, name, seeds, on_test)]
    if Path("data/raw").is_dir():
        args += ["--copy-paths", "data/raw"]
    args += ["--set-param", f"tasks=[{task}]", "--set-param", f"seeds=[{','.join(map(str, seeds))}]"]
    for key, value in settings.items():
        args += ["--set-param", override(task, key, value)]
    stage = "evaluate" if on_test else "train_controls"
    return [*args, *(f"{stage}@{task}-{seed}-1" for seed in seeds)]


def run_name(task: str, name: str, seeds: tuple[int, ...], on_test: bool = False) -> str:
    """The experiment's name; `+` is spelt out, because git refs do not allow it next to dots."""
    suffix = ("-test" if on_test else "") + (f"-seeds{len(seeds)}" if len(seeds) > 1 else "")
    return f"{task}--{name.replace('+', '--and--')}{suffix}"


def queue(
    task: str, names: list[str], seeds: tuple[int, ...] = (0,), on_test: bool = False, whole: bool = False
) -> None:
    """Queue these runs, except those that are already done or queued."""
    axes = read_axes(task)
    present = done_or_queued(experiments())
    for name in names:
        overrides = resolve(axes, name)
        check(task, overrides, name)
        if run_name(task, name, seeds, on_test) in present:
            print(f"{name}: already done or queued")
            continue
        subprocess.run(command(task, name, overrides, seeds, on_test, whole), check=True)


def experiments() -> list[dict[str, Any]]:
    """Each experiment in this repository: {"name", "status", "metrics": {path: values}}.

    The metrics of an unfinished experiment are those of the commit that it starts from.
    """
    done = subprocess.run(["dvc", "exp", "show", "--json"], check=True, capture_output=True, text=True)
    found = []
    for commit in json.loads(done.stdout):
        for experiment in commit.get("experiments") or []:
            data = experiment["revs"][-1].get("data") or {}
            status = (experiment.get("executor") or {}).get("state", "success")
            metrics = {path: entry.get("data") or {} for path, entry in (data.get("metrics") or {}).items()}
            found.append({"name": experiment["name"], "status": status, "metrics": metrics})
    return found


def done_or_queued(entries: Sequence[Mapping[str, Any]]) -> set[str]:
    """The names of experiments that need not be queued again: a failed one may."""
    return {entry["name"] for entry in entries if entry["status"] != "failed"}


def results(task: str, entries: list[dict[str, Any]]) -> list[Result]:
    """The finished runs of a task's search, best first by `Result.score`."""
    found = []
    for entry in entries:
        name = entry["name"] or ""
        # the repository's other runs of the task are among an experiment's metrics, too
        seeds = FINAL_SEEDS if "-seeds" in name else FINAL_SEEDS[:1]
        paths = [f"data/{task}/seed{seed}/rank1/controls/metrics.json" for seed in seeds]
        each = [entry["metrics"].get(path, {}) for path in paths]
        rows = [values["ocd_gain"] for values in each if "ocd_gain" in values]
        finished = entry["status"] == "success" and len(rows) == len(seeds)
        if not name.startswith(f"{task}--") or name.partition("-seeds")[0].endswith("-test") or not finished:
            continue

        def mean(key: str, rows: list[dict[str, float]] = rows) -> float:
            return sum(r[key] for r in rows) / len(rows)

        short = name.removeprefix(f"{task}--").replace("--and--", "+")
        found.append(
            Result(
                short,
                len(rows),
                mean("val_loss_base"),
                mean("val_loss_one_draw"),
                mean("val_z_one_draw"),
                mean("gain"),
                mean("val_loss"),
            )
        )
    return sorted(found, key=lambda r: r.score)


def crossed(axes: dict[str, dict[str, Overrides]], found: list[Result], best: int) -> list[str]:
    """Combinations of the best settings of different axes; only settings that beat the default, from `best` axes."""
    score = {r.name: r.score for r in found if r.seeds == 1}
    if DEFAULT not in score:
        raise UserError(f"the run {DEFAULT!r} has not finished; run the queue first ('dvc exp run --run-all')")
    winners = []
    for axis, settings in axes.items():
        ran = [f"{axis}-{s}" for s in settings if f"{axis}-{s}" in score]
        first = min(ran, key=score.__getitem__, default=None)
        if first is not None and score[first] < score[DEFAULT]:
            winners.append(first)
    winners = sorted(winners, key=score.__getitem__)[:best]
    names = ["+".join(c) for n in range(2, len(winners) + 1) for c in itertools.combinations(winners, n)]
    return [name for name in names if _possible(axes, name)]


def _possible(axes: dict[str, dict[str, Overrides]], name: str) -> bool:
    """Whether the settings of a name agree on the value of every key."""
    try:
        resolve(axes, name)
    except UserError:
        return False
    return True


def table(found: list[Result]) -> str:
    """The results as a Markdown table, best first."""
    columns = ["settings", "seeds", "base", "one draw", "ratio", "z", "best gain", "with it"]
    rows = [
        [
            r.name,
            str(r.seeds),
            f"{r.base:.5f}",
            f"{r.one_draw:.5f}",
            f"{r.score:.3f}",
            f"{r.z:+.1f}",
            f"{r.gain:g}",
            f"{r.with_gain:.5f}",
        ]
        for r in found
    ]
    return markdown_table(columns, rows)


@app.command()
def axes(task: Task) -> None:
    """Queue the default and every setting of every axis."""
    listed = read_axes(task)
    queue(task, [DEFAULT, *(f"{axis}-{setting}" for axis, settings in listed.items() for setting in settings)])


@app.command()
def cross(task: Task, best: Annotated[int, typer.Option(min=2, help="The largest number of axes.")] = 3) -> None:
    """Queue combinations of the best settings of different axes."""
    queue(task, crossed(read_axes(task), results(task, experiments()), best))


@app.command("queue")
def queue_named(task: Task, names: list[str]) -> None:
    """Queue runs by their names, with one seed."""
    queue(task, names)


@app.command()
def finalists(task: Task, names: list[str]) -> None:
    """Queue runs with three seeds."""
    queue(task, names, FINAL_SEEDS)


@app.command()
def rank(task: Task) -> None:
    """Show the finished runs, best first, as Markdown."""
    print(table(results(task, experiments())))


@app.command("test")
def on_test_split(
    task: Task,
    names: list[str],
    whole: Annotated[bool, typer.Option(help="Use all controls and rows in the task's file.")] = False,
) -> None:
    """Queue runs with three seeds, including the evaluation on the test split; use this once, at the end."""
    queue(task, names, FINAL_SEEDS, on_test=True, whole=whole)


if __name__ == "__main__":
    run(app)
