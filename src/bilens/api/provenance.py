"""The provenance and the identity of a result: its weights, data, options and run."""

import json
import os
import platform
import re
import shlex
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np
import torch
from msgspec import structs

from bilens import records
from bilens.algebra.approximation.layer_weights import in_dtype
from bilens.base.errors import BilensError, CheckpointError
from bilens.base.files import file_sha256
from bilens.data.images import ImageDataset
from bilens.data.model_interface import LabelledData
from bilens.data.table_rows import FITTED_KEY, ROWS_KEY
from bilens.io.file_kinds import BELOW, HIDDEN, MODELS, OWN, files_below, is_known, mark_of
from bilens.io.formats.safetensors_folder import INDEX_NAME, files_of, shards
from bilens.io.load import LoadedModel
from bilens.io.loaded_model import CHANGED, WEIGHTS_NAME
from bilens.io.tensors import tensors_sha256
from bilens.nn.real_run import answers_otherwise_in_training, hooked_parts
from bilens.records.base import Document, kind_of, read_document, to_json
from bilens.records.column_readings import TableReading
from bilens.records.common import DataOrigin, Identity, Origin, Run, Source, key_of
from bilens.records.history import WatchReport
from bilens.version import VERSION

READING = "reading"  # in the provenance of a model of a table


def origin_of(
    model: LoadedModel, data: LabelledData | None, command: str | None, seed: int
) -> Origin:
    about = None if data is None else data.origin
    source = describe_source(model)
    source = structs.replace(source, files=files_read(model) if source.path else {})
    return Origin(source, about, describe_run(command, seed))


def files_read(model: LoadedModel) -> dict[str, str]:
    """Return the SHA-256 of the files of a model, those that its weights were read from first.

    What came since it was opened is left out: it was not read. A folder that is not gone through is
    one entry, whose name ends in a slash.

    Raises:
        CheckpointError: If one of them changed since, or is gone.
    """
    weights = weight_files_of(model)
    check_unchanged(model)
    below = Path(model.below) if model.below else None
    read = [*weights, *sorted(tensor_files(model) - {*weights})]
    beside = read_beside(Path(model.home), below) if read else {}
    names = {path: name for name, path in beside.items()}
    files = {names.get(path) or name_below(model, path): path for path in read} | {
        name: path for name, path in beside.items() if not model.marks or path in model.marks
    }
    places = os.path.abspath(model.home), os.path.realpath(model.home)  # noqa: PTH100
    own = {Path(one).name for one in places if Path(one).is_dir()}
    found = {f"{OWN}{n}" if n in own else n: file_sha256(path) for n, path in files.items()}
    unseen = unseen_in(Path(model.home)) if read else {}
    found |= {f"{name}/": folder_key(path) for name, path in unseen.items()}
    check_unchanged(model)
    return found


def name_below(model: LoadedModel, path: Path) -> str:
    """Return the path of a file from the folder of a model, or its name alone."""
    place = Path(model.home)
    place = place if place.is_dir() else place.parent
    return path.relative_to(place).as_posix() if path.is_relative_to(place) else path.name


def check_unchanged(model: LoadedModel) -> None:
    """Refuse a model of which a file changed, or went, since it was opened."""
    own = {Path(x) for x in (model.source, model.home, model.below, *model.files) if x}
    for path, mark in model.marks.items() if Path(model.source).exists() else ():
        is_own = not own.isdisjoint((path, *path.parents))
        if is_own and mark_of(path) != mark and not is_prose(path):
            raise CheckpointError(
                f"{path}: changed since it was opened, so what was read is not what lies there: "
                "read the model again."
            )


def weight_files_of(model: LoadedModel) -> list[Path]:
    """Return the files that the weights of a model were read from."""
    source = Path(model.source)
    if model.files or source.is_file():
        weights = [*model.files] or [source]
    elif not model.source or not source.is_dir():
        weights = []
    elif any((source / name).exists() for name in (WEIGHTS_NAME, INDEX_NAME)):
        placed = shards(source)
        weights = files_of(source, placed) + ([] if placed is None else [source / INDEX_NAME])
    else:
        near = filter(Path.is_file, source.iterdir())
        weights = [path for path in near if file_sha256(path) == model.weights_sha256]
    return weights


def describe_source(model: LoadedModel) -> Source:
    """Return where weights come from; a model in memory, or changed there, has no path."""
    long = READING, ROWS_KEY, FITTED_KEY
    said = {key: value for key, value in model.provenance.items() if key not in long}
    known = {"headers_sha256": model.identity} if model.headers else {}
    given = model.original if model.module is None else model.module
    of_class = "://" in model.source or (model.source and Path(model.source).exists())
    in_memory = CHANGED in model.provenance or (model.original is not None and not of_class)
    path = "" if in_memory else model.home
    in_training = answers_otherwise_in_training(given)
    hooks = () if given is None else hooked_parts(given)
    return Source(path, model.weights_sha256, said | known, {}, in_training, hooks)


def reading_of(model: LoadedModel) -> TableReading | None:
    """Return how the table of the training was read; None where the model does not say it."""
    text = model.provenance.get(READING)
    if text is None or model.input_mean is None:
        return None
    try:
        found = msgspec.json.decode(text, type=TableReading)
    except msgspec.MsgspecError as error:
        raise CheckpointError(f"{model.source}: has no {READING} of a table ({error}).") from None
    if tuple(name for one in found.columns for name in one.inputs) != model.input_names:
        raise CheckpointError(f"{model.source}: its inputs are not those of its {READING}.")
    return found


def image_origin(data: ImageDataset) -> DataOrigin:
    number = len(data.test_images)
    return DataOrigin(data.name, data.source, data.source_kind, number, data.fingerprint)


def describe_run(command: str | None, seed: int) -> Run:
    """Describe how a result was made: command, seed, versions, processor and date."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    processor = capabilities.get("cpu_name") or platform.machine()
    return Run(
        command=this_command() if command is None else command,
        seed=seed,
        versions=versions(),
        hardware=f"{processor}, {torch.get_num_threads()} threads",
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
    )


def versions() -> dict[str, str]:
    numbers = {"torch": str(torch.__version__), "numpy": np.__version__}
    return {"bilens": VERSION, "python": platform.python_version(), **numbers}


def this_command(arguments: Sequence[str] | None = None) -> str:
    """Return the command line of this process, without the folder of the program."""
    program, *rest = sys.argv if arguments is None else arguments
    name = "bilens" if Path(program).name == "__main__.py" else Path(program).name
    return shlex.join([name or "python", *rest])


# ---- what makes two results ones of the same

COMPANION = re.compile(  # configuration, tokenizer and code of a model
    r"(?!adapter)(?:config|\w+_config|special_tokens_map|added_tokens|modules|encoder|decoder"
    r"|\w*template\w*|params|tekken"
    r"|tokenizer.*|vocab.*|bpe.*)\.json|(?:special_tokens|dict|.*vocab|merges).*\.txt"
    r"|.*\.(?:jinja|model|spm|tiktoken|py|codes|bpe)"
)
# what nobody computes with: texts about a model, pictures, and what people said of it
PROSE = re.compile(
    r"(?:readme|licen[cs]es?|copying|notice|changelog|citation)\b[^.]*(?:\.(?:txt|cff|bib))?"
    r"|.*\.(?:(?:intoto|cdx)\.json|sarif)|junit\.xml"  # evidence
    r"|\.(?:git.*|cache|huggingface|DS_Store|ipynb_checkpoints|bilens-watch\.lock|bilens\.db\.lock)|bilens\.db(?:-\w+)?|.*\.(?:md|rst|html?|pdf|png|jpe?g|gif|svg|webp|log)",
    re.IGNORECASE,
)
# JSON that a loader reads, whatever stands at its beginning
LOADED = re.compile(rf"adapter.*|cfg\.json|.*index\.json|{COMPANION.pattern}")
AUDITS = records.Attack, records.Audit, records.Certificate, records.Conversion, records.Trace
WRITTEN: tuple[type[Document], ...] = (*AUDITS, WatchReport)
LARGEST_REPORT = 1 << 25  # bytes
REPORT_KIND = re.compile(rb'"schema_version":\s*\d+,\s*"kind":\s*"([a-z ]+)"')
REPORTS = {kind_of(one): one for one in WRITTEN}
WEIGHTS = (*MODELS, ".msgpack")
MOST_FILES, MOST_BYTES = 20_000, 1 << 34  # of a folder that is not gone through, which are hashed
JUDGED_CELLS = "unseen", "missing"  # by rules, and nothing is left of them in the inputs


def identity_of(
    model: LoadedModel,
    data: LabelledData | None = None,
    baseline: LoadedModel | None = None,
    options: Mapping[str, object] | None = None,
) -> Identity:
    """Return the identity of a result; `options` are what else its numbers depend on."""
    return Identity(
        weights=model.identity,
        reading=key_of(how_it_is_read(model)),
        data=data_sha256(data),
        baseline="" if baseline is None else key_of(how_it_is_read(baseline)),
        options=key_of(options or {}),
    )


def how_it_is_read(model: LoadedModel) -> dict[str, object]:
    """Return weights and what the same weights can be read otherwise by.

    Weights are read of a module in memory alone, whose code has numbers of its own.
    """
    layers = {
        name: [str(view.activation), view.gated, view.reads, view.gives, view.about_input]
        for name, view in model.layers.items()
    }
    report, beside = model.load_report, files_beside(model)
    check_unchanged(model)
    return {
        "weights": model.identity,
        "layers": layers,
        "roles": None if report is None else [report.roles, report.head],
        "residual": bool(getattr(model.module, "residual", False)),
        "names": [model.input_names, model.output_names, model.input_shape],
        "units": [model.input_mean, model.input_scale],
        "beside": beside,
        **({} if model.original is None else {"numbers": numbers_of(model)}),
    }


def numbers_of(model: LoadedModel) -> str:
    """Return the SHA-256 of the layers as they are read, in float32; empty without weights."""
    views = model.layers.items() if model.weights_sha256 else ()
    parts = (
        (f"{name} {part}", number)
        for name, view in views
        for part, number in vars(in_dtype(view.read(), torch.float32)).items()
    )
    return tensors_sha256((name, one) for name, one in parts if isinstance(one, torch.Tensor))


def files_beside(model: LoadedModel) -> dict[str, str]:
    """Return the SHA-256 of what lies beside the weights that were read: also other weights.

    These are left out where not even those that were read are known by their bytes. Folders that
    are not gone through are known by all that lies in them.
    """
    places = [Path(place) for place in (model.home, model.below) if place]
    hashed = {*weight_files_of(model)}  # with the weights
    hashed |= {path for path in tensor_files(model) if {path, path.parent} & {*places[1:]}}
    own = {path for path in hashed if path.name != INDEX_NAME}
    return {
        f"{number} {name}": file_sha256(path)
        for number, place in enumerate(places)
        for name, path in read_beside(place).items()
        if path not in own and not (model.headers and is_of_weights(path))
    } | {
        f"{number} {name}": folder_key(path)
        for number, place in enumerate(places)
        for name, path in unseen_in(place).items()
    }


def folder_key(folder: Path, hash_file: Callable[[Path], str | None] = file_sha256) -> str:
    """Return a text that two folders share where the same bytes lie in them, links followed.

    Of more than MOST_BYTES it is of where each file lies and when it changed, so that no copy has
    the same; with more than MOST_FILES, or one that cannot be read, it is another each time.
    """
    parts, is_hashed = parts_in(folder)
    with suppress(OSError):
        if is_hashed:
            told = [(n, hash_file(x) if isinstance(x, Path) else x) for n, x in parts]
            return key_of({"files": told})
        if parts:
            files = (x for _, x in parts if isinstance(x, Path))
            return key_of({"marks": [(os.path.realpath(x), mark_of(x)) for x in files]})
    return uuid4().hex


def parts_in(folder: Path) -> tuple[list[tuple[str, Path | str]], bool]:
    """List the files of a folder by name, and whether all of it is hashed; too much is not read.

    Links are followed.
    """
    parts, known, todo = list[tuple[str, Path | str]](), dict[Path, str](), [folder]
    with suppress(OSError):
        while todo and len(parts) + len(known) < MOST_FILES:
            path = todo.pop()
            name = path.relative_to(folder).as_posix().encode(errors="backslashreplace").decode()
            real = Path(os.path.realpath(path))
            if path.is_dir() and real not in known:
                known[real] = name
                todo += sorted(path.iterdir())
            else:  # a folder that was met, or what is no file, by name
                parts.append((name, path if path.is_file() else known.get(real, "no file")))
        if not todo:
            size = sum(path.stat().st_size for _, path in parts if isinstance(path, Path))
            return parts, size <= MOST_BYTES
    return [], False


def files_with_tensors(model: LoadedModel) -> set[Path]:
    """Return the files of the tensors that are read, or compared, of a model, without an index."""
    found = tensor_files(model) | {*weight_files_of(model)}
    return {path for path in found if path.name != INDEX_NAME}


def tensor_files(model: LoadedModel) -> set[Path]:
    """Return the files that the tensors of a model are in."""
    return {path for path in {one.path for one in model.tensors.values()} if path.is_file()}


def is_of_weights(path: Path) -> bool:
    """Tell whether a file is of weights, by its name or its first bytes."""
    return not COMPANION.fullmatch(path.name) and (path.suffix in WEIGHTS or is_known(path))


def read_beside(folder: Path, below: Path | None = None) -> dict[str, Path]:
    """Return the files of a model's folder that it may be made of: all but texts about it.

    Those of the model below an adapter, too, where it is given.
    """
    found = {name: path for name, path in files_below(folder).items() if not is_prose(path)}
    if below is None:
        return found
    others = read_beside(below) if below.is_dir() else {below.name: below}
    return found | {f"{BELOW}{name}": path for name, path in others.items()}


def is_prose(path: Path) -> bool:
    """Tell whether nobody computes with a file: texts by name, what tools hide, our own reports.

    A file that begins as a report and is no JSON is a damaged one, which no loader reads either.
    """
    if path.is_dir() or PROSE.fullmatch(path.name):
        return True
    if path.suffix != ".json" or LOADED.fullmatch(path.name) or path.is_symlink():
        return False
    with suppress(OSError, RecursionError, BilensError):
        with path.open("rb") as file:
            start = file.read(400)
        kind = REPORT_KIND.search(start)
        if kind is None or kind[1].decode() not in REPORTS:
            return not start
        if path.stat().st_size > LARGEST_REPORT:
            return False
        try:
            found = json.loads(path.read_bytes())
        except ValueError:
            return True
        record = read_document(REPORTS[kind[1].decode()], found)
        return {*found} <= {one.encode_name for one in msgspec.structs.fields(record)}
    return False


def unseen_in(folder: Path) -> dict[str, Path]:
    """Return the folders in one of a model that are not gone through, and may be part of it.

    Those that tools hide are it where the modules of the model name them.
    """
    found = files_below(folder) if folder.is_dir() else {}
    parts = folder / "modules.json"
    named = parts.read_text("utf-8", "replace") if found and parts.is_file() else ""
    unseen = {name: one for name, one in found.items() if one.is_dir()}
    return {n: one for n, one in unseen.items() if one.name not in HIDDEN or one.name in named}


def folders_unseen(model: LoadedModel) -> dict[str, set[str]]:
    """Return the folders of a model that are not gone through, by name, and what lies in them."""
    found = defaultdict[str, set[str]](set)
    for place in (model.below, model.home):
        for name, path in (unseen_in(Path(place)) if place else {}).items():
            found[name].add(folder_key(path))
    return found


def data_sha256(data: LabelledData | None) -> str:
    """Return the SHA-256 of inputs and right answers as a model is given them; empty for none."""
    if data is None:
        return ""
    parts = [("inputs", data.inputs)]
    found = tensors_sha256(parts if data.targets is None else [*parts, ("targets", data.targets)])
    cells = [to_json(one) for one in data.done if one.kind in JUDGED_CELLS]
    return key_of({"rows": found, "cells": cells}) if cells else found
