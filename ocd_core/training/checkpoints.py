"""Training checkpoints on disk: the sha256, then tensors and plain values; a checkpoint is complete or absent."""

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ocd_core.errors import UserError
from ocd_core.files import is_shortage, replace_file

_DIGEST_BYTES = hashlib.sha256().digest_size


def write_checkpoint(path: Path, values: Mapping[str, Any]) -> None:
    """Write tensors and plain values, atomically."""
    buffer = io.BytesIO()
    torch.save(dict(values), buffer)
    data = buffer.getbuffer()

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            file.write(hashlib.sha256(data).digest())
            file.write(data)

    replace_file(path, write)


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote, with tensors on a device. Only tensors and plain values are unpickled.

    Raises:
        UserError: the file has changed since, or is not a checkpoint.
    """
    data = memoryview(path.read_bytes())
    damaged = UserError(f"the checkpoint {path} is damaged; delete it to start over")
    if hashlib.sha256(data[_DIGEST_BYTES:]).digest() != data[:_DIGEST_BYTES]:
        raise damaged
    try:
        found: dict[str, Any] = torch.load(io.BytesIO(data[_DIGEST_BYTES:]), weights_only=True, map_location=device)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        if is_shortage(error):
            raise
        raise damaged from error
    return found
