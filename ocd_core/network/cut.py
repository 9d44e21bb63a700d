"""A base network cut at the layer that moves: the frozen prefix, the layer's weight as a matrix, the tail.

Only the weight of the selected layer L moves (not its bias), so everything before L is computed once per sample in
float32, and everything from L to the output is replayed with per-sample weights, by default in float64: in float32 the
weight change of a confident sample is rounding noise.

L may be several layers that move as one matrix (`ocd_core.network.layers`), such as the two heads of a distilled
transformer. If they read the same tensor, it is read once, as by one layer with all their units. Otherwise each layer
reads its input at separate positions, where only its own units count: Δ is the same stacked matrix.

Dims: N samples, P positions (1 for a vector input; pixels for a convolution; points of a ray batch),
I in_features (a convolution's C·kh·kw), O out_features.
"""

import copy
import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, fx, nn

from ocd_core.errors import UserError
from ocd_core.files import Attempt
from ocd_core.network.attention import call_projections
from ocd_core.network.channels_last import lay_out, with_channels_last
from ocd_core.network.first_inputs import FirstAnswers, copied, first_two
from ocd_core.network.layers import (
    bias_vector,
    find_layers,
    input_matrix,
    layer_kind,
    layer_names,
    refuse_shared_weights,
    see_the_same,
    weight_matrix,
)
from ocd_core.network.tracing import trace
from ocd_core.network.whole import inputs_of_layers, output_with_layers, refuse_chained
from ocd_core.samples import Rows, Tensors, flat


@dataclass(frozen=True)
class LayerPart:
    """Where one of the layers is in Z (N, P, O), and the shape of its own output of one sample."""

    positions: slice
    units: slice
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Cut:
    """What the prefix leaves for the tail, for a batch of samples.

    x_NPI: the layer's input as a matrix, float32. layer_input: the same in its own shape; if layers have separate
    inputs, these side by side, (N, D). parts: one per layer. context: other values that the tail reads.
    """

    x_NPI: Tensor
    layer_input: Tensor
    parts: tuple[LayerPart, ...]
    context: tuple[Tensor, ...]

    def __len__(self) -> int:
        return int(self.x_NPI.shape[0])

    def select(self, rows: Rows) -> "Cut":
        """The same for some of the samples (an index tensor may repeat a row)."""
        return self.map(lambda x: x[rows])

    def map(self, f: Callable[[Tensor], Tensor]) -> "Cut":
        """The same with `f` applied to each tensor; it must keep the samples in the first axis."""
        context = tuple(f(c) for c in self.context)
        return replace(self, x_NPI=f(self.x_NPI), layer_input=f(self.layer_input), context=context)

    @property
    def layer_input_NI(self) -> Tensor | None:
        """i_L as the weight matrix sees it, float32 (N, I), or None if the layer sees several positions per sample."""
        return self.x_NPI[:, 0] if self.x_NPI.shape[1] == 1 else None


Precision = Literal["float32", "float64"]
DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "float64": torch.float64}


def _cast(values: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    return tuple(v.to(dtype) if v.is_floating_point() else v for v in values)


class CutModel:
    """A frozen network f_θ, cut at layer L.

    Usual models are traced with torch.fx, and the prefix is then computed once per sample (modules that fx cannot
    follow may be named, see `ocd_core.network.tracing`). If fx cannot trace a model, or the trace does not give the
    model's own outputs on the first inputs (a branch that depends on them, a batch size that is carried past the
    layer), the whole model runs for each evaluation of the tail, with the layer's output replaced: the same results,
    but slower.

    Args:
        model: the base network; used in eval mode, never changed.
        layer: the dotted name of the layer, or several joined by `+`.
        precision: of the tail. float32 halves its cost, but makes a confident classifier's Δ rounding noise.

    Raises:
        UserError: see `find_layers`; also if the layer is used several times in one forward pass (or shares its
            weight with another one), its input does not keep the samples in the first axis, or one of several layers
            reads the output of another.
    """

    def __init__(self, model: nn.Module, layer: str, precision: Precision = "float64") -> None:
        find_layers(model, layer)
        self.layer_name = layer
        self._names = layer_names(layer)
        self.dtype = DTYPES[precision]
        self.network = copied(model).eval().requires_grad_(False)
        call_projections(self.network, self._names)
        self.layers = find_layers(self.network, layer)
        refuse_shared_weights(self.network, layer)
        self._weight_OI = self.weight_OI.to(self.dtype)
        ends = list(itertools.accumulate([0, *(len(weight_matrix(layer)) for layer in self.layers)]))
        self._units = list(itertools.starmap(slice, itertools.pairwise(ends)))
        bias = bias_vector(*self.layers)
        self._bias = None if bias is None else bias.to(self.dtype)
        self._graph = trace(self.network, self._names)
        if self._graph is not None:
            self._tail = copy.deepcopy(self._graph.tail).to(self.dtype)
        self._output_shapes: dict[tuple[nn.Module, torch.Size], tuple[int, ...]] = {}
        self._dense = False  # whether the output of a convolution must have its channels outermost in memory
        self._tried = False
        self._trying = threading.Lock()
        # whether a sample's elements may be answered block by block (`ocd_core.network.blocks`); None: still to be seen
        self.divides: bool | None = None if getattr(model, "independent_elements", False) else False
        # the selected layer's weight must stay a matrix in memory
        self._channels_last = lay_out(self.network, torch.channels_last, self.layers)

    @property
    def traced(self) -> bool:
        """Whether the prefix is computed only once per sample (decided with the first inputs)."""
        return self._graph is not None

    @property
    def activation_read(self) -> str:
        """Where a_L is read, in words, for each of the layers; decided, like `traced`, with the first inputs."""
        after = [None] * len(self._names) if self._graph is None else self._graph.activations
        return "; ".join(
            f"output of {name}" if non_linearity is None else f"output of {name} after {non_linearity}"
            for name, non_linearity in zip(self._names, after, strict=True)
        )

    @property
    def kind(self) -> str:
        """`linear` or `conv`."""
        return layer_kind(self.layers[0])

    @property
    def weight_OI(self) -> Tensor:
        """θ of the layer as a matrix, float32."""
        return weight_matrix(*self.layers)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._weight_OI.device

    @cached_property
    def replay_network(self) -> nn.Module:
        """The network in the tail's precision."""
        network = copy.deepcopy(self.network).to(self.dtype)
        lay_out(network, torch.contiguous_format)
        return network

    @torch.no_grad()
    def prefix(self, inputs: Sequence[Tensor]) -> Cut:
        """Run everything before the layer, in float32, for inputs with samples in the first axis.

        Raises:
            UserError: the first inputs show that the network does not do what the cut rests on (see `plain_output`), or
                that the layer's output is not what its weight gives.
        """
        with self._trying:
            if not self._tried:
                self._try(first_two(inputs))
                self._tried = True
        return self._cut(inputs)

    def _cut(self, inputs: Sequence[Tensor]) -> Cut:
        count = inputs[0].shape[0]
        values, context = self._run_prefix(inputs)
        for name, value in zip(self._names, values, strict=True):
            if value.shape[0] != count or value.dim() < 2:
                raise UserError(
                    f"the input of layer {name!r} has shape {tuple(value.shape)} for {count} samples: the model must "
                    "keep the samples in the first axis"
                )
        shapes = [self._output_shape(layer, value) for layer, value in self._pairs(values)]
        first = values[0]
        if all(value is first and see_the_same(self.layers[0], layer) for layer, value in self._pairs(values)):
            x_NPI = input_matrix(self.layers[0], first)
            return Cut(x_NPI, first, self._parts(shapes, [slice(None)] * len(shapes)), context)
        matrices = [input_matrix(layer, value) for layer, value in self._pairs(values)]
        ends = list(itertools.accumulate([0, *(x.shape[1] for x in matrices)]))
        positions = [slice(start, end) for start, end in itertools.pairwise(ends)]
        return Cut(torch.cat(matrices, 1), flat(tuple(values)), self._parts(shapes, positions), context)

    def _output_shape(self, layer: nn.Module, value: Tensor) -> tuple[int, ...]:
        """The shape of a layer's output of one sample; the layer runs only for the first input of a shape."""
        if (key := (layer, value.shape[1:])) not in self._output_shapes:
            self._output_shapes[key] = tuple(layer(value[:1]).shape[1:])
        return self._output_shapes[key]

    def _pairs(self, values: Sequence[Tensor]) -> list[tuple[nn.Module, Tensor]]:
        return list(zip(self.layers, values, strict=True))

    def _parts(self, shapes: Sequence[tuple[int, ...]], positions: Sequence[slice]) -> tuple[LayerPart, ...]:
        return tuple(itertools.starmap(LayerPart, zip(positions, self._units, shapes, strict=True)))

    def _run_prefix(self, inputs: Sequence[Tensor]) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """The input of each layer (the same tensor if they read the same), and what else the tail reads."""
        if self._graph is None:
            return inputs_of_layers(self.network, self.layers, self._names, inputs), tuple(inputs)
        given = with_channels_last(inputs) if self._channels_last else inputs
        found, count = self._graph.prefix.forward(*given), len(self.layers)
        return list(found[:count]), tuple(found[count:])

    def _try(self, inputs: tuple[Tensor, ...]) -> None:
        """Settle on two samples how the network runs: with the channels innermost or not, traced or as a whole."""
        if self._channels_last:
            self._channels_last = False
            with Attempt():  # a view of a feature map fails, for example; the model's own errors come again
                self.network(*with_channels_last([x.clone() for x in inputs]))
                self._channels_last = True
            if not self._channels_last:
                lay_out(self.network, torch.contiguous_format)
        wanted = FirstAnswers.of(self.network, self.layer_name, self.weight_OI, inputs)
        dense = (False, True) if self.kind == "conv" else (False,)
        ways = list(itertools.product(dict.fromkeys((self._graph, None)), dense))
        for way in ways[:-1]:
            self._graph, self._dense = way
            with Attempt():  # what is the model's own error, the last way raises too
                if self._gives(wanted):
                    return
        self._graph, self._dense = ways[-1]
        if not self._gives(wanted):
            raise UserError(
                f"layer {self.layer_name!r} cannot move: the model's output is not what the layer's weight and bias "
                "give (a subclass with its own forward, a hook, or a weight that something else uses too)"
            )

    def _gives(self, wanted: FirstAnswers) -> bool:
        if self._graph is None:
            refuse_chained(self.network, self.layers, self._names, wanted.inputs)
        cut = self._cut([x.clone() for x in wanted.inputs])
        if self._graph is not None and not all(isinstance(c, Tensor) and c.shape[:1] == (2,) for c in cut.context):
            return False
        both = self.forward(cut)[1]
        second = self.forward(cut.select(slice(1, 2)), wanted.delta_1OI)[1]
        return wanted.are(both, second, self.dtype)

    def layer_output(self, cut: Cut, delta_NOI: Tensor | None = None) -> Tensor:
        """Z = (θ + Δ) x without the bias, in the tail's precision, (N, P, O); Δ float, one per sample, or None."""
        x_NPI = cut.x_NPI.to(self.dtype)
        if delta_NOI is None:
            return x_NPI @ self._weight_OI.T
        delta_NOI = delta_NOI.to(self.dtype)
        if x_NPI.shape[1] > 1:  # one product with the moved weights; for one position, forming them costs more
            return x_NPI @ (self._weight_OI + delta_NOI).transpose(1, 2)
        return x_NPI @ self._weight_OI.T + x_NPI @ delta_NOI.transpose(1, 2)

    def tail(self, z_NPO: Tensor, cut: Cut) -> tuple[Tensor, Tensors]:
        """From the layer's output without bias to (a_L, f(x)), all in the tail's precision.

        a_L is the layer's activation after its non-linearity (before it if the model is not traced or no
        non-linearity follows); of several layers, their activations side by side, (N, D).
        """
        # a new tensor either way: an activation may work in place, and z_NPO belongs to the caller
        return self.resume(z_NPO.clone() if self._bias is None else z_NPO + self._bias, cut)

    @property
    def bias_O(self) -> Tensor:
        """The layer's bias in the tail's precision; zeros if it has none."""
        return self._weight_OI.new_zeros(len(self._weight_OI)) if self._bias is None else self._bias

    def resume(self, z_NPO: Tensor, cut: Cut) -> tuple[Tensor, Tensors]:
        """Like `tail`, from the layer's output with bias, which the model may change in place."""
        activation, output, _ = self._resume(z_NPO, cut)
        return activation, output

    def observe(self, z_NPO: Tensor, cut: Cut) -> tuple[Tensor, Tensors, tuple[Tensor, ...] | None]:
        """Like `tail`, with what the modules give that the model names in `fx_observed`; None if that is not known."""
        found = self._resume(z_NPO.clone() if self._bias is None else z_NPO + self._bias, cut)
        return found if self._graph is not None and self._graph.observes else (*found[:2], None)

    def _resume(self, z_NPO: Tensor, cut: Cut) -> tuple[Tensor, Tensors, tuple[Tensor, ...]]:
        outs = []
        for part in cut.parts:
            z = z_NPO if len(cut.parts) == 1 else z_NPO[:, part.positions, part.units]
            out = (z if self.kind == "linear" else z.transpose(1, 2)).reshape(len(cut), *part.shape)
            outs.append(out.contiguous() if self._dense else out)
        context = _cast(cut.context, self.dtype)
        if self._graph is not None:
            activations, output, observed = self._tail.forward(*outs, *context)
            return _together(activations), output, observed
        layers = find_layers(self.replay_network, self.layer_name)
        return _together(outs), output_with_layers(self.replay_network, layers, outs, context), ()

    def for_outputs(self, rewrite: Callable[[fx.GraphModule], fx.GraphModule]) -> "CutModel":
        """A copy whose tail, rewritten by `rewrite`, is only for f(x): its a_L is the layer's own output.

        Returns itself if the model is not traced; call `prefix` once before, which decides that.
        """
        if self._graph is None:
            return self
        tail = copy.deepcopy(self._tail)
        nodes = list(tail.graph.nodes)
        _, result, _ = nodes[-1].args[0]
        nodes[-1].args = ((tuple(nodes[: len(self.layers)]), result, ()),)
        tail.graph.eliminate_dead_code()
        other = copy.copy(self)
        other._tail = rewrite(tail)
        return other

    def forward(self, cut: Cut, delta_NOI: Tensor | None = None) -> tuple[Tensor, Tensors]:
        """(a_L, f(x; θ + Δ)) for one Δ per sample (None: the base network)."""
        return self.tail(self.layer_output(cut, delta_NOI), cut)


def _together(activations: Sequence[Tensor]) -> Tensor:
    return activations[0] if len(activations) == 1 else flat(tuple(activations))
