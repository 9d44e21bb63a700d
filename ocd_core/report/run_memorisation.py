"""What the report says about memorisation: whether drawn Δ are training Δ, and what the representation keeps."""

from typing import TYPE_CHECKING, Any

from ocd_core.artifacts import Artifacts, read_json, read_table
from ocd_core.drawing import new_figure
from ocd_core.report.page import Block, Markdown, Table, figure_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TITLES = {
    "held_out": "real Δ of validation samples",
    "ocd": "drawn Δ, OCD",
    "ocd_tuned": "drawn Δ, OCD tuned",
}


def memorisation_blocks(run: Artifacts) -> list[Block]:
    """Text, figures and a plot; nothing if the run's evaluation did not measure it."""
    path = run.evaluation / "memorisation.json"
    found = read_json(path) if path.is_file() else {}
    if not found:
        return []
    return [
        Markdown(
            f"How far is a Δ from the nearest of the {found['training']:,} training Δ, for {found['samples']} "
            "validation samples? If drawn Δ are much nearer than the real Δ of the same samples, which no training has "
            "seen, the diffusion model repeats training Δ. A Δ that is less than a third as far from the nearest "
            "training Δ as from the next counts as a copy. Distances are between codes, the numbers in which the "
            "diffusion model represents Δ."
        ),
        _distances(found["nearest"]),
        figure_picture(nearest_figure(run), "distances of drawn and of real Δ to the nearest training Δ"),
        Markdown(_kept(found["representation"])),
    ]


def _distances(nearest: dict[str, dict[str, Any]]) -> Table:
    rows = []
    for name, of in nearest.items():
        ratio = of.get("of_held_out")
        share = "–" if ratio is None else f"{100 * ratio:.0f} %"
        rows.append([_TITLES[name], f"{of['median']:.3g}", share, f"{100 * of['copies']:.1f} %"])
    return Table(["Δ", "median distance", "of that of real Δ", "copies"], rows, numbers=3)


def _kept(losses: dict[str, float | None]) -> str:
    """A sentence about what the representation keeps of Δ."""
    kept = losses["kept"]
    share = "" if kept is None else f", which keeps {100 * kept:.1f} % of what overfitting gains"
    return (
        "What the representation throws away: the mean loss of these samples is "
        f"{losses['loss']:.4g} with the base network, {losses['loss_overfitted']:.4g} with their real Δ, and "
        f"{losses['loss_decoded']:.4g} with their real Δ as the representation gives it back, "
        f"decode(encode(Δ)){share}. The store has a loss of {losses['loss_after']:.4g} after overfitting, on the "
        "inputs that overfitting saw."
    )


def nearest_figure(run: Artifacts) -> "Figure":
    """The cumulative distribution of each sample's distance, of real and of drawn Δ."""
    rows = read_table(run.evaluation / "memorisation.tsv")
    figure, axes = new_figure(1, 1, (7.0, 3.2))
    axis = axes[0, 0]
    for name in rows[0]:
        distances = sorted(float(row[name]) for row in rows)
        shares = [(place + 1) / len(distances) for place in range(len(distances))]
        axis.step(distances, shares, where="post", label=_TITLES[name], linestyle="--" if name == "held_out" else "-")
    axis.set(xlabel="distance to the nearest training Δ", ylabel="share of samples", ylim=(0, 1))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure
