"""One block of a model of running text: where its ranking puts negation, and what that does."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor

from bilens.algebra.interactions.record import ListedInteractions
from bilens.api.trace_values import known
from bilens.interp.contrasts import rank_contrasts
from bilens.interp.interventions import Edit, ablation, causal_check
from bilens.interp.layer_trace import only, trace_layer
from bilens.interp.ranking import rank_latents
from bilens.interp.traced_layer import LatentReader
from bilens.studies.negation_candidates import (
    TOP,
    Candidate,
    describe,
    latent_candidate,
    pair_candidate,
    pair_interactions,
)
from bilens.studies.negation_circuit import MOST_DIRECTIONS
from bilens.studies.negation_pairs import NegationPairs, loss_elsewhere
from bilens.studies.negation_words import InputKinds, TruthWords
from bilens.studies.study import Record

LEAST_ACTIVE = 50  # tokens at which a latent is active, to be ranked or to be of a kind
MOST_COMPARED = 40  # output latents whose pairs are ranked: the first of the ranking of latents
CHECKED_PAIRS = 200  # of their ranking, whose interactions are listed
MOST_TRIED = 12  # of the latents, and of the pairs, that hold negation: the first of their ranking
NUM_RANDOM = 10


def measure_block(
    reader: LatentReader,
    held_out: Tensor,
    choosing: NegationPairs,
    pairs: NegationPairs,
    words: TruthWords,
) -> Record:
    """Rank output latents and their pairs, look where negation stands, and ablate it.

    Nothing that ranks knows of words: weights and activations on text rank. The words say
    afterwards which input latents are of negation or sentiment, and which place has both.

    Args:
        reader: the block, its autoencoders, and training text.
        held_out: (texts, length) tokens, for losses.
        choosing: minimal pairs, read at the block's mlp_in, on which the best circuit is chosen.
        pairs: others, on which it is judged.
        words: of the tokenizer.

    Returns:
        JSON values.
    """
    kinds = InputKinds.of(reader.z, reader.text.blocks, words, LEAST_ACTIVE)
    trace = trace_layer(
        reader.g, reader.dictionary, bias=reader.bias, top=TOP, k=MOST_DIRECTIONS + 1
    )
    ranking = rank_latents(trace, reader.inputs)
    often = (reader.activations > 0).sum(dim=0) >= LEAST_ACTIVE
    order = ranking.order[often[ranking.order]]
    with_both, with_one = coupled(trace.interactions, kinds)
    found: Record = {
        "num_negation": int(kinds.negation.sum()),
        "num_sentiment": int(kinds.sentiment.sum()),
        "latents": {
            "ranked": len(order),
            **places(order.tolist(), with_both, with_one),
        },
        "pairs": {"ranked": 0, "looked_at": 0, **places([], with_both, with_one)},
        "circuits": [],
    }
    rows = order.tolist()
    held = held_places(rows, with_both, with_one)
    candidates = [latent_candidate(reader, rows[place - 1], place) for place in held]
    chosen = sorted(rows[:MOST_COMPARED])
    if len(chosen) > 1:
        compared = rank_contrasts(
            only(reader.g, torch.tensor(chosen)),
            reader.inputs,
            reader.activations[:, chosen],
            least_active=LEAST_ACTIVE,
        )
        first, second = (
            torch.tensor(chosen)[side[:CHECKED_PAIRS]] for side in (compared.first, compared.second)
        )
        both, one = coupled(pair_interactions(reader, first, second), kinds)
        at = list(range(len(first)))
        found["pairs"] = {
            "ranked": len(compared.score),
            "looked_at": len(first),
            **places(at, both, one),
        }
        candidates += [
            pair_candidate(reader, (int(first[place - 1]), int(second[place - 1])), place)
            for place in held_places(at, both, one)
        ]
    found["tried"] = len(candidates)
    if candidates:
        best = min(candidates, key=lambda each: shift_left(each, choosing))
        found["circuits"] = [
            {
                **describe(reader, candidate, kinds),
                **effects(candidate, pairs, held_out, words, reader.generator),
            }
            for candidate in dict.fromkeys((candidates[0], best))
        ]
    return found


def held_places(order: list[int], both: Tensor, negation: Tensor) -> list[int]:
    """Return the first places with negation and sentiment, and then those with negation alone."""
    numbered = list(enumerate(order, start=1))
    with_both = [place for place, row in numbered if bool(both[row])]
    with_one = [place for place, row in numbered if bool(negation[row] & ~both[row])]
    return (with_both + with_one)[:MOST_TRIED]


def shift_left(candidate: Candidate, pairs: NegationPairs) -> float:
    """Return what is left of a negator's shift without the directions of a candidate, in logits."""
    return float(pairs.shift(ablation(candidate.along, candidate.where)).mean())


def coupled(interactions: ListedInteractions, kinds: InputKinds) -> tuple[Tensor, Tensor]:
    """Return which rows list an interaction of negation with sentiment, and with anything."""
    cross = interactions.cross_interactions
    return kinds.couple(cross.first, cross.second), kinds.negate(cross.first, cross.second)


def places(order: list[int], both: Tensor, negation: Tensor) -> Record:
    """Return the first place of each kind, from 1, how many there are, and the place by chance.

    Math: of K among N in random order the first is expected at (N + 1) / (K + 1).
    """
    record: Record = {}
    for name, mask in (("both", both), ("negation", negation)):
        at = [place for place, row in enumerate(order, start=1) if bool(mask[row])]
        record[name] = at[0] if at else None
        record[f"num_{name}"] = len(at)
        record[f"chance_{name}"] = (len(order) + 1) / (len(at) + 1) if at else None
    return record


def effects(
    candidate: Candidate,
    pairs: NegationPairs,
    held_out: Tensor,
    words: TruthWords,
    generator: torch.Generator,
) -> Record:
    """Return what is left of a negator's flip and shift when the directions are ablated.

    The check of an effect that is not above zero is null: there is nothing to remove.
    """
    edit = ablation(candidate.along, candidate.where)
    draws = [ablation(candidate.random(generator), candidate.where) for _ in range(NUM_RANDOM)]
    negated = words.negated(held_out)

    def loss(change: Edit | None) -> float:
        return loss_elsewhere(pairs.model, pairs.hook, held_out, negated, change)

    losses = loss(None), loss(edit)
    size = len(candidate.along.readers)
    plain, changed = pairs.leaning(), pairs.leaning(edit)
    random = [pairs.leaning(draw) for draw in draws]
    touched = known(float((plain - changed).abs().mean()))
    checks: Record = {}
    for name, weight in (("flip", pairs.polarity.double()), ("shift", torch.ones(1))):

        def effect(leaning: Tensor, weight: Tensor = weight) -> Tensor:
            return (weight * (leaning[..., 0] - leaning[..., 1])).mean(dim=0)

        before = effect(plain)
        checks[name] = None
        if float(before.mean()) > 0:
            check = causal_check(
                "ablate",
                size,
                before,
                effect(changed),
                [effect(each) for each in random],
                generator,
                losses,
            )
            checks[name] = asdict(check)
    return {
        "num_directions": size,
        "moved": touched,
        "loss_before": losses[0],
        "loss_after": losses[1],
        **checks,
    }
