"""The first pair of a dictionary's ranking, and what its directions do to the flip of a negator.

The same steps read the trained dictionary and random ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bilens import QuadraticMap
from bilens.interp import (
    NUM_DICTIONARIES,
    ContrastRanking,
    InputDirections,
    Kind,
    RandomDictionary,
    WeightedSpace,
    Where,
    ablation,
    causal_check,
    chance_of,
    contrast_directions,
    latent_map,
    random_dictionary,
    rank_contrasts,
    share_of,
    steering,
    weighted_space,
)
from bilens.nn import SparseAutoencoder
from bilens_studies.negation_candidates import MOST_DIRECTIONS, keep_leading
from bilens_studies.negation_prompts import NegationPrompts
from bilens_studies.study import Record, to_json

NUM_RANDOM = 40  # draws of random directions
READS_FEELING = 0.9  # |correlation| of z_first − z_second with the feeling, over the prompts


class NegationCircuit(NamedTuple):
    """The first pair of a dictionary: its directions, and where they are changed."""

    prompts: NegationPrompts
    ranking: ContrastRanking
    place: int | None  # in it, of the first pair that tells the feelings apart
    directions: InputDirections
    space: WeightedSpace
    where: Where

    @classmethod
    def from_dictionary(
        cls,
        prompts: NegationPrompts,
        f: QuadraticMap,
        dictionary: SparseAutoencoder | RandomDictionary,
        inputs: Tensor,
        z: Tensor,
    ) -> NegationCircuit:
        """Rank all pairs of a dictionary, trained or random, and take the first one."""
        g = latent_map(f, dictionary.encoder, dictionary.offset)
        ranking = rank_contrasts(g, inputs, z)
        pair = int(ranking.first[0]), int(ranking.second[0])
        return cls(
            prompts,
            ranking,
            position_of_the_rule(ranking, prompts, f, dictionary),
            keep_leading(contrast_directions(g, *pair, inputs, z, MOST_DIRECTIONS + 1)),
            weighted_space(g, *pair, inputs, z),
            active_at(f, dictionary, pair),
        )

    @property
    def latents(self) -> tuple[int, int]:
        return int(self.ranking.first[0]), int(self.ranking.second[0])

    def score(self, position: int | None) -> float | None:
        """Return the score at a position of the ranking, counted from 1."""
        return None if position is None else float(self.ranking.score[position - 1])

    def flip_left(self, along: InputDirections) -> Tensor:
        """Return the rest of the flip when directions are ablated."""
        return self.prompts.flip(ablation(along, self.where))

    def flip_created(self, along: InputDirections) -> Tensor:
        """Return how far plain prompts turn around when they are moved as a negator moves them."""
        coordinates = self.prompts.inputs().double() @ self.directions.readers.T
        shift = coordinates[1::2].mean(dim=0) - coordinates[::2].mean(dim=0)
        moved, _ = self.prompts.margins(steering(along, shift, self.where))
        return self.prompts.margins()[0] - moved

    def shares(self) -> tuple[float, float]:
        """Return the shares of the flip that the directions remove and create."""
        flip = self.prompts.flip().mean()
        left = self.flip_left(self.directions).mean()
        created = self.flip_created(self.directions).mean()
        return float(share_of("ablate", flip, left)), float(share_of("steer", flip, created))

    def checks(self, held_out: Tensor, null: Sequence[NegationCircuit], seed: int) -> list[Record]:
        """Return how much of the flip the directions remove, and create, beside both controls."""
        prompts, along = self.prompts, self.directions
        removed, created = zip(*(one.shares() for one in null), strict=True)
        edit = ablation(along, self.where)
        losses = prompts.loss_elsewhere(held_out), prompts.loss_elsewhere(held_out, edit)
        return [
            self.check("ablate", self.flip_left, removed, seed, losses),
            self.check("steer", self.flip_created, created, seed),
        ]

    def check(
        self,
        kind: Kind,
        change: Callable[[InputDirections], Tensor],
        null: Sequence[float],
        seed: int,
        losses: tuple[float, float] | None = None,
    ) -> Record:
        """Return the effect of a change beside random directions and random dictionaries."""
        generator, k = torch.Generator().manual_seed(seed), len(self.directions.readers)
        random = [change(self.space.random(k, generator)) for _ in range(NUM_RANDOM)]
        flips = self.prompts.flip(), change(self.directions), random
        found = to_json(causal_check(kind, k, *flips, generator, losses, null))
        return {**found, "chance": compare_with_chance(found["share"]["value"], null)}


def random_circuits(
    prompts: NegationPrompts,
    f: QuadraticMap,
    sae: SparseAutoencoder,
    inputs: Tensor,
    z: Tensor,
    seed: int,
) -> list[NegationCircuit]:
    """Return the circuits that the same steps find in random dictionaries."""
    generator, outputs = torch.Generator().manual_seed(seed), f(inputs)
    trained = sae.encoder, sae.decoder, outputs, (z > 0).sum(dim=0)
    found = [random_dictionary(*trained, generator) for _ in range(NUM_DICTIONARIES)]
    return [
        NegationCircuit.from_dictionary(prompts, f, one, inputs, one.encode(outputs))
        for one in found
    ]


def compare_with_chance(value: float | None, null: Sequence[float | None]) -> Record:
    """Return a number beside those of random dictionaries; None where one has no such number."""
    found: Record = {"value": value, "null": list(null), "reached": None, "p_value": None}
    if value is not None:
        reached = sum(one is not None and one >= value for one in null)
        found |= {"reached": reached, "p_value": chance_of(value, null)}
    return found


def active_at(
    f: QuadraticMap, dictionary: SparseAutoencoder | RandomDictionary, latents: tuple[int, int]
) -> Where:
    """Return which inputs of the MLP activate one of two output latents."""

    def where(x: Tensor) -> Tensor:
        with torch.no_grad():
            return (dictionary.encode(f(x.double()))[..., list(latents)] > 0).any(dim=-1)

    return where


def position_of_the_rule(
    ranking: ContrastRanking,
    prompts: NegationPrompts,
    f: QuadraticMap,
    dictionary: SparseAutoencoder | RandomDictionary,
) -> int | None:
    """Return the first position that tells the feelings apart, from 1; None for none."""
    with torch.no_grad():
        z = dictionary.encode(f(prompts.inputs().double())).double()
    feelings = prompts.feelings.double()
    for position, pair in enumerate(zip(ranking.first, ranking.second, strict=True), start=1):
        difference = z[:, pair[0]] - z[:, pair[1]]
        if float(difference.std()) == 0:
            continue
        both = torch.stack([difference, feelings])
        if abs(float(torch.corrcoef(both)[0, 1])) >= READS_FEELING:
            return position
    return None
