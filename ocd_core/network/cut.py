"""A base network cut at one layer: the frozen prefix, the layer's weight as a matrix, the tail.

Only the weight of the selected layer L moves (not its bias), so everything before L is computed once a
sample in float32, and everything from L to the output is replayed with per-sample weights, in float64 where
it matters: in float32 the weight change of a confident sample is rounding noise.

Dims: N samples, P positions (1 for a vector input; pixels for a convolution; points of a ray batch),
I in_features (a convolution's C·kh·kw), O out_features.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ocd_core.errors import UserError
from ocd_core.samples import Tensors, as_tuple, map_tensors

MATRIX_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
_ACTIVATION_MODULES = (
    nn.ReLU, nn.ReLU6, nn.GELU, nn.Tanh, nn.Sigmoid, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.PReLU, nn.Softplus,
)  # fmt: skip
_ACTIVATION_FUNCTIONS: set[Callable[..., Any] | str] = {
    F.relu, F.relu6, F.gelu, F.silu, F.elu, F.leaky_relu, F.softplus, torch.relu, torch.tanh, torch.sigmoid,
    F.tanh, F.sigmoid, "relu", "tanh", "sigmoid",
}  # fmt: skip


def matrix_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers whose weight is a matrix (Linear, Conv1d, Conv2d without groups), in the model's order."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, MATRIX_LAYERS) and getattr(module, "groups", 1) == 1
    }


def layer_kind(layer: nn.Module) -> str:
    """`linear` or `conv`."""
    return "linear" if isinstance(layer, nn.Linear) else "conv"


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The layer of that name.

    Raises:
        UserError: no such layer, or one whose weight is not a matrix or an ungrouped convolution.
    """
    known = matrix_layers(model)
    if name in known:
        return known[name]
    modules = dict(model.named_modules())
    if name not in modules or not name:
        raise UserError(f"layer {name!r} does not exist; the layers to choose from are {', '.join(known)}")
    raise UserError(
        f"layer {name!r} is a {type(modules[name]).__name__}, whose weight is not a matrix (Linear, Conv1d "
        f"or Conv2d without groups); the layers to choose from are {', '.join(known)}"
    )


def weight_matrix(layer: nn.Module) -> Tensor:
    """The layer's weight as an (O, I) matrix (a view)."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.detach().flatten(1)


def input_matrix(layer: nn.Module, value: Tensor) -> Tensor:
    """What the weight matrix multiplies: the layer's input as (N, P, I)."""
    if isinstance(layer, nn.Linear):
        if value.dim() < 2:
            raise UserError("the selected layer's input has no sample axis: keep the samples in the first axis")
        return value.reshape(value.shape[0], -1, value.shape[-1])
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        value = F.pad(
            value,
            layer._reversed_padding_repeated_twice,
            mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode,
        )
        padding: tuple[int, ...] = (0,) * len(layer.kernel_size)
    else:
        padding = layer.padding
    dims = (layer.kernel_size, layer.dilation, padding, layer.stride)
    if isinstance(layer, nn.Conv1d):
        value = value.unsqueeze(2)
        dims = ((1, *dims[0]), (1, *dims[1]), (0, *dims[2]), (1, *dims[3]))
    return F.unfold(value, *dims).transpose(1, 2)


@dataclass(frozen=True)
class Cut:
    """What the prefix leaves for the tail, for a batch of samples.

    x_NPI: the layer's input as a matrix, float32. layer_input: the same in its own shape.
    layer_shape: the shape of the layer's output of one sample. context: other values that the tail reads.
    """

    x_NPI: Tensor
    layer_input: Tensor
    layer_shape: tuple[int, ...]
    context: tuple[Tensor, ...]

    def __len__(self) -> int:
        return int(self.x_NPI.shape[0])

    def select(self, rows: Tensor | slice) -> "Cut":
        """The same for some of the samples (an index tensor may repeat a row)."""
        return Cut(self.x_NPI[rows], self.layer_input[rows], self.layer_shape, tuple(c[rows] for c in self.context))

    @property
    def layer_input_NI(self) -> Tensor | None:
        """i_L as the weight matrix sees it, float32 (N, I), or None if the layer sees several positions a sample."""
        return self.x_NPI[:, 0] if self.x_NPI.shape[1] == 1 else None


Precision = Literal["float32", "float64"]
_DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "float64": torch.float64}


def _cast(values: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    return tuple(v.to(dtype) if v.is_floating_point() else v for v in values)


class CutModel:
    """A frozen network f_θ, cut at layer L.

    Usual models are traced with torch.fx, and the prefix is then computed once a sample. A model that
    fx cannot trace, or whose trace does not give the model's own outputs on the first inputs (a branch that
    depends on them, a batch size that is carried past the layer), is run whole for each evaluation of the tail,
    with the layer's output replaced: the same results, more time.

    Args:
        model: the base network; used in eval mode, never changed.
        layer: the dotted name of the layer.
        precision: of the tail. float32 halves its cost; there a confident classifier's Δ would be rounding noise.

    Raises:
        UserError: see `find_layer`; also where the layer is used several times in one forward pass (or shares its
            weight with another one) or its input does not keep the samples in the first axis.
    """

    def __init__(self, model: nn.Module, layer: str, precision: Precision = "float64") -> None:
        find_layer(model, layer)
        self.layer_name = layer
        self.dtype = _DTYPES[precision]
        self.network = copy.deepcopy(model).eval().requires_grad_(False)
        self.layer = find_layer(self.network, layer)
        _refuse_shared_weight(self.network, self.layer, layer)
        self.replay_network = copy.deepcopy(self.network).to(self.dtype)  # the network in the tail's precision
        self._replay_layer = find_layer(self.replay_network, layer)
        bias = self._replay_layer.bias
        self._bias = bias if isinstance(bias, Tensor) else None
        self._graph = _trace(self.network, layer)
        if self._graph is not None:
            self._tail = copy.deepcopy(self._graph.tail).to(self.dtype)
        self._compared = False
        self._channels_last = False
        for module in self.network.modules():
            # on a CPU pooling takes half of a small convolutional network's time, and a third of that with the
            # channels innermost; the selected layer's weight must stay a matrix in memory
            if isinstance(module, nn.Conv2d) and module is not self.layer:
                weight = module.weight.contiguous(memory_format=torch.channels_last)
                module.weight = nn.Parameter(weight, requires_grad=False)
                self._channels_last = True

    @property
    def traced(self) -> bool:
        """Whether the prefix is computed only once a sample (settled with the first inputs)."""
        return self._graph is not None

    @property
    def weight_OI(self) -> Tensor:
        """θ of the layer as a matrix, float32."""
        return weight_matrix(self.layer)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.weight_OI.device

    @torch.no_grad()
    def prefix(self, inputs: Sequence[Tensor]) -> Cut:
        """Run everything before the layer, in float32, for inputs with samples in the first axis."""
        if self._graph is not None and not self._compared:
            # two different samples, or one twice: an axis of one could hide a mistake
            first = tuple(torch.cat([x[:2], x[:1]])[:2].clone() for x in inputs)
            self._compared = True
            if not self._trace_is_right(first):
                self._graph = None
        return self._cut(inputs)

    def _cut(self, inputs: Sequence[Tensor]) -> Cut:
        count = inputs[0].shape[0]
        layer_input, context = self._run_prefix(inputs)
        if layer_input.shape[0] != count or layer_input.dim() < 2:
            raise UserError(
                f"the input of layer {self.layer_name!r} has shape {tuple(layer_input.shape)} for {count} samples: "
                "the model must keep the samples in the first axis"
            )
        shape = tuple(self.layer(layer_input[:1]).shape[1:])
        return Cut(input_matrix(self.layer, layer_input), layer_input, shape, context)

    def _run_prefix(self, inputs: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The layer's input, and what else the tail reads."""
        if self._graph is not None:
            if self._channels_last:
                inputs = [x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs]
            layer_input, *context = self._graph.prefix(*inputs)
            return layer_input, tuple(context)
        found: list[Tensor] = []

        def keep(_module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            # a copy, because the model may go on to change this very tensor in place
            found.append((args[0] if args else named["input"]).clone())

        hook = self.layer.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            self.network(*inputs)
        finally:
            hook.remove()
        if len(found) != 1:
            raise UserError(f"layer {self.layer_name!r} is used {len(found)} times in a forward pass; it must be once")
        return found[0], tuple(inputs)

    def _trace_is_right(self, inputs: tuple[Tensor, ...]) -> bool:
        """Whether prefix and tail give the plain model's output for two samples together and for the second alone."""
        try:
            cut = self._cut([x.clone() for x in inputs])
            if not all(isinstance(c, Tensor) and c.shape[:1] == (2,) for c in cut.context):
                return False
            for rows in (slice(0, 2), slice(1, 2)):
                wanted = self.network(*(x[rows].clone() for x in inputs))
                if not _near(self.forward(cut.select(rows))[1], map_tensors(lambda x: x.to(self.dtype), wanted)):
                    return False
        except Exception:  # whatever the model raises; run whole, it raises the same where it must
            return False
        return True

    def layer_output(self, cut: Cut, delta_NOI: Tensor | None = None) -> Tensor:
        """Z = (θ + Δ) x without the bias, in the tail's precision, (N, P, O); Δ float, one a sample or None."""
        x_NPI = cut.x_NPI.to(self.dtype)
        weight_OI = weight_matrix(self._replay_layer)
        if delta_NOI is None:
            return x_NPI @ weight_OI.T
        delta_NOI = delta_NOI.to(self.dtype)
        if x_NPI.shape[1] > 1:  # one product with the moved weights; for one position forming those costs more
            return x_NPI @ (weight_OI + delta_NOI).transpose(1, 2)
        return x_NPI @ weight_OI.T + x_NPI @ delta_NOI.transpose(1, 2)

    def tail(self, z_NPO: Tensor, cut: Cut) -> tuple[Tensor, Tensors]:
        """From the layer's output without bias to (a_L, f(x)), all in the tail's precision.

        a_L is the layer's activation after its non-linearity (before it where the model is not
        traced or no non-linearity follows).
        """
        # a new tensor either way: an activation may work in place, and z_NPO is the caller's
        return self.resume(z_NPO.clone() if self._bias is None else z_NPO + self._bias, cut)

    @property
    def bias_O(self) -> Tensor:
        """The layer's bias in the tail's precision; zeros where it has none."""
        return self.weight_OI.new_zeros(len(self.weight_OI)).to(self.dtype) if self._bias is None else self._bias

    def resume(self, z_NPO: Tensor, cut: Cut) -> tuple[Tensor, Tensors]:
        """As `tail`, from the layer's output with bias, which the model may change in place."""
        if isinstance(self.layer, nn.Linear):
            out = z_NPO.reshape(len(cut), *cut.layer_shape)
        else:
            out = z_NPO.transpose(1, 2).reshape(len(cut), *cut.layer_shape)
        if self._graph is not None:
            activation, output = self._tail(out, *_cast(cut.context, self.dtype))
            return activation, output
        hook = self._replay_layer.register_forward_hook(lambda _m, _a, _o: out)
        try:
            output = self.replay_network(*_cast(cut.context, self.dtype))
        finally:
            hook.remove()
        return out, output

    def for_outputs(self, rewrite: Callable[[fx.GraphModule], fx.GraphModule]) -> "CutModel":
        """A copy whose tail, rewritten by `rewrite`, is for f(x) alone: its a_L is the layer's own output.

        Itself where the model is not traced; run `prefix` once before, which settles that.
        """
        if self._graph is None:
            return self
        tail = copy.deepcopy(self._tail)
        nodes = list(tail.graph.nodes)
        (_, result) = nodes[-1].args[0]
        nodes[-1].args = ((nodes[0], result),)
        tail.graph.eliminate_dead_code()
        other = copy.copy(self)
        other._tail = rewrite(tail)
        return other

    def forward(self, cut: Cut, delta_NOI: Tensor | None = None) -> tuple[Tensor, Tensors]:
        """(a_L, f(x; θ + Δ)) for one Δ a sample (None: the base network)."""
        return self.tail(self.layer_output(cut, delta_NOI), cut)


def _near(found: Tensors, wanted: Tensors) -> bool:
    pairs = zip(as_tuple(found), as_tuple(wanted), strict=True)
    return all(torch.allclose(f, w, rtol=1e-3, atol=1e-4 * float(w.abs().max()), equal_nan=True) for f, w in pairs)


def _refuse_shared_weight(model: nn.Module, layer: nn.Module, name: str) -> None:
    for other, module in model.named_modules():
        if module is not layer and any(p is layer.weight for p in module.parameters(recurse=False)):
            raise UserError(
                f"layer {name!r} shares its weight with {other!r}; a weight that moves must belong to one layer alone"
            )


@dataclass(frozen=True)
class _Graphs:
    prefix: fx.GraphModule
    tail: fx.GraphModule


class _Tracer(fx.Tracer):
    """Keeps the selected layer whole even where fx would look inside."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer = layer

    def is_leaf_module(self, m: nn.Module, qualified_name: str) -> bool:
        return m is self._layer or super().is_leaf_module(m, qualified_name)


def _is_activation(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], _ACTIVATION_MODULES)
    return node.op in ("call_function", "call_method") and node.target in _ACTIVATION_FUNCTIONS


def _trace(model: nn.Module, layer: str) -> _Graphs | None:
    """The prefix and tail graphs, or None where the model cannot be traced or cut."""
    modules = dict(model.named_modules())
    try:
        graph = _Tracer(modules[layer]).trace(model)
    except Exception:  # fx raises many kinds; the model then runs whole instead
        return None
    if any(n.op == "get_attr" and n.target == f"{layer}.weight" for n in graph.nodes):
        raise UserError(
            f"the model reads the weight of layer {layer!r} outside of the layer too; a weight that moves must be used "
            "by its layer alone"
        )
    at = [n for n in graph.nodes if n.op == "call_module" and modules.get(str(n.target)) is modules[layer]]
    if len(at) != 1 or len(at[0].args) != 1 or at[0].kwargs:
        return None
    cut = at[0]
    after: set[fx.Node] = set()
    from_inputs: set[fx.Node] = set()
    for node in graph.nodes:  # topological order
        sources = node.all_input_nodes
        if node is not cut and any(s is cut or s in after for s in sources):
            after.add(node)
        if node.op == "placeholder" or any(s in from_inputs for s in sources):
            from_inputs.add(node)
    crossing = [
        n for n in graph.nodes
        if n in from_inputs and n not in after and n is not cut and any(u in after for u in n.users)
    ]  # fmt: skip
    result = next(n for n in graph.nodes if n.op == "output").args[0]
    results = result if isinstance(result, tuple) else (result,)
    if not all(isinstance(r, fx.Node) for r in results) or not any(r is cut or r in after for r in results):
        return None
    users = list(cut.users)
    tap = users[0] if len(users) == 1 and _is_activation(users[0], modules) else cut

    before_graph, tail_graph = fx.Graph(), fx.Graph()
    env: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node.op != "output" and node not in after and node is not cut:
            env[node] = before_graph.node_copy(node, lambda n: env[n])
    before_graph.output((env[cut.args[0]], *(env[n] for n in crossing)))

    env = {cut: tail_graph.placeholder("layer_output")}
    for i, node in enumerate(crossing):
        env[node] = tail_graph.placeholder(f"context_{i}")
    for node in graph.nodes:
        if node.op == "output":
            tail_graph.output((env[tap], fx.map_arg(result, lambda n: env[n])))
        elif node not in env and (node in after or node not in from_inputs):
            env[node] = tail_graph.node_copy(node, lambda n: env[n])
    parts = []
    for part in (before_graph, tail_graph):
        module = fx.GraphModule(model, part)
        module.graph.eliminate_dead_code()
        module.recompile()
        parts.append(module)
    return _Graphs(*parts)
