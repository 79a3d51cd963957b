"""Named random streams: a function of the place in the run, and of nothing else."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor

import tiny
from bilens.nn import BilinearClassifier
from bilens.train.randomness import (
    INITIALISATION,
    NOISE,
    ORDER,
    POOL_EXTRA,
    STEP,
    ActivationNoise,
    NoisePool,
    stream,
)

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


SHAPE = (16, 10)


def pool(
    std: float = 0.5, seed: int = 0, epoch: int = 0, dtype: torch.dtype = torch.float32
) -> NoisePool:
    return NoisePool.draw([std], SHAPE, torch.empty(0, dtype=dtype), seed, epoch)[std]


@contextmanager
def activation_noise(
    model: BilinearClassifier, std: float, dropout: float
) -> Iterator[ActivationNoise]:
    noise = ActivationNoise(std, dropout)
    with noise.added_to((model.embed, *model.layers)):
        yield noise


def hooks(model: BilinearClassifier) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_pool_is_normal_noise_of_the_size_asked_for(dtype: torch.dtype) -> None:
    """A million draws: the mean has the error 0.5/√10⁶ = 0.0005, the size 0.5/√(2·10⁶)."""
    values = pool(dtype=dtype).values
    assert values.dtype == dtype
    values = values.double()
    assert abs(float(values.mean())) < 0.0025
    assert float(values.std()) == pytest.approx(0.5, abs=0.0025)
    # for a normal variable, 68.27 % of the draws are within one standard deviation
    assert float((values.abs() < 0.5).double().mean()) == pytest.approx(0.6827, abs=0.005)


def test_a_pool_is_a_function_of_seed_and_epoch() -> None:
    assert torch.equal(pool().values, pool().values)
    assert not torch.equal(pool().values, pool(seed=1).values)
    assert not torch.equal(pool().values, pool(epoch=1).values)


def test_a_batch_is_a_window_of_the_pool_that_its_generator_chooses() -> None:
    noise = pool()
    starts = set()
    for step in range(50):
        batch = noise.batch(stream(0, STEP, 0, step, 0))
        assert batch.shape == SHAPE
        start = int(torch.randint(POOL_EXTRA, (1,), generator=stream(0, STEP, 0, step, 0)))
        assert torch.equal(batch.flatten(), noise.values[start : start + batch.numel()])
        starts.add(start)
    assert len(starts) == 50  # of a million places, 50 draws meet with probability 0.1 %
    assert min(starts) < POOL_EXTRA / 4
    assert max(starts) > 3 * POOL_EXTRA / 4


def test_the_last_place_of_the_pool_still_holds_a_whole_batch() -> None:
    assert len(pool().values) == POOL_EXTRA + math.prod(SHAPE)  # the last start is one before


@pytest.mark.parametrize(("std", "dropout"), [(0.3, 0.0), (0.0, 0.3), (0.3, 0.3)])
def test_activations_are_disturbed_inside_the_block_alone(std: float, dropout: float) -> None:
    model = tiny.classifier(n_layers=2).train()
    x = torch.ones(4, tiny.PIXELS, dtype=torch.float64)
    clean = model(x)
    with activation_noise(model, std, dropout) as noise:
        assert hooks(model) == 3  # the embedding and two layers, and not the head
        noise.start_step(0, 0, 0)
        disturbed = model(x)
        assert not torch.equal(disturbed, clean)
        assert not torch.equal(model(x), disturbed)  # the stream goes on within a step
        noise.start_step(0, 0, 0)
        assert torch.equal(model(x), disturbed)  # and begins again where it is set
        noise.start_step(0, 0, 1)
        assert not torch.equal(model(x), disturbed)
    assert hooks(model) == 0
    assert torch.equal(model(x), clean)


def test_a_model_in_evaluation_mode_is_not_disturbed() -> None:
    model, x = tiny.classifier().eval(), torch.ones(4, tiny.PIXELS, dtype=torch.float64)
    clean = model(x)
    with activation_noise(model, 0.3, 0.3):
        assert torch.equal(model(x), clean)


def test_no_hook_is_set_where_there_is_nothing_to_do() -> None:
    model = tiny.classifier()
    with activation_noise(model, 0.0, 0.0):
        assert hooks(model) == 0


def test_an_error_inside_the_block_leaves_the_model_as_it_was() -> None:
    model = tiny.classifier()
    with pytest.raises(ZeroDivisionError), activation_noise(model, 0.1, 0.1):
        raise ZeroDivisionError
    assert hooks(model) == 0


def disturbed_ones(std: float, dropout: float) -> Tensor:
    with activation_noise(tiny.classifier(), std, dropout) as noise:
        noise.start_step(0, 0, 0)
        output: Tensor = noise(torch.nn.Identity(), (), torch.ones(400, 500))
    return output


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    """Of 200,000 entries the share has the error √(0.25·0.75/200,000) = 0.001."""
    output = disturbed_ones(0.0, 0.25)
    assert {round(value, 5) for value in output.unique().tolist()} == {0.0, round(1 / 0.75, 5)}
    assert float((output == 0).double().mean()) == pytest.approx(0.25, abs=0.005)
    assert float(output.mean()) == pytest.approx(1.0, abs=0.007)


def test_noise_on_activations_has_the_size_asked_for() -> None:
    """Of 200,000 entries the size has the error 0.3/√(400,000) = 0.0005."""
    output = disturbed_ones(0.3, 0.0)
    assert float(output.mean()) == pytest.approx(1.0, abs=0.004)
    assert float(output.std()) == pytest.approx(0.3, abs=0.0025)
