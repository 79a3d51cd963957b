"""Mean and covariance in blocks are those of all inputs at once.

Broken once: the last, smaller block left out; the mean of 10 inputs in blocks of 4 was wrong.
"""

from __future__ import annotations

import pytest
import torch

from bilens.data import moments
from bilens.data.moments import mean_and_covariance
from builders import randn


@pytest.mark.parametrize("rows", [1, 4, 10, 4096])
def test_moments_do_not_depend_on_the_blocks(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "ROWS", rows)
    inputs = (randn(10, 3) + torch.tensor([0.0, 5.0, 0.0], dtype=torch.float64)).float()
    inputs[:, 2] = 0.25
    mean, covariance = mean_and_covariance(inputs)
    torch.testing.assert_close(mean, inputs.double().mean(dim=0), rtol=1e-12, atol=0)
    expected = torch.cov(inputs.double().T, correction=0)
    torch.testing.assert_close(covariance, expected, rtol=1e-12, atol=1e-15)
    assert covariance[2].tolist() == [0.0] * 3  # what is constant does not vary
