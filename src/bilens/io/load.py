"""`bl.load`: any supported file or folder, as a model whose layers are quadratic maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from bilens.base.errors import CheckpointError, MemoryLimitError, UsageError
from bilens.io.config import FORMAT, read_json
from bilens.io.huggingface_llama import read_llama
from bilens.io.llama_config import LayersAloneError, is_huggingface
from bilens.io.loaded_model import LoadedModel
from bilens.io.mapped.reader import Activations, Said, read_mapped
from bilens.io.model_folder import CONFIG_NAME, WEIGHTS_NAME, read_model_folder
from bilens.io.official_image import (
    build_official_image,
    is_official_image,
    read_official_pickle,
)
from bilens.io.official_language import build_official_language, is_official_language
from bilens.io.official_small import build_official_small, is_official_small
from bilens.io.paths import check_path
from bilens.io.sae_formats.official import is_official_sae, read_official_sae
from bilens.io.sae_formats.roles import ForeignSAE
from bilens.io.sae_formats.saelens import is_saelens, read_saelens
from bilens.io.sae_formats.sparsify import is_sparsify, read_sparsify
from bilens.io.stored.gguf import read_gguf
from bilens.io.stored.huggingface import comparison_of_llama, read_layers
from bilens.io.stored.llama2c import is_pickled, read_llama2c
from bilens.io.stored.refusals import refuse_config
from bilens.io.stored.safetensors_folder import refuse_pickles
from bilens.io.tensors import MixedDtypesError, file_sha256, read_safetensors, refuse_pickle
from bilens.nn import TopKSAE
from bilens.nn.hooks import NAME as HOOK_NAME
from bilens.nn.layer_view import LayerView
from bilens.nn.module_layers import Module

__all__ = ["LayerView", "LoadedModel", "load"]

OFFICIAL = {"embed.weight", "blocks.0.weight"}  # a checkpoint of the repository that lacks more
PICKLES = {".pt", ".pth", ".bin", ".ckpt"}


def load(
    path: str | Path,
    *,
    residual: bool | None = None,
    allow_pickle: bool = False,
    roles: Mapping[str, str] | None = None,
    activation: Activations | None = None,
    transposed: bool | None = None,
) -> LoadedModel:
    """Read a model: a bilens model folder, a folder of Hugging Face, or one of the paper's.

    A Llama comes as a whole where a transformer of ours can be one; of every other language model
    (`docs/loading.md` lists them) the gated MLPs and experts come alone, as layers that are read
    from the files one at a time; `module` is then None.

    A sparse autoencoder comes from a bilens model folder, or one of SAELens, of sparsify or of the
    paper's repository; its `module` is a `TopKSAE`, and it has no layers.

    Of any other safetensors file the ordinary and gated MLPs can be read: `roles` says which tensor
    is what, for example {"up.0": "net.0.weight", "up_bias.0": "net.0.bias", "down.0": …};
    without it they are guessed from names and shapes, and `model.load_report` shows the
    guess. Layers of which only the last has `down` are one behind the other. Objects in memory are
    read by `bl.from_module` and `bl.from_sklearn`.

    Args:
        path: a folder with `config.json` and `model.safetensors` (a Llama's may be in shards), or
            an image checkpoint of the paper's repository: a `.safetensors` file or, with
            `allow_pickle`, a `.pt` file.
        residual: for official checkpoints that do not say whether each block adds its input.
        allow_pickle: whether a pickle may be opened (with weights_only).
        roles: role → tensor of a safetensors file; the roles are up, down and gate, each with
            _bias, and .0, .1, … for several layers. `gate` has the activation where there is one.
        activation: of its layers, "relu", "gelu", "leaky_relu:0.2" and so on, "identity" for none;
            "gelu,relu" or a list is one for each.
        transposed: whether its matrices are (in, out); None where shapes decide it.

    Raises:
        CheckpointError: If the path is missing, damaged, of a newer version or not supported.
        NonFiniteError: If a weight is NaN or infinite.
        UsageError: If `path` is not one, or `residual` is needed and not given or contradicts the
            model folder.
        MemoryLimitError: If the weights would not fit.
    """
    refuse_objects(path)
    path = check_path("path", path)
    said = Said(roles, activation, transposed)
    try:
        if said.anything and path.exists():
            return read_mapped(path, said)
        return _load(path, residual, allow_pickle)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}): check the path and its permissions."
        ) from error


def refuse_objects(value: object) -> None:
    """Refuse a model that is in memory already, naming its reader.

    Raises:
        UsageError: If it is a PyTorch module or an estimator of scikit-learn.
    """
    reader = "from_module" if isinstance(value, nn.Module) else "from_sklearn"
    if isinstance(value, nn.Module) or hasattr(value, "get_params"):
        raise UsageError(
            f"path is a {type(value).__name__}; expected a text or a Path: an object in memory is "
            f"read by bl.{reader}."
        )


def _load(path: Path, residual: bool | None, allow_pickle: bool) -> LoadedModel:
    if not path.exists():
        raise CheckpointError(
            f"{path}: no such file or folder; expected a model folder ({CONFIG_NAME} and "
            f"{WEIGHTS_NAME}), for example one that `bilens train` wrote."
        )
    if path.is_dir():
        return _load_folder(path, residual)
    if path.suffix == ".safetensors":
        tensors, _ = read_safetensors(path)
        return _official(path, path, tensors, residual)
    if path.suffix == ".gguf":
        return layers_alone(path, read_gguf(path), residual)
    if path.suffix == ".bin" and not is_pickled(path):
        return layers_alone(path, read_llama2c(path), residual)
    if path.suffix in PICKLES:
        refuse_pickle(path, allow_pickle)
        tensors, said = read_official_pickle(path)
        return _official(path, path, tensors, agreed_residual(path, said, residual))
    raise CheckpointError(
        f"{path}: is not a supported model file; expected a model folder, a .safetensors or .gguf "
        f"file, a .bin of llama2.c, or a pickle ({', '.join(sorted(PICKLES))}) with --allow-pickle."
    )


def _load_folder(folder: Path, residual: bool | None) -> LoadedModel:
    if is_saelens(folder):
        return _foreign_sae(folder, read_saelens(folder), residual)
    if is_sparsify(folder):
        return _foreign_sae(folder, read_sparsify(folder), residual)
    if not (folder / CONFIG_NAME).exists() and not (folder / WEIGHTS_NAME).exists():
        raise CheckpointError(
            f"{folder}: holds no model; expected {CONFIG_NAME} and {WEIGHTS_NAME} in it."
            f"{what_else_is_there(folder)}"
        )
    content = read_json(folder / CONFIG_NAME)
    if is_official_sae(content):
        return _foreign_sae(folder, read_official_sae(folder, content), residual)
    if is_official_language(content) or is_huggingface(content):
        return _transformer_of_others(folder, content, residual)
    if "format" not in content and {"d_hidden", "n_layer"} <= {*content}:  # the older repository
        tensors, _ = read_safetensors(folder / WEIGHTS_NAME)
        said = content.get("residual")
        said = said if isinstance(said, bool) else None
        residual = agreed_residual(folder / CONFIG_NAME, said, residual)
        return _official(folder, folder / WEIGHTS_NAME, tensors, residual)
    if content.get("format") not in (None, FORMAT):
        raise CheckpointError(
            f"{folder / CONFIG_NAME}: has format {content['format']!r}; expected {FORMAT!r}."
        )
    stored = read_model_folder(folder)
    assert isinstance(stored.module, Module), "all of CLASSES are"
    if isinstance(stored.module, TopKSAE) and not float(stored.module.scale) > 0:
        raise CheckpointError(
            f"{folder / WEIGHTS_NAME}: the scale is {float(stored.module.scale):g}; expected a "
            "positive number: restore the file."
        )
    agreed_residual(folder / CONFIG_NAME, stored.config.arguments.get("residual", False), residual)
    return LoadedModel(
        stored.module,
        str(folder),
        file_sha256(folder / WEIGHTS_NAME),
        stored.config.input_shape,
        stored.config.output_names,
        stored.provenance,
        stored.config.input_names,
        input_mean=stored.config.input_mean,
        input_scale=stored.config.input_scale,
    )


def layers_alone(path: Path, model: LoadedModel, residual: bool | None) -> LoadedModel:
    """Return the layers of a language model, of which no residual path can be asked."""
    if residual is not None:
        raise UsageError(
            f"{path}: is a language model, which always has residual paths: leave the option out."
        )
    return model


def what_else_is_there(folder: Path) -> str:
    """Return a hint at what a folder without a model holds; empty where there is none."""
    hooks = sorted(item.name for item in folder.iterdir() if HOOK_NAME.fullmatch(item.name))
    if hooks:
        return f" It holds one autoencoder a hook point: load {folder / hooks[0]}, for example."
    if (folder / "checkpoints").is_dir():
        return " Its training has not finished: continue it with --resume."
    return ""


def _foreign_sae(folder: Path, found: ForeignSAE, residual: bool | None) -> LoadedModel:
    if residual is not None:
        raise UsageError(f"{folder}: is a sparse autoencoder, without residual: leave it out.")
    sha256 = file_sha256(found.weights)
    return LoadedModel(found.sae, str(folder), sha256, provenance=found.provenance)


def _transformer_of_others(
    folder: Path, content: dict[str, Any], residual: bool | None
) -> LoadedModel:
    if residual is not None:
        raise UsageError(
            f"{folder}: is a language model, which always has residual paths: leave the option out."
        )
    if is_official_language(content):
        tensors, _ = read_safetensors(folder / WEIGHTS_NAME)
        module = build_official_language(folder, content, tensors)
        sha256, kind = file_sha256(folder / WEIGHTS_NAME), "transformer of the paper's official"
        return LoadedModel(module, str(folder), sha256, provenance={"format": f"{kind} repository"})
    refuse_config(folder / CONFIG_NAME, content)
    refuse_pickles(folder)
    if content.get("model_type") != "llama":
        return read_layers(folder)
    try:
        module, sha256 = read_llama(folder)
    except LayersAloneError as error:
        return read_layers(folder, str(error))
    except MixedDtypesError:
        return read_layers(folder, "its tensors are of several dtypes")
    except MemoryLimitError as error:
        return read_layers(folder, f"it does not fit into memory as a whole ({error})")
    about, measure = {"format": "Hugging Face Llama"}, comparison_of_llama(folder, module)
    return LoadedModel(module, str(folder), sha256, provenance=about, compare=measure)


def agreed_residual(path: Path, said: bool | None, asked: bool | None) -> bool | None:
    """Return whether there is a residual path: what the file says, or else what the caller says.

    Raises:
        UsageError: If the two disagree; another answer would be another model.
    """
    if said is not None and asked is not None and said != asked:
        raise UsageError(
            f"{path}: the model was saved with residual={said}, and residual={asked} was asked "
            "for: leave the option out."
        )
    return asked if said is None else said


def _official(
    source: Path, file: Path, tensors: Mapping[str, Any], residual: bool | None
) -> LoadedModel:
    if is_official_small(tensors):
        if residual is not None:
            raise UsageError(f"{source}: has no blocks to be residual: leave the option out.")
        small = build_official_small(file, tensors)
        about = {"format": "surrogate or toy model of the paper's official repository"}
        return LoadedModel(small, str(source), file_sha256(file), provenance=about)
    if not is_official_image(tensors):
        if source.suffix == ".safetensors" and tensors and {*tensors}.isdisjoint(OFFICIAL):
            return read_mapped(file, Said())  # says what it would take for what, or why it cannot
        raise CheckpointError(
            f"{file}: its tensors ({', '.join(sorted(tensors)[:4]) or 'none'}) are not those of a "
            "model that bilens knows; expected embed.weight, blocks.0.weight, head.weight, or a "
            f"model folder with {CONFIG_NAME}."
        )
    module = build_official_image(file, tensors, residual)
    provenance = {"format": "image checkpoint of the paper's official repository"}
    return LoadedModel(module, str(source), file_sha256(file), provenance=provenance)
