"""The layers of a run by their scores and, if they were probed, by what the probes gain."""

from collections.abc import Sequence

from ocd_core.artifacts import Artifacts, read_table
from ocd_core.errors import UserError
from ocd_core.report.page import Block, Markdown, Table
from ocd_core.terminal import code_text

_LAYERS = (
    "How uncertain the loss becomes when the weights of one layer are disturbed (Eq. 3 of the paper; higher ranks "
    "first). The table's layer may also be set by hand."
)
_PROBES = (
    "Each layer was also probed: some samples were overfitted in it, and the Δ that are predicted "
    "for validation samples, times a factor, moved the layer. The one that lowers the validation loss most is used. "
    "The operations are those of overfitting and training in the probe, to be compared with those of rows under Cost."
)
_HEADS = (
    "layer", "rank by gain", "rank by score", "change of the validation loss", "95 % interval", "R² of Δ, kernel",
    "R² of Δ, network", "operations", "used",
)  # fmt: skip


def layers_blocks(run: Artifacts, plot: Sequence[Block]) -> list[Block]:
    """What the report's page says about the layers, with the plot of their scores."""
    probes = probes_table(run)
    probed: list[Block] = [] if probes is None else [Markdown(_PROBES), probes]
    return [Markdown(_LAYERS), *plot, *probed]


def probes_table(run: Artifacts) -> Table | None:
    """Both rankings of the probed layers, best gain first; None if the layers were not probed.

    Raises:
        UserError: the stage's table is missing or has other columns.
    """
    try:
        rows = [
            [
                f"`{code_text(row['layer'])}`",
                row["rank"],
                row["score_rank"],
                f"{float(row['change']):+.4g}",
                f"{float(row['low']):+.4g} to {float(row['high']):+.4g}",
                f"{float(row['r2']):.3f}",
                f"{float(row['network_r2']):.3f}",
                f"{float(row['flops']):.2g}",
                f"{row['regression']} × {float(row['gain']):g}",
            ]
            for row in read_table(run.layers / "probes.tsv")
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{run.layers / 'probes.tsv'} is damaged ({error!r}); run 'dvc repro'") from error
    return Table(_HEADS, rows, numbers=8) if rows else None
