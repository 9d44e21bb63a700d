"""The class of a row of a written table."""

from typing import Any

from ocd_core.errors import UserError
from ocd_core.evaluation.rows import ROWS, row_class


def class_of(row: str) -> type[Any] | None:
    """The class of a row of a table, which may be a variant; None if this package does not know it."""
    families = sorted((name for name in ROWS.own() if row.startswith(f"{name}_")), key=len, reverse=True)
    for name in (row, *families):
        try:
            return row_class(name)
        except UserError:
            continue
    return None
