"""Language models that are trained in a moment, in folders, broken off where a test wants it."""

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any

from bilens.data.text import TextCorpus
from bilens.data.tokenizer import Tokenizer, train_tokenizer
from bilens.train.corpus import CorpusDescription, CorpusOptions, CorpusTokens, tokens_of
from bilens.train.loop import TrainingRun, train
from bilens.train.run_folder import TrainingResult, run_in_folder
from bilens.train.tasks.language import LanguageMetrics, LanguageRecipe, LanguageTask

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
    return train_tokenizer(corpus().documents, RECIPE.vocab_size, RECIPE.tokenizer)


@cache
def tokens() -> CorpusTokens:
    """The stories as tokens."""
    return tokens_of(corpus(), tokenizer(), RECIPE.n_ctx)


def task(recipe: LanguageRecipe = RECIPE) -> LanguageTask:
    """A training."""
    about = CorpusDescription.describe(OPTIONS, corpus())
    return LanguageTask(recipe, tokens(), tokenizer(), about)


def go(
    folder: Path, recipe: LanguageRecipe = RECIPE, **options: Any
) -> TrainingResult[LanguageMetrics]:
    """Train in a folder."""
    return run_in_folder(folder, task(recipe), **options)


def history(folder: Path) -> list[dict[str, Any]]:
    """The lines of the history, without what depends on the clock."""
    lines = (folder / "history.jsonl").read_text().splitlines()
    clock = {"seconds": None, "tokens_per_second": None}
    return [{**json.loads(line), **clock} for line in lines]


def trained(recipe: LanguageRecipe = RECIPE) -> TrainingRun[Any]:
    """A run at its end, without a folder."""
    training = task(recipe)
    run = training.start()
    for _ in train(run, training):
        pass
    return run


def changed(**fields: Any) -> LanguageRecipe:
    """The recipe with other values."""
    return dataclasses.replace(RECIPE, **fields)
