"""Unused inputs are proven where they are, never claimed where they are not."""

import pytest
import torch

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import NonFiniteError, UsageError
from bilens.certify.input_use import unused_inputs
from builders import randn, random_map, vector


def blind_to(indices: list[int], seed: int = 1) -> QuadraticMap:
    f = random_map(seed, d_hidden=9, d_in=7)
    mask = torch.ones(7, dtype=torch.float64)
    mask[indices] = 0.0
    assert f.linear is not None
    tensor = BilinearTensor(f.tensor.down, f.tensor.left * mask, f.tensor.right * mask)
    return QuadraticMap(tensor, f.linear * mask, f.constant)


def test_lengths_are_those_of_the_dense_rows() -> None:
    f = random_map(seed=2, d_hidden=9, d_in=7)
    found = unused_inputs(f)
    dense = oracles.dense_tensor(f.tensor.down, f.tensor.left, f.tensor.right)
    torch.testing.assert_close(found.quadratic, dense.norm(dim=2))
    torch.testing.assert_close(found.linear, f.linear.abs())  # type: ignore[union-attr]
    assert not bool(found.unused.any() | found.undecided.any())


@pytest.mark.parametrize(
    ("down", "left", "right"),
    [
        (1.0, (1e300, 1e-30), (1.0, 0.0)),  # f(0.1, 1e31) − f(0.1, 0) = 0.1
        (1e-200, (1e-100, 1e-100), (1e-100, 1e-100)),
        (1e-200, (0.0, 1e-200), (0.0, 1e300)),
    ],
)
def test_underflow_is_no_proof(
    down: float, left: tuple[float, float], right: tuple[float, float]
) -> None:
    tensor = BilinearTensor(vector(down)[None], vector(*left)[None], vector(*right)[None])
    found = unused_inputs(QuadraticMap(tensor))
    assert not bool(found.unused[1])


def test_a_zero_row_is_a_proof() -> None:
    found = unused_inputs(blind_to([0, 4]))
    assert found.unused.nonzero()[:, 0].tolist() == [0, 4]
    assert not bool(found.undecided.any())
    assert float(found.rounding[:, [0, 4]].max()) == 0
    assert "input basis" in found.assumption


def test_a_neuron_without_weight_or_without_a_partner_does_not_use_its_inputs() -> None:
    left, right = randn(3, 4, seed=3), randn(3, 4, seed=4)
    left[:, 2], right[:, 2] = 0.0, 0.0
    left[0, 2], right[1, 2] = 1.0, 1.0
    down = randn(2, 3, seed=5)
    down[:, 0] = 0.0  # no weight
    left[1] = 0.0  # no partner
    assert unused_inputs(QuadraticMap(BilinearTensor(down, left, right))).unused.tolist() == [
        False,
        False,
        True,
        False,
    ]


def test_one_entry_of_the_linear_part_or_of_one_branch_is_use() -> None:
    f = blind_to([4])
    assert f.linear is not None
    slope = f.linear.clone()
    slope[1, 4] = 1e-30
    assert not bool(unused_inputs(QuadraticMap(f.tensor, slope)).unused[4])
    right = f.tensor.right.clone()
    right[3, 4] = 1e-200
    found = unused_inputs(QuadraticMap(BilinearTensor(f.tensor.down, f.tensor.left, right)))
    assert not bool(found.unused[4])
    left = f.tensor.left.clone()
    left[3, 4] = 1e-200
    found = unused_inputs(QuadraticMap(BilinearTensor(f.tensor.down, left, f.tensor.right)))
    assert not bool(found.unused[4])


def test_what_underflows_is_not_called_zero() -> None:
    """A row of 1e-200, whose square is no number, and a row of 1e-400, which is none itself."""
    rows = torch.tensor([[1.0, 1e-200]], dtype=torch.float64)
    f = QuadraticMap(BilinearTensor(vector(1e-200)[None], rows, rows))
    found = unused_inputs(f)
    assert not bool(found.unused.any())
    assert found.quadratic[0, 0] == pytest.approx(1e-200, rel=1e-12)
    assert found.rounding[0, 0] < 1e-210
    assert found.undecided.tolist() == [False, True]


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("branch", ["left", "right", "both"])
def test_cancelling_terms_are_undecided_at_zero_and_decided_above_rounding(
    scale: int, branch: str
) -> None:
    """Two neurons that cancel exactly on paper, written with different scales."""
    f, one = blind_to([4]), torch.ones(3, 1, dtype=torch.float64)
    left, right = randn(1, 7, seed=6), randn(1, 7, seed=7)
    if branch != "both":
        (right if branch == "left" else left)[:, 4] = 0.0
    twin = QuadraticMap(
        BilinearTensor(
            torch.cat([f.tensor.down, one, -one], dim=1),
            torch.cat([f.tensor.left, left, left / scale]),
            torch.cat([f.tensor.right, right, right * scale]),
        ),
        f.linear,
    )
    found = unused_inputs(twin)
    assert found.undecided.tolist() == [False] * 4 + [True] + [False] * 2
    assert not bool(found.unused.any())
    assert unused_inputs(twin, 1e-9).unused.tolist() == [False] * 4 + [True] + [False] * 2


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    f = random_map(seed=7, d_in=11)
    whole = unused_inputs(f)
    monkeypatch.setattr("bilens.certify.input_use.BLOCK_BYTES", 1)
    torch.testing.assert_close(unused_inputs(f).quadratic, whole.quadratic)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(UsageError, match="f is a QuadraticForm"):
        unused_inputs(random_map().form(randn(3)))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="tolerance must be a finite number"):
        unused_inputs(random_map(), -1.0)
    big = QuadraticMap(BilinearTensor(1e300 * randn(1, 2), 1e10 * randn(2, 3), randn(2, 3)))
    with pytest.raises(NonFiniteError, match="lengths of left and right"):
        unused_inputs(big)
