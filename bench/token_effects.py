"""What single tokens of a text do to the next one in a polynomial network, measured and read.

Measured: the whole text with and without a token (a position that holds none), or with another in
its place. Read: exact interactions of two and three tokens, from the weights alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

import bilens as bl
from bilens.polynomial.network import Cache
from bilens.polynomial.token_interactions import interactions_of

AT_ONCE = 64  # texts that are run together


@dataclass(frozen=True)
class Contexts:
    """Places in held-out stories: the tokens up to each, the last one included, and the next."""

    tokens: Tensor  # (rows, length)
    then: Tensor  # (rows,)
    story: Tensor  # (rows,), its number

    @classmethod
    def draw(cls, stories: list[Tensor], length: int, per_story: int, seed: int) -> Contexts:
        """Draw as many places of each story that is long enough."""
        generator = torch.Generator().manual_seed(seed)
        tokens, then, story = [], [], []
        for number, text in enumerate(stories):
            room = len(text) - length
            if room < per_story:
                continue
            for start in torch.randperm(room, generator=generator)[:per_story].tolist():
                tokens.append(text[start : start + length])
                then.append(text[start + length])
                story.append(number)
        return cls(torch.stack(tokens), torch.stack(then), torch.tensor(story))


@dataclass(frozen=True)
class Effects:
    """Of each context: streams at its last position, by order, and sums for each earlier token.

    The logits of a sum of interactions are the head of their streams.
    """

    alone: Tensor  # (rows, d), the last token
    pairs: Tensor  # (length − 1, rows, d), what each earlier token adds
    triples: Tensor  # (length − 1, rows, d), all interactions of three that it takes part in


def effects_of(network: bl.PolynomialNetwork, tokens: Tensor) -> Effects:
    """Compute all interactions of one, two and three tokens that hold the last position.

    Cost: two runs of one position for each pair of earlier positions, all rows together.
    """
    *earlier, last = [network.embed(column) for column in tokens.T]
    q, places = len(earlier), range(len(earlier))
    alone = network.step(last, q, ())[0]
    caches: list[Cache] = [network.step(x, at, ())[1] for at, x in enumerate(earlier)]
    with_one = [network.step(last, q, [caches[i]])[0] for i in places]
    pairs = torch.stack([one - alone for one in with_one])
    triples = torch.zeros_like(pairs)
    for i in places:
        for j in range(i + 1, q):
            both = [caches[i], network.step(earlier[j], j, [caches[i]])[1]]
            found = network.step(last, q, both)[0] - with_one[i] - pairs[j]
            triples[i] += found
            triples[j] += found
    return Effects(alone, pairs, triples)


def centred_rows(network: bl.PolynomialNetwork, outputs: Tensor) -> Tensor:
    """Return the rows of the head of some outputs, less the mean row: logits no softmax shifts."""
    assert network.head is not None, "a language model has a head"
    return network.head[outputs] - network.head.mean(dim=0)


def streams(network: bl.PolynomialNetwork, tokens: Tensor, absent: int | None = None) -> Tensor:
    """Run texts and return the streams at the last position, one position without a token.

    A position whose embedding is zero adds nothing: all its queries, keys, values and products
    are zero.
    """
    x = network.embed(tokens)
    if absent is not None:
        x = x.clone()
        x[:, absent] = 0
    bare = replace(network, embedding=None, head=None)
    return torch.cat([bare(part)[:, -1] for part in torch.split(x, AT_ONCE)])


def removals(network: bl.PolynomialNetwork, contexts: Contexts, distances: range) -> Tensor:
    """Measure what each token adds to the logit of the true next one, (distances, rows)."""
    rows = centred_rows(network, contexts.then)
    whole = streams(network, contexts.tokens)
    last = contexts.tokens.shape[1] - 1
    found = [whole - streams(network, contexts.tokens, last - distance) for distance in distances]
    return torch.stack([(one * rows).sum(dim=1) for one in found])


def readings(effects: Effects, rows: Tensor, distances: range) -> tuple[Tensor, Tensor]:
    """Return what the weights say of the same, by two tokens and with three: (distances, rows)."""
    at = [-distance for distance in distances]
    two = (effects.pairs[at] * rows).sum(dim=2)
    return two, two + (effects.triples[at] * rows).sum(dim=2)


def replacements(
    network: bl.PolynomialNetwork,
    rule: tuple[int, int, int],
    distance: int,
    tokens: Tensor,
) -> tuple[Tensor, Tensor]:
    """Put the first token of a skip-trigram before its second one: by how much does the third gain?

    Returns: measured and predicted changes of its logit, (texts,), beside the token that was there.
    """
    first, now, then = rule
    place = tokens.shape[1] - 1 - distance
    other = tokens.clone()
    other[:, place] = first
    row = centred_rows(network, torch.tensor([then]))
    measured = (streams(network, other) - streams(network, tokens)) @ row[0]
    pairs = torch.stack([tokens[:, place], tokens[:, -1]], dim=1)
    new = interactions_of(network, torch.tensor([[first, now]]), distance)[:, then]
    return measured, new - interactions_of(network, pairs, distance)[:, then]
