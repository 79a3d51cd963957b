"""One attention head, from its weights: what a query looks for in a key, and what it writes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bilens.algebra.shapes import check_index, check_shape
from bilens.base.checks import as_integer, check_count
from bilens.base.errors import ShapeError, UsageError
from bilens.base.notebook import frozen_result
from bilens.polynomial.attention import BilinearAttention
from bilens.polynomial.largest_products import factored_singular_values, largest_products
from bilens.polynomial.network import INTEGERS, PolynomialNetwork, check_ids
from bilens.polynomial.rotary import rotary_frequencies, rotate
from bilens.polynomial.score_form import ScoreForm

AT_ONCE = 4096  # tokens that are normalised and projected at a time


@frozen_result("embedding", "positions", "divides", "centred")
class TokenStream:
    """Embeddings of tokens and positions, the norm behind them, and what makes logits.

    A norm that `divides` does so by the root mean square, √(mean x² + epsilon), one that is
    `centred` takes the mean of the channels away before.
    """

    embedding: Tensor  # (tokens, d_model)
    positions: Tensor | None = None  # (n_ctx, d_model), added to it; None where there are none
    unembedding: Tensor | None = None  # (tokens, d_model), behind the last norm; None: unknown
    divides: bool = False
    centred: bool = False
    epsilon: float = 0.0

    def split(self, ids: Tensor, position: int | None = None) -> tuple[Tensor, Tensor]:
        """Compute tokens (n, d_model) and position (n, d_model): both add to the normed stream."""
        token = self.embedding[ids.to(self.embedding.device)].double()
        place = torch.zeros_like(token)
        if position is not None:
            most = 0 if self.positions is None else len(self.positions)
            if as_integer(position) not in range(most):
                raise UsageError(
                    f"position is {position!r}; the model adds {most} vectors of positions, "
                    "counted from 0; of rotary positions give the distance alone."
                )
            assert self.positions is not None, "there are some"
            place = place + self.positions[position].double()
        if self.centred:
            token, place = (one - one.mean(dim=-1, keepdim=True) for one in (token, place))
        size = torch.ones_like(token[:, :1])
        if self.divides:
            size = ((token + place).square().mean(dim=-1, keepdim=True) + self.epsilon).sqrt()
        return token / size, place / size


@frozen_result("layer", "head", "reads", "softmax", "window", "checked_against")
class AttentionHead:
    """A head as its weights say: scores as a bilinear form of two positions, and what is written.

    The form is exact *of the stream as the norm before it leaves it* (divided, the gain is in the
    weights). What a softmax makes of scores is no polynomial: `pattern` computes it for one text.

    Attributes:
        layer, head: where it is, counted from 0.
        forms: a `ScoreForm` of distance 0; two where patterns are multiplied (no softmax).
        value, value_bias: (d_head, d_model) and (d_head,), of what a position holds.
        out: (d_model, d_head), into the stream; a bias behind it belongs to all heads together.
        frequencies: (pairs,) radians per token, by which rotary positions turn; None for none.
        decay: r ≥ 0; a pattern without a softmax is times exp(−r · distance).
        softmax: whether the scores go through a softmax over the keys.
        window: how many positions, its own and those before, a query sees; None for all.
        n_ctx: how many positions the model was made for; None where nothing says.
        tokens: what tokens put into the stream; None where it is not known.
        reads: what the forms read, in words.
        checked_against: what it was compared with, in words; empty for nothing: *not verified*.
    """

    layer: int
    head: int
    forms: tuple[ScoreForm, ...]
    value: Tensor
    value_bias: Tensor
    out: Tensor
    frequencies: Tensor | None = None
    decay: float = 0.0
    softmax: bool = True
    window: int | None = None
    n_ctx: int | None = None
    tokens: TokenStream | None = None
    reads: str = "the residual stream itself"
    checked_against: str = ""

    @property
    def statement(self) -> str:
        """Say in words which part is exact, which is not, and whether it was compared."""
        said = f"Scores and what is written are exact of {self.reads}"
        if self.softmax:
            said += "; what the softmax makes of the scores depends on all keys of a text"
        checked = self.checked_against
        return f"{said}. {f'Compared with {checked}.' if checked else 'Not verified: nothing ran.'}"

    @classmethod
    def of_network(cls, network: PolynomialNetwork, layer: int, head: int) -> AttentionHead:
        """Read a head of a polynomial network; `layer` counts its attentions."""
        found = [part for part in network.parts if isinstance(part, BilinearAttention)]
        part = found[check_index("layer", layer, len(found))]
        width, at = part.d_head, check_index("head", head, part.n_head)
        rows, none = slice(at * width, (at + 1) * width), part.value.new_zeros(width)
        scale, base = 1 / math.sqrt(width), part.rotary_base
        tokens = None
        if network.embedding is not None:
            tokens = TokenStream(network.embedding, network.positions, network.head)
        return cls(
            layer,
            at,
            tuple(
                ScoreForm(one.query[rows] * scale, one.key[rows], none, none) for one in part.pairs
            ),
            part.value[rows],
            none,
            part.out[:, rows],
            None if base is None else rotary_frequencies(width, base).to(none),
            0.0 if part.decay is None else float(part.decay[at]),
            softmax=False,
            n_ctx=network.n_ctx,
            tokens=tokens,
            reads="the residual stream, its scale of channels in the weights",
            checked_against=network.checked_against,
        )

    def form(self, distance: int = 1, pair: int = 0) -> ScoreForm:
        """Return s for a query `distance` tokens behind the key: R(distance) is in its weights.

        The decay with the distance is in those of the first pair.

        Raises: UsageError for a distance at which no query sees a key.
        """
        distance = check_count("distance", distance, minimum=0)
        seen = [one for one in (self.window, self.n_ctx) if one is not None]
        if seen and distance >= min(seen):
            raise UsageError(
                f"distance is {distance}; a query of this head sees keys up to {min(seen) - 1} "
                "positions back."
            )
        one = self.forms[check_index("pair", pair, len(self.forms))]
        if pair == 0 and self.decay:
            faded = math.exp(-self.decay * distance)
            one = replace(one, query=one.query * faded, query_bias=one.query_bias * faded)
        if self.frequencies is None:
            return one
        width, angles = 2 * len(self.frequencies), distance * self.frequencies
        both = torch.cat([one.query.T, one.query_bias[None]])
        turned = rotate(both[:, :width], angles.cos(), angles.sin())
        both = torch.cat([turned, both[:, width:]], dim=1)
        return replace(one, query=both[:-1].T, query_bias=both[-1])

    def scores(self, queries: Tensor, keys: Tensor, distance: int = 1) -> Tensor:
        """Compute all scores, (n, d_model), (m, d_model) → (n, m); of two pairs their product."""
        for one in (queries, keys):
            check_shape("x", one, ("n", self.value.shape[1]))
        queries, keys = queries.double(), keys.double()
        found = [self.form(distance, pair)(queries, keys) for pair in range(len(self.forms))]
        return torch.stack(found).prod(dim=0)

    def pattern(self, x: Tensor) -> Tensor:
        """Compute the pattern at one text, (n, d_model) as the head reads it → (n, n).

        Raises: ShapeError for another width; UsageError for a text that is too long.
        """
        length, _ = check_shape("x", x, ("n", self.value.shape[1]))
        x = x.double()
        scores = x.new_full((length, length), -math.inf if self.softmax else 0.0)
        for distance in range(min(length, self.window or length)):
            behind, before, product = x[distance:], x[: length - distance], x.new_ones(())
            for pair in range(len(self.forms)):
                form = self.form(distance, pair)
                product = product * (form.queries_of(behind) * form.keys_of(before)).sum(dim=-1)
            scores.diagonal(-distance).copy_(product)
        return scores.softmax(dim=-1) if self.softmax else scores

    def write(self, x: Tensor) -> Tensor:
        """Compute what a key writes where the pattern is 1, (..., d_model) → the same."""
        return (x @ self.value.T + self.value_bias) @ self.out.T

    def stream_of(self, ids: Tensor, position: int | None = None) -> Tensor:
        """Compute what the head reads where tokens alone are in the stream, (n,) → (n, d_model)."""
        return torch.stack(self._known_tokens(ids).split(ids, position)).sum(dim=0)

    def split_scores(
        self, queries: Tensor, keys: Tensor, query_position: int, key_position: int
    ) -> dict[str, Tensor]:
        """Split scores of tokens (n,) and (m,) at absolute positions; the parts add up exactly.

        Returns: (n, m) each, "token–token", "token–position" (the query's token and the key's
            position), "position–token", "position–position" and "biases", all divided by the norm
            of token and position together.
        """
        tokens = self._known_tokens(queries)
        if len(self.forms) > 1 or tokens.positions is None:
            raise UsageError(
                "scores split into tokens and positions with one pair of query and key and vectors "
                "of positions; of rotary positions form(distance) is the positional part."
            )
        form = self.form(query_position - key_position)
        asked = tokens.split(queries, query_position)
        offered = self._known_tokens(keys).split(keys, key_position)
        names = ("token", "position")
        found = {
            f"{one}–{other}": (q @ form.query.T) @ (k @ form.key.T).T
            for one, q in zip(names, asked, strict=True)
            for other, k in zip(names, offered, strict=True)
        }
        linear = torch.add(*asked) @ form.query_term, torch.add(*offered) @ form.key_term
        rest = linear[0][:, None] + linear[1]
        return {**found, "biases": rest + form.constant}

    def top_token_pairs(
        self, k: int = 100, distance: int = 1, position: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Find the k pairs of tokens with the largest scores among all, exactly.

        Cost: O(tokens² · d_head) at most, blocks that cannot hold a larger score left out; memory
            O(tokens · d_head), no array of all pairs. Of 49,152 tokens and d_head 64 in a random
            model, where no block can be left out, 8 seconds of one core.

        Args:
            k: how many.
            distance: of the query behind the key, in tokens.
            position: of the query, whose vector of absolute positions is added, and the key's, too;
                None: tokens without a position.

        Returns: (k, 2) tokens of query and key by falling score, and (k,) scores; with a softmax
            above the mean score of all keys, which it never sees.

        Raises: UsageError if the tokens are not known, or there is no such position.
        """
        count = len(self._known_tokens().embedding)
        k = check_count("k", k, minimum=1)
        before = None if position is None else position - distance
        asked, offered, blocks = [], [], torch.split(torch.arange(count), AT_ONCE)
        for form in (self.form(distance, pair) for pair in range(len(self.forms))):
            asked.append(torch.cat([form.queries_of(self.stream_of(b, position)) for b in blocks]))
            keys = torch.cat([form.keys_of(self.stream_of(b, before)) for b in blocks])
            offered.append(keys - keys.mean(dim=0) if self.softmax else keys)
        return largest_products(asked, offered, k)

    def top_written(self, ids: Tensor | Sequence[int], k: int = 10) -> tuple[Tensor, Tensor]:
        """Find what a head writes for tokens: (n, k) outputs, and logits above the mean of all."""
        given, k = torch.as_tensor(ids), check_count("k", k, minimum=1)
        unembedding = self._known_unembedding()
        logits = self.write(self.stream_of(given)) @ unembedding.double().T
        top = (logits - logits.mean(dim=-1, keepdim=True)).topk(min(k, len(unembedding)), dim=-1)
        return top.indices, top.values

    @property
    def singular_values(self) -> Tensor:
        """The singular values of W_O W_V, falling, (d_head,)."""
        return factored_singular_values(self.out, self.value.T)

    @property
    def copying_score(self) -> float:
        """How much the head writes what it reads: Σ λ / Σ |λ| of token → logits, from −1 to 1.

        Math: token → logits is U W_O W_V E, (tokens, tokens); its eigenvalues that are not zero are
            those of the (d_head, d_head) matrix W_V E U W_O. E as the head reads tokens, U less the
            mean of all outputs.
        Source: Elhage et al., A Mathematical Framework for Transformer Circuits (2021).
        """
        unembedding = self._known_unembedding()
        if len(unembedding) != len(self._known_tokens().embedding):
            raise UsageError("outputs are not the tokens here: nothing is copied.")
        small = self.value.new_zeros(len(self.value), len(self.value))
        mean = unembedding.double().mean(dim=0)
        for block in torch.split(torch.arange(len(unembedding)), AT_ONCE):
            heard = (unembedding[block].double() - mean) @ self.out
            small += (self.stream_of(block) @ self.value.T).T @ heard
        values = torch.linalg.eigvals(small)
        total = float(values.abs().sum())
        return float(values.real.sum()) / total if total else 0.0

    def _known_unembedding(self) -> Tensor:
        found = self._known_tokens().unembedding
        if found is None:
            raise UsageError("the model has no unembedding that is known: no logits can be told.")
        return found

    def _known_tokens(self, ids: Tensor | None = None) -> TokenStream:
        if self.tokens is None:
            raise UsageError(
                "the tokens of the model are not known: it reads vectors, or has no embedding and "
                "head beside it; scores(queries, keys) takes vectors."
            )
        if ids is not None:
            if not isinstance(ids, Tensor) or ids.ndim != 1 or ids.dtype not in INTEGERS:
                raise ShapeError("tokens are given as a tensor of whole numbers, (n,).")
            check_ids(ids, len(self.tokens.embedding), "model")
        return self.tokens
