"""`bl.load`: any supported file or folder, as a model whose layers are quadratic maps."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from torch import nn

from bilens.base.errors import CheckpointError, UsageError
from bilens.base.files import check_path, check_regular_file, why_unreadable
from bilens.io.formats.gguf import GGUF
from bilens.io.formats.huggingface import HUGGINGFACE
from bilens.io.formats.keras import KERAS, SAVED_MODEL, WEIGHTS_ALONE
from bilens.io.formats.llama2c import LLAMA2C
from bilens.io.formats.named_roles import open_tensors, read_named_roles
from bilens.io.formats.official import (
    IMAGE_FOLDER,
    LANGUAGE_FOLDER,
    PICKLE,
    PICKLES,
    SAFETENSORS,
)
from bilens.io.formats.onnx import ONNX
from bilens.io.formats.peft import PEFT
from bilens.io.formats.sae_layouts import OFFICIAL_SAE, SAELENS, SPARSIFY
from bilens.io.formats.safetensors_folder import INDEX_NAME
from bilens.io.loaded_model import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    Activations,
    Format,
    LoadedModel,
    ReadOptions,
)
from bilens.io.model_folder import MODEL_FOLDER
from bilens.nn.block import NAME as HOOK_NAME
from bilens.nn.layer_view import LayerView

__all__ = ["FORMATS", "PEFT", "LayerView", "LoadedModel", "ReadOptions", "load"]

# Of models that no format reads: in a folder of models each gets the sentence that says why.
OTHERS = (*WEIGHTS_ALONE, ".joblib", ".pkl", ".skops", ".ckpt", ".tflite")
# The first that matches a path reads it.
FORMATS: tuple[Format, ...] = (
    PEFT,
    SAELENS,
    SPARSIFY,
    OFFICIAL_SAE,
    LANGUAGE_FOLDER,
    HUGGINGFACE,
    IMAGE_FOLDER,
    MODEL_FOLDER,
    SAFETENSORS,
    GGUF,
    ONNX,
    KERAS,
    SAVED_MODEL,
    LLAMA2C,
    PICKLE,
)


def load(
    path: str | Path,
    *,
    residual: bool | None = None,
    allow_pickle: bool = False,
    roles: Mapping[str, str] | None = None,
    activation: Activations | None = None,
    transposed: bool | None = None,
    base: str | Path | None = None,
) -> LoadedModel:
    """Read a model: a bilens model folder, a folder of Hugging Face, or one of the paper's.

    A Llama comes as a whole where a transformer of ours can be one; of other models of Hugging Face
    (`docs/loading.md` lists them) the MLPs and experts come alone, as layers that are read from the
    files one at a time; `module` is then None. A sparse autoencoder of ours, SAELens, sparsify or
    the paper's repository comes as a `TopKSAE` without layers.

    Of any other safetensors file the ordinary and gated MLPs can be read: `roles` says which tensor
    is what, for example {"up.0": "net.0.weight", "up_bias.0": "net.0.bias", "down.0": …}; without
    it they are guessed, and `model.load_report` shows the guess. Layers of which only the last has
    `down` are one behind the other. Objects in memory: `bl.from_module` and `bl.from_sklearn`.

    Args:
        path: a folder with `config.json` and `model.safetensors` (those of Hugging Face may be in
            shards), a `.gguf` or `.safetensors` file, a `.bin` of llama2.c, or, with
            `allow_pickle`, a `.pt` file.
        residual: for official checkpoints that do not say whether each block adds its input.
        allow_pickle: whether a pickle may be opened (with weights_only).
        roles: role → tensor of a safetensors file; the roles are up, down and gate, each with
            _bias, and .0, .1, … for several layers. `gate` has the activation where there is one.
        activation: of its layers, "relu", "gelu", "leaky_relu:0.2" and so on, "identity" for none;
            "gelu,relu" or a list is one for each.
        transposed: whether its matrices are (in, out); None where shapes decide it.
        base: of an adapter of PEFT, the model that it is added to; None for the one it names.

    Raises:
        CheckpointError: If the path is missing, damaged, of a newer version or not supported.
        NonFiniteError: If a weight is NaN or infinite.
        UsageError: If `path` is not one, or `residual` is needed and not given or contradicts the
            model folder.
        MemoryLimitError: If the weights would not fit.
    """
    refuse_objects(path)
    below = None if base is None else check_path("base", base)
    options = ReadOptions(residual, allow_pickle, roles, activation, transposed, below)
    return load_with(check_path("path", path), options)


def load_with(path: Path, options: ReadOptions) -> LoadedModel:
    """Read a model with everything that a caller says about it; see `load`."""
    try:
        if not exists(path):
            raise CheckpointError(
                f"{path}: no such file or folder; expected a model folder ({CONFIG_NAME} and "
                f"{WEIGHTS_NAME}), for example one that `bilens train` wrote."
            )
        if not path.is_dir():
            check_regular_file(path, "expected a model file")
        if options.name_roles or path.suffix in WEIGHTS_ALONE:
            return read_named_roles(path, options)
        for format in FORMATS:
            if format.matches(path):
                return format.read(path, options)
    except OSError as error:
        raise CheckpointError(f"{path}: {why_unreadable(error)}") from error
    if path.is_dir():
        raise CheckpointError(
            f"{path}: holds no model; expected {CONFIG_NAME} and {WEIGHTS_NAME} in it."
            f"{what_else_is_there(path)}"
        )
    raise CheckpointError(
        f"{path}: is not a supported model file; expected a model folder, a .safetensors or .gguf "
        f"file, a .bin of llama2.c, or a pickle ({', '.join(sorted(PICKLES))}) with --allow-pickle."
    )


def models_in(folder: Path) -> list[Path]:
    """Return the models in a folder that is none itself, and otherwise the folder."""
    try:
        known = looks_like_a_model(folder) or (folder / INDEX_NAME).exists()
        if known or what_else_is_there(folder):
            return [folder]
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        return list(filter(looks_like_a_model, inside)) or [folder]
    except OSError as error:
        raise CheckpointError(f"{folder}: {why_unreadable(error)}") from error


def looks_like_a_model(path: Path) -> bool:
    return path.suffix in OTHERS or any(format.matches(path) for format in FORMATS)


def load_to_compare(path: Path, options: ReadOptions) -> LoadedModel:
    """Read a model that another one is compared with: its tensors where layers cannot be read."""
    try:
        return load_with(path, options)
    except (CheckpointError, UsageError) as error:
        if options.name_roles or PEFT.matches(path):
            raise
        with suppress(CheckpointError, OSError):
            stored, sha256 = open_tensors(path, lambda _: False)
            why = {"read": f"no layers: {error}"}
            return LoadedModel(None, str(path), sha256, provenance=why, stored=stored)
        raise


def refuse_objects(value: object) -> None:
    """Refuse a model that is in memory already, naming its reader."""
    reader = "from_module" if isinstance(value, nn.Module) else "from_sklearn"
    if isinstance(value, nn.Module) or hasattr(value, "get_params"):
        raise UsageError(
            f"path is a {type(value).__name__}; expected a text or a Path: an object in memory is "
            f"read by bl.{reader}."
        )


def exists(path: Path) -> bool:
    """Tell whether there is anything at a path; without permission to look the system says so."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a null character in the path
        return False
    return True


def what_else_is_there(folder: Path) -> str:
    """Return a hint at what a folder without a model holds; empty where there is none."""
    hooks = sorted(item.name for item in folder.iterdir() if HOOK_NAME.fullmatch(item.name))
    if hooks:
        return f" It holds one autoencoder a hook point: load {folder / hooks[0]}, for example."
    if (folder / "checkpoints").is_dir():
        return " Its training has not finished: continue it with --resume."
    return ""
