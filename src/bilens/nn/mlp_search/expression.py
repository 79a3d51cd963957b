"""A value inside a module as a tree of layers, as far as it can be written with them.

Its leaves are values that are taken as they come (`ValueSource`) and neurons (`Neurons`), between
them linear maps and sums. Weights are read from the module when they are asked for, not before.
A layer (`FoundLayer`) is a tree with one leaf of neurons, multiplied out into plain weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from operator import attrgetter
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bilens.algebra.approximation.activation import Activation
from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, MLPWeights
from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.base.checks import check_loaded
from bilens.nn.layer_view import Gives, LayerView, Reads
from bilens.nn.mlp_search.patches import Patch

Fetch = Callable[[], Tensor]


@dataclass(frozen=True, eq=False)
class NormMoments:
    """The mean and the deviation that a normalisation says of a value."""

    of: str  # which one, in words
    mean: Fetch
    deviation: Fetch


@dataclass(frozen=True, eq=False)
class Step:
    """x ↦ weight x + bias, of the module or parameter `path`; empty for arithmetic between them."""

    path: str
    weight: Fetch | None = None  # (out, in), a diagonal (out,), or one number (); None is 1
    bias: Fetch | None = None  # (out,) or (); None is zero
    d_out: int | None = None  # None for that of what comes in
    d_in: int | None = None  # None for any
    bias_path: str = ""  # of the bias, where it is a parameter of its own
    sees: NormMoments | None = None  # of what comes in, where a normalisation has learnt them


@dataclass(frozen=True, eq=False)
class ValueSource:
    """A value that is taken as it comes, at a location that its reader writes down."""

    location: object
    width: int | None = None  # of its last axis, or of a patch; None if nothing says
    patch: Patch | None = None  # what is taken of each place of an image; None for rows
    about: str = ""  # what it comes out of, such as a norm, which no layer contains
    sees: NormMoments | None = None  # its own, where it comes out of a norm


@dataclass(frozen=True, eq=False)
class Neurons:
    """φ(gate), or φ(gate) ∘ value, both linear in one source."""

    activation: Activation
    gate: Tree
    value: Tree | None
    source: ValueSource
    path: str = ""  # of a module that has the slope of its activation; empty for none
    by_values: bool = False  # whether the activation was told by its values, and not by a name


@dataclass(frozen=True, eq=False)
class Applied:
    """A linear map of a value."""

    step: Step
    inner: Tree


@dataclass(frozen=True, eq=False)
class Total:
    """A sum of values."""

    parts: tuple[Tree, ...]


Leaf = ValueSource | Neurons
Tree = Leaf | Applied | Total


def leaves(tree: Tree) -> tuple[Leaf, ...]:
    """Return the leaves of a tree, each once."""
    if isinstance(tree, Applied):
        return leaves(tree.inner)
    if isinstance(tree, Total):
        return tuple(dict.fromkeys(leaf for part in tree.parts for leaf in leaves(part)))
    return (tree,)


def patch_of(tree: Tree) -> Patch | None:
    """Return the patch that an image is computed from at each place; None for rows."""
    first = leaves(tree)[0]
    return (first.source if isinstance(first, Neurons) else first).patch


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
        if tree.path:
            yield Step(tree.path)


class Widths(NamedTuple):
    """Widths of the source that a value is linear in and of the value; None if nothing says."""

    read: int | None
    given: int | None


def widths(tree: Tree) -> Widths:
    if isinstance(tree, ValueSource):
        return Widths(tree.width, tree.width)
    if isinstance(tree, Neurons):
        return widths(tree.gate)
    if isinstance(tree, Applied):
        read, given = widths(tree.inner)
        step = tree.step
        return Widths(
            step.d_in if read is None else read, given if step.d_out is None else step.d_out
        )
    known = [widths(part) for part in tree.parts]
    return Widths(
        next((one.read for one in known if one.read is not None), None),
        next((one.given for one in known if one.given is not None), None),
    )


# ---- linear maps of modules and of loose tensors


@dataclass(frozen=True, eq=False)
class Weight:
    """A tensor of the module itself, used without a module of its own."""

    path: str
    fetch: Fetch


def linear_step(path: str, module: nn.Module) -> Step | None:
    """Return the linear map that a module is in evaluation; None for any other module."""
    if isinstance(module, nn.Linear):
        shift = None if module.bias is None else (lambda: module.bias)
        return matrix_step(path, lambda: module.weight, shift)
    if is_transposed_linear(module):
        weight, bias = attrgetter("weight"), attrgetter("bias")
        return matrix_step(path, lambda: weight(module).T, lambda: bias(module))
    if isinstance(module, nn.BatchNorm1d) and module.running_mean is not None:
        return normalisation_step(path, module)
    return None


def is_transposed_linear(module: nn.Module) -> bool:
    """Tell whether a module is the linear map of GPT-2, (in, out), by its name and its weight."""
    return type(module).__name__ == "Conv1D" and not isinstance(module, nn.Conv1d)


def matrix_step(path: str, weight: Fetch, bias: Fetch | None) -> Step:
    """Return x ↦ weight x + bias for a weight (out, in)."""
    d_out, d_in = weight().shape
    return Step(path, weight, bias, d_out, d_in)


def normalisation_step(path: str, module: nn.modules.batchnorm._BatchNorm) -> Step:
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

    size = module.num_features
    sees = NormMoments(f"BatchNorm {path}", lambda: mean, lambda: variance.sqrt())
    return Step(path, scale, shift, size, size, sees=sees)


def number(value: float) -> Fetch:
    return lambda: torch.tensor(float(value), dtype=torch.float64)


def shifted(tree: Tree, step: Step) -> Applied:
    """Return a value with a vector added, in one step with a map before that adds none."""
    before = tree.step if isinstance(tree, Applied) and step.path else Step("")
    if not isinstance(tree, Applied) or before.d_out is None or before.bias is not None:
        return Applied(step, tree)
    return Applied(replace(before, bias=step.bias, bias_path=step.path), tree.inner)


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
    return replace(
        step,
        weight=lambda: weight()[start:stop],
        bias=None if bias is None else lambda: bias().expand(step.d_out)[start:stop],  # type: ignore[arg-type]
        d_out=stop - start,
    )


# ---- layers


@dataclass(frozen=True, eq=False)
class FoundLayer:
    """One layer of neurons with the linear maps around them."""

    tree: Tree  # what it gives: of its neurons and, past them, of what they read
    neurons: Neurons  # the leaf of the tree that is no source
    location: object  # where in the module its output is, as its reader writes that down
    before: FoundLayer | None  # the layer whose output it reads; None for anything else

    @property
    def source(self) -> ValueSource:
        return self.neurons.source

    @property
    def paths(self) -> tuple[str, ...]:
        """The modules or parameters that it is made of, each once."""
        parts = [part for step in steps(self.tree) for part in (step.path, step.bias_path)]
        return tuple(dict.fromkeys(filter(None, parts)))

    @property
    def branches(self) -> tuple[str, ...]:
        """The module or parameter that each branch of its neurons comes out of."""
        trees = (self.neurons.gate, self.neurons.value)
        paths = [[s.path for s in steps(one) if s.path] for one in trees if one is not None]
        return tuple(one[-1] for one in paths if one)

    @property
    def sizes(self) -> FactorSizes:
        (d_in, d_hidden), d_out = widths(self.neurons), widths(self.tree).given
        assert d_in is not None, "asked when it was found"
        assert d_hidden is not None
        assert d_out is not None
        return FactorSizes(d_out, d_hidden, d_in)

    @property
    def dtype(self) -> torch.dtype:
        fetches = [f for step in steps(self.tree) for f in (step.weight, step.bias) if f]
        parts = [fetch() for fetch in fetches]
        matrices = [one for one in parts if one.ndim == 2]
        return reduce(torch.promote_types, [one.dtype for one in matrices or parts])

    def view(self, name: str, reads: Reads, gives: Gives) -> LayerView:
        """Return it as a layer of a model."""
        gated, phi = self.neurons.value is not None, self.neurons.activation
        about = str(self.source.patch or self.source.about)
        return LayerView(
            self.sizes, phi, self.dtype, self.read_layer, gated, reads, gives, about, name
        )

    def made_of(self) -> str:
        """Describe in words the kind of layer, its activation and the modules it is made of."""
        kind = "gated" if self.neurons.value is not None else "ordinary"
        told = " (told by its values)" if self.neurons.by_values else ""
        return f"{kind}, {self.neurons.activation}{told}, made of {', '.join(self.paths)}"

    def read_layer(self) -> Layer:
        """Return it as plain weights on the CPU; where weights are multiplied, in float64."""
        for step in steps(self.tree):
            if step.weight is not None:
                check_loaded(f"{step.path}.weight", step.weight())
        d_out, d_hidden, d_in = self.sizes
        neurons, out = self.neurons, linearised(self.tree)
        parts: dict[str, Tensor | None] = {
            "down": out.matrix(neurons, d_hidden),
            "linear": out.matrix(self.source, d_in) if self.source in out.matrices else None,
            "constant": out.shift(d_out),
        }
        branches = {"up": neurons.gate}
        if neurons.value is not None:
            branches = {"gate": neurons.gate, "value": neurons.value}
        for role, tree in branches.items():
            branch = linearised(tree)
            parts[role] = branch.matrix(self.source, d_in)
            parts[f"{role}_bias"] = branch.shift(d_hidden)
        dtype = reduce(torch.promote_types, (p.dtype for p in parts.values() if p is not None))
        kept = {n: None if p is None else p.to(dtype) for n, p in parts.items()}
        kind = MLPWeights if neurons.value is None else GLUWeights
        return kind(**kept, activation=neurons.activation)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Linearised:
    """Σ matrix · leaf + constant: a tree with its linear maps multiplied out."""

    # of each leaf: (out, in), a diagonal (out,), one number (), or None, the identity
    matrices: dict[Leaf, Tensor | None]
    constant: Tensor | None = None  # (out,), one number () for all, or None, zero

    def matrix(self, leaf: Leaf, width: int) -> Tensor:
        """Return the matrix of a leaf of a width, in full."""
        found = self.matrices[leaf]
        if found is None:
            return torch.eye(width, dtype=torch.float64)
        if found.ndim == 2:
            return found
        return torch.diag(found.double().expand(width))

    def shift(self, width: int) -> Tensor | None:
        """Return the constant for every output; None for zero."""
        return None if self.constant is None else self.constant.expand(width)


def linearised(tree: Tree) -> Linearised:
    """Return a tree multiplied out, in float64 where weights are multiplied or added."""
    if isinstance(tree, Applied):
        inner, step = linearised(tree.inner), tree.step
        weight = None if step.weight is None else step.weight().detach().cpu()
        bias = None if step.bias is None else step.bias().detach().cpu()
        matrices = {leaf: product(weight, matrix) for leaf, matrix in inner.matrices.items()}
        moved = None if inner.constant is None else image(weight, inner.constant)
        return Linearised(matrices, added(moved, bias))
    if not isinstance(tree, Total):
        return Linearised({tree: None})
    matrices, constant = {}, None
    for part in map(linearised, tree.parts):
        constant = added(constant, part.constant)
        for leaf, matrix in part.matrices.items():
            known = leaf in matrices
            matrices[leaf] = added_matrices(matrices[leaf], matrix) if known else matrix
    return Linearised(matrices, constant)


def product(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    """Return the product of two matrices, each in full, a diagonal, a number or the identity."""
    if left is None or right is None:
        return right if left is None else left
    left, right = left.double(), right.double()
    if left.ndim == 2 and right.ndim == 2:
        return left @ right
    return left[:, None] * right if (left.ndim, right.ndim) == (1, 2) else left * right


def image(weight: Tensor | None, constant: Tensor) -> Tensor:
    """Multiply a constant by a matrix, by a diagonal or by a number."""
    if weight is None:
        return constant
    weight, constant = weight.double(), constant.double()
    if weight.ndim == 2:
        return weight @ constant.expand(weight.shape[1])
    return weight * constant


def added(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first.double() + second.double()


def added_matrices(first: Tensor | None, second: Tensor | None) -> Tensor:
    """Return the sum of two matrices of a leaf, as far as it can be written without its width."""
    one = torch.ones((), dtype=torch.float64)
    left, right = (one if part is None else part.double() for part in (first, second))
    if left.ndim == 2 and right.ndim < 2:
        left, right = right, left
    if right.ndim == 2 and left.ndim < 2:
        return right + torch.diag(left.expand(len(right)))
    return left + right
