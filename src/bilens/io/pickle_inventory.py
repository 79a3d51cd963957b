"""Reads pickles by their steps: nothing in them is imported, and nothing is called."""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from bilens.io.contents import (
    EDGE,
    Contents,
    Name,
    Operation,
    Program,
    Tensor,
    UnknownKindError,
    WeightPlace,
    hash_of,
    numpy_name,
    read_entry,
    size_of,
)
from bilens.io.pickle_contents import (
    LEGACY,
    WRAPPER,
    Made,
    PickleReader,
    TensorAt,
    flattened,
    is_optimizer,
    is_tensor,
    read_archive,
    stored_as,
    tensor_of,
    walk_parts,
    walk_pickles,
    weights_of,
)

OPERATION = re.compile(r"\btorch\.([a-z_0-9]+)\(|\bops\.([a-z_0-9]+\.[a-z_0-9]+)\(")
IN_MODULE = re.compile(r"(?:^|(?<=\.))_(?:modules|parameters|buffers)\.")
NOT_OPERATIONS = ("__", "list", "len", "_", "append", "format", "warn")
PLAIN = (
    "numpy", "builtins", "copyreg", "copy_reg", "collections", "__builtin__", "joblib", "scipy",
)  # fmt: skip
COMPRESSED = (b"\x1f\x8b", b"x\x9c", b"x\x5e", b"BZ", b"\xfd7", b"\x04\x22")  # how some begin


def read_torch_contents(path: Path) -> Contents:
    """Read a file of `torch.save` or `torch.jit.save` by the steps of its pickle."""
    with path.open("rb") as file:
        old = file.read(len(LEGACY)) == LEGACY
    crcs: dict[str, tuple[int, int]] = {}
    code = ""
    if old:
        with path.open("rb") as file:
            names, script = list[str](), False
            # a magic number, a version, sizes of numbers, the content, and names of storages
            content = [PickleReader(file, names).load() for _ in range(5)][3]
    else:
        torch_file = read_archive(path)
        content, names, script = torch_file.content, torch_file.names, torch_file.is_script
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            sums = Counter((one.file_size, one.CRC) for one in entries)
            for entry in entries:
                _, _, place = entry.filename.partition("/")
                known = entry.file_size, entry.CRC
                if sums[known] == 1 or holds_more(archive, entry):  # than one number
                    crcs[place.removeprefix("data/")] = known
                if script and place.startswith("code/") and place.endswith(".py"):
                    code += read_entry(archive, entry.filename).decode("utf-8", "replace")
    modules = Counter(class_names(content))
    kind = "TorchScript" if script else "checkpoint of PyTorch with pickled modules"
    if not modules and not script:
        kind = "checkpoint or state dict of PyTorch"
    elif isinstance(content, Made) and is_module(content):
        kind = f"module of PyTorch ({content.name}), pickled whole"
    found = Contents(f"{kind}{' (before 1.6)' if old else ''}", [path], operations=modules)
    if script:
        found.program = lambda: script_program(path)
    calls = (match[1] or match[2] for match in OPERATION.finditer(code))
    found.operations += Counter(one for one in calls if not one.startswith(NOT_OPERATIONS))
    found.imports = tuple(sorted({name for name in names if not name.startswith("__torch__")}))
    weights, others = (content, {}) if script else weights_of(content)
    found.notes += [
        f"not counted among its weights{', nor compared' if is_optimizer(one) else ''}: {other}"
        for other, one in others.items()
    ]
    values, found.left_out = ({}, []) if modules or script else plain_values(content)
    if values:
        found.program = lambda: Operation("checkpoint", values)
    for name, one in flattened(weights).items():
        name = IN_MODULE.sub("", name)  # of a module that was pickled whole
        if "_flat_weights" not in name:
            found.tensors.append(pickled_tensor(name, one, crcs))
        if one is None:
            found.notes.append(f"{name}: its shape is not read")
    if script and not found.tensors:  # frozen, with its weights as constants of its program
        found.tensors += constants_in(path)
    if not found.tensors and not modules:
        found.tensors += arrays_in(content)
    return found


# Keys of what a training was at, and of no model.
OF_TRAINING = re.compile(
    r"(epoch|(global_)?steps?|iterations?|loops|callbacks|(lr_)?schedulers?|optimi[sz]ers?)"
    r"(_states?)?|best_\w+|[\w-]*(history|loss(es)?|metrics?|version|rng_state|trainer_args)"
)


def is_of_training(name: str, part: Any) -> bool:
    return is_optimizer(part) or OF_TRAINING.fullmatch(name.rpartition(".")[2]) is not None


def plain_values(content: Any) -> tuple[dict[str, Program], list[str]]:
    """Return the plain values of a checkpoint by dotted keys, and the keys of its training."""
    values, left_out = dict[str, Program](), list[str]()
    ends: Callable[[str, Any], bool] = lambda name, one: (  # noqa: E731
        is_tensor(one) or name.endswith("_metadata") or is_of_training(name, one)
    )
    for name, one in walk_parts(content, ends, arguments=True):
        if is_of_training(name, one):
            left_out.append(name)
        elif one is None or ends(name, one):
            continue
        elif isinstance(one, Made) and one.name.partition(".")[0] not in ("dict", *PLAIN):
            values.setdefault(f"{name}.class", []).append(one.name)
        elif not isinstance(one, Made | list | tuple):
            values.setdefault(name, []).append(getattr(one, "name", one))
    return values, left_out


# Entries that nothing is computed with: where a line came from, and a number of the run.
NO_PROGRAM = re.compile(r"\.debug_pkl$|^\.data/serialization_id$|^(data|constants)/|^data\.pkl$")
CLASS = re.compile(r"(__torch__(?:\.\w+)+)")


def script_program(path: Path) -> Program:
    """Return all that an archive of TorchScript holds: code by class, constants, attributes."""
    torch_file, texts, others = read_archive(path), dict[str, list[str]](), dict[str, Program]()
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            place = entry.partition("/")[2]
            if place.startswith("code/") and place.endswith(".py"):
                module = place.removeprefix("code/").removesuffix(".py").replace("/", ".")
                name = module
                for line in read_entry(archive, entry).decode().splitlines():
                    if found := re.match(r"(?:class|def) (\w+)", line):
                        name = f"{module}.{found[1]}"
                        line = line.replace(found[1], "*", 1)
                    texts.setdefault(name, []).append(line)
            elif place == "constants.pkl":
                held = PickleReader(io.BytesIO(read_entry(archive, entry))).load()
                keys = {x.removeprefix("constants/") for x in archive.namelist()}
                home = entry.removesuffix("constants.pkl")
                shared = f"{home}constants/" if any("/constants/" in x for x in keys) else ""
                read = archive_reader(path, shared) if shared else torch_file.read
                others["constants"] = pickled_program(held, "constants", read)
            elif not NO_PROGRAM.search(place):
                others[place] = read_entry(archive, entry)
    root = pickled_program(torch_file.content, "", torch_file.read)
    classes, done = list[Program](), dict[str, None]()
    todo = [name for name in torch_file.names if name in texts] + [*texts]
    while todo:  # in the order in which they are named
        if (name := todo.pop(0)) not in done:
            done[name] = None
            lines = [CLASS.split(line) for line in texts[name]]
            words = [word for line in lines for word in line]
            todo = [word for word in words if word in texts] + todo
            parts = {
                f"line {number}": [Name(word) if word in texts else word for word in line]
                for number, line in enumerate(lines, 1)
            }
            classes.append(Operation(f"code of {name}", {"class": Name(name)} | parts))
    return [Operation("archive", others), root, classes]


def holds_more(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    """Tell whether a tensor holds more than one number many times."""
    with archive.open(entry) as file:
        start = file.read(EDGE)
        return bool(hash_of(start) or hash_of(start + file.read()))


def archive_reader(path: Path, home: str) -> Callable[[str], bytes]:
    def read_member(key: str) -> bytes:
        with zipfile.ZipFile(path) as archive:
            return archive.read(f"{home}{key}")

    return read_member


def pickled_program(content: Any, name: str, read: Callable[[str], bytes]) -> Program:
    """Return plain values of a pickle by their places, and what would be made of which name."""
    seen = dict[int, Name]()

    def tree(one: Any, name: str) -> Program:
        if is_tensor(one):
            at = tensor_of(one)
            fetch = None if at is None or not at.key else partial(read, at.key)
            flags = [x for x in one.arguments[4:5] if type(x) is bool]
            layout = at and (at.dtype, at.offset, at.shape, at.stride, *flags)
            return WeightPlace(IN_MODULE.sub("", name), layout, fetch)
        if isinstance(one, type) and issubclass(one, Made):
            return Name(one.name) if one.name.startswith("__torch__.") else one.name
        if not isinstance(one, Made | list | tuple):
            return one
        if id(one) in seen:
            return seen[id(one)]
        seen[id(one)] = Name(name or "the module", id(one))
        if not isinstance(one, Made):
            return [tree(part, f"{name}.{at}" if name else str(at)) for at, part in enumerate(one)]
        own = f"{name}." if name else ""
        parts = {key: tree(part, f"{own}{key}") for key, part in one.children().items()}
        if not isinstance(one.state, Made) and one.state is not None:
            parts["state"] = tree(one.state, f"{own}state")
        parts["arguments"] = [tree(part, f"{own}{at}") for at, part in enumerate(one.arguments)]
        kind = Name(one.name) if one.name.startswith("__torch__.") else one.name
        return Operation(f"attributes of {name or 'the module'}", {"class": kind} | parts)

    return tree(content, name)


def constants_in(path: Path) -> Iterator[Tensor]:
    """Yield the constants of the program of an archive of TorchScript."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            if entry.endswith("/constants.pkl") and entry.count("/") == 1:
                held = PickleReader(io.BytesIO(read_entry(archive, entry))).load()
                for name, one in flattened(held).items():
                    yield pickled_tensor(f"constants.{name}", one and one._replace(key=""), {})


def pickled_tensor(name: str, one: TensorAt | None, crcs: Mapping[str, tuple[int, int]]) -> Tensor:
    """Return a tensor; one that fills its storage is known by the checksum of that."""
    if one is None:
        return Tensor(name, (), "", 0)
    dtype = numpy_name(one.dtype.replace("float8_", "float8"))
    size = size_of(one.shape, dtype)
    if not one.key:  # of numbers that are not dense
        return Tensor(name, one.shape, dtype, size)
    whole = crcs.get(one.key, (0, 0))
    content = (*(whole if whole[0] == size else (one.key, one.offset)), one.stride)
    return Tensor(name, one.shape, one.dtype, size, None, content)


def class_names(content: Any) -> Iterator[str]:
    """Yield the class of each module in a pickle: of one pickled whole, or of TorchScript."""
    for _, one in walk_parts(content, lambda *_: False, arguments=True):
        if isinstance(one, Made) and one.name.startswith("__torch__."):
            yield one.name.rpartition(".")[2]
        elif isinstance(one, Made) and is_module(one):
            yield one.name


def is_module(one: Made) -> bool:
    return {"_parameters", "_modules"} <= {*one.children()}


def read_plain_pickle(path: Path) -> Contents:
    """Return the classes that a pickle or a file of joblib names, and arrays that lie in it."""
    with path.open("rb") as file:
        if file.read(2) in COMPRESSED:
            said = "what it holds, and would import, is not read"
            return Contents("compressed pickle", [path], notes=[said])
        file.seek(0)
        content, names, notes = walk_pickles(file)
    if not names and not notes:
        raise UnknownKindError(f"{path}: is a pickle of plain values, and no model.")
    packages = Counter(name.partition(".")[0] for name in names)
    made_by = next((name for name, _ in packages.most_common() if name not in PLAIN), "Python")
    imports = tuple(sorted({*names}))
    found = Contents(f"pickle of {made_by}", [path], notes=notes, imports=imports)
    own = [name for name in names if name.partition(".")[0] == made_by]
    found.operations = Counter(own)
    found.tensors += arrays_in(content)
    return found


def arrays_in(content: Any) -> Iterator[Tensor]:
    """Yield the arrays of numpy in a pickle by dotted names, with what their state says."""
    for name, one in walk_parts(content, lambda _, x: is_tensor(x) or is_packed(x)):
        if isinstance(one, Made) and is_packed(one):
            said = one.children()
            code, size, _ = stored_as(said["dtype"])
            shape = tuple(said["shape"])
            yield Tensor(name, shape, numpy_name(code), prod(shape) * size)
        elif isinstance(one, Made) and one.name.endswith("_reconstruct"):
            match one.state:
                case (_, tuple(shape), Made(arguments=(str(code), *_)), *_):
                    dtype = numpy_name(code)
                    yield Tensor(name, shape, dtype, size_of(shape, dtype))


def is_packed(value: Any) -> bool:
    """Tell whether a value is an array whose numbers joblib wrote behind it."""
    return isinstance(value, Made) and value.name == WRAPPER
