"""`bilens reproduce`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bilens.cli.console import Output
from bilens.cli.options import Json, option


@dataclass(frozen=True)
class ReproduceOptions:
    """Fields of `StudyOptions`."""

    corpus: str | None = option(None, "Corpus, as for `bilens train language`.")
    model: list[Path] | None = option(None, "Run folder of a language model; may be repeated.")
    seeds: int | None = option(None, "How many seeds.", min=1)
    steps: int | None = option(None, "Updates of each training.", min=1)
    tokens: int | None = option(None, "Tokens of the longest conversion.", min=1)


def reproduce(
    output: Output,
    study: Annotated[str, typer.Argument(help="Name of the study, such as language/gates.")],
    out: Annotated[Path, typer.Option(help="Folder for the study; an interrupted one goes on.")],
    options: ReproduceOptions,
    json: Json = False,
) -> None:
    """Repeat a published measurement; cells that are measured already are kept.

    Example: bilens reproduce language/gates --corpus stories.txt --out runs/gates
    """
    from bilens.studies import find_study
    from bilens.studies.study import PAGE_NAME, StudyOptions, run_study

    models = tuple(map(str, options.model)) if options.model else None
    asked = StudyOptions(options.corpus, models, options.seeds, options.steps, options.tokens)

    def show(cell: str, done: int, total: int) -> None:
        output.say(f"{cell} ({done + 1} of {total})")

    document = run_study(find_study(study), out, asked, on_cell=show, say=output.say)
    page = (out / PAGE_NAME).read_text(encoding="utf-8")
    output.answer(json, document, page, f"Study: {out}")
