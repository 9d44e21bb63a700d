"""Compare each layer's rank (Eq. 3) with how much OCD gains in it, to see whether the rank predicts the gain.

Every layer of a task moves in turn, with several seeds, and its rank is compared with the share by which one draw
improves the base's first metric on the test split:

    python -m experiments.layer_gain run mnist5k     # one `dvc exp run` over all ranks and seeds
    python -m experiments.layer_gain show mnist5k    # the table, from the workspace
"""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from scipy.stats import spearmanr

from experiments import CHEAP
from experiments import run as run_app
from experiments.networks import untrained_network
from ocd_core.artifacts import Artifacts, read_json
from ocd_core.config import load_params
from ocd_core.errors import UserError
from ocd_core.network.layers import matrix_layers
from ocd_core.presets.overrides import override
from ocd_core.probing.diagnosis import relative
from ocd_core.report.markdown import markdown_table

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Compare layers' ranks with what OCD gains in them.")
Task = Annotated[str, typer.Argument(help="A task with a params file.")]
Seeds = Annotated[str, typer.Option(help="Seeds, separated by commas.")]

# every layer as a candidate, and one representation for all (the factored one is only for layers that see one vector)
ALL_LAYERS: dict[str, Any] = {
    "layer.select": "entropy",
    "layer.candidates.kinds": ["linear", "conv"],
    "layer.candidates.names": None,
    "overfit.layout": "dense",
    "diffusion.representation.name": "pca",
    "sampling.renormalise": False,
    "sampling.steps": 10,
}


@dataclass(frozen=True)
class Gain:
    """One layer of one seed's run: means of the first metric on the test split."""

    seed: int
    rank: int
    layer: str
    base: float
    ocd: float
    bound: float
    z: float
    higher_is_better: bool

    @property
    def gain(self) -> float:
        """The change by one draw as a share of the base's figure, positive if it is better."""
        change = relative(self.base, self.ocd - self.base)
        return change if self.higher_is_better else -change


def layer_count(task: str) -> int:
    """How many layers of the task's base network can move."""
    return len(matrix_layers(untrained_network(load_params(task))))


def command(
    task: str, seeds: str, settings: Mapping[str, Any], layers: int, stages: Sequence[str] = ("evaluate",)
) -> list[str]:
    """The command of an experiment over the layers of the first ranks.

    Args:
        settings: of the task's params, {key with dots: value}.
        stages: that must be done in the end.
    """
    ranks = ",".join(str(r) for r in range(1, layers + 1))
    sets = [override(task, key, value) for key, value in settings.items()]
    sets += [f"tasks=[{task}]", f"seeds=[{seeds}]", f"layer_ranks=[{ranks}]"]
    return ["dvc", "exp", "run", *stages, *(arg for text in sets for arg in ("--set-param", text))]


def plain_results(table: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """{row: its result} of a run's table in one metric, without a temperature and without noise."""
    return {
        r["row"]: r
        for r in table["results"]
        if r["metric"] == metric and r["temperature"] is None and r["noise"] is None
    }


def gains(task: str, root: Path | str = ".") -> list[Gain]:
    """Every evaluated layer in the workspace, by seed and rank.

    Raises:
        UserError: there are none.
    """
    found = []
    for path in Artifacts(task, root=Path(root)).task_dir.glob("seed*/rank*/evaluation/table.json"):
        table = read_json(path)
        first = table["metrics"][0]
        metric, higher = first["name"], bool(first["higher_is_better"])
        results = plain_results(table, metric)
        base, ocd, bound = (results[row] for row in ("base", "ocd", "bound"))
        found.append(
            Gain(
                table["seed"],
                table["rank"],
                table["layer"],
                base["mean"],
                ocd["mean"],
                bound["mean"],
                ocd["z"],
                higher,
            )
        )
    if not found:
        raise UserError(f"no evaluated run of {task}; run 'python -m experiments.layer_gain run {task}' first")
    return sorted(found, key=lambda g: (g.seed, g.rank))


def table(found: list[Gain]) -> str:
    """The table as Markdown, with the correlation between rank and gain over all seeds."""
    columns = ["seed", "rank", "layer", "base", "OCD, one draw", "gain", "z", "bound"]
    rows = [
        [
            str(g.seed),
            str(g.rank),
            g.layer,
            f"{g.base:.5f}",
            f"{g.ocd:.5f}",
            f"{100 * g.gain:+.1f} %",
            f"{g.z:+.1f}",
            f"{g.bound:.5f}",
        ]
        for g in found
    ]
    text = markdown_table(columns, rows, text_columns=3)
    if len({g.rank for g in found}) > 1:
        test = spearmanr([g.rank for g in found], [g.gain for g in found])
        figures = f"{test.statistic:+.2f} (p = {test.pvalue:.2f})"
        text += f"\n\nSpearman's correlation of rank and gain: {figures}"
    return text


@app.command()
def run(task: Task, seeds: Seeds = "0,1,2") -> None:
    """Run every layer with every seed."""
    subprocess.run(command(task, seeds, {**ALL_LAYERS, **CHEAP}, layer_count(task)), check=True)


@app.command()
def show(task: Task) -> None:
    """Show the table of all finished runs."""
    print(table(gains(task)))


if __name__ == "__main__":
    run_app(app)
