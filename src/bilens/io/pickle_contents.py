"""Reads a pickle without running it: no name in it is imported, nothing of it is called.

A file of `torch.save` or `torch.jit.save` is a pickle of names and shapes beside the numbers, which
lie where the pickle says: nothing else is needed to read its tensors.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple

from bilens.base.errors import BilensError, CheckpointError, NoLayersError, Retry

MAX_PICKLE_BYTES, MAX_ENTRIES = 64 << 20, 100_000  # of names and shapes alone
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how files of torch.save before 1.6 begin
STORAGES = {"Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16"}
STORAGES |= {"Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8"}
STORAGES |= {"Bool": "bool"}
OTHER_STORAGES = {"ComplexFloat": "complex64", "ComplexDouble": "complex128"}
OTHER_STORAGES |= {f"Q{name}": f"q{name.lower()}" for name in ("Int8", "UInt8", "Int32")}
# Steps that hash what is in the file, import by number or allocate at will; torch writes none.
FORBIDDEN = b"d\x91\x96\x82\x83\x84"


PLAIN_KEYS, MOST_IN_KEY = (str, int, float, bool, type(None)), 8  # of dicts, as names
WRAPPER = "joblib.numpy_pickle.NumpyArrayWrapper"  # of numbers that follow it in the file
MOST_PICKLES = 100  # one behind the other
# Where a checkpoint keeps the weights, the first that is there.
WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "net", "network",
    "weights", "params", "ema", "model_ema", "ema_state_dict",
)  # fmt: skip

OF_OPTIMIZER = {"state", "param_groups"}  # the keys of the state of one, whatever it is called


class Made:
    """An object that a pickle would make, or a dict or set of it: what it is made of."""

    name = "dict"
    arguments: tuple[Any, ...]
    items: dict[str, Any]
    state: Any

    def __new__(cls, *arguments: Any) -> Made:
        self = super().__new__(cls)
        self.arguments, self.items, self.state = arguments, {}, None
        return self

    def __call__(self, *arguments: Any) -> Made:  # what a name gave may be called again
        made = Made()
        made.arguments = arguments
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        # others may take for ever to hash, or to write
        parts = key if type(key) is tuple and len(key) < MOST_IN_KEY else (key,)
        plain = all(type(part) in PLAIN_KEYS for part in parts)
        self.items[str(key) if plain else f"{type(key).__name__} {len(self.items)}"] = value

    def append(self, _: Any) -> None: ...

    add = extend = append

    def children(self) -> dict[str, Any]:
        """Return the items of the object, and those of its state, by name."""
        state = self.state.items if isinstance(self.state, Made) else {}
        return {**self.read_arguments(), **state, **self.items}

    def read_arguments(self) -> dict[str, Any]:
        """Return the items that it is called with: those of Python 2, or of torch.fx."""
        match self.name, self.arguments:
            case "collections.OrderedDict", ([*pairs],):
                return {key: one for key, one in pairs if isinstance(key, str)}
            case "torch.fx.graph_module.reduce_graph_module", (Made() as body, *_):
                return body.items
        return {}


class PickleReader(pickle._Unpickler):
    """Reads a pickle into `Made`, lists, tuples and plain values.

    `names` takes the names of all that it would import. Numbers that joblib writes between the
    steps are gone past.
    """

    def __init__(self, file: IO[bytes], names: list[str] | None = None) -> None:
        super().__init__(file, encoding="latin1")
        self.file = file
        self.names = [] if names is None else names

    def find_class(self, module: str, name: str) -> type[Made]:
        self.names.append(f"{module}.{name}")
        return type("Named", (Made,), {"name": self.names[-1]})

    def persistent_load(self, pid: Any) -> Any:
        return pid

    def load_made(self) -> None:
        self.append(Made())  # type: ignore[attr-defined]

    def load_state(self) -> None:
        self.load_build()  # type: ignore[attr-defined]
        made = self.stack[-1]  # type: ignore[attr-defined]
        if isinstance(made, Made) and made.name == WRAPPER:
            self.pass_array(made.children())

    def pass_array(self, said: Mapping[str, Any]) -> None:
        """Go past the numbers of an array of joblib, or walk the pickle of its objects."""
        _, size, has_objects = stored_as(said["dtype"])
        if has_objects:
            PickleReader(self.file, self.names).load()
            return
        if said.get("numpy_array_alignment_bytes") is not None:
            self.file.seek(self.file.read(1)[0], io.SEEK_CUR)
        self.file.seek(prod(said["shape"]) * size, io.SEEK_CUR)

    dispatch: ClassVar[Any] = {  # for empty dicts and sets, which would hash what is put into them
        **{step: run for step, run in pickle._Unpickler.dispatch.items() if step not in FORBIDDEN},
        **dict.fromkeys(b"}\x8f", load_made),
        b"b"[0]: load_state,
    }


def stored_as(dtype: Made) -> tuple[str, int, bool]:
    """Return the code of a dtype of numpy, its bytes, and whether it is of objects."""
    code = str(dtype.arguments[0])
    _, _, _, _, _, size, _, flags, *_ = dtype.state
    found = re.fullmatch(r"[a-zA-Z](\d+)", code)
    size = size if size > 0 or found is None else int(found[1])
    return code, size, bool(flags & 1)


def walk_pickles(file: IO[bytes]) -> tuple[Any, list[str], list[str]]:
    """Walk the opcodes of a file's pickles: values of the first, imports of all, and notes.

    A pickle of which not every step was read says so: what else it would import is not known.
    """
    names, made, notes = list[str](), list[Any](), list[str]()
    try:
        while file.read(1):
            file.seek(-1, io.SEEK_CUR)
            if len(made) == MOST_PICKLES:
                raise ValueError("more pickles stand behind one another than are read")
            made.append(PickleReader(file, names).load())
    except Exception as error:  # damaged bytes lead anywhere, and so do tricks
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        notes.append(f"not walked to its end ({reason}): what else it would import is not known")
    if len(made) > 1:
        notes.append(f"{len(made)} pickles, one behind the other; what it holds is of the first")
    return made[0] if made else None, names, notes


class TensorAt(NamedTuple):
    """A tensor as a pickle describes it."""

    key: str  # of its storage
    dtype: str
    offset: int  # in numbers, as the strides
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def end(self) -> int:
        """Return how many numbers its storage must hold, none of them for two of its own."""
        last = sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        return self.offset + max(last + 1, prod(self.shape)) if prod(self.shape) else 0


def tensor_of(value: Any) -> TensorAt | None:
    """Return a tensor; one that is not of dense numbers in a storage has no key, or is None."""
    while isinstance(value, Made) and value.name.startswith("torch._utils._rebuild_parameter"):
        value = value.arguments[0] if value.arguments else None  # with or without its state
    if not isinstance(value, Made):
        return None
    match value.name.rpartition(".")[2], value.arguments, value.state:
        case "_rebuild_tensor_v2", ((_, kind, str(key), *_), int(offset), shape, stride, *_), _:
            name = name_of(kind).removesuffix("Storage")
            return placed(key, STORAGES.get(name, ""), offset, shape, stride) or placed(
                "", OTHER_STORAGES.get(name, ""), 0, shape, stride
            )
        case "_rebuild_tensor_v3", (_, _, shape, stride, _, _, kind, *_), _:
            return placed("", name_of(kind), 0, shape, stride)
        case "_rebuild_qtensor", ((_, kind, *_), _, shape, stride, *_), _:
            name = name_of(kind).removesuffix("Storage")
            return placed("", OTHER_STORAGES.get(name, ""), 0, shape, stride)
        case "_reconstruct", _, (_, shape, Made(arguments=(str(code), *_)), *_):
            return placed("", code, 0, shape, (0,) * len(shape))
        case "_rebuild_meta_tensor_no_storage", (kind, shape, stride, *_), _:
            return placed("", name_of(kind), 0, shape, stride)
        case "_rebuild_sparse_tensor", (_, (*parts,), *_), _:  # places, numbers and a shape
            return held_beside_places([one for one in parts if is_tensor(one)])
    return None


def held_beside_places(parts: list[Any]) -> TensorAt | None:
    """Return the numbers of a sparse tensor, which mean nothing without their places."""
    dense = parts and "sparse" not in parts[-1].name
    found = tensor_of(parts[-1]) if dense else None
    return None if found is None else found._replace(key="")


def name_of(kind: Any) -> str:
    """Return how torch calls a dtype or the type of a storage; empty for anything else."""
    named = isinstance(kind, type) and issubclass(kind, Made)
    return kind.name.removeprefix("torch.") if named else ""


def placed(key: str, dtype: str, offset: int, shape: Any, stride: Any) -> TensorAt | None:
    """Return a tensor whose numbers are whole ones, none of them negative; None for another."""
    if not dtype or type(shape) is not tuple or type(stride) is not tuple:
        return None
    if len(shape) != len(stride):
        return None
    numbers = (offset, *shape, *stride)
    plain = all(type(number) is int and number >= 0 for number in numbers)
    return TensorAt(key, dtype, offset, shape, stride) if plain else None


def weights_of(content: Any) -> tuple[Any, dict[str, Any]]:
    """Return the part of a checkpoint that is the weights, and what else it holds, by words."""
    left_out: dict[str, Any] = {}
    for _ in range(8):  # checkpoints in one another
        parts = content.children() if isinstance(content, Made) else {}
        held = [key for key, one in parts.items() if flattened(one)]
        inner = [key for key in WRAPPERS if key in held and not is_tensor(parts[key])]
        chosen = inner[0] if inner else None
        if chosen is None:
            break
        left_out |= {f"{key}, beside {chosen}": parts[key] for key in held if key != chosen}
        content = parts[chosen]
    return content, left_out


def walk_parts(
    content: Any, ends_at: Callable[[str, Any], bool], arguments: bool = False
) -> Iterator[tuple[str, Any]]:
    """Yield all that nested dicts, lists and objects hold, by dotted names, and no part of an end.

    What was met before is a text. `arguments` are what objects are made of besides their items.
    """
    met, todo = dict[int, str](), [("", content)]
    while todo:
        name, one = todo.pop()
        if id(one) in met:
            yield name, f"as {met[id(one)]}"
            continue
        yield name, one
        if isinstance(one, Made | list | tuple) and not ends_at(name, one):
            met[id(one)] = name
            parts = [*(one.children().items() if isinstance(one, Made) else enumerate(one))]
            if arguments and isinstance(one, Made) and not one.read_arguments():
                parts += [*enumerate(one.arguments), ("state", one.state)]
            todo += [(f"{name}.{key}" if name else str(key), part) for key, part in parts[::-1]]


def flattened(content: Any) -> dict[str, TensorAt | None]:
    """Return the tensors by dotted names, without those of wrappers; None for one not dense."""
    plain = re.compile(r"_orig_mod\.|_fsdp_wrapped_module\.")
    parts = walk_parts(content, lambda _, one: is_tensor(one))
    found = {plain.sub("", name): tensor_of(one) for name, one in parts if is_tensor(one)}
    found.pop("n_averaged", None)  # of torch's AveragedModel
    while found and all(name.startswith("module.") for name in found):
        found = {name.removeprefix("module."): one for name, one in found.items()}
    return found


def tensors_beside(left_out: Mapping[str, Any]) -> dict[str, TensorAt | None]:
    """Return the tensors of what is left out, such as another head, but not of an optimizer."""
    return {
        f"{key}.{name}" if name else key: one
        for key, part in (
            (words.rpartition(", beside ")[0], part) for words, part in left_out.items()
        )
        if not is_optimizer(part)
        for name, one in flattened(part).items()
    }


def is_optimizer(part: Any) -> bool:
    """Tell whether a part of a checkpoint is the state of an optimizer, or of several."""
    if isinstance(part, list | tuple):
        return bool(part) and all(map(is_optimizer, part))
    return isinstance(part, Made) and part.children().keys() == OF_OPTIMIZER


def is_tensor(value: Any) -> bool:
    return isinstance(value, Made) and ("._rebuild_" in value.name or "._reconstruct" in value.name)


class TorchFile(NamedTuple):
    """A file of `torch.save` or `torch.jit.save`."""

    content: Any
    names: list[str]  # of all that its pickle would import
    sizes: dict[str, int]  # key of a storage → bytes
    read: Callable[[str], bytes]  # a storage
    is_script: bool = False


def read_torch_file(path: Path, allowed: bool) -> TorchFile:
    """Read a file of PyTorch; one of before 1.6 goes through torch's restricted reader."""
    try:
        with path.open("rb") as file:
            if file.read(len(LEGACY)) != LEGACY:
                return read_archive(path)
        if not allowed:
            retries = [Retry(str(path), {"allow_pickle": True})]
            raise NoLayersError(f"{path}: is a pickle of before PyTorch 1.6.", retries)
        import torch

        from bilens.base.memory import check_memory

        whole = io.BytesIO()
        check_memory(3 * path.stat().st_size, f"{path}", "load a smaller file")
        torch.save(torch.load(path, map_location="cpu", weights_only=True), whole)
        return read_archive(whole)
    except (OSError, BilensError):
        raise
    except Exception as error:  # damaged bytes lead anywhere
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> CheckpointError:
    reason = str(error) if 0 < len(str(error)) < 80 else type(error).__name__
    return CheckpointError(
        f"{path}: cannot be read as a file of PyTorch ({reason}): check that the download is "
        "complete, or save the state dict as safetensors."
    )


def read_archive(source: Path | io.BytesIO) -> TorchFile:
    """Read a zip archive: `data.pkl`, and an entry for each storage under `data/`."""
    archive = zipfile.ZipFile(source)
    sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    (pickled,) = (name for name in sizes if name.endswith("/data.pkl") and name.count("/") == 1)
    home = pickled.removesuffix("data.pkl")
    if len(sizes) > MAX_ENTRIES or sizes[pickled] > MAX_PICKLE_BYTES:
        raise ValueError("too much for names and shapes")
    if f"{home}byteorder" in sizes and archive.read(f"{home}byteorder") != b"little":
        raise ValueError("its numbers are big-endian")

    def read_storage(key: str) -> bytes:
        with zipfile.ZipFile(source) as opened:
            return opened.read(f"{home}data/{key}")

    reader = PickleReader(io.BytesIO(archive.read(pickled)))
    content = reader.load()
    inside = {name.removeprefix(f"{home}data/"): size for name, size in sizes.items()}
    is_script = any(name.startswith(f"{home}code/") for name in sizes)
    return TorchFile(content, reader.names, inside, read_storage, is_script)
