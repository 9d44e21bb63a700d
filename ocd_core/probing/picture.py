"""A diagnosis as a picture: what each layer and a temperature gain on validation, and how well Δ is predicted."""

from typing import TYPE_CHECKING

from ocd_core.drawing import new_figure
from ocd_core.probing.diagnosis import Diagnosis, Verdict, relative

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS: dict[Verdict, str] = {
    "likely": "tab:green",
    "cannot tell": "tab:olive",
    "unlikely": "tab:orange",
    "no gap": "tab:gray",
}


def diagnosis_figure(diagnosis: Diagnosis) -> "Figure":
    """Left: the change of the validation loss with its 95 % interval. Right: R² and cosine of predicted Δ."""
    probes = list(diagnosis.probes)
    figure, axes = new_figure(1, 2, (10.0, 1.6 + 0.4 * len(probes)))
    gains, predicted = axes[0]
    changes = [
        (
            p.layer,
            *(100 * relative(p.val_loss, x) for x in (p.change, p.low, p.high)),
            _COLOURS[diagnosis.verdict_of(p)],
        )
        for p in probes
    ]
    found = diagnosis.temperature
    if found is not None:
        values = (100 * relative(found.loss, x) for x in (found.change, found.low, found.high))
        changes.append(("temperature alone", *values, "tab:blue"))
    for place, (_, change, low, high, colour) in enumerate(changes):
        gains.plot([low, high], [place, place], color=colour)
        gains.plot([change], [place], "o", color=colour)
    gains.axvline(0, color="gray", linewidth=1)
    gains.axvline(-100 * diagnosis.thresholds.change, color="gray", linewidth=1, linestyle=":")
    gains.set_yticks(range(len(changes)), [name for name, *_ in changes])
    gains.invert_yaxis()
    gains.set(xlabel="change of the validation loss in % (left is better)", title=f"verdict: {diagnosis.verdict}")
    gains.grid(axis="x", alpha=0.3)
    places = range(len(probes))
    predicted.barh(
        [p - 0.2 for p in places],
        [max(p.r2, p.network_r2) for p in probes],
        0.35,
        label="R², the better regression of Δ",
    )
    predicted.barh(
        [p + 0.2 for p in places],
        [max(p.cosine, p.network_cosine) for p in probes],
        0.35,
        label="cosine, the better one",
    )
    predicted.set_yticks(places, [p.layer for p in probes])
    predicted.invert_yaxis()
    predicted.axvline(0, color="gray", linewidth=1)
    predicted.set(title="Δ predicted from I(x), on validation")
    predicted.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)  # bars fill the axes
    return figure
