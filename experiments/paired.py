"""How one row of a task's table compares with every other row, paired over test samples and several seeds.

    python -m experiments.paired mnist3k --row ocd_tuned_ensemble --seeds 0,1,2
    python -m experiments.paired california --row ocd_ensemble_20 --seeds 0,1,2 --metric crps --with-noise

The tables of reports compare with the base network; this compares any row with the others. It reads what `evaluate`
wrote of each sample in the first metric, or in another one (`--metric`): after each row's temperature if asked
(`--tempered`), or with its noise (`--with-noise`). For a root mean square that is the sample's own root, its absolute
error. The seeds see the same test samples and do not count as samples of their own: a sample's value is the mean over
the seeds. z of each seed is beside it, and p is corrected after Holm over the rows.

Dims: N test samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Asked:
    """Which values of the samples are compared. metric: None is the first of the table.

    tempered: after each row's temperature (of the first metric of classes). with_noise: with each row's noise (of
    metrics of distributions of numbers).
    """

    metric: str | None = None
    tempered: bool = False
    with_noise: bool = False

    def of(self, run: Artifacts) -> tuple[dict[str, Values], bool]:
        """({row: the metric of each test sample, (N,)} of an evaluated run, whether higher values are better).

        Raises:
            UserError: the run has not been evaluated, or has no such values of single samples.
        """
        metrics = read_json(run.need(run.evaluation / "table.json", "evaluate"))["metrics"]
        metric = self.metric or metrics[0]["name"]
        higher = {m["name"]: bool(m["higher_is_better"]) for m in metrics}
        if metric not in higher:
            raise UserError(f"--metric: {run.evaluation} has no {metric}; there are {', '.join(higher)}")
        end = f"_{metric}{'_tempered' if self.tempered else ''}{'_with_noise' if self.with_noise else ''}"
        found = {name.removesuffix(end): v for name, v in sample_columns(run).items() if name.endswith(end)}
        if not found and self.tempered:
            raise UserError(
                f"--tempered: the rows of {run.evaluation} have no {metric} after a temperature, which only the "
                "loss of classes has"
            )
        if not found and self.with_noise:
            raise UserError(
                f"--with-noise: the rows of {run.evaluation} have no {metric} with noise, which only metrics of "
                "distributions of numbers have, such as crps"
            )
        if not found:
            raise UserError(f"--metric: {metric} has no value of a single sample")
        return found, higher[metric]


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
            f"{mean:.4g}",
            f"{difference:+.3g}",
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
    metric: Annotated[str | None, typer.Option(help="Which metric; default: the first of the table.")] = None,
    tempered: Annotated[
        bool, typer.Option("--tempered", help="After the temperature that each row chose on validation.")
    ] = False,
    with_noise: Annotated[
        bool, typer.Option("--with-noise", help="With the noise that each row chose on validation.")
    ] = False,
) -> None:
    """Compare one row with all others."""
    runs = [Artifacts(task, seed, rank, root=Path()) for seed in numbers("--seeds", seeds, least=0)]
    found = [Asked(metric, tempered, with_noise).of(one) for one in runs]
    prepared = runs[0].prepared
    groups = groups_of(load_params(task).build_task(prepared).open(prepared, "test"))
    lines = compared([values for values, _ in found], row, None if groups is None else groups.numpy())
    print(table(lines, row, found[0][1]))


if __name__ == "__main__":
    run(app)
