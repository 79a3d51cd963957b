"""The strongest pairs of tokens, beside every pair and output written out.

Broken once: without the halving of a token with itself the dense twin differs, and with a bound of
the mean instead of the longest row of the unembedding pairs are lost.
"""

import pytest
import torch

from bilens.algebra import token_pairs
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.token_pairs import strongest_pairs
from bilens.base.errors import ShapeError


def drawn(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("block", [1, 50, 1 << 22])
def test_they_are_the_largest_of_all_pairs_and_outputs(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(token_pairs, "BLOCK", block)
    tensor = BilinearTensor(drawn(5, 7, seed=0), drawn(7, 4, seed=1), drawn(7, 4, seed=2))
    embedding = drawn(12, 4, seed=3)
    unembedding = drawn(9, 5, seed=4)
    unembedding[8] *= 20  # the bound has to allow for the longest row
    dense = torch.einsum("yo,oh,hi,hj,ai,bj->aby", unembedding, tensor.down, tensor.left,
                         tensor.right, embedding, embedding)  # fmt: skip
    dense = dense + dense.transpose(0, 1)
    dense[range(12), range(12)] /= 2
    pulls, outputs = dense.max(dim=2)
    rows = [(float(pulls[a, b]), a, b, int(outputs[a, b])) for a in range(12) for b in range(a, 12)]
    rows.sort(reverse=True)
    found = strongest_pairs(tensor, embedding, unembedding, k=6)
    assert found.pulls.tolist() == pytest.approx([row[0] for row in rows[:6]])
    got = [(*pair, y) for pair, y in zip(found.pairs.tolist(), found.outputs.tolist(), strict=True)]
    assert got == [row[1:] for row in rows[:6]]
    assert 0 < found.read <= 1


def test_a_planted_pair_is_found_and_others_are_ruled_out() -> None:
    embedding, unembedding = torch.eye(60).double(), drawn(40, 8, seed=5)
    unembedding /= unembedding.norm(dim=1, keepdim=True)
    noise = 1e-3 * drawn(8, 3, seed=6)
    down = torch.cat([noise, 5 * unembedding[17][:, None]], dim=1)
    left = torch.cat([drawn(3, 60, seed=7), embedding[[3]]])
    right = torch.cat([drawn(3, 60, seed=8), embedding[[41]]])
    found = strongest_pairs(BilinearTensor(down, left, right), embedding, unembedding, k=1)
    assert found.pairs.tolist() == [[3, 41]]
    assert found.outputs.tolist() == [17]
    assert float(found.pulls[0]) == pytest.approx(5.0, abs=0.1)
    assert found.read < 0.5


def test_a_map_of_zeros_has_none_and_sizes_have_to_fit() -> None:
    tensor = BilinearTensor(torch.zeros(2, 3), torch.ones(3, 4), torch.ones(3, 4))
    assert strongest_pairs(tensor, torch.ones(5, 4), torch.ones(6, 2)).pulls.tolist() == []
    with pytest.raises(ShapeError, match="the layer reads 4 and writes 2"):
        strongest_pairs(tensor, torch.ones(5, 3), torch.ones(6, 2))
