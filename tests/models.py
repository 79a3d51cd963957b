"""Small models of every kind that can be saved, with weights that are far from their start."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bilens.nn import BilinearClassifier, BilinearLayer, BilinearMLP

MAKERS: dict[str, Callable[..., nn.Module]] = {
    "layer": lambda **options: BilinearLayer(6, 4, **options),
    "MLP": lambda **options: BilinearMLP(6, 4, 3, **options),
    "classifier": lambda **options: BilinearClassifier(6, 4, 3, **options),
    "deep classifier": lambda **options: BilinearClassifier(6, 4, 3, n_layers=2, **options),
    "residual classifier": lambda **options: BilinearClassifier(6, 4, 3, residual=True, **options),
}
CLASSIFIER_CONFIG = {
    "format": "bilens-model",
    "format_version": 1,
    "class": "BilinearClassifier",
    "arguments": {
        "d_input": 6,
        "d_hidden": 4,
        "d_output": 3,
        "n_layers": 1,
        "bias": False,
        "residual": False,
        "gate": None,
    },
}


def make(kind: str = "classifier", seed: int = 0, **options: Any) -> nn.Module:
    """A model whose every parameter, biases too, is standard normal."""
    module = MAKERS[kind](**options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    """Whether two modules have the same tensors: names, dtypes, shapes and bits."""
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype
        for name in ours
    )


def edit_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the content of a model folder's config.json, as a hand with an editor would."""
    path = folder / "config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
