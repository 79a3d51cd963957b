"""Layers as they were read against the module that was given, as it runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Node
from torch.nn import functional

from bilens.algebra.approximation.layer_weights import Layer
from bilens.base.errors import NumericalError
from bilens.nn.agreement import Agreement, agreement_with_run, inputs_at_scales
from bilens.nn.mlp_search.find_mlps import FoundMLPs, Place, below, nothing_found
from bilens.nn.mlp_search.observation import TORCH_LAYERS, in_dtype
from bilens.nn.mlp_search.patches import places
from bilens.nn.real_run import Ran, only_tensor, run_as_owner, what_may_differ

WHOLE = "output"  # what the comparison of a whole network is called
NOTHING = "nothing that it could be run on is known: pass example=..., an input"
META = "it is on the meta device and holds nothing to run"


@dataclass(frozen=True, eq=False)
class Verified:
    """What was found, less what is another function than the module, and what was compared."""

    found: FoundMLPs
    checks: Mapping[str, Agreement]
    unverified: tuple[str, ...]  # what could not be compared, and why, in words


def compare_with_module(module: nn.Module, found: FoundMLPs, example: object = None) -> Verified:
    """Compare the layers of a module with the module itself, and leave out what differs.

    Raises:
        UsageError: If nothing is left.
    """
    if any(one.is_meta for one in module.parameters()):
        return Verified(found, {}, (META,))
    compared: dict[str, Agreement | str]
    if found.network:
        layers = [one.layer.read() for one in found.places.values()]
        compared = {WHOLE: compare_network(module, layers, found.head, example)}
    else:
        compared = compare_parts(module, found, example)
    checks = {name: one for name, one in compared.items() if isinstance(one, Agreement)}
    wrong = {name: one for name, one in checks.items() if not one.passed}
    unverified = tuple(f"{name}: {one}" for name, one in compared.items() if isinstance(one, str))
    notes = [
        f"{name}: what was read differs by {one.max_error:.1e} from the module as it runs"
        f"{what_may_differ(module)}"
        for name, one in wrong.items()
    ]
    left_out = (*notes, *found.left_out)
    kept = {} if WHOLE in wrong else {n: v for n, v in found.layers.items() if n not in wrong}
    if not kept:
        raise nothing_found(module, left_out, example)
    made_of = {name: found.made_of[name] for name in kept}
    checks = {name: one for name, one in checks.items() if one.passed}
    found = replace(found, layers=kept, made_of=made_of, left_out=left_out)
    return Verified(found, checks, unverified)


def compare_network(
    module: nn.Module, layers: Sequence[Layer], head: str | None = None, example: object = None
) -> Agreement | str:
    """Compare layers one behind the other with what a module makes of inputs, or say why not."""
    like = next(one for one in module.parameters() if one.is_floating_point())
    width = layers[0].d_in
    given = [inputs_at_scales(width).to(like)]
    if isinstance(example, Tensor) and example.shape[-1] == width:
        given.insert(0, example.detach().to(like))
    found: list[Agreement | str] = []
    for x in given:
        try:
            answer = only_tensor(run_as_owner(module, x)[0])
        except Exception as error:  # somebody else's code
            found.append(failed(error))
            continue
        if answer is None or answer.shape != (*x.shape[:-1], len(layers[-1].down)):
            found.append(f"it gives {'no one tensor' if answer is None else tuple(answer.shape)}")
            continue
        rows, made = x.reshape(-1, width), answer.reshape(-1, answer.shape[-1])
        found.append(agreement_with_run(WHOLE, layers, rows, made, head_function(head)))
    known = [one for one in found if isinstance(one, Agreement)]
    return max(known, key=lambda one: (not one.passed, one.relative_error), default=found[0])


def failed(error: Exception) -> str:
    said = " ".join(str(error).split())[:200]
    return f"it does not run on rows of numbers ({type(error).__name__}: {said})"


def head_function(head: str | None) -> Callable[[Tensor], Tensor]:
    """Return what a module applies behind its last layer."""
    if head is None:
        return lambda y: y
    kind = functional.log_softmax if head.lower().startswith("log") else functional.softmax
    return lambda y: kind(y, dim=-1)


# ---- parts of a module


def compare_parts(
    module: nn.Module, found: FoundMLPs, example: object
) -> dict[str, Agreement | str]:
    """Compare each layer with what entered and left the parts of a module that it stands between.

    Without an example each part that was traced runs by itself, on inputs at several scales.
    """
    parts = dict.fromkeys((one.path, one.graph) for one in found.places.values())
    compared: dict[str, Agreement | str] = {}
    everywhere: dict[str, Ran] | str | None = None
    if example is not None:
        paths = {path for part in parts for path in paths_of(*part)}
        paths |= {str(end) for one in found.places.values() for end in watched_ends(one)}
        everywhere = run_or_say(module, example, paths)
    for path, graph in parts:
        inside = {
            n: one for n, one in found.places.items() if (one.path, one.graph) == (path, graph)
        }
        ran = everywhere
        if ran is None:
            ran = run_alone(module.get_submodule(path), path, paths_of(path, graph), inside)
        for name, one in inside.items():
            compared[name] = ran if isinstance(ran, str) else compare_layer(name, one, ran, module)
    return compared


def watched_ends(place: Place) -> tuple[object, ...]:
    """Return the paths between which a layer was watched; nothing for one of a graph."""
    return () if place.graph else (place.layer.source.location, place.layer.location)


def paths_of(path: str, graph: fx.Graph | None) -> set[str]:
    """Return the paths of what a graph calls, and of the part that it is of."""
    calls = [] if graph is None else [node for node in graph.nodes if node.op == "call_module"]
    return {path, *(below(path, str(node.target)) for node in calls)}


def run_or_say(module: nn.Module, example: object, paths: set[str]) -> dict[str, Ran] | str:
    like = next(one for one in module.parameters() if one.is_floating_point())
    try:
        return run_as_owner(module, in_dtype(example, like.dtype, like.device), paths)[1]
    except Exception as error:  # somebody else's code
        return failed(error)


def run_alone(
    part: nn.Module, path: str, paths: set[str], inside: Mapping[str, Place]
) -> dict[str, Ran] | str:
    """Run a part of a module by itself on what one of its layers could read."""
    said: str | dict[str, Ran] = NOTHING
    for source in dict.fromkeys(one.layer.source for one in inside.values()):
        x = inputs_at_scales(source.width or 1)
        if source.patch is not None:
            x = source.patch.images()
        inner = {one.removeprefix(path).removeprefix(".") for one in paths}
        said = run_or_say(part, x, inner)
        if not isinstance(said, str):
            return {below(path, name): one for name, one in said.items()}
    return said


def compare_layer(
    name: str, place: Place, ran: Mapping[str, Ran], module: nn.Module
) -> Agreement | str:
    """Compare a layer with what was seen at its two ends."""
    layer, values = place.layer, seen_values(place, ran, module)
    given, made = (values(one) for one in (layer.source.location, layer.location))
    if not given or not made:
        return "where it begins or ends in the module nothing could be watched"
    patch = layer.source.patch
    x = given[0].flatten(0, -2) if patch is None else patch.vectors(given[0])
    try:
        found = [
            agreement_with_run(name, [layer.read()], x, y)
            for one in made
            for y in [one.flatten(0, -2) if patch is None or one.ndim < 3 else places(one)]
        ]
    except (NumericalError, ValueError, RuntimeError) as error:
        return failed(error)
    apart = [one for one in given[1:] if not torch.equal(one, given[0])]
    worst = max(found, key=lambda one: (not one.passed, one.relative_error))
    if apart:  # something between two parts changes what goes from one to the other
        error = float((apart[0].double() - given[0].double()).abs().max())
        return replace(worst, max_error=error, relative_error=float("inf"))
    return worst


def seen_values(
    place: Place, ran: Mapping[str, Ran], module: nn.Module
) -> Callable[[Any], list[Tensor]]:
    """Return a function of a value of a graph: what it was in the module, wherever it was seen."""
    graph, path = place.graph, place.path
    if graph is None:
        source = place.layer.source.location
        return lambda end: [
            one
            for one in [ran[end].args[0] if end == source else ran[end].made]
            if isinstance(one, Tensor)
        ]
    nodes = [*graph.nodes]
    calls = [str(node.target) for node in nodes if node.op == "call_module"]
    inputs = [node for node in nodes if node.op == "placeholder"]
    whole = ran.get(path)
    if isinstance(module.get_submodule(path), TORCH_LAYERS):  # the graph is that of a method
        whole = None

    def call_of(node: Node) -> Ran | None:
        once = node.op == "call_module" and calls.count(str(node.target)) == 1
        return ran.get(below(path, str(node.target))) if once else None

    def values(node: Node) -> list[Tensor]:
        seen: list[Any] = []
        if whole is not None and node in inputs:
            place = inputs.index(node)
            known = whole.kwargs.get(str(node.target))
            seen.append(whole.args[place] if place < len(whole.args) else known)
        if (call := call_of(node)) is not None:
            seen.append(call.made)
        for user in node.users:
            if (call := call_of(user)) is not None and user.args[:1] == (node,):
                seen.append(call.args[0] if call.args else None)
            if user.op == "output" and user.args[0] is node and whole is not None:
                seen.append(only_tensor(whole.made))
        return [one for one in seen if isinstance(one, Tensor)]

    return values
