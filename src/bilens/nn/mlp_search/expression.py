"""What a value inside a module is, as far as it can be written with layers: a tree.

Its leaves are values that are taken as they come (`Source`) and neurons (`Neurons`); between them
are linear maps and sums. Weights are read from the module when they are asked for, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from bilens.algebra.approximation.activation import Activation

Fetch = Callable[[], Tensor]


@dataclass(frozen=True, eq=False)
class Step:
    """x ↦ weight x + bias.

    Attributes:
        path: of the module or parameter that it is; empty for arithmetic between them.
        weight: (out, in), a diagonal (out,), or one number (); None is the identity.
        bias: (out,) or (); None is zero.
        d_out: width of what comes out; None for that of what comes in.
        d_in: width of what comes in; None for any.
    """

    path: str
    weight: Fetch | None = None
    bias: Fetch | None = None
    d_out: int | None = None
    d_in: int | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """A value that is taken as it comes.

    Attributes:
        place: where in the module it is, as its reader writes that down.
        width: of its last axis; None if nothing says.
    """

    place: object
    width: int | None = None


@dataclass(frozen=True, eq=False)
class Neurons:
    """φ(gate), or φ(gate) ∘ value, both linear in one source."""

    activation: Activation
    gate: Tree
    value: Tree | None
    source: Source


@dataclass(frozen=True, eq=False)
class Applied:
    """A linear map of a value."""

    step: Step
    inner: Tree


@dataclass(frozen=True, eq=False)
class Total:
    """A sum of values."""

    parts: tuple[Tree, ...]


Leaf = Source | Neurons
Tree = Leaf | Applied | Total


def leaves(tree: Tree) -> tuple[Leaf, ...]:
    """Return the leaves of a tree, each once."""
    if isinstance(tree, Applied):
        return leaves(tree.inner)
    if isinstance(tree, Total):
        return tuple(dict.fromkeys(leaf for part in tree.parts for leaf in leaves(part)))
    return (tree,)


def steps(tree: Tree) -> Iterator[Step]:
    """Yield the linear maps of a value, those of its neurons first."""
    if isinstance(tree, Applied):
        yield from steps(tree.inner)
        yield tree.step
    elif isinstance(tree, Total):
        for part in tree.parts:
            yield from steps(part)
    elif isinstance(tree, Neurons):
        yield from steps(tree.gate)
        if tree.value is not None:
            yield from steps(tree.value)


def width_of(tree: Tree) -> int | None:
    """Return the width of a value; None if nothing says."""
    if isinstance(tree, Source):
        return tree.width
    if isinstance(tree, Neurons):
        return width_of(tree.gate)
    if isinstance(tree, Applied):
        return width_of(tree.inner) if tree.step.d_out is None else tree.step.d_out
    known = (width_of(part) for part in tree.parts)
    return next((width for width in known if width is not None), None)


def width_read(tree: Tree) -> int | None:
    """Return the width of the source that a value is linear in; None if nothing says."""
    if isinstance(tree, Source):
        return tree.width
    if isinstance(tree, Neurons):
        return width_read(tree.gate)
    if isinstance(tree, Applied):
        inner = width_read(tree.inner)
        return tree.step.d_in if inner is None else inner
    known = (width_read(part) for part in tree.parts)
    return next((width for width in known if width is not None), None)
