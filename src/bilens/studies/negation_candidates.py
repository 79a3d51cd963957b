"""Output latents of one block that may hold negation, and the directions that stand for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from bilens.algebra.interactions.listed_interactions import listed_interactions
from bilens.algebra.interactions.record import ListedInteractions
from bilens.algebra.rotation_null import random_frame
from bilens.interp.contrasts import contrast_directions, weighted_space
from bilens.interp.interventions import InputDirections, Where
from bilens.interp.latent_readings import output_tokens
from bilens.interp.traced_layer import LatentReader
from bilens.studies.negation_circuit import MOST_DIRECTIONS, fewest
from bilens.studies.negation_words import InputKinds
from bilens.studies.study import Record

TOP = 20  # interactions listed of each output latent, or pair
LISTED_TOKENS, LISTED_INTERACTIONS = 6, 3
STRONGEST, LOOKED_AT = 4, 200  # texts shown where a latent is strongest, of so many places

RandomDraw = Callable[[torch.Generator], InputDirections]


@dataclass(frozen=True, eq=False)
class Candidate:
    """One or two output latents, and the directions that stand for them.

    Attributes:
        latents: one, or the two of a pair.
        place: in its ranking, from 1.
        along: their eigen-directions, as few as hold most of the squared eigenvalues.
        where: which inputs are changed.
        random: draws as many other directions.
    """

    latents: tuple[int, ...]
    place: int
    along: InputDirections
    where: Where
    random: RandomDraw


def latent_candidate(reader: LatentReader, latent: int, place: int) -> Candidate:
    """Return one output latent with its leading eigenvectors, changed where it is active."""
    direction = torch.zeros(reader.g.sizes.d_out, dtype=torch.float64)
    direction[latent] = 1.0
    values, vectors = torch.linalg.eigh(reader.g.form(direction).dense())
    leading = values.abs().argsort(descending=True)[: MOST_DIRECTIONS + 1]
    mean = reader.inputs.mean(dim=0)
    rows = vectors[:, leading].T
    along = fewest(InputDirections(rows, rows, mean, values[leading]))

    def random(generator: torch.Generator) -> InputDirections:
        frame = random_frame(len(mean), len(along.readers), generator).T
        return InputDirections(along.readers, frame, mean, along.eigenvalues)

    return Candidate((latent,), place, along, partial(active, reader, (latent,)), random)


def pair_candidate(reader: LatentReader, pair: tuple[int, int], place: int) -> Candidate:
    """Return a pair with the eigen-directions of its difference, changed where it is active."""
    data = reader.inputs, reader.activations
    along = fewest(contrast_directions(reader.g, *pair, *data, MOST_DIRECTIONS + 1))
    space = weighted_space(reader.g, *pair, *data)
    return Candidate(
        pair,
        place,
        along,
        partial(active, reader, pair),
        lambda generator: space.random(len(along.readers), generator),
    )


def active(reader: LatentReader, latents: tuple[int, ...], x: Tensor) -> Tensor:
    """Return which inputs of the MLP activate one of some output latents."""
    with torch.no_grad():
        z = reader.behind.sae.encode(reader.layer.f(x.double()))
    return (z[..., list(latents)] > 0).any(dim=-1)


def pair_interactions(reader: LatentReader, first: Tensor, second: Tensor) -> ListedInteractions:
    """Return the largest interactions in the differences of pairs of output latents."""
    rows = torch.arange(len(first))
    directions = torch.zeros(len(first), reader.g.sizes.d_out, dtype=torch.float64)
    directions[rows, first], directions[rows, second] = 1.0, -1.0
    return listed_interactions(reader.g, reader.dictionary, directions, bias=reader.bias, top=TOP)


def describe(reader: LatentReader, candidate: Candidate, kinds: InputKinds) -> Record:
    """Return what the latents promote, where they are strongest, and the interactions of one."""
    unembed = reader.layer.module.unembed.weight.detach()
    latents = candidate.latents
    effects = [output_tokens(reader.behind.sae.decoder[n], unembed, LISTED_TOKENS) for n in latents]
    direction = torch.zeros(1, reader.g.sizes.d_out, dtype=torch.float64)
    direction[0, latents[0]] = 1.0
    if len(latents) > 1:
        direction[0, latents[1]] = -1.0
    cross = listed_interactions(
        reader.g, reader.dictionary, direction, bias=reader.bias, top=TOP
    ).cross_interactions
    listed = [
        entry
        for entry in zip(
            cross.first[0].tolist(), cross.second[0].tolist(), cross.values[0].tolist(), strict=True
        )
        if bool(kinds.negation[entry[0]] ^ kinds.negation[entry[1]])
    ]
    listed.sort(key=lambda entry: not bool(kinds.sentiment[list(entry[:2])].any()))
    return {
        "latents": list(latents),
        "place": candidate.place,
        "eigenvalues": candidate.along.eigenvalues.tolist(),
        "promoted": [[reader.name(score.token) for score in effect.promoted] for effect in effects],
        "strongest_at": [strongest_at(reader, reader.activations[:, n]) for n in latents],
        "interactions": [
            {
                "value": value,
                "first": {
                    "latent": first,
                    "strongest_at": strongest_at(reader, reader.z[:, first]),
                },
                "second": {
                    "latent": second,
                    "strongest_at": strongest_at(reader, reader.z[:, second]),
                },
            }
            for first, second, value in listed[:LISTED_INTERACTIONS]
        ],
    }


def strongest_at(reader: LatentReader, activations: Tensor) -> list[str]:
    """Return two tokens each that end where a latent is strongest, different ones."""
    tokens = reader.text.blocks
    ends = tokens[:, 1:].flatten()
    before = tokens[:, :-1].flatten()
    shown: dict[str, None] = {}
    for row in activations.argsort(descending=True)[:LOOKED_AT].tolist():
        shown[f"{reader.name(int(before[row]))}{reader.name(int(ends[row]))}".strip()] = None
        if len(shown) == STRONGEST or float(activations[row]) <= 0:
            break
    return list(shown)
