"""Pictures that only a domain can draw (a view beside its photograph, say), made by the stage illustrate.

A domain names the function that draws them in `Task.pictures`, as 'module:function'. By name and not by an import:
what a domain imports is part of the task's code, which every stage depends on, and a new caption should not train
anything again.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from ocd_core.errors import UserError

if TYPE_CHECKING:
    from ocd_core.predictor import Predictor
    from ocd_core.store import OverfitStore


class DrawPictures(Protocol):
    """What `Task.pictures` names."""

    def __call__(self, predictor: "Predictor", prepared: Path, bound: "OverfitStore", dest: Path) -> None:
        """Write pictures into the folder `dest`; reports show them under the names that they have there.

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
        UserError: the name has another form, the module does not import, or it has no such function.
    """
    module, _, name = target.partition(":")
    try:
        found = getattr(import_module(module), name) if name else None
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"cannot import the pictures of the domain, {target!r}: {error}") from error
    if not callable(found):
        raise UserError(f"the pictures of a domain are named 'module:function', not {target!r}; correct Task.pictures")
    return cast(DrawPictures, found)
