"""Interactions of one, two and three tokens in a polynomial network: exact, from the weights."""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import combinations, pairwise, product
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from bilens.base.checks import as_integer, check_choice, check_count, check_finite, check_type
from bilens.base.errors import MemoryLimitError, NonFiniteError, ShapeError, UsageError
from bilens.base.notebook import frozen_result
from bilens.polynomial.attention import BilinearAttention
from bilens.polynomial.network import INTEGERS, Cache, PolynomialNetwork, QuadraticLayer

MOST_NUMBERS = 1 << 26  # of a whole array of interactions; above it only the strongest are kept
MOST_ROWS = 1 << 27  # combinations of tokens that are tried, one by one
Measure: TypeAlias = Literal["logits", "probability"]
AT_ONCE = 1 << 22  # numbers of the widest layer that are held at a time
ROUNDING = 64  # units in the last place of the largest logit: a difference up to that is zero
MEASURED = 8  # of what another precision changes, in units of this one: up to that, too


@frozen_result()
class TokenInteractions:
    """Interactions of tokens on each output: the part of it that needs all of them together.

    Attributes:
        order: how many tokens: 1, 2 or 3.
        distance: how far each but the last stands before the last one.
        slots: the tokens that were tried at each place, the earliest place first.
        values: (tokens of each slot, …, outputs), or None where the array would be too large.
        strongest: (k, order + 1), tokens and the output of the k largest, by falling value.
        strongest_values: (k,), in logits above the mean of all outputs, or in probability.
        measure: "logits" or "probability".
    """

    order: int
    distance: tuple[int, ...]
    slots: tuple[Tensor, ...]
    values: Tensor | None
    strongest: Tensor
    strongest_values: Tensor
    measure: Measure = "logits"


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
        the mean of all outputs, which no softmax sees. The earliest token stands at position 0:
        with vectors of positions, interactions elsewhere in a text are others; rotary angles are
        formed in float32, which is 10⁻⁶ of an interaction at position 1,000. In probabilities:
        what the interaction changes of the softmax, softmax(f(S)) − softmax(f(S) − I(S)), for one
        token softmax(f).
        A difference that is rounding is zero: within 64 units in the last place of the largest
        logit, or 8 times what another precision changes, in units of this one.
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

    Raises: UsageError if the order, a distance or a token is out of range, or the network has no
        tokens; MemoryLimitError if more than 2²⁷ combinations would have to be tried.
    """
    check_type("network", network, PolynomialNetwork, "use bl.polynomial_network(model)")
    places = check_distance(network, order, distance)
    slots = check_slots(network, order, tokens)
    check_count("k", k, minimum=1)
    check_choice("measure", measure, get_args(Measure))
    rows, outputs, array = check_combinations(slots), network.d_out, None
    if rows * outputs <= MOST_NUMBERS:
        array = network.reference.new_empty(*map(len, slots), outputs)
    best, found = network.reference.new_zeros(0), torch.zeros(0, order + 1).long()
    for first, embedded in embedded_blocks(network, slots):
        values = interact(network, embedded, places, measure)
        if array is not None:
            ends = [start + size for start, size in zip(first, values.shape, strict=False)]
            array[tuple(slice(*one) for one in zip(first, ends, strict=True))] = values
        near, ids = largest_of_block(values, slots, first, k)
        best, falling = torch.cat([best, near]).sort(descending=True, stable=True)
        best, found = best[:k], torch.cat([found, ids])[falling.cpu()][:k]
    return TokenInteractions(order, places_before(places), slots, array, found, best, measure)


def largest_of_block(
    values: Tensor, slots: Sequence[Tensor], first: Sequence[int], k: int
) -> tuple[Tensor, Tensor]:
    """Find the k largest values of a block, (k,), with their tokens and output, (k, order + 1)."""
    largest, at = values.flatten().topk(min(k, values.numel()))
    index = torch.stack(torch.unravel_index(at.cpu(), values.shape), dim=1)
    index[:, :-1] += torch.tensor(first)
    ids = [slot[column] for slot, column in zip(slots, index.T, strict=False)]
    return largest, torch.stack([*ids, index[:, -1]], dim=1)


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
    check_type("network", network, PolynomialNetwork, "use bl.polynomial_network(model)")
    if not isinstance(tokens, Tensor) or tokens.ndim != 2 or tokens.dtype not in INTEGERS:
        raise ShapeError("tokens must be integers, (combinations, order), the last token last.")
    places = check_distance(network, tokens.shape[1], distance)
    embedded = [network.embed(column) for column in tokens.T]
    return interact(network, embedded, places, measure, active)


def interaction_parts(
    network: PolynomialNetwork, slots: Sequence[Tensor], places: Sequence[int]
) -> Tensor:
    """Compute f(S) − I(S) and I(S), (2, tokens of each slot, …, outputs), against their means."""
    found = network.reference.new_empty(2, *map(len, slots), network.d_out)
    for first, embedded in embedded_blocks(network, slots):
        logits, own, _ = interact_in_logits(network, embedded, places)
        rest = logits - own
        parts = torch.stack([rest - rest.mean(dim=-1, keepdim=True), own])
        ends = (slice(start, start + size) for start, size in zip(first, own.shape, strict=False))
        found[(slice(None), *ends)] = parts
    return found


def embedded_blocks(
    network: PolynomialNetwork, slots: Sequence[Tensor]
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Embed the tokens of the slots block by block, to broadcast; each with where it begins."""
    hidden = [part.map.sizes.d_hidden for part in network.parts if isinstance(part, QuadraticLayer)]
    heads = [len(part.value) for part in network.parts if isinstance(part, BilinearAttention)]
    room = max(1, AT_ONCE // max(network.d_in, network.d_out, *hidden, *heads))
    sizes: list[int] = []
    for slot in reversed(slots):
        sizes.insert(0, max(1, min(len(slot), room)))
        room = max(1, room // sizes[0])
    starts = (range(0, len(slot), size) for slot, size in zip(slots, sizes, strict=True))
    for first in product(*starts):
        embedded = []
        for axis, (slot, start, size) in enumerate(zip(slots, first, sizes, strict=True)):
            shape = [1] * len(slots)
            chosen = network.embed(slot[start : start + size])
            shape[axis] = len(chosen)
            embedded.append(chosen.reshape(*shape, network.d_in))
        yield list(first), embedded


def interact(
    network: PolynomialNetwork,
    embedded: Sequence[Tensor],
    places: Sequence[int],
    measure: Measure = "logits",
    active: Collection[str] | None = None,
) -> Tensor:
    """Compute I(S) of the outputs; leading axes of the embeddings broadcast."""
    logits, found, rounding = interact_in_logits(network, embedded, places, active)
    if measure == "logits":
        return found
    shares = logits.softmax(dim=-1)
    if len(embedded) == 1:
        return shares
    changed = shares - (logits - found).softmax(dim=-1)
    least = torch.finfo(changed.dtype).eps * ROUNDING  # a probability is at most 1
    return changed.masked_fill(changed.abs() <= rounding.clamp(min=least), 0)


def interact_in_logits(
    network: PolynomialNetwork,
    embedded: Sequence[Tensor],
    places: Sequence[int],
    active: Collection[str] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute f(S), I(S) against the mean of all outputs, and what of I(S) is rounding, (…, 1).

    An interaction that is not above rounding is zero: differences of logits that cancel leave
    their last bits. What cancels on the way to the logits is not seen in their size, so that the
    rounding is measured, too, by a run in another precision.
    """
    logits, found, rounding = sum_signed_runs(network, embedded, places, active)
    if len(embedded) > 1 and found.numel():
        other = network.in_other_precision
        mine, their = (torch.finfo(one.reference.dtype).eps for one in (network, other))
        with suppress(NonFiniteError):  # float32 overflows where float64 does not
            again = [one.to(other.reference) for one in embedded]
            apart = (found - sum_signed_runs(other, again, places, active)[1]).abs().max()
            rounding = rounding.clamp(min=float(apart) * min(1.0, mine / their) * MEASURED)
        found = found.masked_fill(found.abs() <= rounding, 0)
    return logits, found, rounding


def sum_signed_runs(
    network: PolynomialNetwork,
    embedded: Sequence[Tensor],
    places: Sequence[int],
    active: Collection[str] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute f(S), I(S) and the rounding of its logits, in the precision of the network."""
    *earlier, last = range(len(embedded))
    caches: dict[tuple[int, ...], list[Cache]] = {(): []}
    for size in range(1, len(earlier) + 1):
        for chosen in combinations(earlier, size):
            before, at = caches[chosen[:-1]], chosen[-1]
            _, own = network.step(embedded[at], places[at], before, active)
            caches[chosen] = [*before, own]
    total = largest = logits = network.reference.new_zeros(())
    for chosen, cache in caches.items():  # the whole set comes last
        value, _ = network.step(embedded[last], places[last], cache, active)
        logits = network.read_out(value)
        largest = torch.maximum(largest, logits.abs().amax(dim=-1, keepdim=True))
        total = total + (value if (len(earlier) - len(chosen)) % 2 == 0 else -value)
    rounding = largest * (ROUNDING * torch.finfo(largest.dtype).eps)
    if not earlier:  # nothing was subtracted
        y = logits - logits.mean(dim=-1, keepdim=True)
        return logits, check_finite("the interactions", y), rounding
    y = total if network.head is None else total @ network.head.T  # the head's bias cancels
    y = check_finite("the interactions", y - y.mean(dim=-1, keepdim=True))
    return logits, y, rounding


def single_largest(
    network: PolynomialNetwork, tokens: Tensor, distance: int | Sequence[int] | None = None
) -> Tensor:
    """Find the output with the largest interaction of each combination of tokens, (n,).

    −1 where there is no such one: where none is above zero, or two are equal up to rounding.
    """
    places = check_distance(network, tokens.shape[1], distance)
    embedded = [network.embed(column) for column in tokens.T]
    _, found, rounding = interact_in_logits(network, embedded, places)
    falling = found.sort(dim=1, descending=True)
    values = falling.values
    apart = values[:, 0] > 0
    if values.shape[1] > 1:
        apart &= values[:, 0] - values[:, 1] > rounding[:, 0]
    return falling.indices[:, 0].masked_fill(~apart, -1)


def check_distance(
    network: PolynomialNetwork, order: int, distance: int | Sequence[int] | None
) -> tuple[int, ...]:
    """Return the positions of the tokens, the earliest at 0."""
    if as_integer(order) not in (1, 2, 3):
        raise UsageError(f"order is {order!r}; expected 1, 2 or 3 tokens.")
    if order > 1 and not network.attends:
        raise UsageError("the network has no attention: its tokens do not meet; use order=1.")
    given: object = tuple(range(order - 1, 0, -1)) if distance is None else distance
    several = given if isinstance(given, tuple | list) else (given,)
    steps = tuple(as_integer(one) or 0 for one in several)  # none of them can be 0
    if len(steps) != order - 1 or any(a <= b for a, b in pairwise((*steps, 0))):
        wanted = {1: "none", 2: "a whole number", 3: "two whole numbers that fall"}[order]
        raise UsageError(
            f"distance is {distance!r}; expected {wanted} for {order} tokens: how far each but the "
            "last stands before the last one, at least 1."
        )
    farthest = steps[0] if steps else 0
    places = (*(farthest - step for step in steps), farthest)
    network.check_positions(places)
    return places


def places_before(places: Sequence[int]) -> tuple[int, ...]:
    return tuple(places[-1] - place for place in places[:-1])


def check_slots(
    network: PolynomialNetwork, order: int, tokens: Sequence[Collection[int] | Tensor | None] | None
) -> tuple[Tensor, ...]:
    """Return the tokens to try at each place, as tensors of ids."""
    if network.embedding is None:
        raise UsageError("the network reads vectors, not tokens: it has no embedding.")
    places: object = [None] * order if tokens is None else tokens
    if not isinstance(places, tuple | list) or len(places) != order:
        raise UsageError(f"tokens={tokens!r:.60}; expected {order} lists of ids, earliest first.")
    return tuple(token_ids(network, one) for one in places)


def check_combinations(slots: Sequence[Tensor]) -> int:
    """Return how many combinations of tokens there are; refuse too many."""
    count = math.prod(map(len, slots))
    if count > MOST_ROWS:
        raise MemoryLimitError(
            f"{count:,} combinations of {len(slots)} tokens would be tried, and {MOST_ROWS:,} are "
            "the most: name the tokens of each place with tokens=."
        )
    return count


def token_ids(network: PolynomialNetwork, given: object) -> Tensor:
    """Return the tokens of one place, (n,); all for None."""
    if given is None:
        return torch.arange(network.num_tokens)
    if isinstance(given, Tensor):
        ids = given if given.ndim == 1 and given.dtype in INTEGERS else given.new_zeros(0)
    else:
        numbers = [as_integer(one) for one in given] if isinstance(given, Iterable) else []
        whole = [number for number in numbers if number is not None]
        ids = torch.tensor(whole if len(whole) == len(numbers) else [], dtype=torch.int64)
    if len(ids) == 0:
        raise UsageError(f"the tokens of a place are {given!r:.60}; expected a list of whole ids.")
    network.embed(ids)  # refuses what is out of range
    rising = ids.sort().values
    if len(again := rising[1:][rising[1:] == rising[:-1]]):
        twice = int(again[0])
        raise UsageError(f"the tokens of a place have {twice} more than once; name each once.")
    return ids.long()
