"""Several studies in one output folder, and one page about all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from bilens.base import silent
from bilens.base.errors import BilensError, InterruptedRunError, OutputExistsError, UsageError
from bilens.base.files import names_in, read_json, write_file
from bilens.report.reproduction import render_reproduction
from bilens.studies import STUDIES, find_studies
from bilens.studies.comparison import finding_cells
from bilens.studies.study import (
    DOCUMENT_NAME,
    MAX_BYTES,
    MODELS_FOLDER,
    Record,
    Say,
    Study,
    StudyOptions,
    run_study,
    spelling,
)

INDEX_NAME = "index.html"


def reproduce(
    names: Sequence[str],
    out: Path,
    options: StudyOptions,
    *,
    on_cell: Callable[[str, str, int, int], None] = silent,
    say: Say = silent,
) -> Record:
    """Run studies, each in `out` under its name, and write the page of all that are there.

    A study that lacks an option or its data, or fails, is left out with the reason, and the
    others run; one that lacks a further data set of images reads the first.
    """
    if not (isinstance(names, Sequence) and names and all(isinstance(n, str) for n in names)):
        raise UsageError(f"names is {names!r}; expected studies or groups, such as ['toy/logic'].")
    studies = list(dict.fromkeys(study for name in names for study in find_studies(name)))
    used = frozenset[str]().union(*(study.uses for study in studies))
    if unused := sorted(set(options.given()) - used):
        raise UsageError(
            f"{', '.join(names)} does not use {', '.join(map(spelling, unused))}: its options are "
            f"{', '.join(map(spelling, sorted(used))) or 'none'}."
        )
    check_folder(out)
    check_size(out, studies, options)
    documents: dict[str, Record] = {}
    failed: dict[str, BilensError] = {}
    for study in studies:
        try:
            documents[study.name] = run_study(
                study,
                out / study.name,
                options.for_study(study),
                models=out / MODELS_FOLDER,
                on_cell=partial(on_cell, study.name),
                say=say,
            )
        except InterruptedRunError:
            raise
        except BilensError as error:
            if len(studies) == 1:
                raise
            failed[study.name] = error
            say(f"{study.name} is left out: {error}")
    if not documents:
        raise next(iter(failed.values()))
    left_out = {name: str(error) for name, error in failed.items()}
    for name, document in documents.items():
        left_out |= {f"{name}, {data}": why for data, why in document["missing"].items()}
    write_page(out, left_out)
    return {"schema_version": 1, "kind": "reproduction", "studies": documents, "left_out": left_out}


def write_page(out: Path, left_out: Mapping[str, str]) -> None:
    """Draw the page from what the folder holds, in the order of the list of studies."""
    documents: list[Record] = []
    drawings: dict[str, str] = {}
    for name in STUDIES:
        folder = out / name
        if (folder / DOCUMENT_NAME).exists():
            documents.append(read_json(folder / DOCUMENT_NAME, MAX_BYTES))
            drawings |= {f"{name}/{path.name}": path.read_text() for path in folder.glob("*.svg")}
    pages = [page_parts(STUDIES[one["study"]], one) for one in documents]
    html = render_reproduction(pages, drawings, left_out, documents[0]["version"])
    write_file(out / INDEX_NAME, html.encode())


def page_parts(study: Study, document: Record) -> Record:
    """Return what the page shows of a study."""
    return {
        "name": study.name,
        "title": study.title,
        "command": document["command"],
        "findings": [
            {"cells": finding_cells(row), "verdict": row["verdict"]} for row in document["findings"]
        ],
        "text": study.page(document).strip(),
    }


def check_folder(out: Path) -> None:
    """Refuse a folder that holds anything but studies."""
    groups = {name.partition("/")[0] for name in STUDIES}
    if other := sorted(names_in(out, "studies") - groups - {INDEX_NAME, MODELS_FOLDER}):
        raise OutputExistsError(
            f"{out} holds something else than studies ({', '.join(other[:4])}): choose another "
            "folder."
        )


def check_size(out: Path, studies: Sequence[Study], options: StudyOptions) -> None:
    """Refuse studies of --quick on one page with others, where these have such a size."""
    quick = bool(options.quick)
    if not any("quick" in study.uses for study in studies):
        return
    for name, study in STUDIES.items():
        path = out / name / DOCUMENT_NAME
        if "quick" not in study.uses or not path.exists():
            continue
        if bool(read_json(path, MAX_BYTES)["options"].get("quick")) != quick:
            raise OutputExistsError(
                f"{out} holds {name} {'without' if quick else 'of'} --quick, which belongs on "
                "another page: choose another folder."
            )
