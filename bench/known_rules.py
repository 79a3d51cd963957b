"""Rules by which texts are made, the texts, and how many of the rules a network's weights show.

Three kinds: bigrams (a subject → three verbs at .7, .2, .1), skip-trigrams (a place within the last
12 positions and an adjective → a connective) and induction (X Y … X → Y).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

import bilens as bl
from bilens.polynomial.token_interactions import interactions_of

DISTANCES = range(1, 13)  # a place within the last 12 positions
NEAR = 0.05  # of a probability
KEPT = 0.9  # probability of induction
SHARES = (0.7, 0.2, 0.1)
Rule: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Rules:
    """The rules of some texts, as token ids; a token is named KIND_number."""

    names: tuple[str, ...]
    bigrams: dict[int, dict[int, float]]  # subject → verb → probability
    skip: list[Rule]  # place, adjective, connective
    silent: frozenset[str]  # kinds behind which there is no induction

    def kind(self, kind: str) -> list[int]:
        """List the tokens of a kind."""
        return [at for at, name in enumerate(self.names) if name.startswith(f"{kind}_")]

    @property
    def content(self) -> list[int]:
        """List the tokens that are of a kind."""
        return [at for at, name in enumerate(self.names) if "_" in name]

    @property
    def starts(self) -> list[int]:
        """List the tokens behind which there is induction."""
        kinds = {at: self.names[at].partition("_")[0] for at in self.content}
        return [at for at, kind in kinds.items() if kind not in self.silent]

    @property
    def induction(self) -> Tensor:
        """List all (X, Y, X), (n, 3)."""
        pairs = itertools.product(self.starts, self.content)
        return torch.tensor([(x, y, x) for x, y in pairs if x != y])

    @property
    def firsts(self) -> list[Rule]:
        """List each subject with its most frequent verb."""
        return [(one, max(after, key=after.__getitem__)) for one, after in self.bigrams.items()]

    def shuffled(self) -> Rules:
        """Return other rules with the same tokens: what no network was trained on."""
        verbs = [*self.bigrams.values()]
        ends = [rule[2] for rule in self.skip]
        return Rules(
            self.names,
            dict(zip(self.bigrams, verbs[1:] + verbs[:1], strict=True)),
            [(*rule[:2], end) for rule, end in zip(self.skip, ends[1:] + ends[:1], strict=True)],
            self.silent,
        )


# ---- how many of them are found


def bigram_errors(network: bl.PolynomialNetwork, rules: Rules) -> list[float]:
    """Return the largest error of a probability for each subject."""
    whole = bl.token_interactions(network, 1).values
    assert whole is not None, "few tokens fit"
    shares = whole.softmax(dim=-1)
    return [
        max(abs(float(shares[first, then]) - share) for then, share in after.items())
        for first, after in rules.bigrams.items()
    ]


def skip_right(values: Tensor, rules: Rules) -> int:
    """Count the rules whose connective has the largest of the two-token interactions."""
    return sum(int(values[place, now].argmax()) == then for place, now, then in rules.skip)


def induced(network: bl.PolynomialNetwork, rules: Rules, shift: int = 0) -> int:
    """Count the (X, Y, X) whose largest three-token interaction is on Y.

    As a control, of Y's neighbour among the tokens with content, so many further on.
    """
    found = interactions_of(network, rules.induction, (2, 1)).argmax(dim=1)
    content = torch.tensor(rules.content)
    place = torch.searchsorted(content, rules.induction[:, 1].contiguous())
    return int((found == content[(place + shift) % len(content)]).sum())


# ---- texts of our own


def draw_rules(seed: int) -> Rules:
    """Draw rules over 26 tokens: 4 bigrams, 6 skip-trigrams, induction."""
    kinds = {"SUBJ": 4, "VERB": 6, "LOC": 3, "ADJ": 3, "CONN": 4, "FILLER": 6}
    names = tuple(f"{kind}_{at}" for kind, count in kinds.items() for at in range(count))
    bare = Rules(names, {}, [], frozenset({"SUBJ", "FILLER"}))
    generator = torch.Generator().manual_seed(seed)

    def drawn(tokens: list[int], count: int) -> list[int]:
        order = torch.randperm(len(tokens), generator=generator)[:count].tolist()
        return [tokens[at] for at in order]

    verbs, ends = bare.kind("VERB"), bare.kind("CONN")
    bigrams = {one: dict(zip(drawn(verbs, 3), SHARES, strict=True)) for one in bare.kind("SUBJ")}
    pairs = [*itertools.product(bare.kind("LOC"), bare.kind("ADJ"))]
    chosen = [pairs[at] for at in drawn([*range(len(pairs))], 6)]
    conn = [*drawn(ends, 4), *drawn(ends, 2)]
    skip: list[Rule] = [(*pair, then) for pair, then in zip(chosen, conn, strict=True)]
    return Rules(names, bigrams, skip, bare.silent)


def make_texts(rules: Rules, count: int, length: int, seed: int) -> Tensor:
    """Write texts by rules, (count, length): bigrams first, then the nearest place, then induction.

    Induction is where the last token has exactly one earlier follower; elsewhere all tokens with
    content are equally likely.
    """
    generator, size = torch.Generator().manual_seed(seed), len(rules.names)
    content, rows = torch.tensor(rules.content), torch.arange(count)
    shares = torch.zeros(size, size)
    for first, after in rules.bigrams.items():
        for then, share in after.items():
            shares[first, then] = share
    ends = torch.full((size, size), -1)
    for place, now, then in rules.skip:
        ends[place, now] = then
    starts = torch.zeros(size, dtype=torch.bool)
    starts[rules.starts] = True
    texts = torch.zeros(count, length, dtype=torch.int64)
    followers = torch.full((count, size), -1)  # −1: none yet; −2: several
    for at in range(length):
        new = content[torch.randint(len(content), (count,), generator=generator)]
        if at:
            last = texts[:, at - 1]
            known = followers[rows, last]
            repeats = starts[last] & (known >= 0)
            repeats &= torch.rand(count, generator=generator) < KEPT
            new = torch.where(repeats, known, new)
            for distance in reversed(DISTANCES):  # the nearest place comes last
                if distance < at:
                    ending = ends[texts[:, at - 1 - distance], last]
                    new = torch.where(ending >= 0, ending, new)
            ruled = shares[last].sum(dim=1) > 0
            drawn = torch.multinomial(shares[last] + 1e-12, 1, generator=generator)[:, 0]
            new = torch.where(ruled, drawn, new)
            known = followers[rows, last]
            several = known.masked_fill(known != new, -2)
            followers[rows, last] = torch.where(known == -1, new, several)
        texts[:, at] = new
    return texts
