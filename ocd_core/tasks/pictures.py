"""Figures that only a domain can draw (for example a view next to its photograph), made by the stage illustrate.

A domain names the function that draws them in `Task.pictures`, as 'module:function'. It is named, not imported, because
whatever a domain imports is part of the task's code, on which every stage depends, and a new caption should not retrain
anything.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from ocd_core.errors import UserError

if TYPE_CHECKING:
    from ocd_core.predictor import Predictor
    from ocd_core.store import OverfitStore


class DrawPictures(Protocol):
    """The type of the function that `Task.pictures` names."""

    def __call__(self, predictor: "Predictor", prepared: Path, bound: "OverfitStore", dest: Path) -> None:
        """Write figures into the folder `dest`; reports show them under their file names.

        The same arguments must give the same bytes.

        Args:
            predictor: a trained run; `predictor.task` is the domain.
            prepared: the prepared data, for `predictor.task.open`.
            bound: the overfit store of the test split (each sample's Δ was found with its own label).
            dest: an empty folder.
        """


def drawing_function(target: str) -> DrawPictures:
    """The function that `module:function` names.

    Raises:
        UserError: the name has another form, or the module cannot be imported or lacks the function.
    """
    module, _, name = target.partition(":")
    try:
        found = getattr(import_module(module), name) if name else None
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"cannot import the domain's drawing function {target!r}: {error}") from error
    if not callable(found):
        raise UserError(
            f"a domain's drawing function is named 'module:function', not {target!r}; correct Task.pictures"
        )
    return cast(DrawPictures, found)
