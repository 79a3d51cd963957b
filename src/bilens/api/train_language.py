"""Training a language model: from a corpus to a run folder with model, tokenizer and loss curve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bilens.api.provenance import this_command, versions
from bilens.base.atomic import write_file
from bilens.data.tokenizer import Tokenizer, train_tokenizer
from bilens.nn.transformer import BilinearTransformer
from bilens.report.charts.training import loss_figure
from bilens.train.corpus import (
    CorpusDescription,
    CorpusOptions,
    CorpusTokens,
    tokens_of,
)
from bilens.train.device import Device, find_device
from bilens.train.model_bundle import open_model_bundle
from bilens.train.run_files import CURVE_NAME
from bilens.train.run_folder import run_in_folder
from bilens.train.tasks.language import LanguageMetrics, LanguageRecipe, LanguageTask

SAMPLE_TOKENS = 160
SAMPLE_TEMPERATURE, SAMPLE_TOP_K = 0.7, 40


@dataclass(frozen=True, eq=False)
class LanguageTraining:
    """A finished run of a language model.

    Attributes:
        folder: where it is.
        history: the metrics of every line.
        tokens: what it was trained and judged on.
        source: where these come from, one sentence.
        num_weights: of the model.
        sample: a text that the model wrote.
    """

    folder: Path
    history: tuple[LanguageMetrics, ...]
    tokens: CorpusTokens
    source: str
    num_weights: int
    sample: str

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        last = self.history[-1]
        return {
            "schema_version": 1,
            "kind": "language training",
            "folder": str(self.folder),
            "corpus": self.source,
            "num_weights": self.num_weights,
            **last.to_dict(),
            "held_out_bits_per_character": self.tokens.bits_per_character(last.held_out_loss),
            "best_held_out_loss": min(line.held_out_loss for line in self.history),
            "total_seconds": sum(line.seconds for line in self.history),
            "sample": self.sample,
        }


def train_language(
    folder: Path,
    corpus: CorpusOptions,
    recipe: LanguageRecipe,
    *,
    resume: bool = False,
    overwrite: bool = False,
    device: Device = "auto",
    on_line: Callable[[LanguageMetrics, int], None] = lambda _line, _lines: None,
    say: Callable[[str], None] = lambda _text: None,
) -> LanguageTraining:
    """Train a language model and leave it in a run folder.

    Args:
        folder: gets the model folder, `tokenizer.json`, `corpus.json`, `history.jsonl` and
            `loss.svg`.
        corpus: which documents.
        recipe: how to train.
        resume: as in `run_in_folder`.
        overwrite: as in `run_in_folder`.
        device: where to compute: "cpu", "cuda", or "auto" for a GPU where there is one.
        on_line: called after each measurement of the held-out loss, with the number of all.
        say: told what a person should know.

    Raises:
        UsageError: If there is no such device.
        DataError: If the corpus is missing, damaged, or too small for tokenizer or context.
        BilensError: As in `run_in_folder`.
    """
    place = find_device(device)
    text = corpus.load(report=say)
    tokenizer = train_tokenizer(text.documents, recipe.vocab_size, recipe.tokenizer)
    tokens = tokens_of(text, tokenizer, recipe.n_ctx)
    job = LanguageTask(recipe, tokens, tokenizer, CorpusDescription.of(corpus, text), place)
    say(
        f"{len(tokens.train):,} tokens to train on, {len(tokens.held_out):,} held out, "
        f"{tokenizer.vocab_size:,} in the vocabulary; {job.total_steps:,} steps."
    )
    result = run_in_folder(
        folder,
        job,
        resume=resume,
        overwrite=overwrite,
        provenance={"command": this_command(), **versions()},
        on_epoch=lambda line: on_line(line, job.epochs),
        say=say,
    )
    losses = [(line.step, line.train_loss, line.held_out_loss) for line in result.history]
    write_file(folder / CURVE_NAME, loss_figure(losses).encode())
    run = open_model_bundle(folder)
    sample = sample_text(run.model, run.tokenizer, recipe.seed)
    num_weights = sum(weight.numel() for weight in run.model.parameters())
    return LanguageTraining(folder, result.history, tokens, text.source, num_weights, sample)


def sample_text(model: BilinearTransformer, tokenizer: Tokenizer, seed: int) -> str:
    """Return a text that the model writes, from the beginning of a document to its end."""
    start = torch.tensor([[tokenizer.end_of_text]])
    written = model.generate(
        start,
        min(SAMPLE_TOKENS, model.config.n_ctx - 1),
        temperature=SAMPLE_TEMPERATURE,
        top_k=SAMPLE_TOP_K,
        generator=torch.Generator().manual_seed(seed),
        end_token=tokenizer.end_of_text,
    )
    ids = written[0, 1:].tolist()
    if tokenizer.end_of_text in ids:
        ids = ids[: ids.index(tokenizer.end_of_text)]
    return tokenizer.decode(ids).strip()
