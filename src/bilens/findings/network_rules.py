"""The rules that a polynomial network holds for one, two and three tokens, beside chance."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from bilens.base import Progress
from bilens.base.errors import MemoryLimitError, UsageError
from bilens.polynomial.chance import MOST_POOLED, interaction_chance, turned_networks
from bilens.polynomial.network import PolynomialNetwork
from bilens.polynomial.paths import MOST_PARTS, split_by_path
from bilens.polynomial.token_interactions import (
    Measure,
    TokenInteractions,
    embedded_blocks,
    interact,
    interactions_of,
    single_largest,
    token_interactions,
)
from bilens.records.network_reading import (
    Chosen,
    DistanceReading,
    InductionReading,
    LookedAt,
    PathShare,
    TokenRule,
)

MOST_NUMBERS = 1 << 24  # of one table of interactions
MOST_TOGETHER = 1 << 26  # of the tables of all distances
MOST_RANKED = 1 << 12  # tokens that can be ranked by what they do with a few drawn ones
DRAWN = 16
SHOWN_PATHS = 3
TRIPLE = (2, 1)  # distances of the first two tokens of three before the last one
Name = Callable[[int], str]


@dataclass(frozen=True, eq=False)
class ReadingPlan:
    """The tokens, distances and samples of a reading, chosen by sizes before anything runs."""

    ids: Tensor
    chosen: Chosen
    distances: tuple[int, ...]
    samples: int
    seed: int
    k: int


@dataclass(frozen=True, eq=False)
class PairReading:
    """The rules of two tokens and the sums of their tables."""

    rules: tuple[TokenRule, ...]
    distances: tuple[DistanceReading, ...]
    strength: Tensor  # (tokens,), the squared interactions that a token takes part in


@dataclass(frozen=True, eq=False)
class TripleReading:
    """The rules of three tokens side by side, and induction."""

    rules: tuple[TokenRule, ...]
    explained: float
    induction: InductionReading
    tokens: int


def most_tokens(network: PolynomialNetwork, samples: int) -> int:
    """Return how many tokens fit in each place of two."""
    return max(1, math.isqrt(most_numbers(samples) // network.d_out))


def most_numbers(samples: int) -> int:
    """Return how many interactions a table may have with as many turned ones beside it."""
    return min(MOST_NUMBERS, MOST_POOLED // max(1, samples))


def farthest_distance(network: PolynomialNetwork) -> float:
    """Return how far two tokens can stand apart; 0 where they do not meet."""
    return network.longest - 1 if network.attends else 0


def plan_reading(
    network: PolynomialNetwork, given: Tensor | None, farthest: int, samples: int, seed: int, k: int
) -> ReadingPlan:
    """Choose tokens, distances and samples so that time and memory stay bounded.

    Raises: UsageError if the network reads vectors, or has not as many outputs as tokens;
        MemoryLimitError if there are too many tokens to choose from, or too many were named.
    """
    if network.embedding is None:
        raise UsageError("the network reads vectors, not tokens: there are no rules of tokens.")
    size, outputs, most = network.num_tokens, network.d_out, most_tokens(network, samples)
    if outputs != size:
        raise UsageError(
            f"the network has {size:,} tokens and {outputs:,} outputs, and a rule names its output "
            "as a token: both must be as many; bl.token_interactions reads any outputs."
        )
    chosen: Chosen = "all"
    ids = torch.arange(size)
    if given is not None:
        ids, chosen = given, "given"
    elif most < size <= MOST_RANKED:
        ids, chosen = strongest_tokens(network, most, seed), "strongest"
    if len(ids) > most:
        raise MemoryLimitError(
            f"{len(ids):,} tokens have {len(ids) ** 2 * outputs:,} interactions of two on the "
            f"{outputs:,} outputs, and {most_numbers(samples):,} fit: name at most {most:,} "
            "tokens, with tokens= or --tokens-of."
        )
    farthest = int(min(farthest, farthest_distance(network)))
    distances, numbers = [*range(1, farthest + 1)], len(ids) ** 2 * outputs
    if numbers * farthest > MOST_TOGETHER:  # 1, 2, 4, …
        distances = [1 << power for power in range(farthest.bit_length())]
        distances = distances[: MOST_TOGETHER // numbers]
    return ReadingPlan(ids, chosen, tuple(distances), samples, seed, k)


def strongest_tokens(network: PolynomialNetwork, count: int, seed: int) -> Tensor:
    """Choose the tokens whose interactions with a few drawn ones, in both places, are largest."""
    generator = torch.Generator().manual_seed(seed)
    every = torch.arange(network.num_tokens)
    drawn = torch.randperm(len(every), generator=generator)[:DRAWN]
    strength = torch.zeros(len(every), dtype=torch.float64)
    for axis, slots in enumerate(((every, drawn), (drawn, every))):
        for first, embedded in embedded_blocks(network, slots):
            values = interact(network, embedded, (0, 1), "probability")
            sums = values.square().sum(dim=(1 - axis, 2)).cpu()
            strength[first[axis] : first[axis] + len(sums)] += sums
    return strength.topk(count).indices.sort().values


def single_tokens(network: PolynomialNetwork, plan: ReadingPlan) -> Tensor:
    """Return the tokens that are looked at alone: all, unless some were named."""
    return plan.ids if plan.chosen == "given" else torch.arange(network.num_tokens)


def read_single(
    network: PolynomialNetwork, plan: ReadingPlan, name: Name
) -> tuple[tuple[TokenRule, ...], int | None]:
    """Read what one token says alone, by falling probability, and how much is beyond chance."""
    slots, samples = [single_tokens(network, plan)], plan.samples
    if len(slots[0]) * network.d_out > most_numbers(samples):
        samples = 0
    shares = token_interactions(network, 1, tokens=slots, measure="probability", k=plan.k)
    chances, beyond = None, None
    if samples:
        chance = interaction_chance(
            network, 1, tokens=slots, measure="probability", num_samples=samples, seed=plan.seed
        )
        chances, beyond = chance.share_of_strongest(shares).tolist(), chance.count_beyond(shares)
    found = [((), row) for row in shares.strongest]
    values = shares.strongest_values
    return rules_of(network, found, values, None, chances, name), beyond


def read_pairs(
    network: PolynomialNetwork, plan: ReadingPlan, name: Name, progress: Progress
) -> PairReading:
    """Read two tokens at each distance; a rule counts where it is strongest.

    Math: of each table the k largest changes of a probability are candidates, so that each of the
        k largest over all distances is one of them; each is then computed at every distance.
    """
    tables: list[dict[str, float]] = []
    best: dict[tuple[int, ...], tuple[float, int, float]] = {}  # rule → change, distance, chance
    strength = torch.zeros(len(plan.ids), dtype=torch.float64)
    for at, distance in enumerate(plan.distances):
        progress("two tokens", at, len(plan.distances))
        table, found, chances = read_table(network, plan, distance)
        tables.append(table)
        assert found.values is not None, "the plan keeps to what fits"
        squares = found.values.square().sum(dim=2)
        strength += (squares.sum(dim=0) + squares.sum(dim=1)).cpu()
        changes = found.strongest_values.tolist()
        for row, change, share in zip(found.strongest.tolist(), changes, chances, strict=True):
            if change > best.get(tuple(row), (-math.inf, 0, 0.0))[0]:
                best[tuple(row)] = (change, distance, share)
    raised = [rule for rule in best if best[rule][0] > 0]
    ranked = sorted(raised, key=lambda rule: -best[rule][0])[: plan.k]
    rows = torch.tensor(ranked, dtype=torch.int64).reshape(-1, 3)
    readings, changes_at = [], []
    for distance, table in zip(plan.distances, tables, strict=True):
        changed = values_of(network, rows, distance, "probability")
        logit = values_of(network, rows, distance, "logits")
        changes_at.append(changed)
        readings.append(
            DistanceReading(
                distance,
                table["largest"],
                int(table["beyond"]) if plan.samples else None,
                float(changed.square().sum()) / table["probability"],
                float(logit.square().sum()) / table["logits"],
            )
        )
    rules: tuple[TokenRule, ...] = ()
    if ranked:
        found_at = [((best[rule][1],), torch.tensor(rule)) for rule in ranked]
        changes_of = torch.tensor([best[rule][0] for rule in ranked], dtype=torch.float64)
        lowest = torch.stack(changes_at).amin(dim=0)
        shares = [best[rule][2] for rule in ranked] if plan.samples else None
        rules = rules_of(network, found_at, changes_of, lowest, shares, name)
    return PairReading(rules, tuple(readings), strength)


def read_table(
    network: PolynomialNetwork, plan: ReadingPlan, distance: int
) -> tuple[dict[str, float], TokenInteractions, list[float]]:
    """Read all pairs at a distance: sizes of the tables, the strongest, and their chances."""
    pair, tiny = (plan.ids, plan.ids), torch.finfo(torch.float64).tiny
    logits = token_interactions(network, 2, distance=distance, tokens=pair, k=1).values
    found = token_interactions(
        network, 2, distance=distance, tokens=pair, measure="probability", k=plan.k
    )
    assert logits is not None, "the plan keeps to what fits"
    assert found.values is not None, "the plan keeps to what fits"
    table = {
        "largest": float(found.strongest_values[0]),
        "probability": max(float(found.values.square().sum()), tiny),
        "logits": max(float(logits.square().sum()), tiny),
    }
    chances = [0.0] * len(found.strongest)
    if plan.samples:
        chance = interaction_chance(
            network,
            2,
            distance=distance,
            tokens=pair,
            measure="probability",
            num_samples=plan.samples,
            seed=plan.seed,
        )
        table["beyond"] = chance.count_beyond(found)
        chances = chance.share_of_strongest(found).tolist()
    return table, found, chances


def read_triples(
    network: PolynomialNetwork, plan: ReadingPlan, strength: Tensor, name: Name
) -> TripleReading | None:
    """Read three tokens side by side, and induction; None where texts have no three."""
    if farthest_distance(network) < TRIPLE[0]:
        return None
    most = int((MOST_NUMBERS / network.d_out) ** (1 / 3) + 1e-9)
    ids = plan.ids
    if len(ids) > most:  # those of which pairs do most
        ids = ids[strength.topk(max(2, most)).indices.sort().values]
    found = token_interactions(
        network, 3, distance=TRIPLE, tokens=[ids] * 3, measure="probability", k=plan.k
    )
    assert found.values is not None, "as many tokens as fit"
    whole = max(float(found.values.square().sum()), torch.finfo(torch.float64).tiny)
    changes = found.strongest_values[found.strongest_values > 0]
    rows = [(TRIPLE, row) for row in found.strongest[: len(changes)]]
    rules = rules_of(network, rows, changes, None, None, name)
    explained = float(changes.square().sum()) / whole
    x, y = torch.meshgrid(torch.arange(len(ids)), torch.arange(len(ids)), indexing="ij")
    again = found.values[x, y, x, ids[y]].clamp(min=0).square()
    held = (float(again.sum()) - float(again.diagonal().sum())) / whole
    return TripleReading(rules, explained, read_induction(network, plan, held, name), len(ids))


def read_induction(
    network: PolynomialNetwork, plan: ReadingPlan, explained: float, name: Name
) -> InductionReading:
    """Count the pairs (X, Y) of which X Y X is followed by Y, by the one largest interaction."""
    x, y = torch.meshgrid(plan.ids, plan.ids, indexing="ij")
    apart = x != y
    tokens = torch.stack([x, y, x], dim=-1)[apart]

    def right(one: PolynomialNetwork) -> Tensor:
        blocks = torch.split(tokens, max(1, MOST_NUMBERS // network.d_out))
        said = torch.cat([single_largest(one, rows, TRIPLE) for rows in blocks])
        return said.cpu() == tokens[:, 1]

    found = right(network)
    turned = [right(one) for one in turned_networks(network, plan.samples, plan.seed)]
    chance = float(torch.stack(turned).double().mean()) if turned and len(found) else None
    by_token = torch.zeros(x.shape, dtype=torch.float64)
    by_token[apart] = found.double()
    often = by_token.sum(dim=1) >= max(1, len(plan.ids) - 1) / 2
    after = tuple(name(token) for token in plan.ids[often].tolist())
    return InductionReading(int(found.sum()), len(found), chance, after, len(plan.ids), explained)


def values_of(
    network: PolynomialNetwork,
    rows: Tensor,
    distance: int | tuple[int, ...],
    measure: Measure,
    active: Collection[str] | None = None,
) -> Tensor:
    """Compute the interactions of given tokens on given outputs, (n, order + 1) → (n,)."""
    found = interactions_of(network, rows[:, :-1], distance, measure, active)
    return found.gather(1, rows[:, -1:].to(found.device))[:, 0].cpu()


def rules_of(
    network: PolynomialNetwork,
    found: Sequence[tuple[tuple[int, ...], Tensor]],
    changes: Tensor,
    lowest: Tensor | None,
    chances: Sequence[float] | None,
    name: Name,
) -> tuple[TokenRule, ...]:
    """Return rules with their logits and paths; each is given by its distances and its tokens."""
    made: dict[int, TokenRule] = {}
    order = sorted(range(len(found)), key=lambda at: found[at][0])
    for distance, places in groupby(order, key=lambda at: found[at][0]):
        chosen = [*places]
        rows = torch.stack([found[at][1] for at in chosen])
        logits = values_of(network, rows, distance, "logits")
        paths = paths_of(network, rows, distance)
        for at, row, logit, path in zip(chosen, rows.tolist(), logits.tolist(), paths, strict=True):
            made[at] = TokenRule(
                tokens=tuple(name(token) for token in row[:-1]),
                output=name(row[-1]),
                ids=tuple(row),
                distance=distance,
                probability=float(changes[at]),
                logit=logit,
                lowest=None if lowest is None else float(lowest[at]),
                chance=None if chances is None else float(chances[at]),
                paths=path[0],
                others=path[1],
            )
    return tuple(made[at] for at in range(len(found)))


def paths_of(
    network: PolynomialNetwork, rows: Tensor, distance: tuple[int, ...]
) -> list[tuple[tuple[PathShare, ...], float]]:
    """Split the logit of each rule by path: the largest shares, and all others together."""
    if len(network.optional_parts) > MOST_PARTS:
        return [((), 1.0)] * len(rows)
    split = split_by_path(
        network, lambda active: values_of(network, rows, distance, "logits", active)
    )
    told = []
    for values, whole in zip(split.values.T, split.whole, strict=True):
        shares = values / whole if float(whole) else torch.zeros_like(values)
        largest = shares.abs().topk(min(SHOWN_PATHS, len(shares))).indices.tolist()
        kept = tuple(PathShare(split.paths[at], float(shares[at])) for at in largest)
        others = 1.0 - sum(one.share for one in kept) if float(whole) else 0.0
        told.append((kept, others))
    return told


def looked_at(
    network: PolynomialNetwork, plan: ReadingPlan, triples: TripleReading | None
) -> LookedAt:
    """Return the record of what was looked at."""
    return LookedAt(
        plan.chosen,
        len(single_tokens(network, plan)),
        len(plan.ids) if plan.distances else 0,
        plan.distances,
        0 if triples is None else triples.tokens,
        () if triples is None else TRIPLE,
        plan.samples,
        plan.seed,
        network.positions is not None,
    )
