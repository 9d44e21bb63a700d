"""Faster convolutions and poolings in float64 on a CPU, for many evaluations of a small network.

torch's fast kernels are for float32: in float64 a convolution unfolds one sample after the other, and a pooling goes
number by number. Inside `fast_double_ops()` the samples are innermost in memory instead (shape and meaning of
every tensor stay), so that a processor's vector units work along them: a convolution is one matrix product for
each row of its output, a pooling the elementwise maximum of slices. Poolings give the same bits; convolutions differ by
the order of their sums (some 1e-16). Calls with options or types that are not covered go to torch.

Dims: N samples, C channels, H height, W width, O channels of the output.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class fast_double_ops(TorchFunctionMode):  # noqa: N801
    """A context in which they are used; only where no gradient is asked for."""

    def __init__(self) -> None:
        super().__init__()
        # matrices of the kernels met so far; the weights are kept too, so that an id stays theirs
        self._kernels: dict[int, tuple[Tensor, Tensor]] = {}
        self._instead: dict[Any, Callable[..., Tensor | None]] = {
            torch.conv2d: self._conv2d,
            torch.max_pool2d: _max_pool2d,
            F.max_pool2d: _max_pool2d,
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        instead = self._instead.get(func)
        result = None if instead is None else instead(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if result is None else result

    def _conv2d(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | str | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> Tensor | None:
        (step_y, step_x), (gap_y, gap_x) = _pair(stride), _pair(dilation)
        if not _covered(input) or groups != 1 or isinstance(padding, str) or gap_y > 1:
            return None
        pad_y, pad_x = _pair(padding)
        units, channels, kernel_y, kernel_x = weight.shape
        x_CHWN = input.permute(1, 2, 3, 0)
        if pad_y or pad_x:
            x_CHWN = F.pad(x_CHWN, (0, 0, pad_x, pad_x, pad_y, pad_y))
        if x_CHWN.stride(3) != 1:
            x_CHWN = x_CHWN.contiguous()
        _, height, width, count = x_CHWN.shape
        out_y, out_x = (height - kernel_y) // step_y + 1, (width - gap_x * (kernel_x - 1) - 1) // step_x + 1
        if out_y < 1 or out_x < 1 or count == 0:
            return None
        # what a row of the kernel sees of a row of the image: columns (x, n), rows (kernel's x, channel). The rows of
        # the image follow each other in memory, so what the whole kernel sees is a window, and nothing is copied for it
        c, h, w, n = x_CHWN.stride()
        seen = x_CHWN.as_strided(
            (height, kernel_x, channels, out_x, count), (h, gap_x * w, c, step_x * w, n), x_CHWN.storage_offset()
        ).contiguous()
        columns, inner = out_x * count, kernel_x * channels
        windows = seen.as_strided((out_y, kernel_y * inner, columns), (step_y * inner * columns, columns, 1))
        start = input.new_zeros(1) if bias is None else bias[:, None]
        out = torch.baddbmm(start, self._matrix(weight).expand(out_y, -1, -1), windows)
        return out.view(out_y, units, out_x, count).permute(3, 1, 0, 2)

    def _matrix(self, weight: Tensor) -> Tensor:
        """The kernel as a matrix (O, height · width · C)."""
        if id(weight) not in self._kernels:
            self._kernels[id(weight)] = weight, weight.permute(0, 2, 3, 1).flatten(1).contiguous()
        return self._kernels[id(weight)][1]


def _max_pool2d(
    input: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | None:
    high, wide = _pair(kernel_size)
    plain = (_pair(stride) if stride else (high, wide)) == (high, wide) and _pair(padding) == (0, 0)
    if not plain or _pair(dilation) != (1, 1) or ceil_mode or return_indices or not _covered(input):
        return None
    out_y, out_x = input.shape[2] // high, input.shape[3] // wide
    if out_y < 1 or out_x < 1:
        return None
    count, channels, _, width = input.shape
    rows = _largest(input.narrow(2, 0, out_y * high).view(count, channels, out_y, high, width).unbind(3))
    return _largest(rows.narrow(3, 0, out_x * wide).view(count, channels, out_y, out_x, wide).unbind(4))


def _largest(parts: Sequence[Tensor]) -> Tensor:
    out = parts[0]
    for part in parts[1:]:
        out = torch.maximum(out, part)
    return out


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _covered(x: Tensor) -> bool:
    return x.dtype == torch.float64 and x.device.type == "cpu" and x.dim() == 4 and not torch.is_grad_enabled()
