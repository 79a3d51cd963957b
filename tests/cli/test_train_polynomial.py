"""Guards the training of polynomial language models: all that the usual training has, or a refusal.

Damage that was seen red: dropout of the embedding alone, `pairs` that is lost, a resumed run that
takes another model for its own.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import bilens as bl
import language_runs
import runs
import tiny
from bilens.base.errors import UsageError
from bilens.nn import PolynomialTransformer
from bilens.train.corpus import open_model_bundle
from bilens.train.recipes import LanguageRecipe
from commands import USAGE, Shell, assert_one_line

POLYNOMIAL = language_runs.changed(polynomial=True)
SMALL = [
    *("--corpus", "grammar", "--limit", 150, "--held-out", 0.2, "--model-width", 8, "--hidden", 12),
    *("--heads", 2, "--context-length", 15, "--steps", 6, "--evaluations", 3, "--batch-size", 32),
    "--polynomial",
]


def test_it_learns_and_equal_seeds_give_equal_bits() -> None:
    first, second = language_runs.trained(POLYNOMIAL), language_runs.trained(POLYNOMIAL)
    assert isinstance(first.model, PolynomialTransformer)
    assert first.model.config.pairs == 1
    assert first.model.config.decay
    assert tiny.same_weights(first.model, second.model)
    texts = language_runs.tokens().train[:160].view(10, 16)
    started = language_runs.task(POLYNOMIAL).start().model
    with torch.no_grad():
        losses = [float(model.next_token_loss(texts)) for model in (first.model, started)]
    assert losses[0] < 0.8 * losses[1]


OPTIONS: dict[str, dict[str, Any]] = {
    "pairs": {"pairs": 2},
    "order_penalty": {"order_penalty": 1.0},
    "steps": {"steps": 13},
    "learning_rate": {"learning_rate": 0.01},
    "warmup": {"warmup": 0.5},
    "weight_decay": {"weight_decay": 0.5},
    "clip": {"clip": 0.01},
    "dropout": {"dropout": 0.2},
    "precision": {"precision": "bfloat16"},
    "seed": {"seed": 1},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_changes_the_weights(name: str) -> None:
    other = language_runs.changed(polynomial=True, **OPTIONS[name])
    changed = language_runs.trained(other).model.state_dict()
    usual = language_runs.trained(POLYNOMIAL).model.state_dict()
    assert changed.keys() != usual.keys() or any(
        not torch.equal(changed[key], usual[key]) for key in usual
    )


def test_dropout_acts_on_the_embedding_and_on_what_blocks_add() -> None:
    task = language_runs.task(POLYNOMIAL)
    run = task.start()
    with task.disturbed(run):
        hooked = {name for name, part in run.model.named_modules() if part._forward_hooks}
    kinds = ("attention", "mlp")
    assert hooked == {"embed", *(f"blocks.{at}.{kind}" for at in range(2) for kind in kinds)}


def test_parts_of_a_batch_add_up_to_the_same() -> None:
    recipe = language_runs.changed(polynomial=True, dropout=0.0, order_penalty=0.2)
    whole, task = language_runs.trained(recipe), language_runs.task(recipe)
    task.texts_at_once = 5
    run = task.start()
    for _ in language_runs.train(run, task):
        pass
    for name, value in run.model.state_dict().items():
        torch.testing.assert_close(value, whole.model.state_dict()[name], rtol=1e-2, atol=1e-4)


REFUSED: dict[str, dict[str, Any]] = {
    "a gate": {"gate": "silu"},
    "a tied head": {"tied": True},
    "ordinary MLPs": {"mlp_type": "ordinary"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_polynomial_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(REFUSED[name]))}=.* is not of a polynomial"):
        LanguageRecipe(polynomial=True, **REFUSED[name])


def test_pairs_are_one_or_two_and_of_a_polynomial_model(bilens: Shell, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected 1 or 2 pairs"):
        LanguageRecipe(polynomial=True, pairs=3)
    with pytest.raises(UsageError, match=r"pairs.*: only with polynomial"):
        bl.train_language("grammar", tmp_path / "run", pairs=2)
    line = ["--quiet", "train", "language", *SMALL[:-1], "--pairs", 1, "--out", tmp_path / "run"]
    assert_one_line(bilens(*line), USAGE, ["--pairs): only with polynomial"])
    line = ["--quiet", "train", "language", *SMALL, "--gate", "relu", "--out", tmp_path / "run"]
    assert_one_line(bilens(*line), USAGE, ["gate='relu' is not of a polynomial model"])


def test_a_recipe_without_it_is_written_as_before() -> None:
    """A run that was begun before there were polynomial models is resumed."""
    usual, polynomial = LanguageRecipe(), LanguageRecipe(polynomial=True, pairs=2)
    assert not {"polynomial", "pairs", "order_penalty"} & usual.to_dict().keys()
    assert LanguageRecipe.from_dict(usual.to_dict()) == usual
    assert LanguageRecipe.from_dict(polynomial.to_dict()) == polynomial


def test_a_run_is_resumed_writes_and_is_read(bilens: Shell, tmp_path: Path) -> None:
    line = ["--quiet", "train", "language", *SMALL, "--pairs", 2, "--out"]
    with runs.interrupted_after(3):
        assert bilens(*line, tmp_path / "run").code == 130
    other = ["--quiet", "train", "language", *SMALL[:-1], "--out"]
    refused = bilens(*other, tmp_path / "run", "--resume")
    assert_one_line(refused, USAGE, ["was started with polynomial=True, pairs=2"])
    done = bilens(*line, tmp_path / "run", "--resume", "--json").json()
    assert done["sample"] == bilens(*line, tmp_path / "whole", "--json").json()["sample"]
    first, second = (open_model_bundle(tmp_path / name).model for name in ("run", "whole"))
    assert tiny.same_weights(first, second)
    loaded = bl.load(tmp_path / "run")
    network = bl.polynomial_network(loaded)
    assert network.checked_against == "the module itself, as it runs"
    recipe = json.loads(loaded.provenance["recipe"])
    assert (recipe["polynomial"], recipe["pairs"], recipe["dropout"]) == (True, 2, 0.0)
    folder = tmp_path / "run"
    for words in (
        ["trace", folder, "--layer", 0],
        ["train", "sae", folder, "--hook", "blocks.0.mlp_in", "--out", tmp_path / "sae"],
    ):
        assert_one_line(bilens("--quiet", *words), USAGE, ["holds a PolynomialTransformer"])
    assert "exactly quadratic" in bilens("--quiet", "audit", folder).out


def test_a_reading_names_tokens_by_the_tokenizer_beside_the_model(
    bilens: Shell, tmp_path: Path
) -> None:
    folder, other = tmp_path / "run", tmp_path / "other.json"
    bilens("--quiet", "train", "language", *SMALL, "--out", folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    words = content["model"]["vocab"]
    few = ["--farthest", 1, "--samples", 19]
    read = bilens("--quiet", "read", folder, *few, "--json").json()
    assert {one["tokens"][0].strip() for one in read["single"]} <= {*words}
    # another one of the same size would name each token by another's word
    content["model"]["vocab"] = dict(zip(words, [*[*words.values()][1:], 0], strict=True))
    other.write_text(json.dumps(content))
    refused = bilens("--quiet", "read", folder, "--tokens", other, *few)
    assert_one_line(refused, USAGE, ["not the one that the model was trained with"])
