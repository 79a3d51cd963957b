"""Training a language model in a run folder, and opening the folder again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bilens.data.tokenizer import Tokenizer
from bilens.io.load import load
from bilens.io.model_folder import save
from bilens.nn.transformer import BilinearTransformer
from bilens.train.job import TrainingJob
from bilens.train.language.belongings import language_model, tokenizer_of
from bilens.train.language.corpus import CorpusDescription
from bilens.train.language.loop import LanguageMetrics, Run, num_lines, start_run, train
from bilens.train.language.recipe import CPU, LanguageRecipe
from bilens.train.language.tokens import Batches, CorpusTokens
from bilens.train.run_files import TOKENIZER_NAME


class LanguageJob(TrainingJob[BilinearTransformer, LanguageMetrics]):
    """A language model, from a recipe and a corpus with its tokenizer.

    Args:
        recipe: how to train.
        tokens: the corpus as tokens.
        tokenizer: what made them.
        corpus: what the corpus is.
        device: where to compute.

    Raises:
        UsageError: If the corpus holds less than one batch.
    """

    data_noun = "text"

    def __init__(
        self,
        recipe: LanguageRecipe,
        tokens: CorpusTokens,
        tokenizer: Tokenizer,
        corpus: CorpusDescription,
        device: torch.device = CPU,
    ) -> None:
        self.recipe, self.tokens, self.device = recipe.resolved(device), tokens, device
        self.tokenizer, self.corpus = tokenizer, corpus
        self.total_steps = Batches(tokens.train, recipe).total_steps
        self.epochs = num_lines(self.total_steps, recipe.evaluations)
        self.about = {"recipe": self.recipe.to_dict(), "data": tokens.fingerprint}

    def start(self) -> Run:
        """Return the run at its beginning."""
        return start_run(self.recipe, self.tokenizer.vocab_size, self.device)

    def train(self, run: Run, after_step: Callable[[Run], None]) -> Iterator[LanguageMetrics]:
        """Continue a run to its end."""
        return train(run, self.tokens, self.recipe, after_step)

    def line(self, content: dict[str, Any]) -> LanguageMetrics:
        """Return a line of the history from its JSON values."""
        return LanguageMetrics(**content)

    def save(self, run: Run, folder: Path, provenance: Mapping[str, str]) -> None:
        """Write tokenizer, description of the corpus, and the model folder."""
        self.tokenizer.save(folder / TOKENIZER_NAME)
        self.corpus.write(folder)
        details = {
            "recipe": json.dumps(self.recipe.to_dict()),
            "seed": str(self.recipe.seed),
            "data_name": self.corpus.name,
            "data_source": self.corpus.source,
            "data_sha256": self.corpus.fingerprint,
            "tokenizer_sha256": self.tokenizer.sha256,
        }
        save(run.model, folder, provenance={**details, **provenance}, overwrite=True)

    def current(self, run: Run) -> str:
        """Name the place where a run is."""
        return f"part {run.epoch + 1} of {self.epochs}"

    def reached(self, run: Run) -> str:
        """Name what a run has behind it."""
        return f"part {run.epoch} of {self.epochs}, step {run.step}"


@dataclass(frozen=True, eq=False)
class LanguageRun:
    """What a run folder of a language model holds.

    Attributes:
        folder: the folder.
        model: on the CPU, in evaluation mode.
        tokenizer: of the model.
        corpus: what the model was trained on; `corpus.load()` gives the documents again.
    """

    folder: Path
    model: BilinearTransformer
    tokenizer: Tokenizer
    corpus: CorpusDescription


def open_language_run(folder: Path) -> LanguageRun:
    """Return the model of a run folder, its tokenizer, and the description of its corpus.

    Raises:
        CheckpointError: If a file is missing, damaged, or the training has not finished.
        DataError: If the tokenizer is missing or damaged.
        UsageError: If the model is no language model, or the tokenizer does not fit it.
    """
    loaded = load(folder)
    model = language_model(loaded, "writing text")
    return LanguageRun(folder, model, tokenizer_of(loaded, model), CorpusDescription.read(folder))
