"""Training from Python: tensors or paths in, the folders of the commands out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from bilens.api import train as job
from bilens.base import silent
from bilens.base.errors import ShapeError, UsageError
from bilens.base.files import check_path
from bilens.base.option_rules import IN_MEMORY, Device, refuse_idle
from bilens.data.arrays import KINDS as ARRAY_FILES, Array
from bilens.data.images import ImageDataset, load_images
from bilens.data.own_images import Given, own_images, tensor_of
from bilens.findings.watching import watch_of
from bilens.io.loaded_model import LoadedModel
from bilens.nn.transformer import BilinearTransformer
from bilens.train.corpus import CorpusOptions
from bilens.train.device import find_device
from bilens.train.loop import Line
from bilens.train.recipes import ImageRecipe, Recipe, SAERecipe, default_recipe
from bilens.train.run_folder import TrainingResult
from bilens.train.tasks.image import EpochMetrics, train_in_folder
from bilens.train.tasks.sae_of_tensor import ACTIVATIONS

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def train_image(
    images: Given | ImageDataset,
    labels: Given | None,
    folder: str | Path,
    *,
    test: tuple[Given, Given] | None = None,
    class_names: Sequence[str] | None = None,
    dataset: str = "mnist",
    resume: bool = False,
    overwrite: bool = False,
    device: Device = "auto",
    watch: bool = False,
    stop: bool = False,
    on_epoch: Callable[[EpochMetrics], None] = silent,
    say: Callable[[str], None] = silent,
    **recipe: Any,
) -> TrainingResult[EpochMetrics]:
    """Train an image classifier and leave it in a folder, as `bilens train image` does.

    Args:
        images: grey images, (images, rows, columns) or (images, pixels), bytes or numbers from 0
            to 1; the path of an IDX, .npy, .npz or safetensors file with them; or, without labels,
            the folder of the IDX files of MNIST or Fashion-MNIST.
        labels: the class of each image, whole numbers from 0; or the path of a file with them.
        folder: for model, history and checkpoints; `bl.load(folder)` reads the model.
        test: images and labels to judge on; None holds out every fifth image of each class.
        class_names: one for each class; None numbers them.
        dataset: "mnist" or "fashion-mnist", where `images` is a folder.
        resume: go on with the run in the folder, to the same weights.
        overwrite: replace it.
        device: "auto" is a GPU where there is one.
        watch: read the weights after each epoch; the readings are `weights` of a line.
        stop: end where they say that nothing is left to learn, and keep an average of the weights.
        on_epoch: is told the line of the history at the end of each epoch.
        say: is told sentences.
        recipe: `d_hidden`, `epochs`, `noise`, `weight_decay`, `seed` and the other options of the
            command, under the names that the model folder has; what is left out is the paper's.

    Returns:
        `folder`, `history` (a line an epoch) and `to_frame()`.

    Raises:
        UsageError: If an option is not known or out of range, or batches are larger than the data.
        DataError: If a file is missing or damaged, or images and labels do not belong together.
        ShapeError: If images or labels have another shape or dtype.
        OutputExistsError: If the folder holds something, unless resumed or overwritten.
        NumericalError: If the loss is no longer finite.
    """
    wanted = recipe_of(ImageRecipe(), recipe)
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
        data = load_images(dataset, Path(images), report=say)
    else:
        data = own_images(images, labels, test, class_names)
    read = watch_of(data, wanted) if watch or stop else None
    options = {"resume": resume, "overwrite": overwrite, "on_epoch": on_epoch, "say": say}
    made: dict[str, Any] = {"provenance": job.provenance(), "watch": read, "stop": stop, **options}
    return train_in_folder(check_path("folder", folder), data, wanted, find_device(device), **made)


def train_language(
    corpus: str | Path | Sequence[str] | Tensor | Array,
    folder: str | Path,
    *,
    column: str | None = None,
    split: str = "train",
    limit: int | None = None,
    stream: bool = False,
    held_out: float = 0.05,
    corpus_seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    device: Device = "auto",
    shard: bool = False,
    texts_at_once: int = 0,
    on_line: Callable[[Line], None] = silent,
    say: Callable[[str], None] = silent,
    **recipe: Any,
) -> job.LanguageTraining:
    """Train a language model and leave it in a folder, as `bilens train language` does.

    Args:
        corpus: a text file, a folder of .txt files, a table (.json, .csv, .parquet), "grammar" for
            stories with a known rule, or the name of a Hugging Face data set; a list of texts; or
            tokens (texts, length), as a tensor, an array or the path of a file of one: the model
            then has these tokens from 0 on, and one more, the last, for the end of a text.
        folder: for model, tokenizer, history and checkpoints; `bl.load(folder)` reads the model.
        column: of a table with the text.
        split: of a Hugging Face data set.
        limit: documents to read at most.
        stream: do not download all of a data set.
        held_out: share of documents to judge on.
        corpus_seed: which documents those are.
        resume: go on with the run in the folder, to the same weights.
        overwrite: replace it.
        device: "auto" is a GPU where there is one.
        shard: divide what is learnt among the processes that torchrun started.
        texts_at_once: of a batch, whose gradients are added: less memory; 0 for all.
        on_line: is told each line of the history.
        say: is told sentences.
        recipe: `d_model`, `n_layer`, `steps`, `seed` and the other options of the command, under
            the names that the model folder has; what is left out fits the corpus.

    Returns:
        `folder`, `history`, `sample` (a text that the model writes) and `to_frame()`.

    Raises:
        UsageError: If an option is not known or out of range.
        DataError: If the text is missing, damaged or shorter than one block.
        ShapeError: If tokens are no whole numbers from 0, (texts, length).
        OutputExistsError: If the folder holds something, unless resumed or overwritten.
        NumericalError: If the loss is no longer finite.
    """
    given: Any = corpus
    if (tokens := given_tensor("tokens", given)) is not None:
        given, needed = tokens_as_texts(tokens)
        recipe = {"tokenizer": "numbers", "vocab_size": needed} | recipe
        if recipe["vocab_size"] not in range(needed, 2**31):
            raise UsageError(f"these tokens and the end of a text need a vocab_size of {needed:,}.")
    refuse_idle("train language", recipe, *([] if recipe.get("steps") else ["without steps"]))
    listed = isinstance(given, list | tuple)
    text = tuple(given) if listed else str(check_path("corpus", given))
    read = CorpusOptions(text, column, split, held_out, limit, corpus_seed, stream)
    return job.train_language(
        check_path("folder", folder),
        read,
        recipe_of(default_recipe(text), recipe),
        resume=resume,
        overwrite=overwrite,
        device=device,
        shard=shard,
        texts_at_once=texts_at_once,
        on_line=lambda line, _: on_line(line),
        say=say,
    )


def train_sae(
    model: str | Path | LoadedModel | BilinearTransformer | Tensor | Array,
    folder: str | Path,
    *,
    hooks: Sequence[str] = (),
    text: str | Path | Tensor | Array | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: Device = "auto",
    shard: bool = False,
    on_line: Callable[[Line], None] = silent,
    say: Callable[[str], None] = silent,
    **recipe: Any,
) -> job.SAETraining:
    """Train sparse autoencoders and leave them in a folder, as `bilens train sae` does.

    Args:
        model: a language model of bilens: its folder, what `bl.load` returned, or the module. Or
            activations of any model, (rows, width), a tensor, an array or the path of an .npy, .npz
            or safetensors file of one: one autoencoder is trained on them.
        folder: for the autoencoder, or a folder in it for each of several hook points.
        hooks: where activations are read, such as "blocks.0.mlp_out", one or more; none for
            activations.
        text: what the model reads: a path or name as `corpus` of `bl.train_language`, or tokens
            (texts, length) of which a twentieth is held out; None is what it was trained on.
        resume: go on with the run in the folder, to the same weights.
        overwrite: replace it.
        device: "auto" is a GPU where there is one.
        shard: divide what is learnt among the processes that torchrun started.
        on_line: is told each line of the history.
        say: is told sentences.
        recipe: `num_latents`, `k`, `tokens`, `batch_size`, `seed` and the other options of the
            command.

    Returns:
        `folders` and `metrics` by hook point (no metrics of bare activations), `history` and
        `to_frame()`.

    Raises:
        UsageError: If it is no language model, a hook point or option is not known, or batches
            are larger than the data.
        DataError: If tokenizer or text are missing.
        OutputExistsError: If the folder holds something, unless resumed or overwritten.
        NumericalError: If activations are all equal, or the loss is no longer finite.
    """
    points = (hooks,) if isinstance(hooks, str) else tuple(hooks)
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
    wanted = recipe_of(SAERecipe(points or (ACTIVATIONS,)), recipe)
    given: Any = text
    corpus: CorpusOptions | Tensor | None = given_tensor("text", given)
    if corpus is None and given is not None:
        corpus = CorpusOptions(str(check_path("text", given)))
    return job.train_sae(
        check_path("folder", folder),
        Path(model) if isinstance(model, str) else model,
        wanted,
        corpus=corpus,
        resume=resume,
        overwrite=overwrite,
        device=device,
        shard=shard,
        on_line=lambda line, _: on_line(line),
        say=say,
    )


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


def recipe_of(usual: AnyRecipe, changes: dict[str, Any]) -> AnyRecipe:
    """Return a recipe with changes; refuse a name that it does not have."""
    known = [field.name for field in dataclasses.fields(usual)]
    for name in changes:
        if name not in known:
            raise UsageError(f"there is no option {name!r}: use one of {', '.join(known)}.")
    return dataclasses.replace(usual, **changes)
