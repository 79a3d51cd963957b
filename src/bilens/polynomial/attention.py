"""Bilinear attention: no softmax; the pattern is a product of query-key forms, so a polynomial."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import mul

import torch
from torch import Tensor

from bilens.algebra.shapes import check_shape
from bilens.base.checks import check_count, check_float_tensor
from bilens.base.errors import ShapeError, UsageError
from bilens.base.notebook import frozen_result
from bilens.polynomial.rotary import check_rotary_base, rotate, rotation_table


def fading(decay: Tensor, positions: Tensor) -> Tensor:
    """Compute exp(−r |q − i|) for each head and pair of positions, (heads, n, n)."""
    far = (positions[:, None] - positions).abs().to(decay)
    return torch.exp(-decay[:, None, None] * far)


@frozen_result("query", "key")
class QueryKeyPair:
    """One bilinear form of each head: the query's place times the key's.

    Attributes:
        query: (heads · d_head, d_model).
        key: as `query`.
    """

    query: Tensor
    key: Tensor


@dataclass(frozen=True, eq=False)
class KeysAndValues:
    """Keys and values of one position, head by head: a key for each pair of queries and keys."""

    keys: tuple[Tensor, ...]  # each (..., heads, d_head), turned to its position
    value: Tensor  # (..., heads, d_head)
    position: int


@frozen_result("n_head", "d_head", "degree", "rotary_base")
class BilinearAttention:
    """y_q = Σ_{i ≤ q} out · (A_qi v_i), with A_qi the product over pairs of q_q · k_i / √d_head.

    Where heads have a decay r, A_qi is times exp(−r (q − i)), a constant of the distance.
    Without a softmax a position that is not there adds nothing, and y is a polynomial of the
    stream: of degree 3 with one pair of queries and keys, of degree 5 with two.

    Attributes:
        pairs: one or two pairs of queries and keys, whose forms are multiplied.
        value: (heads · d_head, d_model).
        out: (d_model, heads · d_head).
        n_head: number of heads.
        rotary_base: base of the rotary angles of queries and keys; None: no rotary positions.
        decay: (n_head,), how fast each head's pattern falls with the distance, a rate of at least
            0; None: it does not.

    Raises: UsageError if there are no pairs, more than two, an odd width with rotary positions, or
        a decay below 0; ShapeError if the parts do not fit together; NonFiniteError for NaN or
        infinity.
    """

    pairs: tuple[QueryKeyPair, ...]
    value: Tensor
    out: Tensor
    n_head: int
    rotary_base: float | None = None
    decay: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.pairs) not in (1, 2):
            raise UsageError(
                f"an attention with {len(self.pairs)} pairs of queries and keys; expected one or "
                "two, whose patterns are multiplied."
            )
        width, d_model = check_float_tensor("value", self.value, num_axes=2)
        heads = check_count("n_head", self.n_head, minimum=1)
        parts: dict[str, tuple[Tensor, tuple[int, ...]]] = {"out": (self.out, (d_model, width))}
        for number, pair in enumerate(self.pairs):
            parts[f"query {number}"] = pair.query, (width, d_model)
            parts[f"key {number}"] = pair.key, (width, d_model)
        if self.decay is not None:
            parts["decay"] = self.decay, (heads,)
        for name, (part, expected) in parts.items():
            check_shape(name, part, expected, like=self.value)
        if width % heads:
            raise ShapeError(f"{width} rows of the value are not {heads} heads of one width.")
        if self.decay is not None and float(self.decay.min()) < 0:
            raise UsageError("a decay is below 0: patterns would grow with the distance.")
        if self.rotary_base is not None:
            check_rotary_base(self.rotary_base)
            if self.d_head % 2:
                raise UsageError(f"rotary positions need an even width, not {self.d_head}.")

    @property
    def widths(self) -> tuple[int, int]:
        """How many channels it reads, and how many there are behind it."""
        return self.value.shape[1], self.value.shape[1]

    @property
    def reference(self) -> Tensor:
        """A weight: its dtype and device are those of all."""
        return self.value

    @property
    def d_head(self) -> int:
        """The width of a head."""
        return len(self.value) // self.n_head

    @property
    def degree(self) -> int:
        """The degree of the output in the stream that it reads."""
        return 2 * len(self.pairs) + 1

    def scaled(self, scale: Tensor) -> BilinearAttention:
        """Fold a scale for each channel, (d_model,), into the weights that read the stream."""
        check_shape("a scale of channels", scale, self.value.shape[1:], like=self.value)
        pairs = tuple(QueryKeyPair(one.query * scale, one.key * scale) for one in self.pairs)
        return replace(self, pairs=pairs, value=self.value * scale)

    def changed(self, change: Callable[[Tensor], Tensor]) -> BilinearAttention:
        """Apply a function, such as a cast, to every weight."""
        pairs = tuple(QueryKeyPair(change(one.query), change(one.key)) for one in self.pairs)
        decay = None if self.decay is None else change(self.decay)
        value, out = change(self.value), change(self.out)
        return replace(self, pairs=pairs, value=value, out=out, decay=decay)

    def __call__(self, x: Tensor, places: Sequence[int]) -> Tensor:
        """Compute the output at every position, (..., n, d_model) → the same.

        Args:
            x: (..., n, d_model), the stream at each position.
            places: n positions that rise; each reads itself and those before it.
        """
        at = torch.as_tensor(places)
        value = self._heads(x, self.value, None).transpose(-3, -2)  # (..., heads, n, d_head)
        pattern = value.new_ones(len(at), len(at)).tril()
        if self.decay is not None:
            pattern = pattern * fading(self.decay, at.to(value.device))
        for pair in self.pairs:
            query = self._heads(x, pair.query, at).transpose(-3, -2)
            key = self._heads(x, pair.key, at).transpose(-3, -2)
            pattern = pattern * (query @ key.mT / math.sqrt(self.d_head))
        y: Tensor = (pattern @ value).transpose(-3, -2).flatten(-2) @ self.out.T
        return y

    def attend(
        self, x: Tensor, position: int, earlier: Sequence[KeysAndValues]
    ) -> tuple[Tensor, KeysAndValues]:
        """Compute the output at one position, and what the position offers to later ones.

        Args:
            x: (..., d_model), the stream there.
            position: where it is.
            earlier: of the positions before it that are there; their leading axes broadcast
                against those of x.
        """
        own = KeysAndValues(
            tuple(self._heads(x, one.key, position) for one in self.pairs),
            self._heads(x, self.value, None),
            position,
        )
        queries = [self._heads(x, one.query, position) for one in self.pairs]

        def added_by(key: KeysAndValues) -> Tensor:  # what one position adds, (..., heads, d_head)
            pairs = zip(queries, key.keys, strict=True)
            scores = ((q * k).sum(dim=-1, keepdim=True) / math.sqrt(self.d_head) for q, k in pairs)
            if self.decay is None:
                return reduce(mul, scores) * key.value
            faded = torch.exp(-self.decay * (position - key.position))[:, None]
            return faded * reduce(mul, scores) * key.value

        total = reduce(torch.add, map(added_by, (*earlier, own)))
        return total.flatten(-2) @ self.out.T, own

    def _heads(self, x: Tensor, weight: Tensor, place: int | Tensor | None) -> Tensor:
        """Apply a weight, split its rows into heads, and turn them to one place, or to each one."""
        rows = x @ weight.T
        split = rows.view(*rows.shape[:-1], self.n_head, self.d_head)
        if place is None or self.rotary_base is None:
            return split
        size = 1 << (int(torch.as_tensor(place).max()) + 1).bit_length()  # few sizes are kept
        table = rotation_table(size, self.d_head, self.rotary_base, x.dtype, x.device)
        cosines, sines = (part[place].unsqueeze(-2) for part in table)
        return rotate(split, cosines, sines)
