"""The options of training and of conversion, in Python and on the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from bilens.base import silent
from bilens.base.keyword_options import described
from bilens.base.option_rules import TRAINING_PANEL, Device, TrackerName, option
from bilens.train.recipes import ConversionRecipe, ImageRecipe, SAERecipe

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from bilens.api.converted import Report
    from bilens.data.arrays import Array
    from bilens.data.own_images import Given
    from bilens.train.corpus import CorpusOptions
    from bilens.train.loop import Line
    from bilens.train.tasks.image import EpochMetrics
    from bilens.train.trackers import Chosen
else:  # the command line reads the types of the fields, and knows nothing of torch
    Path = Tensor = Report = Array = Given = CorpusOptions = Line = EpochMetrics = Chosen = Any


@dataclass(frozen=True, kw_only=True)
class Running:
    """Where a training runs, and what becomes of an earlier one."""

    resume: bool = option(False, "Continue the run in the folder, to the same weights.")
    overwrite: bool = option(False, "Replace what is already there.")
    device: Device = option("auto", "auto: a GPU where there is one.", panel="Run")
    tracker: Chosen = option(
        (),
        "Tell a tracker of experiments each line of the history; may be repeated. In Python also "
        "an object with log(step, numbers, figures).",
        "--track",
        panel="Run",
        metavar="|".join(get_args(TrackerName)),
        kind=list[str] | None,
    )


@dataclass(frozen=True, kw_only=True)
class Together:
    """How the processes train together that torchrun started."""

    PANEL: ClassVar = TRAINING_PANEL

    shard: bool = option(
        False, "Each of the processes of torchrun holds a part of what is learnt, not all of it."
    )


@dataclass(frozen=True, kw_only=True)
class InParts:
    """And in parts of a batch."""

    PANEL: ClassVar = TRAINING_PANEL

    texts_at_once: int = option(
        0, "Texts of a batch that run together, their gradients added: less memory; 0: all.", min=0
    )


@dataclass(frozen=True, kw_only=True)
class PartOfCorpus:
    """Which documents of a corpus are read, and which of them are held out."""

    PANEL: ClassVar = "Corpus"

    column: str | None = option(None, "Column of a table with the text.")
    split: str = option("train", "Split of a Hugging Face data set.")
    limit: int | None = option(None, "Documents to read at most.", min=2)
    stream: bool = option(False, "Do not download all of it.")
    held_out: float = option(0.05, "Share of documents to judge on.")
    corpus_seed: int = option(0, "Which documents those are.", min=0)


@dataclass(frozen=True, kw_only=True)
class Watching:
    """Whether weights are read after each epoch, and whether they end the training."""

    watch: bool = option(False, "Read the weights after each epoch.")
    stop: bool = option(False, "End where they say that nothing is left to learn; keep an average.")


@dataclass(frozen=True, kw_only=True)
class EpochsTold:
    """Who is told what comes of a training of images while it runs."""

    on_epoch: Callable[[EpochMetrics], None] = described(
        silent, "Is told the line of the history at the end of each epoch."
    )
    say: Callable[[str], None] = described(silent, "Is told sentences.")


@dataclass(frozen=True, kw_only=True)
class LinesTold:
    """Who is told what comes of a training while it runs."""

    on_line: Callable[[Line], None] = described(silent, "Is told each line of the history.")
    say: Callable[[str], None] = described(silent, "Is told sentences.")


@dataclass(frozen=True, kw_only=True)
class TrainImageOptions(Running, Watching, EpochsTold, ImageRecipe):
    """How an image classifier is trained, judged and watched: a recipe, and more."""

    test: tuple[Given, Given] | None = described(
        None, "Images and labels to judge on; None holds out every fifth image of each class."
    )
    class_names: Sequence[str] | None = described(None, "One for each class; None numbers them.")
    dataset: str = described(
        "mnist", 'Either "mnist" or "fashion-mnist", where `images` is a folder.'
    )


@dataclass(frozen=True, kw_only=True)
class TrainLanguageOptions(PartOfCorpus, Running, Together, InParts, LinesTold):
    """How a language model is trained, beside its recipe, whose usual one fits the corpus."""


@dataclass(frozen=True, kw_only=True)
class TrainSAEOptions(Running, Together, LinesTold, SAERecipe):
    """How sparse autoencoders are trained, and on what: a recipe, and more."""

    hooks: Sequence[str] = described(  # type: ignore[assignment]  # made a tuple by the recipe
        (),
        'Where activations are read, such as "blocks.0.mlp_out", one or more; none for '
        "activations.",
    )
    text: str | Path | Tensor | Array | None = described(
        None,
        "What the model reads: a path or name as `corpus` of `bl.train_language`, or tokens "
        "(texts, length) of which a twentieth is held out; None is what it was trained on.",
    )

    def __post_init__(self) -> None:  # the recipe that is made of it is checked
        pass


@dataclass(frozen=True, kw_only=True)
class ConversionTold:
    """Who is told what comes of a conversion while it runs."""

    report: Report | None = described(
        None, "Is told stage, done, of how many, and what there is to say."
    )
    say: Callable[[str], None] | None = described(None, "Is told sentences.")


@dataclass(frozen=True)
class ConvertNetworkOptions(Running, Together, ConversionTold):
    """How a network is made bilinear, and where that is run."""

    recipe: ConversionRecipe | None = described(
        None, "A `ConversionRecipe`, of which `tokens` are rows; None learns from 400,000."
    )
    held_out: float | None = described(
        None, "Share of rows that are measured on and nothing is fitted to; None is a fifth."
    )


@dataclass(frozen=True)
class ConvertTextModelOptions(Running, Together, ConversionTold):
    """How a model that reads text is made bilinear, and where that is run."""

    recipe: ConversionRecipe = described(ConversionRecipe(), "How it learns.")
    _: KW_ONLY
    measured: Sequence[CorpusOptions] = described((), "Texts that are only measured on.")
