"""Singular values along one axis, their Gram matrices, and the null of output spectra."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.concentration import effective_rank
from bilens.algebra.gram import kernel
from bilens.algebra.mode_spectrum import (
    BlockedTensor,
    InputMode,
    ModeSpectrum,
    OutputMode,
    clusters,
    mode_spectrum,
)
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.random_rotations import (
    crossed,
    output_mode_null,
    read_sample,
    straight,
    weighed,
)
from bilens.base.errors import NonFiniteError
from builders import randn, random_map, random_tensor, rotation, seeded, vector
from strategies import entries, tensors


def factors_of(tensor: BilinearTensor) -> BlockedTensor:
    return BlockedTensor.from_parts(tensor.down, tensor.left, tensor.right)


def slices(tensor: BilinearTensor, axis: int, rows: Tensor) -> Tensor:
    """Σ_i rows[k, i] · (slice i along the axis), flattened, (num, rest)."""
    dense = oracles.dense_tensor(tensor.down, tensor.left, tensor.right)
    return rows @ dense.movedim(axis, 0).flatten(1)


@given(tensors(), st.data())
def test_both_routes_give_the_inner_products_of_the_slices(
    tensor: BilinearTensor, data: st.DataObject
) -> None:
    factors = factors_of(tensor)
    for axis, mode in ((0, OutputMode(factors)), (1, InputMode(factors))):
        rows = data.draw(entries(data.draw(st.integers(1, 3)), mode.size))
        found = slices(tensor, axis, rows)
        for gram in (mode.gram(rows), mode.dense_gram(rows)):
            torch.testing.assert_close(
                gram * factors.branches.unit**2, found @ found.T, rtol=1e-10, atol=1e-9
            )


def test_without_directions_the_slices_are_those_along_the_axis() -> None:
    factors = factors_of(random_tensor())
    for mode in (OutputMode(factors), InputMode(factors)):
        rows = torch.eye(mode.size, dtype=torch.float64)
        torch.testing.assert_close(mode.gram(None), mode.gram(rows))
        torch.testing.assert_close(mode.dense_gram(None), mode.dense_gram(rows))
        assert mode.gram_rounding(None) == pytest.approx(mode.gram_rounding(rows))


def test_the_rounding_of_a_gram_matrix_falls_with_the_square_of_its_rows() -> None:
    factors = factors_of(random_tensor())
    for mode in (OutputMode(factors), InputMode(factors)):
        rows = randn(2, mode.size, seed=3)
        assert mode.gram_rounding(rows / 10) == pytest.approx(mode.gram_rounding(rows) / 100)


def test_balanced_factors_are_the_same_tensor_with_unit_rows() -> None:
    tensor = random_tensor()
    factors = factors_of(tensor)
    down, left, right = factors.unit_copies()
    torch.testing.assert_close(
        factors.branches.unit * oracles.dense_tensor(down, left, right),
        oracles.dense_tensor(tensor.down, tensor.left, tensor.right),
    )
    torch.testing.assert_close(left.norm(dim=1), torch.ones(4, dtype=torch.float64))
    assert float(down.abs().max()) == 1.0


def test_a_tensor_of_zeros_has_the_unit_one() -> None:
    tensor = random_tensor()
    assert BlockedTensor.from_parts(0 * tensor.down, tensor.left, tensor.right).branches.unit == 1.0


def test_products_of_lengths_that_overflow_are_refused() -> None:
    tensor = random_tensor()
    with pytest.raises(NonFiniteError, match="down times the lengths of the rows"):
        BlockedTensor.from_parts(tensor.down, tensor.left * 1e200, tensor.right * 1e200)


OUT, HIDDEN, IN = 24, 40, 14
DOWN, LEFT, RIGHT = randn(OUT, HIDDEN, seed=1), randn(HIDDEN, IN, seed=2), randn(HIDDEN, IN, seed=3)
NEAR = 1e-4 * randn(HIDDEN, IN, seed=4)
ONES = torch.ones(HIDDEN, IN, dtype=torch.float64)


def falling(length: int, decades: float) -> Tensor:
    return torch.logspace(0, -decades, length, dtype=torch.float64)


def graded_outputs() -> BilinearTensor:
    """The small values come with small weights: another Gram matrix of the rest tells them."""
    return BilinearTensor(rotation(OUT) @ (falling(OUT, 7)[:, None] * DOWN), LEFT, RIGHT)


def graded_units() -> BilinearTensor:
    return BilinearTensor(DOWN, falling(HIDDEN, 8)[:, None] * LEFT, RIGHT)


def graded_inputs() -> BilinearTensor:
    """All units look along the same few inputs: their weights cancel in the small values."""
    turn = rotation(IN, seed=5)
    return BilinearTensor(DOWN, falling(IN, 5) * LEFT @ turn, falling(IN, 5) * RIGHT @ turn)


def graded_everywhere() -> BilinearTensor:
    inputs = graded_inputs()
    return BilinearTensor(graded_outputs().down, inputs.left, inputs.right)


def nearly_opposite_units() -> BilinearTensor:
    """Every unit has a twin that takes away all but 1e-4 of it, beside three that stand alone."""
    lone = [randn(OUT, 3, seed=6), randn(3, IN, seed=7), randn(3, IN, seed=8)]
    return BilinearTensor(
        torch.cat([DOWN, -DOWN, lone[0]], dim=1),
        torch.cat([LEFT, LEFT + NEAR, lone[1]]),
        torch.cat([RIGHT, RIGHT, lone[2]]),
    )


def nearly_equal_units() -> BilinearTensor:
    """Units that differ by 1e-4, with weights that sum to zero: H is 1 everywhere, but for that."""
    centred = DOWN - DOWN.mean(dim=1, keepdim=True)
    return BilinearTensor(centred, ONES + NEAR, ONES - NEAR.flip(0))


def few_units() -> BilinearTensor:
    return BilinearTensor(DOWN[:, :5], LEFT[:5], RIGHT[:5])


def any_units() -> BilinearTensor:
    return BilinearTensor(DOWN, LEFT, RIGHT)


def beyond_the_squares() -> BilinearTensor:
    """‖B‖ near 1e170: its square overflows."""
    return BilinearTensor(1e120 * DOWN, 1e150 * LEFT, 1e-100 * RIGHT)


MAPS = [
    any_units,
    few_units,
    graded_outputs,
    graded_units,
    graded_inputs,
    graded_everywhere,
    nearly_opposite_units,
    nearly_equal_units,
    beyond_the_squares,
]
MODES = {0: OutputMode, 1: InputMode}


def spectrum(tensor: BilinearTensor, axis: int, rank: int | None = None) -> ModeSpectrum:
    factors = BlockedTensor.from_parts(tensor.down, tensor.left, tensor.right)
    return mode_spectrum(MODES[axis](factors), rank)


def flattened(tensor: BilinearTensor, axis: int) -> Tensor:
    return oracles.dense_tensor(tensor.down, tensor.left, tensor.right).movedim(axis, 0).flatten(1)


@pytest.mark.parametrize("axis", MODES)
@pytest.mark.parametrize("make", MAPS, ids=lambda make: make.__name__)
def test_values_are_those_of_a_dense_svd(make: Callable[[], BilinearTensor], axis: int) -> None:
    """To 1e-6 of themselves above 1e-6 of the largest, and within their rounding everywhere."""
    tensor = make()
    found, exact = spectrum(tensor, axis), torch.linalg.svdvals(flattened(tensor, axis))
    error = (found.singular_values - exact).abs()
    counted = exact > 1e-6 * exact[0]
    assert bool((error[counted] <= 1e-6 * exact[counted]).all())
    assert bool((error <= found.rounding + 1e-15 * exact[0]).all())  # the SVD rounds, too


@pytest.mark.parametrize("axis", MODES)
@pytest.mark.parametrize("make", MAPS, ids=lambda make: make.__name__)
def test_directions_are_orthonormal_and_have_slices_of_that_length(
    make: Callable[[], BilinearTensor], axis: int
) -> None:
    tensor = make()
    found, matrix = spectrum(tensor, axis), flattened(tensor, axis)
    rows, values = found.directions, found.singular_values
    torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows), dtype=torch.float64))
    values, matrix = values / values[0], matrix / values[0]  # whose squares do not overflow
    counted = values > 1e-6
    torch.testing.assert_close(
        (rows @ matrix).norm(dim=1)[counted], values[counted], rtol=1e-6, atol=0
    )
    largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
    assert bool((largest > 0).all())


@pytest.mark.parametrize(
    "make", [graded_outputs, nearly_opposite_units], ids=lambda make: make.__name__
)
def test_small_slices_are_orthogonal_to_the_large_ones(make: Callable[[], BilinearTensor]) -> None:
    """The overlap of two slices is the rounding of the first Gram matrix over their lengths."""
    tensor = make()
    found = spectrum(tensor, 0)
    kept = found.singular_values > 1e-6 * found.singular_values[0]
    units = torch.nn.functional.normalize(found.directions[kept] @ flattened(tensor, 0), dim=1)
    overlap = units @ units.T - torch.eye(len(units), dtype=torch.float64)
    assert float(overlap.abs().max()) < 2e-3


def counting(mode: OutputMode, calls: list[str]) -> OutputMode:
    """The mode, with a record of which route each of its Gram matrices took."""

    class Counted(OutputMode):
        def gram(self, rows: Tensor) -> Tensor:
            calls.append("factors")
            return super().gram(rows)

        def dense_gram(self, rows: Tensor) -> Tensor:
            calls.append(f"{len(rows)} slices")
            return super().dense_gram(rows)

    return Counted(mode.factors)


@pytest.mark.parametrize(
    ("make", "routes"),
    [
        (any_units, ["factors"]),
        (graded_outputs, ["factors", "factors"]),
        (few_units, ["factors", "factors"]),
        (nearly_opposite_units, ["factors", f"{OUT - 3} slices"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_slices_are_built_only_where_units_cancel(
    make: Callable[[], BilinearTensor], routes: list[str]
) -> None:
    tensor, calls = make(), list[str]()
    factors = BlockedTensor.from_parts(tensor.down, tensor.left, tensor.right)
    mode_spectrum(counting(OutputMode(factors), calls), None)
    assert calls[: len(routes)] == routes


def test_a_rank_keeps_the_leading_ones_and_the_mass_of_the_others() -> None:
    whole, cut = spectrum(any_units(), 0), spectrum(any_units(), 0, rank=4)
    assert torch.equal(cut.singular_values, whole.singular_values[:4])
    assert torch.equal(cut.directions, whole.directions[:4])
    assert len(cut.rounding) == len(cut.cluster) == len(cut.cluster_size) == 4
    torch.testing.assert_close(
        cut.discarded_squared, whole.singular_values[4:].square().sum(), rtol=1e-14, atol=0
    )
    torch.testing.assert_close(cut.tail_squared(2), whole.tail_squared(2))
    assert float(whole.discarded_squared) == 0.0


def test_equal_values_share_a_label_and_others_do_not() -> None:
    values = vector(5, 3, 3 * (1 - 1e-12), 2, 1e-9, 0)
    labels, sizes = clusters(values, vector(0, 0, 0, 0, 1e-9, 1e-9))
    assert labels.tolist() == [0, 1, 1, 2, 3, 3]
    assert sizes.tolist() == [1, 2, 2, 1, 2, 2]


def test_outputs_that_are_orthogonal_and_equally_large_are_one_cluster() -> None:
    """Q_c = 2 e_c e_cᵀ for c = 0, 1, 2 and e_3 e_3ᵀ: three singular values 2, one of 1."""
    eye = torch.eye(4, dtype=torch.float64)
    found = spectrum(BilinearTensor(torch.diag(vector(2, 2, 2, 1)), eye, eye), 0)
    torch.testing.assert_close(found.singular_values, vector(2, 2, 2, 1))
    assert found.cluster_size.tolist() == [3, 3, 3, 1]


def test_a_cut_through_a_cluster_is_seen() -> None:
    eye = torch.eye(4, dtype=torch.float64)
    found = spectrum(BilinearTensor(eye, eye, eye), 0, rank=2)
    assert found.cluster_size.tolist() == [4, 4]


@pytest.mark.parametrize("axis", MODES)
def test_a_tensor_of_zeros_has_zeros(axis: int) -> None:
    found = spectrum(BilinearTensor(0 * DOWN, LEFT, RIGHT), axis)
    assert float(found.singular_values.max()) == float(found.rounding.max()) == 0.0
    assert len(set(found.cluster.tolist())) == 1


@pytest.mark.parametrize("hidden", [1, 7, 40])
def test_the_gram_matrix_is_that_of_the_dense_tensor(hidden: int) -> None:
    tensor = random_tensor(1, 3, hidden, 5)
    dense = tensor.dense().flatten(1)
    gram = sum(
        weighed(tensor.down, each(tensor.left, tensor.right)) for each in (straight, crossed)
    )
    torch.testing.assert_close(gram / gram.trace(), dense @ dense.T / dense.square().sum())
    same = BilinearTensor(tensor.down, tensor.left, tensor.left)
    dense = same.dense().flatten(1)
    gram = weighed(same.down, straight(same.left, same.left))
    torch.testing.assert_close(gram / gram.trace(), dense @ dense.T / dense.square().sum())


@pytest.mark.parametrize("turn", [torch.eye(12, dtype=torch.float64), rotation(12)])
def test_a_null_in_float32_is_that_in_float64(
    turn: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the outputs are as unlike in size as 1 and 1e-6: D H Dᵀ itself is in float64."""
    f = random_map(3, 12, 30, 20)
    down = turn @ (f.tensor.down * torch.logspace(0, -6, 12, dtype=torch.float64)[:, None])
    f = QuadraticMap(BilinearTensor(down, f.tensor.left, f.tensor.right))
    exact = output_mode_null(f, seeded(), 5)
    monkeypatch.setattr(kernel, "SINGLE", 0)
    found = output_mode_null(f, seeded(), 5)
    assert not torch.equal(found.effective_rank, exact.effective_rank)
    for mine, theirs in zip(vars(found).values(), vars(exact).values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=0)


@pytest.mark.parametrize("sizes", [(4, 6, 5), (9, 2, 7)])  # the last in the span of its units
def test_a_sample_reads_the_spectra_of_the_dense_tensor(sizes: tuple[int, int, int]) -> None:
    tensor = random_tensor(2, *sizes)
    left, values, _ = torch.linalg.svd(tensor.dense().flatten(1), full_matrices=False)
    leading = torch.einsum("o,oij->ij", left[:, 0], tensor.dense())
    expected = [
        effective_rank(values),
        values[0] ** 2 / values.square().sum(),
        effective_rank(torch.linalg.eigvalsh(leading)),
    ]
    found = read_sample(tensor.down, tensor.left, tensor.right)
    torch.testing.assert_close(found, torch.stack(expected))


def test_a_random_layer_lies_within_its_null_and_an_aligned_one_does_not() -> None:
    f = random_map(3, 12, 30, 20)
    null = output_mode_null(f, seeded(), 39)
    own = read_sample(f.tensor.down, f.tensor.left, f.tensor.right)
    assert null.effective_rank.min() < own[0] < null.effective_rank.max()
    left = f.tensor.left
    down = f.tensor.down.abs()  # aligned units give eigenvalues of one sign
    null = output_mode_null(QuadraticMap(BilinearTensor(down, left, left)), seeded(), 39)
    own = float(read_sample(down, left, left)[2])
    assert not null.leading_rank.min() <= own <= null.leading_rank.max()


def test_the_null_of_more_outputs_than_units_is_that_of_their_span() -> None:
    f = random_map(3, 9, 4, 6)
    down = torch.linalg.qr(f.tensor.down, mode="complete").Q.T @ f.tensor.down
    turned = QuadraticMap(BilinearTensor(down[:4], f.tensor.left, f.tensor.right))
    for mine, theirs in zip(
        *(vars(output_mode_null(g, seeded(), 3)).values() for g in (f, turned)), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_the_null_of_few_units_is_drawn_in_the_span_of_their_weights() -> None:
    f = random_map(3, 5, 3, 9)
    tensor, ranks = f.tensor, output_mode_null(f, seeded(), 400).leading_rank
    turned = [tensor.right @ rotation(9, seed) for seed in range(400)]
    meant = torch.stack([read_sample(tensor.down, tensor.left, one)[2] for one in turned])
    for share in (0.1, 0.5, 0.9):
        torch.testing.assert_close(ranks.quantile(share), meant.quantile(share), rtol=0.05, atol=0)


def test_behind_an_embedding_the_branches_share_its_rows() -> None:
    embedding = randn(4, 9, seed=1)
    behind = random_tensor(4, 3, 6, 4)
    f = QuadraticMap(behind).compose_input(embedding)
    found = output_mode_null(f, seeded(5), 5, embedding=embedding)
    turned = [
        read_sample(
            behind.down, behind.left @ embedding, behind.right @ rotation(4, seed) @ embedding
        )
        for seed in range(60)
    ]
    ranks = torch.stack(turned)[:, 0]
    assert ranks.min() * 0.9 < found.effective_rank.mean() < ranks.max() * 1.1
    assert (found.leading_rank <= 4 + 1e-9).all()  # never leaves the row space


def test_an_ordinary_layer_is_turned_unit_by_unit() -> None:
    left = randn(30, 6, seed=1)
    f = QuadraticMap(BilinearTensor(randn(5, 30), left, left))
    null = output_mode_null(f, seeded(), 19, "directions")
    own = read_sample(f.tensor.down, left, left)
    assert null.effective_rank.min() * 0.9 < own[0] < null.effective_rank.max() * 1.1


def test_the_scale_of_a_unit_does_not_matter_and_seeds_decide() -> None:
    f = random_map(6, 4, 8, 5)
    scale = torch.exp(randn(8, seed=9))
    g = QuadraticMap(
        BilinearTensor(f.tensor.down / scale, f.tensor.left * scale[:, None], f.tensor.right)
    )
    first, second = (output_mode_null(one, seeded(2), 3) for one in (f, g))
    torch.testing.assert_close(first.top_share, second.top_share)
    assert not torch.equal(first.top_share, output_mode_null(f, seeded(3), 3).top_share)
