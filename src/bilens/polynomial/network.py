"""A polynomial network: tokens or inputs, parts that add to one stream, a linear head."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.shapes import check_shape
from bilens.base.checks import as_integer, check_count, check_finite, check_float_tensor
from bilens.base.errors import ShapeError, UsageError
from bilens.base.notebook import frozen_result
from bilens.polynomial.attention import BilinearAttention, KeysAndValues


@frozen_result("map", "residual")
class QuadraticLayer:
    """x ↦ f(x), or x + f(x) with a residual path: a bilinear layer, or a linear map.

    Attributes:
        map: f, from the stream to the stream.
        residual: whether f is added to the stream, or takes its place.
    """

    map: QuadraticMap
    residual: bool = True

    def __post_init__(self) -> None:
        d_in, _, d_out = self.map.sizes
        if self.residual and d_in != d_out:
            raise ShapeError(
                f"a layer from {d_in} to {d_out} channels cannot be added to its input."
            )

    def __call__(self, x: Tensor) -> Tensor:
        """Compute the stream behind the layer, (..., in) → (..., out)."""
        return x + self.map(x) if self.residual else self.map(x)

    @property
    def widths(self) -> tuple[int, int]:
        """How many channels it reads, and how many there are behind it."""
        return self.map.sizes.d_in, self.map.sizes.d_out

    @property
    def reference(self) -> Tensor:
        """A weight: its dtype and device are those of all."""
        return self.map.tensor.down

    def changed(self, change: Callable[[Tensor], Tensor]) -> QuadraticLayer:
        """Apply a function, such as a cast, to every weight."""
        return replace(self, map=self.map._each_part(change))


INTEGERS = (torch.int64, torch.int32, torch.int16, torch.uint8)
Part: TypeAlias = BilinearAttention | QuadraticLayer
Cache: TypeAlias = tuple[KeysAndValues | None, ...]  # of each part of the network


@frozen_result("part_names", "degree", "num_tokens", "d_in", "d_out")
class PolynomialNetwork:
    """A network that is a polynomial of its inputs: no softmax, no norm, no activation function.

    The stream of each position is its token's embedding, or an input; every part adds to it in
    turn (a layer without a residual path replaces it), and the head reads it. Scales of channels
    are folded into the weights that read the scaled stream.

    Attributes:
        parts: attentions and layers, in the order in which they run.
        embedding: (tokens, d_model); None where the network reads vectors.
        head: (outputs, d_model); None where the outputs are the stream.
        head_bias: (outputs,); None is zero. With a bias alone the head is the identity.
        positions: (n_ctx, d_model), added to the embeddings; None where there is none.
        n_ctx: how many positions the network was made for; None where it is not known.
        part_names: a name for each part, such as "attention 0"; made where none are given.
        checked_against: what it was compared with when it was read, in words; empty for nothing,
            and of a network in which something was replaced.

    Raises: UsageError if a part is none, names do not fit, or there are positions where neither
        tokens nor attention are; ShapeError if widths do not fit; NonFiniteError for NaN or
        infinity.
    """

    parts: tuple[Part, ...]
    embedding: Tensor | None = None
    head: Tensor | None = None
    head_bias: Tensor | None = None
    positions: Tensor | None = None
    n_ctx: int | None = None
    part_names: tuple[str, ...] = ()
    checked_against: str = field(default="", init=False)

    def __post_init__(self) -> None:
        width = None
        if self.embedding is not None:
            _, width = check_float_tensor("embedding", self.embedding, num_axes=2)
        if self.n_ctx is not None:
            check_count("n_ctx", self.n_ctx, minimum=1)
        for part in self.parts:
            if not isinstance(part, BilinearAttention | QuadraticLayer):
                raise UsageError(
                    f"a part is a {type(part).__name__}; expected BilinearAttention or "
                    "QuadraticLayer."
                )
            (reads, writes), own = part.widths, part.reference
            if (own.dtype, own.device) != (self.reference.dtype, self.reference.device):
                raise ShapeError(
                    f"a part is in {own.dtype} on {own.device}; expected "
                    f"{self.reference.dtype} on {self.reference.device}, as the others."
                )
            if width not in (None, reads):
                raise ShapeError(
                    f"a part reads {reads} channels; the stream before it has {width}."
                )
            width = writes
        if width is None:
            raise UsageError("a network without an embedding and without parts reads nothing.")
        if self.positions is not None and self.embedding is None and not self.attends:
            raise UsageError("positions are of texts: this network reads one vector at a time.")
        if self.head is None and self.head_bias is not None:
            object.__setattr__(self, "head", torch.eye(width).to(self.reference))
        weights: tuple[tuple[str, Tensor | None, tuple[int | str, ...]], ...] = (
            ("head", self.head, ("outputs", width)),
            ("head_bias", self.head_bias, (self.d_out,)),
            ("positions", self.positions, ("n_ctx", self.d_in)),
        )
        for name, weight, expected in weights:
            if weight is not None:
                check_shape(name, weight, expected, like=self.reference)
        if not self.part_names:
            kinds = ["layer" if isinstance(p, QuadraticLayer) else "attention" for p in self.parts]
            object.__setattr__(self, "part_names", number_kinds(kinds))
        if len({*self.part_names}) != len(self.parts) or len(self.part_names) != len(self.parts):
            raise UsageError(f"{len(self.parts)} parts need as many different names.")

    @property
    def reference(self) -> Tensor:
        """A weight: its dtype and device are those of all."""
        return self.parts[0].reference if self.embedding is None else self.embedding

    @property
    def attends(self) -> bool:
        """Whether there is attention: without it no position reads another one."""
        return any(isinstance(part, BilinearAttention) for part in self.parts)

    @property
    def longest(self) -> float:
        """How many positions there can be; infinity where it is not known."""
        known = self.n_ctx if self.positions is None else len(self.positions)
        return math.inf if known is None else known

    @property
    def optional_parts(self) -> tuple[str, ...]:
        """The names of the parts that can be left out: layers without residual path cannot."""
        named = zip(self.part_names, self.parts, strict=True)
        return tuple(n for n, p in named if not isinstance(p, QuadraticLayer) or p.residual)

    @property
    def num_tokens(self) -> int:
        """How many tokens there are; 0 where the network reads vectors."""
        return 0 if self.embedding is None else len(self.embedding)

    @property
    def d_in(self) -> int:
        """The width of the stream that the first part reads."""
        return self.parts[0].widths[0] if self.embedding is None else self.embedding.shape[1]

    @property
    def d_out(self) -> int:
        """The number of outputs."""
        if self.head is not None:
            return len(self.head)
        return self.parts[-1].widths[1] if self.parts else self.d_in

    @property
    def degree(self) -> int:
        """The degree of the outputs as a polynomial of the embeddings or inputs."""
        return math.prod(
            part.degree if isinstance(part, BilinearAttention) else 2 for part in self.parts
        )

    def to(self, dtype: torch.dtype) -> PolynomialNetwork:
        """Cast every weight; interactions are differences, and float64 loses least in them."""
        cast = self.changed(lambda weight: weight.detach().to(dtype))
        coarse = torch.finfo(dtype).eps > torch.finfo(torch.float32).eps  # another function
        return cast.compared_with("" if coarse else self.checked_against)

    @cached_property
    def in_other_precision(self) -> PolynomialNetwork:
        """The network in float32; of one that is not in float64, in float64."""
        return self.to(torch.float32 if self.reference.dtype == torch.float64 else torch.float64)

    def compared_with(self, source: str) -> PolynomialNetwork:
        """Return the network with what it was compared with, in words."""
        found = replace(self)
        object.__setattr__(found, "checked_against", source)
        return found

    def changed(self, change: Callable[[Tensor], Tensor]) -> PolynomialNetwork:
        """Apply a function, such as a cast, to every weight."""
        names = ("embedding", "head", "head_bias", "positions")
        weights = {name: getattr(self, name) for name in names}
        changed: Any = {name: change(one) for name, one in weights.items() if one is not None}
        parts = tuple(part.changed(change) for part in self.parts)
        return replace(self, parts=parts, **changed)

    def __call__(self, given: Tensor, positions: Sequence[int] | None = None) -> Tensor:
        """Compute the outputs at every position: tokens (..., n), or inputs (..., n, d_in).

        A network without attention takes inputs of any leading shape. Positions are those of the
        tokens that are there, 0 to n − 1 where none are given.

        Raises: UsageError if a token or a position is out of range; ShapeError for other shapes.
        """
        embedded = self.embed(given)
        if self.embedding is None and not self.attends and positions is None:
            return self.read_out(self.step(embedded, 0, ())[0])
        if embedded.ndim < 2 or embedded.shape[-2] == 0:
            raise ShapeError(
                f"what was given has shape {tuple(given.shape)}; expected texts (…, n) of at least "
                "one token, or inputs (…, n, d_in)."
            )
        length = embedded.shape[-2]
        places = tuple(range(length)) if positions is None else tuple(positions)
        if len(places) != length:
            raise ShapeError(f"{len(places)} positions were given for {length} tokens.")
        self.check_positions(places)
        x = embedded if self.positions is None else embedded + self.positions[list(places)]
        for part in self.parts:
            x = part(x) if isinstance(part, QuadraticLayer) else x + part(x, places)
        return self.read_out(x)

    def embed(self, given: Tensor) -> Tensor:
        """Look tokens up, or check inputs."""
        if self.embedding is None:
            check_shape("x", given, ("…", self.d_in), like=self.reference)
            return given
        if not isinstance(given, Tensor) or given.dtype not in INTEGERS:
            raise ShapeError("tokens must be a tensor of integers.")
        check_ids(given, self.num_tokens, "network")
        return self.embedding[given.long()]

    def check_positions(self, places: Sequence[int]) -> None:
        """Refuse positions that do not rise, or that the network was not made for."""
        if any(as_integer(place) is None or place < 0 for place in places) or any(
            later <= earlier for earlier, later in pairwise(places)
        ):
            raise UsageError(f"positions are {tuple(places)}; expected integers that rise from 0.")
        if places and places[-1] >= self.longest:
            raise UsageError(
                f"position {places[-1]} is beyond the {self.longest} that the network was made for."
            )

    def step(
        self,
        x: Tensor,
        position: int,
        earlier: Sequence[Cache],
        active: Collection[str] | None = None,
    ) -> tuple[Tensor, Cache]:
        """Run one position through all parts, given those before it that are there.

        Args:
            x: (..., d_in), the embedding of its token.
            position: where it stands.
            earlier: what `step` returned for the positions before; leading axes broadcast.
            active: names of the parts that add to the stream; None: all.

        Returns: the stream behind the last part, (..., width), and what later positions read.
        """
        if self.positions is not None:
            x = x + self.positions[position]
        if active is not None and (isinstance(active, str) or {*active} - {*self.part_names}):
            parts = ", ".join(self.part_names)
            raise UsageError(f"active is {active!r:.80}; expected names of the parts {parts}.")
        kept: list[KeysAndValues | None] = []
        for at, (name, part) in enumerate(zip(self.part_names, self.parts, strict=True)):
            runs = active is None or name in active
            if isinstance(part, QuadraticLayer):
                if runs:
                    x = part(x)
                elif not part.residual:
                    raise UsageError(f"{name} has no residual path: it cannot be left out.")
                kept.append(None)
            elif runs:
                seen = [one for cache in earlier if (one := cache[at]) is not None]
                y, own = part.attend(x, position, seen)
                x = x + y
                kept.append(own)
            else:
                kept.append(None)
        return x, tuple(kept)

    def read_out(self, stream: Tensor) -> Tensor:
        """Apply the head."""
        y = stream if self.head is None else stream @ self.head.T
        return check_finite("the output", y if self.head_bias is None else y + self.head_bias)


def check_ids(tokens: Tensor, known: int, owner: str) -> None:
    """Refuse ids of tokens that a network or a model does not know."""
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < known:
        raise UsageError(
            f"tokens run from {int(tokens.min())} to {int(tokens.max())}; the {owner} knows 0 to "
            f"{known - 1}."
        )


def number_kinds(kinds: Sequence[str]) -> tuple[str, ...]:
    """Name parts by their kind and number: attention 0, layer 0, attention 1."""
    return tuple(f"{kind} {kinds[:at].count(kind)}" for at, kind in enumerate(kinds))
