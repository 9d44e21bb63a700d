"""A process that is killed at one of the changes that it makes to the file system, or one that behaves as if."""

import builtins
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

CHANGES = ("rename", "replace", "unlink", "mkdir", "rmdir")


class Killed(BaseException):
    """Stands for the end of the process; no code that handles errors may take it for one."""


def as_if() -> None:
    raise Killed


def truly() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def dying(number: int, end: Callable[[], None] = as_if) -> Iterator[None]:
    """Call `end` instead of the change of this number (from 1): of a name in a folder, or a file opened for writing.

    A file is then half written. If the process goes on, as with `as_if`, nothing that it does while it cleans up
    reaches the disk any more.
    """
    left = number

    def due() -> bool:
        nonlocal left
        left -= 1
        return left <= 0

    def change(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            dead = left <= 0
            if not due():
                return real(*args, **kwargs)
            return None if dead else end()

        return call

    def opened(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not isinstance(file, str | Path) or set(mode) <= set("rbt") or not due():
                return real(file, mode, *args, **kwargs)
            if left == 0 and "w" in mode:
                with real(file, "wb") as half:
                    half.write(b"half")
            end()
            raise Killed  # a file is not opened while the process cleans up

        return call

    with ExitStack() as stack:
        for name in CHANGES:
            stack.enter_context(mock.patch.object(os, name, change(getattr(os, name))))
        for module in (builtins, io):
            stack.enter_context(mock.patch.object(module, "open", opened(open)))
        yield
