"""Params of the base network's training."""

from typing import Any

from ocd_core.network.params import BaseParams

# what the reference tasks have; the rest is each test's own
USUAL: dict[str, Any] = {
    "checkpoint": None, "optimizer": "adam", "weight_decay": 0.0, "momentum": 0.0, "nesterov": False,
    "lr_schedule": "constant", "lr_steps": [], "lr_factor": 0.1, "warmup": 0, "label_smoothing": 0.0,
}  # fmt: skip


def base_params(name: str, args: dict[str, Any], **values: Any) -> BaseParams:
    """epochs, patience, batch_size and lr must be given."""
    return BaseParams.model_validate({"model": {"name": name, "args": args}, **USUAL, **values})
