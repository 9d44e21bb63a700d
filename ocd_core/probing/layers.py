"""The candidate layers by what their probes gain (`layer.select: validated`)."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, get_type_hints

from torch import nn

from ocd_core.errors import UserError
from ocd_core.overfit.params import OverfitParams
from ocd_core.probing.probe import Probe, probe_layer, probe_steps
from ocd_core.progress import Progress, no_progress, part_of
from ocd_core.samples import Split
from ocd_core.scoring.params import ProbeParams
from ocd_core.tasks.base import Task

LAYERS = 8  # that are probed at most, those of the first ranks, unless the params name more
COLUMNS = ("rank", "score_rank", *(field.name for field in fields(Probe)))


def probe_layers(
    network: nn.Module,
    task: Task,
    train: Split,
    val: Split,
    layers: Sequence[str],
    overfit: OverfitParams,
    params: ProbeParams,
    seed: int,
    progress: Progress = no_progress,
) -> list[Probe]:
    """Probe each layer; the one that lowers the validation loss most is first. Other arguments as in `probe_layer`.

    A layer that cannot be probed is left out with a warning.

    Raises:
        UserError: none can be probed.
    """
    found = []
    each = probe_steps(train, val, params)
    for index, layer in enumerate(layers):
        part = part_of(progress, index * each, layer)
        try:
            found.append(probe_layer(network, task, train, val, layer, overfit, params, seed, part))
        except UserError as error:
            warnings.warn(f"layer {layer!r} is left out of the probes: {error}", stacklevel=2)
    progress(len(layers) * each, "")  # the layer probed last is not the layer selected
    if not found:
        raise UserError(f"layer.select: none of the candidates {', '.join(layers)} can be probed; name a layer")
    return sorted(found, key=lambda probe: probe.change)


def no_gain(probes: Sequence[Probe]) -> str | None:
    """A warning if the best probe, which is first, does not show a gain with 95 % confidence, else None.

    The confidence is that of all layers together: the best of several tends to look good by chance.
    """
    best = probes[0]
    if best.z <= -critical(best.val_groups, len(probes)):
        return None
    return (
        f"no probe shows a gain: in the best layer, {best.layer}, a predicted Δ changes the validation loss by "
        f"{best.change:+.3g} (95 % interval {best.low:+.3g} to {best.high:+.3g})"
    )


def critical(groups: int, layers: int, confidence: float = 0.95) -> float:
    """The two-sided quantile of Student's t for a mean of so many groups, corrected for the number of layers."""
    from scipy.stats import t

    return float(t.ppf(1 - (1 - confidence) / (2 * layers), max(groups - 1, 1)))


def probe_table(probes: Sequence[Probe], score_ranks: Mapping[str, int]) -> list[dict[str, Any]]:
    """The rows of a table, best layer first, with the rank from 1 by gain and the one by score (Eq. 3)."""
    return [
        {"rank": rank, "score_rank": score_ranks[probe.layer], **asdict(probe)}
        for rank, probe in enumerate(probes, start=1)
    ]


def probes_of_table(rows: Sequence[Mapping[str, str]]) -> list[Probe]:
    """The probes that `probe_table` made rows of, from their text, in the same order.

    Raises:
        UserError: a column is missing or is not a number.
    """
    kinds = get_type_hints(Probe)
    try:
        return [Probe(**{name: kind(row[name]) for name, kind in kinds.items()}) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the table of probes is damaged ({error!r}); run 'dvc repro'") from error
