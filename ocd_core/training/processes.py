"""Several processes that train one network: each computes its share of every batch (through accelerate).

`torchrun` starts them, on one machine or several, and gives each its rank in the environment. All hold the whole
network, take the same steps and end with the same weights; only the main process writes.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.training.devices import local_device


@dataclass(frozen=True)
class Processes:
    """The processes that train together, as seen by number `rank` of `count`. By default there is only one."""

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    @torch.no_grad()
    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor, in place, by its sum over all processes; all get the same bits.

        The tensors are of one dtype and device, and each process gives the same shapes.
        """
        if self.count == 1:
            return
        from accelerate.utils import reduce

        whole = reduce(torch.cat([t.reshape(-1) for t in tensors]), "sum")
        for t, total in zip(tensors, whole.split([t.numel() for t in tensors]), strict=True):
            t.copy_(total.view_as(t))

    def of_main(self, values: dict[str, float]) -> dict[str, float]:
        """The values of the main process, in every process."""
        if self.count == 1:
            return values
        from accelerate.utils import broadcast_object_list

        (found,) = broadcast_object_list([values])
        return dict(found)

    def agree(self, text: str) -> bool:
        """Whether all processes gave the same text."""
        if self.count == 1:
            return True
        from accelerate.utils import gather_object

        return len(set(gather_object([text]))) == 1

    def check_batch(self, batch_size: int, accumulate: int, group: str, name: str = "batch_size") -> None:
        """Raise if a batch has fewer samples than parts; each process computes `accumulate` parts.

        Args:
            group: of the params. name: of the batch's size in it.

        Raises:
            UserError: it has; the message names the params.
        """
        if accumulate * self.count > batch_size:
            raise UserError(
                f"{group}.{name} is {batch_size} for all processes together and cannot be cut into "
                f"{self.count} processes × {accumulate} parts ({group}.accumulate): start fewer processes, lower "
                f"accumulate or raise {name}"
            )


@contextmanager
def join_processes(device: str) -> Iterator[tuple[Processes, torch.device]]:
    """Join the processes that `torchrun` started with this one, and choose the device of this one.

    At the end of the block all wait for each other. A process that fails ends at once, and `torchrun` then ends the
    others.

    Args:
        device: `cpu`, or `cuda` for one GPU per process.

    Raises:
        UserError: the device is unknown, this machine has fewer GPUs than processes, or accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes(), local_device(device)
        return
    place = local_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise UserError(
            "training with several processes needs accelerate: pip install 'ocd-core[distributed]'"
        ) from error
    state = PartialState(cpu=place.type == "cpu")
    yield Processes(state.process_index, state.num_processes), place
    state.wait_for_everyone()
    state.destroy_process_group()
