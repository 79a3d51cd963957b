"""How far a layer that was found is from what the module computes there."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Node

from bilens.algebra.approximation.layer_weights import in_float64
from bilens.base.checks import check_finite, check_memory
from bilens.base.errors import NumericalError
from bilens.nn.mlp_search.expression import steps
from bilens.nn.mlp_search.found_layer import FoundLayer

ROWS = 16
TOLERANCE = 1e-5  # of the largest output: a module may round to float32 inside


@dataclass(frozen=True)
class LayerCheck:
    """A layer against the operations of the module between the same two places.

    Attributes:
        max_error: largest difference of an output.
        largest: largest absolute value of an output of the module.
        rows: inputs that were looked at.
    """

    max_error: float
    largest: float
    rows: int

    @property
    def passed(self) -> bool:
        """Whether the layer is what the module computes."""
        return self.max_error <= TOLERANCE * max(self.largest, 1e-30)

    def refuse(self, what: str) -> LayerCheck:
        """Return the check if it has passed.

        Raises:
            NumericalError: If what was read is another function.
        """
        if self.passed:
            return self
        raise NumericalError(
            f"the layers that were read differ by {self.max_error:.1e} from {what}, whose outputs "
            f"reach {self.largest:.1e}: this is a fault of the reader; do not use them."
        )


def compared(expected: Tensor, found: Tensor) -> LayerCheck:
    """Return how far two values of the same inputs are apart, both (rows, out)."""
    error = float((expected.double() - found.double()).abs().max())
    return LayerCheck(error, float(expected.abs().max()), len(expected))


@torch.no_grad()
def check_layers(
    root: nn.Module, graph: fx.Graph, layers: list[FoundLayer]
) -> list[LayerCheck | str]:
    """Return the check of each layer of a graph on normal inputs in float64, or why there is none.

    Cost: a copy of the module in float64, and ROWS rows through each layer.

    Args:
        root: the module that was traced; it is not changed.
        graph: of it.
        layers: with nodes of the graph for places.
    """
    for layer in layers:
        for step in steps(layer.tree):
            for kind, fetch in (("weight", step.weight), ("bias", step.bias)):
                if fetch is not None:
                    check_finite(f"{step.path}.{kind}", fetch())
    numel = sum(parameter.numel() for parameter in root.parameters())
    check_memory(8 * numel, "a copy in float64, to check the layers", "pass a part of the model")
    wide = copy.deepcopy(root).to("cpu", torch.float64)
    return [check_layer(wide, graph, layer) for layer in layers]


def check_layer(wide: nn.Module, graph: fx.Graph, layer: FoundLayer) -> LayerCheck | str:
    """Return the check of one layer."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, layer.sizes.d_in, generator=generator, dtype=torch.float64)
    start, end = layer.source.place, layer.place
    assert isinstance(start, Node), "of this graph"
    assert isinstance(end, Node)
    try:
        expected = evaluated(wide, graph, end, {start: x})
    except Exception as error:  # the module's own code, run apart from the rest
        return f"its part of the module does not run by itself ({type(error).__name__}: {error})"
    found = in_float64(layer.read())(x)
    if expected.shape != found.shape:
        return f"the module gives {tuple(expected.shape)} where the layer has {tuple(found.shape)}"
    return compared(expected, found)


def evaluated(root: nn.Module, graph: fx.Graph, end: Node, values: dict[Node, Tensor]) -> Tensor:
    """Return the value of a node, given those of others.

    Raises:
        LookupError: If it depends on an argument of the module that is not given.
    """
    needed, waiting = {end}, [end]
    while waiting:
        for before in waiting.pop().all_input_nodes:
            if before not in values and before not in needed:
                needed.add(before)
                waiting.append(before)
    interpreter = fx.Interpreter(root, graph=graph, garbage_collect_values=False)
    interpreter.env = dict(values)
    for node in graph.nodes:
        if node in needed:
            if node.op == "placeholder":
                raise LookupError(f"it also reads the argument {node.target!r}")
            interpreter.env[node] = interpreter.run_node(node)
    result: Tensor = interpreter.env[end]
    return result
