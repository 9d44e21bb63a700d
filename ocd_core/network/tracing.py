"""A network as two graphs (torch.fx): everything before the layers that move, and everything after them.

A module whose inside fx cannot trace may be one node: a model names such modules in an attribute `fx_leaves`, a tuple
of dotted names and module types. So a frozen body from a library is a single call, and the cut still works.

A model may also name modules in an attribute `fx_observed`, a tuple of dotted names: what they give on the way to the
output is then read in the same pass (a domain's I(x) may need it). Each must be one node, and behind the layer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from ocd_core.errors import UserError
from ocd_core.files import Attempt

_ACTIVATION_MODULES = (
    nn.ReLU,
    nn.ReLU6,
    nn.GELU,
    nn.Tanh,
    nn.Sigmoid,
    nn.SiLU,
    nn.ELU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.Softplus,
)
_ACTIVATION_FUNCTIONS: set[Callable[..., Any] | str] = {
    *(F.relu, F.relu6, F.gelu, F.silu, F.elu, F.leaky_relu, F.softplus, F.tanh, F.sigmoid),
    *(torch.relu, torch.tanh, torch.sigmoid),
    *("relu", "tanh", "sigmoid"),
}


@dataclass(frozen=True)
class Graphs:
    """The two parts of a network with K layers that move.

    prefix: maps the network's inputs to (the input of each of the K layers, then what else the tail reads).
    tail: maps (the output of each of the K layers, what else it reads) to (a tuple of the activations, the output, a
    tuple of what the observed modules give).
    activations: the non-linearity after which each activation is read, or None: it is the layer's own output.
    observes: whether there are observed modules, and all of them are in the tail.
    """

    prefix: fx.GraphModule
    tail: fx.GraphModule
    activations: tuple[str | None, ...]
    observes: bool = False


class _Tracer(fx.Tracer):
    """Keeps the selected layers, and the leaves that contain none of them, as one node each."""

    def __init__(self, model: nn.Module, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self._layers = layers
        self._leaves = [m for m in named_leaves(model) if not any(layer in m.modules() for layer in layers)]

    def is_leaf_module(self, m: nn.Module, qualified_name: str) -> bool:
        whole = any(m is one for one in (*self._layers, *self._leaves))
        return whole or super().is_leaf_module(m, qualified_name)


def named_leaves(model: nn.Module) -> list[nn.Module]:
    """The modules that the model's `fx_leaves` names.

    Raises:
        UserError: an entry is neither the name of a module nor a module type.
    """
    modules = dict(model.named_modules())
    found: list[nn.Module] = []
    for leaf in getattr(model, "fx_leaves", ()):
        if isinstance(leaf, type) and issubclass(leaf, nn.Module):
            found += [m for m in modules.values() if isinstance(m, leaf)]
        elif isinstance(leaf, str) and leaf in modules:
            found.append(modules[leaf])
        else:
            raise UserError(
                f"fx_leaves of {type(model).__name__} holds {leaf!r}, which is neither the name of one of its modules "
                "nor a module type"
            )
    return found


def trace(model: nn.Module, names: Sequence[str]) -> Graphs | None:
    """The prefix and tail of a model at its layers `names`, or None if it cannot be traced or cut.

    Raises:
        UserError: a layer's weight is read outside the layer, or the output of one layer goes into another.
    """
    modules = dict(model.named_modules())
    tracer = _Tracer(model, [modules[name] for name in names])
    graph = None
    with Attempt():  # fx raises many kinds; then the whole model runs instead
        graph = tracer.trace(model)
    if graph is None:
        return None
    if not all(_can_be_written(str(n.target)) for n in graph.nodes if n.op in ("call_module", "get_attr")):
        return None
    for name in names:
        reads = [n for n in graph.nodes if n.op == "get_attr" and n.target == f"{name}.weight"]
        if not all(_asks_for_its_kind(user) for n in reads for user in n.users):
            raise UserError(
                f"the model also reads the weight of layer {name!r} outside the layer; a weight that moves must be "
                "used only by its layer"
            )
    cuts = [_only_call(graph, modules, modules[name]) for name in names]
    if any(cut is None for cut in cuts):
        return None
    return _cut_graph(model, graph, modules, [cut for cut in cuts if cut is not None])


def _asks_for_its_kind(node: fx.Node) -> bool:
    """Whether it reads the dtype or device of a tensor, and not its values."""
    return node.target is getattr and node.args[1] in ("dtype", "device")


def _can_be_written(name: str) -> bool:
    """Whether fx, which writes graphs as Python code, may put a name between double quotes as it is."""
    return name.isprintable() and not {*name} & {*'"\\'}


def _only_call(graph: fx.Graph, modules: dict[str, nn.Module], layer: nn.Module) -> fx.Node | None:
    """The node that calls a layer on one input, if there is exactly one."""
    at = [n for n in graph.nodes if n.op == "call_module" and modules.get(str(n.target)) is layer]
    return at[0] if len(at) == 1 and len(at[0].args) == 1 and not at[0].kwargs else None


def _cut_graph(model: nn.Module, graph: fx.Graph, modules: dict[str, nn.Module], cuts: list[fx.Node]) -> Graphs | None:
    after, from_inputs = _reached(graph, cuts)
    chained = [cut for cut in cuts if cut in after]
    if chained:
        raise chained_error(str(chained[0].target))
    crossing = [
        n
        for n in graph.nodes
        if n in from_inputs and n not in after and n not in cuts and any(u in after for u in n.users)
    ]
    result = next(n for n in graph.nodes if n.op == "output").args[0]
    results = result if isinstance(result, tuple) else (result,)
    if not all(isinstance(r, fx.Node) for r in results) or not any(r in cuts or r in after for r in results):
        return None

    prefix, tail = fx.Graph(), fx.Graph()
    env: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node.op != "output" and node not in after and node not in cuts:
            env[node] = prefix.node_copy(node, lambda n: env[n])
    prefix.output(tuple(env[n] for n in (*(_input(cut) for cut in cuts), *crossing)))

    env = {cut: tail.placeholder(f"layer_output_{i}") for i, cut in enumerate(cuts)}
    env |= {node: tail.placeholder(f"context_{i}") for i, node in enumerate(crossing)}
    read_at = [_activation(cut, modules) for cut in cuts]
    observed = _observed(model, graph, after)
    for node in graph.nodes:
        if node.op == "output":
            taps = tuple(env[node] for node in read_at)
            tail.output((taps, fx.map_arg(result, lambda n: env[n]), tuple(env[node] for node in observed)))
        elif node not in env and (node in after or node not in from_inputs):
            env[node] = tail.node_copy(node, lambda n: env[n])
    names = tuple(None if at is cut else _name(at, modules) for at, cut in zip(read_at, cuts, strict=True))
    return Graphs(_module(model, prefix), _module(model, tail), names, bool(observed))


def _observed(model: nn.Module, graph: fx.Graph, after: set[fx.Node]) -> list[fx.Node]:
    """The calls of the modules that `fx_observed` names; none if one of them is not a single call behind the layers."""
    names = tuple(getattr(model, "fx_observed", ()))
    calls = [[n for n in graph.nodes if n.op == "call_module" and n.target == name] for name in names]
    found = [nodes[0] for nodes in calls if len(nodes) == 1 and nodes[0] in after]
    return found if len(found) == len(names) else []


def chained_error(layer: str) -> UserError:
    """The error for layers of which one reads the output of another."""
    return UserError(
        f"layer {layer!r} reads the output of another of the layers to move as one matrix; name only layers that do "
        "not feed each other"
    )


def _reached(graph: fx.Graph, cuts: list[fx.Node]) -> tuple[set[fx.Node], set[fx.Node]]:
    """The nodes that depend on a cut, and those that depend on the network's inputs."""
    after: set[fx.Node] = set()
    from_inputs: set[fx.Node] = set()
    for node in graph.nodes:  # topological order
        sources = node.all_input_nodes
        if any(s in cuts or s in after for s in sources):
            after.add(node)
        if node.op == "placeholder" or any(s in from_inputs for s in sources):
            from_inputs.add(node)
    return after, from_inputs


def _input(cut: fx.Node) -> fx.Node:
    (node,) = cut.all_input_nodes
    return node


def _activation(cut: fx.Node, modules: dict[str, nn.Module]) -> fx.Node:
    """The non-linearity that is the only reader of a layer's output, or the layer itself."""
    users = list(cut.users)
    return users[0] if len(users) == 1 and _is_activation(users[0], modules) else cut


def _name(node: fx.Node, modules: dict[str, nn.Module]) -> str:
    """The type of a module, or the name of a function or method."""
    if node.op == "call_module":
        return type(modules[str(node.target)]).__name__
    return node.target if isinstance(node.target, str) else str(node.target.__name__)


def _is_activation(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], _ACTIVATION_MODULES)
    return node.op in ("call_function", "call_method") and node.target in _ACTIVATION_FUNCTIONS


def _module(model: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    module = fx.GraphModule(model, graph)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module
