"""Stages on a device that is not there: does what runs with `--device cuda` leave nothing behind on the CPU?

The device's tensors hold their values in the CPU's memory and its operations run there, but a tensor of each kind in
one operation, or a look at a value without a copy, is an error as on a GPU. As a program it runs stages of a task:

    python -m tests.support.fake_gpu toy train_diffusion evaluate
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "fakegpu"
aten = torch.ops.aten


class FakeGpuTensor(Tensor):
    """A tensor of the device; `held` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "FakeGpuTensor":
        self = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=torch.device(NAME, 0),
        )  # fmt: skip
        self.held = held
        return self

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Operations(TorchDispatchMode):
    """Also sees operations that make a tensor on the device from none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Some of torch's functions do not come by as operations."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and _on_device(kwargs.get("device")):
            place = kwargs.pop("device")
            return func(*args, **kwargs).to(place)
        if func is Tensor.tolist:
            return func(args[0].cpu())
        out = func(*args, **kwargs)
        if func == Tensor.data.__set__ and isinstance(args[0], FakeGpuTensor):
            args[0].held = args[1].held
        return out


def _on_device(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    ours = any(isinstance(x, FakeGpuTensor) for x in tensors)
    there = _on_device(kwargs["device"]) if kwargs.get("device") is not None else ours
    copies = func in (aten._to_copy.default, aten.copy_.default)
    # a GPU, too, takes single numbers and indices from the CPU
    lenient = copies or func in (aten.index.Tensor, aten.index_put_.default)
    if ours and not lenient and any(x.dim() and not isinstance(x, FakeGpuTensor) for x in tensors):
        raise RuntimeError(f"{func} has tensors of the CPU and of the fake GPU")
    held_args, held_kwargs = tree_map(lambda x: x.held if isinstance(x, FakeGpuTensor) else x, (args, kwargs))
    if kwargs.get("device") is not None:
        held_kwargs["device"] = torch.device("cpu")
    out = func(*held_args, **held_kwargs)
    if func is aten.copy_.default:
        return args[0]
    if not there:
        return out
    wrapped = tree_map(lambda x: FakeGpuTensor(x) if isinstance(x, Tensor) else x, out)
    return wrapped if copies else return_and_correct_aliasing(func, args, kwargs, wrapped)


@contextmanager
def fake_gpu() -> Iterator[torch.device]:
    """The device, which exists inside only; once in a process, since torch has one name for such devices."""
    _setup_privateuseone_for_python_backend(NAME)
    getattr(torch, NAME).get_amp_supported_dtype = lambda: [torch.bfloat16]
    with _Functions(), _Operations():
        yield torch.device(NAME, 0)


def run(task: str, stages: Sequence[str]) -> None:
    """Run stages in the current folder with `--device cuda`, that being the fake GPU."""
    with fake_gpu() as device, pytest.MonkeyPatch.context() as patch:
        # such tensors know no inference mode; what uses it as a decorator is imported below
        patch.setattr(torch, "inference_mode", lambda mode=True: torch.no_grad() if mode else nullcontext())

        def local_device(name: str, index: int = 0) -> torch.device:
            assert (name, index) == ("cuda", 0)
            return device

        patch.setattr("torch.cuda.device_count", lambda: 1)
        patch.setattr("torch.cuda.get_device_name", lambda: "a fake GPU")
        for module in (
            "ocd_core.overfit.workers",
            "ocd_core.training.processes",
            *(f"ocd_core.running.{name}" for name in stages),
        ):
            if hasattr(import_module(module), "local_device"):
                patch.setattr(f"{module}.local_device", local_device)
        for name in stages:
            main: Callable[..., None] = import_module(f"stages.{name}").main
            main(task, device="cuda")


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2:])
