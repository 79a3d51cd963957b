"""What a study is: measurements that stand alone, and how they are told."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeAlias

from bilens.api.train import LanguageTraining, SAETraining, train_language, train_sae
from bilens.base.errors import UsageError
from bilens.train.corpus import CorpusOptions
from bilens.train.run_folder import RUN_NAME
from bilens.train.tasks.language import LanguageRecipe
from bilens.train.tasks.sae import SAERecipe

Record: TypeAlias = dict[str, Any]  # JSON values
Say: TypeAlias = Callable[[str], None]

BATCH = 1024  # activations a step of autoencoders


@dataclass(frozen=True)
class StudyOptions:
    """What a study may be asked; None is what the study takes by itself."""

    corpus: str | None = None
    models: tuple[str, ...] | None = None  # run folders of language models
    seeds: int | None = None  # how many
    steps: int | None = None  # updates of each training

    def given(self) -> Record:
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class CellContext:
    """What a measurement is given."""

    folder: Path  # its own; what it leaves there is found again when the study goes on
    done: Mapping[str, Record]  # the records of the cells before it
    say: Say

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
    uses: frozenset[str]  # names of the `StudyOptions` that it reads; the others are refused
    needs: frozenset[str] = frozenset()  # those of them without which it cannot begin

    @abstractmethod
    def cells(self, options: StudyOptions) -> Mapping[str, Measure]:
        """Return the measurements by name, in order; each may read those before it."""

    @abstractmethod
    def document(self, options: StudyOptions, cells: Mapping[str, Record]) -> Record:
        """Return the result of the study as one JSON object, from the records of all cells."""

    def page(self, document: Record) -> str:
        """Return the page about the result, in Markdown; it may show the figures by name.

        It is a text of `pages/` with `result` and the parts of the page in it.
        """
        file = f"{self.name.rpartition('/')[2]}.md"
        text = files("bilens.studies").joinpath("pages", file).read_text("utf-8")
        result = document["result"]
        return text.format(result=result, **self.parts(result))

    def parts(self, _result: Record) -> Record:
        """Return what stands in the text of the page, by name: tables and numbers."""
        return {}

    def figures(self, _document: Record) -> Mapping[str, str]:
        """Return the drawings, file name → SVG."""
        return {}

    def check(self, options: StudyOptions) -> None:
        """Refuse options that the study does not read, or lacks."""
        given = set(options.given())
        if unused := sorted(given - self.uses):
            known = ", ".join(map(spelling, sorted(self.uses))) or "none"
            raise UsageError(
                f"{self.name} does not use {', '.join(map(spelling, unused))}: its "
                f"options are {known}."
            )
        if missing := sorted(self.needs - given):
            raise UsageError(f"{self.name} needs {', '.join(map(spelling, missing))}: add it.")


def spelling(field: str) -> str:
    """Return how the command line spells an option; --model is repeated for several."""
    return "--model" if field == "models" else f"--{field}"


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


def table(heads: str, rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown; heads are split at their bars."""
    body = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([f"| {heads} |", f"|{'---|' * len(heads.split(' | '))}", *body])


def share(value: float | None) -> str:
    """Return a share of the loss; there is none where zeros cost nothing."""
    return "–" if value is None else f"{value:.1%}"


def percent(interval: Record) -> str:
    return f"{interval['value']:.1%} [{interval['low']:.1%}, {interval['high']:.1%}]"
