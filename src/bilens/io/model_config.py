"""`config.json` of a model folder: what it may say, and the module it describes."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from bilens.base.errors import CheckpointError, UsageError
from bilens.io.tensors import check_names
from bilens.nn import (
    BilinearClassifier,
    BilinearLayer,
    BilinearMLP,
    BilinearTransformer,
    PolynomialTransformer,
    ThresholdSAE,
    TopKSAE,
)
from bilens.nn.sparse_autoencoder import SparseAutoencoder

FORMAT = "bilens-model"
FORMAT_VERSION = 1
CLASSES: dict[str, type[nn.Module]] = {
    "BilinearClassifier": BilinearClassifier,
    "BilinearLayer": BilinearLayer,
    "BilinearMLP": BilinearMLP,
    "BilinearTransformer": BilinearTransformer,
    "PolynomialTransformer": PolynomialTransformer,
    "ThresholdSAE": ThresholdSAE,
    "TopKSAE": TopKSAE,
}
REQUIRED = ("format", "format_version", "class", "arguments")
# what a model folder says beside the module, as a `LoadedModel` does: a list of what, in words
LISTS: dict[str, tuple[Any, str]] = {
    "input_shape": (int, "a list of integers"),
    "input_names": (str, "a list of texts"),
    "input_mean": (int | float, "finite numbers"),
    "input_scale": (int | float, "finite numbers"),
    "output_names": (str, "a list of texts"),
}
OPTIONAL = tuple(LISTS)


@dataclass(frozen=True)
class ModelConfig:
    """The content of `config.json`."""

    class_name: str  # one of `CLASSES`
    arguments: Mapping[str, Any]  # the constructor arguments of that class
    # None where nothing was said
    input_shape: tuple[int, ...] | None = None  # how an input is laid out, for instance (28, 28)
    output_names: tuple[str, ...] | None = None
    input_names: tuple[str, ...] | None = None
    input_mean: tuple[float, ...] | None = None  # where the model was trained
    input_scale: tuple[float, ...] | None = None  # the standard deviations there

    def to_json(self) -> str:
        content: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "class": self.class_name,
            "arguments": dict(self.arguments),
        }
        said = {key: getattr(self, key) for key in OPTIONAL}
        content |= {key: list(value) for key, value in said.items() if value is not None}
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    def function_sha256(self) -> str:
        """Return a hash of what, beside the weights, decides the function."""
        content = json.dumps([self.class_name, dict(self.arguments)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def build(self, path: Path) -> nn.Module:
        """Return a new module as the configuration describes it; `path` is for the message."""
        try:
            return CLASSES[self.class_name](**self.arguments)
        except (TypeError, RuntimeError, OverflowError, UsageError) as error:  # for absurd sizes
            raise CheckpointError(
                f"{path}: the arguments do not fit {self.class_name} ({error}): restore the file."
            ) from error


def config_of(module: nn.Module) -> ModelConfig:
    """Return the configuration that rebuilds a module of ours, without names and input shape."""
    if CLASSES.get(type(module).__name__) is not type(module):  # a subclass may compute differently
        raise UsageError(
            f"a {type(module).__name__} cannot be saved as a model folder: expected one of "
            f"{', '.join(sorted(CLASSES))}."
        )
    return ModelConfig(type(module).__name__, arguments_of(module))


def arguments_of(module: nn.Module) -> dict[str, Any]:
    """Return the constructor arguments that rebuild a module of ours."""
    if isinstance(module, SparseAutoencoder):
        return module.arguments()
    if isinstance(module, BilinearTransformer):
        gate, bias = gate_and_bias(module.mlps)
        return {**asdict(module.config), "gate": gate, "bias": bias}
    if isinstance(module, PolynomialTransformer):
        return asdict(module.config)
    if isinstance(module, BilinearClassifier):
        gate, bias = gate_and_bias([*module.layers])
        return {
            "d_input": module.embed.in_features,
            "d_hidden": module.embed.out_features,
            "d_output": module.head.out_features,
            "n_layers": len(module.layers),
            "bias": bias,
            "residual": module.residual,
            "gate": gate,
        }
    assert isinstance(module, BilinearLayer), "one of CLASSES"
    width, products = module.left.in_features, module.left.out_features
    sizes = {"d_input": width, "d_output": products}
    if isinstance(module, BilinearMLP):
        sizes = {"d_model": width, "d_hidden": products, "d_output": module.down.out_features}
        sizes |= {} if module.skip is None else {"skip": True}
    return {**sizes, "bias": module.has_bias, "gate": module.gate}


def gate_and_bias(layers: Collection[nn.Module]) -> tuple[str | None, bool]:
    """Return the gate and the bias that all layers share; an ordinary MLP has no gate."""
    found = {(getattr(layer, "gate", None), bool(layer.has_bias)) for layer in layers}
    if len(found) > 1 or any(getattr(layer, "skip", None) is not None for layer in layers):
        raise UsageError(
            "the layers differ in gate or bias, or have linear paths, which config.json cannot "
            "say: build the model with one gate for all."
        )
    return found.pop()


def parse_config(path: Path, content: dict[str, Any]) -> ModelConfig:
    """Return the configuration in a `config.json`, strictly."""
    version = content.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: has format version {version}, this bilens reads up to {FORMAT_VERSION}: "
            "upgrade with `pip install -U bilens`."
        )
    advice = (
        f"; expected {', '.join(REQUIRED)} and optionally {', '.join(OPTIONAL)}: restore the file."
    )
    check_names(path, content, REQUIRED, OPTIONAL, advice)
    if content["format"] != FORMAT or type(version) is not int or version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: has format {content['format']!r} version {version!r}; expected {FORMAT!r} "
            f"version {FORMAT_VERSION}."
        )
    name, arguments = content["class"], content["arguments"]
    if not isinstance(name, str) or name not in CLASSES or not isinstance(arguments, dict):
        raise CheckpointError(
            f"{path}: describes the class {name!r}; expected one of {', '.join(sorted(CLASSES))} "
            "with an object of arguments."
        )
    said: dict[str, Any] = {}
    for key, (kind, expected) in LISTS.items():
        value = content.get(key)
        if value is None:
            continue
        if not is_list_of(kind, value) or not (kind is str or all(map(is_number, value))):
            raise CheckpointError(f"{path}: {key} is {value!r:.80}; expected {expected}.")
        said[key] = tuple(value if kind in (int, str) else map(float, value))
    return ModelConfig(name, arguments, **said)


def names_by_id(path: Path, id2label: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of classes in the order of their numbers, which JSON has as texts."""
    found = {int(key): str(name) for key, name in id2label.items() if key.isdecimal()}
    if [*sorted(found)] != [*range(len(id2label))]:
        raise CheckpointError(
            f"{path}: id2label numbers its classes {', '.join(id2label)[:80]}; expected 0 to "
            f"{len(id2label) - 1}: restore the file."
        )
    return tuple(found[number] for number in range(len(found)))


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def is_list_of(kind: Any, value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, kind) and not isinstance(item, bool) for item in value
    )
