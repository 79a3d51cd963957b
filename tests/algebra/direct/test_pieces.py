"""Every entry above the diagonal comes exactly once, under its own key.

Broken once: `triu(1 + rows.start)` -> `triu(1)`; strips below the first row brought the diagonal.
"""

from __future__ import annotations

import pytest
import torch

import oracles
from bilens.algebra.direct import pieces
from bilens.algebra.direct.feature_factors import FeatureFactors
from bilens.algebra.direct.pieces import cross_pieces, num_blocks, self_values
from builders import D_OUT, randn, random_map

NUM = 7
F = random_map()
DICTIONARY = randn(5, NUM, seed=9)
FORM = F.form(torch.ones(D_OUT, dtype=torch.float64))
EXPECTED = oracles.feature_interactions(
    F.tensor.down, F.tensor.left, F.tensor.right, torch.ones(D_OUT).double(), DICTIONARY
)


@pytest.mark.parametrize("strip", [1, 4, 2**17])
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("block", [1, 2, 3, 6, 7, 100])
def test_the_pieces_make_up_the_upper_triangle(
    block: int, keep: bool, strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "STRIP", strip)
    factors = FeatureFactors.of(F, DICTIONARY, block=block, keep=keep)
    weight, unit = factors.balanced(FORM.matrix.weight)
    seen, num = {}, 0
    for block_pieces in cross_pieces(factors, weight, block):
        num += 1
        for piece in block_pieces:
            keys = piece.locate(torch.arange(len(piece.values))).tolist()
            assert seen.keys().isdisjoint(keys)
            seen.update(zip(keys, (piece.values * unit).tolist(), strict=True))
    assert num == num_blocks(NUM, block)
    assert sorted(seen) == [m * NUM + n for m in range(NUM) for n in range(m + 1, NUM)]
    for key, value in seen.items():
        assert value == pytest.approx(float(EXPECTED[key // NUM, key % NUM]), abs=1e-12)
    diagonal = self_values(factors, weight, block) * unit
    torch.testing.assert_close(diagonal, EXPECTED.diagonal())


def test_float32_rows_give_float64_pieces() -> None:
    factors = FeatureFactors.of(F, DICTIONARY, precision=torch.float32, keep=True)
    assert factors.rows(slice(0, 2)).dtype == torch.float32
    weight, unit = factors.balanced(FORM.matrix.weight)
    ((piece, *_),) = cross_pieces(factors, weight, 10)
    assert piece.values.dtype == torch.float64
    above = EXPECTED[torch.ones(NUM, NUM, dtype=torch.bool).triu(1)]
    torch.testing.assert_close(piece.values * unit, above, rtol=1e-5, atol=1e-5)
