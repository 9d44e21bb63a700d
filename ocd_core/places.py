"""Where a command runs: in the folder that holds `params/`, from whichever folder below it was typed."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from ocd_core.errors import UserError
from ocd_core.files import is_url


@dataclass(frozen=True)
class Place:
    """The folder in which a command was typed, and the one in which it works."""

    typed: Path
    root: Path

    @classmethod
    def enter(cls, root: Path | None) -> "Place":
        """Go to `root`, or to the nearest folder upwards that holds params files; stay if there is none.

        Modules of that folder can then be imported, because a task's class may be one of them.

        Raises:
            UserError: `root` is no folder.
        """
        typed = Path.cwd()
        if root is not None and not root.is_dir():
            raise UserError(f"--root {root} is not a folder")
        found = (root or _with_params(typed) or typed).resolve()
        if found != typed:
            os.chdir(found)
        # at the end, so that a file here cannot take the place of an installed package
        if str(found) not in sys.path and any((found / "params").glob("*.yaml")):
            sys.path.append(str(found))
        return cls(typed, found)

    def given(self, path: str) -> str:
        """A path or URL to read, as typed: relative to where it was typed if it exists there, else to the root."""
        if self.typed == self.root or is_url(path) or Path(path).is_absolute() or not (self.typed / path).exists():
            return path
        return str(self.typed / path)

    def new(self, path: Path) -> Path:
        """A path to write, as typed: relative to where it was typed."""
        return path if self.typed == self.root else self.typed / path


def _with_params(folder: Path) -> Path | None:
    return next((place for place in (folder, *folder.parents) if any((place / "params").glob("*.yaml"))), None)
