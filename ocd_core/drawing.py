"""Matplotlib figures, drawn off-screen and saved as PNG: the same data gives the same bytes."""

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ocd_core.files import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_DPI = 110


def new_figure(rows: int, columns: int, size: tuple[float, float]) -> "tuple[Figure, np.ndarray]":
    """A figure of size (width, height) in inches, and its axes (rows, columns); drawn off-screen."""
    from matplotlib.figure import Figure  # not pyplot, which would change the caller's settings

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def png(figure: "Figure") -> bytes:
    """A figure as a PNG; the same data gives the same bytes (no software version or date in the file).

    A letter that no font has, such as one of a layer's name in another alphabet, is an empty box.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a name may hold dollar signs
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(file, dpi=_DPI, format="png", metadata={"Software": None})
    return file.getvalue()


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as a PNG, and create its folder if necessary."""
    replace_file(path, lambda partial: partial.write_bytes(png(figure)))
