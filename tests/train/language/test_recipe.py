"""The recipe of a language model: what it refuses, and that it survives JSON.

Broken once: `steps` left out of the checks; zero steps were accepted.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

import language_runs
from bilens.base.errors import UsageError
from bilens.train.language.recipe import (
    GRAMMAR_RECIPE,
    TEXT_RECIPE,
    LanguageRecipe,
    default_recipe,
)

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"d_model": 0}, "d_model must be"),
    ({"n_ctx": 1}, "n_ctx must be"),
    ({"steps": 0}, "steps must be"),
    ({"batch_size": 1.5}, "batch_size must be"),
    ({"seed": -1}, "seed must be"),
    ({"epochs": 0}, "epochs must be above 0"),
    ({"learning_rate": float("nan")}, "learning_rate must be a finite number"),
    ({"learning_rate": 0.0}, "learning_rate must be above 0"),
    ({"clip": 0}, "clip must be above 0"),
    ({"weight_decay": -0.1}, "weight_decay must be a finite number"),
    ({"dropout": 1.0}, "dropout must be below 1"),
    ({"warmup": 1.0}, "warmup must be below 1"),
    ({"tied": 1}, "tied must be True or False"),
    ({"gate": "swish"}, "gate='swish' is not known: use one of None, relu, gelu, silu"),
    ({"mlp_type": "wide"}, "mlp_type='wide' is not known"),
    ({"tokenizer": "bpe"}, "tokenizer='bpe' is not known: use one of byte-bpe"),
    ({"schedule": "step"}, "schedule='step' is not known"),
    ({"precision": "float16"}, "precision='float16' is not known"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG)
def test_what_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LanguageRecipe(**fields)


@pytest.mark.parametrize("recipe", [TEXT_RECIPE, GRAMMAR_RECIPE, language_runs.RECIPE])
def test_a_recipe_survives_json(recipe: LanguageRecipe) -> None:
    assert LanguageRecipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_whole_numbers_and_fractions_that_are_equal_are_the_same_recipe() -> None:
    """Else a run with --epochs 2 could not be resumed with --epochs 2.0."""
    assert json.dumps(LanguageRecipe(epochs=2).to_dict()) == json.dumps(
        LanguageRecipe(epochs=2.0).to_dict()
    )


def test_auto_is_resolved_to_what_this_machine_does() -> None:
    assert LanguageRecipe().resolved().precision in ("float32", "bfloat16")
    assert LanguageRecipe(precision="float32").resolved().precision == "float32"


def test_the_grammar_has_a_recipe_of_its_own() -> None:
    assert default_recipe("grammar") is GRAMMAR_RECIPE
    assert default_recipe("stories.txt") is TEXT_RECIPE
