"""Faster convolutions and poolings in float64 on a CPU, for many evaluations of a small network.

torch's fast kernels are for float32: in float64 a convolution unfolds one sample after the other, and a pooling
processes one number at a time. `faster_graph` rewrites a traced network so that the samples are innermost in memory
(the shape and meaning of every tensor stay the same), and the processor's vector units work along them: a convolution
becomes one matrix product per row of its output, a pooling becomes the elementwise maximum of slices, and a ReLU before
a max-pooling moves behind it. Poolings give the same bits; convolutions differ in the order of their sums (about
1e-16). Operations that are not covered are left to torch.

Dims: N samples, C channels, H height, W width, O channels of the output.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

_Size = int | tuple[int, ...] | list[int]


def faster_graph(network: fx.GraphModule) -> fx.GraphModule:
    """A faster copy of the network, for use without gradients."""
    network = copy.deepcopy(network)
    modules = dict(network.named_modules())
    for node in list(network.graph.nodes):
        called = modules.get(str(node.target)) if node.op == "call_module" else node.target
        if isinstance(called, nn.Conv2d):
            network.set_submodule(str(node.target), SamplesInnermostConv2d(called))
        elif _is_max_pool(node, called):
            _pool_before_relu(node, modules)
            _replace_pool(node, called)
    network.graph.eliminate_dead_code()
    network.recompile()
    return network


class SamplesInnermostConv2d(nn.Module):
    """The convolution that it is made from, computed with the samples innermost in memory."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer = layer
        self._matrix = (
            layer.weight.detach().permute(0, 2, 3, 1).flatten(1).contiguous()
        )  # (O, kernel height · width · C)
        plain = layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        self._plain = plain and layer.dilation[0] == 1

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, O, H', W')."""
        layer = self.layer
        (kernel_y, kernel_x), (step_y, step_x), gap_x = layer.kernel_size, layer.stride, layer.dilation[1]
        pad_y, pad_x = (0, 0) if isinstance(layer.padding, str) else layer.padding
        out_y = (x.shape[-2] + 2 * pad_y - kernel_y) // step_y + 1
        out_x = (x.shape[-1] + 2 * pad_x - gap_x * (kernel_x - 1) - 1) // step_x + 1
        if not (self._plain and _covered(x)) or out_y < 1 or out_x < 1:
            out: Tensor = layer(x)
            return out
        x_CHWN = x.permute(1, 2, 3, 0)
        if pad_y or pad_x:
            x_CHWN = F.pad(x_CHWN, (0, 0, pad_x, pad_x, pad_y, pad_y))
        if x_CHWN.stride(3) != 1:
            x_CHWN = x_CHWN.contiguous()
        channels, height, _, count = x_CHWN.shape
        # what one row of the kernel sees of one row of the image: columns (x, n), rows (kernel's x, channel). The rows
        # of the image are consecutive in memory, so the whole kernel sees a window, which needs no copy
        c, h, w, n = x_CHWN.stride()
        seen = x_CHWN.as_strided(
            (height, kernel_x, channels, out_x, count), (h, gap_x * w, c, step_x * w, n), x_CHWN.storage_offset()
        ).contiguous()
        columns, inner = out_x * count, kernel_x * channels
        windows = seen.as_strided((out_y, kernel_y * inner, columns), (step_y * inner * columns, columns, 1))
        start = x.new_zeros(1) if layer.bias is None else layer.bias[:, None]
        product = torch.baddbmm(start, self._matrix.expand(out_y, -1, -1), windows)
        return product.view(out_y, -1, out_x, count).permute(3, 1, 0, 2)


def max_pool2d(
    input: Tensor,
    kernel_size: _Size,
    stride: _Size | None = None,
    padding: _Size = 0,
    dilation: _Size = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """The max_pool2d of torch, computed by elementwise maxima if windows neither overlap nor leave gaps."""
    high, wide = _pair(kernel_size)
    plain = (_pair(stride) if stride else (high, wide)) == (high, wide) and _pair(padding) == (0, 0)
    out_y, out_x = input.shape[-2] // high, input.shape[-1] // wide
    if not (plain and _covered(input)) or _pair(dilation) != (1, 1) or ceil_mode or out_y < 1 or out_x < 1:
        return F.max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode)
    count, channels, _, width = input.shape
    rows = _largest(input.narrow(2, 0, out_y * high).view(count, channels, out_y, high, width).unbind(3))
    return _largest(rows.narrow(3, 0, out_x * wide).view(count, channels, out_y, out_x, wide).unbind(4))


def _is_max_pool(node: fx.Node, called: Any) -> bool:
    if isinstance(called, nn.MaxPool2d):
        return not called.return_indices and len(node.args) == 1
    # a function's seventh argument is return_indices
    known = called in (F.max_pool2d, torch.max_pool2d) and 1 <= len(node.args) <= 6
    return known and node.kwargs.get("return_indices") in (None, False)


def _replace_pool(node: fx.Node, called: Any) -> None:
    if isinstance(called, nn.MaxPool2d):
        options = (called.kernel_size, called.stride, called.padding, called.dilation, called.ceil_mode)
        node.op, node.args, node.kwargs = "call_function", (*node.args, *options), {}
    else:
        node.kwargs = {k: v for k, v in node.kwargs.items() if k != "return_indices"}
    node.target = max_pool2d


def _pool_before_relu(pool: fx.Node, modules: dict[str, nn.Module]) -> None:
    """Swap them: max(ReLU) = ReLU(max), on fewer numbers. An in-place ReLU stays, since other nodes may see it."""
    relu = pool.args[0]
    if not isinstance(relu, fx.Node) or len(relu.users) != 1:
        return
    called = modules.get(str(relu.target)) if relu.op == "call_module" else relu.target
    if isinstance(called, nn.ReLU):
        in_place = called.inplace
    elif called in (F.relu, torch.relu, "relu"):
        in_place = len(relu.args) > 1 or bool(relu.kwargs.get("inplace"))
    else:
        return
    if in_place or len(relu.all_input_nodes) != 1:
        return
    (x,) = relu.all_input_nodes
    pool.replace_input_with(relu, x)
    pool.replace_all_uses_with(relu)
    pool.append(relu)
    relu.replace_input_with(x, pool)


def _largest(parts: Sequence[Tensor]) -> Tensor:
    out = parts[0]
    for part in parts[1:]:
        out = torch.maximum(out, part)
    return out


def _pair(value: _Size) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _covered(x: Tensor) -> bool:
    no_gradient = not (torch.is_grad_enabled() and x.requires_grad)
    return x.dtype == torch.float64 and x.device.type == "cpu" and x.dim() == 4 and len(x) > 0 and no_gradient
