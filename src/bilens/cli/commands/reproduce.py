"""Options of `bilens reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bilens.cli.options import Json


def reproduce(
    context: typer.Context,
    study: Annotated[str, typer.Argument(help="Name of the study, such as language/gates.")],
    out: Annotated[Path, typer.Option(help="Folder for the study; an interrupted one goes on.")],
    corpus: Annotated[
        str | None, typer.Option(help="Corpus, as for `bilens train language`.")
    ] = None,
    model: Annotated[
        list[Path] | None, typer.Option(help="Run folder of a language model; may be repeated.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="How many seeds.", min=1)] = None,
    steps: Annotated[int | None, typer.Option(help="Updates of each training.", min=1)] = None,
    json: Json = False,
) -> None:
    """Repeat a published measurement; cells that are measured already are kept.

    Example: bilens reproduce language/gates --corpus stories.txt --out runs/gates
    """
    from bilens.cli.actions.reproduce import run_reproduce_command

    models = None if not model else tuple(str(folder) for folder in model)
    run_reproduce_command(context.obj, study, out, corpus, models, seeds, steps, json)
