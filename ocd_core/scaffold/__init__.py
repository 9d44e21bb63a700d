"""Params files for new tasks: the package's own defaults, with comments."""

from pathlib import Path

from ocd_core.params_files import read_yaml

FOLDER = Path(__file__).parent


def method_values() -> dict[str, dict[str, object]]:
    """The groups from `layer` to `evaluate` that a new task starts with, as plain values."""
    found: dict[str, dict[str, object]] = read_yaml(FOLDER / "method.yaml")
    return found
