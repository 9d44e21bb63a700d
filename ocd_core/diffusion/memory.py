"""The memory that a denoiser needs: a training that cannot fit is refused at the start, and draws are batched to fit.

Activations are counted, not modelled: the forward pass runs on tensors without storage, and the sizes of what autograd
would keep for the backward pass are added up.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ocd_core.diffusion.denoisers import build_denoiser
from ocd_core.diffusion.params import DiffusionParams
from ocd_core.errors import UserError

_GROUP = Path("/sys/fs/cgroup")  # a container's own limit
_OF_GROUP = ("max", "current", "stat")
_COPIES = 6  # of float32 weights: themselves, gradients, Adam's two moments, the moving average, its best state
_EXCHANGED = 2  # more, if several processes add up their gradients
_DRAWN_AT_ONCE = 4096  # at most: more are no faster
_DRAWING_BYTES = 2**30  # on a CPU
_DRAWING_SHARE = 0.25  # of a GPU's total memory, not of its free memory: a draw's rounding depends on its batch


@dataclass(frozen=True)
class TrainingMemory:
    """Lower bounds in bytes: all copies of the weights, and the activations of one part of a batch."""

    weights: int
    activations: int

    @property
    def total(self) -> int:
        """The sum, in bytes."""
        return self.weights + self.activations


def training_memory(
    params: DiffusionParams, shape: Sequence[int], device: torch.device | str = "cpu", processes: int = 1
) -> TrainingMemory:
    """What each process needs to train the denoiser on codes of this shape; nothing is allocated.

    Raises:
        UserError: see `build_denoiser`.
    """
    part = -(-params.batch_size // (params.accumulate * processes))
    entries, activations = _count(params, shape, device, part, bf16=params.precision == "bf16")
    copies = _COPIES + (_EXCHANGED if processes > 1 else 0)
    return TrainingMemory(4 * copies * entries, activations)


def drawing_batch(params: DiffusionParams, shape: Sequence[int], device: torch.device | str = "cpu") -> int:
    """How many codes of this shape to draw at once on a device, from 1 to 4096; always the same on one machine.

    It counts what training would keep of a sample, which is more than a draw needs.

    Raises:
        UserError: see `build_denoiser`.
    """
    device, net = torch.device(device), params.denoiser
    if net.name == "mlp":  # at most ten vectors per block; counting them would take two seconds of imports
        activations = 4 * (2 * math.prod(shape) + 10 * net.width * (net.depth + 1) + params.embedding)
    else:
        _, activations = _count(params, shape, device, samples=1, bf16=False)
    memory = float(_DRAWING_BYTES)
    if device.type == "cuda":
        memory = _DRAWING_SHARE * torch.cuda.get_device_properties(device).total_memory
    return min(max(1, int(memory // activations)), _DRAWN_AT_ONCE)


def _count(
    params: DiffusionParams, shape: Sequence[int], device: torch.device | str, samples: int, *, bf16: bool
) -> tuple[int, int]:
    """(entries of all weights, bytes of activations that a backward pass of `samples` samples needs)."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    device = torch.device(device)
    kept: dict[int, tuple[Tensor, int]] = {}  # the tensor is held so that its storage's address is not reused

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        kept[storage._cdata] = (x, storage.nbytes())
        return x

    with FakeTensorMode(), torch.device(device), torch.inference_mode(False), torch.enable_grad():
        net = build_denoiser(params.denoiser, shape, params.embedding)
        inputs = torch.empty(samples, *shape), torch.empty(samples, params.embedding)
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x),
            torch.autocast(device.type, torch.bfloat16, enabled=bf16),
        ):
            net(*inputs)
    own = {p.untyped_storage()._cdata for p in net.parameters()}
    entries = sum(p.numel() for p in net.parameters())
    return entries, sum(size for key, (_, size) in kept.items() if key not in own)


def available_memory(device: torch.device | str) -> int | None:
    """Bytes that could be allocated now, or None if the system does not report it."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    limits = []
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        found = re.search(r"^MemAvailable:\s*(\d+) kB", meminfo.read_text(encoding="ascii"), re.MULTILINE)
        limits += [1024 * int(found[1])] if found else []
    try:
        limit, used, stat = ((_GROUP / f"memory.{n}").read_text(encoding="ascii").strip() for n in _OF_GROUP)
        if limit != "max":
            # files that were read or written count as used, but make room for whoever needs it
            files = re.search(r"^inactive_file (\d+)$", stat, re.MULTILINE)
            limits.append(int(limit) - int(used) + (int(files[1]) if files else 0))
    except OSError:
        pass
    return min(limits) if limits else None


def refuse_impossible(
    params: DiffusionParams,
    shape: Sequence[int],
    device: torch.device | str,
    processes: int = 1,
    group: str = "diffusion",
) -> None:
    """Raise if the training of one of several processes cannot fit in the free memory of its device.

    Args:
        group: of the params that has `accumulate`.

    Raises:
        UserError: it cannot; the message names the denoiser, the estimate, the free memory and the params to change.
    """
    need, free = training_memory(params, shape, device, processes), available_memory(device)
    if free is None or need.total <= free:
        return
    remedy = f"raise {group}.accumulate (now {params.accumulate})" if need.weights < free else "lower denoiser.width"
    raise UserError(
        f"training denoiser {params.denoiser.name} on codes of shape {tuple(shape)} takes at least {_gb(need.total)} "
        f"of memory ({_gb(need.weights)} for the weights and their optimiser, {_gb(need.activations)} for a part of a "
        f"batch), but {_gb(free)} are free: {remedy}, use a smaller representation, or a machine with more memory"
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
