"""Second moments of a layer's inputs and of the gradients at its output, the factors of K-FAC (Martens & Grosse, 2015).

A change Δ of the weight changes the loss to second order by about the mean over training data of (uᵀ Δ x)², with x the
layer's input and u the gradient at its output. If x and u are taken as independent, that is ‖G^½ Δ A^½‖² with
A = E[x xᵀ] and G = E[u uᵀ].

Dims: N samples, P positions, O out_features, I in_features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ocd_core.network.cut import CutModel
from ocd_core.network.moves import row_chunks, rows_within
from ocd_core.rng import permutation
from ocd_core.samples import Split, rows_at_once
from ocd_core.tasks.base import Task
from ocd_core.tasks.draws_inputs import parts_of_step, step_batch

MOST_SAMPLES = 4096  # at most; far more than entries of A or G are of little use
_MEMORY_MB = 512
_DAMPING = 1e-3  # of the mean eigenvalue, so that what training data never uses keeps some weight


@dataclass(frozen=True)
class LayerCovariances:
    """A and G, float64, up to a common factor."""

    input_II: Tensor
    output_OO: Tensor

    def roots(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """G^½, A^½, G^-½ and A^-½ of the damped matrices."""
        (left_OO, left_inverse_OO), (right_II, right_inverse_II) = _roots(self.output_OO), _roots(self.input_II)
        return left_OO, right_II, left_inverse_OO, right_inverse_II


def layer_covariances(task: Task, model: CutModel, train: Split, seed: int) -> LayerCovariances:
    """Of the training split under the base network, at all positions, on the inputs of the first overfitting step.

    Of a large split, a seeded subset of 4,096 samples is used. u is the gradient of a sample's own loss, as in Eq. 1.
    """
    out_features, in_features = model.weight_OI.shape
    input_II = torch.zeros(in_features, in_features, dtype=torch.float64)
    output_OO = torch.zeros(out_features, out_features, dtype=torch.float64)
    samples = permutation(len(train), seed, "covariances")[:MOST_SAMPLES].sort().values
    example = train.batch(samples[:1])
    size = rows_at_once(train, rows_within(model, example, _MEMORY_MB, matrices=0))
    for chunk in row_chunks(len(samples), size):
        add_moments(input_II, output_OO, task, model, train, samples[chunk], seed)
    return LayerCovariances(input_II / len(samples), output_OO / len(samples))


def add_moments(
    input_II: Tensor, output_OO: Tensor, task: Task, model: CutModel, train: Split, sample_id: Tensor, seed: int
) -> None:
    """Add, in place, the sums over some samples: x xᵀ to `input_II` and u uᵀ to `output_OO`, float64 on the CPU.

    sample_id: int64 (N,), few enough for memory.
    """
    batch = step_batch(task, train, sample_id, torch.zeros_like(sample_id), 0, seed).to(model.device)
    for part, share in parts_of_step(task, batch):
        cut = model.prefix(part.inputs)
        z_NPO = model.layer_output(cut).requires_grad_(True)
        with torch.enable_grad():
            loss_N = task.loss(model.tail(z_NPO, cut)[1], part.target)
            (u_NPO,) = torch.autograd.grad(loss_N.sum(), z_NPO)
        x_MI, u_MO = cut.x_NPI.flatten(0, 1).double(), u_NPO.flatten(0, 1).double()
        input_II += share * (x_MI.T @ x_MI).cpu()
        output_OO += share * (u_MO.T @ u_MO).cpu()


def _roots(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The square root of a damped covariance, and its inverse."""
    values, vectors = torch.linalg.eigh(matrix)
    values = values.clamp_min(0)
    mean = values.mean()
    values = values + (_DAMPING * mean if mean > 0 else 1.0)
    return (vectors * values.sqrt()) @ vectors.T, (vectors / values.sqrt()) @ vectors.T
