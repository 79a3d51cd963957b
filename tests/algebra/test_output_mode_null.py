"""The null of output spectra: against rotated dense tensors, and what it leaves as it is."""

import pytest
import torch

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.concentration import effective_rank
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.random_rotations import output_gram_of, output_mode_null, read_sample
from builders import randn, random_map, random_tensor, rotation


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("hidden", [1, 7, 40])
def test_the_gram_matrix_is_that_of_the_dense_tensor(hidden: int) -> None:
    tensor = random_tensor(1, 3, hidden, 5)
    dense = tensor.dense().flatten(1)
    gram = output_gram_of(tensor.down, tensor.left, tensor.right)
    torch.testing.assert_close(gram / gram.trace(), dense @ dense.T / dense.square().sum())
    same = BilinearTensor(tensor.down, tensor.left, tensor.left)
    dense = same.dense().flatten(1)
    gram = output_gram_of(same.down, same.left, same.left)
    torch.testing.assert_close(gram / gram.trace(), dense @ dense.T / dense.square().sum())


def test_a_sample_reads_the_spectra_of_the_dense_tensor() -> None:
    tensor = random_tensor(2, 4, 6, 5)
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
    null = output_mode_null(f, generator(), 39)
    own = read_sample(f.tensor.down, f.tensor.left, f.tensor.right)
    assert null.effective_rank.min() < own[0] < null.effective_rank.max()
    left = f.tensor.left
    down = f.tensor.down.abs()  # aligned units give eigenvalues of one sign
    null = output_mode_null(QuadraticMap(BilinearTensor(down, left, left)), generator(), 39)
    own = float(read_sample(down, left, left)[2])
    assert not null.leading_rank.min() <= own <= null.leading_rank.max()


def test_behind_an_embedding_the_branches_share_its_rows() -> None:
    embedding = randn(4, 9, seed=1)
    behind = random_tensor(4, 3, 6, 4)
    f = QuadraticMap(behind).compose_input(embedding)
    found = output_mode_null(f, generator(5), 5, embedding=embedding)
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
    null = output_mode_null(f, generator(), 19, "directions")
    own = read_sample(f.tensor.down, left, left)
    assert null.effective_rank.min() * 0.9 < own[0] < null.effective_rank.max() * 1.1


def test_the_scale_of_a_unit_does_not_matter_and_seeds_decide() -> None:
    f = random_map(6, 4, 8, 5)
    scale = torch.exp(randn(8, seed=9))
    g = QuadraticMap(
        BilinearTensor(f.tensor.down / scale, f.tensor.left * scale[:, None], f.tensor.right)
    )
    first, second = (output_mode_null(one, generator(2), 3) for one in (f, g))
    torch.testing.assert_close(first.top_share, second.top_share)
    assert not torch.equal(first.top_share, output_mode_null(f, generator(3), 3).top_share)
