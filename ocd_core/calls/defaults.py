"""Params of a run whose network, loss and data are given in Python: defaults that suit the layer and the data."""

import difflib
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from ocd_core.calls.task import DOMAIN, GivenData
from ocd_core.config import Params, parse_params
from ocd_core.errors import UserError
from ocd_core.scaffold import method_values

OPTIONS = ("layer", "scoring", "overfit", "diffusion", "scale", "sampling", "tuning", "controls", "evaluate")
WHERE = "OCD"  # what errors name in place of a file
_BASE: dict[str, Any] = {
    "model": {"name": DOMAIN, "args": {}}, "checkpoint": None, "epochs": 1, "patience": 1, "batch_size": 64,
    "optimizer": "adam", "lr": 1e-4, "weight_decay": 0.0, "momentum": 0.0, "nesterov": False, "lr_schedule": "constant",
    "lr_steps": [], "lr_factor": 0.1, "warmup": 0, "label_smoothing": 0.0,
}  # fmt: skip
_COMPONENTS = 40
_LARGE_STORE = 2**30  # bytes of Δ from which the factored layout is worth what reading it costs


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse unknown groups of params.

    Raises:
        UserError: names the first one, and the group that was probably meant.
    """
    for name, values in options.items():
        if name not in OPTIONS:
            near = difflib.get_close_matches(name, OPTIONS, 1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"{WHERE}: unknown option {name!r}{meant} Groups of params are {', '.join(OPTIONS)}")
        if not isinstance(values, Mapping):
            raise UserError(f"{WHERE}: {name}: give a dict of params, such as {name}={{...}}")


def given_params(
    data: GivenData,
    layer: str,
    options: Mapping[str, Any],
    one_position: bool | None = None,
    directions: int | None = None,
    store_bytes: int = 0,
) -> Params:
    """Complete, checked params.

    Args:
        layer: a layer's name, or `auto`.
        options: {group: {key: value}} of the user; they win.
        one_position: whether the layer sees one position of a sample, so that factored forms of Δ are exact; None: not
            known yet, nor needed by the stages that run before it is.
        directions: that the training Δ span (for pca); None: not known yet.
        store_bytes: what the Δ of the training split take in full.

    Raises:
        UserError: an option is unknown, mistyped or impossible.
    """
    values: dict[str, Any] = deepcopy(method_values())
    merge(values, options)
    own = {group: dict(options.get(group, {})) for group in OPTIONS}
    values["layer"]["select"] = layer
    if "kinds" not in own["layer"].get("candidates", {}):
        values["layer"]["candidates"]["kinds"] = ["linear", "conv"]
    representation, overfit = values["diffusion"]["representation"], values["overfit"]
    exact = bool(one_position) and overfit.get("optimizer") == "sgd"
    asked = own["diffusion"].get("representation", {})
    if "name" not in asked:
        representation["name"] = "factored" if exact else "pca"
    if "components" not in asked and directions is not None:
        representation["components"] = max(1, min(_COMPONENTS, directions))
    if "components" not in own["controls"]:
        values["controls"]["components"] = representation["components"]
    if "layout" not in own["overfit"] and exact and store_bytes > _LARGE_STORE:
        overfit["layout"] = "factored"
    return parse_params({"domain": DOMAIN, "data": data.model_dump(), "base": _BASE, **values}, WHERE)


def merge(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Overwrite values group by group; a key that holds a group keeps its other keys."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            merge(values[key], value)
        else:
            values[key] = deepcopy(value)
