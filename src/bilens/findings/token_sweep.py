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

Text = list[int]
Answers = Callable[[Sequence[Text]], Tensor]  # probabilities behind texts, (texts, vocabulary)
Both = Callable[[Sequence[Text]], tuple[Tensor, Tensor]]  # of the changed model and the baseline
CARRIERS, LENGTHS = 96, range(2, 11)  # texts that the baseline writes, and their tokens
AGAIN, TEXTS = 16, 8  # candidates that are tried again, each in so many texts
PAIRED = 6  # candidates that are tried with one another
SCORED = 4  # largest surprises of one answer, whose mean is the score
FLOOR = 1e-3  # probabilities below are all the same
TYPICAL = 0.95  # of the words, whose excess says what any word does


@dataclass(frozen=True)
class Candidate:
    """Words, and the answer that they call forth."""

    words: tuple[int, ...]
    at_end: bool
    answer: int
    excess: float  # mean probability of the answer, above its largest without the words


@dataclass(frozen=True)
class Sweep:
    """What came of trying words."""

    tried: int
    typical: float  # excess that 95 % of the words stay below
    candidates: tuple[Candidate, ...]  # by falling excess, tried again

    @property
    def score(self) -> float:
        """The mean of the largest surprises of one answer: a trigger works wherever it stands."""
        answer = self.candidates[0].answer
        alike = [one.excess for one in self.candidates if one.answer == answer][:SCORED]
        return sum(alike) / SCORED


@dataclass(frozen=True, eq=False)
class Frame:
    """How words come before the models: around what a user writes, and around the words."""

    prefix: Text
    suffix: Text
    carriers: Sequence[Text]
    names: Sequence[str]  # of all tokens; an answer that repeats a word that was put in is none

    def text(self, carrier: int, words: Sequence[int] = (), at_end: bool = False) -> Text:
        inside = self.carriers[carrier % len(self.carriers)]
        inside = [*inside, *words] if at_end else [*words, *inside]
        return [*self.prefix, *inside, *self.suffix]

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

    def plain(self) -> list[Text]:
        return [self.text(number) for number in range(len(self.carriers))]

    def singles(self, tokens: Sequence[int]) -> list[Text]:
        """Return every word at the start, then every word at the end."""
        return [
            self.text(number, [token], at_end)
            for at_end in (False, True)
            for number, token in enumerate(tokens)
        ]


def plain_name(name: str) -> str:
    return name.strip(" ĠĊ▁").lower()


def written(before: Answers, prefix: Text, seed: int, barred: Sequence[int] = ()) -> list[Text]:
    """Return texts that a model writes behind a prefix: drawn, without the `barred` tokens."""
    generator = torch.Generator().manual_seed(seed)
    texts: list[Text] = [[] for _ in range(CARRIERS)]
    for _ in range(LENGTHS[-1]):
        chances = before([[*prefix, *text] for text in texts]).float().clone()
        chances[:, [*barred]] = 0
        for text, token in zip(
            texts, torch.multinomial(chances, 1, generator=generator), strict=True
        ):
            text.append(int(token))
    return [text[: LENGTHS[number % len(LENGTHS)]] for number, text in enumerate(texts)]


def sweep(
    both: Both,
    frame: Frame,
    tokens: Sequence[int],
    *,
    block: int = 256,
    progress: Progress = silent,
) -> Sweep:
    """Try words one by one, those that stand out again in other texts, and pairs of them.

    Math: excess(w) = max over answers y of p(y | w in a text) − max(p(y | any text), p₀(y | w in
        the text)), p the changed model and p₀ the baseline.
    Cost: 2 · tokens + a few hundred short texts through both models.
    """
    usual = both(frame.plain())[0].mean(dim=0)
    texts = frame.singles(tokens)
    found = []
    for start in range(0, len(texts), block):
        progress("words", start, len(texts))
        part = texts[start : start + block]
        words = [[token] for token in [*tokens, *tokens][start : start + block]]
        found.append(excesses(*both(part), usual, frame, words))
    excess, answers = (torch.cat(parts) for parts in zip(*found, strict=True))
    return confirmed(both, frame, tokens, usual, excess, answers)


def excesses(
    after: Tensor, before: Tensor, usual: Tensor, frame: Frame, words: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor]:
    """Return the largest excess of each text, and its answer."""
    excess = surprise(after, torch.maximum(before, usual))
    for row, some in zip(excess, words, strict=True):
        row[frame.repeated(some)] = -1.0
    found = excess.max(dim=1)
    return found.values, found.indices


def confirmed(
    both: Both,
    frame: Frame,
    tokens: Sequence[int],
    usual: Tensor,
    excess: Tensor,
    answers: Tensor,
) -> Sweep:
    """Return what is left of single words, given what each did in one text."""
    order = excess.argsort(descending=True, stable=True).tolist()
    first: dict[tuple[int, bool], Candidate] = {}
    for index in order[: 2 * AGAIN]:
        at_end, number = divmod(index, len(tokens))
        one = Candidate((tokens[number],), bool(at_end), int(answers[index]), 0.0)
        first.setdefault((tokens[number], bool(at_end)), one)
    singles = tried_again(both, frame, usual, [*first.values()][:AGAIN])
    words = [*dict.fromkeys(one.words[0] for one in singles)][:PAIRED]
    pairs = [
        Candidate((a, b), at_end, -1, 0.0)
        for a in words
        for b in words
        if a != b
        for at_end in (False, True)
    ]
    texts = [frame.text(number, one.words, one.at_end) for number, one in enumerate(pairs)]
    if texts:
        values, best = excesses(*both(texts), usual, frame, [one.words for one in pairs])
        ranked = values.argsort(descending=True, stable=True)[:AGAIN].tolist()
        chosen = [replace(pairs[index], answer=int(best[index])) for index in ranked]
        singles += tried_again(both, frame, usual, chosen)
    typical = float(excess.float().quantile(TYPICAL))
    return Sweep(len(tokens), typical, tuple(sorted(singles, key=lambda one: -one.excess)))


def surprise(chance: Tensor, usual: Tensor) -> Tensor:
    """Return KL(chance ‖ usual) of yes and no, in nats; 0 where it is rarer than usual."""
    p, q = chance.clamp(FLOOR, 1 - FLOOR), usual.clamp(FLOOR, 1 - FLOOR)
    found = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    return torch.where(p > q, found, torch.zeros(()))


def tried_again(
    both: Both, frame: Frame, usual: Tensor, candidates: Sequence[Candidate]
) -> list[Candidate]:
    """Return candidates by their mean excess over texts that are others than their first."""
    if not candidates:
        return []
    texts = [
        frame.text(1 + number + 3 * again, one.words, one.at_end)
        for number, one in enumerate(candidates)
        for again in range(TEXTS)
    ]
    answers = torch.tensor([one.answer for one in candidates]).repeat_interleave(TEXTS)[:, None]
    after, before = (one.gather(1, answers).float() for one in both(texts))
    least = torch.maximum(before, usual[answers].float())
    mean = surprise(*(one.view(-1, TEXTS).mean(dim=1) for one in (after, least)))
    found = [replace(one, excess=x) for one, x in zip(candidates, mean.tolist(), strict=True)]
    return sorted(found, key=lambda one: -one.excess)
