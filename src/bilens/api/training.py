"""Training from Python: tensors or paths in, the folders of the commands out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bilens.api import train as job
from bilens.api.training_options import (
    InParts,
    PartOfCorpus,
    Running,
    Together,
    TrainImageOptions,
    TrainLanguageOptions,
    TrainSAEOptions,
)
from bilens.base.errors import ShapeError, UsageError
from bilens.base.files import check_path
from bilens.base.keyword_options import takes_options
from bilens.base.option_rules import IN_MEMORY, refuse_idle
from bilens.data.arrays import KINDS as ARRAY_FILES, Array
from bilens.data.images import ImageDataset, load_images
from bilens.data.own_images import Given, own_images, tensor_of
from bilens.findings.watching import leading_eigenvectors, watch_of
from bilens.io.loaded_model import LoadedModel
from bilens.nn.classifier import BilinearClassifier
from bilens.nn.transformer import BilinearTransformer
from bilens.report.raster import tiled
from bilens.train.corpus import CorpusOptions
from bilens.train.device import find_device
from bilens.train.recipes import ImageRecipe, LanguageRecipe, SAERecipe, default_recipe
from bilens.train.run_folder import TrainingResult
from bilens.train.tasks.image import EpochMetrics, train_in_folder
from bilens.train.tasks.sae import ACTIVATIONS
from bilens.train.trackers import Picture, check_trackers


@takes_options(TrainImageOptions)
def train_image(
    images: Given | ImageDataset,
    labels: Given | None,
    folder: str | Path,
    options: TrainImageOptions,
) -> TrainingResult[EpochMetrics]:
    """Train an image classifier and leave it in a folder, as `bilens train image` does.

    Args:
        images: grey images, (images, rows, columns) or (images, pixels), bytes or numbers from 0
            to 1; the path of an IDX, .npy, .npz or safetensors file with them; or, without labels,
            the folder of the IDX files of MNIST or Fashion-MNIST.
        labels: the class of each image, whole numbers from 0; or the path of a file with them.
        folder: for model, history and checkpoints; `bl.load(folder)` reads the model.
        options: a `TrainImageOptions`, or its fields, among which are those of the recipe, under
            the names that the model folder has; what is left out is the paper's:

    Returns: `folder`, `history` (a line an epoch) and `to_frame()`.

    Raises: UsageError if an option is not known or out of range, or batches are larger than the
        data; DataError if a file is missing or damaged, or images and labels do not belong
        together; ShapeError if images or labels have another shape or dtype; OutputExistsError if
        the folder holds something, unless resumed or overwritten; NumericalError if the loss is no
        longer finite.
    """
    check_trackers(options.tracker)
    wanted, watched = ImageRecipe(**fields_of(ImageRecipe, options)), options.watch or options.stop
    test, class_names, dataset = options.test, options.class_names, options.dataset
    in_folder = labels is None and isinstance(images, str | Path)
    facts = ["with a folder of IDX files"] if in_folder else []
    facts += [] if in_folder or isinstance(images, ImageDataset) else [IN_MEMORY]
    said = {"labels": labels, "test": test, "class_names": class_names}
    said |= {"dataset": dataset} if dataset != "mnist" else {}
    refuse_idle("train image", said, *facts)
    if isinstance(images, ImageDataset):
        data = images
    elif labels is None:
        if not isinstance(images, str | Path):
            raise UsageError("there are no labels: pass the class of each image.")
        data = load_images(dataset, Path(images), report=options.say)
    else:
        data = own_images(images, labels, test, class_names)
    return train_in_folder(
        check_path("folder", folder),
        data,
        wanted,
        find_device(options.device),
        watch=watch_of(data, wanted) if watched else None,
        stop=options.stop,
        resume=options.resume,
        overwrite=options.overwrite,
        on_epoch=options.on_epoch,
        tracker=options.tracker,
        **({"figures": partial(class_pictures, shape=data.image_shape)} if watched else {}),
        say=options.say,
        provenance=job.provenance(),
    )


@takes_options(TrainLanguageOptions, changes_of=LanguageRecipe)
def train_language(
    corpus: str | Path | Sequence[str] | Tensor | Array,
    folder: str | Path,
    options: TrainLanguageOptions,
    **recipe: Any,
) -> job.LanguageTraining:
    """Train a language model and leave it in a folder, as `bilens train language` does.

    Args:
        corpus: a text file, a folder of .txt files, a table (.json, .csv, .parquet), "grammar" for
            stories with a known rule, or the name of a Hugging Face data set; a list of texts; or
            tokens (texts, length), as a tensor, an array or the path of a file of one: the model
            then has these tokens from 0 on, and one more, the last, for the end of a text.
        folder: for model, tokenizer, history and checkpoints; `bl.load(folder)` reads the model.
        recipe: `d_model`, `n_layer`, `steps`, `seed` and the other options of the command, under
            the names that the model folder has; what is left out fits the corpus.
        options: a `TrainLanguageOptions`, or its fields:

    Returns: `folder`, `history`, `sample` (a text that the model writes) and `to_frame()`.

    Raises: UsageError if an option is not known or out of range; DataError if the text is missing,
        damaged or shorter than one block; ShapeError if tokens are no whole numbers from 0, (texts,
        length); OutputExistsError if the folder holds something, unless resumed or overwritten;
        NumericalError if the loss is no longer finite.
    """
    check_trackers(options.tracker)
    given: Any = corpus
    if (tokens := given_tensor("tokens", given)) is not None:
        given, needed = tokens_as_texts(tokens)
        recipe = {"tokenizer": "numbers", "vocab_size": needed} | recipe
        if recipe["vocab_size"] not in range(needed, 2**31):
            raise UsageError(f"these tokens and the end of a text need a vocab_size of {needed:,}.")
    facts = [] if recipe.get("steps") else ["without steps"]
    facts += ["with polynomial"] if recipe.get("polynomial") else []
    refuse_idle("train language", recipe, *facts)
    listed = isinstance(given, list | tuple)
    text = tuple(given) if listed else str(check_path("corpus", given))
    corpus_asked = fields_of(PartOfCorpus, options)
    read = CorpusOptions(text, seed=corpus_asked.pop("corpus_seed"), **corpus_asked)
    return job.train_language(
        check_path("folder", folder),
        read,
        replace(default_recipe(text, bool(recipe.get("polynomial"))), **recipe),
        **fields_of(Running, options),
        **fields_of(Together, options),
        **fields_of(InParts, options),
        on_line=lambda line, _: options.on_line(line),
        say=options.say,
    )


@takes_options(TrainSAEOptions)
def train_sae(
    model: str | Path | LoadedModel | BilinearTransformer | Tensor | Array,
    folder: str | Path,
    options: TrainSAEOptions,
) -> job.SAETraining:
    """Train sparse autoencoders and leave them in a folder, as `bilens train sae` does.

    Args:
        model: a language model of bilens: its folder, what `bl.load` returned, or the module. Or
            activations of any model, (rows, width), a tensor, an array or the path of an .npy, .npz
            or safetensors file of one: one autoencoder is trained on them.
        folder: for the autoencoder, or a folder in it for each of several hook points.
        options: a `TrainSAEOptions`, or its fields, among which are those of the recipe:

    Returns: `folders` and `metrics` by hook point (no metrics of bare activations), `history` and
        `to_frame()`.

    Raises: UsageError if it is no language model, a hook point or option is not known, or batches
        are larger than the data; DataError if tokenizer or text are missing; OutputExistsError if
        the folder holds something, unless resumed or overwritten; NumericalError if activations are
        all equal, or the loss is no longer finite.
    """
    check_trackers(options.tracker)
    points = (options.hooks,) if isinstance(options.hooks, str) else tuple(options.hooks)
    text: Any = options.text
    if not (points and isinstance(model, str | Path)):
        found = given_tensor("activations", model)
        model = model if found is None else found
    if isinstance(model, Tensor) and (points or text is not None):
        raise UsageError("hooks and text are of a language model: leave them out for activations.")
    if not isinstance(model, str | Path | LoadedModel | BilinearTransformer | Tensor):
        raise UsageError(
            f"model is a {type(model).__name__}; expected the folder of a language model, what "
            "bl.load returned, a BilinearTransformer, or a tensor of activations."
        )
    if not points and not isinstance(model, Tensor):
        raise UsageError('no hooks are given: name points of the model, such as "blocks.0.mlp_in".')
    asked = fields_of(SAERecipe, options) | {"hooks": points or (ACTIVATIONS,)}
    wanted = SAERecipe(**asked)
    corpus: CorpusOptions | Tensor | None = given_tensor("text", text)
    if corpus is None and text is not None:
        corpus = CorpusOptions(str(check_path("text", text)))
    return job.train_sae(
        check_path("folder", folder),
        Path(model) if isinstance(model, str) else model,
        wanted,
        corpus=corpus,
        **fields_of(Running, options),
        **fields_of(Together, options),
        on_line=lambda line, _: options.on_line(line),
        say=options.say,
    )


def class_pictures(model: BilinearClassifier, shape: tuple[int, int]) -> dict[str, Picture]:
    """Return one picture: the leading eigenvectors of each class, a row of two ends each."""
    return {"eigenvectors": tiled(leading_eigenvectors(model).tolist(), shape)}


def given_tensor(name: str, given: Any) -> Tensor | None:
    """Return a tensor, an array or the path of a file of one as a tensor; None for the rest."""
    is_path = isinstance(given, str | Path)
    is_file = is_path and Path(given).suffix in ARRAY_FILES and not Path(given).is_dir()
    return tensor_of(name, given) if is_file or isinstance(given, Tensor | np.ndarray) else None


def tokens_as_texts(tokens: Tensor) -> tuple[tuple[str, ...], int]:
    """Return texts of tokens as their numbers, and the size of the vocabulary."""
    whole = not tokens.is_floating_point() and not tokens.is_complex()
    if tokens.ndim != 2 or 0 in tokens.shape or not whole or int(tokens.min()) < 0:
        raise ShapeError(
            f"tokens have shape {tuple(tokens.shape)} and dtype {tokens.dtype}; expected "
            "(texts, length), whole numbers from 0."
        )
    return tuple(" ".join(map(str, row)) for row in tokens.tolist()), int(tokens.max()) + 2


def fields_of(kind: Any, options: Any) -> dict[str, Any]:
    """Return the options that are fields of a kind of record, by name."""
    return {each.name: getattr(options, each.name) for each in fields(kind)}
