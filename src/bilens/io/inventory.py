"""`bl.inventory`: what a file or folder is, read without torch and without running anything in it.

Each kind of file is told by its first bytes, or by its name where these say nothing, and has one
reader of its contents.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from bilens.base.errors import BilensError, CheckpointError, MissingExtraError
from bilens.base.files import check_path, check_regular_file, file_sha256, why_unreadable
from bilens.io import header_contents as headers
from bilens.io.contents import Contents, Operation, UnknownKindError
from bilens.io.file_kinds import (
    OTHERS,
    SHARDS,
    is_known,
    kind_of,
    models_in,
    no_model_in,
    parts_below,
    revisions_in,
)
from bilens.io.onnx_contents import read_onnx_contents
from bilens.io.pickle_inventory import read_plain_pickle, read_torch_contents
from bilens.io.tensorflow_contents import (
    read_hdf5_contents,
    read_keras_contents,
    read_tensorflow,
)
from bilens.io.tflite_contents import read_tflite
from bilens.records.inventory import CardField, CountedName, FileEntry, FileState, Inventory

Read = Callable[[Path], Contents]
READERS: Mapping[str, Read] = {  # kind of a file → what reads its contents
    "safetensors": headers.read_safetensors_contents,
    "gguf": headers.read_gguf_contents,
    "onnx": read_onnx_contents,
    "torch": read_torch_contents,
    "exported": headers.read_exported,
    "keras": read_keras_contents,
    "hdf5": read_hdf5_contents,
    "tensorflow": read_tensorflow,
    "tflite": read_tflite,
    "skops": headers.read_npz,
    "arrays": headers.read_npz,
    "trees": headers.read_trees,
    "pickle": read_plain_pickle,
    "fasttext": headers.read_fasttext,
    "dynet": headers.read_dynet,
    "scores": headers.read_scores,
    "thinc": headers.read_thinc,
    "coreml": partial(headers.name_unopened, "Core ML"),
    "compressed": partial(headers.name_unopened, "compressed file"),
}
PART = re.compile(r"(.*-)\d{5}(-of-)(\d{5})(\.\w+)")
INDEX = re.compile(r"(model\.safetensors|pytorch_model\.bin)\.index\.json")
# What stands beside a model and describes it.
BESIDE = re.compile(
    r"(readme|licen[cs]es?|copying|notice|model_?card|changelog|citation)(\b|_).*"
    r"|.*(config|tokenizer|vocab|merges|special_tokens|added_tokens|labels|classes|modules"
    r"|preprocessor|processor|chat_template|spiece|sentencepiece|metadata|keras|fingerprint)"
    r"\w*\.(json|txt|model|yaml|yml|pb|jinja|cfg)|meta\.json|.*\.index\.json"
    r"|manifest\.json|\.gitattributes",
    re.IGNORECASE,
)
OF_SAVED_MODEL = ("keras_metadata.pb", "fingerprint.pb")
TEXTS = (".txt", ".md", ".rst", ".yaml", ".yml", ".cfg", ".jinja")  # are no models, though alike
CARD = ["license", "license_name", "base_model", "datasets", "language", "library_name"]
CARD += ["pipeline_tag", "tags"]
CONFIG = ("license", "model_type", "architectures", "_name_or_path", "torch_dtype", "dtype")
SPEAKING = (*OTHERS, ".pt", ".pth")  # endings that stand for one kind of model
MOST_FILES, MOST_TEXT = 10_000, 1 << 20
Known = Collection[str]


def inventory(path: str | Path) -> Inventory:
    """Say what a file or folder is, without running anything in it.

    Format, operations or modules by kind, inputs and outputs, all tensors in groups of names that
    differ in numbers alone, tensors that are tied, licence and model card where they lie beside
    it, and SHA-256. Pickles are read by their steps: no class in them is imported. Of a folder
    every file is listed, with what became of it.

    Args:
        path: a model file of any kind that is known, or a folder.

    Returns:
        A record; `to_dict()` gives it as JSON values.

    Raises:
        CheckpointError: If there is nothing at the path, a file is damaged, or of no known kind.
        MissingExtraError: If a package that reads the format is not installed.
    """
    return take_inventory(check_path("path", path))


def take_inventory(path: Path, read: Known | None = None) -> Inventory:
    """Return the inventory of a path; `read` names the tensors in layers that were read."""
    files = tuple(list_files(path)) if path.is_dir() else ()
    contents = contents_at(path)
    contents.notes += other_parts(contents.files)
    contents.hashes = {path / one.name: one.sha256 for one in files}
    size = sum(file.stat().st_size for file in contents.files)
    if path.is_dir() and not contents.files:
        size = sum(one.bytes for one in files)
    card = tuple(card_fields(path, contents))
    return inventory_of(contents, str(path), read, size, card, files)


def inventory_of(
    contents: Contents,
    path: str = "",
    read: Known | None = None,
    size: int | None = None,
    card: tuple[CardField, ...] = (),
    files: tuple[FileEntry, ...] = (),
) -> Inventory:
    if read and not {*read} & {*contents.names()}:
        read = None  # layers whose tensors have other names than in the file
    return Inventory(
        path=path,
        format=contents.format,
        bytes=size,
        sha256=contents.sha256,
        parameters=contents.parameters if contents.tensors else None,
        codes=contents.codes,
        tensors=len(contents.tensors),
        operations=tuple(CountedName(name, n) for name, n in contents.operations.most_common()),
        parts=contents.counted_parts(read),
        ports=tuple(contents.ports),
        groups=contents.groups(),
        tied=contents.tied(),
        card=card,
        notes=tuple(contents.notes),
        imports=contents.imports,
        files=files,
    )


def contents_at(path: Path) -> Contents:
    return folder_contents(path) if path.is_dir() else read_contents(path)


def other_parts(files: Sequence[Path]) -> Iterator[str]:
    """Yield, of a model in several files, those that were not read."""
    found = next(filter(None, (PART.fullmatch(file.name) for file in files)), None)
    if found is None:
        return
    for number in range(1, int(found[3]) + 1):
        other = files[0].with_name(f"{found[1]}{number:05}{found[2]}{found[3]}{found[4]}")
        if other not in files:
            why = "was not read with it" if other.exists() else "is not there"
            yield f"{other.name}, a part of the model, {why}"


# ---- one file


def read_contents(path: Path) -> Contents:
    """Read the contents of a file; refuse an unknown kind and a damaged file in one sentence."""
    try:
        size = check_regular_file(path, "expected a model file").st_size
        kind = kind_of(path)
        if kind not in READERS:
            raise unknown_kind(path, size)
        return READERS[kind](path)
    except BilensError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: {why_unreadable(error)}") from error
    except Exception as error:  # damaged bytes lead anywhere
        raise not_readable(path, kind, error) from error


def not_readable(path: Path, kind: str, error: Exception) -> CheckpointError:
    reason = str(error) if 0 < len(str(error)) < 120 else type(error).__name__
    return CheckpointError(
        f"{path}: is not a readable file of the kind {kind} ({reason}): check that the download is "
        "complete."
    )


def unknown_kind(path: Path, size: int) -> UnknownKindError:
    """Return the refusal of a file; raise ValueError for one of a known kind that is damaged."""
    with path.open("rb") as file:
        start = file.read(8)
    is_cut = start.startswith(b"PK\3\4") and not zipfile.is_zipfile(path)
    if path.suffix in SPEAKING or is_cut:
        raise ValueError("its bytes are not those of what its name or its beginning says")
    return UnknownKindError(
        f"{path}: is of a kind that is not known: {size} bytes that begin with {start.hex(' ')}, "
        f"SHA-256 {file_sha256(path)}. What is read: safetensors, GGUF, ONNX, PyTorch, Keras, "
        "HDF5, SavedModel and TensorFlow Lite, skops and pickles, NumPy, LightGBM, XGBoost, "
        "CatBoost, fastText, spaCy and DyNet."
    )


# ---- folders


def folder_contents(folder: Path) -> Contents:
    """Read the one model of a folder; a folder of several, or of none, has no tensors."""
    if (folder / "saved_model.pb").is_file():
        return read_contents(folder / "saved_model.pb")
    weights = weights_of(folder)
    if not weights and (models := models_in(folder, any_kind=True)):
        inner = len(models) == 1 and models[0] != folder and models[0].is_dir()
        return folder_contents(models[0]) if inner else Contents("folder", [])
    if not weights:  # a pipeline, or a package: parts in folders below
        found = [file for file in parts_below(folder) if not is_beside(file)]
        return joined(folder, [read_contents(file) for file in found])
    return joined(None, [read_contents(file) for file in weights])


def joined(folder: Path | None, parts: list[Contents]) -> Contents:
    """Return parts of a model as one; tensors of those below a folder have the path in front."""
    if folder is not None and not parts:
        raise no_model_in(folder, folder)
    whole = replace(parts[0], tensors=[], files=[], operations=Counter(), notes=[], left_out=[])
    for part in parts:
        path = "" if folder is None else f"{part.files[0].parent.relative_to(folder).as_posix()}/"
        whole.tensors += [one._replace(name=f"{path}{one.name}") for one in part.tensors]
        whole.files += part.files
        whole.operations += part.operations
        whole.notes += part.notes
        whole.left_out += part.left_out
    programs = [part.program for part in parts if part.program is not None]
    if folder is None and len(programs) > 1:  # of shards, words alone
        held = Operation("metadata", {})
        whole.program = lambda: [held.parts.update(one().parts) for one in programs] and held
    formats = [*dict.fromkeys(part.format for part in parts)]
    whole.format = ", ".join([*formats, f"{len(parts)} files"] if len(parts) > 1 else formats)
    return whole


def weights_of(folder: Path) -> list[Path]:
    """Return the files of the weights of a folder that is one model: one file, or its shards."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    placed = [path for path in files if INDEX.fullmatch(path.name)]
    if placed:
        with suppress(ValueError, AttributeError):
            names = {*json.loads(placed[0].read_text("utf-8"))["weight_map"].values()}
            found = [path for path in files if path.name in names]
            if len(found) < len(names):
                lost = sorted(names - {path.name for path in found})
                raise CheckpointError(f"{folder}: lacks {lost[0]}, which {placed[0].name} names.")
            return found
    shards = [path for path in files if SHARDS.fullmatch(path.name)]
    ends = {path.suffix for path in shards}
    if shards:
        best = ".safetensors" if ".safetensors" in ends else ".bin"
        return [path for path in shards if path.suffix == best]
    models = [path for path in files if not is_beside(path) and is_known(path)]
    return models if len(models) == 1 else []


def list_files(folder: Path) -> Iterator[FileEntry]:
    """Yield every file below a folder, and what became of it."""
    part_of: dict[Path, FileState] = {}
    with suppress(BilensError):
        part_of = dict.fromkeys(folder_contents(folder).files, "read")
    count = 0
    for home, folders, names in os.walk(folder):
        folders.sort()
        links = [name for name in folders if (Path(home) / name).is_symlink()]  # not followed
        revisions = revisions_in(Path(home).parent) if Path(home).name == "blobs" else []
        listed = {file.resolve() for one in revisions for file in one.rglob("*")}  # by their names
        for path in (Path(home) / name for name in sorted([*names, *links])):
            if listed and path.resolve() in listed:
                continue
            count += 1
            if count > MOST_FILES:
                raise CheckpointError(f"{folder}: holds over {MOST_FILES} files: name one model.")
            yield file_entry(folder, path, part_of)


def file_entry(folder: Path, path: Path, part_of: dict[Path, FileState]) -> FileEntry:
    """Return the entry of a file of a folder; `part_of` learns which others it speaks of."""
    name, size, sha256 = path.relative_to(folder).as_posix(), 0, ""
    kind = part_of.get(path, "listed")
    if not path.is_file():
        why = "is a link to a folder, not followed" if path.is_dir() else "is no regular file"
        return FileEntry(name, 0, "refused", why, None, "")
    try:
        size, sha256 = path.stat().st_size, file_sha256(path)
        if size == 0:
            return FileEntry(name, 0, "no_model", "", None, sha256)
        if path not in part_of and is_beside(path):
            return FileEntry(name, size, "beside", "", None, sha256)
        found = read_contents(path)
    except UnknownKindError:  # such as the numbers beside an index
        return FileEntry(name, size, part_of.get(path, "no_model"), "", None, sha256)
    except (BilensError, OSError) as error:
        kind = "listed" if isinstance(error, MissingExtraError) else "refused"
        return FileEntry(name, size, kind, str(error).removeprefix(f"{path}: "), None, sha256)
    part_of |= {file: kind for file in found.files if file not in part_of}
    return FileEntry(name, size, kind, found.format, found.parameters, sha256)


def is_beside(path: Path) -> bool:
    """Tell whether a file describes a model: one whose bytes are those of a model is none."""
    if not BESIDE.fullmatch(path.name):
        return False
    return path.suffix in TEXTS or path.name in OF_SAVED_MODEL or not is_known(path)


# ---- what is said of a model


def card_fields(path: Path, contents: Contents) -> Iterator[CardField]:
    """Yield licence and further fields that a model, or a file beside it, says of it."""
    folder = path if path.is_dir() else path.parent
    for name, value in contents.said.items():
        if len(value) < 2000:
            yield CardField(name, value, "")
    if (card := folder / "README.md").is_file():
        for name, value in front_matter(card):
            yield CardField(name, value, card.name)
    if (config := folder / "config.json").is_file() and config.stat().st_size < MOST_TEXT:
        with suppress(ValueError, OSError, AttributeError, RecursionError):
            said = json.loads(config.read_text("utf-8"))
            for name in CONFIG:
                if value := said.get(name):
                    shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
                    yield CardField(name, shown, config.name)
    for file in sorted(folder.iterdir() if folder.is_dir() else ()):
        named = re.match(r"(licen[cs]e|copying)", file.name, re.IGNORECASE)
        if named and file.is_file() and is_beside(file):
            lines = file.read_text("utf-8", "replace")[:MOST_TEXT].splitlines()
            if first := next((line.strip() for line in lines if line.strip()), ""):
                yield CardField("license", first, file.name)


def front_matter(card: Path) -> Iterator[tuple[str, str]]:
    """Yield the fields of a model card that are known, from the lines between its first dashes."""
    with suppress(OSError):
        before, dashes, rest = card.read_text("utf-8", "replace")[:MOST_TEXT].partition("---\n")
        said: dict[str, list[str]] = {}
        key = ""
        for line in (
            rest.partition("\n---")[0].splitlines() if dashes and not before.strip() else ()
        ):
            if found := re.fullmatch(r"(\w+):\s*(.*)", line):
                key, first = found[1], plain_value(found[2])
                said[key] = [first] if first else []
            elif (item := re.fullmatch(r"\s*-\s+(.*)", line)) and key:
                said[key].append(plain_value(item[1]))
        for name in CARD:
            if values := said.get(name):
                yield name, ", ".join(values)


def plain_value(text: str) -> str:
    """Return a value of YAML without its quotes, or without the comment behind it."""
    quoted = re.match(r"""\s*(["'])(.*?)\1\s*(?:#.*)?$""", text)
    return quoted[2] if quoted else re.split(r"(?:^|\s)#", text)[0].strip()
