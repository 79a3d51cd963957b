"""`bilens reproduce`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bilens.base.errors import UsageError
from bilens.cli.console import Output
from bilens.cli.options import flags_of, option, refuse_unless


@dataclass(frozen=True)
class ReproduceOptions:
    """Fields of `StudyOptions`."""

    corpus: str | None = option(None, "Corpus, as for `bilens train language`.")
    model: list[Path] | None = option(None, "Run folder of a language model; may be repeated.")
    data_dir: Path | None = option(None, "Folder with MNIST and Fashion-MNIST, as IDX files.")
    seeds: int | None = option(None, "How many seeds; an interval needs 3.", min=1)
    steps: int | None = option(None, "Updates of each training.", min=1)
    tokens: int | None = option(None, "Tokens of the longest conversion.", min=1)
    full: bool = option(False, "The published size, where the usual one is smaller.")
    quick: bool = option(False, "Small enough for minutes; it shows the way and proves nothing.")


def reproduce(
    output: Output,
    studies: Annotated[
        list[str], typer.Argument(help="Studies (language/gates) or groups (toy); `list` lists.")
    ],
    options: ReproduceOptions,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the studies; interrupted ones go on.")
    ] = None,
) -> None:
    """Repeat published measurements; cells that are measured already are kept.

    Example: bilens reproduce toy --seeds 5 --out runs/reproduce
    """
    from bilens_studies.page_writer import findings_table
    from bilens_studies.reproduction import INDEX_NAME, reproduce as run
    from bilens_studies.study import StudyOptions, spelling
    from bilens_studies.study_list import all_studies

    if studies == ["list"]:
        idle = [*flags_of(options), *([] if out is None else ["--out"])]
        refuse_unless(idle, "studies to run")
        listed = {
            name: {"title": study.title, "options": sorted(map(spelling, study.uses))}
            for name, study in all_studies().items()
        }
        lines = [
            f"{name}: {one['title']} ({', '.join(one['options'])})" for name, one in listed.items()
        ]
        output.answer({"schema_version": 1, "kind": "studies", **listed}, *lines)
        return
    if out is None:
        raise UsageError("--out is missing: name a folder for the studies.")
    given: dict[str, Any] = {name: value or None for name, value in vars(options).items()}
    if models := given.pop("model"):
        given["models"] = tuple(map(str, models))
    if given["data_dir"]:
        given["data_dir"] = str(given["data_dir"])

    def show(study: str, cell: str, done: int, total: int) -> None:
        output.say(f"{study}: {cell} ({done + 1} of {total})")

    document = run(studies, out, StudyOptions(**given), on_cell=show, say=output.say)
    parts = [
        f"# {one['title']}\n\n{findings_table(one['findings'])}{out / name / 'study.md'}\n"
        for name, one in document["studies"].items()
    ]
    output.answer(document, *parts, f"Page: {out / INDEX_NAME}")
