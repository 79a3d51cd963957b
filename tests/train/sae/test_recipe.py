"""The recipe of sparse autoencoders: what it takes, what it refuses, and its JSON values.

Broken once: `warmup >= 1` turned into `> 1`; a run that never falls was accepted.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from bilens.base.errors import UsageError
from bilens.train.sae.recipe import SAERecipe

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a text as hooks": (
        {"hooks": "blocks.0.mlp_in"},
        "hooks is 'blocks.0.mlp_in'; expected one or",
    ),
    "no hooks": ({"hooks": ()}, r"hooks is \(\); expected one or more"),
    "a hook twice": ({"hooks": ("a", "b", "a")}, "one of them is given twice"),
    "no latents": ({"num_latents": 0}, "num_latents must be an integer of at least 2"),
    "k of a half": ({"k": 0.5}, "k must be an integer of at least 1, got 0.5"),
    "no tokens": ({"tokens": 0}, "tokens must be an integer of at least 1"),
    "a negative seed": ({"seed": -1}, "seed must be an integer of at least 0"),
    "a rate of zero": ({"learning_rate": 0.0}, "learning_rate must be above 0"),
    "an infinite rate": ({"learning_rate": float("inf")}, "learning_rate must be a finite number"),
    "a rate that is true": ({"learning_rate": True}, "learning_rate must be a finite number"),
    "all warm-up": ({"warmup": 1.0}, "warmup must be below 1, got 1.0"),
    "a negative weight": ({"auxiliary": -1}, "auxiliary must be a finite number of at least 0"),
    "another sign": ({"sign": "abs"}, "sign='abs' is not known: use one of relu, raw"),
    "another schedule": ({"schedule": "flat"}, "schedule='flat' is not known: use one of linear"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_recipe_that_makes_no_sense_is_refused(name: str) -> None:
    changes, message = BAD[name]
    with pytest.raises(UsageError, match=message):
        SAERecipe(**{"hooks": ("blocks.0.mlp_out",), **changes})


def test_it_survives_json() -> None:
    recipe = SAERecipe(hooks=("blocks.0.mlp_in", "blocks.0.mlp_out"), num_latents=64, sign="raw")
    assert SAERecipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_the_dictionary_is_four_times_the_width_unless_said() -> None:
    assert SAERecipe(hooks=("a",)).latents_for(128) == 512
    assert SAERecipe(hooks=("a",), num_latents=100).latents_for(128) == 100
