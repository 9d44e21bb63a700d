"""How one row of a task's table compares with every other row, paired over test samples and several seeds.

    python -m experiments.paired mnist3k --row ocd_tuned_ensemble --seeds 0,1,2

The tables of reports compare with the base network; this compares any row with the others. It reads what `evaluate`
wrote of each sample in the first metric, after each row's temperature if asked (`--tempered`); for a root mean square
that is the sample's own root, its absolute error. The seeds see the same test samples and do not count as samples of
their own: a sample's value is the mean over the seeds. z of each seed is beside it, and p is corrected after Holm over
the rows.

Dims: N test samples.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from experiments import run
from experiments.tables import numbers
from ocd_core.artifacts import Artifacts, read_json
from ocd_core.config import load_params
from ocd_core.errors import UserError
from ocd_core.evaluation.statistics import Groups, Values, holm, p_text, paired_p, paired_z
from ocd_core.report.markdown import markdown_table
from ocd_core.report.run_samples import sample_columns
from ocd_core.samples import groups_of

app = typer.Typer(add_completion=False)


def row_values(run: Artifacts, tempered: bool = False) -> dict[str, Values]:
    """{row: the first metric of each test sample, (N,)} of an evaluated run; `tempered`: after its own temperature.

    Raises:
        UserError: the run has not been evaluated, or its rows have no temperatures.
    """
    table = run.need(run.evaluation / "table.json", "evaluate")
    metric = read_json(table)["metrics"][0]["name"]
    end = f"_{metric}_tempered" if tempered else f"_{metric}"
    found = {name.removesuffix(end): v for name, v in sample_columns(run).items() if name.endswith(end)}
    if tempered and not found:
        raise UserError(f"--tempered: the rows of {run.evaluation} have no temperatures, which only classes have")
    return found


def higher_is_better(run: Artifacts) -> bool:
    """Of the first metric of an evaluated run."""
    return bool(read_json(run.need(run.evaluation / "table.json", "evaluate"))["metrics"][0]["higher_is_better"])


def compared(
    seeds: Sequence[Mapping[str, Values]], row: str, groups: Groups | None = None
) -> list[tuple[str, float, float, list[float], float, float]]:
    """Each other row that all seeds have: (row, its mean, difference `row` minus it, z of each seed, z of all, p).

    Raises:
        UserError: a seed has no such row, or other test samples.
    """
    shared = [name for name in seeds[0] if all(name in values for values in seeds)]
    if row not in shared:
        raise UserError(f"--row: not every seed has the row {row}; there are {', '.join(shared)}")
    if len({len(values[row]) for values in seeds}) > 1:
        raise UserError("the seeds have different numbers of test samples, so they cannot be paired; run 'dvc repro'")
    own = [values[row] for values in seeds]
    mean = np.mean(own, 0)
    others = [name for name in shared if name != row]
    found, p = [], []
    for name in others:
        theirs = [values[name] for values in seeds]
        each = [paired_z(a, b, groups) for a, b in zip(own, theirs, strict=True)]
        other = np.mean(theirs, 0)
        found.append((name, float(other.mean()), float((mean - other).mean()), each, paired_z(mean, other, groups)))
        p.append(paired_p(mean, other, groups))
    return [(*line, value) for line, value in zip(found, holm(p), strict=True)]


def table(
    lines: Sequence[tuple[str, float, float, list[float], float, float]], row: str, higher_is_better: bool = False
) -> str:
    """The lines as Markdown, the row's strongest rival first."""
    cells = [
        [
            f"`{name}`",
            f"{mean:.4f}",
            f"{difference:+.4f}",
            ", ".join(f"{z:+.1f}" for z in each),
            f"{z:+.1f}",
            p_text(p),
        ]
        for name, mean, difference, each, z, p in sorted(lines, key=lambda line: line[1], reverse=higher_is_better)
    ]
    return markdown_table(["row", "mean", f"{row} minus it", "z of each seed", "z", "p"], cells)


@app.command()
def main(
    task: Annotated[str, typer.Argument(help="A task whose runs have been evaluated.")],
    row: Annotated[str, typer.Option(help="The row that the others are compared with.")] = "ocd_tuned_ensemble",
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2",
    rank: Annotated[int, typer.Option(min=1, help="Which layer moved.")] = 1,
    tempered: Annotated[
        bool, typer.Option("--tempered", help="After the temperature that each row chose on validation.")
    ] = False,
) -> None:
    """Compare one row with all others."""
    runs = [Artifacts(task, seed, rank, root=Path()) for seed in numbers("--seeds", seeds, least=0)]
    values = [row_values(one, tempered) for one in runs]
    prepared = runs[0].prepared
    groups = groups_of(load_params(task).build_task(prepared).open(prepared, "test"))
    lines = compared(values, row, None if groups is None else groups.numpy())
    print(table(lines, row, higher_is_better(runs[0])))


if __name__ == "__main__":
    run(app)
