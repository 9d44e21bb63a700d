"""The prefix's activations as the overfit store keeps them: i_L of each sample, instead of running the prefix again.

A training on the task's loss under θ + Δ meets every sample many times. What its tail needs of a sample is often i_L
alone, which is a part of I(x) in the store.

Dims: N samples, D values of i_L.
"""

import torch
from torch import Tensor

from ocd_core.network.cut import Cut, CutModel
from ocd_core.network.layers import input_matrix
from ocd_core.samples import Samples, spread_rows
from ocd_core.tasks.base import Task
from ocd_core.tasks.draws_inputs import draws_inputs

_COMPARED = 16  # samples whose prefix runs


class KeptPrefix:
    """Cuts of samples from i_L.

    Args:
        layer_input_ND: float32 (N, ...), on the CPU.
        like: a cut of some samples, without context.
    """

    def __init__(self, model: CutModel, layer_input_ND: Tensor, like: Cut) -> None:
        self._model, self._layer_input_ND, self._like = model, layer_input_ND, like

    def cut(self, rows: Tensor) -> Cut:
        """What `CutModel.prefix` gives for the samples of these rows, on the model's device."""
        like = self._like
        value = self._layer_input_ND[rows].to(self._model.device)
        value = value.reshape(len(rows), *like.layer_input.shape[1:])
        if self._model.kind == "linear":  # several layers' inputs are side by side
            x_NPI = value.reshape(len(value), *like.x_NPI.shape[1:])
        else:
            x_NPI = input_matrix(self._model.layers[0], value)
        return Cut(x_NPI, value, like.parts, ())


@torch.no_grad()
def kept_prefix(task: Task, model: CutModel, samples: Samples) -> KeptPrefix | None:
    """The prefix of samples from their I(x); None if I(x) does not hold all that the tail needs.

    It does not if overfitting draws new inputs at each step, the tail also reads something else (a connection that
    skips the layer), the whole network has to run, the layer is several convolutions of separate inputs, or the task
    keeps another i_L. The prefix of some samples, spread over all, runs to find out.
    """
    if draws_inputs(task):
        return None
    rows = spread_rows(len(samples), _COMPARED)
    wanted = model.prefix(samples.split.batch(samples.sample_id(rows)).to(model.device).inputs)
    layer_input = samples.condition.layer_input
    if model.kind == "conv" and any(part.positions != slice(None) for part in wanted.parts):
        return None  # i_L is their inputs side by side, without the shapes that a convolution needs
    if wanted.context or layer_input.shape[1:].numel() != wanted.layer_input.shape[1:].numel():
        return None
    kept = KeptPrefix(model, layer_input, wanted)
    found = kept.cut(rows).x_NPI
    if found.shape != wanted.x_NPI.shape or not torch.allclose(found, wanted.x_NPI, rtol=1e-4, atol=1e-5):
        return None
    return kept
