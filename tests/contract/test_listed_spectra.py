"""Guards against a spectrum that lists other eigenvalues than were asked for, or another null.

Damage that it notices: `which` passed over where whole spectra are computed; effective ranks in the
whitened basis beside chance in the basis of the inputs.
"""

from typing import Any

import numpy as np
import pytest
import torch

from bilens.api.layer_decomposition import decompose_layers
from bilens.api.layer_reading import Request, moments_of
from bilens.data.model_interface import LabelledData
from bilens.io.loaded_model import LoadedModel
from bilens.records.common import DataOrigin
from contract.compared_models import generator_of, images, quadratic_parts
from contract.table import cell

TOP = 3


def chosen(values: np.ndarray, which: str) -> list[float]:
    """Which eigenvalues are listed, as numpy orders them."""
    rising = sorted(values.tolist())
    return {
        "magnitude": sorted(rising, key=abs, reverse=True)[:TOP],
        "largest": rising[::-1][:TOP],
        "smallest": rising[:TOP],
        "both": rising[::-1][: (TOP + 1) // 2] + rising[: TOP // 2],
    }[which]


@cell("decompose", "own object", "other function")
@pytest.mark.parametrize("spectrum", ["whole", "top"])
@pytest.mark.parametrize("which", ["magnitude", "largest", "smallest", "both"])
def test_the_eigenvalues_that_were_asked_for_are_listed(which: Any, spectrum: Any) -> None:
    model = images(1)
    (record,) = decompose_layers(model, Request(top=TOP, which=which, spectrum=spectrum))
    assert record["which"] == which
    for output, matrix in zip(record["outputs"], quadratic_parts(model), strict=True):
        listed = [pair["eigenvalue"] for pair in output["pairs"]]
        expected = chosen(np.linalg.eigvalsh(matrix), which)
        assert sorted(listed) == pytest.approx(sorted(expected), abs=1e-9)


def stretched(seed: int, change: torch.Tensor) -> tuple[LoadedModel, LabelledData]:
    """The same classifier of inputs written otherwise, x as x · change, and such inputs."""
    model = images(seed, input_shape=None)
    with torch.no_grad():
        embed = model.module.embed.weight  # type: ignore[union-attr]
        embed.copy_(embed @ torch.linalg.inv(change).T)
    x = torch.randn(200, 6, generator=generator_of(seed), dtype=torch.float64) @ change
    about = DataOrigin("d", "d", "arrays", len(x), "")
    return model, LabelledData(x, torch.arange(len(x)) % 3, about)


@cell("decompose", "other units", "same function")
@pytest.mark.parametrize("kind", ["units", "a mixture"])
def test_a_whitened_spectrum_and_its_null_know_no_units(kind: str) -> None:
    """Whitened inputs are the same in all units, and so is all that is said of them."""
    change = torch.diag(torch.tensor([100.0, 1, 0.01, 3, 1, 1]).double())
    if kind == "a mixture":
        change = torch.eye(6).double() + torch.rand(6, 6, generator=generator_of(1)).double()
    found = []
    for how in (torch.eye(6).double(), change):
        model, data = stretched(2, how)
        request = Request(top=TOP, basis="whitened", spectrum="whole", null_samples=39)
        (record,) = decompose_layers(model, request, inputs=moments_of(data, model))
        found.append(record["outputs"])
    for one, other in zip(*found, strict=True):
        assert one["effective_rank"] == pytest.approx(other["effective_rank"], rel=1e-6)
        for end, value in one["effective_rank_null"].items():
            assert other["effective_rank_null"][end] == pytest.approx(value, rel=0.05), end
        for mine, theirs in zip(one["pairs"], other["pairs"], strict=True):
            assert mine["eigenvalue"] == pytest.approx(theirs["eigenvalue"], rel=1e-6)
