"""Language models that are trained in a moment, in folders, broken off where a test wants it."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any

from bilens.data.text import TextCorpus
from bilens.data.tokenizer import Tokenizer
from bilens.train.job import TrainingRun
from bilens.train.language.corpus import CorpusDescription, CorpusOptions
from bilens.train.language.job import LanguageJob
from bilens.train.language.loop import LanguageMetrics
from bilens.train.language.recipe import LanguageRecipe
from bilens.train.language.tokens import CorpusTokens, tokenizer_of, tokens_of
from bilens.train.run_folder import TrainingResult, run_in_folder

OPTIONS = CorpusOptions("grammar", limit=150, held_out=0.2)
RECIPE = LanguageRecipe(
    d_model=8,
    d_hidden=12,
    n_layer=2,
    n_head=2,
    n_ctx=15,
    tokenizer="word",
    vocab_size=None,
    steps=14,  # 2 passes of 6 steps and 2 steps more
    batch_size=32,
    learning_rate=0.02,
    dropout=0.1,
    evaluations=4,  # lines of 3, 4, 3 and 4 steps
    precision="float32",
)


@cache
def corpus() -> TextCorpus:
    """A hundred stories."""
    return OPTIONS.load()


@cache
def tokenizer() -> Tokenizer:
    """Of their words."""
    return tokenizer_of(corpus(), RECIPE)


@cache
def tokens() -> CorpusTokens:
    """The stories as tokens."""
    return tokens_of(corpus(), tokenizer(), RECIPE.n_ctx)


def job(recipe: LanguageRecipe = RECIPE) -> LanguageJob:
    """A training."""
    about = CorpusDescription.of(OPTIONS, corpus())
    return LanguageJob(recipe, tokens(), tokenizer(), about)


def go(
    folder: Path, recipe: LanguageRecipe = RECIPE, **options: Any
) -> TrainingResult[LanguageMetrics]:
    """Train in a folder."""
    return run_in_folder(folder, job(recipe), **options)


def history(folder: Path) -> list[dict[str, Any]]:
    """The lines of the history, without what depends on the clock."""
    lines = (folder / "history.jsonl").read_text().splitlines()
    clock = {"seconds": None, "tokens_per_second": None}
    return [{**json.loads(line), **clock} for line in lines]


def trained(recipe: LanguageRecipe = RECIPE) -> TrainingRun[Any]:
    """A run at its end, without a folder."""
    training = job(recipe)
    run = training.start()
    for _ in training.train(run, lambda _run: None):
        pass
    return run


def changed(**fields: Any) -> LanguageRecipe:
    """The recipe with other values."""
    return dataclasses.replace(RECIPE, **fields)
