"""Tables as Markdown."""

import re
from collections.abc import Iterable, Sequence

from ocd_core.terminal import plain

_MARKUP = re.compile(r"[\\`*\[\]<>|~&$]|(?<![^\W_])_|_(?![^\W_])")  # an underscore inside of a word is text


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> str:
    """The first `text_columns` columns are aligned to the left, the others to the right."""
    rule = ["---"] * text_columns + ["---:"] * (len(columns) - text_columns)
    return "\n".join("| " + " | ".join(line) + " |" for line in [columns, rule, *rows])


def as_text(text: str) -> str:
    """Text, such as the name of a layer, that a Markdown page shows as it is: nothing in it is markup or obeyed."""
    return _MARKUP.sub(r"\\\g<0>", plain(text.replace("\n", " ")))
