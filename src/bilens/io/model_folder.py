"""The model folder of bilens: `config.json` says what it is, `model.safetensors` holds it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from bilens.base.errors import CheckpointError, UsageError
from bilens.base.files import check_path, file_sha256, read_json, write_new_files
from bilens.base.model_card import card_file
from bilens.io.loaded_model import (
    CONFIG_NAME as CONFIG_NAME,
    NOTHING_SAID,
    WEIGHTS_NAME as WEIGHTS_NAME,
    Format,
    LoadedModel,
    ReadOptions,
)
from bilens.io.model_config import (
    FORMAT,
    FORMAT_VERSION,
    OPTIONAL,
    ModelConfig,
    config_of,
    is_list_of,
    parse_config,
)
from bilens.io.tensors import (
    check_all_finite,
    check_kinds,
    check_layer_count,
    check_names,
    check_shapes,
    read_safetensors,
    safetensors_bytes,
)
from bilens.nn.agreement import inputs_at_scales
from bilens.nn.module_layers import Module
from bilens.nn.real_run import check_as_rebuilt, first_tokens
from bilens.nn.sparse_autoencoder import SparseAutoencoder

TEXTS = "pipeline_tag: text-generation\n"  # on the card of a language model
INPUTS = ("d_input", "d_model", "d_in")  # what the width of the input is called
MAX_CONFIG_BYTES = 1 << 25  # with the names, means and scales of 500,000 inputs


def save(
    module: nn.Module,
    folder: str | Path,
    *,
    input_shape: Sequence[int] | None = None,
    output_names: Sequence[str] | None = None,
    provenance: Mapping[str, str] | None = None,
    overwrite: bool = False,
    input_names: Sequence[str] | None = None,
    input_mean: Sequence[float] | None = None,
    input_scale: Sequence[float] | None = None,
) -> Path:
    """Write a model folder; `bl.load` gives back the same weights, bit for bit.

    Args:
        module: a `BilinearTransformer`, `PolynomialTransformer`, `BilinearClassifier`,
            `BilinearMLP`, `BilinearLayer`, `TopKSAE` or `ThresholdSAE`.
        folder: where to; other files in it are left alone.
        input_shape: how an input is laid out, for instance (28, 28).
        output_names: one name for each output.
        input_names: one name for each input, such as the column of a table; no two alike.
        input_mean: the mean of each input where the model was trained: what reports measure from.
        input_scale: the standard deviation of each input there, above 0: their unit. The model
            still reads the inputs as they come.
        provenance: where the weights come from: seed, data, versions.
        overwrite: whether a model that is already there may be replaced.

    Raises:
        OutputExistsError: If the folder holds a model and `overwrite` is off.
        UsageError: If the module is of another class or was altered so that `bl.load` could not
            give it back, or names or shape do not fit its sizes.
        NonFiniteError: If a weight is NaN or infinite.
        DiskError: If the disk is full.
        FileError: If the folder cannot be written to.
    """
    folder = check_path("folder", folder)
    config = replace(
        config_of(module),
        input_shape=None if input_shape is None else tuple(input_shape),
        output_names=None if output_names is None else tuple(output_names),
        input_names=None if input_names is None else tuple(input_names),
        input_mean=None if input_mean is None else tuple(map(float, input_mean)),
        input_scale=None if input_scale is None else tuple(map(float, input_scale)),
    )
    check_description(config)
    weights, about = weights_file(folder, module, config, provenance), config.to_json().encode()
    sizes, sha256 = config.arguments, hashlib.sha256(weights).hexdigest()
    words = {"name": config.class_name, "task": TEXTS if "vocab_size" in sizes else ""}
    card = card_file(folder, "model", sha256, sizes, provenance or {}, words)
    write_new_files(folder, {WEIGHTS_NAME: weights, CONFIG_NAME: about, **card}, overwrite)
    return folder


def weights_file(
    folder: Path, module: nn.Module, config: ModelConfig, provenance: Mapping[str, str] | None
) -> bytes:
    """Return the file of the weights of a module that computes the same when it is built again."""
    state = module.state_dict()
    try:
        check_kinds(folder, state)
        rebuilt = blank_module(folder, config, state)
        check_dictionary(folder, module)
    except CheckpointError as error:
        raise UsageError(f"the module could not be loaded again: {error}") from None
    tensors = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    check_all_finite(folder, tensors)
    rebuilt.load_state_dict(tensors, assign=True)
    check_as_rebuilt(module, rebuilt, inputs_of(config, next(iter(tensors.values()))))
    metadata = {
        "format": "pt",
        "bilens_format_version": str(FORMAT_VERSION),
        "function_sha256": config.function_sha256(),
        "provenance": json.dumps(dict(provenance or {}), ensure_ascii=False, sort_keys=True),
    }
    return safetensors_bytes(tensors, metadata)


def read_model_folder(folder: Path, options: ReadOptions = NOTHING_SAID) -> LoadedModel:
    """Return the model of a folder that `save` wrote, on the CPU and in evaluation mode."""
    config_path, weights_path = folder / CONFIG_NAME, folder / WEIGHTS_NAME
    content = read_json(config_path, MAX_CONFIG_BYTES)
    if content.get("format", FORMAT if "class" in content else None) != FORMAT:
        raise CheckpointError(
            f"{config_path}: has format {content.get('format')!r}; expected {FORMAT!r}, or the "
            "model_type of a model of Hugging Face."
        )
    config = parse_config(config_path, content)
    tensors, metadata = read_safetensors(weights_path)
    module = blank_module(weights_path, config, tensors)
    if metadata.get("function_sha256") != config.function_sha256():
        raise CheckpointError(
            f"{config_path} and {weights_path} were not saved together (function_sha256 differs): "
            "restore the pair, or save the model again."
        )
    try:
        check_description(config)
    except UsageError as error:
        raise CheckpointError(f"{config_path}: {error}") from None
    dtype = next(iter(tensors.values())).dtype
    # `to_empty` would load a compiler and sympy: 50 MB and half a second
    module._apply(  # type: ignore[no-untyped-call]
        lambda one: torch.empty(one.shape, dtype=dtype if one.is_floating_point() else one.dtype)
    )
    module.load_state_dict(tensors, strict=True)
    assert isinstance(module, Module), "all of CLASSES are"
    check_dictionary(weights_path, module)
    options.agreed_residual(config_path, config.arguments.get("residual", False))
    return LoadedModel(
        module.eval(),
        str(folder),
        file_sha256(weights_path),
        provenance=parse_provenance(weights_path, metadata),
        **{name: getattr(config, name) for name in OPTIONAL},
    )


MODEL_FOLDER = Format(  # which of the two files is missing is said when it is read
    "bilens model folder",
    lambda path: any((path / name).exists() for name in (CONFIG_NAME, WEIGHTS_NAME)),
    read_model_folder,
)


def blank_module(path: Path, config: ModelConfig, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return the module that a configuration describes if exactly these tensors fill it."""
    n_layers = config.arguments.get("n_layers", config.arguments.get("n_layer"))
    if isinstance(n_layers, int):
        check_layer_count(path, n_layers, tensors)
    with torch.device("meta"):
        module = config.build(path.parent / CONFIG_NAME)
    expected = module.state_dict()
    check_names(path, tensors, expected)
    check_shapes(path, tensors, {name: tuple(part.shape) for name, part in expected.items()})
    return module


def check_dictionary(path: Path, module: nn.Module) -> None:
    """Refuse an autoencoder with a scale or a threshold that none can have."""
    parts = dict(module.named_buffers()) if isinstance(module, SparseAutoencoder) else {}
    for name, allowed in ((n, one > 0 if n == "scale" else one >= 0) for n, one in parts.items()):
        if not bool(allowed.all()):
            raise CheckpointError(
                f"{path}: {name} is {float(parts[name].min()):g} at one place; expected a positive "
                "number, or 0 as a threshold: restore the file."
            )


def inputs_of(config: ModelConfig, like: Tensor) -> Tensor:
    """Return inputs of a module, of the dtype and on the device of one of its tensors."""
    sizes = config.arguments
    if "vocab_size" in sizes:
        return first_tokens(sizes["vocab_size"], sizes["n_ctx"]).to(like.device)
    return inputs_at_scales(next(sizes[key] for key in INPUTS if key in sizes)).to(like)


def check_description(config: ModelConfig) -> None:
    """Refuse an input shape or names that do not fit the sizes of the module."""
    sizes, kind = config.arguments, config.class_name
    d_in = next(sizes[key] for key in INPUTS if key in sizes)
    d_out = sizes.get("d_output", sizes.get("vocab_size", d_in))
    shape = config.input_shape
    if shape is not None and (not is_list_of(int, [*shape]) or min(shape, default=1) < 1):
        raise UsageError(f"input_shape is {shape}; expected positive integers.")
    check_names_of("output", config.output_names, d_out, f"{kind} has {d_out} outputs")
    check_names_of("input", config.input_names, d_in, f"{kind} reads {d_in} inputs")
    for name, numbers in (("input_mean", config.input_mean), ("input_scale", config.input_scale)):
        if numbers is not None and (len(numbers) != d_in or not all(map(math.isfinite, numbers))):
            raise UsageError(
                f"{name} has {len(numbers)} numbers; expected {d_in}, one for each input, finite."
            )
    if config.input_scale is not None and min(config.input_scale) <= 0:
        raise UsageError("input_scale holds a number that is not above 0: use 1 for a constant.")
    if shape is not None and "vocab_size" in sizes:
        raise UsageError(f"input_shape is {shape}; a {kind} reads tokens: leave it out.")
    if shape is not None and prod(shape) != d_in:
        raise UsageError(
            f"input_shape {shape} has {prod(shape)} entries; the {kind} reads {d_in} inputs."
        )


def check_names_of(what: str, names: tuple[str, ...] | None, count: int | None, has: str) -> None:
    """Refuse names of inputs or outputs that are no texts, not one for each, or alike."""
    if names is None:
        return
    if not is_list_of(str, [*names]):
        raise UsageError(f"{what}_names is {names}; expected texts, one for each {what}.")
    if len(names) != count:
        raise UsageError(f"{what}_names has {len(names)} names; the {has}.")
    if len({*names}) != count:
        raise UsageError(
            f"{what}_names has {count} names, {len({*names})} of them different: no two may be "
            "alike."
        )


def parse_provenance(path: Path, metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the provenance in the metadata of a weights file, {} if there is none."""
    try:
        content = json.loads(metadata.get("provenance", "{}"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: the provenance in its metadata is not a JSON object: save the model again."
        )
    return {str(key): str(value) for key, value in content.items()}
