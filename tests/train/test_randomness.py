"""Named random streams: a function of the place in the run, and of nothing else.

Broken once: `spawn_key` cut to its first two numbers; the steps of an epoch shared a stream.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from bilens.train.randomness import INITIALISATION, NOISE, ORDER, STEP, stream

PLACES: list[tuple[int, ...]] = [  # the seed comes first
    (0, INITIALISATION),
    (1, INITIALISATION),
    (0, ORDER, 0),
    (0, ORDER, 1),
    (1, ORDER, 0),
    (0, NOISE, 0),
    (0, NOISE, 1),
    (0, STEP, 0, 0, 0),
    (0, STEP, 0, 0, 1),  # a step has two streams: the images', and the activations'
    (0, STEP, 0, 1, 0),
    (0, STEP, 1, 0, 0),
    (1, STEP, 0, 0, 0),
    (0, STEP, 0, 0),  # a shorter path is another place
    (0, STEP, 0),
    (2**63, ORDER, 0),
    (10**30, ORDER, 0),  # a seed may be as long as one likes
]


def draw(place: tuple[int, ...]) -> Tensor:
    return torch.randn(8, generator=stream(*place))


@pytest.mark.parametrize("place", PLACES)
def test_the_same_place_draws_the_same_numbers(place: tuple[int, ...]) -> None:
    assert torch.equal(draw(place), draw(place))


def test_no_two_places_draw_the_same_numbers() -> None:
    draws = {tuple(draw(place).tolist()) for place in PLACES}
    assert len(draws) == len(PLACES)


def test_neighbouring_steps_are_not_related() -> None:
    """2,000 draws at 100 places: 4,950 correlations; 5/√2000 = 0.11 is five standard deviations."""
    draws = torch.stack(
        [torch.randn(2000, generator=stream(0, STEP, 0, step, 0)) for step in range(100)]
    )
    correlation = torch.corrcoef(draws) - torch.eye(100)
    assert float(correlation.abs().max()) < 0.11


def test_no_global_generator_is_used() -> None:
    before, numpy_before = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    draw((0, STEP, 3, 4, 0))
    assert torch.equal(torch.get_rng_state(), before)
    assert str(np.random.get_state()) == numpy_before  # noqa: NPY002
