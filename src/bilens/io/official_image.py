"""Image checkpoints of the paper's official repository, read by the names of their tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bilens.base.errors import CheckpointError, UsageError
from bilens.io.tensors import check_all_finite, check_kinds, check_names, read_pickle
from bilens.nn import BilinearClassifier

BLOCK = re.compile(r"blocks\.(\d{1,5})\.(weight|bias)")  # up to MAX_TENSORS blocks


class _Config:
    """Stands in for the configuration object that some published files carry.

    It lets the restricted unpickler set attributes, and nothing more.
    """


_Config.__module__, _Config.__qualname__, _Config.__name__ = "image.model", "Config", "Config"


def is_official_image(names: Mapping[str, Any]) -> bool:
    """Tell whether tensor names are those of an official image checkpoint."""
    return {"embed.weight", "head.weight", "blocks.0.weight"} <= {*names}


def read_official_pickle(path: Path) -> tuple[dict[str, Tensor], bool | None]:
    """Return the tensors of a `.pt` file, and whether it says that the model has a residual path.

    Raises:
        CheckpointError: If the file does not hold a state dict.
    """
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
    """Return the classifier in an official checkpoint: the left half of each block comes first.

    Args:
        path: for messages.
        tensors: the state dict.
        residual: whether each block adds its input; the shapes cannot reveal it.

    Raises:
        UsageError: If nothing says whether there is a residual path.
        CheckpointError: If names or shapes are not those of an official image model.
    """
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
