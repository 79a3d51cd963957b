"""Layers as they were read against the module that was given, as it runs."""

import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.fx.node import Node
from torch.nn import functional

from bilens.algebra.approximation.layer_weights import Layer
from bilens.base.memory import check_memory
from bilens.nn.agreement import (
    AS_IT_RUNS,
    ROWS,
    Agreement,
    agreement,
    agreement_with_run,
    inputs_at_scales,
)
from bilens.nn.mlp_search.find_mlps import FoundMLPs, Place, below, holder, nothing_found
from bilens.nn.mlp_search.observation import TORCH_LAYERS, in_dtype
from bilens.nn.mlp_search.patches import places
from bilens.nn.real_run import Seen, only_tensor, run_as_owner, watch_what_acts, what_may_differ

WHOLE = "output"  # what the comparison of a whole network is called
NOT_A_ROW_EACH = "it gives something else than one row each"


def compare_with_module(module: nn.Module, found: FoundMLPs, example: object = None) -> FoundMLPs:
    """Compare the layers as `compare_while_watched`, and say what acts that was not read."""
    with watch_what_acts(module) as acted:
        found = compare_while_watched(module, found, example)
    elsewhere = "{}, and what that does to inputs other than those compared is not known"
    return replace(found, unverified=(*found.unverified, *map(elsewhere.format, acted)))


def compare_while_watched(module: nn.Module, found: FoundMLPs, example: object = None) -> FoundMLPs:
    """Compare the layers of a module with the module itself, and leave out what differs.

    Returns: What is left, how far it is off, and what could not be compared.

    Raises: UsageError if nothing is left.
    """
    if any(one.is_meta for one in module.parameters()):
        return replace(found, checks={}, unverified=("all of it is on the meta device",))
    if found.network:
        layers = [one.layer.read_layer() for one in found.places.values()]
        compared = {WHOLE: compare_network(module, layers, found.head, example)}
    else:
        compared = compare_parts(module, found.places, example)
        finer = copy_in_float32(module)
        if isinstance(finer, str):
            compared |= {
                n: finer for n, one in compared.items() if not isinstance(one, str) and one.passed
            }
        elif finer is not None:
            again = compare_parts(finer, found.places, example).items()
            compared |= {n: one for n, one in again if not isinstance(one, str) and not one.passed}
    checks = {name: one for name, one in compared.items() if isinstance(one, Agreement)}
    wrong = [name for name, one in checks.items() if not one.passed]
    differs = "{}: what was read differs by {:.1e} from the module as it runs{}"
    why = what_may_differ(module)
    notes = [differs.format(name, checks[name].max_error, why) for name in wrong]
    left_out = (*notes, *found.left_out)
    kept = [name for name in found.layers if not {name, WHOLE} & {*wrong}]
    if not kept:
        raise nothing_found(module, left_out, example)
    return replace(
        found,
        layers={name: found.layers[name] for name in kept},
        made_of={name: found.made_of[name] for name in kept},
        checks={name: one for name, one in checks.items() if one.passed},
        left_out=left_out,
        unverified=tuple(
            f"{name}: {one}" for name, one in compared.items() if isinstance(one, str)
        ),
    )


def check_layer_now(module: nn.Module, found: FoundMLPs, name: str, example: object) -> None:
    """Refuse one layer that is another function than the module is now; of a network, all of it."""
    if not found.network:
        layers, places = {name: found.layers[name]}, {name: found.places[name]}
        found = replace(found, layers=layers, places=places)
    compare_with_module(module, found, example)


def compare_network(
    module: nn.Module, layers: Sequence[Layer], head: str | None = None, example: object = None
) -> Agreement | str:
    """Compare layers one behind the other with what a module makes of inputs, or say why not."""
    width, found = layers[0].d_in, list[Agreement | str]()
    x = inputs_at_scales(width)
    # a row alone, too: what a module does may depend on how many there are
    given: list[tuple[object, int]] = [(x, len(x)), (x[ROWS : 2 * ROWS], 1)]
    alone = None if example is None else only_tensor(example)
    if alone is not None and alone.shape[-1:] == (width,):
        given.insert(0, (example, 0))
    for one, at_once in given:
        found.append(compare_rows(module, layers, head, one, at_once))
        if one is example and found[0] != NOT_A_ROW_EACH and isinstance(found[0], str):
            return found[0]
    known = [one for one in found if isinstance(one, Agreement)]
    return max(known, key=lambda one: (not one.passed, one.relative_error), default=found[0])


def compare_rows(
    module: nn.Module, layers: Sequence[Layer], head: str | None, example: object, at_once: int = 0
) -> Agreement | str:
    """Compare layers with what a module makes of an example, so many rows at a time; 0 for all."""
    x, d_out, made = cast(Tensor, only_tensor(example)), len(layers[-1].down), list[Tensor]()
    for part in torch.split(x, at_once) if at_once else [example]:
        ran, rows = run_or_say(module, part), cast(Tensor, only_tensor(part))
        if isinstance(ran, str):
            return ran
        answer = only_tensor(ran[0])
        if answer is None or answer.shape != (*rows.shape[:-1], d_out):
            return NOT_A_ROW_EACH
        made.append(answer.reshape(-1, d_out))
    rows = as_given(module, x).reshape(-1, layers[0].d_in)
    answers = torch.cat(made)
    if not answers.is_floating_point() or rows.dtype.itemsize < answers.dtype.itemsize:
        answers = answers.to(rows.dtype)  # a finer type of answers is no finer arithmetic
    told = agreement_with_run(WHOLE, layers, rows, answers, head_function(head))
    finer = copy_in_float32(module) if told.passed else None
    if isinstance(finer, str):
        return finer
    if finer is not None:
        again = compare_rows(finer, layers, head, example, at_once)
        told = told if isinstance(again, str) or again.passed else again
    return told


def copy_in_float32(module: nn.Module) -> nn.Module | str | None:
    """Return a copy, hooks and all, of a module in 16 bits, whose rounding hides what differs.

    It is compared too, and can only refuse more: the module itself has passed. None for a module
    that rounds less; where there can be no copy, the reason why it was not compared.
    """
    weights = [one for one in module.parameters() if one.is_floating_point()]
    if all(torch.finfo(one.dtype).bits > 16 for one in weights):
        return None
    try:
        numel = sum(one.numel() for one in weights)
        check_memory(4 * numel, "a copy in float32", "it is left out")
        return copy.deepcopy(module).float()
    except Exception as error:  # somebody else's code, or no room
        return (
            "its 16 bits hide differences as large as their rounding, and a copy in float32 that "
            f"would show them cannot be made ({type(error).__name__})"
        )


def as_given(module: nn.Module, example: object) -> Any:
    """Return a copy of an example in the dtype of a module, and where it is."""
    like = next(one for one in module.parameters() if one.is_floating_point())
    return in_dtype(example, like.dtype, like.device)


def run_or_say(
    module: nn.Module, example: object, paths: Collection[str] = (), within: str = ""
) -> tuple[Any, Seen] | str:
    """Run a part of a module, or say why it does not run."""
    try:
        return run_as_owner(module, as_given(module, example), paths, within)
    except Exception as error:  # somebody else's code
        said = " ".join(str(error).split())[:200]
        return f"it could not be run ({type(error).__name__}: {said}); pass example=..., an input"


def head_function(head: str | None) -> Callable[[Tensor], Tensor]:
    """Return the function behind the last layer of a module."""
    if head is None:
        return lambda y: y
    kind = functional.log_softmax if head.lower().startswith("log") else functional.softmax
    return lambda y: kind(y, dim=-1)


def compare_parts(
    module: nn.Module, found: Mapping[str, Place], example: object
) -> dict[str, Agreement | str]:
    """Compare each layer with what entered and left the parts of a module that it stands between.

    Without an example each part that was traced runs by itself, on inputs at several scales.
    """
    ends = {
        name: [
            [*seen_where(module, one, end)]
            for end in (one.layer.source.location, one.layer.location)
        ]
        for name, one in found.items()
    }
    compared: dict[str, Agreement | str] = {}
    for path in dict.fromkeys("" if example is not None else one.path for one in found.values()):
        names = [name for name, one in found.items() if example is not None or one.path == path]
        paths = {where for name in names for end in ends[name] for where, _ in end}
        paths |= {where for name in names for where in containers_of(found[name])}
        given = [example] if example is not None else [inputs_of(found[name]) for name in names]
        tried = (run_or_say(module, x, paths, path) for x in given)
        ran = next((one for one in tried if not isinstance(one, str)), None)
        for name in names:
            if ran is None:
                compared[name] = str(run_or_say(module, given[0], paths, path))
                continue
            seen = ran[1]
            given_there, made_there = (
                [seen[one] for one in end if one in seen] for end in ends[name]
            )
            for path_around in containers_of(found[name]):
                began, ended = seen.get((path_around, "began")), seen.get((path_around, "ended"))
                if began is not None and given_there and torch.equal(began, given_there[0]):
                    given_there.append(seen[path_around, "entered"])
                if ended is not None and made_there and torch.equal(ended, made_there[0]):
                    made_there.append(seen[path_around, "left"])
            compared[name] = compare_layer(name, found[name], given_there, made_there)
    return compared


def containers_of(place: Place) -> list[str]:
    """Return the paths of the parts below a place that hold all of a layer.

    The graph of the place does not show them. Where one of them begins or ends with the layer, its
    own hooks act on what the layer is given or gives.
    """
    around = holder(place.layer.paths).split(".") if place.graph is not None else []
    paths = (".".join(around[:depth]) for depth in range(1, len(around) + 1))
    return [below(place.path, path) for path in paths if path]


def inputs_of(place: Place) -> Tensor:
    """Return inputs for a part of a module, if its first layer is the one in question."""
    patch = place.layer.source.patch
    return inputs_at_scales(place.layer.sizes.d_in) if patch is None else patch.images()


def seen_where(module: nn.Module, place: Place, end: Any) -> Iterator[tuple[str, str]]:
    """Yield where a value shows itself: the path of a part, and whether it "entered" or "left"."""
    if place.graph is None:
        yield str(end), "left" if end is place.layer.location else "entered"
        return
    # the graph of torch's transformer layers is that of a method
    whole = not isinstance(module.get_submodule(place.path), TORCH_LAYERS)
    calls = Counter(node.target for node in place.graph.nodes if node.op == "call_module")

    def is_call(node: Node) -> bool:
        return node.op == "call_module" and calls[node.target] == 1

    if is_call(end):
        yield below(place.path, str(end.target)), "left"
    if whole and end is next(iter(place.graph.nodes)) and end.op == "placeholder":
        yield place.path, "entered"
    for user in end.users:
        if is_call(user) and user.args[:1] == (end,):
            yield below(place.path, str(user.target)), "entered"
        if whole and user.op == "output" and user.args[0] is end:
            yield place.path, "left"


def compare_layer(
    name: str, place: Place, given: Sequence[Tensor], made: Sequence[Tensor]
) -> Agreement | str:
    """Compare a layer with what was seen at its two ends, each perhaps in several places."""
    if not given or not made:
        return "where it begins or ends in the module nothing can be watched"
    layer, patch = place.layer.read_layer(), place.layer.source.patch
    x = given[0].flatten(0, -2) if patch is None else patch.vectors(given[0])
    found = []
    for one in made:
        y = one.flatten(0, -2) if patch is None or one.ndim < 3 else places(one)
        if len(x) != len(y) or y.shape[-1] != len(layer.down):
            return f"the module gives {tuple(one.shape)} for {tuple(given[0].shape)} there"
        found.append(agreement_with_run(name, [layer], x, y))
    for one in given[1:]:  # what a hook changes on the way from one part to the next
        if not torch.equal(one, given[0]):
            found.append(agreement(name, AS_IT_RUNS, given[0], one, 0.0))
    return max(found, key=lambda one: (not one.passed, one.relative_error))
