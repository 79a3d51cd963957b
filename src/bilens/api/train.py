"""Training jobs: from digits, a corpus or a language model to a run folder; and the demo."""

import copy
import shutil
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace
from torch import Tensor

from bilens.api.audit_model import audit
from bilens.api.provenance import this_command, versions
from bilens.api.subject import open_subject
from bilens.base import Progress, silent
from bilens.base.errors import InterruptedRunError, OutputExistsError
from bilens.base.files import names_in, new_folder, write_file
from bilens.base.notebook import frozen_result
from bilens.base.option_rules import Device
from bilens.data.images import ImageDataset
from bilens.data.tokenizer import Tokenizer, pack_documents, train_tokenizer
from bilens.io.load import load
from bilens.io.loaded_model import LoadedModel
from bilens.io.model_folder import CONFIG_NAME
from bilens.io.tensors import tensors_sha256
from bilens.nn.module_layers import Transformer
from bilens.nn.transformer import BilinearTransformer
from bilens.report.charts.curves import loss_figure
from bilens.report.plates import eigenvector_plate
from bilens.report.reports import AuditReport
from bilens.train.activations import HookMetrics
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
from bilens.train.loop import CHECKPOINTS, LineT, TrainingTask
from bilens.train.processes import together
from bilens.train.randomness import drawn_rows
from bilens.train.run_folder import CURVE_NAME, OWN_FILES, RUN_NAME, TrainingResult, run_in_folder
from bilens.train.tasks.image import EpochMetrics, ImageRecipe, train_in_folder
from bilens.train.tasks.language import LanguageMetrics, LanguageRecipe, LanguageTask
from bilens.train.tasks.sae import (
    ACTIVATIONS,
    ActivationsTask,
    ReadModel,
    SAELine,
    SAERecipe,
    SAETask,
)

DEMO_RECIPE = ImageRecipe(  # 150 epochs of 4,000 digits: strokes become visible, in half a minute
    d_hidden=128,
    epochs=150,
    batch_size=256,
    noise=0.4,
    augmentations=("translation:0.04", "rotation:6"),
)
REPORT_NAME, REPORT_JSON, PLATE_NAME = "report.html", "report.json", "eigenvectors.svg"
OWN_NAMES = {*OWN_FILES, CHECKPOINTS, REPORT_NAME, REPORT_JSON, PLATE_NAME}
SAMPLE_TOKENS = 160
HELD_OUT_TEXTS = 20  # of so many texts of tokens one is held out
MEASURED_TOKENS = 65_536  # of the held-out texts, at most
SAMPLE_TEMPERATURE, SAMPLE_TOP_K = 0.7, 40


def provenance() -> dict[str, str]:
    """Return the provenance of a model that is trained now: command and versions."""
    return {"command": this_command(), **versions()}


def run_announced(
    folder: Path,
    job: TrainingTask[Any, LineT],
    plan: str,
    on_line: Callable[[LineT, int], None],
    say: Callable[[str], None],
    options: dict[str, Any],
) -> TrainingResult[LineT]:
    """Say what is going to be done, and do it."""
    say(plan)
    more: dict[str, Any] = {"provenance": provenance(), "say": say, **options}
    return run_in_folder(folder, job, on_epoch=lambda line: on_line(line, job.epochs), **more)


@frozen_result("folder", "history", "source", "num_weights", "sample")
class LanguageTraining(TrainingResult[LanguageMetrics]):
    """A finished run of a language model, and a text that it writes."""

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
    device: Device = "auto",
    shard: bool = False,
    texts_at_once: int = 0,
    on_line: Callable[[LanguageMetrics, int], None] = lambda _line, _lines: None,
    say: Callable[[str], None] = silent,
    **options: Any,
) -> LanguageTraining:
    """Train a language model and leave it in a run folder; options are `resume`, `overwrite`.

    Where torchrun started several processes, each has a share of every batch, of which so many
    texts run at once; with `shard` it holds a part of the weights, too.
    """
    with together(device, shard) as group:
        text = corpus.load(report=say)
        tokenizer = train_tokenizer(text.documents, recipe.vocab_size, recipe.tokenizer)
        tokens = tokens_of(text, tokenizer, recipe.n_ctx)
        about = CorpusDescription.describe(corpus, text)
        job = LanguageTask(recipe, tokens, tokenizer, about, group, texts_at_once)
        plan = (
            f"{len(tokens.train):,} tokens to train on, {len(tokens.held_out):,} held out, "
            f"{tokenizer.vocab_size:,} in the vocabulary; {job.total_steps:,} steps."
        )
        result = run_announced(folder, job, plan, on_line, say, options)
        losses = [(line.step, line.train_loss, line.held_out_loss) for line in result.history]
        group.on_first(lambda: write_file(folder / CURVE_NAME, loss_figure(losses).encode()))
        run = open_model_bundle(folder)
        sample = sample_text(run.model, run.tokenizer, recipe.seed)
        num_weights = sum(weight.numel() for weight in run.model.parameters())
        return LanguageTraining(folder, result.history, tokens, text.source, num_weights, sample)


def sample_text(model: Transformer, tokenizer: Tokenizer, seed: int) -> str:
    """Return a text that the model writes, from the beginning of a document to its end."""
    written = model.generate(
        torch.tensor([[tokenizer.end_of_text]]),
        min(SAMPLE_TOKENS, model.config.n_ctx - 1),
        temperature=SAMPLE_TEMPERATURE,
        top_k=SAMPLE_TOP_K,
        seed=seed,
        end_token=tokenizer.end_of_text,
    )
    ids = takewhile(lambda token: token != tokenizer.end_of_text, written[0, 1:].tolist())
    return tokenizer.decode(list(ids)).strip()


@frozen_result("folder", "history", "folders", "metrics")
class SAETraining(TrainingResult[SAELine]):
    """A finished run of sparse autoencoders; metrics by hook point where a model stands behind."""

    folders: dict[str, Path]
    metrics: dict[str, HookMetrics]

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
    model: Path | LoadedModel | BilinearTransformer | Tensor,
    recipe: SAERecipe,
    *,
    corpus: CorpusOptions | Tensor | None = None,
    device: Device = "auto",
    shard: bool = False,
    on_line: Callable[[SAELine, int], None] = lambda _line, _lines: None,
    say: Callable[[str], None] = silent,
    **options: Any,
) -> SAETraining:
    """Train autoencoders on a language model, or on activations; options as `train_language`."""
    with together(device, shard) as group:
        if isinstance(model, Tensor):
            job: SAETask | ActivationsTask = ActivationsTask(recipe, model, group)
        else:
            read = read_model(model, corpus, say)
            read.model.to(group.device)
            job = SAETask(recipe, read, group)
        plan = (
            f"{recipe.latents_for(job.width):,} latents, {recipe.k} an input; "
            f"{job.epochs} buffers of {job.activations.rows:,} activations."
        )
        result = run_announced(folder, job, plan, on_line, say, options)
        if isinstance(job, ActivationsTask):
            return SAETraining(folder, result.history, {ACTIVATIONS: folder}, {})
        folders = {hook: job.folder_of(hook, folder) for hook in recipe.hooks}
        return SAETraining(folder, result.history, folders, job.measured(folder))


def read_model(
    model: Path | LoadedModel | BilinearTransformer,
    corpus: CorpusOptions | Tensor | None,
    say: Callable[[str], None],
) -> ReadModel:
    """Return a language model and the texts that it reads while its activations are learnt."""
    if isinstance(model, BilinearTransformer):  # which stays as it is, and where it is
        sha256 = tensors_sha256(model.state_dict().items())
        model = LoadedModel(copy.deepcopy(model), "a model in memory", sha256)
    reader = "a sparse autoencoder's training"
    loaded = open_subject(load(model) if isinstance(model, Path) else model, reader)
    module = language_model(loaded, reader)
    if isinstance(corpus, Tensor):
        held = torch.zeros(len(corpus), dtype=torch.bool)
        held[drawn_rows(len(corpus), max(1, len(corpus) // HELD_OUT_TEXTS))] = True
        source, sha256, learnt = loaded.source, loaded.weights_sha256, corpus[~held]
        return ReadModel(module, source, sha256, learnt, corpus[held], "tokens of the caller")
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
        held_out=held_out[drawn_rows(len(held_out), max(1, MEASURED_TOKENS // n_ctx))],
        corpus=text.source,
    )


def run_demo(
    folder: Path,
    data: ImageDataset,
    *,
    recipe: ImageRecipe = DEMO_RECIPE,
    lang: str = "en",
    overwrite: bool = False,
    null_samples: int = 99,
    on_epoch: Callable[[EpochMetrics], None] = silent,
    progress: Progress = silent,
    say: Callable[[str], None] = silent,
) -> AuditReport:
    """Train a classifier, audit it, and leave a folder with the model and its reports.

    Everything is made in a folder beside the target, which is replaced at the very end: a demo
    that fails or is interrupted leaves an earlier one as it was.
    """
    check_demo_folder(folder, overwrite)
    if folder.exists():
        say(f"{folder} holds an earlier demo: it is replaced when this one is done.")
    try:
        with new_folder(folder) as work:
            train_in_folder(work, data, recipe, provenance=provenance(), on_epoch=on_epoch, say=say)
            shutil.rmtree(work / CHECKPOINTS, ignore_errors=True)  # a demo starts anew
            record = audit(load(work), data, null_samples=null_samples, progress=progress).record
            source = replace(record.source, path=str(folder))  # where it will be when all is done
            report = AuditReport(replace(record, source=source))
            report.to_json(work / REPORT_JSON)
            report.to_html(work / REPORT_NAME, lang=lang)
            write_file(work / PLATE_NAME, eigenvector_plate(report.record).encode())
    except InterruptedRunError:
        raise InterruptedRunError(
            f"Interrupted; {folder} is as it was before. A demo is short and starts anew."
        ) from None
    return report


def check_demo_folder(folder: Path, overwrite: bool) -> None:
    """Refuse a folder with anything but an earlier demo: all that is in it will be gone.

    With `overwrite`, a run of ours with more beside it is replaced too.
    """
    names = names_in(folder, "demo")
    foreign = sorted(names - OWN_NAMES)
    is_ours = bool(names & {CONFIG_NAME, RUN_NAME})
    if names and (not is_ours or (foreign and not overwrite)):
        raise OutputExistsError(
            f"{folder} holds something else than an earlier demo "
            f"({', '.join(foreign[:4] or sorted(names)[:4])}): choose another folder with --out"
            + (", or replace all of it with --overwrite." if is_ours else ".")
        )
