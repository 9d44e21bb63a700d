"""JSON files that hold a checksum of their own values, so that one changed letter anywhere in them is noticed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ocd_core.artifacts import read_json, write_json
from ocd_core.errors import UserError
from ocd_core.fingerprint import digest

SEAL = "sealed"


def write_sealed(path: Path, values: Mapping[str, Any]) -> None:
    """Write plain values, without a key `SEAL`, and their checksum under that key; atomically."""
    assert SEAL not in values
    write_json(path, {**values, SEAL: digest(dict(values))})


def read_sealed(path: Path, remedy: str) -> dict[str, Any]:
    """What `write_sealed` wrote, without the checksum.

    Raises:
        UserError: the file is missing or has changed since; the message ends with `remedy`.
    """
    found = read_json(path)
    values = {key: value for key, value in found.items() if key != SEAL} if isinstance(found, dict) else {}
    if not values or found.get(SEAL) != digest(values):
        raise UserError(f"{path} is damaged: it was changed after it was written; {remedy}")
    return values
