"""Single params that take another value: by keys with dots (`diffusion.loss`), as DVC's `-S` names them."""

import json
from typing import Any


def group_of(values: Any, key: str) -> tuple[Any, str]:
    """The group that holds the key (an empty one if it is not there), and the key's name in it."""
    *groups, last = key.split(".")
    for group in groups:
        values = values.setdefault(group, {})
    return values, last


def override_text(value: Any) -> str:
    """A value as YAML and DVC's overrides read it, without blanks or quotes."""
    return json.dumps(value, separators=(",", ":")).replace('"', "")


def override(task: str, key: str, value: Any) -> str:
    """What `-S` takes to give a param of params/<task>.yaml this value; it needs no quotes."""
    return f"params/{task}.yaml:{key}={override_text(value)}"
