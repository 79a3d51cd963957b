"""A layer that was found inside a module."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, MLPWeights
from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.nn.mlp_search.expression import Neurons, Source, Tree, steps, width_of, width_read
from bilens.nn.mlp_search.written import Written, written


@dataclass(frozen=True, eq=False)
class FoundLayer:
    """One layer of neurons with the linear maps around them.

    Attributes:
        tree: what it gives: of its neurons and, past them, of what they read.
        neurons: the leaf of the tree that is no source.
        place: where in the module its output is, as its reader writes that down.
        before: the layer whose output it reads; None for anything else.
    """

    tree: Tree
    neurons: Neurons
    place: object
    before: FoundLayer | None

    @property
    def source(self) -> Source:
        """What it reads."""
        return self.neurons.source

    @property
    def paths(self) -> tuple[str, ...]:
        """The modules or parameters that it is made of, each once."""
        return tuple(dict.fromkeys(step.path for step in steps(self.tree) if step.path))

    @property
    def sizes(self) -> FactorSizes:
        """Its widths, known without reading it."""
        d_out, d_hidden = width_of(self.tree), width_of(self.neurons)
        d_in = width_read(self.neurons)
        assert d_out is not None, "asked when it was found"
        assert d_hidden is not None
        assert d_in is not None
        return FactorSizes(d_out, d_hidden, d_in)

    @property
    def dtype(self) -> torch.dtype:
        """The widest dtype of its matrices, as the module has them."""
        weights = [step.weight() for step in steps(self.tree) if step.weight is not None]
        return reduce(torch.promote_types, [one.dtype for one in weights if one.ndim == 2])

    def read(self) -> Layer:
        """Return it as plain weights on the CPU; where weights are multiplied, in float64."""
        d_out, d_hidden, d_in = self.sizes
        out, gate = written(self.tree), written(self.neurons.gate)
        parts: dict[str, Tensor | None] = {
            "down": out.matrix(self.neurons, d_hidden),
            "linear": out.matrix(self.source, d_in) if self.source in out.matrices else None,
            "constant": out.shift(d_out),
        }
        if self.neurons.value is None:
            parts |= branch("up", "up_bias", gate, self.source, d_in, d_hidden)
        else:
            value = written(self.neurons.value)
            parts |= branch("gate", "gate_bias", gate, self.source, d_in, d_hidden)
            parts |= branch("value", "value_bias", value, self.source, d_in, d_hidden)
        dtype = reduce(torch.promote_types, (p.dtype for p in parts.values() if p is not None))
        kept = {n: None if p is None else p.to(dtype) for n, p in parts.items()}
        kind = MLPWeights if self.neurons.value is None else GLUWeights
        return kind(**kept, activation=self.neurons.activation)  # type: ignore[arg-type]


def branch(
    weight: str, bias: str, part: Written, source: Source, d_in: int, d_hidden: int
) -> dict[str, Tensor | None]:
    """Return one branch of a layer under the names of its fields."""
    return {weight: part.matrix(source, d_in), bias: part.shift(d_hidden)}
