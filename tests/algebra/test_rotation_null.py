"""The rotation null: its samples, edges and p-values, its memory."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bilens.algebra import random_rotations, rotation_null as module
from bilens.algebra.bilinear_tensor import BilinearTensor, FactorSizes
from bilens.algebra.concentration import effective_rank
from bilens.algebra.directions import centred_directions, raw_directions
from bilens.algebra.eigen.decomposition import Status
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.random_rotations import (
    NullEnds,
    embedding_corner,
    in_one_order,
    null_memory,
    random_frame,
)
from bilens.algebra.rotation_null import CHUNK_BYTES, RotationNull, rotation_null
from bilens.base.checks import check_finite
from bilens.base.errors import MemoryLimitError, NumericalError, ShapeError, UsageError
from builders import D_IN, D_OUT, randn, random_map, rotation, seeded, vector
from odd_tensors import NOT_DENSE_FLOAT, WRONG_AXES, Odd
from peak_memory import OVERHEAD, Largest, peak_of

D = 32
ROWS = torch.ones(1, 1, dtype=torch.float64)
NUMBERS = ("largest", "smallest", "effective_rank")


def random_factored(d_hidden: int, seed: int, d_in: int = D) -> QuadraticMap:
    return random_map(seed, d_out=1, d_hidden=d_hidden, d_in=d_in)


def ends(f: QuadraticMap) -> tuple[float, float]:
    values = eigendecompose_all(f, ROWS, k=None).eigenvalues[0]
    return float(values.min()), float(values.max())


@pytest.mark.parametrize("d_hidden", [6, D, 3 * D], ids=["h < d/2", "h = d", "h > d"])
def test_a_random_map_exceeds_the_edge_no_more_often_than_the_level_allows(d_hidden: int) -> None:
    """19 samples, level 0.9: each end is exceeded with probability 2/20, about 16 of 160 ends.

    More than 29 would have probability 6e-4, and fewer than 6, a null that is too wide, 9e-4.
    """
    beyond = 0
    for seed in range(80):
        f = random_factored(d_hidden, seed)
        lower, upper = rotation_null(f, ROWS, seeded(seed), num_samples=19).edges(level=0.9)
        smallest, largest = ends(f)
        beyond += (smallest < float(lower)) + (largest > float(upper))
    assert 6 <= beyond <= 29


def wigner_edge(f: QuadraticMap) -> float:
    """σ (2√d − 1.21 d^{−1/6}), σ of the entries: the mean largest eigenvalue if they were free."""
    q = f.form(ROWS[0]).dense()
    off_diagonal = q[~torch.eye(len(q), dtype=torch.bool)]
    return float(off_diagonal.std()) * (2 * math.sqrt(len(q)) - 1.21 * len(q) ** (-1 / 6))


@pytest.mark.parametrize("d_hidden", [8, 64, 512])
def test_no_outliers_are_declared_in_random_maps_where_the_wigner_edge_declares_them(
    d_hidden: int,
) -> None:
    """Level 0.9 at either end: of 60 ends about 6 with any outlier; more than 15, p = 2e-4.

    Entries of Q are not free: it has at most 2h eigenvalues, and products of weights have tails.
    """
    declared, by_wigner = 0, 0
    for seed in range(30):
        f = random_factored(d_hidden, seed, d_in=64)
        values = torch.linalg.eigvalsh(f.form(ROWS[0]).dense())
        null = rotation_null(f, ROWS, seeded(seed), num_samples=9)
        found = null.num_significant(values[None], level=0.9)
        declared += int(found.positive > 0) + int(found.negative > 0)
        edge = wigner_edge(f)
        by_wigner += int(values.max() > edge) + int(values.min() < -edge)
    assert declared <= 15
    assert by_wigner >= 50


def test_branches_that_are_aligned_are_found() -> None:
    """left_1 = right_1, strong, among random units: one eigenvalue far above chance."""
    noise = random_factored(8, seed=1)
    planted = 3 * randn(1, D, seed=2)
    f = QuadraticMap(
        BilinearTensor(
            torch.cat([noise.tensor.down, ROWS], dim=1),
            torch.cat([noise.tensor.left, planted]),
            torch.cat([noise.tensor.right, planted]),
        )
    )
    null = rotation_null(f, ROWS, seeded(), num_samples=99)
    p_low, p_high = null.p_values(*(vector(end) for end in ends(f)))
    assert float(p_high) == 1 / 100  # the least that 99 samples can give
    assert float(p_low) > 0.05
    values = eigendecompose_all(f, ROWS, k=None).eigenvalues
    assert int((values > null.edges()[1]).sum()) == 1
    found = null.num_significant(values)
    assert (found.positive.tolist(), found.negative.tolist()) == ([1], [0])


def rotated_factors(
    monkeypatch: pytest.MonkeyPatch, f: QuadraticMap
) -> list[tuple[Tensor, Tensor]]:
    """The factors of each sample, as they are handed to the solver."""
    seen: list[tuple[Tensor, Tensor]] = []
    read = module.read_ends

    def spy(left: Tensor, right: Tensor, *others: Any) -> NullEnds:
        seen.append((left, right))
        return read(left, right, *others)

    monkeypatch.setattr(module, "read_ends", spy)
    rotation_null(f, raw_directions(f.sizes.d_out), seeded(), num_samples=3)
    return [*seen]


@pytest.mark.parametrize("d_hidden", [2, 5, 9])
def test_a_rotation_keeps_one_branch_and_the_inner_products_of_the_other(
    d_hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    f = random_map(d_hidden=d_hidden)
    left, right = in_one_order(f.tensor.left, f.tensor.right)
    for new_left, new_right in rotated_factors(monkeypatch, f):
        assert torch.equal(new_left, left)
        torch.testing.assert_close(new_right @ new_right.T, right @ right.T)
        assert float((new_right - right).norm()) > 0.1 * float(right.norm())


@pytest.mark.parametrize("d_hidden", [2, 5, 9])
def test_the_spectra_of_a_sample_are_those_of_its_dense_matrix(
    d_hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    f = random_map(d_hidden=d_hidden)
    samples = rotated_factors(monkeypatch, f)
    null = rotation_null(f, raw_directions(D_OUT), seeded(), num_samples=3)
    for index, (left, right) in enumerate(samples):
        spectra = torch.linalg.eigvalsh(BilinearTensor(f.tensor.down, left, right).dense())
        torch.testing.assert_close(null.largest[index], spectra.amax(dim=1).clamp(min=0))
        torch.testing.assert_close(null.smallest[index], spectra.amin(dim=1).clamp(max=0))
        torch.testing.assert_close(null.effective_rank[index], effective_rank(spectra))


@pytest.mark.parametrize("d_hidden", [2, 9])
def test_directions_that_do_not_fit_at_once_are_solved_in_chunks(
    d_hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    f, rows = random_map(d_hidden=d_hidden), randn(7, D_OUT)
    whole = rotation_null(f, rows, seeded(), num_samples=2)
    counts, make = [], random_rotations._matrices

    def spy(left: Tensor, right: Tensor, weights: Tensor) -> Tensor:
        counts.append(len(weights))
        return make(left, right, weights)

    monkeypatch.setattr(random_rotations, "_matrices", spy)
    need = null_memory(f.sizes, 7, 2, None)
    limit = need.fixed + 3 * need.each - 1
    parts = rotation_null(f, rows, seeded(), num_samples=2, memory_limit=limit)
    assert counts == 2 * [2, 2, 2, 1]
    assert parts.status == whole.status == 7 * (Status.OK,)
    for name in NUMBERS:
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


def test_an_end_without_an_eigenvalue_of_its_sign_is_zero() -> None:
    """On one input a rotation is a sign, so the spectrum is {v} or {−v}."""
    f = random_factored(d_hidden=1, seed=0, d_in=1)
    value = abs(float(f.form(ROWS[0]).trace()))
    null = rotation_null(f, ROWS, seeded(), num_samples=20)
    assert {round(float(v) / value, 9) for v in null.largest} == {0.0, 1.0}
    assert {round(float(v) / value, 9) for v in null.smallest} == {0.0, -1.0}


def test_the_same_seed_gives_the_same_null_and_the_global_one_plays_no_part() -> None:
    f, rows = random_map(), raw_directions(D_OUT)
    first, same, other = (rotation_null(f, rows, seeded(s), num_samples=5) for s in (1, 1, 2))
    assert torch.equal(first.largest, same.largest)
    assert torch.equal(first.effective_rank, same.effective_rank)
    assert not torch.equal(first.largest, other.largest)
    state = torch.get_rng_state()
    rotation_null(random_map(), raw_directions(D_OUT), seeded(), num_samples=2)
    assert torch.equal(torch.get_rng_state(), state)


def test_linear_and_constant_terms_take_no_part() -> None:
    f, rows = random_map(), centred_directions(D_OUT)
    full = rotation_null(f, rows, seeded(), num_samples=3)
    bilinear = rotation_null(QuadraticMap(f.tensor), rows, seeded(), num_samples=3)
    assert torch.equal(full.smallest, bilinear.smallest)


def test_a_linear_scale_scales_the_edges_and_not_the_rank() -> None:
    f, rows = random_map(), raw_directions(D_OUT)
    plain = rotation_null(f, rows, seeded(), num_samples=3)
    scaled = rotation_null(f, 10 * rows, seeded(), num_samples=3)
    torch.testing.assert_close(scaled.largest, 10 * plain.largest)
    torch.testing.assert_close(scaled.effective_rank, plain.effective_rank)


def test_progress_is_reported_after_each_sample() -> None:
    done: list[int] = []
    null = rotation_null(random_map(), raw_directions(D_OUT), seeded(), 4, progress=done.append)
    assert done == [1, 2, 3, 4]
    assert null.num_samples == 4
    assert null.largest.shape == null.effective_rank.shape == (4, D_OUT)


def test_p_values_of_a_real_null_lie_in_their_interval() -> None:
    rows = raw_directions(D_OUT)
    null = rotation_null(random_map(), rows, seeded(), num_samples=9)
    for smallest, largest in ((-1e9, 1e9), (0.0, 0.0), (1e9, -1e9)):
        for p in null.p_values(vector(*[smallest] * D_OUT), vector(*[largest] * D_OUT)):
            assert bool((p >= 0.1 - 1e-15).all())  # 1 / (9 + 1)
            assert bool((p <= 1).all())


@pytest.mark.parametrize(("d_in", "rank"), [(1, 1), (5, 1), (5, 3), (5, 5)])
def test_a_random_frame_is_orthonormal(d_in: int, rank: int) -> None:
    frame = random_frame(d_in, rank, seeded())
    torch.testing.assert_close(frame.T @ frame, torch.eye(rank, dtype=torch.float64))


def test_a_random_frame_prefers_no_direction() -> None:
    """Moments of a Haar column in three dimensions: E w = 0, E wᵀA w = tr A / 3, for any A.

    Over 4000 frames the mean of an entry has the standard error 1/√(3 · 4000) = 0.009, and of a
    square, of variance 4/45, 0.005; 0.04 and 0.02 are four of them. Turned by any fixed rotation,
    the moments must stay; without the signs of R the mean of the first entry would be off.
    """
    generator = seeded()
    frames = torch.stack([random_frame(3, 2, generator) for _ in range(4000)])
    for turn in (torch.eye(3, dtype=torch.float64), rotation(3)):
        turned = turn @ frames
        assert float(turned.mean(dim=0).abs().max()) < 0.04
        assert float((turned.square().mean(dim=0) - 1 / 3).abs().max()) < 0.02
    determinants = torch.linalg.det(
        torch.stack([random_frame(2, 2, generator) for _ in range(1000)])
    )
    assert abs(float(determinants.mean())) < 0.13  # ±1 equally often: four times 1/√1000


@pytest.mark.parametrize("odd", [*NOT_DENSE_FLOAT, WRONG_AXES], ids=str)
def test_odd_directions_are_refused(odd: Odd) -> None:
    with pytest.raises(odd.error, match=odd.message):
        rotation_null(random_map(), odd.of(raw_directions(D_OUT)), seeded(), num_samples=1)


def test_bad_arguments_are_refused() -> None:
    for shape in ((2, D_OUT + 1), (0, D_OUT)):
        with pytest.raises(ShapeError, match=r"directions has shape .*; expected \(num, 3\)"):
            rotation_null(random_map(), randn(*shape), seeded())
    for num_samples in (0, -1, 9.0, True):
        with pytest.raises(UsageError, match="num_samples must be an integer of at least 1"):
            rotation_null(random_map(), raw_directions(D_OUT), seeded(), num_samples)
    for seed in (-1, None, "0"):
        with pytest.raises(UsageError, match=r"^seed is .*; expected an integer from 0 on"):
            rotation_null(random_map(), raw_directions(D_OUT), seed)
    form = random_map().form(raw_directions(D_OUT)[0])
    with pytest.raises(UsageError, match="f is a QuadraticForm; expected QuadraticMap"):
        rotation_null(form, raw_directions(D_OUT), seeded())
    with pytest.raises(ShapeError, match=r"embedding has shape \(4, 9\); expected \(5, in'\)"):
        rotation_null(random_map(), raw_directions(D_OUT), seeded(), embedding=randn(4, 9))


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e308], ids=str)
def test_a_bad_direction_is_flagged_and_the_others_are_not_affected(
    bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1e308 is finite, its form is not. NaN does not reach the solver."""
    solve = torch.linalg.eigvalsh
    monkeypatch.setattr(
        torch.linalg, "eigvalsh", lambda part: solve(check_finite("matrices", part))
    )
    rows = raw_directions(D_OUT)
    good = rotation_null(random_map(), rows[[0, 2]], seeded(), 19)
    rows[1] = bad
    found = rotation_null(random_map(), rows, seeded(), 19)
    assert found.status == (Status.OK, Status.NOT_FINITE, Status.OK)
    for name in NUMBERS:
        number = getattr(found, name)
        assert number[:, 1].isnan().all()
        torch.testing.assert_close(number[:, [0, 2]], getattr(good, name))
    assert [edge.isnan().tolist() for edge in found.edges()] == 2 * [[False, True, False]]
    assert float(found.p_values(-torch.ones(3).double(), torch.ones(3).double())[1][1]) == 1.0


def test_a_direction_that_the_solver_fails_on_is_flagged_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the third of four samples the solver refuses any batch with the second direction."""
    solve, sample = torch.linalg.eigvalsh, []
    monkeypatch.setattr(random_rotations, "_matrices", marked(random_rotations._matrices, sample))

    def failing(matrices: Tensor) -> Any:
        if len(sample) == 3 and any(torch.equal(one, sample[2]) for one in matrices):
            raise torch.linalg.LinAlgError("it did not converge")
        return solve(matrices)

    monkeypatch.setattr(torch.linalg, "eigvalsh", failing)
    found = rotation_null(random_map(), raw_directions(D_OUT), seeded(), 4)
    assert found.status == (Status.OK, Status.NOT_CONVERGED, Status.OK)
    assert found.largest.isnan().tolist() == 4 * [[False, True, False]]


def marked(make: Callable[..., Tensor], seen: list[Tensor]) -> Callable[..., Tensor]:
    """Matrices as they are made; the second one of each batch is noted."""

    def noting(*parts: Tensor) -> Tensor:
        matrices = make(*parts)
        seen.append(matrices[1].clone())
        return matrices

    return noting


@pytest.mark.parametrize("embedded", [False, True])
def test_a_null_that_does_not_fit_is_refused(embedded: bool) -> None:
    embedding = randn(D_IN, 12) if embedded else None
    need = null_memory(random_map().sizes, D_OUT, 2, 12 if embedded else None)
    enough = need.fixed + need.each

    def sample(limit: int) -> RotationNull:
        rows = raw_directions(D_OUT)
        return rotation_null(
            random_map(), rows, seeded(), 2, embedding=embedding, memory_limit=limit
        )

    assert sample(enough).num_samples == 2
    with pytest.raises(MemoryLimitError, match=r"null of 3 directions of width 5 needs .*a time"):
        sample(enough - 1)


def behind(embedding: Tensor, f: QuadraticMap, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Whether each direction is beyond an edge, and outside the interval of the rank."""
    eigs = eigendecompose_all(f.compose_input(embedding), k=None)
    null = rotation_null(f, raw_directions(f.sizes.d_out), seeded(seed), 39, embedding=embedding)
    lower, upper = null.edges()
    ranks, values = null.effective_rank.sort(dim=0).values, eigs.eigenvalues
    rank = effective_rank(values)
    outside = (rank < ranks[0]) | (rank > ranks[-1])
    return values.amax(dim=1) > upper, values.amin(dim=1) < lower, outside, rank


def test_random_branches_that_share_an_embedding_are_not_called_aligned() -> None:
    """Level 5 % an end: of 300 ends at most 27 (p = 0.001); interval of the rank: 5 % outside.

    Rotated in front of the embedding instead, where the branches share its stretching, more than
    a third of these would be beyond the edge.
    """
    found = [
        behind(randn(8, 30, seed=seed), random_map(seed, d_out=6, d_hidden=8, d_in=8), seed)
        for seed in range(50)
    ]
    for part in range(3):
        assert sum(int(result[part].sum()) for result in found) <= 27


def test_a_spectrum_behind_an_embedding_is_that_of_the_dense_product() -> None:
    """With O the identity the null is the map itself: Eᵀ Q E, 12 × 12, of rank 5."""
    f, embedding = random_map(), randn(D_IN, 12, seed=5)
    corner = embedding_corner(embedding)
    for u in raw_directions(D_OUT):
        q = f.form(u).dense()
        dense = torch.linalg.eigvalsh(embedding.T @ q @ embedding)
        reduced = torch.linalg.eigvalsh(corner.T @ q @ corner)
        torch.testing.assert_close(
            dense[dense.abs() > 1e-9], reduced, check_dtype=False, rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("d_hidden", [2, 9])
def test_without_a_rotation_it_is_the_spectrum(
    d_hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    f = random_map(d_hidden=d_hidden)
    _, right = in_one_order(f.tensor.left, f.tensor.right)
    frame = torch.linalg.qr(right.T).Q  # for which right·O is right
    monkeypatch.setattr(module, "random_frame", lambda *_: frame)
    null = rotation_null(f, raw_directions(D_OUT), seeded(), 1)
    values = torch.linalg.eigvalsh(f.tensor.dense())
    torch.testing.assert_close(null.largest[0], values[:, -1])
    torch.testing.assert_close(null.smallest[0], values[:, 0])
    torch.testing.assert_close(null.effective_rank[0], effective_rank(values))


@pytest.mark.parametrize("d_hidden", [2, 9])
def test_behind_an_embedding_the_branch_that_reaches_further_is_turned(
    d_hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ends of the dense Eᵀ Q E of either branch turned; its frame is that of a Haar O."""
    f, embedding, frames = random_map(d_hidden=d_hidden), randn(D_IN, 12, seed=5), []
    draw = random_frame

    def noted(*sizes: Any) -> Tensor:
        frames.append(draw(*sizes))
        return frames[-1]

    monkeypatch.setattr(module, "random_frame", noted)
    null = rotation_null(f, raw_directions(D_OUT), seeded(), 1, embedding=embedding)
    down, left, right = f.tensor.down, f.tensor.left, f.tensor.right
    turned = [torch.linalg.qr(one.T, mode="r").R.T @ frames[0].T for one in (left, right)]
    spectra = [
        torch.linalg.eigvalsh(BilinearTensor(down, one @ embedding, other @ embedding).dense())
        for one, other in ((turned[0], right), (left, turned[1]))
    ]
    reach = [values.abs().amax(dim=1) for values in spectra]
    for c in range(D_OUT):
        values = spectra[int(reach[1][c] > reach[0][c])][c]
        torch.testing.assert_close(null.largest[0, c], values[-1])
        torch.testing.assert_close(null.smallest[0, c], values[0])
        torch.testing.assert_close(null.effective_rank[0, c], effective_rank(values))
    assert len(frames) == 1


def test_the_scale_of_a_direction_changes_no_p_value() -> None:
    f, rows = random_map(), raw_directions(D_OUT)
    values = eigendecompose_all(f, k=None).eigenvalues
    plain = rotation_null(f, rows, seeded(), 9).num_significant(values)
    scaled = rotation_null(f, 10 * rows, seeded(), 9).num_significant(10 * values)
    assert torch.equal(plain.p_values, scaled.p_values)


CODE = """
import torch
from bilens.algebra.rotation_null import (rotation_null)
from builders import randn, random_map
f, rows = random_map(0, 4, {hidden}, {d_in}), torch.eye(4, dtype=torch.float64)
e = {embedding}
measure(lambda: rotation_null(
    f, rows, torch.Generator(), 1, embedding=e, memory_limit={limit}
))
"""


@pytest.mark.parametrize(
    ("hidden", "d_in", "width_before"),
    [
        (64, 40_000, None),
        pytest.param(1100, 1000, None, marks=pytest.mark.slow),
        pytest.param(64, 900, 3000, marks=pytest.mark.slow),
    ],
    ids=["narrow", "wide", "embedding"],
)
def test_no_more_than_was_counted_is_taken(
    hidden: int, d_in: int, width_before: int | None
) -> None:
    need = null_memory(FactorSizes(4, hidden, d_in), 4, 1, width_before)
    limit = need.fixed + need.each
    embedding = f"randn({d_in}, {width_before})" if width_before else None
    code = CODE.format(hidden=hidden, d_in=d_in, embedding=embedding, limit=limit)
    assert peak_of(code) <= limit + OVERHEAD


def test_spectra_are_not_kept() -> None:
    generator = torch.Generator().manual_seed(0)
    with Largest() as seen:
        rotation_null(random_map(), raw_directions(D_OUT), generator, 50)
    assert seen.numel < 50 * D_OUT * D_IN


def test_as_many_directions_as_fit_are_solved_together() -> None:
    need = null_memory(FactorSizes(3, 64, 32), 10_000, 99, None)
    for num in (1, 2, 17):
        assert need.at_a_time(10_000, CHUNK_BYTES, "", "", need.fixed + num * need.each) == num
    assert need.at_a_time(10_000, CHUNK_BYTES, "", "", 2**40) == CHUNK_BYTES // need.each


KNOWN = RotationNull(
    largest=vector(*range(1, 20)).flip(0)[:, None],  # 19 … 1: the order of samples is no matter
    smallest=-vector(*range(1, 20))[:, None],
    effective_rank=vector(*[1.0] * 19)[:, None],
    status=(Status.OK,),
)


@pytest.mark.parametrize(
    ("level", "edge"),
    [(0.95, 19.0), (0.90, 18.0), (0.5, 10.0), (0.05, 1.0), (0.91, 19.0), (0.999, 19.0)],
)
def test_an_edge_is_an_order_statistic(level: float, edge: float) -> None:
    """The ⌈level · 20⌉-th smallest of 19 values, and the last one where there are too few."""
    lower, upper = KNOWN.edges(level)
    assert (float(lower), float(upper)) == (-edge, edge)


def test_levels_and_sizes_that_do_not_fit_are_refused() -> None:
    for level in (0.0, 1.0, 95, -0.5, math.nan):
        with pytest.raises(UsageError, match="a number between 0 and 1 was expected"):
            KNOWN.edges(level)
    with pytest.raises(ShapeError, match=r"smallest has shape \(2,\); expected \(1,\)"):
        KNOWN.p_values(vector(0, 0), vector(0))
    with pytest.raises(ShapeError, match="largest has shape"):
        KNOWN.p_values(vector(0), vector(0, 0))


@pytest.mark.parametrize(
    ("observed", "p"),
    [(20.0, 1 / 20), (19.0, 2 / 20), (18.5, 2 / 20), (10.0, 11 / 20), (0.0, 1.0), (math.nan, 1.0)],
)
def test_a_p_value_counts_the_samples_that_are_as_extreme(observed: float, p: float) -> None:
    """(1 + #{sample ≥ observed}) / 20; what was not computed (NaN) is no evidence."""
    low, high = KNOWN.p_values(vector(-observed), vector(observed))
    assert (float(low), float(high)) == (p, p)


def test_a_null_that_lacks_a_direction_is_told() -> None:
    KNOWN.check_usable()
    lacking = replace(KNOWN, status=(Status.OK, Status.NOT_FINITE, Status.NOT_CONVERGED))
    with pytest.raises(
        NumericalError, match=r"direction\(s\) 1, 2 have no null distribution: it holds NaN"
    ):
        lacking.check_usable()


SPECTRUM = vector(25, 18.5, 3, 0, -1, -19, -30)[None]  # one direction


def test_every_eigenvalue_is_compared_with_the_extreme_of_the_null() -> None:
    """Of 19 largest values 1 … 19: none ≥ 25, one ≥ 18.5, seventeen ≥ 3; the mirror image below."""
    found = KNOWN.num_significant(SPECTRUM, level=0.9)
    expected = vector(1, 2, 18, 20, 20, 2, 1)[None] / 20
    torch.testing.assert_close(found.p_values, expected)
    assert (found.positive.tolist(), found.negative.tolist()) == ([2], [2])
    assert found.level == 0.9


@pytest.mark.parametrize(("level", "count"), [(0.95, 1), (0.9, 2), (0.96, 0), (0.1, 3)])
def test_what_is_declared_is_what_is_beyond_the_edge(level: float, count: int) -> None:
    """p ≤ 1 − level; with 19 samples no p-value is below 0.05, so 0.96 declares nothing."""
    found = KNOWN.num_significant(SPECTRUM, level)
    assert found.positive.tolist() == [count]
    if level <= 0.95:
        assert count == int((KNOWN.edges(level)[1] < SPECTRUM).sum())


def test_zeros_and_what_was_not_decomposed_are_no_evidence() -> None:
    found = KNOWN.num_significant(vector(0, math.nan, -0.0)[None])
    assert found.p_values.tolist() == [[1.0, 1.0, 1.0]]
    assert found.positive.tolist() == found.negative.tolist() == [0]


def test_the_order_of_the_eigenvalues_is_no_matter() -> None:
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    found = KNOWN.num_significant(SPECTRUM[:, order])
    assert torch.equal(found.p_values, KNOWN.num_significant(SPECTRUM).p_values[:, order])


def test_numbers_for_other_directions_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"eigenvalues has shape .*; expected \(1, k\)"):
        KNOWN.num_significant(torch.zeros(2, 3))
    with pytest.raises(ShapeError, match=r"smallest has shape \(2,\); expected \(1,\)"):
        KNOWN.p_values(vector(1, 1), vector(0))
    with pytest.raises(ShapeError, match=r"largest is a list; a torch.Tensor was expected"):
        KNOWN.p_values(vector(0), [0.0])


@pytest.mark.parametrize("level", [0.0, 1.0, 95, math.nan])
def test_a_level_of_significance_is_a_probability(level: float) -> None:
    with pytest.raises(UsageError, match="a number between 0 and 1 was expected"):
        KNOWN.num_significant(SPECTRUM, level)
