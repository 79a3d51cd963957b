"""Small blocks of DᵀQD against the definition.

Broken once: `(half + half.T) / 2` -> `half`; the matrix was not symmetric.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import oracles
from bilens.algebra.direct.exact_entries import interaction_submatrix
from bilens.base.checks import MEMORY_LIMIT_VARIABLE
from bilens.base.errors import MemoryLimitError, NonFiniteError, ShapeError, UsageError
from builders import D_OUT, randn, random_map, vector
from odd_tensors import LOW_PRECISION, NOT_DENSE_FLOAT, SOUND, Odd, poisoned

F = random_map()
DICTIONARY = randn(5, 8, seed=9)
U = randn(D_OUT, seed=4)
EXPECTED = oracles.feature_interactions(F.tensor.down, F.tensor.left, F.tensor.right, U, DICTIONARY)


@pytest.mark.parametrize(
    "features", [[3], [5, 0, 2], [1, 1], [*range(8)], torch.tensor([6, 4]), np.array([2, 7])]
)
def test_rows_and_columns_are_those_asked_for(features: list[int]) -> None:
    found = interaction_submatrix(F, DICTIONARY, U, features)
    index = torch.as_tensor(features)
    torch.testing.assert_close(found, EXPECTED[index][:, index])
    assert torch.equal(found, found.T)


@pytest.mark.parametrize("odd", SOUND, ids=str)
def test_an_unusual_but_sound_tensor_gives_the_same(odd: Odd) -> None:
    found = interaction_submatrix(F, odd.of(DICTIONARY), odd.of(U), [0, 3])
    assert torch.equal(found, interaction_submatrix(F, DICTIONARY, U, [0, 3]))
    assert not found.requires_grad


@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_low_precision_is_promoted(dtype: torch.dtype) -> None:
    low = [F.to(dtype), DICTIONARY.to(dtype), U.to(dtype)]
    found = interaction_submatrix(*low, [0, 3])
    assert found.dtype == torch.float64
    torch.testing.assert_close(
        found,
        interaction_submatrix(low[0].to(torch.float64), low[1].double(), low[2].double(), [0, 3]),
    )


@pytest.mark.parametrize("odd", NOT_DENSE_FLOAT, ids=str)
def test_an_odd_dictionary_is_refused(odd: Odd) -> None:
    with pytest.raises(odd.error, match=odd.message) as caught:
        interaction_submatrix(F, odd.of(DICTIONARY), U, [0])
    assert str(caught.value).startswith("dictionary ")


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([], "a list of feature numbers was expected"),
        ([0.5], "a list of feature numbers was expected"),
        ([True], "a list of feature numbers was expected"),
        ([[1, 2]], r"shape \(1, 2\); a list of feature numbers"),
        ([0, 8], "features runs from 0 to 8; the dictionary has features 0 to 7"),
        ([-1, 3], "features runs from -1 to 3"),
    ],
    ids=str,
)
def test_what_is_no_feature_is_refused(features: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        interaction_submatrix(F, DICTIONARY, U, features)


def test_a_dictionary_with_features_in_rows_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"shape \(8, 5\).*\(5, features\).*transpose"):
        interaction_submatrix(F, DICTIONARY.T, U, [0])


def test_only_the_columns_asked_for_are_looked_at() -> None:
    damaged = poisoned(torch.nan)(DICTIONARY)
    found = interaction_submatrix(F, damaged, U, [1, 7])
    assert torch.equal(found, interaction_submatrix(F, DICTIONARY, U, [1, 7]))
    with pytest.raises(NonFiniteError, match=r"dictionary\[:, features\] holds 1 non-finite"):
        interaction_submatrix(F, damaged, U, [0])


def test_a_bad_direction_is_refused() -> None:
    with pytest.raises(NonFiniteError, match="output_direction holds"):
        interaction_submatrix(F, DICTIONARY, vector(1, torch.nan, 0), [0])
    with pytest.raises(ShapeError, match="output_direction has 2 entries"):
        interaction_submatrix(F, DICTIONARY, vector(1, 0), [0])


def test_what_float64_cannot_hold_is_refused() -> None:
    with pytest.raises(NonFiniteError, match="the matrix of interactions holds"):
        interaction_submatrix(F, DICTIONARY * 1e200, U, [0])


def test_a_matrix_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEMORY_LIMIT_VARIABLE, "100")
    with pytest.raises(MemoryLimitError, match=r"interactions of 2 features .*: ask for fewer"):
        interaction_submatrix(F, DICTIONARY, U, [0, 1])
