"""The third-order tensor of a bilinear layer, kept as its three factors."""

from __future__ import annotations

from dataclasses import field
from typing import NamedTuple

import torch
from torch import Tensor

from bilens.algebra.gram.inner_products import (
    output_gram,
    outputs_traces,
    paired_inner,
    squared_norms,
)
from bilens.base.checks import check_float_tensor, check_type
from bilens.base.errors import ShapeError
from bilens.base.memory import check_memory
from bilens.base.notebook import frozen_result


class FactorSizes(NamedTuple):
    """Sizes of the three axes of a `BilinearTensor`."""

    d_out: int
    d_hidden: int
    d_in: int


def check_factors(down: Tensor, left: Tensor, right: Tensor) -> FactorSizes:
    d_out, hidden_down = check_float_tensor("down", down, num_axes=2)
    d_hidden, d_in = check_float_tensor("left", left, num_axes=2)
    hidden_right, in_right = check_float_tensor("right", right, num_axes=2)
    if not (hidden_down == d_hidden == hidden_right and d_in == in_right):
        raise ShapeError(
            f"down {tuple(down.shape)}, left {tuple(left.shape)} and right {tuple(right.shape)} "
            "do not fit: expected (out, hidden), (hidden, in) and (hidden, in)."
        )
    if 0 in (d_out, d_hidden, d_in):
        raise ShapeError(
            f"down {tuple(down.shape)}, left {tuple(left.shape)}: every axis needs an entry."
        )
    if not (down.dtype == left.dtype == right.dtype and down.device == left.device == right.device):
        raise ShapeError(
            f"down, left and right must share dtype and device, got {down.dtype} on {down.device}, "
            f"{left.dtype} on {left.device}, {right.dtype} on {right.device}: "
            "convert them with .to()."
        )
    return FactorSizes(d_out, d_hidden, d_in)


@frozen_result("sizes")
class BilinearTensor:
    """B[o, i, j] = Σ_h down[o, h] left[h, i] right[h, j], kept as factors and never built.

    Only the part that is symmetric in i and j acts on an input; norms, traces and inner products
    are those of that part.

    Attributes:
        down: (out, hidden).
        left: (hidden, in); the paper's W.
        right: (hidden, in); the paper's V.
        sizes: (d_out, d_hidden, d_in).

    Raises: ShapeError if the factors do not fit together; NonFiniteError if one holds NaN or
        infinity.
    Source: arXiv:2410.08417, §2 ("Interaction matrices and the bilinear tensor").
    """

    down: Tensor
    left: Tensor
    right: Tensor
    sizes: FactorSizes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", check_factors(self.down, self.left, self.right))

    def gram(self, other: BilinearTensor | None = None) -> Tensor:
        """Return ⟨Q_i, Q'_j⟩ for every pair of outputs, (out, out') float64.

        Cost: O(hidden · hidden' · in) time, O(hidden' + out · out') memory beside the factors.
        Raises: UsageError for what is no BilinearTensor; ShapeError for inputs of different width.
        """
        other = self if other is None else other
        self._check_inputs_of(other)
        return output_gram(self.down, self.left, self.right, other.down, other.left, other.right)

    def inner(self, other: BilinearTensor) -> Tensor:
        """Return ⟨B, B'⟩ = Σ_c ⟨Q_c, Q'_c⟩, a float64 scalar.

        Cost: O(hidden · hidden' · (in + out)) time, O(out) memory beside the factors.
        Raises: as `gram`; ShapeError if the outputs differ, too.
        """
        self._check_inputs_of(other)
        if other.sizes.d_out != self.sizes.d_out:
            raise ShapeError(
                f"the tensors have {self.sizes.d_out} and {other.sizes.d_out} outputs; "
                "an inner product pairs them one to one."
            )
        mine = (self.down, self.left, self.right)
        return paired_inner(*mine, other.down, other.left, other.right).sum()

    def norm(self) -> Tensor:
        """Return ‖B‖_F of the symmetric part, a float64 scalar.

        Cost: O(hidden² · (in + out)) time, O(out) memory beside the factors.
        Raises: NonFiniteError if products of the factors overflow.
        """
        return squared_norms(self.down, self.left, self.right).sum().sqrt()

    def _check_inputs_of(self, other: BilinearTensor) -> None:
        check_type("other", other, BilinearTensor, "use the tensor of a map, f.tensor")
        if other.sizes.d_in != self.sizes.d_in:
            raise ShapeError(
                f"the tensors read {self.sizes.d_in} and {other.sizes.d_in} inputs; "
                "an inner product needs the same input space."
            )

    def traces(self) -> Tensor:
        """Return tr Q_c of every output, (out,) float64, in O(hidden · (in + out))."""
        return outputs_traces(self.down, self.left, self.right)

    def dense(self) -> Tensor:
        """Return the symmetric (out, in, in) array: for small layers and for tests.

        Cost: O(out · hidden · in²) time, O(out · in²) memory.
        Raises: MemoryLimitError if the array would not fit; read one output with `form(u)` instead.
        """
        d_out, _, d_in = self.sizes
        check_memory(
            2 * d_out * d_in * d_in * self.down.element_size(),
            f"the dense ({d_out}, {d_in}, {d_in}) tensor",
            "read one output at a time with QuadraticMap.form(u)",
            device=self.down.device,
        )
        halves = ((self.left.T * weight) @ self.right for weight in self.down)
        return torch.stack([(half + half.T) / 2 for half in halves])
