"""Networks that a folder describes get no larger than its weights: whoever wrote the folder may have made it up.

The numbers that a network registers are counted while it is built. Large tensors take memory only when they are first
written, which for the parameters of torch's layers is after they are registered, so a network that claims too much is
refused before. What has buffers of zeros is built without memory first (`build_bounded`).
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.nn.parameter import is_lazy

from ocd_core.errors import UserError
from ocd_core.files import is_shortage

T = TypeVar("T")

# what building may need beside the weights: layers that are replaced at once, tables that are not saved
_TIMES = 4
_SPARE_NUMBERS = 2**26
_SPARE_TENSORS = 10_000


class _TooLargeError(UserError):
    """A network that is many times as large as its weights."""


def build_bounded(build: Callable[[], T], shapes: Iterable[Sequence[int]], where: Path) -> T:
    """What `build` makes, after the same on torch's device `meta`, on which tensors have no numbers.

    Raises:
        UserError: see `no_larger_than`.
    """
    held = list(shapes)
    try:
        with no_larger_than(held, where), torch.random.fork_rng([]), torch.device("meta"):
            build()
    except _TooLargeError:
        raise
    except Exception:
        pass
    with no_larger_than(held, where):
        return build()


@contextmanager
def no_larger_than(shapes: Iterable[Sequence[int]], where: Path) -> Iterator[None]:
    """Inside the block, this thread may build a network about as large as these tensors.

    Args:
        shapes: of the tensors in the file of its weights.
        where: that file, for messages.

    Raises:
        UserError: the network has many times as many numbers or tensors, or does not fit into memory.
    """
    held = [math.prod(shape) for shape in shapes]
    numbers, tensors = _TIMES * sum(held) + _SPARE_NUMBERS, _TIMES * len(held) + _SPARE_TENSORS
    thread = threading.get_ident()

    def count(_module: nn.Module, _name: str, tensor: Any) -> None:
        nonlocal numbers, tensors
        if threading.get_ident() != thread or not isinstance(tensor, Tensor) or is_lazy(tensor):
            return
        numbers, tensors = numbers - tensor.numel(), tensors - 1
        if numbers < 0 or tensors < 0:
            raise _TooLargeError(
                f"{where} holds {sum(held):,} numbers in {len(held):,} tensors, but the network that its config "
                "describes is many times as large: its architecture is not the one in its config"
            )

    hooks = [register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count)]
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_shortage(error):
            raise
        raise UserError(
            f"there is too little memory for the network that the config of {where} describes; close other programs, "
            "or get the file again: it may be damaged or forged"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
