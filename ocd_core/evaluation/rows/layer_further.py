"""`layer_further`: the layer that OCD moves trained further, alone; its weight, as Δ, without the bias.

It is the best that one Δ for all samples can do.
"""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from ocd_core.evaluation.context import Context
from ocd_core.evaluation.further import FurtherParams, FurtherRow
from ocd_core.network.layers import find_layers
from ocd_core.tasks.base import Task


class LayerFurtherParams(FurtherParams):
    """`controls.layer_further`."""


class LayerFurther(FurtherRow):
    """The base with another weight in this layer."""

    Params = LayerFurtherParams
    quick: ClassVar[Mapping[str, Any]] = {"epochs": 1, "patience": None, "lrs": [1e-4]}
    title = "moved layer trained further"

    def left_out(self) -> str | None:
        """A frozen layer may move, so nothing speaks against training it."""
        return None

    def task(self, context: Context) -> Task:
        """The run's, with a network of which only this weight trains."""
        name = context.predictor.model.layer_name
        found = copy.copy(context.task)
        build = context.task.build_model

        def build_model() -> nn.Module:
            network = build().requires_grad_(False)
            for layer in find_layers(network, name):
                layer.weight.requires_grad_(True)
            return network

        object.__setattr__(found, "build_model", build_model)
        return found


ROW = LayerFurther
