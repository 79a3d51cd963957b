"""The rank of ΔW beside rounding, and what stands out of noise, against changes that are planted.

Damage seen to fail: the roundings of A not counted; the edge without √max column; u for u/√12; the
precision taken from the dtype; no second number of singular values; `is_needed` left out.
"""

import pytest
import torch
from torch import Tensor

from bilens.algebra import matrix_change as algebra
from bilens.algebra.matrix_change import MatrixChange, matrix_change, noise_edge, precision
from builders import randn
from raising import raising

STORED = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
SHAPES = {"square": (40, 40), "tall": (96, 36), "wide": (36, 108)}


def weights(*shape: int, seed: int = 0) -> Tensor:
    return randn(*shape, seed=seed) / shape[-1] ** 0.5


def of_rank(rank: int, *shape: int, size: float = 0.1, seed: int = 1) -> Tensor:
    """A matrix of a rank, with a part of the norm that `weights` has."""
    found = randn(shape[0], rank, seed=seed) @ randn(rank, shape[1], seed=seed + 1)
    return size * found * float(weights(*shape).norm() / found.norm())


def change(old: Tensor, new: Tensor) -> MatrixChange:
    return matrix_change(old, new)


@pytest.mark.parametrize("dtype", STORED, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_low_rank_that_was_rounded_is_found_exactly(
    dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    old = weights(*shape).to(dtype)
    for rank in range(1, 17):
        new = (old.double() + of_rank(rank, *shape, size=0.3, seed=rank)).to(dtype)
        assert change(old, new).rank == rank


@pytest.mark.parametrize("size", [0.03, 0.1, 1.0])
def test_the_size_of_the_change_does_not_matter(size: float) -> None:
    old = weights(64, 80).bfloat16()
    for rank in (1, 2, 8):
        new = (old.double() + of_rank(rank, 64, 80, size=size)).bfloat16()
        assert change(old, new).rank == rank


def test_a_change_little_above_rounding_is_found() -> None:
    old = weights(64, 80).bfloat16()
    for rank in (1, 2):
        new = (old.double() + of_rank(rank, 64, 80, size=0.002)).bfloat16()
        assert change(old, new).rank == rank


def test_errors_of_rounding_that_follow_the_change_are_no_rank_of_it() -> None:
    old = weights(1024, 1024).bfloat16()
    new = (old.double() + of_rank(1, 1024, 1024, size=0.005)).bfloat16()
    assert change(old, new).rank == 1


@pytest.mark.parametrize("scale", [0.003, 1.0])
@pytest.mark.parametrize(("dtype", "rank"), [(torch.bfloat16, 4), (torch.float32, 16)])
def test_the_way_in_which_peft_merges_adds_no_rank(
    dtype: torch.dtype, rank: int, scale: float
) -> None:
    parts = weights(128, 128), randn(rank, 128), randn(128, rank, seed=1)
    old, a, b = (part.to(dtype) for part in parts)
    product = (b.float() @ a.float()).to(dtype) * scale  # rounded, scaled, rounded, added, rounded
    assert change(old, old + product).rank == rank


@pytest.mark.parametrize("dtype", STORED[:3], ids=str)
def test_rounding_alone_is_no_change(dtype: torch.dtype) -> None:
    wide = weights(48, 64)
    found = change(wide, wide.to(dtype).double())
    assert found.rank == 0
    assert change(wide.to(dtype).double(), wide).rank == 0


def test_a_matrix_that_was_widened_is_as_precise_as_before() -> None:
    old = weights(64, 80).bfloat16()
    new = (old.double() + of_rank(3, 64, 80)).bfloat16()
    assert precision(new.float()) is torch.bfloat16
    assert change(old.float(), new.float()).rank == 3
    assert change(old, new.double()).rank == 3
    assert precision(weights(4, 4)) is torch.float64


def test_models_rounded_from_wider_weights_show_the_rank_too() -> None:
    wide = weights(64, 80)
    new = (wide + of_rank(2, 64, 80, size=0.2)).bfloat16()
    found = change(wide.bfloat16(), new)
    assert found.rank == 2
    assert change(wide.bfloat16(), (wide + of_rank(2, 64, 80)).float()).rank == 2


def test_noise_is_told_from_structure() -> None:
    old = weights(60, 90)
    noise = 0.05 * randn(60, 90, seed=5) / 90**0.5
    found = change(old, old + noise)
    assert (found.is_noise, found.rank) == (True, 60)
    assert found.norm == pytest.approx(float(noise.norm()))
    planted = change(old, old + noise + of_rank(1, 60, 90, size=0.3))
    assert (planted.is_noise, planted.rank) == (False, 60)
    uneven = torch.diag(randn(60, seed=2)) @ noise @ torch.diag(randn(90, seed=3))
    assert change(old, old + uneven).is_noise
    sigma = torch.linalg.svdvals(noise + of_rank(1, 60, 90, size=0.3))
    assert planted.top_share == pytest.approx(float(sigma[0] ** 2 / sigma.square().sum()))


def test_few_entries_are_a_change_of_their_rank() -> None:
    old = weights(40, 40).bfloat16()
    new = old.clone()
    new[3] += 0.5
    assert change(old, new).rank == 1
    same = change(old, old.clone())
    assert (same.norm, same.rank) == (0.0, 0)


def test_large_matrices_are_found_by_subspace_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(algebra, "WHOLE", 20)
    monkeypatch.setattr(algebra, "LOOKED_FOR", (12, 40))
    old = weights(70, 120).bfloat16()
    for rank in (1, 3, 16):  # the last one with the second number
        for way in (old, old.T):
            new = (way.double() + of_rank(rank, *way.shape, size=0.3)).bfloat16()
            assert change(way, new).rank == rank
    many = change(old.float(), (old + 0.1 * weights(70, 120, seed=4)).float())
    assert (many.rank, many.is_noise) == (None, True)


def test_the_random_numbers_of_processor_and_gpu_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "manual_seed_all", raising(AssertionError("a GPU was seeded")))
    monkeypatch.setattr(algebra, "WHOLE", 20)
    state = torch.get_rng_state()
    first, again = (algebra.leading_singular_vectors(weights(40, 50), 2)[1] for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_edge_is_rarely_exceeded_by_noise_and_not_far_above_it() -> None:
    for shape in ((8, 8), (30, 200), (100, 100)):
        sizes = [float(torch.linalg.matrix_norm(randn(*shape, seed=s), 2)) for s in range(20)]
        ones = torch.ones(shape, dtype=torch.float64)
        edge = float(noise_edge(ones.sum(1), ones.sum(0), ones.amax()))
        assert max(sizes) < edge < 2 * max(sizes)
