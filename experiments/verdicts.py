"""Compare what `ocd diagnose` says of each layer with what OCD then gains in it, over tasks, layers and seeds.

    python -m experiments.verdicts run mnist5k   # one `dvc exp run`: the diagnosis, and OCD in every layer
    python -m experiments.verdicts show          # verdicts beside outcomes, of all that has run in the workspace

OCD *helps* in a layer if it lowers the base network's mean loss on the test split by at least 0.5 %, and a paired test
over test samples gives p < .05. OCD stands for an ensemble of five draws, of the tuned diffusion model if there is one,
without a temperature. All trainings are shorter than those of the tasks' own params, to run many layers.

The verdicts' thresholds can be fitted to such cases. So each task is also judged by thresholds that were chosen on the
other tasks alone.
"""

import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from scipy.stats import binomtest

from experiments import run as run_app
from experiments.layer_gain import ALL_LAYERS, Seeds, Task, command, layer_count, plain_results
from ocd_core.artifacts import Artifacts, read_json, read_table
from ocd_core.errors import UserError
from ocd_core.evaluation.statistics import p_text
from ocd_core.probing.diagnosis import THRESHOLDS, Diagnosis, Thresholds, Verdict, relative
from ocd_core.probing.layers import probes_of_table
from ocd_core.probing.probe import Probe
from ocd_core.report.markdown import markdown_table

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Compare diagnoses with what OCD then gains.")

HELPS, P = 0.005, 0.05  # the least gain that counts, as a share of the base's test loss, and its level
ROWS = ("ocd_tuned_ensemble", "ocd_ensemble")  # the first that was evaluated is the outcome
WRONG = 9  # right verdicts that a wrong one outweighs: 90 % of verdicts should come true
LOSSES = (
    "cross_entropy",
    "mse",
)  # metrics that are means of the loss itself; tasks with neither are judged by their first metric
# short trainings, one draw of each setting, and no controls
SHORT: dict[str, Any] = {
    "scoring.samples": 30,
    "scoring.draws": 100,
    "diffusion.representation.components": 20,
    "diffusion.denoiser.width": 128,
    "diffusion.denoiser.depth": 3,
    "diffusion.embedding": 64,
    "diffusion.updates": 600,
    "diffusion.validate_every": 100,
    "diffusion.batch_size": 128,
    "tuning.updates": 300,
    "tuning.lrs": [3e-4],
    "tuning.draws": 2,
    "tuning.batch_size": 64,
    "tuning.validate_every": 25,
    "tuning.patience": 5,
    "controls.fit": [],
    "evaluate.rows": ["base", "ocd", "ocd_ensemble", "ocd_tuned", "ocd_tuned_ensemble", "bound"],
    "evaluate.draws": [5],
    "evaluate.bootstrap": 100,
    "evaluate.precision": "float32",
}
_CALIFORNIA = {"data.train_size": 3000, "data.val_size": 1000, "data.test_size": 3000}
_FEW_TEXTS = {
    "data.test_size": 300,
    "diffusion.representation.components": 8,  # Δ of 12 texts have no more than 11
    "tuning.updates": 100,
    "tuning.batch_size": 16,
}
OWN: dict[str, dict[str, Any]] = {  # of tasks that would take long, or whose Δ are large or few
    "california": {**_CALIFORNIA, "layer.candidates.names": ["blocks.0.linear", "blocks.1.linear"]},
    "california_wide": _CALIFORNIA,
    "tinynerf_demo": {
        "base.epochs": 15,
        "scoring.samples": 10,
        "scoring.draws": 20,
        "diffusion.updates": 1000,
        "tuning.updates": 200,
        "tuning.batch_size": 8,
        "tuning.validate_every": 20,
    },
    **dict.fromkeys(("amazon_counterfactual_en", "cr", "emotion", "enron_spam", "sst5"), _FEW_TEXTS),
}

Agreement = Literal["right", "wrong", "cannot tell"]


@dataclass(frozen=True)
class Case:
    """One layer of one seed's run.

    diagnosis: of the seed's base network; probe: its part about the layer. change: of the base's mean test loss by OCD,
    as a share of it; p: of the paired test.
    """

    task: str
    seed: int
    layer: str
    diagnosis: Diagnosis
    probe: Probe
    change: float
    p: float

    @property
    def helps(self) -> bool:
        """The outcome."""
        return self.change <= -HELPS and self.p < P

    def verdict(self, thresholds: Thresholds) -> Verdict:
        """What the diagnosis says of the layer with these thresholds."""
        return replace(self.diagnosis, thresholds=thresholds).verdict_of(self.probe)

    def agreement(self, thresholds: Thresholds) -> Agreement:
        """Whether the verdict is what came true."""
        verdict = self.verdict(thresholds)
        if verdict == "cannot tell":
            return "cannot tell"
        return "right" if (verdict == "likely") == self.helps else "wrong"


def settings(task: str) -> dict[str, Any]:
    """The params of a task's cases, {key with dots: value}."""
    return {**ALL_LAYERS, **SHORT, **OWN.get(task, {})}


def cases(root: Path | str = ".") -> list[Case]:
    """Every layer in the workspace that has a diagnosis and an evaluation, by task, seed and layer.

    Raises:
        UserError: there is none.
    """
    found = [case for table in Path(root).glob("data/*/seed*/rank*/evaluation/table.json") for case in _cases(table)]
    if not found:
        raise UserError("no layer has a diagnosis and an evaluation; run 'python -m experiments.verdicts run TASK'")
    return sorted(found, key=lambda case: (case.task, case.seed, case.layer))


def _cases(path: Path) -> Iterator[Case]:
    table = read_json(path)
    seed = Artifacts(table["task"], table["seed"], root=path.parents[5])
    layers = seed.diagnosis / "layers.tsv"
    probes = probes_of_table(read_table(layers)) if layers.is_file() else []
    names = [metric["name"] for metric in table["metrics"]]
    metric = next((name for name in LOSSES if name in names), names[0])
    sign = -1 if table["metrics"][names.index(metric)]["higher_is_better"] else 1
    results = plain_results(table, metric)
    row = next((name for name in ROWS if name in results), None)
    for probe in probes:
        if probe.layer == table["layer"] and row is not None:
            base, ocd = results["base"]["mean"], results[row]["mean"]
            change = relative(base, sign * (ocd - base))
            diagnosis = Diagnosis(probes, probes[0].layer, None)
            yield Case(table["task"], table["seed"], probe.layer, diagnosis, probe, change, results[row]["p"])


def _judged(probe: Probe) -> str:
    """The validation samples, and their groups if they have several samples."""
    groups = f" of {probe.val_groups:,} groups" if probe.val_groups < probe.val_samples else ""
    return f"{probe.val_samples:,}{groups}"


def choices() -> list[Thresholds]:
    """Thresholds to choose from; the first are those of the diagnosis."""
    grid = product((0.005, 0.0, 0.0025, 0.01, 0.02), (0.95, 0.8, 0.9, 0.99), (0.02, 0.005, 0.01, 0.05))
    return [Thresholds(THRESHOLDS.gap, change, confidence, worth) for change, confidence, worth in grid]


def chosen(seen: Sequence[Case]) -> Thresholds:
    """Those with most right verdicts, of which each wrong one takes off nine; of equals the first choice.

    So a verdict is worth giving only if it comes true nine times in ten.
    """
    return max(choices(), key=lambda t: sum({"right": 1, "wrong": -WRONG}.get(case.agreement(t), 0) for case in seen))


def chosen_on_others(found: Sequence[Case]) -> Callable[[Case], Thresholds]:
    """For each case the thresholds that are chosen on the cases of all other tasks.

    Raises:
        UserError: there is only one task.
    """
    tasks = sorted({case.task for case in found})
    if len(tasks) < 2:
        raise UserError(f"only {tasks[0]} has cases; thresholds are chosen on other tasks, so run another one too")
    by_task = {task: chosen([case for case in found if case.task != task]) for task in tasks}
    return lambda case: by_task[case.task]


def case_table(found: Sequence[Case]) -> str:
    """One line per case, with the diagnosis's own thresholds."""
    columns = ["task", "layer", "seed", "verdict", "OCD helps", "", "predicted change", "95 % interval", "val samples",
               "change by OCD", "p"]  # fmt: skip
    marks: dict[Agreement, str] = {"right": "✓", "wrong": "✗", "cannot tell": "–"}
    rows = [
        [
            case.task,
            f"`{case.layer}`",
            str(case.seed),
            case.verdict(THRESHOLDS),
            "yes" if case.helps else "no",
            marks[case.agreement(THRESHOLDS)],
            _percent(relative(case.probe.val_loss, case.probe.change)),
            f"{_percent(relative(case.probe.val_loss, case.probe.low))} to "
            f"{_percent(relative(case.probe.val_loss, case.probe.high))}",
            _judged(case.probe),
            _percent(case.change),
            p_text(case.p),
        ]
        for case in found
    ]
    return markdown_table(columns, rows, text_columns=6)


def _percent(share: float) -> str:
    return f"{100 * share:+.1f} %"


def confusion(found: Sequence[Case], thresholds: Callable[[Case], Thresholds]) -> str:
    """Verdicts by outcome, as a table, and how many verdicts came true, with an interval."""
    counts = Counter((case.verdict(thresholds(case)), case.helps) for case in found)
    verdicts: list[Verdict] = ["likely", "cannot tell", "unlikely", "no gap"]
    rows = [[verdict, str(counts[verdict, True]), str(counts[verdict, False])] for verdict in verdicts]
    text = markdown_table(["verdict", "OCD helps", "OCD does not"], rows)
    agreed = Counter(case.agreement(thresholds(case)) for case in found)
    decided = agreed["right"] + agreed["wrong"]
    if not decided:
        return f"{text}\n\nNothing was decided."
    interval = binomtest(agreed["right"], decided).proportion_ci(method="wilson")
    return (
        f"{text}\n\n{agreed['right']} of {decided} verdicts came true, {100 * agreed['right'] / decided:.0f} % "
        f"(95 % interval {100 * interval.low:.0f} % to {100 * interval.high:.0f} %); {agreed['cannot tell']} of "
        f"{len(found)} cases were left open."
    )


@app.command()
def run(task: Task, seeds: Seeds = "0") -> None:
    """Diagnose a task, and run OCD in every layer, with every seed."""
    values = settings(task)
    names = values["layer.candidates.names"]
    layers = layer_count(task) if names is None else len(names)
    subprocess.run(command(task, seeds, values, layers, ("evaluate", "diagnose")), check=True)


@app.command()
def show(root: Annotated[Path, typer.Option(help="The workspace.")] = Path()) -> None:
    """Show all cases, and how often the verdicts came true."""
    found = cases(root)
    print(case_table(found))
    print(f"\nWith the thresholds of the diagnosis:\n\n{confusion(found, lambda _: THRESHOLDS)}")
    print(f"\nWith thresholds chosen on the other tasks:\n\n{confusion(found, chosen_on_others(found))}")


if __name__ == "__main__":
    run_app(app)
