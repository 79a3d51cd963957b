"""Tokens of a direction against the products that define them.

Broken once: the centring of the effects dropped; what all tokens share ranked the tokens' sizes.
"""

from __future__ import annotations

import pytest
import torch

from bilens.algebra.eigen.eigendecompose import eigendecompose, eigendecompose_all
from bilens.base.errors import ShapeError, UsageError
from bilens.interp.token_reading import eigenvector_tokens, output_tokens
from builders import D_IN, form_from_pairs, randn, random_map, vector


def test_effects_are_centred_logits() -> None:
    unembed, direction = randn(7, 4), randn(4, seed=1)
    found = output_tokens(direction, unembed, num=7)
    effects = unembed @ direction
    effects = effects - effects.mean()
    assert [score.token for score in found.promoted] == effects.argsort(descending=True).tolist()
    assert [score.token for score in found.suppressed] == effects.argsort().tolist()
    assert found.promoted[0].value == pytest.approx(float(effects.max()))
    assert "RMSNorm" in found.norm


def test_an_eigenvector_reads_the_tokens_along_it_and_against_it() -> None:
    embed = torch.eye(D_IN).double()
    embed = torch.cat([embed, -embed]) + 10  # what all tokens share says nothing
    form = form_from_pairs(vector(2.0), torch.eye(D_IN).double()[3:4])
    (found,) = eigenvector_tokens(eigendecompose(form, k=1), embed, num=1)
    assert found.eigenvalue == pytest.approx(2.0)
    assert (found.positive[0].token, found.negative[0].token) == (3, 3 + D_IN)
    assert found.positive[0].value == pytest.approx(1.0)


def test_more_tokens_than_there_are_gives_all_of_them() -> None:
    assert len(output_tokens(randn(4), randn(3, 4), num=10).promoted) == 3


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="direction has 3 entries"):
        output_tokens(randn(3), randn(7, 4))
    with pytest.raises(UsageError, match="num"):
        output_tokens(randn(4), randn(7, 4), num=0)
    batch = eigendecompose_all(random_map(), k=2)
    with pytest.raises(ShapeError, match="works on one form"):
        eigenvector_tokens(batch, randn(7, D_IN))
    with pytest.raises(ShapeError, match="an eigenvector has 5 entries"):
        eigenvector_tokens(batch[0], randn(7, D_IN + 1))
