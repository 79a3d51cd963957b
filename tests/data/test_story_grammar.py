"""The one rule holds in every story, nothing else predicts the feeling; the entropy is exact."""

import math
import re
from collections import Counter
from itertools import product

import pytest

from bilens.base.errors import UsageError
from bilens.data import story_grammar
from bilens.data.story_grammar import FEELINGS, NAMES, PLACES, SENTIMENTS, THINGS, StoryGrammar
from bilens.data.tokenizer import train_tokenizer

GRAMMAR = StoryGrammar()
STORIES = GRAMMAR.generate(4000, seed=0)
SIGN = {word: sign for lists in (SENTIMENTS, FEELINGS) for sign in lists for word in lists[sign]}
VERDICT = re.compile(
    rf"(?P<copula>was not|was never|wasn't|was very|was really|was) "
    rf"(?P<sentiment>{'|'.join(SENTIMENTS[1] + SENTIMENTS[-1])})\b"
)
FEELING = re.compile(rf"(?:felt|looked) (?P<feeling>{'|'.join(FEELINGS[1] + FEELINGS[-1])})\.$")
NEGATOR = re.compile(r"\b(?:not|never|wasn't)\b")


def read(story: str) -> tuple[bool, int, int]:
    """Whether the sentiment word is negated, its sign, and the sign of the feeling."""
    verdict, feeling = VERDICT.search(story), FEELING.search(story)
    assert verdict is not None, story
    assert feeling is not None, story
    negated = NEGATOR.search(verdict["copula"]) is not None
    return negated, SIGN[verdict["sentiment"]], SIGN[feeling["feeling"]]


def test_a_negator_before_a_sentiment_word_turns_the_feeling_around() -> None:
    for negated, polarity, feeling in map(read, STORIES):
        assert feeling == (-polarity if negated else polarity)


def test_neither_factor_alone_says_anything_about_the_feeling() -> None:
    counts = Counter(map(read, STORIES))
    assert len(counts) == 4
    for count in counts.values():  # binomial, four standard deviations
        assert abs(count - len(STORIES) / 4) < 4 * math.sqrt(len(STORIES) * 3 / 16)


def test_negators_stand_where_no_sentiment_word_follows_too() -> None:
    elsewhere = [NEGATOR.search(VERDICT.sub("", story)) is not None for story in STORIES]
    assert abs(sum(elsewhere) / len(STORIES) - 1 / 3) < 0.04
    negated = [read(story)[0] for story in STORIES]
    assert {*zip(elsewhere, negated, strict=True)} == {*product((False, True), repeat=2)}


def test_a_second_sentiment_word_is_another_one_of_the_same_polarity() -> None:
    seconds = [re.search(r"(\w+) (and|or) (\w+)", story) for story in STORIES]
    pairs = [(found[1], found[2], found[3]) for found in seconds if found]
    assert abs(len(pairs) / len(STORIES) - 1 / 2) < 0.04
    for first, _, second in pairs:
        assert first != second
        assert SIGN[first] == SIGN[second]
    for story, found in zip(STORIES, seconds, strict=True):
        assert found is None or (found[2] == "or") == read(story)[0]


def test_the_words_of_different_lists_are_different_and_one_token_each() -> None:
    lists = (NAMES, THINGS, PLACES, *SENTIMENTS.values(), *FEELINGS.values())
    words = [word for words in lists for word in words]
    assert len(set(words)) == len(words)
    tokenizer = train_tokenizer(STORIES, None, "word")
    assert all(len(tokenizer.encode(word)) == 1 for word in words)
    assert tokenizer.vocab_size < 128
    assert all(tokenizer.decode(tokenizer.encode(story)) == story for story in STORIES[:100])


def test_a_story_depends_on_its_number_and_the_seed_alone() -> None:
    assert GRAMMAR.generate(10, seed=0) == STORIES[:10]
    assert GRAMMAR.generate(10, seed=1) != STORIES[:10]
    assert STORIES[0] == GOLDEN


GOLDEN = "Zoe had a new drum. It never rained. The drum was nice. Zoe looked proud."


def test_pairs_differ_in_one_word_and_in_the_feeling() -> None:
    prompts = GRAMMAR.minimal_pairs(200, seed=0)
    assert len(prompts) == 400
    for plain, negated in zip(prompts[::2], prompts[1::2], strict=True):
        words = plain.prompt.split(), negated.prompt.split()
        assert sum(a != b for a, b in zip(*words, strict=True)) == 1
        assert (plain.negated, negated.negated) == (False, True)
        assert plain.polarity == negated.polarity
        assert plain.feeling == -negated.feeling == plain.polarity
    assert sum(prompt.polarity for prompt in prompts) == 0


def test_a_prompt_goes_on_as_a_story_with_a_word_of_its_feeling() -> None:
    for prompt in GRAMMAR.minimal_pairs(100, seed=3):
        right = prompt.positive if prompt.feeling == 1 else prompt.negative
        for word in right:
            assert read(f"{prompt.prompt} {word}.") == (
                prompt.negated,
                prompt.polarity,
                prompt.feeling,
            )


def test_the_prompts_are_not_the_stories_of_the_same_seed() -> None:
    begun = {prompt.prompt for prompt in GRAMMAR.minimal_pairs(100, seed=0)}
    assert sum(story.rsplit(" ", 1)[0] in begun for story in STORIES[:100]) < 3


def test_the_expected_number_of_tokens_is_that_of_the_stories() -> None:
    tokenizer = train_tokenizer(STORIES, None, "word")
    lengths = [len(ids) + 1 for ids in tokenizer.encode_all(STORIES)]
    assert abs(sum(lengths) / len(lengths) - GRAMMAR.entropy().tokens_per_story) < 0.2


def test_the_entropy_is_that_of_the_stories(monkeypatch: pytest.MonkeyPatch) -> None:
    """With few words each story is told so often that its share is known."""
    for name, kept in (("NAMES", 1), ("THINGS", 2), ("PLACES", 1)):
        monkeypatch.setattr(story_grammar, name, getattr(story_grammar, name)[:kept])
    for name in ("SENTIMENTS", "FEELINGS"):
        lists = {sign: words[:2] for sign, words in getattr(story_grammar, name).items()}
        monkeypatch.setattr(story_grammar, name, lists)
    monkeypatch.setattr(story_grammar, "ASIDES", ("It was early.", "It never rained.", "", ""))
    num = 60_000
    counts = Counter(GRAMMAR.generate(num, seed=0)).values()
    sampled = -sum(count / num * math.log(count / num) for count in counts)
    unbiased = sampled + (len(counts) - 1) / (2 * num)  # Miller and Madow
    assert GRAMMAR.entropy().per_story == pytest.approx(unbiased, abs=0.01)


def test_one_of_four_words_tells_the_feeling() -> None:
    assert GRAMMAR.entropy().feeling == math.log(4)


@pytest.mark.parametrize(("num", "seed"), [(0, 0), (-1, 0), (2.5, 0), (3, -1)])
def test_numbers_that_make_no_sense_are_refused(num: int, seed: int) -> None:
    for tell in (GRAMMAR.generate, GRAMMAR.minimal_pairs):
        with pytest.raises(UsageError, match="must be an integer of at least"):
            tell(num, seed)
