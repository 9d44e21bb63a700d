"""The cost of trainings in floating-point operations, which is the budget of rows that train, such as `base_further`.

Operations (torch.utils.flop_counter: matrix products and convolutions, forward and backward) are counted on a few
samples and multiplied by the number of samples, so that equal runs give equal numbers on any machine. Passes over
validation samples are not counted, for any method.
"""

from functools import partial

import torch
from torch import Tensor, nn

from ocd_core.codes.curvature import decoded, row_curvatures
from ocd_core.codes.representations.base import Representation
from ocd_core.diffusion.model import DiffusionModel
from ocd_core.network.covariances import MOST_SAMPLES, add_moments
from ocd_core.network.cut import CutModel
from ocd_core.network.training import set_training_mode
from ocd_core.overfit.params import NOT_REFINED, OverfitParams
from ocd_core.overfit.refine import Coordinates, Refinement
from ocd_core.overfit.rows import RowBuilder
from ocd_core.samples import Condition, Split, rows_at_once, spread_rows
from ocd_core.scale.network import ScaleNetwork
from ocd_core.tasks.base import Task
from ocd_core.training.flops import flops

_OF_DIFFERENT = 8  # samples that are counted if they differ in shape


def overfit_flops(task: Task, model: CutModel, train: Split, params: OverfitParams, seed: int) -> int:
    """The operations of overfitting every row of the training split (Alg. 1, lines 1-5)."""
    plain = _sample_flops(RowBuilder(task, model, train, params.model_copy(update={"refine": NOT_REFINED}), seed))
    if not params.refine.steps:
        return plain * len(train)
    # any coordinates cost the same; the samples that give them are overfitted once more
    entries = model.weight_OI.numel()
    coordinates = Coordinates(torch.zeros(entries).double(), torch.eye(params.refine.components, entries).double())
    refined = _sample_flops(RowBuilder(task, model, train, params, seed, Refinement(coordinates, 1.0)))
    return refined * len(train) + plain * min(len(train), params.refine.samples) // params.replicas


def _sample_flops(builder: RowBuilder) -> int:
    """The operations of the rows of one sample: all its replicas, which share what the base network makes of it."""
    rows = builder.params.replicas
    buffers = builder.buffers(builder.schema(), rows)
    differ = rows_at_once(builder.split, 2) == 1  # in shape, and so in what they cost
    samples: list[int] = spread_rows(len(builder.split), _OF_DIFFERENT if differ else 1).tolist()
    fill = lambda: [builder.fill(slice(rows * i, rows * (i + 1)), buffers) for i in samples]  # noqa: E731
    return flops(fill) // len(samples)


def metric_flops(
    task: Task, model: CutModel, train: Split, representation: Representation, rows: int, seed: int
) -> int:
    """The operations of the metric of so many rows (`diffusion.metric: gauss_newton`)."""
    first, code = torch.zeros(1, dtype=torch.int64), torch.zeros(1, *representation.shape)  # any codes cost the same
    decode = partial(decoded, representation)
    return rows * flops(lambda: row_curvatures(task, model, train, first, first, code, decode, seed))


def covariance_flops(task: Task, model: CutModel, train: Split, seed: int) -> int:
    """The operations of the layer's covariances (`diffusion.representation.metric: kfac`), without their roots."""
    (out_features, in_features), first = model.weight_OI.shape, torch.zeros(1, dtype=torch.int64)
    input_II = torch.zeros(in_features, in_features, dtype=torch.float64)
    output_OO = torch.zeros(out_features, out_features, dtype=torch.float64)
    add = partial(add_moments, input_II, output_OO, task, model, train, first, seed)
    add()  # a model's first pass also checks how the network is cut
    return flops(add) * min(len(train), MOST_SAMPLES)


def diffusion_flops(model: DiffusionModel, cond: Condition, updates: int) -> int:
    """The operations of `updates` updates on `params.batch_size` samples (Alg. 1, lines 7-11)."""
    one = cond.select(slice(0, 1)).to(model.device)
    return flops(lambda: _backward(_predicted(model, one), model)) * model.params.batch_size * updates


@torch.no_grad()
def drawing_flops(model: DiffusionModel, cond: Condition, steps: int) -> int:
    """The operations of one draw for one sample in `steps` steps (Alg. 2)."""
    one = cond.select(slice(0, 1)).to(model.device)
    return flops(lambda: _predicted(model, one)) * steps


def _predicted(model: DiffusionModel, one: Condition) -> Tensor:
    """The denoiser's output for one sample."""
    code, t = torch.zeros(1, *model.shape, device=model.device), torch.ones(1, dtype=torch.int64, device=model.device)
    return model.predict(code, t, model.embed(one))


def scale_flops(network: ScaleNetwork, cond: Condition, batch_size: int, updates: int) -> int:
    """The operations of `updates` updates on `batch_size` samples (Eq. 8)."""
    one = cond.select(slice(0, 1)).to(network.device)
    run = lambda: _backward(network(one), network)  # noqa: E731
    return flops(run) * batch_size * updates


def base_epoch_flops(task: Task, train: Split, seed: int) -> int:
    """The operations of one epoch of the base network's training, all layers."""
    model = task.build_model()  # its own copy, in training mode as in training; two samples for batch normalisation
    set_training_mode(model)
    batch = task.training_batch(train, spread_rows(len(train), 2), seed, 1)
    run = lambda: _backward(task.training_loss(model(*batch.inputs), batch.target, 0.0), model)  # noqa: E731
    return flops(run) * len(train) // len(batch)


def _backward(values: Tensor, network: nn.Module) -> None:
    """Gradients of the trainable parameters: some may be frozen, and a forward pass need not use all of them."""
    trained = [p for p in network.parameters() if p.requires_grad]
    if trained and values.requires_grad:
        torch.autograd.grad(values.sum(), trained, allow_unused=True)
