"""Null distribution of token interactions: the same network behind a randomly turned embedding."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bilens.algebra.random_rotations import random_frame
from bilens.base.checks import check_count, check_type, generator_of
from bilens.base.errors import MemoryLimitError, UsageError
from bilens.base.notebook import html_summary
from bilens.polynomial.network import PolynomialNetwork
from bilens.polynomial.token_interactions import Measure, TokenInteractions, token_interactions

MOST_POOLED = 1 << 27  # numbers of all turned networks together


@dataclass(frozen=True, eq=False)
class InteractionChance:
    """Interactions of networks whose embedding was turned at random, pooled over all tokens.

    A turned embedding keeps the geometry of the tokens and knows nothing of the rest of the
    network. As its logits have another size, each table is told in units of its root mean square.

    Attributes:
        pooled: every interaction of every turned network, rising, in units of its table's RMS.
        num_samples: how many turned networks.
        seed: of the rotations.
        made_as: order, distance, measure and tokens of the tables: what can be compared with it.
    """

    _repr_html_ = html_summary("num_samples", "seed")

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

        Raises: as `share_as_large`, and UsageError if the share is not between 0 and 1.
        """
        if not 0 < false_share < 1:
            raise UsageError(f"false_share is {false_share!r}; expected a number between 0 and 1.")
        values = self._compared(found).flatten().sort(descending=True).values
        above = len(self.pooled) - torch.searchsorted(self.pooled, values)
        ranks = torch.arange(1, len(values) + 1, dtype=torch.float64)
        fits = above / self.num_samples <= false_share * ranks
        return int(fits.nonzero().max()) + 1 if bool(fits.any()) else 0

    def _compared(self, found: TokenInteractions) -> Tensor:
        check_type("found", found, TokenInteractions, "use bl.token_interactions(network, …)")
        if made_as(found) != self.made_as:
            raise UsageError(
                f"interactions of (order, distance, measure, tokens) {made_as(found)} were given, "
                f"and chance is of {self.made_as}: compute both with the same arguments."
            )
        return scaled(found)


def made_as(found: TokenInteractions) -> tuple[object, ...]:
    """Return order, distance, measure and tokens of a table: two are compared if these agree."""
    return found.order, found.distance, found.measure, tuple(map(token_set, found.slots))


def token_set(slot: Tensor) -> str:
    """Describe the tokens of a place, in a line that differs for other ones."""
    known = hashlib.sha256(slot.cpu().numpy().tobytes()).hexdigest()
    return f"{len(slot)} tokens {known[:8]}"


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

    Math: embedding · O with O Haar-distributed in O(d_model); all else is the network's.
    Cost: `num_samples` times `token_interactions`, whose arguments these are.

    Raises:
        UsageError: As `token_interactions`, or if `num_samples` is below 1.
        MemoryLimitError: If the interactions of all samples would not fit.
    """
    check_count("num_samples", num_samples, minimum=1)
    check_type("network", network, PolynomialNetwork, "use bl.polynomial_network(model)")
    pooled = []
    for turned in turned_networks(network, num_samples, seed):
        found = token_interactions(
            turned, order, distance=distance, tokens=tokens, measure=measure, k=1
        )
        pooled.append(scaled(found).flatten())
        if num_samples * pooled[0].numel() > MOST_POOLED:
            raise MemoryLimitError(
                f"{num_samples} samples of {pooled[0].numel():,} interactions are more than "
                f"{MOST_POOLED:,} numbers: name fewer tokens with tokens=, or take fewer samples."
            )
    return InteractionChance(torch.cat(pooled).sort().values, num_samples, seed, made_as(found))


def turned_networks(
    network: PolynomialNetwork, num_samples: int, seed: int
) -> Iterator[PolynomialNetwork]:
    """Yield the network behind embeddings that are turned by random rotations, in float64."""
    network, generator = network.to(torch.float64), generator_of(seed)
    for _ in range(num_samples):
        turn = random_frame(network.d_in, network.d_in, generator).to(network.reference)
        embedding = None if network.embedding is None else network.embedding @ turn
        yield replace(network, embedding=embedding)


def scaled(found: TokenInteractions) -> Tensor:
    """Return the array of interactions in units of its root mean square."""
    if found.values is None:
        raise MemoryLimitError(
            "the array of these interactions was too large to keep, and chance is told of all of "
            "them: name fewer tokens with tokens=."
        )
    values = found.values.double()
    values = values / values.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
    size = values.square().mean().sqrt()
    return values / size.clamp(min=torch.finfo(torch.float64).tiny)
