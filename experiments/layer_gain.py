"""Whether a layer's rank (Eq. 3) predicts how much OCD gains in it.

Every layer of a task is moved in turn, with several seeds, and its rank is compared with the share of the base's loss
that one draw takes away on the test split:

    python -m experiments.layer_gain run mnist5k     # one `dvc exp run` over all ranks and seeds
    python -m experiments.layer_gain show mnist5k    # the table, from the workspace
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from scipy.stats import spearmanr

from ocd_core.artifacts import Artifacts, read_json
from ocd_core.config import load_params
from ocd_core.errors import UserError
from ocd_core.layers import matrix_layers
from ocd_core.models import build_model

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Compare layers' ranks with what OCD gains in them.")
Task = Annotated[str, typer.Argument(help="A task with a params file.")]
Seeds = Annotated[str, typer.Option(help="Seeds, with commas.")]

# one representation for every layer (the factored one is for layers that see one vector), and the rows that count
_SETTINGS = {
    "layer.select": "auto",
    "layer.candidates.kinds": "[linear,conv]",
    "layer.candidates.names": "null",
    "overfit.layout": "dense",
    "diffusion.representation.name": "pca",
    "sampling.renormalise": "false",
    "controls.fit": "[ocd_gain]",
    "evaluate.rows": "[base,ocd,ocd_gain,bound]",
}


@dataclass(frozen=True)
class Gain:
    """One layer of one seed's run: mean test losses."""

    seed: int
    rank: int
    layer: str
    base: float
    ocd: float
    bound: float
    z: float

    @property
    def taken_away(self) -> float:
        """The share of the base's loss that one draw takes away; negative where it adds to it."""
        return 1 - self.ocd / self.base


def layer_count(task: str) -> int:
    """How many layers of the task's base network can move."""
    model = load_params(task).base.model
    return len(matrix_layers(build_model(model.name, model.args)))


def command(task: str, seeds: str) -> list[str]:
    """The experiment over all layers."""
    ranks = ",".join(str(r) for r in range(1, layer_count(task) + 1))
    sets = {f"params/{task}.yaml:{key}": value for key, value in _SETTINGS.items()}
    sets |= {"tasks": f"[{task}]", "seeds": f"[{seeds}]", "layer_ranks": f"[{ranks}]"}
    return ["dvc", "exp", "run", "evaluate", *(a for key, v in sets.items() for a in ("--set-param", f"{key}={v}"))]


def gains(task: str, root: Path | str = ".") -> list[Gain]:
    """Every evaluated layer of the workspace, by seed and rank.

    Raises:
        UserError: there is none.
    """
    found = []
    for path in Artifacts(task, root=Path(root)).task_dir.glob("seed*/rank*/evaluation/table.json"):
        table = read_json(path)
        metric = table["metrics"][0]["name"]
        rows = {row["row"]: row[metric] for row in table["rows"]}
        found.append(
            Gain(table["seed"], table["rank"], table["layer"], rows["base"]["value"], rows["ocd"]["value"],
                 rows["bound"]["value"], rows["ocd"]["z_against_base"])
        )  # fmt: skip
    if not found:
        raise UserError(f"no evaluated run of {task}; 'python -m experiments.layer_gain run {task}' makes them")
    return sorted(found, key=lambda g: (g.seed, g.rank))


def table(found: list[Gain]) -> str:
    """Markdown, with the rank correlation between rank and gain over all seeds."""
    head = "| seed | rank | layer | base | OCD, one draw | taken away | z | bound |"
    lines = [head, "| ---: | ---: | --- |" + " ---: |" * 5]
    lines += [
        f"| {g.seed} | {g.rank} | {g.layer} | {g.base:.5f} | {g.ocd:.5f} | {100 * g.taken_away:+.1f} % | {g.z:+.1f} | "
        f"{g.bound:.5f} |"
        for g in found
    ]
    if len({g.rank for g in found}) > 1:
        test = spearmanr([g.rank for g in found], [g.taken_away for g in found])
        lines += [
            "",
            f"Spearman's correlation of rank and share taken away: {test.statistic:+.2f} (p = {test.pvalue:.2f})",
        ]
    return "\n".join(lines)


@app.command()
def run(task: Task, seeds: Seeds = "0,1,2") -> None:
    """Run every layer with every seed."""
    subprocess.run(command(task, seeds), check=True)


@app.command()
def show(task: Task) -> None:
    """The table of what has run."""
    print(table(gains(task)))


if __name__ == "__main__":
    try:
        app()
    except (UserError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
