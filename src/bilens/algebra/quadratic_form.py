"""A scalar quadratic function of the input: what one output direction computes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bilens.algebra.interaction import InteractionMatrix
from bilens.base.checks import DTYPES, check_float_tensor, check_type
from bilens.base.errors import ShapeError


def check_inputs(x: Tensor, d_in: int, dtype: torch.dtype) -> Tensor:
    """Return inputs whose last axis is the input axis of a map, in its dtype.

    Raises:
        ShapeError: With the shape or dtype that came and the one that was expected.
    """
    if not isinstance(x, Tensor):
        raise ShapeError(
            f"the input is a {type(x).__name__}; a torch.Tensor was expected: "
            f"use torch.as_tensor(x, dtype={dtype})."
        )
    if x.ndim == 0 or x.shape[-1] != d_in:
        raise ShapeError(
            f"the input has shape {tuple(x.shape)}; expected (..., {d_in}): "
            "flatten images to one row of pixels each."
        )
    if x.dtype != dtype:
        other_way = f" or convert the map with .to({x.dtype})" if x.dtype in DTYPES else ""
        raise ShapeError(
            f"the input has dtype {x.dtype}, the factors have {dtype}: "
            f"use x.to({dtype}){other_way}."
        )
    return x


@dataclass(frozen=True, eq=False)
class QuadraticForm:
    """q(x) = xᵀQx + linear·x + constant, with Q symmetric and factored.

    Attributes:
        matrix: Q, in units of the output per squared unit of the input.
        linear: (in,); zeros where there is no linear term.
        constant: a scalar tensor.
        basis: the name of the basis that inputs are written in.

    Raises:
        UsageError: If the matrix is not an InteractionMatrix.
        ShapeError: If the parts do not fit together.
        NonFiniteError: If a part holds NaN or infinity.
    """

    matrix: InteractionMatrix
    linear: Tensor
    constant: Tensor
    basis: str = "input"

    def __post_init__(self) -> None:
        check_type("matrix", self.matrix, InteractionMatrix, "use QuadraticMap.form(u)")
        (d_in,) = check_float_tensor("linear", self.linear, num_axes=1, like=self.matrix.weight)
        check_float_tensor("constant", self.constant, num_axes=0, like=self.matrix.weight)
        if d_in != self.matrix.d_in:
            raise ShapeError(
                f"linear has {d_in} entries, the matrix reads {self.matrix.d_in} inputs: "
                "they must be equal."
            )

    @property
    def d_in(self) -> int:
        """Width of the input."""
        return self.matrix.d_in

    def __call__(self, x: Tensor) -> Tensor:
        """Return q(x) for inputs along the last axis, (..., in) → (...), in O(hidden · in) each.

        Raises:
            ShapeError: If the inputs have another width or dtype.
        """
        x = check_inputs(x, self.d_in, self.linear.dtype)
        return self.matrix.evaluate(x) + x @ self.linear + self.constant

    def matvec(self, vectors: Tensor) -> Tensor:
        """Return Q v for vectors along the last axis, (..., in) → (..., in), O(hidden · in) each.

        Raises:
            ShapeError: If the vectors have another width or dtype.
        """
        return self.matrix.matvec(check_inputs(vectors, self.d_in, self.linear.dtype))

    def trace(self) -> Tensor:
        """Return tr Q, a float64 scalar, in O(hidden · in)."""
        return self.matrix.trace()

    def norm(self) -> Tensor:
        """Return ‖Q‖_F, a float64 scalar from the factors, in O(hidden² · in)."""
        return self.matrix.squared_norm().sqrt()

    def inner(self, other: QuadraticForm) -> Tensor:
        """Return ⟨Q, Q'⟩ = tr(Q Q'), a float64 scalar, in O(hidden · hidden' · in).

        Raises:
            UsageError: If the other one is not a QuadraticForm.
            ShapeError: If the two forms read inputs of different width.
        """
        check_type("other", other, QuadraticForm, "use QuadraticMap.form(u)")
        return self.matrix.inner(other.matrix)

    def dense(self) -> Tensor:
        """Return Q as an (in, in) array, O(hidden · in²) time and O(in²) memory.

        Raises:
            MemoryLimitError: If the array would not fit.
        """
        return self.matrix.dense()

    def to(self, dtype: torch.dtype) -> QuadraticForm:
        """Return the same form in another dtype."""
        return replace(
            self,
            matrix=self.matrix.to(dtype),
            linear=self.linear.to(dtype),
            constant=self.constant.to(dtype),
        )

    def detach(self) -> QuadraticForm:
        """Return the same form, cut from the graph of gradients."""
        return replace(
            self,
            matrix=self.matrix.detach(),
            linear=self.linear.detach(),
            constant=self.constant.detach(),
        )
