"""The largest interactions of many directions: those of all entries."""

import pytest
import torch

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.eigen.decomposition import Status
from bilens.algebra.interactions import listed_interactions as module
from bilens.algebra.interactions.direct_interactions import direct_interactions
from bilens.algebra.interactions.listed_interactions import (
    PackedForms,
    Rounded,
    Screen,
    integer_product,
    listed_interactions,
)
from bilens.algebra.interactions.record import ListedInteractions
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import MemoryLimitError, NonFiniteError, ShapeError, UsageError
from builders import D_IN, D_OUT, randn, random_map

F = random_map()
DICTIONARY = randn(D_IN, 9, seed=9)
BIAS = randn(D_IN, seed=10)
MANY = randn(7, D_OUT, seed=11) * torch.logspace(-3, 3, 7).double()[:, None]


def assert_same(
    found: ListedInteractions,
    f: QuadraticMap,
    dictionary: torch.Tensor,
    directions: torch.Tensor | None,
    bias: torch.Tensor | None,
    top: int,
) -> None:
    stream = direct_interactions(f, dictionary, directions, bias=bias, top=top)
    for mine, theirs in (
        (found.self_interactions, stream.self_interactions),
        (found.cross_interactions, stream.cross_interactions),
    ):
        assert torch.equal(mine.first, theirs.first)
        assert torch.equal(mine.second, theirs.second)
        torch.testing.assert_close(mine.values, theirs.values)
        torch.testing.assert_close(mine.coefficients, theirs.coefficients)
        torch.testing.assert_close(mine.mean, theirs.moments.mean)
        torch.testing.assert_close(mine.std, theirs.moments.std)
        assert mine.count == int(theirs.moments.count[0])
    torch.testing.assert_close(found.norm, stream.norm)
    torch.testing.assert_close(found.linear, stream.linear)
    torch.testing.assert_close(found.constant, stream.constant)
    assert found.status == stream.status


@pytest.mark.parametrize("directions", [None, MANY[:2], MANY], ids=["outputs", "few", "many"])
@pytest.mark.parametrize("top", [1, 5, 100])
def test_lists_and_moments_are_those_of_the_stream(
    directions: torch.Tensor | None, top: int
) -> None:
    found = listed_interactions(F, DICTIONARY, directions, bias=BIAS, top=top)
    assert_same(found, F, DICTIONARY, directions, BIAS, top)
    assert len(found) == (D_OUT if directions is None else len(directions))


@pytest.mark.parametrize("kept", [1, 40 * 4 * 150, 2**20], ids=["block", "strips", "whole"])
def test_the_same_where_blocks_are_many(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr("bilens.algebra.interactions.listed_interactions.ROWS", 16)
    monkeypatch.setattr("bilens.algebra.interactions.listed_interactions.PRODUCT_BYTES", kept)
    f = random_map(1, d_out=4, d_hidden=30, d_in=20)
    dictionary, directions = randn(20, 150, seed=3), randn(6, 4, seed=4)
    found = listed_interactions(f, dictionary, directions, top=20)
    assert_same(found, f, dictionary, directions, None, 20)


def test_forms_from_outputs_and_from_factors_list_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = listed_interactions(F, DICTIONARY, MANY)
    monkeypatch.setattr(module, "MOST_CANCELLING", 0.0)
    single = listed_interactions(F, DICTIONARY, MANY)
    assert torch.equal(shared.cross_interactions.first, single.cross_interactions.first)
    torch.testing.assert_close(
        shared.cross_interactions.values, single.cross_interactions.values, rtol=1e-14, atol=0
    )


def test_a_bad_direction_is_flagged_and_a_zero_one_lists_zeros() -> None:
    rows = MANY[:4].clone()
    rows[1, 0], rows[2] = torch.nan, 0.0
    found = listed_interactions(F, DICTIONARY, rows, top=3)
    assert found.status == (Status.OK, Status.NOT_FINITE, Status.OK, Status.OK)
    assert found.cross_interactions.first[1].tolist() == [-1, -1, -1]
    assert bool(found.norm[1].isnan())
    assert found.cross_interactions.values[2].tolist() == [0, 0, 0]
    assert found.cross_interactions.second[2].tolist() == [1, 2, 3]
    assert_same(
        listed_interactions(F, DICTIONARY, rows[[0, 3]], top=3),
        F,
        DICTIONARY,
        rows[[0, 3]],
        None,
        3,
    )


def test_tiny_directions_list_the_same() -> None:
    dictionary, tiny = randn(D_IN, 80, seed=9), 2.0**-100
    found = listed_interactions(F, dictionary, MANY * tiny, top=5).cross_interactions
    expected = listed_interactions(F, dictionary, MANY, top=5).cross_interactions
    assert torch.equal(found.first, expected.first)
    assert torch.equal(found.values, expected.values * tiny)


@pytest.mark.parametrize("power", [-600, 600])
def test_neither_huge_nor_tiny_factors_matter(power: int) -> None:
    scale = 2.0**power
    tensor = BilinearTensor(F.tensor.down, F.tensor.left * scale, F.tensor.right / scale)
    found = listed_interactions(QuadraticMap(tensor), DICTIONARY, MANY)
    expected = listed_interactions(QuadraticMap(F.tensor), DICTIONARY, MANY)
    assert torch.equal(found.cross_interactions.values, expected.cross_interactions.values)


def test_outputs_that_cancel_are_formed_from_the_factors() -> None:
    down = F.tensor.down.clone()
    down[1] = down[0] * (1 + 1e-9) + 1e-9 * down[1]
    f = QuadraticMap(BilinearTensor(down, F.tensor.left, F.tensor.right))
    rows = torch.tensor([[1.0, -1, 0], [2, -2, 0], [3, -3, 0], [4, -4, 0]]).double()
    found = listed_interactions(f, DICTIONARY, rows, top=5)
    assert_same(found, f, DICTIONARY, rows, None, 5)


def test_one_feature_has_no_cross_interaction() -> None:
    found = listed_interactions(F, DICTIONARY[:, :1])
    assert found.cross_interactions.values.shape == (D_OUT, 0)
    assert found.cross_interactions.count == 0


@pytest.mark.parametrize("seed", range(5))
def test_no_large_entry_is_lost_by_eight_bits(seed: int) -> None:
    rows, others = randn(700, 12, seed=seed).float(), randn(700, 12, seed=seed + 50).float()
    rows[-1] *= 20
    others[0] *= 30  # most rows and columns are then rounded coarsely
    screen = Screen(rows)
    for factor in (1, others, 1e-3):  # one after another in the same memory
        b = others * factor
        first, second = screen.may_be_largest(b, 40)
        product = (rows.double() @ b.double().T).triu(1)
        largest = set(product.abs().flatten().topk(40).indices.tolist())
        assert largest <= set((first * 700 + second).tolist())
        assert bool((first < second).all())


def test_rounded_rows_are_within_their_error() -> None:
    rows = randn(30, 8).float()
    found = Rounded.from_rows(rows)
    off = (rows.double() - found.unit * found.integers.double()).norm(dim=1)
    assert float(off.max()) <= found.error
    assert found.norm >= float((found.unit * found.integers.double()).norm(dim=1).max())
    assert Rounded.from_rows(0 * rows).norm == 0


def test_products_of_integers_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    first = torch.full((3, 1500), 127, dtype=torch.int8)
    second = torch.full((1500, 2), -127, dtype=torch.int8)
    expected = -(127**2) * 1500
    assert integer_product(first, second).unique().tolist() == [expected]
    monkeypatch.delattr(torch, "_int_mm")
    assert integer_product(first, second).unique().tolist() == [expected]
    short = integer_product(first[:, :1000], second[:1000])
    assert short.dtype == torch.float32
    assert short.unique().tolist() == [-(127**2) * 1000]


def test_packed_forms_are_the_dense_matrices() -> None:
    down, left, right = (part.float() for part in F._factors())
    forms = PackedForms.from_factors(down, left, right)
    u = randn(2, D_OUT, seed=5).float()
    for row, triangle in zip(u, forms.along(u), strict=True):
        expected = oracles.dense_interaction(down, left, right, row)
        torch.testing.assert_close(forms.square(triangle), expected)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="dictionary"):
        listed_interactions(F, DICTIONARY.T)
    with pytest.raises(ShapeError, match="directions"):
        listed_interactions(F, DICTIONARY, MANY.T)
    with pytest.raises(NonFiniteError, match="dictionary"):
        listed_interactions(F, DICTIONARY * torch.inf)
    with pytest.raises(UsageError, match="top"):
        listed_interactions(F, DICTIONARY, top=0)
    with pytest.raises(MemoryLimitError, match="listing interactions of 9 features"):
        listed_interactions(F, DICTIONARY, memory_limit=1000)
