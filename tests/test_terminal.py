"""What command lines print: one line for what a user can mend, and nothing that a terminal refuses or obeys."""

import errno
import io
import os
import re
import socket
import sys

import pytest
from rich.cells import cell_len

from ocd_core.errors import UserError
from ocd_core.terminal import errors_as_lines, plain, print_table


def remote_error() -> Exception:
    """As packages of storage elsewhere raise it."""
    return type("NoCredentialsError", (Exception,), {"__module__": "botocore.exceptions"})(
        "Unable to\nlocate credentials"
    )


def translated_error() -> OSError:
    """As s3fs makes it from such an error."""
    error = OSError(errno.EIO, "Internal Server Error")
    error.__cause__ = remote_error()
    return error


LINES = [
    (
        remote_error(),
        "error: the remote storage refused (NoCredentialsError: Unable to locate credentials); check the URL",
    ),
    (translated_error(), "error: the remote storage refused (OSError: [Errno 5] Internal Server Error); check the URL"),
    (UserError("no such\nthing"), "error: no such thing\n"),
    (UserError("layer \x1b[2J"), "error: layer \\x1b[2J\n"),
    (OSError(errno.ENOSPC, "No space left on device", "a/b"), "free some space and run the same command again"),
    (OSError(errno.EDQUOT, "Disk quota exceeded", "a/b"), "error: a/b: Disk quota exceeded; free some space"),
    (OSError(errno.EROFS, "Read-only file system", "a/b"), "error: a/b: Read-only file system; change the permissions"),
    (PermissionError(errno.EACCES, "Permission denied", "a/b"), "error: a/b: Permission denied; change"),
    (OSError(errno.EMFILE, "Too many open files", "a/b"), "nothing is damaged: raise the limit"),
    (IsADirectoryError(errno.EISDIR, "Is a directory", "a/b"), "error: a/b: Is a directory\n"),
    (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "error: another machine does not answer ("),
    (TimeoutError("timed out"), "error: another machine does not answer (TimeoutError: timed out); check the URL"),
    (TimeoutError(errno.ETIMEDOUT, "Connection timed out", "a/b"), "error: a/b: Connection timed out\n"),
    (socket.gaierror(-2, "Name or service not known"), "check the URL and the network"),
    (MemoryError(), "too little memory, or too few threads, for this (MemoryError); nothing is damaged"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "nothing is damaged"),
    (RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left"), "nothing is damaged"),
    (RuntimeError("can't start new thread"), "nothing is damaged"),
]


@pytest.mark.parametrize(("error", "said"), LINES, ids=lambda value: str(value)[:40])
def test_what_a_user_can_mend_is_one_line(error, said, capsys) -> None:
    with pytest.raises(SystemExit) as ended, errors_as_lines():
        raise error
    assert ended.value.code == 1
    output = capsys.readouterr()
    assert said in output.err
    assert output.err.count("\n") == 1
    assert output.out == ""


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("x"), KeyError("x")])
def test_a_bug_keeps_its_traceback(error) -> None:
    with pytest.raises(type(error)), errors_as_lines():
        raise error


@pytest.mark.parametrize("debug", [True, False])
def test_a_command_shows_the_traceback_of_a_bug_only_on_request(debug: bool, capsys) -> None:
    with pytest.raises(KeyError if debug else SystemExit), errors_as_lines(lambda: debug):
        raise KeyError("x")
    assert capsys.readouterr().err.count("\n") == (0 if debug else 1)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_lacks_a_character_shows_its_escape(encoding, monkeypatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    with errors_as_lines():
        print("ρ of Δ, file \udce9")
        sys.stdout.flush()
    assert raw.getvalue() == b"\\u03c1 of \\u0394, file \\udce9\n"


def test_a_reader_that_has_gone_is_no_traceback(monkeypatch) -> None:
    read, write = os.pipe()
    os.close(read)
    monkeypatch.setattr(sys, "stdout", open(write, "w"))  # noqa: SIM115, PTH123
    with pytest.raises(SystemExit) as ended, errors_as_lines():
        print("x" * 100_000)
    assert ended.value.code == 1
    sys.stdout.close()


def test_plain_text_keeps_letters_of_all_languages_and_escapes_what_terminals_obey() -> None:
    assert plain("Δ, é, 漢字, a b\tc\n") == "Δ, é, 漢字, a b\tc\n"
    assert plain("a\x1b]0;title\x07b\x9b2J") == "a\\x1b]0;title\\x07b\\x9b2J"
    assert plain("abc\u202etxt") == "abc\\u202etxt"


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def shown(kind: type[io.StringIO], columns: str, monkeypatch: pytest.MonkeyPatch, **options: bool) -> list[str]:
    """The lines of a table with a long name and numbers."""
    output = kind()
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys, "stdout", output)
    print_table(
        ["row", "cross entropy", "p"],
        [["a_very_long_name_of_a_layer.in.a.network", "0.123456", "<.001"], ["[red]名前[/]\x1b[2J", "12.345678", ".5"]],
        **options,
    )
    monkeypatch.undo()
    return output.getvalue().splitlines()


def columns_of(lines: list[str]) -> list[str]:
    """What the lines of a framed table say, column by column."""
    parts = [line.split("│") for line in lines if line.startswith("│")]
    return ["".join(part[i].strip() for part in parts) for i in (1, 2, 3)]


@pytest.mark.parametrize("columns", ["1", "20", "40", "300"])
def test_a_narrow_terminal_cuts_nothing(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(Terminal, columns, monkeypatch, framed=True, numbers=True)
    assert columns_of(lines) == [
        "a_very_long_name_of_a_layer.in.a.network[red]名前[/]\\x1b[2J", "0.12345612.345678", "<.001.5",
    ]  # fmt: skip
    assert any("0.123456" in line for line in lines)  # in one piece
    if columns == "40":
        assert max(cell_len(re.sub(r"\x1b\[\d+m", "", line)) for line in lines) <= 40


def test_a_pipe_has_one_line_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(io.StringIO, "10", monkeypatch)
    assert [line.split() for line in lines] == [
        ["row", "cross", "entropy", "p"],
        ["a_very_long_name_of_a_layer.in.a.network", "0.123456", "<.001"],
        ["[red]名前[/]\\x1b[2J", "12.345678", ".5"],
    ]
