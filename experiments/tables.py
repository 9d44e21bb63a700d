"""Fill a task's whole table: every row that it can have, with three seeds and the paper's alternative layer.

    python -m experiments.tables mnist5k     # one `dvc exp run`; `make tables` sets everything up first

The tables are then in reports/<task>: `table.md`, and `paper.md` beside the paper's values. The run happens in the
workspace, so the params files keep its params.
"""

import subprocess
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments import run
from experiments.networks import untrained_network
from ocd_core.config import Params, load_params
from ocd_core.errors import UserError
from ocd_core.evaluation.rows import ROWS, row_class
from ocd_core.network.layers import find_layers, layer_kind
from ocd_core.params_files import read_yaml
from ocd_core.presets.overrides import override, override_text
from ocd_core.scoring.scores import layers_to_score

app = typer.Typer(add_completion=False)
AUTO = "auto"


def possible_rows(params: Params) -> list[str]:
    """The rows of the task's file, then all others of this package that its params allow; bounds come last.

    A row without params of its own is always possible. Any other needs its group `controls.<row>`.
    """
    listed = params.evaluate.rows
    others = [name for name in ROWS.own() if name not in listed and _has_params(params, name)]
    bounds = [name for name in others if row_class(name).sees_labels]
    methods = [name for name in others if name not in bounds]
    first = next((i for i, name in enumerate(listed) if row_class(name).sees_labels), len(listed))
    return [*listed[:first], *methods, *listed[first:], *bounds]


def _has_params(params: Params, name: str) -> bool:
    return row_class(name).Params is None or params.controls.of_row(name) is not None


def settings(params: Params, draws: int) -> dict[str, Any]:
    """The params of the run that differ from the task's file, {key with dots: value}."""
    rows = possible_rows(params)
    fit = [*params.controls.fit, *(name for name in rows if row_class(name).fitted)]
    return {"evaluate.rows": rows, "controls.fit": list(dict.fromkeys(fit)), "evaluate.draws": [draws]}


def candidate_layers(params: Params) -> list[str]:
    """The layers that have a rank, in no particular order."""
    layer = params.layer
    network = untrained_network(params)
    scored = layers_to_score(network, layer)
    names = layer.candidates.names
    if names is None:
        names = [name for name in scored if layer_kind(find_layers(network, name)[0]) in layer.candidates.kinds]
    return list(dict.fromkeys([*names, *([] if layer.named is None else [layer.named])]))


def layer_ranks(task: str, params: Params, ranks: str) -> list[int]:
    """The ranks to run; `auto`: 1, and 2 if there are at least two candidates.

    Raises:
        UserError: not a list of ranks, or a rank that the task does not have.
    """
    names = candidate_layers(params)
    if ranks == AUTO:
        if len(names) == 1:
            print(f"rank 2 is left out: {names[0]} is the only candidate (params/{task}.yaml: layer.candidates)")
        return [1, 2][: len(names)]
    found = numbers("--ranks", ranks, least=1)
    if max(found) > len(names):
        raise UserError(
            f"--ranks: {task} has no layer of rank {max(found)}, since its candidates are {', '.join(names)}; lower "
            f"the rank or widen layer.candidates in params/{task}.yaml"
        )
    return found


def numbers(option: str, text: str, least: int) -> list[int]:
    """Whole numbers that are separated by commas.

    Raises:
        UserError: the text has something else, a number below `least`, or a number twice.
    """
    parts = [part.strip() for part in text.split(",")]
    found = [int(part) for part in parts if part.isdecimal()]
    if len(found) < len(parts) or len({*found}) < len(found) or min(found) < least:
        raise UserError(f"{option}: expected different numbers from {least}, separated by commas, found {text!r}")
    return found


def command(task: str, seeds: str, ranks: str, draws: int) -> list[str]:
    """The command that runs everything and ends with the report.

    Raises:
        UserError: the task has no params file, or seeds or ranks are impossible.
    """
    params = load_params(task)
    tasks = read_yaml(Path("params.yaml"))["tasks"]
    values = {
        "tasks": [*tasks, *([] if task in tasks else [task])],
        "seeds": numbers("--seeds", seeds, least=0),
        "layer_ranks": layer_ranks(task, params, ranks),
    }
    sets = [f"{key}={override_text(value)}" for key, value in values.items()]
    sets += [override(task, key, value) for key, value in settings(params, draws).items()]
    return ["dvc", "exp", "run", f"report@{task}", *(arg for text in sets for arg in ("--set-param", text))]


@app.command()
def main(
    task: Annotated[str, typer.Argument(help="A task with a params file.")],
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2",
    ranks: Annotated[str, typer.Option(help="Layer ranks, separated by commas; auto: 1, and 2 if it exists.")] = AUTO,
    draws: Annotated[int, typer.Option(min=1, help="Draws of the ensemble and of the mean network.")] = 5,
) -> None:
    """Run every row that a task can have, and write its tables."""
    subprocess.run(command(task, seeds, ranks, draws), check=True)


if __name__ == "__main__":
    run(app)
