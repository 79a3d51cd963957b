"""Tracing a module with torch.fx without running it, and running a part of what was traced."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Node

from bilens.algebra.approximation.layer_weights import in_float64
from bilens.base.checks import check_finite
from bilens.base.errors import UsageError
from bilens.base.memory import check_memory
from bilens.nn.agreement import Agreement, agreement, normal_inputs
from bilens.nn.mlp_search.expression import is_transposed_linear, steps
from bilens.nn.mlp_search.found_layer import FoundLayer

FEED_FORWARD = "_ff_block"  # the method of torch's transformer layers that is their MLP
TORCH_LAYERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


class Tracer(fx.Tracer):
    """Looks into every module that has parts or weights of its own, but for linear maps."""

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        """Tell whether a module stays one operation."""
        bare = next(module.children(), None) is None
        if is_transposed_linear(module) or (bare and next(module.parameters(), None) is None):
            return True
        return super().is_leaf_module(module, qualified_name)


def traced(module: nn.Module) -> fx.Graph | None:
    """Return the graph of a module; None where it cannot be traced."""
    tracer = Tracer()
    if isinstance(module, TORCH_LAYERS):
        tracer.traced_func_name = FEED_FORWARD
    before = torch.get_rng_state()
    try:
        graph = tracer.trace(module)
    except Exception:  # somebody else's code, run on values that are no tensors
        return None
    return graph if torch.equal(torch.get_rng_state(), before) else None


def evaluation_copy(module: nn.Module) -> nn.Module:
    """Return a copy with the same tensors, in evaluation mode and without hooks."""
    tensors = [*module.parameters(), *module.buffers()]
    try:
        copied = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    except Exception as error:
        raise UsageError(
            f"a {type(module).__name__} cannot be copied ({error}), and is not to be changed: pass "
            "the part of the model that is an MLP."
        ) from error
    for part in copied.modules():
        for hooks in (part._forward_hooks, part._forward_pre_hooks):
            hooks.clear()
    return copied.eval()


@torch.no_grad()
def check_layers(
    root: nn.Module, graph: fx.Graph, layers: list[FoundLayer]
) -> list[Agreement | str]:
    """Compare each layer with the operations of its module, or say why it cannot be."""
    for layer in layers:
        for step in steps(layer.tree):
            for kind, fetch in (("weight", step.weight), ("bias", step.bias)):
                if fetch is not None:
                    check_finite(f"{step.path}.{kind}", fetch())
    numel = sum(parameter.numel() for parameter in root.parameters())
    check_memory(8 * numel, "a copy in float64, to check the layers", "pass a part of the model")
    wide = copy.deepcopy(root).to("cpu", torch.float64)
    runner = fx.Interpreter(wide, graph=graph, garbage_collect_values=False)
    order = {node: index for index, node in enumerate(graph.nodes)}
    return [check_layer(runner, order, layer) for layer in layers]


def check_layer(
    runner: fx.Interpreter, order: dict[Node, int], layer: FoundLayer
) -> Agreement | str:
    x = normal_inputs(layer.sizes.d_in)
    start, end = layer.source.location, layer.location
    assert isinstance(start, Node), "of this graph"
    assert isinstance(end, Node)
    try:
        expected = evaluated(runner, order, end, {start: x})
    except Exception as error:  # the module's own code, run apart from the rest
        return f"its part of the module does not run by itself ({type(error).__name__}: {error})"
    found = in_float64(layer.read())(x)
    if expected.shape != found.shape:
        return f"the module gives {tuple(expected.shape)} where the layer has {tuple(found.shape)}"
    return agreement("", "the module's own operations", expected, found)


def evaluated(
    runner: fx.Interpreter, order: dict[Node, int], end: Node, values: dict[Node, Tensor]
) -> Tensor:
    """Return the value of a node, given those of others that it depends on."""
    needed, waiting = {end}, [end]
    while waiting:
        for before in waiting.pop().all_input_nodes:
            if before not in values and before not in needed:
                needed.add(before)
                waiting.append(before)
    runner.env = dict(values)
    for node in sorted(needed, key=order.__getitem__):
        if node.op == "placeholder":
            raise LookupError(f"it also reads the argument {node.target!r}")
        runner.env[node] = runner.run_node(node)
    result: Tensor = runner.env[end]
    return result
