"""Image models, surrogates and toy models of the paper's official repository.

Image checkpoints hold the left half of each block first. Surrogates are
B[c, i, j] = Σ_r down[c, r] · ½ (left[i, r] right[j, r] + left[j, r] right[i, r]), toy models
head(left x ∘ right x); both are one bilinear MLP.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bilens.base.errors import CheckpointError, UsageError
from bilens.base.files import file_sha256, read_json
from bilens.io.formats.format import CONFIG_NAME, WEIGHTS_NAME, Format, ReadOptions, config_in
from bilens.io.formats.named_roles import read_named_roles
from bilens.io.loaded_model import LoadedModel
from bilens.io.tensors import (
    check_all_finite,
    check_kinds,
    check_names,
    read_pickle,
    read_safetensors,
    refuse_pickle,
)
from bilens.nn import BilinearClassifier, BilinearMLP

PICKLES = {".pt", ".pth", ".bin", ".ckpt"}
IMAGE = {"embed.weight", "head.weight", "blocks.0.weight"}
BLOCK = re.compile(r"blocks\.(\d{1,5})\.(weight|bias)")  # up to MAX_TENSORS blocks
SURROGATE = {"left", "right", "down"}
TOY = {"left.weight", "right.weight", "head.weight"}
TOY_BIASES = {"left.bias", "right.bias", "head.bias"}


# ---- files and folders


def read_file(path: Path, options: ReadOptions) -> LoadedModel:
    """Return the model in a safetensors file: one of the paper's, or MLPs by guessed roles."""
    tensors, _ = read_safetensors(path)
    return model_of(path, path, tensors, options, options.residual)


def read_pickled(path: Path, options: ReadOptions) -> LoadedModel:
    refuse_pickle(path, options.allow_pickle)
    tensors, said = read_official_pickle(path)
    return model_of(path, path, tensors, options, options.agreed_residual(path, said))


def is_image_folder(path: Path) -> bool:
    """Tell whether a folder is of the older repository, whose `config.json` has no format."""
    content = config_in(path)
    return "format" not in content and {"d_hidden", "n_layer"} <= {*content}


def read_image_folder(folder: Path, options: ReadOptions) -> LoadedModel:
    content, weights = read_json(folder / CONFIG_NAME), folder / WEIGHTS_NAME
    tensors, _ = read_safetensors(weights)
    said = content.get("residual")
    said = said if isinstance(said, bool) else None
    residual = options.agreed_residual(folder / CONFIG_NAME, said)
    return model_of(folder, weights, tensors, options, residual)


SAFETENSORS = Format("safetensors", lambda path: path.suffix == ".safetensors", read_file)
PICKLE = Format("pickle", lambda path: path.suffix in PICKLES, read_pickled)
IMAGE_FOLDER = Format("the paper's image model", is_image_folder, read_image_folder)


def model_of(
    source: Path,
    file: Path,
    tensors: Mapping[str, Tensor],
    options: ReadOptions,
    residual: bool | None,
) -> LoadedModel:
    """Return the model that tensors of these names are."""
    names = {*tensors}
    if names == SURROGATE or TOY <= names <= TOY | TOY_BIASES:
        options.refuse_residual(source, "has no blocks to be residual")
        small = build_official_small(file, tensors)
        about = {"format": "surrogate or toy model of the paper's official repository"}
        return LoadedModel(small, str(source), file_sha256(file), provenance=about)
    if names >= IMAGE:
        module = build_official_image(file, tensors, residual)
        about = {"format": "image checkpoint of the paper's official repository"}
        return LoadedModel(module, str(source), file_sha256(file), provenance=about)
    if source.suffix == ".safetensors" and names and names.isdisjoint(IMAGE - {"head.weight"}):
        return read_named_roles(file, ReadOptions())  # says what it would take for what, or why not
    raise CheckpointError(
        f"{file}: its tensors ({', '.join(sorted(names)[:4]) or 'none'}) are not those of a "
        "model that bilens knows; expected embed.weight, blocks.0.weight, head.weight, or a "
        f"model folder with {CONFIG_NAME}."
    )


# ---- image models


class _Config:
    """Stands in for the configuration object that some published files carry: sets attributes."""


_Config.__module__, _Config.__qualname__, _Config.__name__ = "image.model", "Config", "Config"


def read_official_pickle(path: Path) -> tuple[dict[str, Tensor], bool | None]:
    """Return the tensors of a `.pt` file, and whether it says that there is a residual path."""
    content = read_pickle(path, safe_classes=[_Config])
    residual = None
    if isinstance(content, dict) and set(content) == {"config", "model"}:  # third-party wrapping
        config = content["config"]
        options = config if isinstance(config, Mapping) else getattr(config, "__dict__", {})
        said = options.get("residual")
        residual = said if isinstance(said, bool) else None
        content = content["model"]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}; expected a state dict, names to tensors."
        )
    tensors = dict(content)
    check_kinds(path, tensors)
    check_all_finite(path, tensors)
    return tensors, residual


def build_official_image(
    path: Path, tensors: Mapping[str, Tensor], residual: bool | None
) -> BilinearClassifier:
    """Return the classifier in an official checkpoint: the left half of each block comes first."""
    matches = [match for name in tensors if (match := BLOCK.fullmatch(name))]
    n_layers = 1 + max((int(match[1]) for match in matches), default=-1)
    bias = any(match[2] == "bias" for match in matches)
    kinds = ("weight", "bias") if bias else ("weight",)
    blocks = {f"blocks.{index}.{kind}" for index in range(n_layers) for kind in kinds}
    check_names(path, tensors, {"embed.weight", "head.weight"} | blocks)
    if residual is None:
        raise UsageError(
            f"{path}: does not say whether the model has a residual path, and its shapes cannot "
            "reveal it: pass residual=True or residual=False (--residual / --no-residual), as it "
            "was trained."
        )
    sizes = check_official_shapes(path, tensors, n_layers)
    model = BilinearClassifier(*sizes, n_layers=n_layers, bias=bias, residual=residual)
    state = {"embed.weight": tensors["embed.weight"], "head.weight": tensors["head.weight"]}
    for index in range(n_layers):
        for kind in kinds:
            left, right = tensors[f"blocks.{index}.{kind}"].chunk(2, dim=0)
            state[f"layers.{index}.left.{kind}"] = left
            state[f"layers.{index}.right.{kind}"] = right
    model = model.to(tensors["embed.weight"].dtype)
    model.load_state_dict(state, strict=True)
    return model.eval()


def check_official_shapes(
    path: Path, tensors: Mapping[str, Tensor], n_layers: int
) -> tuple[int, int, int]:
    """Return (d_input, d_hidden, d_output) of an official checkpoint whose shapes fit."""
    if tensors["embed.weight"].ndim != 2 or tensors["head.weight"].ndim != 2:
        raise CheckpointError(f"{path}: embed.weight and head.weight must have two axes.")
    d_hidden, d_input = tensors["embed.weight"].shape
    d_output = tensors["head.weight"].shape[0]
    if 0 in (d_hidden, d_input, d_output):
        raise CheckpointError(f"{path}: embed.weight or head.weight has an empty axis.")
    expected: dict[str, tuple[int, ...]] = {"head.weight": (d_output, d_hidden)}
    for index in range(n_layers):
        expected[f"blocks.{index}.weight"] = (2 * d_hidden, d_hidden)
        expected[f"blocks.{index}.bias"] = (2 * d_hidden,)
    for name, shape in expected.items():
        if name in tensors and tuple(tensors[name].shape) != shape:
            raise CheckpointError(
                f"{path}: tensor {name!r} has shape {tuple(tensors[name].shape)}; embed.weight "
                f"{(d_hidden, d_input)} asks for {shape}."
            )
    if len({tensor.dtype for tensor in tensors.values()}) > 1:
        raise CheckpointError(f"{path}: mixes dtypes; one was expected: convert the weights.")
    return d_input, d_hidden, d_output


# ---- surrogates and toy models


def build_official_small(path: Path, tensors: Mapping[str, Tensor]) -> BilinearMLP:
    """Return a surrogate or a toy model as a bilinear MLP."""
    check_all_finite(path, tensors)
    if {*tensors} == SURROGATE:
        check_matrices(path, tensors, SURROGATE)
        weights = {"left": tensors["left"].T, "right": tensors["right"].T, "down": tensors["down"]}
    else:
        check_matrices(path, tensors, TOY)
        weights = {part: tensors[f"{part}.weight"] for part in ("left", "right")}
        weights["down"] = tensors["head.weight"]
    (d_hidden, d_in), d_out = weights["left"].shape, weights["down"].shape[0]
    check_fit(path, "right", weights["right"], (d_hidden, d_in))
    check_fit(path, "down", weights["down"], (d_out, d_hidden))
    biases = {
        name.replace("head", "down"): tensor
        for name, tensor in tensors.items()
        if name.endswith(".bias")
    }
    with torch.random.fork_rng(devices=[]):  # its own initialisation is overwritten
        model = BilinearMLP(d_in, d_hidden, d_out, bias=bool(biases))
    model = model.to(weights["left"].dtype)
    state = {f"{name}.weight": weight for name, weight in weights.items()}
    if biases:
        sizes = {"left": d_hidden, "right": d_hidden, "down": d_out}
        zeros = {f"{n}.bias": weights["left"].new_zeros(size) for n, size in sizes.items()}
        for name, bias in biases.items():
            check_fit(path, name, bias, tuple(zeros[name].shape))
        state |= {**zeros, **biases}
    model.load_state_dict(state, strict=True)
    return model.eval()


def check_matrices(path: Path, tensors: Mapping[str, Tensor], names: set[str]) -> None:
    for name in sorted(names):
        if tensors[name].ndim != 2 or 0 in tensors[name].shape:
            raise CheckpointError(
                f"{path}: tensor {name!r} has shape {tuple(tensors[name].shape)}; expected two "
                "axes with entries."
            )
    if len({tensor.dtype for tensor in tensors.values()}) > 1:
        raise CheckpointError(f"{path}: mixes dtypes; one was expected: convert the weights.")


def check_fit(path: Path, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a tensor that does not fit `left`."""
    if tuple(tensor.shape) != shape:
        raise CheckpointError(
            f"{path}: {name!r} has shape {tuple(tensor.shape)} as (out, in); the other tensors ask "
            f"for {shape}."
        )
