"""`bl.load`: any supported file or folder, as a model whose layers are quadratic maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from torch import nn

from bilens.base.checks import check_choice, check_type
from bilens.base.errors import CheckpointError, UsageError
from bilens.base.files import check_path, why_unreadable
from bilens.io.converted_folder import CONVERTED
from bilens.io.file_kinds import find_model
from bilens.io.formats.gguf import GGUF
from bilens.io.formats.huggingface import HUGGINGFACE
from bilens.io.formats.keras import KERAS, SAVED_MODEL, WEIGHTS_ALONE
from bilens.io.formats.named_roles import open_tensors, read_named_roles
from bilens.io.formats.official import IMAGE_FOLDER, LANGUAGE_FOLDER, PICKLE, SAFETENSORS
from bilens.io.formats.onnx import ONNX
from bilens.io.formats.peft import PEFT
from bilens.io.formats.sae_layouts import OFFICIAL_SAE, SAELENS, SPARSIFY
from bilens.io.formats.sklearn_file import SKLEARN
from bilens.io.loaded_model import Activations, Format, LoadedModel, ReadOptions
from bilens.io.model_folder import MODEL_FOLDER
from bilens.io.remote import located
from bilens.io.tensors import sha256_of_module
from bilens.nn.layer_view import LayerView

__all__ = ["FORMATS", "PEFT", "LayerView", "LoadedModel", "ReadOptions", "load", "load_layers"]

# The first that matches a path reads it.
FORMATS: tuple[Format, ...] = (
    PEFT,
    SAELENS,
    SPARSIFY,
    OFFICIAL_SAE,
    CONVERTED,
    LANGUAGE_FOLDER,
    HUGGINGFACE,
    IMAGE_FOLDER,
    MODEL_FOLDER,
    SAFETENSORS,
    GGUF,
    ONNX,
    KERAS,
    SAVED_MODEL,
    SKLEARN,
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
    trust_pickle: bool = False,
) -> LoadedModel:
    """Read a model: a folder of bilens or Hugging Face, or a file of one of many formats.

    A Llama comes as a whole where a transformer of ours can be one; of other models of Hugging Face
    (`docs/loading.md` lists them) the MLPs and experts come alone, as layers that are read from the
    files one at a time; `module` is then None. A sparse autoencoder of ours, SAELens, sparsify or
    the paper's repository comes as a `TopKSAE` without layers.

    Of any other safetensors file, state dict or checkpoint of PyTorch the ordinary and gated MLPs
    can be read: `roles` says which tensor is what, for example {"up.0": "net.0.weight",
    "up_bias.0": "net.0.bias", "down.0": …}; without it they are guessed, and `model.load_report`
    shows the guess. Layers of which only the last has `down` are one behind the other. Objects in
    memory: `bl.from_module` and `bl.from_sklearn`.

    Args:
        path: a folder with `config.json` and `model.safetensors` (those of Hugging Face may be in
            shards), a file, the name of a model in the cache of the Hugging Face hub, or an address
            (s3://, gs://, hf://, https://, memory://), of which no more is fetched than is read.
        residual: for official checkpoints that do not say whether each block adds its input.
        allow_pickle: whether a file of PyTorch may be opened; no code in it is run.
        roles: role → tensor; the roles are up, down and gate, each with _bias, and .0, .1, … for
            several layers, or a * in the name of the tensor; `gate` has the activation.
        activation: of its layers, "relu", "gelu", "leaky_relu:0.2" and so on, "identity" for none;
            "gelu,relu" or a list is one for each.
        transposed: whether its matrices are (in, out); None where shapes decide it.
        base: of an adapter of PEFT, the model that it is added to; None for the one it names.
        trust_pickle: whether a pickle of scikit-learn may be opened, which runs code in it.

    Raises:
        CheckpointError: If the path is missing, damaged, of a newer version or not supported.
        NonFiniteError: If a weight is NaN or infinite.
        UsageError: If `path` is not one, an option is none that it can be, `base` is given and
            `path` is no adapter, or `residual` is needed and not given or contradicts the folder.
        MemoryLimitError: If the weights would not fit.
    """
    refuse_objects(path)
    check_choice("residual", residual, (None, True, False))
    check_choice("transposed", transposed, (None, True, False))
    if roles is not None:
        check_type("roles", roles, Mapping, 'say which tensor is what, as {"up": "fc1.weight"}')
    base = None if base is None else located(check_path("base", base))
    said = ReadOptions(residual, allow_pickle, roles, activation, transposed, base, trust_pickle)
    return load_with(path if isinstance(path, str) else check_path("path", path), said)


def load_with(path: str | Path, options: ReadOptions) -> LoadedModel:
    """Read a model with everything that a caller says about it; see `load`."""
    path = find_model(located(path))
    if options.base is not None and not PEFT.matches(path):
        raise UsageError(
            f"{path}: is no adapter of PEFT, and base={options.base} is what one is added to: "
            "leave it out."
        )
    try:
        by_name = options.name_roles or path.suffix in WEIGHTS_ALONE
        if by_name and not any(format.matches(path) for format in (PICKLE, PEFT)):
            return read_named_roles(path, options)
        for format in FORMATS:
            if format.matches(path):
                model = format.read(path, options)
                if model.module is None:
                    return model
                return replace(model, module_sha256=sha256_of_module(model.module))
    except OSError as error:
        raise CheckpointError(f"{path}: {why_unreadable(error)}") from error
    raise CheckpointError(f"{path}: is no model that bilens reads: see docs/loading.md.")


def load_layers(path: str | Path, wanted: Callable[[str], bool]) -> LoadedModel:
    """Read some layers of a model by the headers of those files alone that hold them.

    No file is hashed, here or at an address: `weights_sha256` is empty, `headers` says of each file
    that was opened what is known of it, as long as it is the same, and `identity` is of them all.
    Formats that are read as a whole, and small, come as of `load`, with all their layers.
    """
    return load_with(path, ReadOptions(wanted=wanted))


def load_to_compare(path: Path, options: ReadOptions) -> LoadedModel:
    """Read a model that another one is compared with: its tensors where layers cannot be read."""
    path = located(path)
    try:
        return load_with(path, options)
    except (CheckpointError, UsageError) as error:
        if options.name_roles or PEFT.matches(path):
            raise
        with suppress(CheckpointError, OSError):
            stored, sha256 = open_tensors(path, options.allow_pickle)
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
