"""A transformer with softmax and norms at one text: both held there, the rest is a polynomial."""

from collections.abc import Collection, Iterator, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from bilens.algebra.quadratic_form import QuadraticForm
from bilens.algebra.quadratic_map import QuadraticMap, basis_of
from bilens.algebra.shapes import check_shape
from bilens.base.checks import as_integer, check_count, check_finite, check_float_tensor
from bilens.base.errors import MemoryLimitError, ShapeError, UsageError
from bilens.base.notebook import frozen_result
from bilens.polynomial.network import number_kinds
from bilens.polynomial.paths import MOST_PARTS, PathSplit, split_by_parts

MOST_PATH_NUMBERS = 1 << 27  # of all paths together
EMBEDDING, CONSTANT, DIRECT = "embedding", "constant", "direct"
BASIS = "residual stream at this text"
Output: TypeAlias = int | tuple[int, int] | Tensor


@frozen_result("factor", "gain", "bias", "centred")
class HeldNorm:
    """x ↦ factor · gain ∘ x + bias at each position, with the factors that the norm had at a text.

    With `centred` the mean of x is taken away first, as a LayerNorm does.
    """

    factor: Tensor  # (n,), one over the size by which each position was divided
    gain: Tensor | None = None  # (d_model,); None is 1
    bias: Tensor | None = None  # (d_model,); None is 0
    centred: bool = False

    def linear(self, x: Tensor, position: int | slice = slice(None)) -> Tensor:
        """Apply the norm without its bias, (…, n, d_model), or (…, d_model) of one position."""
        x = x - x.mean(dim=-1, keepdim=True) if self.centred else x
        x = x if self.gain is None else x * self.gain
        factor = self.factor[position]
        return x * (factor[:, None] if factor.ndim else factor)

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the held norm at every position, (…, n, d_model) → the same."""
        y = self.linear(x)
        return y if self.bias is None else y + self.bias


@frozen_result("pattern", "value", "out")
class HeldAttention:
    """Attention whose patterns are held: linear in the stream."""

    norm: HeldNorm  # before it
    pattern: Tensor  # (heads, n, n), what each position (row) takes from each other one
    value: Tensor  # (heads, d_head, d_model)
    out: Tensor  # (heads, d_model, d_head)
    value_bias: Tensor | None = None  # (heads, d_head); None is 0
    out_bias: Tensor | None = None  # (d_model,); None is 0

    def __call__(self, x: Tensor) -> Tensor:
        """Compute what is added to the stream, (…, n, d_model) → the same."""
        y = torch.einsum("hqk,...khe,hde->...qd", self.pattern, self._values(x), self.out)
        return y if self.out_bias is None else y + self.out_bias

    def by_source(self, x: Tensor, position: int) -> Tensor:
        """Split what is added at a position by head and source, (n, d) → (heads, n, d_model)."""
        return torch.einsum("hk,khe,hde->hkd", self.pattern[:, position], self._values(x), self.out)

    def _values(self, x: Tensor) -> Tensor:
        values = torch.einsum("...kd,hed->...khe", self.norm(x), self.value)
        return values if self.value_bias is None else values + self.value_bias


@frozen_result("norm", "map")
class HeldMLP:
    """A quadratic MLP behind a held norm."""

    norm: HeldNorm
    map: QuadraticMap

    def __call__(self, x: Tensor) -> Tensor:
        """Compute what is added to the stream, (…, n, d_model) → the same."""
        return self.map(self.norm(x))


HeldPart: TypeAlias = HeldAttention | HeldMLP


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


@frozen_result("tokens", "part_names", "checked_against")
class NetworkAtText:
    """A transformer at one text: with its patterns and norms held there, a polynomial, in float64.

    Everything here is about *this text*: on another one patterns and norms are others. Of what
    would change if a token were another one nothing is said, for patterns and norms would move.

    Attributes:
        tokens: (n,), the text.
        logits: (n, outputs), of the caller's own model as it ran, in its dtype.
        embedded: (n, d_model), the stream before the first part: embeddings, and positions if any.
        parts: attentions and MLPs in their order.
        norm: the held norm before the head.
        head: (outputs, d_model).
        head_bias: (outputs,); None is zero.
        checked_against: what the sum of all parts was compared with, in words.
    """

    tokens: Tensor
    logits: Tensor
    embedded: Tensor
    parts: tuple[HeldPart, ...]
    norm: HeldNorm
    head: Tensor
    head_bias: Tensor | None = None
    checked_against: str = ""

    @property
    def part_names(self) -> tuple[str, ...]:
        """A name for each part: "attention 0", "mlp 0", "attention 1"."""
        return number_kinds(
            ["attention" if isinstance(part, HeldAttention) else "mlp" for part in self.parts]
        )

    def __call__(
        self, embedded: Tensor | None = None, active: Collection[str] | None = None
    ) -> Tensor:
        """Compute the logits at every position with patterns and norms held at this text.

        Args:
            embedded: (…, n, d_model), other embeddings; None for those of the text. The result is
                a polynomial of them: of degree 2 to the number of MLPs.
            active: names of the parts that add to the stream; None for all.

        Returns: (…, n, outputs).

        Raises: UsageError if there is no part of a name; ShapeError if the embeddings are not of
            this text.
        """
        x = self.embedded if embedded is None else embedded
        check_shape("embedded", x, ("…", *self.embedded.shape), like=self.head)
        if unknown := sorted({*(active or ())} - {*self.part_names}):
            raise UsageError(
                f"there is no part {unknown[0]!r}; the parts are {', '.join(self.part_names)}."
            )
        for name, part in zip(self.part_names, self.parts, strict=True):
            if active is None or name in active:
                x = x + part(x)
        y = self.norm(x) @ self.head.T
        return check_finite("the logits", y if self.head_bias is None else y + self.head_bias)

    def paths(self, output: Output | None = None, position: int = -1) -> PathSplit:
        """Split the logits at a position of this text by the parts that each term passes.

        Math: with m(A) the logits when only the parts in A add to the stream, patterns and norms
            held, the path through exactly A adds Σ_{B ⊆ A} (−1)^{|A| − |B|} m(B). The path without
            parts is the embedding read by the head.
        Cost: 2^parts runs of the text, ten parts at most.

        Args:
            output: a token, a pair (a, b) for logit a − logit b, or (outputs,) weights of all
                logits; None for each logit.
            position: whose logits, counted from the end where it is negative.

        Returns: values (paths,), or (paths, outputs) where no output is named.

        Raises: UsageError if there are more than ten parts, or no such position or output;
            MemoryLimitError if all paths of all outputs would not fit: name an output.
        """
        at = self._place(position)
        weights = None if output is None else self._direction(output)
        numbers = len(self.head) << len(self.parts)
        if weights is None and len(self.parts) <= MOST_PARTS and numbers > MOST_PATH_NUMBERS:
            raise MemoryLimitError(
                f"{1 << len(self.parts):,} paths of {len(self.head):,} outputs are more than "
                f"{MOST_PATH_NUMBERS:,} numbers: name an output."
            )

        def measure(active: Collection[str]) -> Tensor:
            logits = self(active=active)[at]
            return logits if weights is None else logits @ weights

        return split_by_parts(
            self.part_names, measure, instead="; the named interactions are given for any number"
        )

    def interactions(self, output: Output, position: int = -1) -> NamedInteractions:
        """Write a logit at a position of this text as a sum of named interactions.

        Math: logit = direct + Σ heads, sources + Σ MLPs Σ_{a ≤ b} pairs[a, b] + constant. Each is
            what it adds to the stream, times the factor of the held last norm, times the head's
            row. With q the `QuadraticForm` of an MLP along that direction and x_a its named
            inputs (the embedding, each head of each attention before it, each MLP before it), each
            behind the held norm, a pair adds x_aᵀQx_b + x_bᵀQx_a, a square x_aᵀQx_a; the linear
            part of q is the pair of x_a with the constant.
        Cost: one run of the text, and O(hidden · inputs · (d_model + inputs)) for each MLP.

        Args:
            output: a token, a pair (a, b) for logit a − logit b, or (outputs,) weights of all
                logits.
            position: whose logits, counted from the end where it is negative.

        Raises: UsageError or ShapeError if there is no such position or output.
        """
        at, weights = self._place(position), self._direction(output)
        read = weights @ self.head  # (d_model,), what the last norm's output is read along

        def added_by(y: Tensor) -> Tensor:  # to the output, by an addition to the stream
            return self.norm.linear(y, at) @ read

        x, names, inputs = self.embedded, [EMBEDDING], [self.embedded[at]]
        constant = x.new_zeros(x.shape[-1])
        heads: dict[str, Tensor] = {}
        mlps: dict[str, Tensor] = {}
        of_mlps: dict[str, tuple[str, ...]] = {}
        for name, part in zip(self.part_names, self.parts, strict=True):
            if isinstance(part, HeldAttention):
                split = part.by_source(x, at)
                heads[name] = added_by(split)
                inputs += [*split.sum(dim=1)]
                names += [f"{name} head {number}" for number in range(len(split))]
                constant = constant if part.out_bias is None else constant + part.out_bias
            else:
                seen = [part.norm.linear(one, at) for one in (*inputs, constant)]
                if part.norm.bias is not None:
                    seen[-1] = seen[-1] + part.norm.bias
                # the direction in the stream along which the MLP is read
                gain = self.norm.linear(torch.eye(len(read)).to(read), at) @ read
                mlps[name] = pair_table(part.map.form(gain), torch.stack(seen))
                of_mlps[name] = (*names, CONSTANT)
                inputs.append(part(x)[at])
                names.append(name)
            x = x + part(x)
        fixed = added_by(constant)
        fixed = fixed if self.norm.bias is None else fixed + self.norm.bias @ read
        fixed = fixed if self.head_bias is None else fixed + self.head_bias @ weights
        return NamedInteractions(
            position=at,
            direct=added_by(self.embedded[at]),
            heads=heads,
            pairs=mlps,
            inputs=of_mlps,
            constant=fixed,
            logit=self.logits[at].double() @ weights,
        )

    def mlp_map(self, name: str, position: int = -1) -> QuadraticMap:
        """Return an MLP at a position of this text as a map of the stream, its norm folded in.

        Raises: UsageError if there is no MLP of the name, or no such position.
        """
        found = dict(zip(self.part_names, self.parts, strict=True)).get(name)
        if not isinstance(found, HeldMLP):
            raise UsageError(
                f"there is no MLP {name!r}; the parts are {', '.join(self.part_names)}."
            )
        eye = torch.eye(self.embedded.shape[-1]).to(self.embedded)
        matrix = found.norm.linear(eye, self._place(position)).T
        # the stream as this text has it: of another text the norm has other factors
        return found.map.compose_input(matrix, found.norm.bias, basis_of(BASIS, self.embedded))

    def _place(self, position: int) -> int:
        number, length = as_integer(position), len(self.tokens)
        if number is None or not -length <= number < length:
            raise UsageError(f"position is {position!r}; this text has {length} tokens.")
        return number % length

    def _direction(self, output: Output) -> Tensor:
        """Return the weight of each logit, (outputs,)."""
        outputs, given = len(self.head), output
        if isinstance(given, Tensor) and given.ndim:
            (length,) = check_float_tensor("output", given, num_axes=1)
            if length != outputs:
                raise ShapeError(f"output has {length} entries; the model has {outputs} logits.")
            return given.to(self.head)
        pair = given if isinstance(given, tuple) and len(given) == 2 else (given,)
        weights = self.head.new_zeros(outputs)
        for sign, one in zip((1.0, -1.0), pair, strict=False):
            number = as_integer(one)
            if number is None or not 0 <= number < outputs:
                raise UsageError(
                    f"output is {output!r}; expected a token from 0 to {outputs - 1}, two of them "
                    "for the difference of their logits, or a tensor of weights of all logits."
                )
            weights[number] += sign
        return weights


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
