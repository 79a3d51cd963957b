"""Training sparse autoencoders: from a language model and a corpus to a run folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bilens.api.provenance import this_command, versions
from bilens.data.token_blocks import pack_documents
from bilens.io.load import load
from bilens.train.corpus import CorpusOptions
from bilens.train.device import Device, find_device
from bilens.train.model_bundle import language_model, text_of, tokenizer_of
from bilens.train.run_folder import run_in_folder
from bilens.train.sae_metrics import SAEMetrics
from bilens.train.tasks.sae import ReadModel, SAELine, SAERecipe, SAETask

MEASURED_TOKENS = 65_536  # of the held-out texts, at most


@dataclass(frozen=True, eq=False)
class SAETraining:
    """A finished run of sparse autoencoders.

    Attributes:
        folders: hook point → model folder.
        history: a line a buffer.
        metrics: hook point → metrics on held-out texts.
    """

    folders: dict[str, Path]
    history: tuple[SAELine, ...]
    metrics: dict[str, SAEMetrics]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
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
    say: Callable[[str], None] = lambda _text: None,
) -> SAETraining:
    """Train sparse autoencoders on a language model and leave them in a run folder.

    Args:
        folder: gets one model folder a hook point (itself, if there is one only) and
            `history.jsonl`.
        model: the folder of the language model, with `tokenizer.json`.
        recipe: how to train.
        corpus: which documents; None for those that the model was trained on.
        resume: as in `run_in_folder`.
        overwrite: as in `run_in_folder`.
        device: where to compute: "cpu", "cuda", or "auto" for a GPU where there is one.
        on_line: called after each buffer, with the number of all.
        say: told what a person should know.

    Raises:
        UsageError: If the model is no language model, has no such hook point, or the recipe does
            not fit it; or if there is no such device.
        DataError: If the corpus is missing, damaged, or too small for a text of the context.
        BilensError: As in `run_in_folder`.
    """
    place = find_device(device)
    read = read_model(model, corpus, say)
    read.model.to(place)
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
    """Return a language model and the texts that it reads while its activations are learnt.

    Raises:
        UsageError: If the model is no language model, or its tokenizer does not fit it.
        CheckpointError: If a file is missing or damaged.
        DataError: If tokenizer or corpus are missing or damaged, or the corpus is too small.
    """
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
