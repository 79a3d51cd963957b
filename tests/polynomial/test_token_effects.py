"""Guards the measured and read effects of single tokens: against runs over chosen positions.

Damage that was seen red: triples counted once for one of their tokens; the place of a replaced
token off by one; an empty position that still has a query.
"""

from itertools import combinations

import pytest
import torch

import bilens as bl
from bench.token_effects import Contexts, centred_rows, effects_of, readings, removals, replacements
from polynomial.test_reading import transformer

TOKENS = torch.randint(7, (5, 6), generator=torch.Generator().manual_seed(2))
THEN = torch.tensor([0, 3, 6, 2, 2])


@pytest.fixture(scope="module")
def network() -> bl.PolynomialNetwork:
    return bl.polynomial_network(transformer())


def logits(network: bl.PolynomialNetwork, places: tuple[int, ...]) -> torch.Tensor:
    """The last logits when only some positions hold a token, less their mean."""
    found = network(TOKENS[:, [*places]], places)[:, -1]
    return found - found.mean(dim=1, keepdim=True)


def interaction(network: bl.PolynomialNetwork, earlier: tuple[int, ...]) -> torch.Tensor:
    """Inclusion and exclusion, written out."""
    total = torch.zeros(5, 7, dtype=torch.float64)
    for size in range(len(earlier) + 1):
        for chosen in combinations(earlier, size):
            total += (-1) ** (len(earlier) - size) * logits(network, (*chosen, 5))
    return total


def test_a_removed_token_is_a_position_that_is_not_there(network: bl.PolynomialNetwork) -> None:
    found = removals(network, Contexts(TOKENS, THEN, torch.arange(5)), range(1, 6))
    for at, distance in enumerate(range(1, 6)):
        left = tuple(place for place in range(6) if place != 5 - distance)
        expected = (logits(network, (*range(6),)) - logits(network, left)).gather(1, THEN[:, None])
        torch.testing.assert_close(found[at], expected[:, 0], rtol=1e-9, atol=1e-9)


def test_effects_are_the_sums_of_interactions(network: bl.PolynomialNetwork) -> None:
    effects, rows = effects_of(network, TOKENS), centred_rows(network, THEN)
    two, three = readings(effects, rows, range(1, 6))
    for at, distance in enumerate(range(1, 6)):
        place = 5 - distance
        alone = interaction(network, (place,))
        pairs = [interaction(network, tuple(sorted((place, j)))) for j in range(5) if j != place]
        expected = alone.gather(1, THEN[:, None])[:, 0]
        torch.testing.assert_close(two[at], expected, rtol=1e-9, atol=1e-9)
        expected = (alone + sum(pairs)).gather(1, THEN[:, None])[:, 0]
        torch.testing.assert_close(three[at], expected, rtol=1e-9, atol=1e-9)
    short = TOKENS[:, 3:]  # of three tokens all orders are there
    found = effects_of(network, short)
    whole = found.alone + found.pairs.sum(dim=0) + found.triples.sum(dim=0) / 2
    assert network.head is not None
    torch.testing.assert_close(whole @ network.head.T, network(short)[:, -1])


def test_a_replaced_token_stands_where_it_was_said(network: bl.PolynomialNetwork) -> None:
    tokens = TOKENS.clone()
    tokens[:, -1] = 4
    measured, predicted = replacements(network, (1, 4, 2), 3, tokens)
    other = tokens.clone()
    other[:, 2] = 1
    both = [network(one)[:, -1] for one in (other, tokens)]
    change = both[0][:, 2] - both[0].mean(dim=1) - both[1][:, 2] + both[1].mean(dim=1)
    torch.testing.assert_close(measured, change, rtol=1e-9, atol=1e-9)
    table = bl.token_interactions(network, 2, distance=3).values
    assert table is not None
    torch.testing.assert_close(predicted, table[1, 4, 2] - table[tokens[:, 2], 4, 2])


def test_contexts_are_of_whole_stories() -> None:
    stories = [torch.arange(10), torch.arange(100, 103), torch.arange(20, 40)]
    found = Contexts.draw(stories, 5, 2, 0)
    assert found.story.tolist() == [0, 0, 2, 2]
    assert torch.equal(found.then, found.tokens[:, -1] + 1)
    assert torch.equal(found.tokens.diff(dim=1), torch.ones(4, 4, dtype=torch.int64))
