"""Every layer is fitted under what reaches it, and numbers that are none become null.

Broken once: data not run through the layers below; the second layer was fitted under the inputs.
"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import nn

import bilens as bl
import tiny
from bilens.api.fit_layers import finite, fit_layers_of
from bilens.base.errors import ShapeError, UsageError
from bilens.records.base import to_json
from builders import randn


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.SiLU(), nn.Linear(6, 2)
    ).double()


def test_data_run_through_the_layers_below() -> None:
    module, data = network(), randn(300, 5) + 1
    document = to_json(fit_layers_of(bl.from_module(module), data, samples=200, command="test"))
    json.dumps(document, allow_nan=False)
    assert [fit["name"] for fit in document["fits"]] == ["model", "0", "2"]
    with torch.no_grad():
        reached = module[:2](data)
        y = module(data)
    last = document["fits"][2]
    fit = bl.quadratic_fit(bl.from_module(module).layers["2"], data=reached, samples=200)
    assert fit.on_data is not None
    assert last["on_data"]["quadratic"]["value"] == pytest.approx(fit.on_data.quadratic.overall)
    assert last["on_data"]["rows"] == 300
    assert last["activation"] == "silu"
    rest = y - bl.quadratic_fit(module, data=data, samples=200).quadratic_map(data)
    overall = 1 - float(rest.square().sum() / (y - y.mean(dim=0)).square().sum())
    assert document["fits"][0]["on_data"]["quadratic"]["value"] == pytest.approx(overall)


def test_without_data_each_input_is_standard_normal() -> None:
    model = tiny.loaded(tiny.classifier(gate="gelu", n_layers=2))
    fits = fit_layers_of(model, samples=200).fits
    assert [fit.name for fit in fits] == ["model", "layers.0", "layers.1"]
    assert {fit.assumed_input for fit in fits} == {"a standard normal input"}
    assert all(fit.on_data is None and fit.least_squares is None for fit in fits)
    (one,) = fit_layers_of(model, layers=["layers.1"], samples=200).fits
    assert one == fits[2]


class Parallel(nn.Module):
    """Two MLPs that are not one behind the other."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 4))
        self.b = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 4))
        self.norm = nn.LayerNorm(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.b(self.norm(self.a(x)))
        return y


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a layer": ({"layers": ["c"]}, UsageError, "has the layers a, b; got 'c'"),
    "data of both": ({"data": randn(9, 4)}, UsageError, "2 layers that are not one behind"),
    "another width": ({"data": randn(9, 3), "layers": ["a"]}, ShapeError, "reads 4 inputs"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused(name: str) -> None:
    options, error, words = BAD[name]
    with pytest.raises(error, match=words):
        fit_layers_of(bl.from_module(Parallel()), **{"data": None, **options})


def test_data_of_one_layer_that_is_named_are_its_own() -> None:
    model, data = bl.from_module(Parallel()), randn(50, 4)
    (fit,) = fit_layers_of(model, data, layers=["b"], samples=200).fits
    assert fit.on_data is not None
    assert fit.on_data.rows == 50


def test_a_number_that_is_none_is_null() -> None:
    assert (finite(1.5), finite(-math.inf)) == (1.5, None)
