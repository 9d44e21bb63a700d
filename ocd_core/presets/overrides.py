"""New values for single params, addressed by keys with dots (`diffusion.loss`) as in DVC's `-S`."""

import json
from typing import Any


def group_of(values: Any, key: str) -> tuple[Any, str]:
    """The group that holds the key (created empty if missing), and the key's name within the group."""
    *groups, last = key.split(".")
    for group in groups:
        values = values.setdefault(group, {})
    return values, last


def value_at(values: Any, key: str) -> Any:
    """The value of a key; None if it is missing."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def override_text(value: Any) -> str:
    """A value in a form that YAML and DVC's overrides can read, without spaces or quotes."""
    return json.dumps(value, separators=(",", ":")).replace('"', "")


def override(task: str, key: str, value: Any) -> str:
    """The argument of `-S` that gives a param of params/<task>.yaml this value; it needs no quotes."""
    return f"params/{task}.yaml:{key}={override_text(value)}"
