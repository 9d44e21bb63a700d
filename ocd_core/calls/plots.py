"""Plots of a run as matplotlib figures, by name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ocd_core.artifacts import Artifacts
from ocd_core.errors import UserError
from ocd_core.network.ranking import read_ranking
from ocd_core.probing.diagnosis import Diagnosis
from ocd_core.probing.picture import diagnosis_figure
from ocd_core.report.results import merged_results, read_run_table
from ocd_core.report.run_plots import curves_figure, layer_scores_figure
from ocd_core.report.run_samples import reliability_figure
from ocd_core.report.run_summary import differences_figure
from ocd_core.report.store_plots import overview_figure
from ocd_core.store import OverfitStore
from ocd_core.store.summary import read_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def run_figure(run: Artifacts, name: str) -> "Figure":
    """A plot of a run.

    Args:
        name: one of `PLOTS`.

    Raises:
        UserError: there is no such plot; what it shows was not made yet, is damaged, or has nothing to show.
    """
    if name not in PLOTS:
        raise UserError(f"there is no plot {name!r}; plots are {', '.join(PLOTS)}")
    return PLOTS[name](run)


def _layers(run: Artifacts) -> "Figure":
    folder = _made(run, "layers", "fit")
    return layer_scores_figure(folder / "scores.tsv", folder / "convergence.tsv")


def _diagnosis(run: Artifacts) -> "Figure":
    folder = _made(run, "diagnosis", "diagnose")
    return diagnosis_figure(Diagnosis.read(folder, read_ranking(run.layers).used["1"]))


def _curves(run: Artifacts) -> "Figure":
    _made(run, "scale", "fit")
    return curves_figure(run)


def _overfit(run: Artifacts) -> "Figure":
    store = OverfitStore(_made(run, "overfit/train", "fit"))
    return overview_figure(store, read_rows(store))


def _differences(run: Artifacts) -> "Figure":
    (entry,) = merged_results([read_run_table(_made(run, "evaluation", "evaluate"))])
    return _shown(differences_figure(entry), "no row but the base has a value")


def _reliability(run: Artifacts) -> "Figure":
    table = read_run_table(_made(run, "evaluation", "evaluate"))
    return _shown(reliability_figure(run, table), "only of classes is there a probability to compare")


def _made(run: Artifacts, name: str, call: str) -> Path:
    path = run.path(name)
    if not path.exists():
        raise UserError(f"{path} is missing; call {call} first")
    return path


def _shown(figure: "Figure | None", why_not: str) -> "Figure":
    if figure is None:
        raise UserError(f"there is nothing to plot: {why_not}")
    return figure


PLOTS: Mapping[str, Callable[[Artifacts], "Figure"]] = {
    "diagnosis": _diagnosis,
    "layers": _layers,
    "overfit": _overfit,
    "curves": _curves,
    "differences": _differences,
    "reliability": _reliability,
}
