"""A vector-valued quadratic function of the input: what one bilinear layer computes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor, FactorSizes
from bilens.algebra.quadratic_form import InteractionMatrix, QuadraticForm, check_inputs, is_number
from bilens.algebra.shapes import check_shape
from bilens.base.checks import as_integer, check_finite, check_float_tensor, check_type
from bilens.base.errors import ShapeError, UsageError
from bilens.base.notebook import frozen_result


def add(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Return the sum of two parts of a map, where None is zero."""
    if first is None or second is None:
        return second if first is None else first
    return first + second


@frozen_result("sizes", "dtype", "basis", "linear", "constant")
class QuadraticMap:
    """f(x) = down[(left x)∘(right x)] + linear x + constant: exact for one bilinear layer.

    Attributes:
        tensor: the bilinear part, modes (out, in, in).
        linear: (out, in), the residual path and the biases multiplied out; None is zero.
        constant: (out,); None is zero.
        basis: the name of the coordinates that it reads: "input", or "embedding", "whitened" and
            so on with a fingerprint of what defines them; inside a language model the "residual
            stream", of its tokens' embeddings. Maps compare where the names are equal.

    Raises: UsageError if the tensor is not a BilinearTensor; ShapeError if the parts do not fit
        together; NonFiniteError if one holds NaN or infinity.
    Source: arXiv:2410.08417, §2 (biases as an augmented input, here multiplied out).
    """

    tensor: BilinearTensor
    linear: Tensor | None = None
    constant: Tensor | None = None
    basis: str = "input"

    def __post_init__(self) -> None:
        check_type("tensor", self.tensor, BilinearTensor, "use BilinearTensor(down, left, right)")
        d_out, _, d_in = self.sizes
        self._check_part("linear", self.linear, (d_out, d_in))
        self._check_part("constant", self.constant, (d_out,))

    def _check_part(self, name: str, part: Tensor | None, expected: tuple[int, ...]) -> None:
        if part is not None:
            check_shape(name, part, expected, like=self.tensor.down)

    @property
    def sizes(self) -> FactorSizes:
        """(d_out, d_hidden, d_in)."""
        return self.tensor.sizes

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of every part."""
        return self.tensor.down.dtype

    def __call__(self, x: Tensor) -> Tensor:
        """Return f(x), (..., in) → (..., out), in O(hidden · (in + out) + in · out) for each input.

        Raises: ShapeError if the inputs have another width or dtype.
        """
        x = check_inputs(x, self.sizes.d_in, self.dtype, "map")
        y = ((x @ self.tensor.left.T) * (x @ self.tensor.right.T)) @ self.tensor.down.T
        if self.linear is not None:
            y = y + x @ self.linear.T
        return y if self.constant is None else y + self.constant

    @property
    def device(self) -> torch.device:
        """The device of every part."""
        return self.tensor.down.device

    def form(self, output_direction: Tensor | int) -> QuadraticForm:
        """Read the map along an output direction u, (out,), in any scale; or one output by number.

        Math: q(x) = u·f(x) = xᵀQx + (linearᵀu)·x + constant·u with
            Q = ½ Σ_h (downᵀu)_h (left_h right_hᵀ + right_h left_hᵀ).
        Cost: O(out · (hidden + in) + hidden · in) time; Q stays factored.
        Accuracy: downᵀu is summed in float64 and rounded once, to the dtype of the map. Use
            `eigendecompose_all(f, u[None])`, which does not round it, or `f.to(torch.float64)`,
            where float32 or half precision is not enough.
        Raises: ShapeError if u does not have one entry for each output; NonFiniteError if it
            holds NaN or infinity; UsageError if there is no output of that number.
        Source: arXiv:2410.08417, §3.2.
        """
        d_out, _, d_in = self.sizes
        if (number := as_integer(output_direction)) is not None:
            if number not in range(d_out):
                raise UsageError(f"there is no output {number}: the map has 0 to {d_out - 1}.")
            chosen = torch.zeros(d_out, dtype=torch.float64)
            chosen[number] = 1.0
            return self.form(chosen)
        given: object = output_direction
        if isinstance(given, str):
            raise ShapeError(
                f"output_direction is {given!r}; a map knows no names of outputs: pass "
                f"the number of one, an int, or a tensor ({d_out},)."
            )
        (length,) = check_float_tensor("output_direction", output_direction, num_axes=1)  # type: ignore[arg-type]
        if length != d_out:
            raise ShapeError(
                f"output_direction has {length} entries, the map has {d_out} outputs: pass a "
                f"vector ({d_out},), or the number of an output to read."
            )
        u = torch.as_tensor(output_direction).to(self.tensor.down.device).double()

        def along_u(part: Tensor) -> Tensor:  # in float64: a class-centred u cancels a lot
            return (u @ part.double()).to(self.dtype)

        zero = self.tensor.down.new_zeros(())
        matrix = InteractionMatrix(self.tensor.left, self.tensor.right, along_u(self.tensor.down))
        linear = zero.expand(d_in) if self.linear is None else along_u(self.linear)
        constant = zero if self.constant is None else along_u(self.constant)
        return QuadraticForm(matrix, linear, constant, self.basis)

    def compose_input(
        self, matrix: Tensor, bias: Tensor | None = None, basis: str = "input"
    ) -> QuadraticMap:
        """Return z ↦ f(E z + e), E (in, in') and e (in,): the layer before an affine embedding.

        Math: (L(Ez+e))∘(R(Ez+e)) multiplied out; the cross terms become linear, e alone constant.
        Cost: O(hidden · in · in') time, O((hidden + out) · in') memory.

        The space before it is called `basis`.

        Raises: ShapeError if E or e does not fit the map; NonFiniteError for NaN or infinity.
        """
        d_in = self.sizes.d_in
        check_shape("matrix", matrix, (d_in, "in'"), like=self.tensor.down)
        left = check_finite("the product of left and the embedding", self.tensor.left @ matrix)
        right = check_finite("the product of right and the embedding", self.tensor.right @ matrix)
        tensor = BilinearTensor(self.tensor.down, left, right)
        linear = None if self.linear is None else self.linear @ matrix
        if bias is None:
            return QuadraticMap(tensor, linear, self.constant, basis)
        self._check_part("bias", bias, (d_in,))
        shift = None if self.linear is None else self.linear @ bias
        return QuadraticMap(tensor, linear, add(self.constant, shift), basis).with_biases(
            self.tensor.left @ bias, self.tensor.right @ bias
        )

    def with_biases(self, left_bias: Tensor, right_bias: Tensor) -> QuadraticMap:
        """Return the map with (hidden,) biases b, c: down[(left x + b)∘(right x + c)] + ...

        Math: the cross terms Σ_h down_h (c_h left_h + b_h right_h) join the linear part, and
            Σ_h down_h b_h c_h the constant.
        Cost: O(out · hidden · in) time, O(hidden · in) memory.
        Raises: ShapeError if a bias does not fit the map; NonFiniteError for NaN or infinity.
        Source: arXiv:2410.08417, §2 ("Incorporating biases").
        """
        down, left, right = self._factors()
        for name, bias in (("left_bias", left_bias), ("right_bias", right_bias)):
            self._check_part(name, bias, (self.sizes.d_hidden,))
        crossed = down @ (right_bias[:, None] * left + left_bias[:, None] * right)
        constant = down @ (left_bias * right_bias)
        return replace(
            self, linear=add(self.linear, crossed), constant=add(self.constant, constant)
        )

    def plus_affine(
        self, linear: Tensor | None = None, constant: Tensor | None = None
    ) -> QuadraticMap:
        """Return x ↦ f(x) + linear x + constant, (out, in) and (out,), such as a residual path.

        Raises: ShapeError if a part does not fit the map; NonFiniteError for NaN or infinity.
        """
        affine = QuadraticMap(self.tensor, linear, constant)  # checks the parts before adding
        return replace(
            self,
            linear=add(self.linear, affine.linear),
            constant=add(self.constant, affine.constant),
        )

    def compose_output(self, matrix: Tensor, bias: Tensor | None = None) -> QuadraticMap:
        """Return x ↦ U f(x) + p, U (out', out) and p (out',): the map followed by an affine head.

        Cost: O(out' · out · (hidden + in)) time, O(out' · (hidden + in)) memory.
        Raises: ShapeError if U or p does not fit the map; NonFiniteError for NaN or infinity.
        """
        check_shape("matrix", matrix, ("out'", self.sizes.d_out), like=self.tensor.down)
        tensor = BilinearTensor(matrix @ self.tensor.down, self.tensor.left, self.tensor.right)
        linear = None if self.linear is None else matrix @ self.linear
        constant = None if self.constant is None else matrix @ self.constant
        return QuadraticMap(tensor, linear, constant, self.basis).plus_affine(constant=bias)

    def __add__(self, other: QuadraticMap) -> QuadraticMap:
        """Return x ↦ f(x) + g(x); the hidden units of both stand side by side.

        Raises: ShapeError if the maps differ in inputs, outputs or dtype; UsageError in bases.
        """
        if not isinstance(other, QuadraticMap):
            return NotImplemented
        mine, theirs = self.sizes, other.sizes
        if (mine.d_in, mine.d_out, self.dtype) != (theirs.d_in, theirs.d_out, other.dtype):
            raise ShapeError(
                f"maps {mine.d_in} → {mine.d_out} ({self.dtype}) and {theirs.d_in} → "
                f"{theirs.d_out} ({other.dtype}) cannot be added: sizes and dtype must agree."
            )
        if self.basis != other.basis:
            raise UsageError(
                f"maps that read the {self.basis} and the {other.basis} basis cannot be added: "
                f"{how_to_compare(self.basis, other.basis)}"
            )
        tensor = BilinearTensor(
            torch.cat([self.tensor.down, other.tensor.down], dim=1),
            torch.cat([self.tensor.left, other.tensor.left]),
            torch.cat([self.tensor.right, other.tensor.right]),
        )
        linear, constant = add(self.linear, other.linear), add(self.constant, other.constant)
        return QuadraticMap(tensor, linear, constant, self.basis)

    def __truediv__(self, factor: float | Tensor) -> QuadraticMap:
        return self * (1 / factor) if is_number(factor) else NotImplemented

    def __mul__(self, factor: float | Tensor) -> QuadraticMap:
        """Return x ↦ factor · f(x), for a number or a tensor of one; `2 * f` too."""
        if not is_number(factor):
            return NotImplemented
        down, left, right = self._factors()
        return QuadraticMap(
            BilinearTensor(factor * down, left, right),
            None if self.linear is None else factor * self.linear,
            None if self.constant is None else factor * self.constant,
            self.basis,
        )

    __rmul__ = __mul__

    def __neg__(self) -> QuadraticMap:
        return -1 * self

    def __sub__(self, other: QuadraticMap) -> QuadraticMap:
        """Return x ↦ f(x) − g(x), as `f + (-1) * g`; errors are those of a sum."""
        return self + -other if isinstance(other, QuadraticMap) else NotImplemented

    def to(self, dtype: torch.dtype | torch.device) -> QuadraticMap:
        """Return the same map in another dtype, or on another device."""
        return self._each_part(lambda part: part.to(dtype))

    def detach(self) -> QuadraticMap:
        """Return the same map, cut from the graph of gradients."""
        return self._each_part(Tensor.detach)

    def _each_part(self, change: Callable[[Tensor], Tensor]) -> QuadraticMap:
        down, left, right = self._factors()
        return QuadraticMap(
            BilinearTensor(change(down), change(left), change(right)),
            None if self.linear is None else change(self.linear),
            None if self.constant is None else change(self.constant),
            self.basis,
        )

    def _affine(self) -> tuple[Tensor, Tensor]:
        """Return the linear part, (out, in), and the constant, (out,); zeros where it is None."""
        d_out, _, d_in = self.sizes
        zero = self.tensor.down.new_zeros(())
        linear = zero.expand(d_out, d_in) if self.linear is None else self.linear
        return linear, zero.expand(d_out) if self.constant is None else self.constant

    def _factors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.tensor.down, self.tensor.left, self.tensor.right


STREAMS = ("residual stream", "activations")  # how bases inside a model begin
OTHER_STREAM = (
    "inside two models a direction may be written in any coordinates, and these are not shown to "
    "be the same: bl.audit(model, baseline=other) compares their layers where the embeddings of "
    "the tokens are near each other, and turns one stream into the other where it can; if you know "
    "that they are the same, say so, with dataclasses.replace(g, basis=f.basis)."
)


def how_to_compare(first: str, second: str) -> str:
    """Name the way to compare what is written in two bases."""
    if first.startswith(STREAMS) and second.startswith(STREAMS):
        return OTHER_STREAM
    return 'bring both into one basis with compose_input, or read them in the basis "input".'


def basis_of(kind: str, *weights: Tensor) -> str:
    """Return a kind of basis with a fingerprint of the weights that define it."""
    # What a first layer, or an embedding, makes of an input differs from model to model: numbers
    # in such coordinates may be compared only where the weights before them are the same.
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(weight.detach().to("cpu", torch.float64).contiguous().numpy().tobytes())
    return f"{kind} {digest.hexdigest()[:8]}"
