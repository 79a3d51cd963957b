"""Guards reading against training: rules that texts were made by are found in a network's weights.

Damage that was seen red: texts whose places stand one position off; a scoring that takes the first
token's rules for the second one's.
"""

from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
import torch

import bilens as bl
from bench.known_rules import (
    DISTANCES,
    KEPT,
    NEAR,
    Rules,
    bigram_errors,
    draw_rules,
    induced,
    make_texts,
    skip_right,
)
from bilens.train.loop import learning_rate
from bilens.train.recipes import LanguageRecipe
from bilens.train.tasks.language import start_run, train_step

LENGTH = 32
QUICK = LanguageRecipe(
    polynomial=True,
    d_model=32,
    d_hidden=64,
    n_layer=2,
    n_head=2,
    n_ctx=LENGTH - 1,
    steps=900,
    batch_size=64,
    learning_rate=5e-3,
    weight_decay=0.01,
    dropout=0.0,
    precision="float32",
)


def trained(recipe: LanguageRecipe, rules: Rules) -> bl.PolynomialNetwork:
    """Train on texts that are read once."""
    steps, size = recipe.steps or 0, recipe.batch_size
    texts = make_texts(rules, steps * size, LENGTH, seed=1)
    run = start_run(recipe, len(rules.names))
    for step in range(steps):
        rate = learning_rate(recipe.learning_rate, "linear", recipe.warmup, step, steps)
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        train_step(run, texts[step * size : (step + 1) * size], recipe, step)
    return bl.polynomial_network(run.model)


@cache
def quick() -> bl.PolynomialNetwork:
    """A network that is trained in some ten seconds."""
    return trained(QUICK, draw_rules(0))


def found_skips(network: bl.PolynomialNetwork, rules: Rules) -> list[int]:
    """How many skip-trigrams are found, at each distance."""
    tables = [bl.token_interactions(network, 2, distance=one).values for one in DISTANCES]
    return [skip_right(table, rules) for table in tables if table is not None]


def test_texts_follow_their_rules() -> None:
    rules = draw_rules(0)
    texts, kinds = make_texts(rules, 4000, LENGTH, seed=0), rules.names
    after = {first: Counter[int]() for first in rules.bigrams}
    ends = {rule[:2]: rule[2] for rule in rules.skip}
    repeated = Counter[bool]()
    for text in texts.tolist():
        followers: dict[int, set[int]] = {}
        for at, (now, then) in enumerate(pairwise(text)):
            places = [ends[one, now] for one in text[max(0, at - 12) : at] if (one, now) in ends]
            if now in rules.bigrams:
                after[now][then] += 1
            elif places:
                assert then == places[-1]  # of the nearest place
            elif now in rules.starts and len(followers.get(now, ())) == 1:
                repeated[then in followers[now]] += 1
            followers.setdefault(now, set()).add(then)
    for first, shares in rules.bigrams.items():
        for then, share in shares.items():
            assert after[first][then] / after[first].total() == pytest.approx(share, abs=0.03)
    kept = repeated[True] / repeated.total()
    assert kept == pytest.approx(KEPT + (1 - KEPT) / len(kinds), abs=0.02)


def test_bigrams_and_skip_trigrams_are_found_and_no_others() -> None:
    rules = draw_rules(0)
    assert max(bigram_errors(quick(), rules)) < NEAR
    assert found_skips(quick(), rules) == [6] * 12
    others = rules.shuffled()
    assert min(bigram_errors(quick(), others)) > NEAR
    assert max(found_skips(quick(), others)) <= 2


def test_induction_is_found_and_not_its_neighbour() -> None:
    rules = draw_rules(0)
    total = len(rules.induction)
    assert induced(quick(), rules) >= 0.9 * total
    assert induced(quick(), rules, shift=1) <= 0.2 * total
    untrained = bl.polynomial_network(start_run(QUICK, len(rules.names)).model)
    assert induced(untrained, rules) <= 0.2 * total


@pytest.mark.slow
def test_other_rules_are_found_with_two_pairs() -> None:
    rules = draw_rules(1)
    network = trained(replace(QUICK, pairs=2, steps=2500, seed=1), rules)
    assert max(bigram_errors(network, rules)) < NEAR
    assert found_skips(network, rules) == [6] * 12
    assert induced(network, rules) >= 0.9 * len(rules.induction)
    assert max(found_skips(network, rules.shuffled())) <= 2
    assert induced(network, rules, shift=1) <= 0.2 * len(rules.induction)


def test_the_rules_of_the_control_are_others() -> None:
    rules = draw_rules(0)
    others = rules.shuffled()
    assert not {*rules.skip} & {*others.skip}
    assert all(rules.bigrams[one] != others.bigrams[one] for one in rules.bigrams)
    assert torch.equal(rules.induction, others.induction)
