"""Output latents of one block that may hold negation: where its ranking puts them, what they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from bilens import DirectInteractions, direct_interactions
from bilens.algebra import random_frame
from bilens.api import active
from bilens.interp import (
    InputDirections,
    LatentReader,
    Where,
    ablation,
    causal_check,
    contrast_directions,
    only,
    output_tokens,
    rank_contrasts,
    rank_latents,
    trace_layer,
    weighted_space,
)
from bilens_studies.negation_prompts import NegationPairs, TruthWords
from bilens_studies.study import Record, to_json

MOST_DIRECTIONS = 4
KEPT_SHARE = 0.85  # of the squared eigenvalues: as few directions as hold it
TOP = 20  # interactions listed of each output latent, or pair
LISTED_TOKENS, LISTED_INTERACTIONS = 6, 3
STRONGEST, LOOKED_AT = 4, 200  # texts shown where a latent is strongest, of so many positions
MOSTLY = 0.5  # of a latent's activation: what makes it one of a kind
LEAST_ACTIVE = 50  # tokens at which a latent is active, to be ranked or to be of a kind
MOST_COMPARED = 40  # output latents whose pairs are ranked: the first of the ranking of latents
CHECKED_PAIRS = 200  # of their ranking, whose interactions are listed
MOST_TRIED = 12  # of the latents, and of the pairs, that hold negation: the first of their ranking
NUM_RANDOM = 10


@dataclass(frozen=True, eq=False)
class InputKinds:
    """Which input latents are mostly active where text negates, or speaks of a sentiment."""

    negation: Tensor
    sentiment: Tensor  # (latents,) bool, likewise at sentiment words; none of the former

    @classmethod
    def by_words(
        cls, z: Tensor, blocks: Tensor, words: TruthWords, least_active: int
    ) -> InputKinds:
        often = (z > 0).sum(dim=0) >= least_active

        def mostly(mask: Tensor) -> Tensor:
            return (mask[:, 1:].flatten().to(z) @ z >= MOSTLY * z.sum(dim=0)) & often

        negation = mostly(words.negated(blocks))
        return cls(negation, mostly(words.sentiment(blocks)) & ~negation)

    def coupled(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Return which rows list an interaction of negation with sentiment, and with anything."""
        one = self.negation[first] & self.sentiment[second]
        other = self.sentiment[first] & self.negation[second]
        alone = self.negation[first] ^ self.negation[second]  # exactly one latent is of negation
        listed = first >= 0
        return ((one | other) & listed).any(dim=-1), (alone & listed).any(dim=-1)


@dataclass(frozen=True, eq=False)
class NegationCandidate:
    """One or two output latents, and the directions that stand for them."""

    latents: tuple[int, ...]
    position: int
    along: InputDirections
    where: Where
    random: Callable[[torch.Generator], InputDirections]


def measure_block(
    reader: LatentReader,
    held_out: Tensor,
    choosing: NegationPairs,
    pairs: NegationPairs,
    words: TruthWords,
) -> Record:
    """Rank output latents and their pairs, look where negation stands, and ablate it."""
    kinds = InputKinds.by_words(reader.z, reader.text.blocks, words, LEAST_ACTIVE)
    trace = trace_layer(reader.g, reader.dictionary, k=MOST_DIRECTIONS + 1)
    cross = list_interactions(reader).cross_interactions
    ranking = rank_latents(reader.g, trace.eigenpairs, reader.inputs)
    often = (reader.activations > 0).sum(dim=0) >= LEAST_ACTIVE
    rows = ranking.order[often[ranking.order]].tolist()
    with_both, with_one = kinds.coupled(cross.first, cross.second)
    found: Record = {
        "num_negation": int(kinds.negation.sum()),
        "num_sentiment": int(kinds.sentiment.sum()),
        "latents": {"ranked": len(rows), **positions(rows, with_both, with_one)},
        "pairs": {"ranked": 0, "looked_at": 0, **positions([], with_both, with_one)},
        "circuits": [],
    }
    held = held_positions(rows, with_both, with_one)
    candidates = [latent_candidate(reader, rows[position - 1], position) for position in held]
    chosen = sorted(rows[:MOST_COMPARED])
    if len(chosen) > 1:
        compared = rank_contrasts(
            only(reader.g, torch.tensor(chosen)),
            reader.inputs,
            reader.activations[:, chosen],
            least_active=LEAST_ACTIVE,
        )
        sides = compared.first, compared.second
        first, second = (torch.tensor(chosen)[side[:CHECKED_PAIRS]] for side in sides)
        directions = unit_rows(reader, first) - unit_rows(reader, second)
        cross = list_interactions(reader, directions).cross_interactions
        both, one = kinds.coupled(cross.first, cross.second)
        at = list(range(len(first)))
        counted = {"ranked": len(compared.score), "looked_at": len(first)}
        found["pairs"] = {**counted, **positions(at, both, one)}
        named = [*zip(first.tolist(), second.tolist(), strict=True)]
        held = held_positions(at, both, one)
        candidates += [pair_candidate(reader, named[place - 1], place) for place in held]
    found["tried"] = len(candidates)
    if candidates:
        edits = [ablation(candidate.along, candidate.where) for candidate in candidates]
        left = [float(choosing.shift(edit).mean()) for edit in edits]  # behind a negator, in logits
        best = candidates[left.index(min(left))]
        found["circuits"] = [
            describe(reader, candidate, kinds)
            | ablation_effects(candidate, pairs, held_out, words, reader.generator)
            for candidate in dict.fromkeys((candidates[0], best))
        ]
    return found


def list_interactions(reader: LatentReader, directions: Tensor | None = None) -> DirectInteractions:
    """Return the largest interactions of every output latent, or along directions between them."""
    # Listed values are float64 all the same; nothing reads the histogram, nor what a bias changes.
    return direct_interactions(
        reader.g, reader.dictionary, directions, top=TOP, bins=1, precision=torch.float32
    )


def latent_candidate(reader: LatentReader, latent: int, position: int) -> NegationCandidate:
    form = reader.g.form(unit_rows(reader, torch.tensor(latent)))
    values, vectors = torch.linalg.eigh(form.dense())
    leading = values.abs().argsort(descending=True)[: MOST_DIRECTIONS + 1]
    mean = reader.inputs.mean(dim=0)
    rows = vectors[:, leading].T
    along = keep_leading(InputDirections(rows, rows, mean, values[leading]))

    def random(generator: torch.Generator) -> InputDirections:
        frame = random_frame(len(mean), len(along.readers), generator).T
        return InputDirections(along.readers, frame, mean, along.eigenvalues)

    return NegationCandidate((latent,), position, along, partial(active, reader, (latent,)), random)


def pair_candidate(reader: LatentReader, pair: tuple[int, int], position: int) -> NegationCandidate:
    """Return a pair with the eigen-directions of its difference, changed where it is active."""
    data = reader.inputs, reader.activations
    along = keep_leading(contrast_directions(reader.g, *pair, *data, MOST_DIRECTIONS + 1))
    space = weighted_space(reader.g, *pair, *data)
    random = partial(space.random, len(along.readers))
    return NegationCandidate(pair, position, along, partial(active, reader, pair), random)


def keep_leading(directions: InputDirections) -> InputDirections:
    """Return as few of the leading directions as hold KEPT_SHARE of the squared eigenvalues."""
    squares = directions.eigenvalues.square()
    share = squares.cumsum(0) / squares.sum()
    k = min(int((share < KEPT_SHARE).sum()) + 1, MOST_DIRECTIONS)
    return InputDirections(
        directions.readers[:k], directions.patterns[:k], directions.mean, directions.eigenvalues[:k]
    )


def unit_rows(reader: LatentReader, latents: Tensor) -> Tensor:
    """Return the direction of each output latent, (rows, latents)."""
    return one_hot(latents, reader.g.sizes.d_out).double()


def held_positions(order: list[int], both: Tensor, negation: Tensor) -> list[int]:
    """Return the first positions with negation and sentiment, then those with negation alone."""
    numbered = list(enumerate(order, start=1))
    with_both = [position for position, row in numbered if bool(both[row])]
    with_one = [position for position, row in numbered if bool(negation[row] & ~both[row])]
    return (with_both + with_one)[:MOST_TRIED]


def positions(order: list[int], both: Tensor, negation: Tensor) -> Record:
    """Return the first position of each kind, from 1, how many there are, and that by chance."""
    record: Record = {}
    for name, mask in (("both", both), ("negation", negation)):
        at = [position for position, row in enumerate(order, start=1) if bool(mask[row])]
        record[name] = at[0] if at else None
        record[f"num_{name}"] = len(at)
        record[f"chance_{name}"] = (len(order) + 1) / (len(at) + 1) if at else None
    return record


def ablation_effects(
    candidate: NegationCandidate,
    pairs: NegationPairs,
    held_out: Tensor,
    words: TruthWords,
    generator: torch.Generator,
) -> Record:
    """Ablate the directions, and return the rest of a negator's flip and shift."""
    edit = ablation(candidate.along, candidate.where)
    draws = [ablation(candidate.random(generator), candidate.where) for _ in range(NUM_RANDOM)]
    negated = words.negated(held_out)
    loss = partial(pairs.loss_elsewhere, held_out, negated)
    losses = loss(None), loss(edit)
    size = len(candidate.along.readers)
    plain, changed = pairs.leaning(), pairs.leaning(edit)
    random = [pairs.leaning(draw) for draw in draws]
    checks: Record = {}
    for name, weight in (("flip", pairs.polarity.double()), ("shift", torch.ones(1))):

        def effect(leaning: Tensor, weight: Tensor = weight) -> Tensor:
            return (weight * (leaning[..., 0] - leaning[..., 1])).mean(dim=0)

        before = effect(plain)
        checks[name] = None  # nothing to remove
        if float(before.mean()) > 0:
            shares = before, effect(changed), [*map(effect, random)]
            checks[name] = to_json(causal_check("ablate", size, *shares, generator, losses))
    return {
        "num_directions": size,
        "moved": float((plain - changed).abs().mean()),
        **dict(zip(("loss_before", "loss_after"), losses, strict=True)),
        **checks,
    }


def describe(reader: LatentReader, candidate: NegationCandidate, kinds: InputKinds) -> Record:
    unembed = reader.layer.module.unembed.weight.detach()
    latents = candidate.latents
    effects = [output_tokens(reader.behind.decoder[n], unembed, LISTED_TOKENS) for n in latents]
    directions = unit_rows(reader, torch.tensor(latents))
    direction = directions[:1] - directions[1:].sum(dim=0)  # of a pair the difference
    cross = list_interactions(reader, direction).cross_interactions
    columns = (side[0].tolist() for side in (cross.first, cross.second, cross.values))
    listed = [
        entry
        for entry in zip(*columns, strict=True)
        if bool(kinds.negation[entry[0]] ^ kinds.negation[entry[1]])
    ]
    listed.sort(key=lambda entry: not bool(kinds.sentiment[list(entry[:2])].any()))

    def input_latent(latent: int) -> Record:
        return {"latent": latent, "strongest_at": strongest_at(reader, reader.z[:, latent])}

    return {
        "latents": list(latents),
        "place": candidate.position,
        "eigenvalues": candidate.along.eigenvalues.tolist(),
        "promoted": [[reader.name(score.token) for score in effect.high] for effect in effects],
        "strongest_at": [strongest_at(reader, reader.activations[:, n]) for n in latents],
        "interactions": [
            {"value": value, "first": input_latent(one), "second": input_latent(other)}
            for one, other, value in listed[:LISTED_INTERACTIONS]
        ],
    }


def strongest_at(reader: LatentReader, activations: Tensor) -> list[str]:
    """Return two tokens each that end where a latent is strongest, different ones."""
    tokens = reader.text.blocks
    before, ends = tokens[:, :-1].flatten(), tokens[:, 1:].flatten()
    shown: dict[str, None] = {}
    for row in activations.argsort(descending=True)[:LOOKED_AT].tolist():
        shown[f"{reader.name(int(before[row]))}{reader.name(int(ends[row]))}".strip()] = None
        if len(shown) == STRONGEST or float(activations[row]) <= 0:
            break
    return list(shown)
