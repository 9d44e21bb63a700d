"""The rows of the table by name: a row `name` is the class that `ocd_core.evaluation.rows.<name>` calls ROW.

A new row is one file here. Your own package can add one, a subclass of `ocd_core.evaluation.row.Row`, with an entry
point in the group `ocd.rows`, or params name it as `module:Class`.
"""

from typing import TYPE_CHECKING

from ocd_core.errors import UserError
from ocd_core.registry import Registry

if TYPE_CHECKING:
    from ocd_core.evaluation.row import Row

ROWS = Registry("row", __name__, "ROW", "ocd.rows", shared=None)


def row_class(name: str) -> "type[Row]":
    """The class of a row.

    Raises:
        UserError: unknown name, its module cannot be imported or lacks it, or it is not a row.
    """
    found: type[Row] = ROWS.load(name)
    if not hasattr(found, "sees_labels"):  # the protocol's module needs this one's names first
        raise UserError(f"row {ROWS.target(name)!r} is not a subclass of ocd_core.evaluation.row.Row")
    return found
