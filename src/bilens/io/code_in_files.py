"""Tells whether a file can run code when it is opened as files of its kind are; none of it is run.

What no reader looks into is counted as one that can.
"""

from __future__ import annotations

import json
import re
import zipfile
from contextlib import suppress
from pathlib import Path

from bilens.base.errors import BilensError, CheckpointError
from bilens.base.files import check_regular_file
from bilens.io.contents import Contents, read_entry
from bilens.io.file_kinds import ESTIMATORS, PICKLES, is_known, kind_of
from bilens.io.inventory import read_contents

BY_ENDING = {*PICKLES, *ESTIMATORS} - {".bin", ".skops"}  # are opened as pickles
WITHIN = re.compile(r"\.(pkl|pickle|pt|pth)$")  # entries of an archive that are
UNOPENED = {"compressed": "is compressed", "coreml": "is a model of Core ML"}
# Operations of graphs that call Python or reach files.
REACHING = {"PyFunc", "PyFuncStateless", "EagerPyFunc", "PythonOp", "ReadFile", "WriteFile"}
REACHING |= {"MatchingFiles"}
SAFE = ("torch", "collections", "numpy", "sklearn", "scipy", "builtins")  # told last
MOST_NAMED = 3


def code_in(path: Path) -> list[str]:
    """Return a sentence for each file at a path that can run code, or that cannot be looked into.

    Of a folder these are all files of kinds that are known, and those with the ending of one.
    """
    files = [path]
    if path.is_dir():
        below = sorted(one for one in path.rglob("*") if one.is_file())
        files = [one for one in below if one.suffix in BY_ENDING or is_known(one)]
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
    kind = kind_of(path)
    if kind in ("torch", "pickle") or path.suffix in BY_ENDING or holds_pickles(path):
        held = Contents("", [])
        with suppress(BilensError):
            held = read_contents(path)
        told = named(held.imports) or "what that is was not read"
        return f"is opened as a pickle, which runs what it names: {told}. Save it as safetensors."
    if kind in UNOPENED:
        return f"{UNOPENED[kind]}, and was not opened: what it holds is not known."
    held = read_contents(path)
    if kind == "exported":
        return "is a program of torch.export: save its weights as safetensors."
    if kind == "skops" and (others := skops_classes(path)):
        return f"makes objects outside of scikit-learn, NumPy and SciPy: {named(others)}."
    if held.imports:
        return f"runs or imports code when it is opened: {named(held.imports)}."
    if reaching := sorted(REACHING & held.operations.keys()):
        return f"holds operations that call Python or reach files: {named(tuple(reaching))}."
    return ""


def named(names: tuple[str, ...]) -> str:
    """Return the names of an import that tell most; those of tensors and arrays come last."""
    order = sorted(names, key=lambda name: (name.partition(".")[0] in SAFE, name))
    more = f" and {len(order) - MOST_NAMED} more" if len(order) > MOST_NAMED else ""
    return f"{', '.join(order[:MOST_NAMED])}{more}"


def holds_pickles(path: Path) -> bool:
    """Tell whether a file ends as a zip archive with pickles in it, whatever it begins as."""
    with suppress(Exception), zipfile.ZipFile(path) as archive:  # damaged bytes lead anywhere
        return any(WITHIN.search(name) for name in archive.namelist())
    return False


def skops_classes(path: Path) -> tuple[str, ...]:
    """Return the modules of a file of skops whose classes are none of the usual packages."""
    with zipfile.ZipFile(path) as archive:
        schema = json.loads(read_entry(archive, "schema.json"))  # names may be written in escapes
    names = re.findall(r'"__module__": "([^"]*)"', json.dumps(schema))
    usual = ("sklearn", "numpy", "scipy", "builtins", "collections")
    return tuple(sorted({name for name in names if name.partition(".")[0] not in usual}))
