"""What OCD adds to the members of a deep ensemble: the bases of several seeds, each alone and each with its own OCD.

    dvc exp run -S 'tasks=[mnist3k]' -S 'seeds=[0,1,2,3,4]' tune_diffusion
    python -m experiments.members mnist3k --seeds 0,1,2,3,4
    python -m experiments.members mnist3k --seeds 0,1,2,3,4 --rows ocd_tuned_ensemble,hypernetwork_pretrained

Every seed has a base network of its own from fresh weights, the Δ of that base, and a diffusion model of its own. The
bases' outputs combined are a deep ensemble; the question is whether the OCD ensembles of the same bases, combined, are
better than that. `--rows` asks the same of any other row of the evaluation, whose training `train_controls` has done.

Dims: N samples, K networks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from experiments import run
from experiments.tables import numbers
from ocd_core.artifacts import Artifacts
from ocd_core.config import load_params
from ocd_core.errors import UserError
from ocd_core.evaluation.context import Context
from ocd_core.evaluation.fitted import load_rows
from ocd_core.evaluation.row import Row
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.evaluation.statistics import Values, holm, p_text, paired_p, paired_z
from ocd_core.evaluation.temperature import choose_temperature
from ocd_core.predictor import Predictor
from ocd_core.report.markdown import markdown_table
from ocd_core.samples import SPLITS, SplitName, Tensors, concatenate, groups_of, rows_at_once, stack, whole_split
from ocd_core.tasks.base import Task

app = typer.Typer(add_completion=False)
BASE, ROWS = "base", ("ocd_ensemble", "ocd_tuned_ensemble")
_READ: tuple[SplitName, ...] = ("val", "test")
Outputs = dict[str, list[Tensors]]  # {row: the outputs of each member for a whole split}


@dataclass(frozen=True)
class Member:
    """One seed's run, with its rows."""

    context: Context
    rows: Mapping[str, Row]

    @classmethod
    def of(cls, task: str, seed: int, root: Path, names: Sequence[str] = ROWS) -> "Member":
        """The run of a seed, with rank 1; the base's row, and these.

        Raises:
            UserError: an artifact is missing, a row is unknown or was not fitted, or the run has no tuned model.
        """
        params, artifacts = load_params(task, root), Artifacts(task, seed, root=root)
        context = Context(artifacts, params, Predictor.from_run(artifacts, params), SPLITS)
        rows, left_out = load_rows(context, (BASE, *names))
        if left_out:
            raise UserError(f"{task}, seed {seed}: {'; '.join(f'{row}: {why}' for row, why in left_out.items())}")
        return cls(context, {row.name: row for row in rows})

    def outputs(self, split: SplitName) -> dict[str, Tensors]:
        """Every row's outputs for a whole split, {row: (N, ...)}."""
        data = self.context.split(split)
        found: dict[str, list[Tensors]] = {name: [] for name in self.rows}
        for rows in torch.split(whole_split(data), rows_at_once(data, self.context.task.evaluation_batch)):
            shared = SharedPass(self.context.predictor, data.batch(rows), split)
            for name, row in self.rows.items():
                found[name].append(row.outputs(shared))
        return {name: concatenate(parts) for name, parts in found.items()}


@dataclass(frozen=True)
class Compared:
    """One line: a method, the mean over test samples of the loss, and its test against the deep ensemble of bases."""

    title: str
    losses: Values
    tempered: Values | None
    accuracy: float | None


def compare(members: Sequence[Member]) -> list[Compared]:
    """The mean of single members, then the combination of all members, of each row."""
    context = members[0].context
    task, names = context.task, list(members[0].rows)
    outputs: dict[SplitName, Outputs] = {}
    targets: dict[SplitName, Tensors] = {}
    for split in _READ:
        each = [member.outputs(split) for member in members]
        outputs[split] = {name: [one[name] for one in each] for name in names}
        data = context.split(split)
        targets[split] = data.batch(whole_split(data)).target
    found = []
    for kind, combined in (("one member (mean)", False), (f"{len(members)} members", True)):
        for name in names:
            sets: dict[SplitName, list[Tensors]] = {
                split: [task.combine(stack(outputs[split][name]))] if combined else outputs[split][name]
                for split in _READ
            }
            found.append(_compared(f"{kind}: {name}", task, sets, targets))
    return found


def _compared(
    title: str, task: Task, sets: Mapping[SplitName, Sequence[Tensors]], targets: Mapping[SplitName, Tensors]
) -> Compared:
    def losses(output: Tensors) -> Values:
        values: Values = task.loss(output, targets["test"]).double().numpy()
        return values

    def mean(of: Callable[[Tensors, Tensors], Values]) -> Values:
        parts = [of(*pair) for pair in zip(sets["val"], sets["test"], strict=True)]
        total: Values = sum(parts[1:], parts[0]) / len(parts)
        return total

    def tempered(val: Tensors, test: Tensors) -> Values:
        return losses(task.tempered(test, choose_temperature(task, [val], [targets["val"]])))

    classes = [task.predicted_class(test) for test in sets["test"]]
    has_classes = task.log_probabilities(sets["test"][0]) is not None
    return Compared(
        title,
        mean(lambda _, test: losses(test)),
        mean(tempered) if has_classes else None,
        _accuracy(classes, targets["test"]) if has_classes else None,
    )


def _accuracy(classes: Sequence[Tensor | None], target: Tensors) -> float:
    assert isinstance(target, Tensor)
    right = [float((found == target).double().mean()) for found in classes if found is not None]
    return 100 * sum(right) / len(right)


def table(lines: Sequence[Compared], bases: int, groups: Tensor | None = None) -> str:
    """The lines as Markdown; z and p (Holm over the lines) are paired over test samples against the line `bases`."""
    others = [i for i in range(len(lines)) if i != bases]
    sides = {"loss": [line.losses for line in lines]}
    if all(line.tempered is not None for line in lines):
        sides["loss +T"] = [line.tempered for line in lines if line.tempered is not None]
    apart = None if groups is None else groups.numpy()
    tests = {}
    for side, values in sides.items():
        p = dict(zip(others, holm([paired_p(values[i], values[bases], apart) for i in others]), strict=True))
        tests[side] = [
            ("", "") if i == bases else (f"{paired_z(values[i], values[bases], apart):+.1f}", p_text(p[i]))
            for i in range(len(lines))
        ]
    heads = ["method", *(head for side in sides for head in (side, "z", "p")), "accuracy %"]
    rows = [list(_cells(i, line, sides, tests)) for i, line in enumerate(lines)]
    return markdown_table(heads, rows)


def _cells(
    index: int, line: Compared, sides: Mapping[str, list[Values]], tests: Mapping[str, list[tuple[str, str]]]
) -> Iterator[str]:
    yield line.title
    for side, values in sides.items():
        yield f"{values[index].mean():.4f}"
        yield from tests[side][index]
    yield "–" if line.accuracy is None else f"{line.accuracy:.2f}"


@app.command()
def main(
    task: Annotated[str, typer.Argument(help="A task with tuned runs of these seeds.")],
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2,3,4",
    rows: Annotated[str, typer.Option(help="Rows beside the base, separated by commas.")] = ",".join(ROWS),
) -> None:
    """Compare the deep ensemble of the seeds' bases with the ensemble of their OCD networks."""
    names = [name.strip() for name in rows.split(",") if name.strip() != BASE]
    members = [Member.of(task, seed, Path(), names) for seed in numbers("--seeds", seeds, least=0)]
    if len(members) < 2:
        raise UserError("--seeds: an ensemble needs at least two members")
    print(table(compare(members), bases=len(members[0].rows), groups=groups_of(members[0].context.split("test"))))


if __name__ == "__main__":
    run(app)
