"""Interactions of one, two and three tokens in a polynomial network: exact, from the weights."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from bilens.base.checks import as_integer, check_choice, check_count
from bilens.base.errors import MemoryLimitError, ShapeError, UsageError
from bilens.base.notebook import html_summary
from bilens.polynomial.attention import BilinearAttention
from bilens.polynomial.network import Cache, PolynomialNetwork

MOST_NUMBERS = 1 << 26  # of a whole array of interactions; above it only the strongest are kept
MOST_ROWS = 1 << 27  # combinations of tokens that are tried, one by one
Measure: TypeAlias = Literal["logits", "probability"]
AT_ONCE = 1 << 22  # numbers of the stream that are held at a time


@dataclass(frozen=True, eq=False)
class TokenInteractions:
    """What tokens do together that none of them does without the others, for each output.

    Attributes:
        order: how many tokens: 1, 2 or 3.
        distance: how far each but the last stands before the last one.
        slots: the tokens that were tried at each place, the earliest place first.
        values: (tokens of each slot, …, outputs), or None where the array would be too large.
        strongest: (k, order + 1), tokens and the output of the k largest, by falling value.
        strongest_values: (k,), in logits above the mean of all outputs.
    """

    _repr_html_ = html_summary()

    order: int
    distance: tuple[int, ...]
    slots: tuple[Tensor, ...]
    values: Tensor | None
    strongest: Tensor
    strongest_values: Tensor


def token_interactions(
    network: PolynomialNetwork,
    order: int,
    *,
    distance: int | Sequence[int] | None = None,
    tokens: Sequence[Collection[int] | Tensor | None] | None = None,
    measure: Measure = "logits",
    k: int = 100,
) -> TokenInteractions:
    """Compute all interactions of so many tokens at their distances, on every output.

    Math: with f(S) the logits at the last position when only the positions in S hold a token,
        I(S) = Σ_{T ⊆ S, last ∈ T} (−1)^{|S| − |T|} f(T): f({q}) for one token, f({i, q}) − f({q})
        for two, f({i, j, q}) − f({i, q}) − f({j, q}) + f({q}) for three. Without a softmax a
        position without a token adds nothing, so the logits of a text are the sum of the
        interactions of all its subsets that hold the last position. Logits are told against
        the mean of all outputs, which no softmax sees. In probabilities f is their softmax: for
        two tokens, what the first changes of the probability of each output behind the second.
    Cost: one run of the last position for each combination of tokens; earlier positions are
        run once for each combination before them. Memory: the array of all, or the k strongest.

    Args:
        network: with an embedding, and with attention for more than one token.
        order: 1, 2 or 3.
        distance: of the earlier tokens to the last one: d for two tokens (1 where none is given),
            (d₁, d₂) with d₁ > d₂ for three ((2, 1) where none is given).
        tokens: the tokens to try at each place, the earliest first; None for all.
        measure: "logits" or "probability".
        k: how many of the strongest are listed.

    Raises:
        UsageError: If the order, a distance or a token is out of range, or the network has no
            tokens.
        MemoryLimitError: If more than 2²⁷ combinations would have to be tried.
    """
    places = check_distance(network, order, distance)
    slots = check_slots(network, order, tokens)
    check_count("k", k, minimum=1)
    check_choice("measure", measure, get_args(Measure))
    rows, outputs = math.prod(map(len, slots)), network.d_out
    if rows > MOST_ROWS:
        raise MemoryLimitError(
            f"{rows:,} combinations of {order} tokens would be tried, and {MOST_ROWS:,} are the "
            "most: name the tokens of each place with tokens=."
        )
    whole = rows * outputs <= MOST_NUMBERS
    kept, best, found = [], network.reference.new_zeros(0), torch.zeros(0, order + 1).long()
    for first, values in interaction_blocks(network, slots, places, measure):
        if whole:
            kept.append(values)
        near, at = values.flatten().topk(min(k, values.numel()))
        index = torch.stack(torch.unravel_index(at.cpu(), values.shape), dim=1)
        index[:, 0] += first
        ids = [slot[column] for slot, column in zip(slots, index.T, strict=False)]
        best, order_ = torch.cat([best, near]).sort(descending=True, stable=True)
        found = torch.cat([found, torch.stack([*ids, index[:, -1]], dim=1)])[order_.cpu()][:k]
        best = best[:k]
    before, array = places_before(places), torch.cat(kept) if whole else None
    return TokenInteractions(order, before, slots, array, found, best)


def interactions_of(
    network: PolynomialNetwork,
    tokens: Tensor,
    distance: int | Sequence[int] | None = None,
    measure: Measure = "logits",
    active: Collection[str] | None = None,
) -> Tensor:
    """Compute the interactions of given combinations of tokens, (n, order) → (n, outputs).

    Tokens stand in the order of the text, the last one last, and only the parts named in `active`
    run; the rest is as in `token_interactions`.
    """
    if not isinstance(tokens, Tensor) or tokens.ndim != 2 or tokens.is_floating_point():
        raise ShapeError("tokens must be integers, (combinations, order), the last token last.")
    places = check_distance(network, tokens.shape[1], distance)
    embedded = [network.embed(column) for column in tokens.T]
    return interact(network, embedded, places, measure, active)


def interaction_blocks(
    network: PolynomialNetwork,
    slots: Sequence[Tensor],
    places: Sequence[int],
    measure: Measure,
) -> Iterator[tuple[int, Tensor]]:
    """Compute the array of interactions block by block along its first axis."""
    order = len(slots)
    later = math.prod(map(len, slots[1:])) * max(network.d_in, network.d_out)
    rows = max(1, AT_ONCE // later)
    for first in range(0, len(slots[0]), rows):
        chosen = [slots[0][first : first + rows], *slots[1:]]
        embedded = []
        for axis, slot in enumerate(chosen):
            shape = [1] * order
            shape[axis] = len(slot)
            embedded.append(network.embed(slot).reshape(*shape, network.d_in))
        yield first, interact(network, embedded, places, measure)


def interact(
    network: PolynomialNetwork,
    embedded: Sequence[Tensor],
    places: Sequence[int],
    measure: Measure = "logits",
    active: Collection[str] | None = None,
) -> Tensor:
    """Compute I(S) of the outputs; leading axes of the embeddings broadcast."""
    *earlier, last = range(len(embedded))
    caches: dict[tuple[int, ...], list[Cache]] = {(): []}
    for size in range(1, len(earlier) + 1):
        for chosen in combinations(earlier, size):
            before, at = caches[chosen[:-1]], chosen[-1]
            _, own = network.step(embedded[at], places[at], before, active)
            caches[chosen] = [*before, own]
    total = None
    for chosen, cache in caches.items():
        value, _ = network.step(embedded[last], places[last], cache, active)
        if measure == "probability":
            value = network.read_out(value).softmax(dim=-1)
        signed = value if (len(earlier) - len(chosen)) % 2 == 0 else -value
        total = signed if total is None else total + signed
    assert total is not None, "the empty set of earlier tokens is always there"
    if measure == "probability":
        return total
    # of one token the head's bias is part of what it does alone; of more it cancels
    y = total if network.head is None else total @ network.head.T
    if not earlier and network.head_bias is not None:
        y = y + network.head_bias
    return y - y.mean(dim=-1, keepdim=True)


def check_distance(
    network: PolynomialNetwork, order: int, distance: int | Sequence[int] | None
) -> tuple[int, ...]:
    """Return the positions of the tokens, the earliest at 0."""
    if as_integer(order) not in (1, 2, 3):
        raise UsageError(f"order is {order!r}; expected 1, 2 or 3 tokens.")
    if order > 1 and not any(isinstance(part, BilinearAttention) for part in network.parts):
        raise UsageError("the network has no attention: its tokens do not meet; use order=1.")
    given = tuple(range(order - 1, 0, -1)) if distance is None else distance
    steps = (given,) if isinstance(given, int) else tuple(given)
    falls = all(a > b for a, b in pairwise(steps))
    if len(steps) != order - 1 or not falls or any((as_integer(d) or 0) < 1 for d in steps):
        raise UsageError(
            f"distance is {distance!r}; expected {order - 1} whole numbers of at least 1 that "
            "fall: how far each token but the last stands before the last one."
        )
    farthest = steps[0] if steps else 0
    places = (*(farthest - step for step in steps), farthest)
    network.check_positions(places)
    return places


def places_before(places: Sequence[int]) -> tuple[int, ...]:
    return tuple(places[-1] - place for place in places[:-1])


def check_slots(
    network: PolynomialNetwork,
    order: int,
    tokens: Sequence[Collection[int] | Tensor | None] | None,
) -> tuple[Tensor, ...]:
    """Return the tokens to try at each place, as tensors of ids."""
    if network.embedding is None:
        raise UsageError("the network reads vectors, not tokens: it has no embedding.")
    given = [None] * order if tokens is None else list(tokens)
    if len(given) != order:
        raise UsageError(f"tokens names {len(given)} places; expected {order}, the earliest first.")
    slots = []
    for one in given:
        ids = torch.arange(network.num_tokens) if one is None else torch.as_tensor(list(one))
        if ids.ndim != 1 or len(ids) == 0 or ids.is_floating_point():
            raise UsageError("the tokens of a place must be a list of ids that is not empty.")
        network.embed(ids)  # refuses what is out of range
        slots.append(ids.long())
    return tuple(slots)
