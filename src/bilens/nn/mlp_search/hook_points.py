"""The modules whose hooks see, and can change, what a layer that was found reads and gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Any, NamedTuple

from torch import Tensor, nn

from bilens.algebra.approximation.layer_weights import Layer
from bilens.base.errors import UsageError
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
    made_of: tuple[str, ...] = ()  # paths of the modules and parameters that the layer is made of
    tensors: Mapping[str, Tensor] = {}  # that were there when it was read, by name

    def check_not_replaced(self, module: nn.Module) -> None:
        """Refuse a module in which a tensor of the layer is another object than it was."""
        now = tensors_at(module, self.made_of)
        if other := [name for name, one in self.tensors.items() if now.get(name) is not one]:
            raise UsageError(
                f"{other[0]} of the {type(module).__name__} was replaced since it was read: read "
                "it again with bl.from_module."
            )

    def read_layer(self, module: nn.Module, read: Callable[[], Layer]) -> Layer:
        """Return a layer whose tensors are still those of the module."""
        self.check_not_replaced(module)
        return read()


def tensors_at(module: nn.Module, paths: Sequence[str]) -> dict[str, Tensor]:
    """Return the parameters and buffers at paths of modules, and of parameters, by name."""
    found = dict[str, Tensor]()
    for path in paths:
        with suppress(AttributeError):  # it is not there any more
            part: Any = attrgetter(path)(module) if path else module
            own = [("", part)]
            if isinstance(part, nn.Module):
                own = [*part.named_parameters(), *part.named_buffers()]
            found |= {below(path, name): one for name, one in own}
    return found


def hook_points(module: nn.Module, places: Mapping[str, Place]) -> dict[str, HookPoints]:
    """Return layer → the paths of the modules where it begins and ends.

    A module that several layers begin with is none: its hooks would change them all.
    """
    firsts = {name: first_modules(module, place) for name, place in places.items()}
    counts = Counter(path for paths in firsts.values() for path in paths)
    points = {}
    for name, place in places.items():
        paths = firsts[name] if all(counts[path] == 1 for path in firsts[name]) else ()
        left = [
            path for path, side in seen_where(module, place, place.layer.location) if side == "left"
        ]
        sizes, patch = place.layer.sizes, place.layer.source.patch
        gives, ends = left[0] if left else None, (sizes.d_in, sizes.d_out)
        own = tuple(below(place.path, path) for path in place.layer.paths)
        tensors = tensors_at(module, own)
        points[name] = HookPoints(paths, gives, ends, patch is not None, own, tensors)
    return points


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
