"""A logit at a text as a sum of named interactions: heads by source, MLPs by pairs of inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from bilens.algebra.quadratic_form import QuadraticForm
from bilens.base.checks import check_count
from bilens.base.notebook import frozen_result

EMBEDDING, CONSTANT, DIRECT = "embedding", "constant", "direct"


@frozen_result("position", "direct", "inputs", "constant", "logit")
class NamedInteractions:
    """A logit, or a weighted sum of logits, at a position of this text, as a sum of named parts.

    Attributes:
        position: of the text, counted from 0.
        direct: (), what the embedding of the token there adds.
        heads: of each attention (heads, n), what each head adds by the position that it reads.
        pairs: of each MLP (inputs, inputs), what each pair of its inputs adds, the squares on the
            diagonal; entries below it are zero. They sum to all that the MLP adds.
        inputs: of each MLP the names of its inputs, in the order of `pairs`; the last one is the
            constant: biases, whose pairs are the linear part.
        constant: (), what hangs on nothing in the text: biases.
        logit: (), of the caller's own model as it ran.
    """

    position: int
    direct: Tensor
    heads: Mapping[str, Tensor]
    pairs: Mapping[str, Tensor]
    inputs: Mapping[str, tuple[str, ...]]
    constant: Tensor
    logit: Tensor

    @property
    def whole(self) -> Tensor:
        """The sum of all interactions; it is the logit, to the rounding of the caller's model."""
        parts = [*self.heads.values(), *self.pairs.values()]
        return torch.stack([self.direct, self.constant, *(one.sum() for one in parts)]).sum()

    def named(self) -> Iterator[tuple[str, float]]:
        """Yield each interaction with its name, such as "attention 0 head 1 ← 3".

        A pair of an MLP is "mlp 0: embedding × attention 0 head 1", where 3 is a position.
        """
        yield DIRECT, float(self.direct)
        yield CONSTANT, float(self.constant)
        for name, values in self.heads.items():
            for number, row in enumerate(values[:, : self.position + 1].tolist()):
                yield from ((f"{name} head {number} ← {at}", one) for at, one in enumerate(row))
        for name, table in self.pairs.items():
            inputs = self.inputs[name]
            for first, second in torch.triu_indices(*table.shape).T.tolist():
                pair = f"{inputs[first]} × {inputs[second]}"
                yield f"{name}: {pair}", float(table[first, second])

    def largest(self, k: int = 10) -> list[tuple[str, float]]:
        """List the k interactions of largest magnitude, each with what it adds to the logit."""
        check_count("k", k, minimum=1)
        return sorted(self.named(), key=lambda one: -abs(one[1]))[:k]


def pair_table(form: QuadraticForm, inputs: Tensor) -> Tensor:
    """Split q of a sum of inputs by their pairs, (m, d) → (m, m), entries below the diagonal zero.

    Math: with x = Σ_a x_a, q(x) = Σ_{a ≤ b} table[a, b]: x_aᵀQx_a on the diagonal, 2 x_aᵀQx_b
        above it; the last input is the constant one, with whom the linear part b·x_a is paired,
        and c and b·x of its own stand in the last corner.
    """
    matrix = form.matrix
    left, right = inputs @ matrix.left.T, inputs @ matrix.right.T
    table = (left * matrix.weight) @ right.T
    table = (table + table.T).triu(1) + torch.diag(table.diagonal())
    table[:, -1] += inputs @ form.linear
    table[-1, -1] += form.constant
    return table
