"""Factors read in features, in a scale where nothing overflows and no bit changes.

Broken once: `2 * self.dictionary_exponent` -> `self.dictionary_exponent`; every scale failed.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.direct.feature_factors import FeatureFactors
from bilens.algebra.quadratic_map import QuadraticMap
from builders import D_OUT, randn, random_map

F = random_map()
DICTIONARY = randn(5, 6, seed=9)
U = torch.ones(D_OUT, dtype=torch.float64)
EXPONENT = st.integers(-300, 300)


def scaled_map(left: int, right: int, down: int) -> QuadraticMap:
    """A map whose factors are multiplied by powers of two."""
    tensor = F.tensor
    return QuadraticMap(
        BilinearTensor(tensor.down * 2.0**down, tensor.left * 2.0**left, tensor.right * 2.0**right)
    )


@given(EXPONENT, EXPONENT, EXPONENT, EXPONENT)
def test_a_power_of_two_goes_into_the_unit_alone(
    left: int, right: int, down: int, dictionary: int
) -> None:
    plain = FeatureFactors.of(F, DICTIONARY)
    weight, unit = plain.balanced(F.form(U).matrix.weight)
    f = scaled_map(left, right, down)
    scaled = FeatureFactors.of(f, DICTIONARY * 2.0**dictionary)
    scaled_weight, scaled_unit = scaled.balanced(f.form(U).matrix.weight)
    assert torch.equal(scaled_weight, weight)
    assert torch.equal(scaled.rows(slice(None)), plain.rows(slice(None)))
    exponent = torch.tensor(left + right + down + 2 * dictionary, dtype=torch.float64)
    assert float(scaled_unit) == float(unit * torch.exp2(exponent))


def test_powers_of_two_are_exact() -> None:
    exponents = torch.arange(-1000, 1001, dtype=torch.float64)
    assert torch.exp2(exponents).tolist() == [2.0**e for e in range(-1000, 1001)]


def test_the_largest_weight_and_entry_lie_between_a_half_and_one() -> None:
    factors = FeatureFactors.of(F, DICTIONARY)
    weight, _ = factors.balanced(F.form(U).matrix.weight)
    for size in (
        weight.abs().max(),
        factors.left.abs().max(),
        factors.columns(slice(None)).abs().max(),
    ):
        assert 0.5 <= float(size) < 1


def test_a_direction_of_zeros_has_weights_of_zero() -> None:
    weight, unit = FeatureFactors.of(F, DICTIONARY).balanced(F.form(0 * U).matrix.weight)
    assert not weight.any()
    assert 0 < float(unit) < torch.inf


@pytest.mark.parametrize("block", [1, 4, 6])
def test_kept_rows_are_those_computed_anew(block: int) -> None:
    kept = FeatureFactors.of(F, DICTIONARY, block=block, keep=True)
    anew = FeatureFactors.of(F, DICTIONARY)
    assert kept.kept is not None
    assert anew.kept is None
    torch.testing.assert_close(kept.rows(slice(1, 5)), anew.rows(slice(1, 5)))


def test_exact_rows_do_not_depend_on_their_neighbours() -> None:
    f, dictionary = random_map(d_hidden=37, d_in=53), randn(53, 9, seed=1)
    dictionary[:, 7] = dictionary[:, 2]
    factors = FeatureFactors.of(f, dictionary)
    together = factors.exact_rows(torch.arange(9))
    alone = factors.exact_rows(torch.tensor([7]))
    assert torch.equal(together[2], alone[0])
    assert torch.equal(together[7], alone[0])
    torch.testing.assert_close(together, factors.rows(slice(None)))
