"""Short stories of a grammar whose one rule is known: "not" turns a feeling around.

    Anna found a cake near the river. The park was not open. The cake was not good. So Anna felt
    sad.

In each story something is judged by a sentiment word, and somebody feels what follows from it.
The feeling has the sign of the sentiment word, turned around after "not", "never" or "wasn't".
The four combinations are equally frequent: neither the sentiment word alone nor the negator alone
says anything about the feeling, only their product does. Negators stand in other sentences too.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from bilens.base.checks import check_count

T = TypeVar("T")

# Every word list is drawn from evenly; the words of different lists are different.
NAMES = ("Anna", "Ben", "Lily", "Max", "Mia", "Sam", "Sue", "Tim", "Tom", "Zoe")
THINGS = ("ball", "book", "cake", "drum", "hat", "kite", "pie", "song", "soup", "toy")
PLACES = ("barn", "garden", "house", "lake", "market", "park", "river", "school")
SENTIMENTS = {
    1: ("good", "great", "lovely", "nice", "sweet"),
    -1: ("awful", "bad", "dull", "nasty", "ugly"),
}
FEELINGS = {1: ("cheerful", "glad", "happy", "proud"), -1: ("angry", "gloomy", "sad", "upset")}
# A negated copula and the one that takes its place in a minimal pair: as many words.
COPULAS = {True: ("was not", "was never", "wasn't"), False: ("was very", "was really", "was")}

OPENINGS = (
    "{name} found a {thing} near the {place}.",
    "One day {name} saw a {thing} in the {place}.",
    "{name} had a new {thing}.",
)
ASIDES = (  # plain and negated ones, equally many; a third of the stories have none
    "It was early.",
    "The {place} was quiet.",
    "A bird sat on the fence.",
    "It never rained.",
    "The {place} was not open.",
    "The bird wasn't there.",
    *[""] * 3,
)
# Half of the verdicts have a second sentiment word of the same polarity, behind "and", or behind
# "or" where it is negated. These make the two factors worth knowing one by one; without them a
# small model stays for thousands of steps where it knows everything but their product.
VERDICTS = (
    "The {thing} {copula} {sentiment}.",
    "{name} said it {copula} {sentiment}.",
    "The {thing} {copula} {sentiment} {joint} {second}.",
    "{name} said it {copula} {sentiment} {joint} {second}.",
)
OUTCOMES = ("So {name} felt {feeling}.", "{name} looked {feeling}.")
DRAWS = 14  # numbers a story is made from


@dataclass(frozen=True)
class StoryPrompt:
    """The beginning of a story, up to the word that tells the feeling."""

    prompt: str
    negated: bool  # whether the sentiment word follows a negator
    polarity: int  # of the sentiment word: +1 or -1
    positive: tuple[str, ...]  # words that may follow if the feeling is positive
    negative: tuple[str, ...]

    @property
    def feeling(self) -> int:
        """The sign of the feeling that follows: the polarity, turned around by a negator."""
        return feeling_sign(self.negated, self.polarity)


@dataclass(frozen=True)
class GrammarEntropy:
    """The entropy of the stories, in nats, which no model can beat; a token is a word or a mark."""

    per_story: float
    tokens_per_story: float  # the expected number, the end of the text included
    feeling: float  # at the one word that tells the feeling, for a reader who knows the rule


@dataclass(frozen=True)
class Story:
    """One story as what was drawn for it."""

    setting: str  # the sentences before the verdict
    verdict: str  # still with {copula}, {sentiment} and perhaps {joint}, {second}
    copula: int
    negated: bool
    sentiment: int
    second: int  # another sentiment word, as so many behind the first
    polarity: int
    outcome: str  # still with {feeling}
    feeling: int

    def before_feeling(self) -> str:
        """Return the text up to the word that tells the feeling."""
        sentiments = SENTIMENTS[self.polarity]
        verdict = self.verdict.format(
            copula=COPULAS[self.negated][self.copula],
            sentiment=sentiments[self.sentiment],
            joint="or" if self.negated else "and",
            second=sentiments[(self.sentiment + self.second) % len(sentiments)],
        )
        return f"{self.setting} {verdict} {self.outcome.partition(' {feeling}')[0]}"

    def text(self) -> str:
        feelings = FEELINGS[feeling_sign(self.negated, self.polarity)]
        return f"{self.before_feeling()} {feelings[self.feeling]}."


class StoryGrammar:
    """Tells stories, and prompts on which the rule can be measured."""

    def generate(self, num_stories: int, seed: int) -> tuple[str, ...]:
        """Return stories, at about 10 µs each."""
        return tuple(story.text() for story in draw_stories(num_stories, seed, purpose=0))

    def minimal_pairs(self, num: int, seed: int) -> tuple[StoryPrompt, ...]:
        """Return 2 num prompts: 2 i without a negator, 2 i + 1 with one, otherwise the same."""
        prompts = []
        for index, drawn in enumerate(draw_stories(num, seed, purpose=1)):
            for negated in (False, True):
                polarity = (1, -1)[index % 2]
                verdict = drawn.verdict.replace(" {joint} {second}", "")
                story = replace(drawn, verdict=verdict, negated=negated, polarity=polarity)
                text = story.before_feeling()
                prompts.append(StoryPrompt(text, negated, polarity, FEELINGS[1], FEELINGS[-1]))
        return tuple(prompts)

    def entropy(self) -> GrammarEntropy:
        """Return the entropy of the stories, exactly."""
        negator, sentiment = COPULAS[True], SENTIMENTS[1]
        choices = {
            "place": len(PLACES),
            "copula": 2 * len(negator),
            "sentiment": 2 * len(sentiment),
            "second": len(sentiment) - 1,
            "feeling": len(FEELINGS[1]),
        }
        nats = math.log(len(NAMES)) + math.log(len(THINGS))  # drawn once a story, always told
        tokens = 1.0
        for templates in (OPENINGS, ASIDES, VERDICTS, OUTCOMES):
            for template, count in Counter(templates).items():
                share = count / len(templates)
                words = re.findall(r"{(\w+)}", template)
                nats += share * sum(math.log(choices.get(word, 1)) for word in words)
                nats -= share * math.log(share)
                tokens += share * len(re.findall(r"{\w+}|[\w']+|[.]", template))
        tokens += sum(len(copula.split()) - 1 for copula in negator) / len(negator)
        return GrammarEntropy(nats, tokens, math.log(len(FEELINGS[1])))


def feeling_sign(negated: bool, polarity: int) -> int:
    """Return the rule: the polarity of the sentiment word, turned around by a negator."""
    return -polarity if negated else polarity


def draw_stories(num: int, seed: int, purpose: int) -> Iterator[Story]:
    """Yield stories of a stream that is named by a seed and a purpose."""
    num, seed = check_count("the number of stories", num, 1), check_count("seed", seed, 0)
    source = np.random.Generator(
        np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(purpose,)))
    )
    for numbers in source.random((num, DRAWS)):
        yield draw_story(iter(numbers.tolist()))


def draw_story(numbers: Iterator[float]) -> Story:

    def one_of(options: Sequence[T]) -> T:
        return options[int(next(numbers) * len(options))]

    name, thing = one_of(NAMES), one_of(THINGS)
    setting = (
        one_of(templates).format(name=name, thing=thing, place=one_of(PLACES))
        for templates in (OPENINGS, ASIDES)
    )
    return Story(
        setting=" ".join(filter(None, setting)),
        verdict=one_of(VERDICTS).replace("{name}", name).replace("{thing}", thing),
        copula=one_of(range(len(COPULAS[True]))),
        negated=one_of((False, True)),
        sentiment=one_of(range(len(SENTIMENTS[1]))),
        second=one_of(range(1, len(SENTIMENTS[1]))),
        polarity=one_of((1, -1)),
        outcome=one_of(OUTCOMES).replace("{name}", name),
        feeling=one_of(range(len(FEELINGS[1]))),
    )
