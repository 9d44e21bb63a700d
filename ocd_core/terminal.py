"""What command lines print: errors as one line, and text that no terminal and no Markdown page refuses or obeys."""

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ocd_core.errors import UserError
from ocd_core.files import UNREACHABLE, is_shortage

# packages whose errors come from storage elsewhere: no credentials, no such bucket, no network
_REMOTE = (
    "botocore", "aiobotocore", "s3fs", "gcsfs", "google", "azure", "adlfs", "aiohttp", "httpx", "requests", "urllib3",
    "huggingface_hub", "ftplib", "paramiko",
)  # fmt: skip
_LOOKALIKES = str.maketrans("`<>|", "'‹›¦")
_DISK = (errno.ENOSPC, errno.EDQUOT)

_WORD = 12  # characters that a narrow terminal does not break

# given back when an error arrives, so that there is memory left to say that there was none
_reserve = [bytearray(2**22)]


@contextmanager
def errors_as_lines(debug: Callable[[], bool] | None = None) -> Iterator[None]:
    """Print what a user can mend as one line on standard error, and exit with status 1.

    That is a `UserError`, a file that cannot be read or written, storage elsewhere that refuses, and too little memory,
    or too few threads or open files. Everything else is a bug in this package and keeps its traceback.

    A character that the terminal cannot show is written as its escape sequence.

    Args:
        debug: asked when there is an error; if it is true, every error keeps its traceback, and if it is false, a bug
            is one line, too. By default there is no such choice.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except Exception as error:
        _reserve.clear()
        if debug is not None and debug():
            raise
        _print_as_line(error, bugs=debug is not None)


def _print_as_line(error: Exception, bugs: bool) -> None:
    """Print an error, if a user can mend it or if `bugs`, and exit; otherwise raise it."""
    if isinstance(error, UserError):
        fail(str(error))
    if isinstance(error, BrokenPipeError):  # whoever read the output has gone, for example `head`
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains while it ends
        sys.exit(1)
    reason = " ".join(str(error).split())[:200]
    if _is_remote(error) and not is_shortage(error):
        fail(f"the remote storage refused ({type(error).__name__}: {reason}); check the URL, credentials and endpoint")
    if isinstance(error, OSError):
        fail(_of_system(error))
    if is_shortage(error):
        fail(
            f"too little memory, or too few threads, for this ({type(error).__name__}{f': {reason}' if reason else ''})"
            "; nothing is damaged: close other programs, raise the limit (ulimit -a) or choose smaller params, and run "
            "the same command again"
        )
    if not bugs:
        raise error
    fail(f"{type(error).__name__}: {reason} (this should not happen; 'ocd --debug ...' shows where it did)")


def fail(message: str) -> None:
    """Print an error on one line and exit with status 1."""
    print(f"error: {plain(' '.join(message.splitlines()))}", file=sys.stderr)
    sys.exit(1)


def _is_remote(error: Exception) -> bool:
    """Whether an error, or what it was made from, comes from storage elsewhere."""
    origins = (error, error.__cause__)
    return any(type(origin).__module__.partition(".")[0] in _REMOTE for origin in origins)


def _of_system(error: OSError) -> str:
    """What the operating system refused, for which file, and the remedy if it is not obvious."""
    if error.filename is None and isinstance(error, UNREACHABLE):
        return f"another machine does not answer ({type(error).__name__}: {error}); check the URL and the network"
    text = f"{error.filename or 'a file'}: {error.strerror or error}"
    if error.errno in _DISK:
        return f"{text}; free some space and run the same command again: what is finished is kept"
    if is_shortage(error):
        return f"{text}; nothing is damaged: raise the limit (ulimit -a) and run the same command again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{text}; change the permissions or choose another folder"
    return text


def plain(text: str) -> str:
    r"""Text in which control characters, which a terminal would obey, stand as escapes such as `\x1b`.

    So do the characters that change the direction of text. Newlines and tabs are kept.
    """
    return "".join(
        character if character in "\n\t" or (character.isprintable() or character == " ") else _escape(character)
        for character in text
    )


def printable_json(values: Any, *, ascii_only: bool) -> str:
    """Plain values as JSON in one line, in which what a terminal would obey stands as an escape of JSON."""
    text = json.dumps(values, ensure_ascii=ascii_only, allow_nan=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def code_text(text: str) -> str:
    """Text for a code span or a cell in Markdown: it can end neither, nor a line, and holds no HTML.

    Characters that could are replaced by others that look alike; nothing can be escaped inside of a code span.
    """
    return plain(" ".join(text.split())).translate(_LOOKALIKES)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def print_table(
    heading: Sequence[str], rows: Sequence[Sequence[str]], *, framed: bool = False, numbers: bool = False
) -> None:
    """Print a table in which nothing is cut, whatever the width of the terminal.

    Cells that are too wide go on in the next line. Words and numbers of up to `_WORD` characters stay whole: if even
    that is too wide for the terminal, its lines are wider than it. A log or a pipe gets one line per row.

    Args:
        framed: with lines around the columns.
        numbers: align all columns but the first to the right.
    """
    from rich.box import HEAVY_HEAD
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    cells = [[plain(cell) for cell in row] for row in (heading, *rows)]
    columns = list(zip(*cells, strict=True))
    words = [max((cell_len(word) for cell in column for word in cell.split()), default=0) for column in columns]
    whole = [max(map(cell_len, column)) for column in columns]
    console, frames = Console(), 3 * len(columns) + 1  # and gaps
    widths = whole
    if console.is_terminal:
        widths = [min(_WORD, word) for word in words]
        for i, wanted in enumerate(whole):  # columns further left get what is left first
            widths[i] += max(0, min(wanted - widths[i], console.width - frames - sum(widths)))
    table = Table(
        *(
            Column(Text(head), overflow="fold", width=width, justify="right" if numbers and i else "left")
            for i, (head, width) in enumerate(zip(cells[0], widths, strict=True))
        ),
        box=HEAVY_HEAD if framed else None,
    )
    for row in cells[1:]:
        table.add_row(*map(Text, row))
    Console(width=sum(widths) + frames).print(table)
