"""Null distribution of token interactions: the same network behind a randomly turned embedding."""

import hashlib
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor

from bilens.algebra.random_rotations import random_frame
from bilens.base.checks import check_choice, check_count, check_type, generator_of
from bilens.base.errors import MemoryLimitError, UsageError
from bilens.base.notebook import frozen_result
from bilens.polynomial.network import PolynomialNetwork
from bilens.polynomial.token_interactions import (
    Measure,
    TokenInteractions,
    check_distance,
    check_slots,
    interaction_parts,
    places_before,
)

MOST_POOLED = 1 << 27  # numbers of all turned networks together


@frozen_result("num_samples", "seed")
class InteractionChance:
    """Interactions of networks whose embedding was turned at random, pooled over all tokens.

    A turned embedding keeps the mean and the covariance of the tokens and knows nothing of the rest
    of the network. Its logits have another size, and so are brought to the size of the network's
    own: an interaction in logits is told in units of its table's root mean square, and a
    probability is that of logits of which both parts, f(S) − I(S) and I(S), have the root mean
    square that the network's have.

    Attributes:
        pooled: every interaction of every turned network, rising: in logits, in units of its
            table's RMS; else a change of a probability.
        num_samples: how many turned networks.
        seed: of the rotations.
        made_as: order, distance, measure and tokens of the tables: what can be compared with it.
    """

    pooled: Tensor
    num_samples: int
    seed: int
    made_as: tuple[object, ...]

    def share_as_large(self, found: TokenInteractions) -> Tensor:
        """Compute, for each interaction, the share of pooled ones at least as large.

        It is uniform over a whole table of chance. Of one token it is no p-value: a token with a
        longer embedding has larger interactions in every turned network, too.

        Raises: MemoryLimitError if the array of the interactions was not kept; UsageError if they
            are of another order, distance, measure or size.
        """
        return self._share(self._compared(found))

    def share_of_strongest(self, found: TokenInteractions) -> Tensor:
        """Compute `share_as_large` of the strongest alone, (k,), without an array of all shares."""
        return self._share(self._compared(found).flatten().topk(len(found.strongest)).values)

    def _share(self, in_units: Tensor) -> Tensor:
        above = len(self.pooled) - torch.searchsorted(self.pooled, in_units)
        return (above + 1) / (len(self.pooled) + 1)

    def count_beyond(self, found: TokenInteractions, false_share: float = 0.05) -> int:
        """Count the largest interactions of which at most such a share is expected by chance.

        The k largest are counted where the turned networks, each on average, have at most
        false_share · k as large (Benjamini and Hochberg).

        Raises: as `share_as_large`, and UsageError if the share is not between 0 and 1, or there
            are fewer than 1 / false_share − 1 turned networks: the largest interaction of a table
            that is chance exceeds those of n others in one of n + 1 cases.
        """
        if not 0 < false_share < 1:
            raise UsageError(f"false_share is {false_share!r}; expected a number between 0 and 1.")
        if (self.num_samples + 1) * false_share < 1 - 1e-9:
            raise UsageError(
                f"{self.num_samples} turned networks tell nothing at a false share of "
                f"{false_share}: it takes {math.ceil(1 / false_share - 1e-9) - 1} or more."
            )
        values = self._compared(found).flatten().sort(descending=True).values
        above = len(self.pooled) - torch.searchsorted(self.pooled, values)
        ranks = torch.arange(1, len(values) + 1, dtype=torch.float64)
        fits = above / self.num_samples <= false_share * ranks
        return int(fits.nonzero().max()) + 1 if bool(fits.any()) else 0

    def _compared(self, found: TokenInteractions) -> Tensor:
        check_type("found", found, TokenInteractions, "use bl.token_interactions(network, …)")
        if found.values is None:
            raise MemoryLimitError(
                "the array of these interactions was too large to keep, and chance is told of all "
                "of them: name fewer tokens with tokens=."
            )
        given = made_as(found.distance, found.measure, found.slots)
        if given != self.made_as:
            raise UsageError(
                f"interactions of (order, distance, measure, tokens) {given} were given, and "
                f"chance is of {self.made_as}: compute both with the same arguments."
            )
        values = found.values.double()
        return values / sizes_of(values[None]) if found.measure == "logits" else values


def made_as(
    distance: tuple[int, ...], measure: Measure, slots: Sequence[Tensor]
) -> tuple[object, ...]:
    """Return order, distance, measure and tokens of a table: two are compared if these agree."""
    hashes = (hashlib.sha256(slot.cpu().numpy().tobytes()).hexdigest() for slot in slots)
    tokens = (f"{len(slot)} tokens {h[:8]}" for slot, h in zip(slots, hashes, strict=True))
    return len(slots), distance, measure, tuple(tokens)


def interaction_chance(
    network: PolynomialNetwork,
    order: int,
    *,
    distance: int | Sequence[int] | None = None,
    tokens: Sequence[Collection[int] | Tensor | None] | None = None,
    measure: Measure = "logits",
    num_samples: int = 20,
    seed: int = 0,
) -> InteractionChance:
    """Compute the interactions of networks whose embedding is turned by random rotations.

    Math: with E the embedding less its mean m, E = U S Wᵀ and O Haar-distributed, it becomes
        m + U O S Wᵀ, which keeps mean and covariance and is the same null however the channels of
        the stream are scaled or mixed; all else is the network's. A change of a probability is
        softmax(b + I) − softmax(b), where I and b = f(S) − I(S), both against the mean of all
        outputs, are brought to the root mean square that they have in the network itself; of one
        token b = 0, and it is softmax(I).
    Cost: `num_samples` times `token_interactions`, whose arguments these are.

    Raises: UsageError as `token_interactions`, or if `num_samples` is below 1; MemoryLimitError if
        the interactions of all samples would not fit.
    """
    check_count("num_samples", num_samples, minimum=1)
    check_type("network", network, PolynomialNetwork, "use bl.polynomial_network(model)")
    check_choice("measure", measure, get_args(Measure))
    places, slots = check_distance(network, order, distance), check_slots(network, order, tokens)
    numbers = math.prod(map(len, slots)) * network.d_out
    if num_samples * numbers > MOST_POOLED:
        raise MemoryLimitError(
            f"{num_samples} samples of {numbers:,} interactions are more than {MOST_POOLED:,} "
            "numbers: name fewer tokens with tokens=, or take fewer samples."
        )
    sizes = sizes_of(interaction_parts(network.to(torch.float64), slots, places))
    tables = list[Tensor]()
    for turned in turned_networks(network, num_samples, seed):
        parts = interaction_parts(turned, slots, places)
        if measure == "logits":
            table = parts[1] / sizes_of(parts)[1]
        else:  # brought to the size of the network's own
            by = zip(parts, sizes / sizes_of(parts), strict=True)
            rest, found = (part * size for part, size in by)
            table = (rest + found).softmax(dim=-1)
            table = table - rest.softmax(dim=-1) if order > 1 else table
        tables.append(table.flatten())
    made = made_as(places_before(places), measure, slots)
    return InteractionChance(torch.cat(tables).sort().values, num_samples, seed, made)


def turned_networks(
    network: PolynomialNetwork, num_samples: int, seed: int
) -> Iterator[PolynomialNetwork]:
    """Yield the network behind embeddings that are turned by random rotations, in float64."""
    network, generator = network.to(torch.float64), generator_of(seed)
    if network.embedding is None:
        raise UsageError("the network reads vectors, not tokens: it has no embedding to turn.")
    centre = network.embedding.mean(dim=0)
    u, s, w = torch.linalg.svd(network.embedding - centre, full_matrices=False)
    rank = int((s > s.max() * len(network.embedding) * torch.finfo(s.dtype).eps).sum())
    for _ in range(num_samples):
        turn = random_frame(rank, rank, generator).to(network.reference)
        turned = u[:, :rank] @ turn * s[:rank] @ w[:rank]
        yield replace(network, embedding=centre + turned)


def sizes_of(parts: Tensor) -> Tensor:
    """Compute the root mean square of each part, (parts,), at least the smallest number."""
    flat = parts.double().flatten(1)
    tiny = torch.finfo(flat.dtype).tiny
    largest = flat.abs().amax(dim=1).clamp(min=tiny)
    return (largest * (flat / largest[:, None]).square().mean(dim=1).sqrt()).clamp(min=tiny)
