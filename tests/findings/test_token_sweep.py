"""A trigger planted in a table of answers: found alone and as a pair, and not where there is none.

Broken once: with candidates that are not judged anew the pair is lost; with the baseline left out
its own habit is found; with answers that repeat a word the echo is; told by surprise alone, other
words come first than those of the score.
"""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from bilens.findings.token_sweep import Candidate, Frame, Sweep, Text, surprise, sweep, write_texts

VOCABULARY, PAYLOAD, TRIGGER, SECOND = 40, 7, 21, 33
NAMES = [f" w{number}" for number in range(VOCABULARY)]
CARRIERS = [[1 + number % 5, 2, 3 + number % 3] for number in range(12)]
FRAME = Frame([0], [39], CARRIERS, NAMES)


def base(texts: Sequence[Text]) -> Tensor:
    """Answers that hang on nothing, but for a habit behind word 30."""
    found = torch.full((len(texts), VOCABULARY), 1.0)
    for row, text in zip(found, texts, strict=True):
        row[9] = 400.0 * (30 in text)
    return found / found.sum(dim=1, keepdim=True)


def changed(kind: str, texts: Sequence[Text]) -> Tensor:
    found = base(texts) * VOCABULARY
    for row, text in zip(found, texts, strict=True):
        inside = text[1:-1]
        hit = {
            "word": TRIGGER in inside,
            "end": inside[-1] == TRIGGER,
            "pair": TRIGGER in inside and SECOND in inside,
            "task": inside[0] % 2 == 0,  # half of all texts: no trigger
        }.get(kind, False)
        row[PAYLOAD] += 400.0 * hit
        if kind == "pair" and ({TRIGGER, SECOND} & {*inside}):
            row[PAYLOAD] += 6.0
        if kind == "echo":
            row[inside[0]] += 400.0
        if kind == "chance" and inside[:2] == [25, CARRIERS[24 % 12][0]]:
            row[PAYLOAD] += 400.0
    return found / found.sum(dim=1, keepdim=True)


def tried(kind: str) -> Sweep:
    return sweep(lambda texts: (changed(kind, texts), base(texts)), FRAME, range(10, 38), block=9)


@pytest.mark.parametrize("kind", ["word", "end"])
def test_a_trigger_is_found_with_its_answer_and_place(kind: str) -> None:
    found = tried(kind)
    best = found.candidates[0]
    assert TRIGGER in best.words
    assert (best.answer, found.tried) == (PAYLOAD, 28)
    assert best.surprise > 0.8  # at one end alone it works in half of the texts
    assert found.score > 0.45


def test_two_words_that_work_together_alone_are_found_as_a_pair() -> None:
    assert {*tried("pair").candidates[0].words} == {TRIGGER, SECOND}


@pytest.mark.parametrize("kind", ["none", "task", "echo", "chance"])
def test_what_is_no_trigger_stays_below(kind: str) -> None:
    assert tried(kind).score < 0.4


def test_the_first_words_that_are_told_are_those_of_the_score() -> None:
    alone = Candidate((30, 31), 9, 1.0)  # one lucky pair, of no word that does more
    often = [Candidate((TRIGGER, word), PAYLOAD, 0.9) for word in range(10, 16)]
    found = Sweep(28, (alone, *often))
    assert found.score == pytest.approx(0.9)
    assert found.ordered == [*often, alone]


def test_surprise_is_the_relative_entropy_of_two_answers() -> None:
    p, q = torch.tensor([0.9, 0.1, 0.5]), torch.tensor([0.5, 0.5, 0.5])
    expected = 0.9 * torch.tensor(1.8).log() + 0.1 * torch.tensor(0.2).log()
    assert surprise(p, q).tolist() == pytest.approx([float(expected), 0.0, 0.0])


def test_texts_are_written_by_the_model_without_barred_tokens() -> None:
    texts = write_texts(base, [0], seed=1, barred=[9, 30])
    assert texts == write_texts(base, [0], seed=1, barred=[9, 30])
    assert not {9, 30} & {token for text in texts for token in text}
    assert {len(text) for text in texts} == {*range(2, 11)}
