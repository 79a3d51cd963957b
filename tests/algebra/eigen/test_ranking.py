"""Which pairs are kept, in which order, with which sign; rounding decides none of it."""

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

import oracles
from bilens.algebra.eigen.ranking import by_size_and_sign, partial_clusters, ranked, same_values
from builders import rotation, vector
from strategies import entries

WHICH = ("magnitude", "largest", "smallest", "both")


@given(st.integers(1, 6).flatmap(lambda n: entries(n)), st.data())
def test_each_end_of_the_spectrum_can_be_chosen(values: Tensor, data: st.DataObject) -> None:
    k, which = data.draw(st.integers(1, len(values))), data.draw(st.sampled_from(WHICH))
    kept, _, chosen = ranked(values, torch.eye(len(values), dtype=torch.float64), k, which)
    assert kept.abs().tolist() == [abs(v) for v in oracles.chosen(values, k, which)]
    assert torch.equal(values[chosen], kept)
    assert len(set(chosen.tolist())) == k


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("magnitude", [-5.0, 4.0, -3.0]),
        ("largest", [4.0, 2.0, 1.0]),
        ("smallest", [-5.0, -3.0, 1.0]),
        ("both", [-5.0, 4.0, 2.0]),  # two from the upper end, one from the lower
    ],
)
def test_an_end_of_a_known_spectrum(which: str, expected: list[float]) -> None:
    values, vectors = vector(2.0, -5.0, 1.0, 4.0, -3.0), rotation(5)
    kept, rows, chosen = ranked(values, vectors, 3, which)
    assert kept.tolist() == expected
    torch.testing.assert_close(rows.abs(), vectors[chosen].abs())  # each went with its value


@pytest.mark.parametrize("which", WHICH)
def test_all_pairs_of_any_end_are_the_whole_spectrum(which: str) -> None:
    values = vector(2.0, -5.0, 1.0, 4.0, -3.0)
    kept, _, _ = ranked(values, rotation(5), 5, which)
    assert kept.tolist() == [-5.0, 4.0, -3.0, 2.0, 1.0]


@pytest.mark.parametrize("rounding", [0.0, 1e-12, -1e-12])
def test_of_a_pair_of_both_signs_the_positive_one_comes_first(rounding: float) -> None:
    values = vector(-2 - rounding, 1, 2, -1 + rounding)
    assert values[by_size_and_sign(values)].sign().tolist() == [1, -1, 1, -1]
    kept, _, _ = ranked(values, rotation(4), 1, "magnitude")
    assert kept.tolist() == [2]


def test_sizes_that_differ_are_in_order_whatever_their_sign() -> None:
    values = vector(1, -1.001, 0.5, -3)
    assert by_size_and_sign(values).tolist() == [3, 1, 0, 2]


@pytest.mark.parametrize("rounding", [0.0, 1e-12, -1e-12])
def test_the_largest_component_is_positive_and_the_first_of_equal_ones_counts(
    rounding: float,
) -> None:
    """(−0.5, 0.5 + rounding) is (0.5, −0.5): rounding does not turn an eigenvector around."""
    vectors = torch.tensor([[0.6, -0.8], [-0.8, 0.6], [-0.5, 0.5 + rounding]], dtype=torch.float64)
    _, signed, _ = ranked(vector(3, 2, 1), vectors, 3, "magnitude")
    assert signed.sign().tolist() == [[-1, 1], [1, -1], [1, -1]]
    assert torch.equal(signed.abs(), vectors.abs())


def test_a_chain_of_ties_is_cut_where_it_leaves_the_largest_size() -> None:
    """Sizes 6e-9 apart: 1 and −(1 − 6e-9) agree to 1e-8, 1 and 1 − 12e-9 do not.

    Without the cut all positive values would come first, and −(1 − 6e-9) would be left out for
    values that are smaller by more than a tie.
    """
    sizes = 1 - 6e-9 * torch.arange(6, dtype=torch.float64)
    values = sizes * vector(-1, 1, -1, 1, -1, 1)
    assert by_size_and_sign(values).tolist() == [1, 0, 3, 2, 5, 4]
    assert by_size_and_sign(torch.stack([values, vector(6, 5, 4, 3, 2, 1)]))[1].tolist() == [
        *range(6)
    ]
    kept, _, _ = ranked(values, torch.eye(6, dtype=torch.float64), 3, "magnitude")
    missed = float(sizes[2] - kept.abs().min())
    assert missed <= 1e-8


def test_ties_of_zeros_end() -> None:
    assert by_size_and_sign(torch.zeros(2, 4)).tolist() == [[0, 1, 2, 3]] * 2
    assert by_size_and_sign(vector(0, -0.0, 1, 0)).tolist() == [2, 0, 1, 3]


NAN = torch.nan


@pytest.mark.parametrize(
    ("found", "which", "expected"),
    [
        ((4, -3), "magnitude", True),
        ((4, 2), "magnitude", False),
        ((4, 2), "largest", True),
        ((4, -3), "largest", False),
        ((-3, 1), "smallest", True),
        ((4, -3), "both", True),
        ((4, 2), "both", False),
        ((4 + 1e-3, -3), "magnitude", True),
        ((4 + 2e-2, -3), "magnitude", False),
        ((4, NAN), "magnitude", False),
    ],
)
def test_values_are_compared_with_those_of_the_whole_spectrum(
    found: tuple[float, ...], which: str, expected: bool
) -> None:
    whole = vector(1, -3, 4, 2)[None]
    assert bool(same_values(vector(*found)[None], whole, which, vector(1e-2))) is expected


@pytest.mark.parametrize(
    ("values", "rivals", "sizes"),
    [
        ((3, 2, 1), (NAN, NAN), [1, 1, 1]),
        ((2, 2, 1), (NAN, NAN), [2, 2, 1]),
        ((3, 2, 1), (1, 0), [1, 1, 2]),  # k cut through 1 and 1
        ((3, 2, 2), (2, NAN), [1, 3, 3]),
        ((3, -3, 2), (2, -3), [1, 2, 2]),  # cut at both ends
        ((2, 2 + 0.009, 2 + 0.018), (NAN, NAN), [3, 3, 3]),  # a chain of neighbours
        ((2, -2, 1), (NAN, NAN), [1, 1, 1]),  # equal sizes are not equal eigenvalues
    ],
)
def test_values_that_cannot_be_told_apart_are_one_cluster(
    values: tuple[float, ...], rivals: tuple[float, ...], sizes: list[int]
) -> None:
    labels, found = partial_clusters(vector(*values)[None], vector(*rivals)[None], vector(0.01))
    assert found[0].tolist() == sizes
    groups: dict[int, int] = {}
    for label in labels[0].tolist():
        groups[label] = groups.get(label, 0) + 1
    assert all(groups[label] <= size for label, size in zip(labels[0].tolist(), sizes, strict=True))
