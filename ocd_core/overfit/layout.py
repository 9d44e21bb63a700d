"""Refuse what cannot be done with a layer, before any work is wasted."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from ocd_core.errors import UserError
from ocd_core.network.cut import Cut, CutModel
from ocd_core.overfit.params import OverfitParams
from ocd_core.samples import Split
from ocd_core.tasks.base import Task
from ocd_core.tasks.draws_inputs import draws_inputs, scoring_batch

if TYPE_CHECKING:
    from ocd_core.config import Params


def check_layout(model: CutModel, cut: Cut, params: OverfitParams, inputs_change: bool) -> None:
    """Refuse the factored layout if Δ does not depend only on the gradient factors and i_L.

    Raises:
        UserError: the layout is not exact; the message says why.
    """
    if params.layout != "factored":
        return
    _refuse_positions(model, cut, "overfit.layout: factored")
    if inputs_change:
        raise UserError("overfit.layout: factored is not exact if each step sees different inputs; use dense")
    if params.optimizer == "adam" and params.until_converged:
        raise UserError(
            "overfit.layout: factored is not exact for adam with until_converged, because the number of steps differs "
            "between samples; use dense"
        )


def check_selected(network: nn.Module, layer: str, task: Task, split: Split, params: "Params") -> None:
    """Refuse a layer that overfitting or the diffusion's representation cannot use.

    Args:
        network: the base network. split: one of its samples is passed through the network.

    Raises:
        UserError: the layer cannot move (see `CutModel`), or one of the params needs another layer.
    """
    model = CutModel(network, layer)
    batch = scoring_batch(task, split, torch.zeros(1, dtype=torch.int64), 0).to(model.device)
    cut = model.prefix(batch.inputs)
    check_layout(model, cut, params.overfit, draws_inputs(task))
    if params.diffusion.representation.name == "factored":
        _refuse_positions(model, cut, "diffusion.representation.name: factored")


def _refuse_positions(model: CutModel, cut: Cut, what: str) -> None:
    if cut.x_NPI.shape[1] != 1:
        raise UserError(
            f"{what} is not exact for layer {model.layer_name!r}, which sees {cut.x_NPI.shape[1]} positions per sample "
            "(a convolution, a batch of points, or layers with separate inputs); use dense"
        )
