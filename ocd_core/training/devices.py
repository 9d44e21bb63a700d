"""The device on which a stage computes: `--device`, or OCD_DEVICE under DVC."""

import time

import torch

from ocd_core.errors import UserError

DEVICES = ("cpu", "cuda")


def check_device(name: str) -> None:
    """Raise if no device has this name.

    Raises:
        UserError: the name is not in `DEVICES`.
    """
    if name not in DEVICES:
        raise UserError(f"unknown device {name!r}; known are {', '.join(DEVICES)}")


def seconds_when_done(device: torch.device) -> float:
    """The clock's seconds once the device has done all that it was given: a GPU works after a call has returned."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def local_device(name: str, index: int = 0) -> torch.device:
    """The CPU, or GPU number `index` of this machine, set to compute in full float32, with repeatable convolutions.

    Raises:
        UserError: the name is unknown, or this machine has no such GPU.
    """
    check_device(name)
    if name == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if count == 0:
        raise UserError("--device cuda (OCD_DEVICE): torch sees no GPU here")
    if index >= count:
        raise UserError(
            f"process {index} of this machine has no GPU, torch sees {count}: start at most {count} processes here "
            f"(torchrun --nproc_per_node {count})"
        )
    torch.backends.cudnn.allow_tf32 = False  # by default convolutions round their inputs to 10 bits
    torch.backends.cudnn.deterministic = True  # by default some gradients are added up in any order
    return torch.device("cuda", index)
