"""Whether a network fits its task: it is tried on the first samples, before anything is trained."""

import torch
from torch import nn

from ocd_core.errors import UserError
from ocd_core.files import is_shortage
from ocd_core.network.first_inputs import first_two, plain_output
from ocd_core.samples import Split, Tensors, rows_at_once
from ocd_core.tasks.base import Task


@torch.no_grad()
def check_fits(task: Task, network: nn.Module, split: Split, where: str = "base.model") -> Tensors:
    """The network's answers for two samples, the first ones, each (2, ...); on the CPU, in eval mode, which stays.

    Args:
        where: what the params call it, for errors.

    Raises:
        UserError: it does not take the inputs or its answers do not suit the loss; a loss is not finite; or the network
            does not keep samples apart (see `plain_output`).
    """
    batch = split.batch(torch.arange(min(len(split), rows_at_once(split, 2))))
    try:
        loss_N = task.loss(network.eval()(*batch.inputs), batch.target)
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        if is_shortage(error):
            raise
        shapes = ", ".join(str(tuple(x.shape)) for x in batch.inputs)
        raise UserError(
            f"the network of {where} does not fit the data (inputs {shapes}); change it: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    try:
        both = plain_output(network, first_two(batch.inputs))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    if loss_N.shape != (len(batch),) or not bool(torch.isfinite(loss_N).all()):
        raise UserError(f"the loss of {len(batch)} samples is {loss_N.tolist()}; one finite number for each is needed")
    return both
