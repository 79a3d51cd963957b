"""Guards against eigenvectors and attributions that hang on how a map is written."""

import torch
from hypothesis import given, strategies as st
from torch import Tensor

import bilens as bl
from contract.drawn import drawn
from contract.table import cell

SEEDS = st.integers(0, 10**6)
OUT, HIDDEN, WIDTH = 3, 7, 5


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parts(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    down, left, right = (
        randn(*shape, seed=seed + index)
        for index, shape in enumerate(((OUT, HIDDEN), (HIDDEN, WIDTH), (HIDDEN, WIDTH)))
    )
    return down, left, right


def dense(down: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Every form as a symmetric matrix, by hand."""
    q = torch.einsum("oh,hi,hj->oij", down, left, right)
    return (q + q.mT) / 2


def mapped(down: Tensor, left: Tensor, right: Tensor) -> bl.QuadraticMap:
    return bl.QuadraticMap(bl.BilinearTensor(down, left, right))


@cell("decompose", "own object", "permuted units", "scaled branches", "same function")
@drawn
@given(SEEDS)
def test_eigenvalues_are_those_of_the_dense_forms_however_written(seed: int) -> None:
    down, left, right = parts(seed)
    order = torch.randperm(HIDDEN, generator=torch.Generator().manual_seed(seed))
    written = ((down, left, right), (down[:, order], 8 * right[order], left[order] / 8))
    truth = torch.linalg.eigvalsh(dense(down, left, right))
    for one in written:
        found = bl.eigendecompose_all(mapped(*one), k=WIDTH)
        torch.testing.assert_close(found.eigenvalues.sort(dim=1).values, truth, atol=1e-9, rtol=0)


@cell("decompose", "permuted inputs", "common function", "other dtype", "threads")
@drawn
@given(SEEDS)
def test_contrasts_see_no_common_function_and_inputs_move_with_vectors(seed: int) -> None:
    down, left, right = parts(seed)
    contrast = torch.tensor([[1.0, -1.0, 0.0]]).double()
    truth = bl.eigendecompose_all(mapped(down, left, right), contrast, k=WIDTH)
    common = bl.eigendecompose_all(
        mapped(down + randn(1, HIDDEN, seed=seed + 5), left, right), contrast, k=WIDTH
    )
    torch.testing.assert_close(common.eigenvalues, truth.eigenvalues, atol=1e-9, rtol=0)
    order = torch.randperm(WIDTH, generator=torch.Generator().manual_seed(seed))
    moved = bl.eigendecompose_all(mapped(down, left[:, order], right[:, order]), contrast, k=WIDTH)
    vectors, there = truth.eigenvectors[0][:, order], moved.eigenvectors[0]
    torch.testing.assert_close(moved.eigenvalues, truth.eigenvalues, atol=1e-9, rtol=0)
    torch.testing.assert_close((vectors * there).sum(dim=1).abs(), torch.ones(WIDTH).double())
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        narrow = mapped(*(part.float() for part in (down, left, right)))
        values = bl.eigendecompose_all(narrow, contrast, k=WIDTH).eigenvalues
    finally:
        torch.set_num_threads(threads)
    size = float(truth.eigenvalues.abs().max())
    torch.testing.assert_close(values.double(), truth.eigenvalues, atol=1e-4 * size, rtol=0)


@cell("attribute", "own object", "permuted units", "permuted inputs", "common function")
@cell("attribute", "other dtype", "scaled branches", "same function")
@drawn
@given(SEEDS)
def test_attributions_are_shapley_values_however_written(seed: int) -> None:
    down, left, right = parts(seed)
    x, base = randn(4, WIDTH, seed=seed + 5), randn(WIDTH, seed=seed + 6)
    q = dense(down, left, right)
    # of a quadratic form: (x − b)_i (Q (x + b))_i
    truth = (x - base)[:, None] * torch.einsum("oij,bj->boi", q, x + base)
    found = bl.attribute(mapped(down, left, right), x, base)
    torch.testing.assert_close(found, truth)
    order = torch.randperm(HIDDEN, generator=torch.Generator().manual_seed(seed))
    other = mapped(down[:, order], 8 * right[order], left[order] / 8)
    torch.testing.assert_close(bl.attribute(other, x, base), truth)
    inputs = torch.randperm(WIDTH, generator=torch.Generator().manual_seed(seed))
    moved = bl.attribute(
        mapped(down, left[:, inputs], right[:, inputs]), x[:, inputs], base[inputs]
    )
    torch.testing.assert_close(moved, truth[..., inputs])
    common = bl.attribute(mapped(down + 1.0, left, right), x, base)
    torch.testing.assert_close(common[:, 0] - common[:, 1], truth[:, 0] - truth[:, 1])
    narrow = bl.attribute(
        mapped(*(part.float() for part in (down, left, right))), x.float(), base.float()
    )
    torch.testing.assert_close(narrow.double(), truth, rtol=1e-3, atol=1e-3)
