"""A run's trained base network, whole or cut at the layer that moves.

It is separate from `ocd_core.predictor`, so that overfitting does not depend on the code of the diffusion.
"""

import torch
from torch import nn

from ocd_core.artifacts import Artifacts
from ocd_core.built_size import no_larger_than
from ocd_core.errors import UserError
from ocd_core.network.cut import CutModel, Precision
from ocd_core.network.ranking import RANKING, read_ranking
from ocd_core.provenance import check_files
from ocd_core.tasks.base import Task
from ocd_core.weights import WEIGHTS, load_weights, tensor_shapes


def load_base_network(run: Artifacts, task: Task) -> nn.Module:
    """The run's base network, on the CPU.

    Raises:
        UserError: it is missing, damaged, or has another architecture.
    """
    check_files(run.need(run.base, "train_base"))
    weights = run.base / WEIGHTS
    with no_larger_than(tensor_shapes(weights), weights):
        model = task.build_model()
    load_weights(model, weights)
    return model


def load_cut_model(
    run: Artifacts, task: Task, device: torch.device | str = "cpu", precision: Precision = "float64"
) -> CutModel:
    """The run's base network on a device, cut at the layer of the run's rank."""
    model = load_base_network(run, task)
    check_files(run.need(run.layers, "score_layers"))
    used = read_ranking(run.layers).used
    if str(run.rank) not in used:
        raise UserError(
            f"{run.layers / RANKING} has no layer of rank {run.rank} (there are {len(used)}); lower the rank or "
            "widen layer.candidates"
        )
    return CutModel(model.to(device), used[str(run.rank)], precision)
