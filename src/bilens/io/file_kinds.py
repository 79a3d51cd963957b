"""Tells the kind of a file by its name and first bytes: without torch, and nothing of it is run.

Commands ask here first, so that what is no model is refused at once.
"""

import io
import os
import re
import shlex
import zipfile
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from bilens.base.errors import CheckpointError, NoLayersError, Retry
from bilens.base.files import check_regular_file, not_there, parse_object, why_unreadable
from bilens.io.pickle_contents import LEGACY, PickleReader
from bilens.io.remote import RemotePath

PICKLES = (".pt", ".pth", ".bin", ".ckpt")  # of PyTorch
ESTIMATORS = (".pkl", ".pickle", ".joblib", ".skops")
OTHERS = (".safetensors", ".gguf", ".onnx", ".keras", ".h5", ".hdf5")
MODELS = (*PICKLES, *ESTIMATORS, *OTHERS)
# Of which no layer is read: listed if their bytes are of a known kind. Arrays may be data.
LISTED = (".tflite", ".jit", ".mlmodel", ".pb", ".json", ".ubj", ".cbm", ".xgb")
# What a folder that is one model holds.
MARKS = (
    "config.json", "model.safetensors", "model.safetensors.index.json", "cfg.json",
    "sae.safetensors", "sae_weights.safetensors", "adapter_config.json", "saved_model.pb",
    "W_enc_0.safetensors",  # of a cross-layer transcoder
)  # fmt: skip
# How the weights of such a folder are called, in one file or several.
SHARDS = re.compile(r"(model|pytorch_model|adapter_model)(-\d+-of-\d+)?\.(safetensors|bin)")
OF_OTHERS = ("model_type", "architectures")  # keys of the configuration of a Hugging Face model
START, MAX_SCHEMA = 1 << 16, 1 << 24  # bytes of a file that its kind is told by
# How files of LightGBM, XGBoost and CatBoost begin, and packages of trees that pickles name.
TREES = (b"tree\n", b"{L\0\0\0\0\0\0\0\7learner", b"binf", b"CBM1")
XGBOOST = re.compile(rb'\s*\{\s*"learner"')
FORESTS = ("lightgbm.", "xgboost.", "catboost.", "_catboost.", "sklearn.tree.", "sklearn.ensemble.")
# Kinds that first bytes say, at which place, and those that the name alone says.
MAGIC = (
    ("gguf", 0, b"GGUF"), ("hdf5", 0, b"\x89HDF\r\n\x1a\n"), ("tflite", 4, b"TFL3"),
    ("arrays", 0, b"\x93NUMPY"), ("fasttext", 0, b"\xba\x16\x4f\x2f"),
    ("dynet", 0, b"#Parameter#"), ("dynet", 0, b"#LookupParameter#"),
    ("thinc", 0, b"\x84\xa5nodes"), ("compressed", 0, b"\x04\x22\x4d\x18"),
    ("compressed", 0, b"\x1f\x8b"), ("compressed", 0, b"\x28\xb5\x2f\xfd"),
)  # fmt: skip
NAMED = {".onnx": "onnx", ".pb": "tensorflow", ".gguf": "gguf", ".h5": "hdf5", ".hdf5": "hdf5"}
NAMED |= {".keras": "keras", ".mlmodel": "coreml"}
NOT_READ = {
    "tensorflow": "a graph of TensorFlow",
    "tflite": "a model of TensorFlow Lite",
    "arrays": "a file of arrays of NumPy",
    "fasttext": "a model of fastText",
    "dynet": "a file of DyNet",
    "thinc": "a model of spaCy",
    "coreml": "a model of Core ML",
    "compressed": "a compressed file",
    "scores": "a file of scores",
}
READABLE = ("sklearn.neural_network", "bilens.")
OF_TRAINING = re.compile(r"checkpoint|ckpt", re.IGNORECASE)  # how folders of other states begin
HIDDEN = (".git", ".cache", ".huggingface", ".ipynb_checkpoints")  # which no model is made of
# How names begin of files of the model below an adapter, and of own files that would be taken for
# such ones, or for the model itself.
BELOW, OWN = "base: ", "./"
LATER = re.compile(r"(.*-)(?!00001)\d{5}(-of-\d{5}\.gguf)")  # a part of a file behind the first
# Fifty numbers by words, in an object of JSON in another one.
SCORES = re.compile(rb'\s*\{\s*"[^"\\]*"\s*:\s*\{(\s*"(\\.|[^"\\])*"\s*:\s*-?\d[-+.\deE]*\s*,){50}')
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)


def find_model(given: Path, any_kind: bool = False) -> Path:
    """Return the file or folder of one model at a path, or of a name in the cache of the hub.

    `any_kind` takes files too of which no layer is read.
    """
    if isinstance(given, RemotePath):
        given = given.pinned()
        if is_model(given):
            return given.downloaded() if given.store.hub and not in_place(given) else given
        raise given.missing("no model; expected config.json and .safetensors in it, or a .gguf")
    try:
        path = given if given.exists() else cached(given)
        path = one_of_folder(given, path, any_kind) if path.is_dir() else path
        if not path.is_dir():
            check_regular_file(path, "expected a model file")
            kind = kind_of(path)
            if not any_kind or kind == "other":
                refuse_file(path, kind)
    except OSError as error:
        raise CheckpointError(f"{given}: {why_unreadable(error)}") from error
    return path


def folder_around(given: Path, found: Path) -> Path | None:
    """Return the folder that holds the one file that was found in what was named; else None."""
    if isinstance(found, RemotePath) or given.is_file() or not found.is_file():
        return None
    return found.parent


def cached(given: Path) -> Path:
    """Return the folder of a model in the cache of the Hugging Face hub."""
    said = "no such file or folder"
    if HUB_NAME.fullmatch(str(given)) and given.suffix not in MODELS:
        with suppress(Exception):  # the package is not there, or the name is not
            from huggingface_hub import snapshot_download

            return Path(snapshot_download(str(given), local_files_only=True))
        said = (
            "no such file or folder; as the name of a model on the Hugging Face hub it is not in "
            f"the cache of this machine: run `hf download {given}` first"
        )
    raise not_there(
        given,
        f"{said}; expected a model folder (config.json and model.safetensors), for example one "
        "that `bilens train` wrote.",
    )


def one_of_folder(given: Path, folder: Path, any_kind: bool) -> Path:
    """Return a folder that is a model, or the only one in it.

    With `any_kind` a folder will do that has parts of one in folders below.
    """
    models = models_in(folder, any_kind)
    if len(models) == 1:
        return models[0]
    unfinished = (folder / "run.json").is_file() and (folder / "checkpoints").is_dir()
    if not models and not unfinished and (parts := parts_below(folder)):
        if any_kind:
            return folder
        raise NoLayersError(
            f"{given}: holds no model itself, but parts of one in folders below, such as "
            f"{parts[0].relative_to(folder)}: `bilens inspect` lists them."
        )
    if models:
        raise CheckpointError(
            f"{given}: holds {len(models)} models, of which one is read at a time.",
            [Retry(str(given), path=str(item)) for item in models[:8]],
        )
    raise no_model_in(folder, given)


def no_model_in(folder: Path, given: Path) -> CheckpointError:
    more = ""
    if (folder / "checkpoints").is_dir():
        more = " Its training has not finished: repeat its `bilens train` command with --resume."
    return CheckpointError(
        f"{given}: holds no model; expected config.json and model.safetensors in it.{more}"
    )


def models_in(folder: Path, any_kind: bool = False) -> list[Path]:
    """Return a folder that is a model, or the models that are in it; `any_kind` as above."""
    if is_model(folder):
        return [folder]
    if revisions := revisions_in(folder):
        return [model for one in revisions for model in models_in(one, any_kind) or [one]]
    inside = sorted(folder.iterdir())
    found = [path for path in inside if is_model(path) or (any_kind and is_known(path))]
    found += [model for path in inside if revisions_in(path) for model in models_in(path, any_kind)]
    names = {path.name for path in found}
    found = [
        path for path in found if LATER.sub(r"\g<1>00001\2", path.name) not in names - {path.name}
    ]
    if any(path.suffix == ".onnx" for path in found):  # the numbers of a graph may lie beside it
        found = [path for path in found if path.suffix != ".bin" or is_known(path)]
    return found


def revisions_in(folder: Path) -> list[Path]:
    """Return the revisions in the folder of a model in the cache of the Hugging Face hub."""
    places = [folder / name for name in ("blobs", "snapshots")]
    found = sorted(places[1].iterdir()) if all(map(Path.is_dir, places)) else []
    return [path for path in found if path.is_dir()]


def parts_below(folder: Path) -> list[Path]:
    """Return the files of known kinds at any depth below a folder."""
    return [path for path in sorted(folder.rglob("*")) if is_known(path)]


def files_below(folder: Path) -> dict[str, Path]:
    """Return the files of a model's folder by their path in it, those behind links in it too.

    Bytes of a name that are no text are escaped. Folders that are not gone through stand for what
    is in them: those that tools hide, those of checkpoints, and links that lead out of the folder,
    or where another one has led.
    """
    found, known, todo = dict[str, Path](), set[Path](), [folder]
    home = Path(os.path.realpath(folder))  # unlike `resolve` it takes a link to itself
    while todo and folder.is_dir():
        place = todo.pop()
        known.add(Path(os.path.realpath(place)))
        for path in sorted(place.iterdir()):
            real = Path(os.path.realpath(path))
            within = home in real.parents and real not in known
            skipped = path.name in HIDDEN or OF_TRAINING.match(path.name)
            if path.is_dir() and within and not skipped:
                todo.append(path)
            elif path.is_dir() or path.is_file():
                name = path.relative_to(folder).as_posix()
                name = f"{OWN}{name}" if name.startswith(BELOW) else name
                name = name.encode(errors="backslashreplace").decode()
                if name in found:
                    raise CheckpointError(f"{folder}: has two files that are written {name!a}.")
                found[name] = path
    return dict(sorted(found.items()))


def mark_of(path: str | Path) -> tuple[int, ...] | None:
    """Return by what a file is told from what lay there before; None where there is none.

    Also the time of its last change, which no program sets.
    """
    with suppress(OSError, ValueError):
        said = os.stat(path)  # noqa: PTH116 - five times as fast as of a `Path`
        return said.st_dev, said.st_ino, said.st_size, said.st_mtime_ns, said.st_ctime_ns
    return None


def mark_files(path: Path) -> dict[Path, tuple[int, ...] | None]:
    """Return the marks of the files of a model, and of those beside one that is a file."""
    if isinstance(path, RemotePath):
        return {}
    files = files_below(path).values() if path.is_dir() else path.parent.iterdir()
    return {one: mark_of(one) for one in files if not one.is_dir()}


def is_known(path: Path) -> bool:
    """Say whether the bytes of a file are those of a kind of model that is known."""
    with suppress(OSError):
        return path.is_file() and path.stat().st_size > 0 and kind_of(path) != "other"
    return False


def is_model(path: Path) -> bool:
    """Say whether a path is a model: a file of a known kind, or a folder that holds one."""
    whole = path.suffix in MODELS and path.is_file()
    return whole or any((path / mark).exists() for mark in MARKS)


def in_place(path: RemotePath) -> bool:
    """Say whether no more of a model is fetched than is read: others are small, or need files."""
    config, keys = path / "config.json", set[str]()
    with suppress(ValueError):  # none that can be read: it is said where it is
        keys = {*parse_object(config.read_bytes())} if config.is_file() else keys
    whole = path.suffix in (".gguf", ".safetensors")
    return whole or (path / "adapter_config.json").is_file() or not keys.isdisjoint(OF_OTHERS)


def is_listed(path: Path) -> bool:
    """Say whether a path is a model, or one of a kind of which no layer is read."""
    if path.is_dir():
        marks = [mark for mark in MARKS if (path / mark).exists()]
        if marks and {*marks} <= {"config.json", "cfg.json"}:  # of an experiment, too
            return any(one.suffix in (*MODELS, ".msgpack") for one in path.iterdir())
        return bool(marks) or path.suffix == ".mlpackage"
    return is_model(path) or (path.suffix in LISTED and is_known(path))


def folder_of_weights(path: Path) -> Path:
    """Return the folder of a model that a file of weights is a part of; else the file itself."""
    home, configs = path.parent, ("config.json", "adapter_config.json")
    is_part = SHARDS.fullmatch(path.name) and any((home / name).is_file() for name in configs)
    return home if is_part else path


def refuse_file(path: Path, kind: str) -> None:
    """Refuse a file that no reader takes."""
    if kind == "trees":
        raise no_weights(path)
    if kind in NOT_READ:
        raise NoLayersError(
            f"{path}: is {NOT_READ[kind]}, of which no layer is read: `bilens inspect` says what "
            "is known of it, or why it cannot be opened."
        )
    if kind == "exported":
        raise NoLayersError(
            f"{path}: is an archive of torch.export, a program and not an MLP: save its weights, "
            "safetensors.torch.save_file(torch.export.load(path).state_dict, 'w.safetensors')."
        )
    if kind == "safetensors" and path.suffix != ".safetensors":
        raise misnamed(path, "a safetensors file", ".safetensors")
    if kind == "torch" and path.suffix in OTHERS:
        raise misnamed(path, "a file of PyTorch", ".pt")
    if kind == "other" and path.suffix not in MODELS:
        raise CheckpointError(
            f"{path}: is not a supported model file; expected a model folder, a .safetensors, "
            f".gguf, .onnx or .keras file, a file of PyTorch "
            f"({', '.join(PICKLES)}), or a fitted model of scikit-learn ({', '.join(ESTIMATORS)})."
        )


def misnamed(path: Path, what: str, suffix: str) -> NoLayersError:
    copy = shlex.join(["cp", "-i", str(path), f"{path}{suffix}"])
    return NoLayersError(f"{path}: is {what} under another ending: `{copy}`, and pass the copy.")


def no_weights(path: Path) -> NoLayersError:
    return NoLayersError(
        f"{path}: is a model of decision trees, and trees have no weights to read: fit a model "
        "that can be read to the same rows, or to the trees' own predictions as the target, with "
        "`bilens train table DATA.csv --target COLUMN --out FOLDER`."
    )


def kind_of(path: Path) -> str:
    """Return torch, safetensors, trees and so on by content; by name what is packed."""
    with path.open("rb") as file:
        start = file.read(START)
    if start.startswith(b"PK\3\4"):
        return kind_of_archive(path)
    for kind, where, magic in MAGIC:
        if start[where : where + len(magic)] == magic:
            return "pickle" if kind == "compressed" and path.suffix in ESTIMATORS else kind
    if start.startswith(LEGACY):
        return "torch"
    length = int.from_bytes(start[:8], "little")  # of a header in JSON
    if start[8:10] == b'{"' and length <= path.stat().st_size - 8:
        return "safetensors"
    names = imported_by(start)
    if are_trees(names) or start.lstrip().startswith(TREES) or XGBOOST.match(start):
        return "trees"
    if SCORES.match(start):
        return "scores"
    if names or path.suffix in ESTIMATORS:
        return "pickle"
    return NAMED.get(path.suffix, "other")


def are_trees(names: Collection[str]) -> bool:
    """Tell whether classes of these names are trees without any network that can be read."""
    network = any(name.startswith(READABLE) for name in names)
    return not network and any(name.startswith(FORESTS) for name in names)


def imported_by(start: bytes) -> list[str]:
    """Return the names that a pickle would import, as far as they are soon seen."""
    reader = PickleReader(io.BytesIO(start))
    if start[:1] == b"\x80":
        with suppress(Exception):  # arrays of joblib lie between the steps of the pickle
            reader.load()
    return reader.names


def kind_of_archive(path: Path) -> str:
    """Tell the kind of a zip archive by the names of its entries."""
    with suppress(Exception), zipfile.ZipFile(path) as archive:  # whatever damaged bytes lead to
        ends = {name.rpartition("/")[2] for name in archive.namelist()}
        if "schema.json" in ends:
            with archive.open("schema.json") as file:
                text = file.read(MAX_SCHEMA).decode("utf-8", "replace")
            modules = re.findall(r'"__module__": "([\w.]+)"', text)
            return "trees" if are_trees([f"{name}." for name in modules]) else "skops"
        if ends & {"archive_format", "serialized_exported_program.json"}:
            return "exported"
        if {"config.json", "model.weights.h5"} <= ends:
            return "keras"
        if ends and all(name.endswith(".npy") for name in ends):
            return "arrays"
        return "torch" if "data.pkl" in ends else "other"
    return "other"
