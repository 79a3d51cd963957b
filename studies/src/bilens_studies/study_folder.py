"""The folder that a study is run in: its cells go on where they stopped, then document and page."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from bilens import __version__
from bilens.api import describe_run
from bilens.base import names_in, read_json, write_file, write_files
from bilens.base.errors import CheckpointError, InterruptedRunError, OutputExistsError
from bilens.train import lock_run
from bilens_studies.page_writer import findings_table
from bilens_studies.published import findings
from bilens_studies.study import CellContext, Record, Say, Study, StudyOptions, silent, to_json

CELLS_FOLDER, WORK_FOLDER = "cells", "work"
DOCUMENT_NAME, PAGE_NAME = "study.json", "study.md"
MODELS_FOLDER = "models"
WHERE = ("hardware", "date")  # of the cells
ABOUT = ("study", "version", "code", "options")  # what cells are of, beside data
MAX_BYTES = 1 << 26  # of a document


def run_study(
    study: Study,
    out: Path,
    options: StudyOptions,
    *,
    models: Path | None = None,
    on_cell: Callable[[str, int, int], None] = silent,
    say: Say = silent,
) -> Record:
    """Measure the cells that are missing, and write document, figures and page."""
    study.check(options)
    data, missing = study.fingerprints(options)
    given = {name: x for name, x in options.given_options().items() if name != "data_dir"}
    about = {"study": study.name, "version": __version__, "code": study.code(), "options": given}
    about |= data
    options = dataclasses.replace(options, missing=tuple(missing))
    check_study_folder(out, study, about)
    run: Record = to_json(describe_run(None, 0))
    done: dict[str, Record] = {}
    runs: list[Record] = []
    stopped: InterruptedRunError | None = None
    with lock_run(out):
        cells = study.cells(options)
        for index, (name, measure) in enumerate(cells.items()):
            on_cell(name, index, len(cells))
            path = out / CELLS_FOLDER / f"{name}.json"
            if not path.exists():
                shared = models or out / WORK_FOLDER / MODELS_FOLDER
                try:
                    record = measure(CellContext(out / WORK_FOLDER / name, done, say, shared))
                except (InterruptedRunError, KeyboardInterrupt):
                    stopped = InterruptedRunError(
                        f"Interrupted in {name}; {out} keeps what was measured: repeat the same "
                        "command to go on."
                    )
                    if study.partial and done:
                        break
                    raise stopped from None
                where = {key: run[key] for key in WHERE}
                write_json(path, {**about, "cell": name, "run": where, "record": record})
            cell = read_document(path)
            done[name] = cell["record"]
            runs.append(cell["run"])
        result = study.document(options, done)
        document = {
            "schema_version": 1,
            "kind": "study",
            **about,
            "title": study.title,
            "command": run["command"],
            "versions": run["versions"],
            **{key: sorted({one[key] for one in runs}) for key in WHERE},
            "findings": findings(study.published, study.reproduced(result), bool(options.quick)),
            "missing": missing,
            "result": result,
        }
        write_pages(out, study, document)
    if stopped:
        raise stopped
    return document


def write_pages(out: Path, study: Study, document: Record) -> None:
    """Write figures and page, and the document when they are there."""
    drawn = {out / name: svg.encode() for name, svg in study.figures(document["result"]).items()}
    lacks = "".join(f"Left out: {why}\n\n" for why in document["missing"].values())
    beside = findings_table(document["findings"])
    page = f"# {study.title}\n\n{lacks}{beside}{study.page(document)}\n"
    write_files({**drawn, out / PAGE_NAME: page.encode()})
    write_json(out / DOCUMENT_NAME, document)


def check_study_folder(out: Path, study: Study, about: Record) -> None:
    """Refuse a folder that holds anything but cells of a study with the options of `about`."""
    names = names_in(out, "study")
    if not names & {CELLS_FOLDER, WORK_FOLDER, DOCUMENT_NAME} and names - {".lock"}:
        raise OutputExistsError(
            f"{out} holds something else than a study ({', '.join(sorted(names)[:4])}): choose "
            "another folder."
        )
    now: Record = json.loads(json.dumps(about))
    for path in sorted((out / CELLS_FOLDER).glob("*.json")):
        before = read_document(path)
        if not {*ABOUT, "run", "record"} <= before.keys():
            raise damaged(path)
        # images that were missing may be at hand now, or the other way round
        found = {name: before[name] for name in now if name in before}
        if found["code"] != now["code"]:
            raise OutputExistsError(
                f"{out} holds cells that other code of {study.name} measured: choose another "
                f"folder; trained models go on there where you move {MODELS_FOLDER} to it."
            )
        if found != {name: now[name] for name in found}:
            raise OutputExistsError(
                f"{out} holds cells of {describe_cells(found)}; this is {describe_cells(now)}: "
                "choose another folder."
            )


def describe_cells(about: Record) -> str:
    """Return study, options and data of cells, in words."""
    data = [f"{name} {(str(value))[:8]}" for name, value in about.items() if name not in ABOUT]
    text = f"{about['study']} with the options {about['options']} (bilens {about['version']})"
    return f"{text} on {' and '.join(data)}" if data else text


def read_document(path: Path) -> Record:
    """Return a cell or a document. Raises: CheckpointError if it is damaged."""
    try:
        return read_json(path, MAX_BYTES)
    except CheckpointError as error:
        raise damaged(path) from error


def damaged(path: Path) -> CheckpointError:
    return CheckpointError(f"{path}: is damaged: remove it, and the same command makes it again.")


def write_json(path: Path, document: Record) -> None:
    """Write a document, whole or not at all."""
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    write_file(path, f"{text}\n".encode())
