"""What a value inside a module is, as far as it can be written with layers: a tree.

Its leaves are values that are taken as they come (`Source`) and neurons (`Neurons`); between them
are linear maps and sums. Weights are read from the module when they are asked for, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bilens.algebra.approximation.activation import Activation

Fetch = Callable[[], Tensor]


@dataclass(frozen=True, eq=False)
class Step:
    """x ↦ weight x + bias, of the module or parameter `path`; empty for arithmetic between them."""

    path: str
    weight: Fetch | None = None  # (out, in), a diagonal (out,), or one number (); None is 1
    bias: Fetch | None = None  # (out,) or (); None is zero
    d_out: int | None = None  # None for that of what comes in
    d_in: int | None = None  # None for any


@dataclass(frozen=True, eq=False)
class Source:
    """A value that is taken as it comes, at a location that its reader writes down."""

    location: object
    width: int | None = None  # of its last axis; None if nothing says


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


# ---- linear maps of modules and of loose tensors


@dataclass(frozen=True, eq=False)
class Weight:
    """A tensor of the module itself, used without a module of its own."""

    path: str
    fetch: Fetch


def linear_step(path: str, module: nn.Module) -> Step | None:
    """Return the linear map that a module is in evaluation; None for any other module."""
    if isinstance(module, nn.Linear):
        return matrix_step(
            path, lambda: module.weight, None if module.bias is None else (lambda: module.bias)
        )
    if is_transposed_linear(module):
        return matrix_step(path, lambda: loose(module, "weight").T, lambda: loose(module, "bias"))
    if isinstance(module, nn.BatchNorm1d) and module.running_mean is not None:
        return normalisation_step(path, module)
    return None


def is_transposed_linear(module: nn.Module) -> bool:
    """Tell whether a module is the linear map of GPT-2, (in, out), by its name and its weight."""
    return type(module).__name__ == "Conv1D" and not isinstance(module, nn.Conv1d)


def loose(module: nn.Module, name: str) -> Tensor:
    tensor = getattr(module, name)
    assert isinstance(tensor, Tensor), "asked of what has it"
    return tensor


def matrix_step(path: str, weight: Fetch, bias: Fetch | None) -> Step:
    """Return x ↦ weight x + bias for a weight (out, in)."""
    d_out, d_in = weight().shape
    return Step(path, weight, bias, d_out, d_in)


def normalisation_step(path: str, module: nn.BatchNorm1d) -> Step:
    """Return a batch normalisation with the statistics that it has learnt."""
    mean, variance = module.running_mean, module.running_var
    assert mean is not None, "asked before"
    assert variance is not None, "there is both or none"

    def scale() -> Tensor:
        gain = 1.0 if module.weight is None else module.weight.double()
        return gain / torch.sqrt(variance.double() + module.eps)

    def shift() -> Tensor:
        moved = -mean.double() * scale()
        return moved if module.bias is None else moved + module.bias.double()

    return Step(path, scale, shift, module.num_features, module.num_features)


def loose_step(path: str, fetch: Fetch) -> Step | None:
    """Return x ↦ weight x for a loose tensor: a matrix, a diagonal or a number."""
    shape = fetch().shape
    if len(shape) == 2:
        return matrix_step(path, fetch, None)
    if len(shape) == 1:
        return Step(path, fetch, None, shape[0], shape[0])
    return Step(path, fetch) if len(shape) == 0 else None


def number(value: float) -> Fetch:
    return lambda: torch.tensor(float(value), dtype=torch.float64)


def halves(tree: Tree, parts: int) -> tuple[Tree, ...] | None:
    if not isinstance(tree, Applied) or tree.step.d_out is None or tree.step.weight is None:
        return None
    step, size = tree.step, tree.step.d_out // parts
    if step.d_out != parts * size:
        return None
    return tuple(Applied(rows(step, k * size, (k + 1) * size), tree.inner) for k in range(parts))


def rows(step: Step, start: int, stop: int) -> Step:
    weight, bias = step.weight, step.bias
    assert weight is not None, "asked before"
    return Step(
        step.path,
        lambda: weight()[start:stop],
        None if bias is None else lambda: bias().expand(step.d_out)[start:stop],  # type: ignore[arg-type]
        stop - start,
        step.d_in,
    )
