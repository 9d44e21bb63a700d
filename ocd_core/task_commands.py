"""The commands of `ocd` that make and run tasks: `tasks`, `new`, `check`, `run`, `status`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ocd_core.errors import UserError
from ocd_core.terminal import plain, print_table

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
TaskArgument = Annotated[str, typer.Argument(help="A task: the name of a file params/<task>.yaml.")]
SeedOption = Annotated[int, typer.Option(help="The seed of the run.")]
RankOption = Annotated[int, typer.Option(help="The layer rank of the run.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the `ocd` command."""
    commands: dict[str, Callable[..., None]] = {
        "tasks": tasks,
        "new": new,
        "check": check,
        "run": run,
        "status": status,
    }
    for name, command in commands.items():
        app.command(name)(command)


def tasks(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the tasks that have a params file here, and the domains that are installed."""
    from ocd_core.config import load_params
    from ocd_core.params_files import task_names
    from ocd_core.tasks import domain_names

    names, domains = task_names(), sorted(domain_names())
    if not names:
        raise UserError(
            f"{context.obj.typed} has no params/<task>.yaml, nor has a folder above it; go to the folder that holds "
            f"params/ (in a copy of the repository, its top), or name it with --root. Domains that are installed: "
            f"{', '.join(domains)}"
        )
    found: list[dict[str, Any]] = []
    for name in names:
        try:
            params = load_params(name)
        except UserError as error:
            found.append({"task": name, "error": str(error)})
            continue
        model, layer = params.base.model.name, params.layer.select
        found.append({"task": name, "domain": params.domain, "model": model, "layer": layer})
    if as_json:
        print(json.dumps({"tasks": found, "domains": domains}))
        return
    rows = [
        [f["task"], "?", "?", "?", f["error"]] if "error" in f else [*f.values(), f"params/{f['task']}.yaml"]
        for f in found
    ]
    print_table(["task", "domain", "base network", "layer", "params"], rows)
    print(f"\ndomains: {', '.join(domains)}")


def new(
    name: Annotated[str, typer.Argument(help="The task's name: the file will be params/<name>.yaml.")],
    domain: Annotated[
        str, typer.Option(help="images, tabular, text, speech, views, or a class of your own: module:Class.")
    ],
    with_class: Annotated[
        bool, typer.Option("--class", help="Also write <module>.py with a class to fill in, and its test.")
    ] = False,
) -> None:
    """Write the params file of a new task, complete and with comments, ready to check and run."""
    from ocd_core.scaffold.new import new_task

    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # the module of the class
    for path in new_task(name, domain, with_class=with_class):
        print(path)


def check(task: TaskArgument, as_json: JsonOption = False) -> None:
    """Check a task's params against its data before anything runs: sizes, layers, memory and minutes of the stages."""
    from dataclasses import asdict

    from ocd_core.provenance import Lineage
    from ocd_core.scaffold.checking import check_task_params

    found = check_task_params(Lineage.of(task))
    if as_json:
        print(json.dumps(asdict(found)))
        return
    print(", ".join(f"{name}: {count:,} samples" for name, count in found.samples.items()))
    print_table(
        ["layer", "kind", "out × in", "positions", "candidate", "can move"],
        [
            [x.name, x.kind, "{} × {}".format(*x.shape), str(x.positions), "yes" if x.candidate else "",
             "yes" if x.why_not is None else f"no: {x.why_not}"]
            for x in found.layers
        ],
    )  # fmt: skip
    print(f"\nNeeds, if the layer {found.layer} moves (minutes on this machine, right to within a factor of two):")
    print_table(
        ["stage", "minutes", "memory, MB", "disk, MB", ""],
        [[n.stage, *map(_amount, (n.minutes, n.memory_mb, n.disk_mb)), n.note] for n in found.needs],
    )


def run(
    task: TaskArgument,
    seed: SeedOption = 0,
    rank: RankOption = 1,
    upto: Annotated[str, typer.Option(help="The last stage to run.")] = "report",
    device: Annotated[str, typer.Option(envvar="OCD_DEVICE", help="cpu or cuda.")] = "cpu",
) -> None:
    """Run the stages of a task that are not up to date, without DVC; a run that was interrupted goes on."""
    from ocd_core.allocator import keep_freed_memory
    from ocd_core.pipeline import STAGES
    from ocd_core.provenance import Lineage
    from ocd_core.running.runner import run_stages

    names = list(STAGES)
    if upto not in names:
        raise UserError(f"--upto {upto}: there is no such stage; known are {', '.join(names)}")
    keep_freed_memory()

    def told(stage: str, why: str | None) -> None:
        print(f"{stage}: {'up to date' if why is None else plain(why)}", file=sys.stderr)

    run_stages(Lineage.of(task, seed, rank), names[: names.index(upto) + 1], device, told=told)


def status(task: TaskArgument, seed: SeedOption = 0, rank: RankOption = 1, as_json: JsonOption = False) -> None:
    """Say which stages of a task are done, stale or missing, and why."""
    from dataclasses import asdict

    from ocd_core.provenance import Lineage
    from ocd_core.running.runner import stage_states

    found = stage_states(Lineage.of(task, seed, rank))
    if as_json:
        print(json.dumps([asdict(stage) for stage in found]))
        return
    print_table(["stage", "state", "why"], [[stage.name, stage.state, stage.why] for stage in found])


def _amount(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"
