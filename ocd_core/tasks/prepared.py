"""What `prepare` has written, read again: the files that every domain has."""

from pathlib import Path

from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.samples import SplitName
from ocd_core.weights import read_tensors


def need_file(path: Path) -> Path:
    """The path of a prepared file.

    Raises:
        UserError: it does not exist.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; run the stage prepare first")
    return path


def split_file(prepared: Path, split: SplitName) -> Path:
    """The file of a split's tensors."""
    return prepared / f"{split}.safetensors"


def split_tensors(prepared: Path, split: SplitName) -> dict[str, Tensor]:
    """A split's tensors by name.

    Raises:
        UserError: the file is missing or damaged.
    """
    return read_tensors(need_file(split_file(prepared, split)))
