"""Values that are a function of one linear value, entry by entry, before the function is known."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.fx.node import Node, map_arg

from bilens.nn.mlp_search.expression import Applied, Tree

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Pointwise:
    """function(argument), as the module computes it; whether it acts by entries is not yet known.

    Attributes:
        argument: the value that it is a function of.
        function: what the nodes between compute.
        node: the last of them.
    """

    argument: Tree
    function: Function
    node: Node


def pointwise(
    node: Node, values: Mapping[Node, object], call: Callable[..., Tensor]
) -> Pointwise | None:
    """Return a node as a function of the one value that its arguments depend on; None for several.

    Args:
        node: of an operation.
        values: of the nodes before it.
        call: the operation.
    """
    functions: dict[Node, Function] = {}
    found: list[Tree] = []
    for before in node.all_input_nodes:
        value = values[before]
        if isinstance(value, Pointwise):
            functions[before] = value.function
            found.append(value.argument)
        elif isinstance(value, Tree):
            functions[before], argument = through_numbers(value)
            found.append(argument)
        else:
            return None
    if not found or any(argument is not found[0] for argument in found):
        return None

    def function(t: Tensor) -> Tensor:
        def at(before: Node) -> Tensor:
            return functions[before](t)

        return call(*map_arg(node.args, at), **map_arg(node.kwargs, at))

    return Pointwise(found[0], function, node)


def through_numbers(tree: Tree) -> tuple[Function, Tree]:
    """Return a value as a function of the one below the numbers that multiply it or are added."""
    if not isinstance(tree, Applied) or tree.step.path:
        return itself, tree
    below, argument = through_numbers(tree.inner)
    weight, bias = tree.step.weight, tree.step.bias

    def function(t: Tensor) -> Tensor:
        y = below(t) if weight is None else weight() * below(t)
        return y if bias is None else y + bias()

    return function, argument


def argument_of(value: Tree | Pointwise) -> Tree:
    """Return the value that another one is a function of, itself where nothing is known."""
    return value.argument if isinstance(value, Pointwise) else through_numbers(value)[1]


def itself(t: Tensor) -> Tensor:
    """Return a copy, since an operation behind it may work in place."""
    return t.clone()


def by_method(name: str) -> Callable[..., Tensor]:
    """Return a method of tensors as a function."""
    return lambda first, *rest, **options: operator.attrgetter(name)(first)(*rest, **options)
