"""Names that are a local folder or an id on the Hugging Face hub."""

from pathlib import Path

from ocd_core.errors import UserError
from ocd_core.files import path_of


def local_folder(name: str, key: str) -> Path | None:
    """The folder that a param names; None if its value can only be a hub id, such as `owner/name`.

    Args:
        key: the param, for the message.

    Raises:
        UserError: the name can only be a folder, which does not exist.
    """
    folder = path_of(name)
    if folder.is_dir():
        return folder
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise UserError(f"{key}: there is no folder {name}")
    return None


def unreadable(name: str, key: str, local: bool, error: Exception) -> UserError:
    """One line for a network that a library cannot load; libraries raise many kinds of errors."""
    kind = "folder" if local else "Hugging Face hub id; it needs the network or the hub's cache"
    reason = " ".join(str(error).split())[:200]
    return UserError(f"{key}: cannot load {name!r} ({kind}): {type(error).__name__}: {reason}")
