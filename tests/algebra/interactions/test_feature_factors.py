"""Factors in features, and exact entries from them."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.interactions.feature_factors import FeatureFactors, interaction_submatrix
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import MemoryLimitError, NonFiniteError, ShapeError, UsageError
from bilens.base.memory import MEMORY_LIMIT_VARIABLE
from builders import D_OUT, randn, random_map, vector
from odd_tensors import LOW_PRECISION, NOT_DENSE_FLOAT, SOUND, Odd, poisoned

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
    plain = FeatureFactors.from_map(F, DICTIONARY)
    weight, unit = plain.balanced(F.form(U).matrix.weight)
    f = scaled_map(left, right, down)
    scaled = FeatureFactors.from_map(f, DICTIONARY * 2.0**dictionary)
    scaled_weight, scaled_unit = scaled.balanced(f.form(U).matrix.weight)
    assert torch.equal(scaled_weight, weight)
    assert torch.equal(scaled.rows(slice(None)), plain.rows(slice(None)))
    exponent = torch.tensor(left + right + down + 2 * dictionary, dtype=torch.float64)
    assert float(scaled_unit) == float(unit * torch.exp2(exponent))


def test_powers_of_two_are_exact() -> None:
    exponents = torch.arange(-1000, 1001, dtype=torch.float64)
    assert torch.exp2(exponents).tolist() == [2.0**e for e in range(-1000, 1001)]


def test_the_largest_weight_and_entry_lie_between_a_half_and_one() -> None:
    factors = FeatureFactors.from_map(F, DICTIONARY)
    weight, _ = factors.balanced(F.form(U).matrix.weight)
    for size in (
        weight.abs().max(),
        factors.left.abs().max(),
        factors.columns(slice(None)).abs().max(),
    ):
        assert 0.5 <= float(size) < 1


def test_a_direction_of_zeros_has_weights_of_zero() -> None:
    weight, unit = FeatureFactors.from_map(F, DICTIONARY).balanced(F.form(0 * U).matrix.weight)
    assert not weight.any()
    assert 0 < float(unit) < torch.inf


@pytest.mark.parametrize("block", [1, 4, 6])
def test_kept_rows_are_those_computed_anew(block: int) -> None:
    kept = FeatureFactors.from_map(F, DICTIONARY, block=block, keep=True)
    anew = FeatureFactors.from_map(F, DICTIONARY)
    assert kept.kept is not None
    assert anew.kept is None
    torch.testing.assert_close(kept.rows(slice(1, 5)), anew.rows(slice(1, 5)))


def test_exact_rows_do_not_depend_on_their_neighbours() -> None:
    f, dictionary = random_map(d_hidden=37, d_in=53), randn(53, 9, seed=1)
    dictionary[:, 7] = dictionary[:, 2]
    factors = FeatureFactors.from_map(f, dictionary)
    together = factors.exact_rows(torch.arange(9))
    alone = factors.exact_rows(torch.tensor([7]))
    assert torch.equal(together[2], alone[0])
    assert torch.equal(together[7], alone[0])
    torch.testing.assert_close(together, factors.rows(slice(None)))


D = randn(5, 8, seed=9)
DIRECTION = randn(D_OUT, seed=4)
EXPECTED = oracles.feature_interactions(F.tensor.down, F.tensor.left, F.tensor.right, DIRECTION, D)


@pytest.mark.parametrize(
    "features", [[3], [5, 0, 2], [1, 1], [*range(8)], torch.tensor([6, 4]), np.array([2, 7])]
)
def test_rows_and_columns_are_those_asked_for(features: list[int]) -> None:
    found = interaction_submatrix(F, D, DIRECTION, features)
    index = torch.as_tensor(features)
    torch.testing.assert_close(found, EXPECTED[index][:, index])
    assert torch.equal(found, found.T)


@pytest.mark.parametrize("odd", SOUND, ids=str)
def test_an_unusual_but_sound_tensor_gives_the_same(odd: Odd) -> None:
    found = interaction_submatrix(F, odd.of(D), odd.of(DIRECTION), [0, 3])
    assert torch.equal(found, interaction_submatrix(F, D, DIRECTION, [0, 3]))
    assert not found.requires_grad


@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_low_precision_is_promoted(dtype: torch.dtype) -> None:
    low = [F.to(dtype), D.to(dtype), DIRECTION.to(dtype)]
    found = interaction_submatrix(*low, [0, 3])
    assert found.dtype == torch.float64
    torch.testing.assert_close(
        found,
        interaction_submatrix(low[0].to(torch.float64), low[1].double(), low[2].double(), [0, 3]),
    )


@pytest.mark.parametrize("odd", NOT_DENSE_FLOAT, ids=str)
def test_an_odd_dictionary_is_refused(odd: Odd) -> None:
    with pytest.raises(odd.error, match=rf"^dictionary .*({odd.message})"):
        interaction_submatrix(F, odd.of(D), DIRECTION, [0])


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([], "a list of numbers was expected"),
        ([0.5], "a list of numbers was expected"),
        ([True], "a list of numbers was expected"),
        ([[1, 2]], r"shape \(1, 2\); a list of numbers"),
        ([0, 8], "features runs from 0 to 8; there are 0 to 7"),
        ([-1, 3], "features runs from -1 to 3"),
    ],
    ids=str,
)
def test_what_is_no_feature_is_refused(features: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        interaction_submatrix(F, D, DIRECTION, features)


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ShapeError, match=r"shape \(8, 5\).*\(5, features\).*transpose"):
        interaction_submatrix(F, D.T, DIRECTION, [0])
    with pytest.raises(NonFiniteError, match="output_direction holds"):
        interaction_submatrix(F, D, vector(1, torch.nan, 0), [0])
    with pytest.raises(ShapeError, match="output_direction has 2 entries"):
        interaction_submatrix(F, D, vector(1, 0), [0])
    with pytest.raises(NonFiniteError, match="the matrix of interactions holds"):
        interaction_submatrix(F, D * 1e200, DIRECTION, [0])
    monkeypatch.setenv(MEMORY_LIMIT_VARIABLE, "100")
    with pytest.raises(MemoryLimitError, match=r"interactions of 2 features .*: ask for fewer"):
        interaction_submatrix(F, D, DIRECTION, [0, 1])


def test_only_the_columns_asked_for_are_looked_at() -> None:
    damaged = poisoned(torch.nan)(D)
    found = interaction_submatrix(F, damaged, DIRECTION, [1, 7])
    assert torch.equal(found, interaction_submatrix(F, D, DIRECTION, [1, 7]))
    with pytest.raises(NonFiniteError, match=r"dictionary\[:, features\] holds 1 non-finite"):
        interaction_submatrix(F, damaged, DIRECTION, [0])
