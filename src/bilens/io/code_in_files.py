"""Tells whether a file can run code when it is opened as files of its kind are; none of it is run.

What no reader looks into is counted as one that can.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from bilens.base.errors import BilensError, CheckpointError
from bilens.base.files import check_regular_file
from bilens.io.contents import Contents, read_entry
from bilens.io.file_kinds import ESTIMATORS, PICKLES, is_known, kind_of
from bilens.io.inventory import read_contents

BY_ENDING = {*PICKLES, *ESTIMATORS} - {".bin", ".skops"}  # are opened as pickles
WITHIN = (".pkl", ".pickle", ".pt", ".pth")  # entries of an archive that are
# Operations of graphs that call Python or reach files.
REACHING = {"PyFunc", "PyFuncStateless", "EagerPyFunc", "PythonOp", "ReadFile", "WriteFile"}
USUAL = ("sklearn", "numpy", "scipy", "builtins", "collections", "torch")  # packages


def code_in(path: Path) -> list[str]:
    """Return a sentence for each file at a path that can run code, or that cannot be looked into.

    Of a folder these are all files of kinds that are known, and those with the ending of one.
    """
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    if path.is_dir():
        files = [one for one in files if is_known(one) or one.suffix in BY_ENDING]
        if not files:
            raise CheckpointError(f"{path}: holds no model file: name a file, or another folder.")
    found = []
    for file in files:
        try:
            why = why_unsafe(file)
        except BilensError as error:
            why = str(error).removeprefix(f"{file}: ")
        found += [f"{file}: {why}"] if why else []
    return found


def why_unsafe(path: Path) -> str:
    """Return how a file can run code; empty where nothing in it can."""
    check_regular_file(path, "expected a model file")
    kind, held = kind_of(path), Contents("", [])
    if kind in ("torch", "pickle") or path.suffix in BY_ENDING or holds_pickles(path):
        with suppress(BilensError):
            held = read_contents(path)
        told = names_of(held.imports) or "what that is was not read"
        return f"is opened as a pickle, which runs what it names: {told}. Save it as safetensors."
    if kind in ("compressed", "coreml"):
        return f"is of the kind {kind}, which is not opened: what it holds is not known."
    held = read_contents(path)
    if kind == "exported":
        return "is a program of torch.export: save its weights as safetensors."
    if kind == "skops":
        with zipfile.ZipFile(path) as archive:
            schema = json.loads(read_entry(archive, "schema.json"))  # names may be in escapes
        named = {*re.findall(r'"__module__": "([^"]*)"', json.dumps(schema))}
        held.imports = tuple(one for one in named if one.partition(".")[0] not in USUAL)
    if held.imports:
        return f"imports or runs what it names when it is opened: {names_of(held.imports)}."
    if found := REACHING & held.operations.keys():
        return f"holds operations that call Python or reach files: {names_of(found)}."
    return ""


def names_of(found: Iterable[str]) -> str:
    """Return the names that tell most, in words; those of the usual packages come last."""
    order = sorted(found, key=lambda name: (name.partition(".")[0] in USUAL, name))
    return ", ".join(order[:3]) + (f" and {len(order) - 3} more" if len(order) > 3 else "")


def holds_pickles(path: Path) -> bool:
    """Tell whether a file ends as a zip archive with pickles in it, whatever it begins as."""
    with suppress(Exception), zipfile.ZipFile(path) as archive:  # damaged bytes lead anywhere
        return any(name.endswith(WITHIN) for name in archive.namelist())
    return False
