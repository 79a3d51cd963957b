"""Training jobs: from a corpus, or a language model and a corpus, to a run folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bilens.api.provenance import this_command, versions
from bilens.base import silent
from bilens.base.files import write_file
from bilens.data.tokenizer import Tokenizer, pack_documents, train_tokenizer
from bilens.io.load import load
from bilens.nn.transformer import BilinearTransformer
from bilens.report.charts.curves import loss_figure
from bilens.train.activations import SAEMetrics
from bilens.train.corpus import (
    CorpusDescription,
    CorpusOptions,
    CorpusTokens,
    language_model,
    open_model_bundle,
    text_of,
    tokenizer_of,
    tokens_of,
)
from bilens.train.recipe import Device, find_device
from bilens.train.run_folder import CURVE_NAME, run_in_folder
from bilens.train.tasks.language import LanguageMetrics, LanguageRecipe, LanguageTask
from bilens.train.tasks.sae import ReadModel, SAELine, SAERecipe, SAETask

SAMPLE_TOKENS = 160
MEASURED_TOKENS = 65_536  # of the held-out texts, at most
SAMPLE_TEMPERATURE, SAMPLE_TOP_K = 0.7, 40


@dataclass(frozen=True, eq=False)
class LanguageTraining:
    folder: Path
    history: tuple[LanguageMetrics, ...]
    tokens: CorpusTokens
    source: str
    num_weights: int
    sample: str

    def to_dict(self) -> dict[str, Any]:
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
    say: Callable[[str], None] = silent,
) -> LanguageTraining:
    """Train a language model and leave it in a run folder."""
    chosen_device = find_device(device)
    text = corpus.load(report=say)
    tokenizer = train_tokenizer(text.documents, recipe.vocab_size, recipe.tokenizer)
    tokens = tokens_of(text, tokenizer, recipe.n_ctx)
    job = LanguageTask(recipe, tokens, tokenizer, CorpusDescription.of(corpus, text), chosen_device)
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


@dataclass(frozen=True, eq=False)
class SAETraining:
    folders: dict[str, Path]
    history: tuple[SAELine, ...]
    metrics: dict[str, SAEMetrics]

    def to_dict(self) -> dict[str, Any]:
        last = self.history[-1]
        return {
            "schema_version": 1,
            "kind": "sae training",
            "step": last.step,
            "tokens": last.tokens,
            "seconds": sum(line.seconds for line in self.history),
            "saes": [
                {
                    "folder": str(self.folders[hook]),
                    "dead_in_training": last.dead[hook],
                    **metrics.to_dict(),
                }
                for hook, metrics in self.metrics.items()
            ],
        }


def train_sae(
    folder: Path,
    model: Path,
    recipe: SAERecipe,
    *,
    corpus: CorpusOptions | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: Device = "auto",
    on_line: Callable[[SAELine, int], None] = lambda _line, _lines: None,
    say: Callable[[str], None] = silent,
) -> SAETraining:
    """Train sparse autoencoders on a language model and leave them in a run folder."""
    chosen_device = find_device(device)
    read = read_model(model, corpus, say)
    read.model.to(chosen_device)
    job = SAETask(recipe, read)
    say(
        f"{recipe.latents_for(read.model.config.d_model):,} latents, {recipe.k} an input; "
        f"{job.epochs} buffers of {job.activations.rows:,} activations."
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
    folders = {hook: job.folder_of(hook, folder) for hook in recipe.hooks}
    return SAETraining(folders, result.history, job.measured(folder))


def read_model(folder: Path, corpus: CorpusOptions | None, say: Callable[[str], None]) -> ReadModel:
    """Return a language model and the texts that it reads while its activations are learnt."""
    loaded = load(folder)
    module = language_model(loaded, "a sparse autoencoder's training")
    tokenizer, text = tokenizer_of(loaded, module), text_of(loaded, corpus, say)
    n_ctx = module.config.n_ctx
    texts, held_out = (
        pack_documents(tokenizer, documents, n_ctx).tokens
        for documents in (text.documents, text.held_out)
    )
    say(f"{texts.numel():,} tokens to train on, {held_out.numel():,} held out.")
    return ReadModel(
        model=module,
        source=loaded.source,
        weights_sha256=loaded.weights_sha256,
        texts=texts,
        held_out=held_out[: max(1, MEASURED_TOKENS // n_ctx)],
        corpus=text.source,
    )
