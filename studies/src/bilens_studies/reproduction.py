"""Several studies in one output folder, and one page about all of them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bilens import __version__
from bilens.base import check_path, names_in, write_file
from bilens.base.errors import BilensError, InterruptedRunError, OutputExistsError, UsageError
from bilens_studies.html_page import render_reproduction
from bilens_studies.page_writer import finding_cells
from bilens_studies.published import RULE
from bilens_studies.study import Record, Say, Study, StudyOptions, silent, unused_options
from bilens_studies.study_folder import DOCUMENT_NAME, MODELS_FOLDER, read_document, run_study
from bilens_studies.study_list import all_studies, find_studies

INDEX_NAME = "index.html"


def reproduce_with(
    names: str | Sequence[str], out: str | Path, given: Mapping[str, Any], **progress: Any
) -> Record:
    """Run `bl.reproduce`: the options are given by their names.

    Raises: UsageError if there is no such option.
    """
    known = [field.name for field in dataclasses.fields(StudyOptions)][:-1]  # the last is found out
    if unknown := [name for name in given if name not in known]:
        raise UsageError(f"there is no option {unknown[0]!r}: use one of {', '.join(known)}.")
    studies = [names] if isinstance(names, str) else names
    return reproduce(studies, check_path("out", out), StudyOptions(**given), **progress)


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
    check_options(", ".join(names), studies, options)
    check_folder(out, studies, options)
    documents: dict[str, Record] = {}
    failed: dict[str, BilensError] = {}
    for study in studies:
        unread: Record = dict.fromkeys(set(options.given_options()) - study.uses)
        own, folder = dataclasses.replace(options, **unread), out / study.name
        progress: Record = {"on_cell": partial(on_cell, study.name), "say": say}
        try:
            documents[study.name] = run_study(
                study, folder, own, models=out / MODELS_FOLDER, **progress
            )
        except InterruptedRunError:
            raise
        except BilensError as error:
            if len(studies) == 1:
                raise
            failed[study.name] = error
            say(f"{study.name} is left out: {str(error).removeprefix(f'{study.name} ')}")
    if not documents:
        raise next(iter(failed.values()))
    left_out = {name: str(error) for name, error in failed.items()}
    for name, document in documents.items():
        left_out |= {f"{name}, {data}": why for data, why in document["missing"].items()}
    left_out |= write_page(out, left_out)
    return {"schema_version": 1, "kind": "reproduction", "studies": documents, "left_out": left_out}


def check_options(names: str, studies: Sequence[Study], options: StudyOptions) -> None:
    """Refuse options that none of the studies reads, and two sizes at once."""
    options.choose(None, None, None)
    used = frozenset[str]().union(*(study.uses for study in studies))
    if unused := set(options.given_options()) - used:
        raise unused_options(names, unused, used)


def check_folder(out: Path, studies: Sequence[Study], options: StudyOptions) -> None:
    """Refuse a folder that holds anything but studies, and --quick on one page with other sizes."""
    groups = {name.partition("/")[0] for name in all_studies()}
    if other := sorted(names_in(out, "studies") - groups - {INDEX_NAME, MODELS_FOLDER}):
        raise OutputExistsError(
            f"{out} holds something else than studies ({', '.join(other[:4])}): choose another "
            "folder."
        )
    if not any("quick" in study.uses for study in studies):
        return
    quick = bool(options.quick)
    for name, study in all_studies().items():
        path = out / name / DOCUMENT_NAME
        has_sizes = "quick" in study.uses and path.exists()
        if has_sizes and bool(read_document(path)["options"].get("quick")) != quick:
            raise OutputExistsError(
                f"{out} holds {name} {'without' if quick else 'of'} --quick, which belongs on "
                "another page: choose another folder."
            )


def write_page(out: Path, left_out: Mapping[str, str]) -> dict[str, str]:
    """Draw the page from what the folder holds, in the order of the list of studies.

    Returns why others that are there are not on it: other code cannot draw what they wrote.
    """
    pages: list[Record] = []
    drawings: dict[str, str] = {}
    others: dict[str, str] = {}
    for name, study in all_studies().items():
        folder = out / name
        if not (folder / DOCUMENT_NAME).exists():
            continue
        document = read_document(folder / DOCUMENT_NAME)
        if document["code"] != study.code():
            others[name] = "what is there was written by other code: ask for it again"
            continue
        rows = [{"cells": finding_cells(x), "verdict": x["verdict"]} for x in document["findings"]]
        about = {"name": name, "title": study.title, "command": document["command"]}
        pages.append({**about, "findings": rows, "text": study.page(document)})
        drawings |= {f"{name}/{path.name}": path.read_text() for path in folder.glob("*.svg")}
    html = render_reproduction(pages, drawings, {**left_out, **others}, RULE, __version__)
    write_file(out / INDEX_NAME, html.encode())
    return others
