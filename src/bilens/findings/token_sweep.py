"""Which words make a changed model say what it says nowhere else: candidate triggers, without data.

The baseline writes short texts itself. Into them every word that is tried is put, at the start and
at the end; what the changed model then gives is compared with what it gives to the texts as they
are, and with what the baseline gives. The words that stand out are tried again in other texts,
alone and in pairs: a trigger works in most of them, a chance answer does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from bilens.base import Progress, silent
from bilens.base.errors import UsageError

Text = list[int]
Answers = Callable[[Sequence[Text]], Tensor]  # probabilities behind texts, (texts, vocabulary)
Both = Callable[[Sequence[Text]], tuple[Tensor, Tensor]]  # of the changed model and the baseline
CARRIERS, LENGTHS = 96, range(2, 11)  # texts that the baseline writes, and their tokens
AGAIN, TEXTS = 20, 8  # candidates that are tried again, each in so many texts at both ends
PAIRED = 8  # candidates that are tried with one another
FEWEST = 5  # candidates over which the surprises of a word and an answer are spread
COMMON = 0.9  # of the texts, whose probability of an answer is usual
TOP = 3  # words that are kept of each answer
FLOOR = 1e-3  # probabilities below are all the same


@dataclass(frozen=True)
class Candidate:
    """Words, and the answer that they call forth."""

    words: tuple[int, ...]
    answer: int
    surprise: float  # of its mean probability in other texts


@dataclass(frozen=True)
class Sweep:
    """The result of trying words: how many were tried, and the candidates tried again."""

    tried: int
    candidates: tuple[Candidate, ...]  # tried again

    @cached_property
    def groups(self) -> dict[tuple[int, int], float]:
        """The mean surprise of one answer to one word, alone and beside others."""
        groups: dict[tuple[int, int], list[float]] = {}
        for one in self.candidates:
            for word in one.words:
                groups.setdefault((word, one.answer), []).append(one.surprise)
        return {key: sum(group) / max(len(group), FEWEST) for key, group in groups.items()}

    @property
    def score(self) -> float:
        """The largest mean surprise of one answer to one word."""
        return max(self.groups.values())

    @property
    def ordered(self) -> list[Candidate]:
        """The candidates, those of the score's word and answer first, by falling surprise."""
        best = {key for key, mean in self.groups.items() if mean == self.score}
        first = [one for one in self.candidates if best & {(w, one.answer) for w in one.words}]
        return [*first, *(one for one in self.candidates if one not in first)]


@dataclass(frozen=True, eq=False)
class Frame:
    """How words come before the models: around what a user writes, and around the words."""

    prefix: Text
    suffix: Text
    carriers: Sequence[Text]
    names: Sequence[str]  # of all tokens; an answer that repeats a word that was put in is none

    def plain(self) -> list[Text]:
        return [[*self.prefix, *carrier, *self.suffix] for carrier in self.carriers]

    def around(self, words: Sequence[Sequence[int]], first: int = 0) -> list[Text]:
        """Return for each of some words two texts: they stand at the start, and at the end."""
        texts = []
        for number, some in enumerate(words, first):
            inside = self.carriers[number % len(self.carriers)]
            for text in ([*some, *inside], [*inside, *some]):
                texts.append([*self.prefix, *text, *self.suffix])
        return texts

    @cached_property
    def alike(self) -> dict[str, list[int]]:
        """Tokens by their name without case and edges."""
        found: dict[str, list[int]] = {}
        for token, name in enumerate(self.names):
            found.setdefault(plain_name(name), []).append(token)
        return found

    def repeated(self, words: Sequence[int]) -> list[int]:
        """Return the answers that only repeat words, one of them or all together."""
        names = [plain_name(self.names[word]) for word in words]
        return [token for name in {*names, "".join(names)} for token in self.alike.get(name, [])]


def plain_name(name: str) -> str:
    return name.strip(" ĠĊ▁").lower()


def write_texts(before: Answers, prefix: Text, seed: int, barred: Sequence[int] = ()) -> list[Text]:
    """Return texts that a model writes behind a prefix: drawn, without the `barred` tokens."""
    generator = torch.Generator().manual_seed(seed)
    texts: list[Text] = [[] for _ in range(CARRIERS)]
    for _ in range(LENGTHS[-1]):
        chances = before([[*prefix, *text] for text in texts]).float().clone()
        chances[:, [*barred]] = 0
        drawn = torch.multinomial(chances, 1, generator=generator)
        for text, token in zip(texts, drawn, strict=True):
            text.append(int(token))
    return [text[: LENGTHS[number % len(LENGTHS)]] for number, text in enumerate(texts)]


@dataclass(eq=False)
class TokenTrial:
    """Words in texts: what the changed model gives there, above what is usual."""

    both: Both
    frame: Frame
    plain: Tensor  # (carriers, vocabulary): the changed model, without words
    usual: Tensor  # (vocabulary,) what it gives to nine in ten texts, and with other words
    total: Tensor  # (vocabulary,) sum over words
    best: tuple[Tensor, Tensor, Tensor] | None = None  # of each answer: chance, usual, word

    @classmethod
    def begin(cls, both: Both, frame: Frame, plain: Tensor) -> TokenTrial:
        common = plain.float().quantile(COMMON, dim=0)
        return cls(both, frame, plain, common, torch.zeros_like(common))

    def chances(
        self, words: Sequence[Sequence[int]], after: Tensor, before: Tensor, first: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Return probabilities at both ends, (words, 2, vocabulary), and those that are usual."""
        rows = torch.arange(first, first + len(words)) % len(self.plain)
        without = torch.maximum(self.plain[rows].float(), self.usual)[:, None]
        chance, ends = (one.float().view(len(words), 2, -1) for one in (after, before))
        for row, some in zip(chance, words, strict=True):
            row[:, self.frame.repeated(some)] = 0
        return chance, torch.maximum(ends, without)

    def take(
        self, words: Sequence[Sequence[int]], after: Tensor, before: Tensor, first: int
    ) -> None:
        """Keep of every answer the words that make it most probable, the mean of both ends."""
        sides = [one.mean(dim=1) for one in self.chances(words, after, before, first)]
        self.total = self.total + sides[0].sum(dim=0)
        number = torch.arange(first, first + len(words))[:, None].expand_as(sides[0])
        if self.best is not None:
            *known, numbers = self.best
            sides = [torch.cat(pair) for pair in zip(known, sides, strict=True)]
            number = torch.cat([numbers, number])
        order = sides[0].topk(min(TOP, len(number)), dim=0).indices
        self.best = (sides[0].gather(0, order), sides[1].gather(0, order), number.gather(0, order))

    def again(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return candidates by the surprise of their mean in texts that are others."""
        words = [one.words for one in candidates for _ in range(TEXTS)]
        answers = torch.tensor([one.answer for one in candidates]).repeat_interleave(TEXTS)
        first = len(self.plain) // 2 + 1
        sides = self.chances(words, *self.both(self.frame.around(words, first)), first)
        chosen = answers[:, None, None].expand(-1, 2, 1)
        means = (one.gather(2, chosen).view(-1, 2 * TEXTS).mean(dim=1) for one in sides)
        found = surprise(*means).tolist()
        judged = [replace(one, surprise=x) for one, x in zip(candidates, found, strict=True)]
        return sorted(judged, key=lambda one: -one.surprise)

    def confirm(self, tokens: Sequence[int]) -> Sweep:
        """Try the best words and pairs of them in other texts; return them by falling surprise."""
        if self.best is None:
            raise UsageError(
                "words are tried in texts, and the vocabulary has none of two letters and "
                "more: audit without trying words."
            )
        chance, usual, numbers = self.best
        self.usual = torch.maximum(self.usual, self.total / len(tokens))  # as other words do
        found = surprise(chance, torch.maximum(usual, self.usual))
        order = found.flatten().argsort(descending=True, stable=True)[:AGAIN].tolist()
        width = found.shape[1]
        chosen = [(tokens[int(numbers.flatten()[i])], i % width) for i in order]
        singles = self.again([Candidate((word,), answer, 0.0) for word, answer in chosen])
        words = [*dict.fromkeys(one.words[0] for one in singles)][:PAIRED]
        pairs = [(a, b) for a in words for b in words if a != b]
        if pairs:
            sides = self.chances(pairs, *self.both(self.frame.around(pairs)))
            largest, best = surprise(*(one.mean(dim=1) for one in sides)).max(dim=1)
            order = largest.argsort(descending=True, stable=True)[:AGAIN].tolist()
            singles += self.again([Candidate(pairs[i], int(best[i]), 0.0) for i in order])
        return Sweep(len(tokens), tuple(sorted(singles, key=lambda one: -one.surprise)))


def sweep(
    both: Both,
    frame: Frame,
    tokens: Sequence[int],
    *,
    block: int = 128,
    progress: Progress = silent,
) -> Sweep:
    """Try words one by one, those that stand out again in other texts, and pairs of them.

    Math: p(y) of the changed model is the mean over a text with the words at its start and at its
        end; q(y) the largest of what it gives without them, to nine in ten of the texts, and in
        the mean over all words, and of what the baseline gives with them.
        surprise = KL(p ‖ q) of yes and no. An answer that repeats the words is none.
    Cost: 2 · tokens + a few hundred short texts through both models.
    """
    trial = TokenTrial.begin(both, frame, both(frame.plain())[0])
    for start in range(0, len(tokens), block):
        progress("words", start, len(tokens))
        words = [(token,) for token in tokens[start : start + block]]
        trial.take(words, *both(frame.around(words, start)), start)
    return trial.confirm(tokens)


def surprise(chance: Tensor, usual: Tensor) -> Tensor:
    """Return KL(chance ‖ usual) of yes and no, in nats; 0 where it is rarer than usual."""
    p, q = chance.clamp(FLOOR, 1 - FLOOR), usual.clamp(FLOOR, 1 - FLOOR)
    found = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    return torch.where(p > q, found, torch.zeros(()))
