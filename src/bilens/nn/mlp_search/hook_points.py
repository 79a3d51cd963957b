"""The modules whose hooks see, and can change, what a layer that was found reads and gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from torch import nn

from bilens.nn.mlp_search.compare_run import seen_where
from bilens.nn.mlp_search.expression import Applied, Neurons, Total, Tree, ValueSource
from bilens.nn.mlp_search.find_mlps import Place, below


class HookPoints(NamedTuple):
    """Where the two ends of a layer are in a running module.

    What the neurons of a layer read enters each of `reads`; a residual path around them, where
    the layer has one, is not among them.
    """

    reads: tuple[str, ...]  # paths of modules; empty where no module is given just that
    gives: str | None  # path of the module whose output it is; None where there is none
    sizes: tuple[int, int]  # of a row that it reads, and of one that it gives
    reads_patches: bool = False  # of an image, which overlap


def hook_points(module: nn.Module, places: Mapping[str, Place]) -> dict[str, HookPoints]:
    """Return layer → the paths of the modules where it begins and ends.

    A module that several layers begin with is none: its hooks would change them all.
    """
    firsts = {name: first_modules(module, place) for name, place in places.items()}
    counts = Counter(path for paths in firsts.values() for path in paths)
    found = {}
    for name, place in places.items():
        paths = firsts[name] if all(counts[path] == 1 for path in firsts[name]) else ()
        left = [
            path for path, side in seen_where(module, place, place.layer.location) if side == "left"
        ]
        sizes, patch = place.layer.sizes, place.layer.source.patch
        gives = left[0] if left else None
        found[name] = HookPoints(paths, gives, (sizes.d_in, sizes.d_out), patch is not None)
    return found


def first_modules(module: nn.Module, place: Place) -> tuple[str, ...]:
    """Return the paths of all modules that are given what the neurons of a layer read, alone.

    That is the part that was traced where it is the layer and nothing else, or else the linear
    maps that the neurons begin with. Empty where one of these is no module that is called once.
    """
    source = place.layer.source.location
    inner = first_steps(place.layer.neurons)
    whole = ("entered", place.path) in {
        (side, path) for path, side in seen_where(module, place, source)
    }
    calls: Counter[object] = Counter()
    if place.graph is not None:
        calls.update(one.target for one in place.graph.nodes if one.op == "call_module")
        if whole and not calls and is_all(module.get_submodule(place.path), place):
            return (place.path,)
    known = {path for path, _ in module.named_modules()}
    paths = {below(place.path, path) for path in inner}
    once = place.graph is None or all(calls[path] == 1 for path in inner)
    return tuple(sorted(paths)) if "" not in inner and once and paths <= known else ()


def is_all(part: nn.Module, place: Place) -> bool:
    """Tell whether every parameter of a part is one of the layer."""
    own = place.layer.paths
    return all(name in own for name, _ in part.named_parameters())


def first_steps(tree: Tree) -> set[str]:
    """Return the paths of the linear maps that read the source of a value; empty for itself."""
    if isinstance(tree, Applied):
        return {tree.step.path} if isinstance(tree.inner, ValueSource) else first_steps(tree.inner)
    if isinstance(tree, Total):
        return {path for part in tree.parts for path in first_steps(part)}
    if isinstance(tree, Neurons):
        values = (tree.gate,) if tree.value is None else (tree.gate, tree.value)
        return {path for part in values for path in first_steps(part)}
    return {""}
