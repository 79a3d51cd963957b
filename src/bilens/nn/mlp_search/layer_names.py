"""Names of the layers that were found in a module: the path of what they are made of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import takewhile

from bilens.nn.mlp_search.found_layer import FoundLayer


def layer_names(path: str, layers: Sequence[FoundLayer], taken: Collection[str]) -> list[str]:
    """Return a name for each layer of a part of a module.

    It is the path that all of a layer's modules share where no other layer has it, and else that
    of the first of them.

    Args:
        path: of the part.
        layers: of it.
        taken: names that other layers have.
    """
    shared = [common_path(layer.paths) for layer in layers]
    full = [f"{path}.{name}".strip(".") for name in shared]
    names: list[str] = []
    for name, layer in zip(full, layers, strict=True):
        if not name or full.count(name) > 1 or name in taken:
            name = f"{path}.{layer.paths[0]}".strip(".")
        while name in names or name in taken:  # a module that is used twice
            name += "'"
        names.append(name)
    return names


def common_path(paths: Sequence[str]) -> str:
    """Return the path of the module that all of these are in; empty for the whole."""
    parents = [path.split(".")[:-1] for path in paths]
    levels = takewhile(lambda level: len({*level}) == 1, zip(*parents, strict=False))
    return ".".join(level[0] for level in levels)
