"""The recipe: refused with a sentence where it makes no sense, equal after a trip through JSON.

Broken once: the check of `dropout` from above dropped; a dropout of 1 came through.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from bilens.base.errors import UsageError
from bilens.train.recipe import Recipe

SIZES = ("d_hidden", "n_layers", "epochs", "batch_size")
AMOUNTS = ("weight_decay", "noise", "model_noise", "dropout", "learning_rate")
UNUSUAL = Recipe(
    d_hidden=7,
    n_layers=2,
    bias=True,
    residual=True,
    gate="silu",
    epochs=5,
    batch_size=3,
    learning_rate=0.25,
    weight_decay=0.0,
    noise=0.125,
    model_noise=0.5,
    dropout=0.75,
    augmentations=("blur:0.5", "correlated-noise:0.3:4"),
    seed=9,
    precision="bfloat16",
)


def test_the_defaults_are_those_of_the_paper() -> None:
    """App. C of 2410.08417: AdamW 1e-3, weight decay 1, batch 2048, input noise 0.5, no bias."""
    recipe = Recipe()
    assert (recipe.learning_rate, recipe.weight_decay, recipe.batch_size) == (1e-3, 1.0, 2048)
    assert (recipe.noise, recipe.n_layers, recipe.bias, recipe.residual) == (0.5, 1, False, False)
    assert (recipe.gate, recipe.model_noise, recipe.dropout) == (None, 0.0, 0.0)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", [0, -1, 2.0, True, "3", None])
def test_a_size_is_a_positive_whole_number(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{name} must be an integer of at least 1, got "):
        Recipe(**{name: value})


def test_integers_of_numpy_can_be_written_as_json() -> None:
    recipe = Recipe(**{name: np.int64(3) for name in (*SIZES, "seed")})
    assert json.loads(json.dumps(recipe.to_dict()))["seed"] == 3


@pytest.mark.parametrize("value", [-1, 0.5, None])
def test_a_seed_is_a_whole_number_from_0(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^seed must be an integer of at least 0, got "):
        Recipe(seed=value)


@pytest.mark.parametrize("name", AMOUNTS)
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "0.1", None, True])
def test_an_amount_is_a_finite_number_from_0(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{name} must be a finite number of at least 0, got "):
        Recipe(**{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, r"^learning_rate must be above 0"),
        ({"dropout": 1.0}, r"^dropout must be below 1, got 1\.0"),
        ({"precision": "float16"}, r"^precision='float16' .*auto, float32, bfloat16"),
        ({"gate": "tanh"}, r"^gate='tanh' is not known: use one of None, relu, gelu, silu"),
        ({"bias": "no"}, r"^bias must be True or False, got 'no'"),
        ({"residual": 1}, r"^residual must be True or False, got 1"),
        ({"augmentations": ("spin:3",)}, r"^'spin:3' is not a known augmentation"),
        ({"augmentations": ("rotation:x",)}, r"^'rotation:x' cannot be read"),
        ({"augmentations": ("rotation:181",)}, r"^'rotation:181': max_degrees must be"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Recipe(**options)


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().seed = 1  # type: ignore[misc]


def test_no_field_of_the_unusual_recipe_has_its_default() -> None:
    """Else the round trip below would prove nothing about that field."""
    default = Recipe()
    for field in dataclasses.fields(Recipe):
        assert getattr(UNUSUAL, field.name) != getattr(default, field.name), field.name


@pytest.mark.parametrize("recipe", [Recipe(), UNUSUAL])
def test_a_recipe_comes_back_from_json_as_it_was(recipe: Recipe) -> None:
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "bfloat16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bfloat16"),
        ({"avx512_bf16": False, "avx2": True}, "float32"),
        ({}, "float32"),
    ],
)
def test_auto_is_bfloat16_where_the_processor_multiplies_it(
    capabilities: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    recipe = Recipe(seed=3).resolved()
    assert recipe.precision == expected
    assert dataclasses.replace(recipe, precision="auto") == Recipe(seed=3)


def test_auto_is_float32_where_torch_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert Recipe().resolved().precision == "float32"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_precision_that_is_given_stays(precision: Any) -> None:
    recipe = Recipe(precision=precision)
    assert recipe.resolved() is recipe
