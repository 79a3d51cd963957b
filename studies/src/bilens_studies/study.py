"""A study: its options, its cells, which are measured one by one, and its page."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from msgspec import to_builtins
from torch import Tensor

from bilens import ImageDataset, load_images
from bilens.api import LanguageTraining, SAETraining, train_language, train_sae
from bilens.base import file_sha256
from bilens.base.errors import DataError, UsageError
from bilens.nn import BilinearClassifier
from bilens.train import (
    RUN_NAME,
    CorpusOptions,
    ImageRecipe,
    LanguageRecipe,
    SAERecipe,
    default_recipe,
)
from bilens_studies.image_stack import train_classifiers_in_folder
from bilens_studies.page_writer import templates
from bilens_studies.published import Published, Reproduced, read_published

Record: TypeAlias = dict[str, Any]  # JSON values
Say: TypeAlias = Callable[[str], None]
Choice = TypeVar("Choice")


def silent(*_: object) -> None:
    """Report nothing."""


def to_json(record: Any) -> Record:
    """Return a record of bilens as JSON values."""
    values: Record = json.loads(json.dumps(to_builtins(record, str_keys=True), allow_nan=False))
    return values


BATCH = 1024  # activations a step of autoencoders


@dataclass(frozen=True)
class StudyOptions:
    """Options of studies; where one is None, the study chooses.

    Raises: UsageError if a number is below 1, or `models` is a text.
    """

    corpus: str | None = None
    models: tuple[str, ...] | None = None  # run folders of language models
    seeds: int | None = None  # how many
    steps: int | None = None  # updates of each training
    tokens: int | None = None  # of the longest conversion
    data_dir: str | None = None  # folder with MNIST and Fashion-MNIST
    full: bool | None = None  # True: the published size where the usual one is smaller
    quick: bool | None = None  # True: a size that shows the way and proves nothing
    missing: tuple[str, ...] = ()  # images that are not at hand; found out, not asked for

    def __post_init__(self) -> None:
        for name in ("seeds", "steps", "tokens"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UsageError(f"{name} is {value!r}; expected a whole number of at least 1.")
        if isinstance(self.models, str):
            raise UsageError(f"models is {self.models!r}; expected a tuple of run folders.")

    def given_options(self) -> Record:
        return {k: v for k, v in vars(self).items() if v is not None and k != "missing"}

    def choose(self, quick: Choice, usual: Choice, full: Choice) -> Choice:
        """Return the choice for the size that was asked for."""
        if self.quick and self.full:
            raise UsageError("--quick and --full are two sizes of a study: give one of them.")
        return quick if self.quick else full if self.full else usual

    def images(self, name: str) -> ImageDataset:
        """Return MNIST or Fashion-MNIST from --data-dir, or from where else they are at hand.

        --quick always reads the digits that a package has.
        """
        if self.quick:
            return load_images("digits")
        data = load_images(name, None if self.data_dir is None else Path(self.data_dir))
        if data.source_kind == "embedded":
            raise DataError(
                "the 5,000 digits of a package are at hand, not all: pass the folder of its files "
                "with --data-dir, or take --quick."
            )
        return data


@dataclass(frozen=True)
class CellContext:
    """The folder of a measurement, the records before it, and how it trains models."""

    folder: Path  # its own; what it leaves there is found again when the study goes on
    done: Mapping[str, Record]  # the records of the cells before it
    say: Say
    models: Path  # what the studies of one output folder share: trained image classifiers

    def classifiers(
        self, data: ImageDataset, recipes: Sequence[ImageRecipe]
    ) -> list[BilinearClassifier]:
        """Return a classifier for each recipe; those of `models` are not trained again."""
        return train_classifiers_in_folder(self.models, data, recipes, say=self.say)

    def train_language(
        self, corpus: str, recipe: LanguageRecipe, name: str = ""
    ) -> LanguageTraining:
        """Train a language model in the folder, or a folder in it; go on with what is there."""
        folder = self.folder / name
        resume = (folder / RUN_NAME).exists()
        return train_language(folder, CorpusOptions(corpus), recipe, resume=resume, say=self.say)

    def train_sae(self, model: Path, recipe: SAERecipe, name: str = "") -> SAETraining:
        folder = self.folder / name
        return train_sae(folder, model, recipe, resume=(folder / RUN_NAME).exists(), say=self.say)


Measure: TypeAlias = Callable[[CellContext], Record]


class Study(ABC):
    """One study: its cells, and its page."""

    name: str  # as `bilens reproduce` knows it: "language/gates"
    title: str  # what it measures, one line
    text: str = ""  # of its page, in Jinja; a longer one stands in a file of its name in `pages/`
    uses: frozenset[str]  # names of the `StudyOptions` that it reads; the others are refused
    needs: frozenset[str] = frozenset()  # those of them without which it cannot begin
    datasets: tuple[str, ...] = ()  # of images: cells of other images are not mixed
    num_seeds = (2, 5, 5)  # where none are asked for: --quick, usual, --full
    first_seed = 0
    partial = False  # whether there is a page of some of the cells, where it is interrupted

    @abstractmethod
    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        """Return the measurements by name, in order; each may read those before it."""

    @abstractmethod
    def document(self, options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        """Return the result of the study as one JSON object, from the records of all cells."""

    def reproduced(self, _result: Record) -> Mapping[str, Reproduced]:
        """Return the same quantities as measured here, under the names of the published ones."""
        return {}

    def figures(self, _result: Record) -> Mapping[str, str]:
        """Return the drawings, file name → SVG."""
        return {}

    @cached_property
    def published(self) -> Mapping[str, Published]:
        """The published numbers and claims, by name, from the study's table in `pages/`."""
        table = files("bilens_studies").joinpath("pages", f"{self.file_name()}.csv")
        return read_published(table.read_text("utf-8"), self.constants()) if table.is_file() else {}

    def page(self, document: Record) -> str:
        """Return the page about the result, in Markdown; it may show the figures by name."""
        names = {**self.constants(), "result": document["result"]}
        own = self.text and templates().from_string(self.text)
        text = (own or templates().get_template(f"{self.file_name()}.md")).render(names)
        return re.sub(r"\n{3,}", "\n\n", text).strip()  # blank lines are single

    def file_name(self) -> str:
        return self.name.rpartition("/")[2]

    def constants(self) -> Record:
        """Return all names of the study's modules, which its files in `pages/` may show."""
        found: Record = {}
        for kind in reversed(type(self).__mro__):
            found |= vars(sys.modules[kind.__module__])
        return found

    def seeds(self, options: StudyOptions) -> range:
        """Return the seeds: as many as are asked for, or as the study takes by itself."""
        number = options.seeds or options.choose(*self.num_seeds)
        return range(self.first_seed, self.first_seed + number)

    def code(self) -> str:
        """Return the SHA-256 of the files of the study's classes, those of this one apart."""
        own = [kind for kind in type(self).__mro__ if issubclass(kind, Study) and kind is not Study]
        names = dict.fromkeys(kind.__module__ for kind in own if kind.__module__ != __name__)
        return file_sha256(*(Path(str(sys.modules[name].__file__)) for name in names))

    def check(self, options: StudyOptions) -> None:
        """Refuse options that the study does not read, or lacks."""
        given = set(options.given_options())
        if given - self.uses:
            raise unused_options(self.name, given - self.uses, self.uses)
        options.choose(None, None, None)
        if missing := self.needs - given:
            raise UsageError(f"{self.name} needs {spellings(missing)}: add it.")

    def images_read(self, options: StudyOptions) -> tuple[str, ...]:
        """Return the names of the image data sets that are read; with --quick only the first."""
        names = self.datasets[: 1 if options.quick else None]
        return tuple(name for name in names if name not in options.missing)

    def fingerprints(self, options: StudyOptions) -> tuple[Record, dict[str, str]]:
        """Return the prints of images, text and models at hand, and why images are missing.

        Refuse where the first of them is.
        """
        found: Record = {}
        missing: dict[str, str] = {}
        for name in self.images_read(options):
            try:
                found[name] = options.images(name).fingerprint
            except DataError as error:
                missing[name] = f"{self.name} needs {name}: {error}"
        if why := missing.get(next(iter(self.datasets), "")):
            raise DataError(why)
        read = {"text": (options.corpus, "**/*")} if options.corpus is not None else {}
        read |= {f"model {one}": (one, "*.safetensors") for one in options.models or ()}
        for name, (place, pattern) in read.items():
            path = Path(place)
            inside = [path] if path.is_file() else sorted(filter(Path.is_file, path.glob(pattern)))
            found |= {name: file_sha256(*inside)} if inside else {}
        return found, missing


def language_recipe(corpus: str, steps: int | None, **changes: Any) -> LanguageRecipe:
    """Return the usual recipe of a corpus, for --steps where they are asked for, with changes."""
    usual = default_recipe(corpus)
    return dataclasses.replace(usual, steps=steps or usual.steps, **changes)


def spelling(field: str) -> str:
    """Return how the command line spells an option; --model is repeated for several."""
    return "--model" if field == "models" else f"--{field.replace('_', '-')}"


def spellings(fields: AbstractSet[str]) -> str:
    return ", ".join(map(spelling, sorted(fields)))


def unused_options(name: str, unused: AbstractSet[str], used: AbstractSet[str]) -> UsageError:
    """Return the refusal of options that one or several studies do not read."""
    known = spellings(used) or "none"
    return UsageError(f"{name} does not use {spellings(unused)}: its options are {known}.")


class OneModelStudy(Study):
    """A study that trains autoencoders, for --steps updates, on the one model of --model."""

    uses = frozenset({"models", "steps"})
    needs = frozenset({"models"})

    def check(self, options: StudyOptions) -> None:
        """Refuse what any study refuses, and several models."""
        super().check(options)
        model_of(options)


def model_of(options: StudyOptions) -> Path:
    models = options.models or ()
    if len(models) != 1:
        raise UsageError(
            f"--model was given {len(models)} times; expected one language model: run the study "
            "once for each, with another --out."
        )
    return Path(models[0])


def with_images(
    data: ImageDataset, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]
) -> ImageDataset:
    """Return a data set with other images and labels."""
    names = ("train_images", "train_labels", "test_images", "test_labels")
    changes: Record = dict(zip(names, (*train, *test), strict=True))
    return dataclasses.replace(data, **changes)


def sae_recipe(
    hooks: Sequence[str], steps: int, buffer_steps: int, n_ctx: int, k: int = SAERecipe.k
) -> SAERecipe:
    """Return the recipe for so many steps; a buffer holds whole texts."""
    return SAERecipe(
        hooks=tuple(hooks),
        k=k,
        tokens=steps * BATCH,
        batch_size=BATCH,
        buffer_size=buffer_steps * BATCH + n_ctx,
    )


def metrics_around(training: SAETraining, hooks: Sequence[str]) -> Record:
    """Return how good the autoencoders before and behind an MLP are."""
    return {
        side: training.metrics[hook].to_dict()
        for side, hook in zip(("in", "out"), hooks, strict=True)
    }
