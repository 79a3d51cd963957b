"""Training sparse autoencoders on a language model, in a run folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bilens.io.load import load
from bilens.io.model_folder import save
from bilens.nn.topk_sae import TopKSAE
from bilens.nn.transformer import BilinearTransformer
from bilens.train.activations import ActivationStream
from bilens.train.job import TrainingJob
from bilens.train.sae.loop import Run, SAELine, num_buffers, start_run, train
from bilens.train.sae.metrics import SAEMetrics, measure_sae
from bilens.train.sae.recipe import SAERecipe


@dataclass(frozen=True, eq=False)
class ReadModel:
    """The language model whose activations are learnt, and the texts it reads.

    Attributes:
        model: the model.
        source: where it was read from.
        weights_sha256: of its weights file, by which an autoencoder knows its model.
        texts: (num_texts, n_ctx) tokens to train on.
        held_out: (num_texts, n_ctx) tokens to measure on.
        corpus: what the texts are, one plain sentence.
    """

    model: BilinearTransformer
    source: str
    weights_sha256: str
    texts: Tensor
    held_out: Tensor
    corpus: str

    def fingerprint(self) -> str:
        """Return a SHA-256 of model and texts."""
        digest = hashlib.sha256(self.weights_sha256.encode())
        for texts in (self.texts, self.held_out):
            digest.update(f"{tuple(texts.shape)}".encode())
            digest.update(texts.cpu().numpy().tobytes())
        return digest.hexdigest()


class SAEJob(TrainingJob[nn.ModuleList, SAELine]):
    """One autoencoder for each hook point of a recipe, on one stream of activations.

    With one hook point, the run folder is the model folder of its autoencoder; with several,
    each has a folder of its own in it, named by its hook point.

    Args:
        recipe: how to train.
        read: the model and its texts.

    Raises:
        UsageError: If there is no such hook point, k is not below the number of latents, or a
            buffer holds less than one batch.
        MemoryLimitError: If a buffer would not fit.
    """

    data_noun = "activations"

    def __init__(self, recipe: SAERecipe, read: ReadModel) -> None:
        self.recipe, self.read = recipe, read
        self.activations = ActivationStream(
            read.model, read.texts, recipe.hooks, recipe.buffer_size, recipe.seed
        )
        width = read.model.config.d_model
        TopKSAE(width, recipe.latents_for(width), recipe.k)  # its sizes are refused here
        self.epochs = num_buffers(recipe, self.activations)
        self.about = {"recipe": recipe.to_dict(), "data": read.fingerprint()}

    def start(self) -> Run:
        """Return the run at its beginning."""
        return start_run(self.recipe, self.activations)

    def train(self, run: Run, after_step: Callable[[Run], None]) -> Iterator[SAELine]:
        """Continue a run to its end."""
        return train(run, self.activations, self.recipe, after_step)

    def line(self, content: dict[str, Any]) -> SAELine:
        """Return a line of the history from its JSON values."""
        return SAELine(**content)

    def save(self, run: Run, folder: Path, provenance: Mapping[str, str]) -> None:
        """Measure each autoencoder on the held-out texts, and write its model folder."""
        details = {
            "recipe": json.dumps(self.recipe.to_dict()),
            "seed": str(self.recipe.seed),
            "model": self.read.source,
            "model_sha256": self.read.weights_sha256,
            "data_source": self.read.corpus,
        }
        for hook, sae in zip(self.recipe.hooks, run.model, strict=True):
            assert isinstance(sae, TopKSAE), "built in start_run"
            metrics = measure_sae(self.read.model, sae, hook, self.read.held_out)
            save(
                sae.cpu(),
                self.folder_of(hook, folder),
                provenance={
                    **details,
                    "hook": hook,
                    "metrics": json.dumps(metrics.to_dict()),
                    **provenance,
                },
                overwrite=True,
            )

    def measured(self, folder: Path) -> dict[str, SAEMetrics]:
        """Return the metrics that `save` left with each autoencoder, by hook point."""
        found = {}
        for hook in self.recipe.hooks:
            provenance = load(self.folder_of(hook, folder)).provenance
            found[hook] = SAEMetrics.from_dict(json.loads(provenance["metrics"]))
        return found

    def folder_of(self, hook: str, folder: Path) -> Path:
        """Return where the autoencoder of a hook point is, in a run folder."""
        return folder if len(self.recipe.hooks) == 1 else folder / hook

    def finished(self, folder: Path) -> bool:
        """Tell whether a run left all its autoencoders."""
        return all(
            super(SAEJob, self).finished(self.folder_of(h, folder)) for h in self.recipe.hooks
        )

    def current(self, run: Run) -> str:
        """Name the place where a run is."""
        return f"buffer {run.epoch + 1} of {self.epochs}"

    def reached(self, run: Run) -> str:
        """Name what a run has behind it."""
        return f"buffer {run.epoch} of {self.epochs}, step {run.step}"
