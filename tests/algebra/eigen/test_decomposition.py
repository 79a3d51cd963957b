"""The record of eigenpairs: parts of a value, truncation, subspaces, batches."""

from dataclasses import FrozenInstanceError, fields, replace

import pytest
import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import (
    EigenDecomposition,
    Proof,
    Status,
    Subspace,
    assemble,
    select,
    stack,
    take,
    tensor_fields,
)
from bilens.algebra.eigen.eigendecompose import (
    eigendecompose,
    eigendecompose_all,
)
from bilens.algebra.eigen.ranking import Which
from bilens.base.errors import NumericalError, ShapeError, UsageError
from builders import (
    D_IN,
    D_OUT,
    form_from_pairs,
    form_of,
    randn,
    random_map,
    rotation,
    seeded,
    vector,
)

WHICH: tuple[Which, ...] = ("magnitude", "largest", "smallest", "both")
X = randn(4, D_IN, seed=3)


@pytest.fixture
def eigs() -> EigenDecomposition:
    return eigendecompose_all(random_map(), k=None)


def test_a_batch_is_indexed_form_by_form(eigs: EigenDecomposition) -> None:
    assert len(eigs) == D_OUT
    for c, single in enumerate(eigs):
        alone = eigendecompose(random_map().form(torch.eye(D_OUT)[c]))
        assert torch.equal(single.eigenvalues, alone.eigenvalues)
        assert torch.equal(single.eigenvectors, alone.eigenvectors)
        assert torch.equal(single.residuals, alone.residuals)
        assert torch.equal(single.linear, alone.linear)
        assert (single.method, single.which, single.status) == ("dense", "magnitude", Status.OK)
    assert torch.equal(eigs[-1].eigenvalues, eigs[D_OUT - 1].eigenvalues)


def test_the_parts_of_a_value_keep_their_places(eigs: EigenDecomposition) -> None:
    """pairs[c, b, i] = λ_ci (v_ci·x_b)², linear[c, b] = b_c·x_b, constant[c]."""
    parts, f = eigs.contributions(X), random_map()
    assert parts.pairs.shape == (D_OUT, len(X), D_IN)
    by_hand = eigs.eigenvalues[1, 2] * (eigs.eigenvectors[1, 2] @ X[3]) ** 2
    torch.testing.assert_close(parts.pairs[1, 3, 2], by_hand)
    torch.testing.assert_close(parts.linear, f.linear @ X.T)
    torch.testing.assert_close(parts.constant, f.constant)
    torch.testing.assert_close(parts.total(), f(X).T)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X[0], r"shape \(5,\); expected \(batch, in\)"),
        (X[None], r"shape \(1, 4, 5\); expected \(batch, in\)"),
        (X[:, :4], r"shape \(4, 4\); expected \(\.\.\., 5\)"),
        (X.float(), "dtype torch.float32"),
    ],
)
def test_inputs_of_another_shape_or_dtype_are_refused(
    eigs: EigenDecomposition, x: Tensor, message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        eigs.contributions(x)
    with pytest.raises(ShapeError, match=message):
        eigs[0].contributions(x)


def test_a_truncated_form_keeps_its_linear_and_constant_terms(eigs: EigenDecomposition) -> None:
    f = random_map()
    nothing = eigs[1].truncate(0)
    torch.testing.assert_close(nothing(X), X @ f.linear[1] + f.constant[1])
    torch.testing.assert_close(eigs[1].truncate(D_IN)(X), f(X)[:, 1])
    torch.testing.assert_close(eigs.truncate_map(0)(X), X @ f.linear.T + f.constant)


def test_a_truncated_map_of_contrasts_has_an_output_for_each_contrast() -> None:
    directions = torch.tensor([[1.0, -1.0, 0.0]])
    f = random_map()
    truncated = eigendecompose_all(f, directions, k=None).truncate_map(D_IN)
    torch.testing.assert_close(truncated(X), f(X)[:, :1] - f(X)[:, 1:2])


def test_bad_counts_and_a_batch_for_a_form_are_refused(eigs: EigenDecomposition) -> None:
    for k in (-1, 2.0, True, "1", None):
        for truncate in (eigs[0].truncate, eigs.truncate_map):
            with pytest.raises(UsageError, match="k must be an integer of at least 0"):
                truncate(k)
    with pytest.raises(ShapeError, match=r"use eigs\[c\].truncate\(k\)"):
        eigs.truncate(1)
    with pytest.raises(ShapeError, match="use truncate for one form"):
        eigs[0].truncate_map(1)
    with pytest.raises(ShapeError, match=r"use eigs\[c\].subspaces\(\)"):
        eigs.subspaces()
    with pytest.raises(ShapeError, match="only a batch has a length"):
        len(eigs[0])
    with pytest.raises(ShapeError, match="only a batch can be indexed"):
        eigs[0][0]
    for index in (D_OUT, -D_OUT - 1):
        with pytest.raises(IndexError, match=f"form {index} of a batch of {D_OUT}"):
            eigs[index]
    with pytest.raises(FrozenInstanceError):
        eigs.method = "another"


def test_more_pairs_than_were_computed_are_refused() -> None:
    eigs = eigendecompose_all(random_map(), k=2)
    for truncate in (eigs[0].truncate, eigs.truncate_map):
        with pytest.raises(UsageError, match="k=3, but only 2 pairs were computed: decompose with"):
            truncate(3)


@pytest.mark.parametrize("status", [s for s in Status if s is not Status.OK])
def test_nothing_is_built_on_pairs_that_failed(eigs: EigenDecomposition, status: Status) -> None:
    single = replace(eigs[0], status=status)
    batch = replace(eigs, status=(Status.OK, status, Status.OK))
    for build in (
        lambda: single.truncate(1),
        lambda: single.contributions(X),
        lambda: single.subspaces(),
        lambda: batch.truncate_map(1),
        lambda: batch.contributions(X),
    ):
        with pytest.raises(NumericalError, match=f"nothing can be built on .*: {status.value}"):
            build()
    assert batch[0].truncate(1) is not None  # the others can be used


def test_a_zero_form_is_explained_in_full() -> None:
    eig = eigendecompose(form_of(torch.zeros(3, 3, dtype=torch.float64)))
    assert float(eig.explained) == 1
    assert eig.eigenvalues.tolist() == [0, 0, 0]


def test_the_explained_share_is_the_share_of_the_squares() -> None:
    """diag(3, −2, 1): one pair explains 9/14, two explain 13/14."""
    form = form_of(torch.diag(vector(1.0, 3.0, -2.0)))
    assert float(eigendecompose(form, k=1).explained) == pytest.approx(9 / 14)
    assert float(eigendecompose(form, k=2).explained) == pytest.approx(13 / 14)


def indices(spaces: tuple[Subspace, ...]) -> list[tuple[int, ...]]:
    return [space.indices for space in spaces]


def test_equal_eigenvalues_are_one_subspace() -> None:
    """λ = (4, −4, 2, 2): the pair of 2s belongs together, 4 and −4 do not."""
    spaces = eigendecompose(form_from_pairs(vector(4, -4, 2, 2), rotation(4))).subspaces()
    assert indices(spaces) == [(0,), (1,), (2, 3)]
    assert [space.size for space in spaces] == [1, 1, 2]
    assert [space.eigenvalue for space in spaces] == pytest.approx([4, -4, 2])


@pytest.mark.parametrize("seed", range(4))
def test_the_projector_of_a_tie_does_not_depend_on_the_basis_that_the_solver_picked(
    seed: int,
) -> None:
    """The same Q = 2 P + 5 v vᵀ, written with different bases of the range of P."""
    turn = rotation(5)
    plane = rotation(3, seed=seed + 1) @ turn[:3]  # another basis of the same three-space
    eig = eigendecompose(form_from_pairs(vector(2, 2, 2, 5), torch.cat([plane, turn[3:4]])))
    (space,) = [space for space in eig.subspaces() if len(space.indices) == 3]
    torch.testing.assert_close(space.projector(), turn[:3].T @ turn[:3])


def test_a_subspace_that_k_cuts_through_has_no_projector() -> None:
    """Two of the three 2s: which two is an accident of rounding."""
    form = form_from_pairs(vector(5, 2, 2, 2), rotation(4))
    first, cut = eigendecompose(form, k=3).subspaces()
    torch.testing.assert_close(first.projector(), rotation(4)[:1].T @ rotation(4)[:1])
    assert (cut.indices, cut.size) == ((1, 2), 3)
    with pytest.raises(UsageError, match=r"3 eigenvalues near 2 .* only 2 of them .* larger k"):
        cut.projector()


@pytest.mark.parametrize(("gap", "groups"), [(1e-9, [(0, 1), (2,)]), (1e-7, [(0,), (1,), (2,)])])
def test_how_close_is_too_close_is_relative_to_the_largest_eigenvalue(
    gap: float, groups: list[tuple[int, ...]]
) -> None:
    form = form_from_pairs(1e-6 * vector(1, 1 - gap, 0.5), rotation(3))
    assert indices(eigendecompose(form).subspaces()) == groups


def test_the_kernel_is_one_subspace() -> None:
    eig = eigendecompose(form_from_pairs(vector(3), rotation(4)[:1]))
    assert indices(eig.subspaces()) == [(0,), (1, 2, 3)]


def test_what_is_below_the_noise_is_not_distinct_from_zero() -> None:
    eig = eigendecompose(form_from_pairs(vector(3, -1), rotation(5)[:2]))
    assert (eig.distinct_from_zero != 0).tolist() == [True, True, False, False, False]
    torch.testing.assert_close(eig.distinct_from_zero[:2], vector(3, -1))
    assert 0 < float(eig.rounding_bound) < 1e-11


def test_the_noise_has_the_unit_of_the_eigenvalues() -> None:
    q = randn(4, 4)
    small, large = eigendecompose(form_of(q)), eigendecompose(form_of(2.0**30 * q))
    assert float(large.rounding_bound) == 2.0**30 * float(small.rounding_bound)
    assert torch.equal(large.eigenvalues, 2.0**30 * small.eigenvalues)


def test_the_distinct_part_of_a_batch_is_that_of_its_forms(eigs: EigenDecomposition) -> None:
    for c, single in enumerate(eigs):
        assert torch.equal(eigs.distinct_from_zero[c], single.distinct_from_zero)


def test_a_subspace_says_whether_more_may_belong_to_it() -> None:
    """An iteration meets one of two equal eigenvalues; that there is no second is unproven."""
    values = torch.cat([vector(3, 3), torch.linspace(-2.9, 2.9, 58).double()])
    form = form_from_pairs(values, rotation(60))
    met = eigendecompose(form, k=1, method="lanczos").subspaces()[0]
    assert (met.size, met.complete) == (1, False)
    verified = eigendecompose(form, k=1, method="lanczos", verify=True).subspaces()[0]
    assert (verified.size, verified.complete) == (2, True)


NUM = 9


@pytest.fixture
def batch() -> EigenDecomposition:
    """Nine forms of several statuses and proofs, some of them bad."""
    rows = randn(NUM, 6)
    rows[4], rows[7, 1] = 0, torch.nan
    return eigendecompose_all(random_map(0, 6, 20, 24), rows, k=3, method="lanczos")


def assert_equal(found: EigenDecomposition, expected: EigenDecomposition) -> None:
    for field in fields(expected):
        here, there = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(there, Tensor):
            torch.testing.assert_close(here, there, rtol=0, atol=0, equal_nan=True)
        else:
            assert here == there, field.name


def test_the_batch_of_the_test_holds_forms_of_many_kinds(batch: EigenDecomposition) -> None:
    assert set(batch.status) == {Status.OK, Status.NOT_FINITE}
    assert {Proof.NORM, Proof.NONE} <= set(batch.proof)


def test_a_batch_is_the_stack_of_its_forms(batch: EigenDecomposition) -> None:
    assert_equal(stack([batch[c] for c in range(NUM)]), batch)


@pytest.mark.parametrize("chosen", [[0], [8, 0, 3], [7, 4], list(range(NUM)), [2, 2], []], ids=str)
def test_some_forms_of_a_batch_are_those_at_their_positions(
    batch: EigenDecomposition, chosen: list[int]
) -> None:
    taken = take(batch, torch.tensor(chosen, dtype=torch.int64))
    assert len(taken) == len(chosen)
    for position, single in zip(chosen, (taken[i] for i in range(len(chosen))), strict=True):
        assert_equal(single, batch[position])


@pytest.mark.parametrize("seed", range(5))
def test_parts_in_any_order_are_put_together_by_their_positions(
    batch: EigenDecomposition, seed: int
) -> None:
    order = torch.randperm(NUM, generator=seeded(seed))
    parts = [(rows, take(batch, rows)) for rows in torch.split(order, [1, 4, 0, 3, 1])]
    assert_equal(assemble(parts), batch)


@pytest.mark.parametrize("which", WHICH)
def test_pairs_from_another_end_are_those_of_a_decomposition_from_there(which: Which) -> None:
    found = select(eigendecompose_all(random_map(), k=None), 2, which)
    expected = eigendecompose_all(random_map(), k=2, which=which)
    assert found.which == which
    torch.testing.assert_close(found.eigenvalues, expected.eigenvalues)
    torch.testing.assert_close(found.eigenvectors, expected.eigenvectors)
    torch.testing.assert_close(found.explained, expected.explained)


def test_every_tensor_of_the_record_is_carried(batch: EigenDecomposition) -> None:
    names = tensor_fields(batch)
    assert {field.name for field in fields(batch)} - set(names) == {
        "method",
        "which",
        "basis",
        "status",
        "proof",
    }
    assert all(len(getattr(batch, name)) == NUM for name in names)


def test_a_slice_of_a_batch_is_a_batch() -> None:
    eigs = eigendecompose_all(random_map())
    some = eigs[1:]
    assert (len(some), len(some.status), len(some.proof)) == (2, 2, 2)
    torch.testing.assert_close(some[0].eigenvectors, eigs[1].eigenvectors)
    torch.testing.assert_close(eigs[::-1][0].eigenvectors, eigs[-1].eigenvectors)
    assert len(eigs[3:]) == 0
    assert eigs.device == torch.device("cpu")
    for wrong in ("a", 1.0, (0, 1)):
        with pytest.raises(UsageError, match=r"eigs\[c\], several are eigs\[a:b\]; got"):
            eigs[wrong]


def test_advice_names_only_what_the_object_can_do() -> None:
    """A decomposition is float64 and has no `.to`."""
    eig = eigendecompose(random_map().form(0))
    with pytest.raises(ShapeError, match=r"float64 was expected: use x.to\(torch.float64\)\.$"):
        eig.contributions(randn(2, 5).float())
