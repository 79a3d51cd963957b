"""Running a study in a folder: a cell that was measured is not measured again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from bilens.api.provenance import this_command, versions
from bilens.base import silent
from bilens.base.errors import CheckpointError, InterruptedRunError, OutputExistsError, UsageError
from bilens.base.files import read_json, write_file, write_files
from bilens.studies.autoencoders import LayerStudy, SAETrainingStudy
from bilens.studies.gates import GateStudy
from bilens.studies.negation_grammar import NegationStudy
from bilens.studies.negation_text import NegationTextStudy
from bilens.studies.study import CellContext, Record, Say, Study, StudyOptions
from bilens.train.run_folder import locked

CELLS_FOLDER, WORK_FOLDER = "cells", "work"
DOCUMENT_NAME, PAGE_NAME = "study.json", "study.md"
MAX_BYTES = 1 << 26  # of a document
STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        GateStudy(),
        NegationStudy(),
        NegationTextStudy(),
        SAETrainingStudy(),
        LayerStudy(),
    )
}


def find_study(name: str) -> Study:
    if name not in STUDIES:
        raise UsageError(f"there is no study {name!r}: choose one of {', '.join(STUDIES)}.")
    return STUDIES[name]


def run_study(
    study: Study,
    out: Path,
    options: StudyOptions,
    *,
    on_cell: Callable[[str, int, int], None] = lambda _name, _done, _total: None,
    say: Say = silent,
) -> Record:
    """Measure what is not measured yet, and write document, figures and page."""
    study.check(options)
    about = {"study": study.name, "options": options.given()}
    check_study_folder(out, about)
    done: dict[str, Record] = {}
    with locked(out):
        cells = study.cells(options)
        for index, (name, measure) in enumerate(cells.items()):
            on_cell(name, index, len(cells))
            path = out / CELLS_FOLDER / f"{name}.json"
            if path.exists():
                done[name] = read_json(path, MAX_BYTES)["record"]
                continue
            try:
                record = measure(CellContext(out / WORK_FOLDER / name, done, say))
            except InterruptedRunError:
                raise InterruptedRunError(
                    f"Interrupted in {name}; {out} keeps what was measured: repeat the same "
                    "command to go on."
                ) from None
            write_json(path, {**about, "cell": name, "record": record})
            done[name] = record
        document = {
            "schema_version": 1,
            "kind": "study",
            **about,
            "title": study.title,
            "command": this_command(),
            "versions": versions(),
            "result": study.document(options, done),
        }
        files = {out / name: svg.encode() for name, svg in study.figures(document).items()}
        page = f"# {study.title}\n\n{study.page(document).strip()}\n"
        write_files({**files, out / PAGE_NAME: page.encode()})
        write_json(out / DOCUMENT_NAME, document)
    return document


def check_study_folder(out: Path, about: Record) -> None:
    """Refuse a folder that holds anything but cells of this study with these options."""
    if out.exists() and not out.is_dir():
        raise OutputExistsError(f"{out} is a file; expected a folder for the study.")
    names = {item.name for item in out.iterdir()} if out.exists() else set()
    cells = sorted((out / CELLS_FOLDER).glob("*.json"))
    if not names & {CELLS_FOLDER, WORK_FOLDER, DOCUMENT_NAME} and names - {".lock"}:
        raise OutputExistsError(
            f"{out} holds something else than a study ({', '.join(sorted(names)[:4])}): choose "
            "another folder."
        )
    for path in cells:
        before = read_json(path, MAX_BYTES)
        if not {"study", "options", "record"} <= set(before):
            raise CheckpointError(f"{path}: is damaged: remove it, and it is measured again.")
        if {name: before[name] for name in about} != json.loads(json.dumps(about)):
            raise OutputExistsError(
                f"{out} holds cells of {before['study']} with the options {before['options']}; "
                f"this is {about['study']} with {about['options']}: choose another folder."
            )


def write_json(path: Path, document: Record) -> None:
    """Write a document, whole or not at all."""
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    write_file(path, f"{text}\n".encode())
