"""What an output direction causes: planted, so that each check has one right answer."""

import pytest
import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.interp.behaviour import (
    NUM_RANDOM,
    InputChange,
    LogitDifference,
    Trial,
    trial_of_direction,
)
from bilens.interp.interventions import Edit, InputDirections
from bilens.interp.traced_layer import ScoredToken, TokensAtEnds

TEXTS, LENGTH, SIZE = 6, 33, 16


def effect_of(values: list[float], sign: float = 1.0, texts: int = TEXTS) -> tuple[float, ...]:
    """Check x ↦ Σ λ_i x_i², which lifts the logit of token 0 and lowers that of token 1."""
    eye = torch.eye(SIZE, dtype=torch.float64)[: len(values)]
    f = QuadraticMap(BilinearTensor(torch.tensor([values], dtype=torch.float64), eye, eye))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(texts, LENGTH, SIZE, generator=generator, dtype=torch.float64)

    def logits(edit: Edit | None) -> Tensor:
        y = f(x if edit is None else edit(x)) * sign
        return torch.cat([y, -y, torch.zeros_like(y)], dim=-1)

    trial = trial_of_direction(
        logits,
        torch.zeros(texts, LENGTH, dtype=torch.long),
        x[:, 1:],
        f(x[:, 1:])[..., 0],
        eigendecompose_all(f, torch.ones(1, 1, dtype=torch.float64), 2)[0],
        TokensAtEnds((ScoredToken(0, 1.0),), (ScoredToken(1, -1.0),)),
        generator,
    )
    checks = () if trial is None else trial.checks(generator, [], create=False)
    if trial is None or not checks:
        return ()
    (check,) = checks
    assert (check.kind, check.num_random) == ("ablate", NUM_RANDOM)
    assert (trial.behaviour.high, trial.behaviour.low) == ([0], [1])
    return check.share.value, check.share.low - check.random_share.high


def test_two_eigenvectors_that_are_all_there_is_carry_the_whole_effect() -> None:
    share, above_random = effect_of([2.0, 1.0])
    assert share == pytest.approx(1.0)  # nothing is left but a constant
    assert above_random > 0.3


def test_of_a_flat_spectrum_two_eigenvectors_carry_little() -> None:
    share, _ = effect_of([1.0] * SIZE)
    assert 0 < share < 0.4  # two of sixteen, and the largest outputs are those of all


def test_without_a_behaviour_there_is_no_check() -> None:
    assert effect_of([2.0, 1.0], sign=-1.0) == ()  # what is promoted does not stand out
    assert effect_of([2.0, 1.0], texts=1) == ()  # a tenth of 32 tokens is too few


def test_latents_that_are_active_everywhere_leave_the_loss_unmeasured() -> None:
    where = torch.arange(9).repeat(2) % 2 == 1
    logits = torch.stack([where.float(), -where.float(), 0 * where], dim=-1).view(2, 9, 3)
    places = where.nonzero()[:, 0], (~where).nonzero()[1:9, 0]
    blocks, elsewhere = torch.zeros(2, 9, dtype=torch.long), torch.zeros(2, 9).bool()
    behaviour = LogitDifference(lambda _: logits, blocks, [0], [1], *places, elsewhere)
    unit = torch.eye(4).double()[:1]
    along = InputDirections(unit, unit, torch.zeros(4).double(), torch.ones(1).double())
    change = InputChange(along, [along], lambda x: torch.ones(x.shape[:-1]).bool())
    inputs = torch.zeros(2, 8, 4).double()
    generator = torch.Generator().manual_seed(0)
    (check,) = Trial.measure(behaviour, change, inputs).checks(generator, [], create=False)
    assert (check.loss_before, check.loss_after) == (None, None)
