"""Sums and products: of two values, of a value and a tensor of the module, and with numbers."""

from __future__ import annotations

from torch.fx.node import Node

from bilens.nn.mlp_search.expression import Applied, Step, Total, Tree
from bilens.nn.mlp_search.graph_reader import GraphReader, Value
from bilens.nn.mlp_search.node_values import arguments
from bilens.nn.mlp_search.pointwise import Pointwise, argument_of
from bilens.nn.mlp_search.steps import Weight, loose_step, number


def addition(reader: GraphReader, node: Node) -> Value:
    """Read a sum of values, of a value and a bias, or of a value and a number."""
    return total(reader, node, 1.0)


def subtraction(reader: GraphReader, node: Node) -> Value:
    """Read a difference."""
    return total(reader, node, -1.0)


def total(reader: GraphReader, node: Node, sign: float) -> Value:
    """Read first + sign · second."""
    first, second = arguments(reader, node)[:2]
    if node.kwargs or depend_on_one(first, second):
        return None
    left, right = (shift_or_tree(reader, part) for part in (first, second))
    if left is None or right is None or (isinstance(left, Step) and isinstance(right, Step)):
        return None
    if sign < 0:
        right = opposite(right)
    if isinstance(left, Step):
        return Applied(left, right)  # type: ignore[arg-type]
    return Applied(right, left) if isinstance(right, Step) else Total((left, right))


def shift_or_tree(reader: GraphReader, part: object) -> Step | Tree | None:
    """Return a bias or a number as the step that adds it, a value as a tree."""
    if isinstance(part, Tree | Pointwise):
        return reader.realised(part)
    if isinstance(part, Weight) and part.fetch().ndim <= 1:
        return Step(part.path, None, part.fetch)
    return Step("", None, number(part)) if isinstance(part, int | float) else None


def opposite(part: Step | Tree) -> Step | Tree:
    """Return −x, or the step that subtracts what another one adds."""
    if not isinstance(part, Step):
        return Applied(Step("", number(-1)), part)
    bias = part.bias
    assert bias is not None, "a shift"
    return Step(part.path, None, lambda: -bias())


def multiplication(reader: GraphReader, node: Node) -> Value:
    """Read a product of two branches, or of a value and a number or a gain."""
    first, second = arguments(reader, node)[:2]
    for value, factor in ((first, second), (second, first)):
        step = factor_step(factor)
        if isinstance(value, Tree) and step is not None:
            return Applied(step, value)
    if not isinstance(first, Tree | Pointwise) or not isinstance(second, Tree | Pointwise):
        return None
    if depend_on_one(first, second):
        return None
    return reader.product(first, second)


def factor_step(factor: object) -> Step | None:
    """Return the step that multiplies by a number or a gain."""
    if isinstance(factor, Weight) and factor.fetch().ndim <= 1:
        return loose_step(factor.path, factor.fetch)
    return Step("", number(factor)) if isinstance(factor, int | float) else None


def division(reader: GraphReader, node: Node) -> Value:
    """Read a value divided by a number."""
    value, divisor = arguments(reader, node)[:2]
    if isinstance(value, Tree) and isinstance(divisor, int | float) and divisor:
        return Applied(Step("", number(1 / divisor)), value)
    return None


def depend_on_one(first: object, second: object) -> bool:
    """Tell whether two values are functions of the same linear value, and one is not linear."""
    known = [part for part in (first, second) if isinstance(part, Tree | Pointwise)]
    if not any(isinstance(part, Pointwise) for part in known):
        return False
    return len({argument_of(part) for part in known}) == 1
