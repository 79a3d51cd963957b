"""A scalar quadratic function of the input, with its interaction matrix kept as factors."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bilens.algebra.gram.inner_products import no_negative, output_gram, outputs_traces
from bilens.algebra.shapes import check_shape
from bilens.base.checks import DTYPES, check_float_tensor, check_type
from bilens.base.errors import ShapeError, UsageError
from bilens.base.memory import check_memory
from bilens.base.notebook import frozen_result


@frozen_result("d_in", "d_hidden")
class InteractionMatrix:
    """Q = ½ Σ_h weight_h (left_h right_hᵀ + right_h left_hᵀ), symmetric by construction.

    Attributes:
        left: (hidden, in).
        right: (hidden, in).
        weight: (hidden,); downᵀu for the output direction u.

    Raises: ShapeError if the factors do not fit together, or an axis is empty; NonFiniteError if
        one holds NaN or infinity.
    Source: arXiv:2410.08417, §2, with the symmetric form of its "Simplifications due to symmetry".
    """

    left: Tensor
    right: Tensor
    weight: Tensor

    def __post_init__(self) -> None:
        (d_hidden,) = check_float_tensor("weight", self.weight, num_axes=1)
        left = check_float_tensor("left", self.left, num_axes=2, like=self.weight)
        right = check_float_tensor("right", self.right, num_axes=2, like=self.weight)
        if left != right or left[0] != d_hidden or 0 in left:
            raise ShapeError(
                f"left {tuple(self.left.shape)}, right {tuple(self.right.shape)} and weight "
                f"{tuple(self.weight.shape)} do not fit: expected (hidden, in) twice and "
                "(hidden,), no axis empty."
            )

    @property
    def d_in(self) -> int:
        """Width of the input."""
        return self.left.shape[1]

    @property
    def d_hidden(self) -> int:
        """Number of products; the rank is at most twice this number."""
        return self.left.shape[0]

    def matvec(self, vectors: Tensor) -> Tensor:
        """Return Q v = ½[Lᵀ(s∘Rv) + Rᵀ(s∘Lv)], (..., in) → (..., in), in O(hidden · in) each."""
        left = self.weight * (vectors @ self.left.T)
        right = self.weight * (vectors @ self.right.T)
        return (left @ self.right + right @ self.left) / 2

    def evaluate(self, x: Tensor) -> Tensor:
        """Return xᵀQx for inputs along the last axis, (..., in) → (...), in O(hidden · in) each."""
        return ((x @ self.left.T) * (x @ self.right.T)) @ self.weight

    def trace(self) -> Tensor:
        """Return tr Q, a float64 scalar, in O(hidden · in)."""
        return outputs_traces(self.weight[None], self.left, self.right)[0]

    def inner(self, other: InteractionMatrix) -> Tensor:
        """Return ⟨Q, Q'⟩ = tr(Q Q'), a float64 scalar, in O(hidden · hidden' · in).

        Raises: UsageError for what is no InteractionMatrix; ShapeError for another width.
        """
        check_type("other", other, InteractionMatrix, "use the matrix of a form, form.matrix")
        if other.d_in != self.d_in:
            raise ShapeError(
                f"the forms read {self.d_in} and {other.d_in} inputs; "
                "an inner product needs the same input space."
            )
        return output_gram(
            self.weight[None], self.left, self.right, other.weight[None], other.left, other.right
        )[0, 0]

    def squared_norm(self) -> Tensor:
        """Return ‖Q‖_F², a float64 scalar from the factors, in O(hidden² · in).

        Accurate to eps · (Σ|weight_h|‖left_h‖‖right_h‖)²: rounding, where terms cancel below it.
        """
        return no_negative(self.inner(self))

    def dense(self) -> Tensor:
        """Return Q as an (in, in) array, O(hidden · in²) time and O(in²) memory.

        Raises: MemoryLimitError if the array would not fit; `matvec` needs no array.
        """
        check_memory(
            3 * self.d_in**2 * self.left.element_size(),
            f"the dense ({self.d_in}, {self.d_in}) interaction matrix",
            "use matvec, which works on the factors",
            device=self.left.device,
        )
        half = (self.left.T * self.weight) @ self.right
        return (half + half.T) / 2

    def to(self, dtype: torch.dtype) -> InteractionMatrix:
        """Return the same matrix with factors of another dtype."""
        return InteractionMatrix(self.left.to(dtype), self.right.to(dtype), self.weight.to(dtype))

    def detach(self) -> InteractionMatrix:
        """Return the same matrix, cut from the graph of gradients."""
        return InteractionMatrix(self.left.detach(), self.right.detach(), self.weight.detach())


def check_rows(x: Tensor, d_in: int) -> None:
    """Refuse what are no finite (batch, in) inputs."""
    shape = check_float_tensor("x", x)
    if len(shape) != 2 or shape[1] != d_in:
        advice = "use x[None]" if shape == (d_in,) else "flatten images to one row of pixels each"
        raise ShapeError(f"x has shape {shape}; expected (batch, {d_in}): {advice}.")


def checked_vector(name: str, vector: Tensor, d_in: int) -> Tensor:
    check_shape(name, vector, (d_in,), advice="one entry an input")
    return vector.detach().double()


def is_number(value: object) -> bool:
    """Tell whether a value is a real number, or a tensor of one."""
    if isinstance(value, Tensor):
        return value.ndim == 0 and value.dtype is not torch.bool and not value.is_complex()
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_inputs(x: Tensor, d_in: int, dtype: torch.dtype, converts: str = "") -> Tensor:
    """Return inputs whose last axis is the input axis, in the dtype; `converts` has a `.to`."""
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
        other_way = f" or convert the {converts} with .to({x.dtype})"
        other_way = other_way if converts and x.dtype in DTYPES else ""
        raise ShapeError(
            f"the input has dtype {x.dtype}; {dtype} was expected: use x.to({dtype}){other_way}."
        )
    return x


@frozen_result("d_in", "basis", "linear", "constant")
class QuadraticForm:
    """q(x) = xᵀQx + linear·x + constant, with Q symmetric and factored.

    Attributes:
        matrix: Q, in units of the output per squared unit of the input.
        linear: (in,); zeros where there is no linear term.
        constant: a scalar tensor.
        basis: the name of the basis that inputs are written in.

    Raises: UsageError if the matrix is not an InteractionMatrix; ShapeError if the parts do not
        fit together; NonFiniteError if one holds NaN or infinity.
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

    @property
    def device(self) -> torch.device:
        """The device of every part."""
        return self.linear.device

    def __add__(self, other: QuadraticForm) -> QuadraticForm:
        """Return x ↦ q(x) + r(x); the hidden units of both stand side by side.

        Raises: UsageError if the forms differ in inputs, basis or dtype.
        """
        if not isinstance(other, QuadraticForm):
            return NotImplemented
        mine, theirs = (
            f"{one.d_in} inputs, {one.basis} basis, {one.linear.dtype}" for one in (self, other)
        )
        if mine != theirs:
            raise UsageError(f"forms of {mine} and of {theirs} cannot be added: they must agree.")
        a, b = self.matrix, other.matrix
        matrix = InteractionMatrix(
            torch.cat([a.left, b.left]),
            torch.cat([a.right, b.right]),
            torch.cat([a.weight, b.weight]),
        )
        linear, constant = self.linear + other.linear, self.constant + other.constant
        return QuadraticForm(matrix, linear, constant, self.basis)

    def __neg__(self) -> QuadraticForm:
        return -1 * self

    def __sub__(self, other: QuadraticForm) -> QuadraticForm:
        """Return x ↦ q(x) − r(x); errors are those of a sum."""
        return self + -other if isinstance(other, QuadraticForm) else NotImplemented

    def __truediv__(self, factor: float | Tensor) -> QuadraticForm:
        return self * (1 / factor) if is_number(factor) else NotImplemented

    def __mul__(self, factor: float | Tensor) -> QuadraticForm:
        """Return x ↦ factor · q(x), for a number or a tensor of one; `2 * q` too."""
        if not is_number(factor):
            return NotImplemented
        matrix = replace(self.matrix, weight=factor * self.matrix.weight)
        linear, constant = factor * self.linear, factor * self.constant
        return replace(self, matrix=matrix, linear=linear, constant=constant)

    __rmul__ = __mul__

    def __call__(self, x: Tensor) -> Tensor:
        """Return q(x) for inputs along the last axis, (..., in) → (...), in O(hidden · in) each.

        Raises: ShapeError if the inputs have another width or dtype.
        """
        x = check_inputs(x, self.d_in, self.linear.dtype, "form")
        return self.matrix.evaluate(x) + x @ self.linear + self.constant

    def matvec(self, vectors: Tensor) -> Tensor:
        """Return Q v for vectors along the last axis, (..., in) → (..., in), O(hidden · in) each.

        Raises: ShapeError if the vectors have another width or dtype.
        """
        return self.matrix.matvec(check_inputs(vectors, self.d_in, self.linear.dtype, "form"))

    def trace(self) -> Tensor:
        """Return tr Q, a float64 scalar, in O(hidden · in)."""
        return self.matrix.trace()

    def norm(self) -> Tensor:
        """Return ‖Q‖_F, a float64 scalar from the factors, in O(hidden² · in)."""
        return self.matrix.squared_norm().sqrt()

    def inner(self, other: QuadraticForm) -> Tensor:
        """Return ⟨Q, Q'⟩ = tr(Q Q'), a float64 scalar, in O(hidden · hidden' · in).

        Raises: UsageError for what is no QuadraticForm; ShapeError for another width.
        """
        check_type("other", other, QuadraticForm, "use QuadraticMap.form(u)")
        return self.matrix.inner(other.matrix)

    def dense(self) -> Tensor:
        """Return Q as an (in, in) array, O(hidden · in²) time and O(in²) memory.

        Raises: MemoryLimitError if the array would not fit.
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
