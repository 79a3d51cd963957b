"""Layers known by watching a module run: what enters a linear map is made of what left others."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from bilens.algebra.approximation.activation import Activation
from bilens.algebra.approximation.layer_weights import in_float64
from bilens.base.errors import UsageError
from bilens.base.memory import check_memory
from bilens.nn.agreement import Agreement, agreement
from bilens.nn.mlp_search.expression import Applied, Neurons, Source, Step, Tree, linear_step, rows
from bilens.nn.mlp_search.found_layer import FoundLayer
from bilens.nn.mlp_search.pointwise import activation_through, candidates

ROWS = 64  # of a run that are looked at
REACH = 8  # linear maps back: an MLP is close together
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-5}  # of a value


@dataclass(frozen=True, eq=False)
class Watched:
    """A linear map as it ran."""

    path: str
    step: Step
    given: Tensor  # what entered it, (rows, in)
    made: Tensor  # what left it, (rows, out)


def watch(module: nn.Module, example: object) -> list[Watched]:
    """Return the linear maps of a module in the order in which an example runs through them."""
    numel = sum(parameter.numel() for parameter in module.parameters())
    check_memory(8 * numel, "a run in float64", "pass a part of the model")
    for dtype in (torch.float64, torch.float32):
        runner = copy.deepcopy(module).to("cpu", dtype)
        try:
            return watch_once(module, runner, in_dtype(example, dtype))
        except Exception as error:
            failure = error
    said = " ".join(str(failure).split())  # on one line
    raise UsageError(
        f"the example does not run through the {type(module).__name__} "
        f"({type(failure).__name__}: {said}): pass an input, a tuple of arguments or a mapping."
    ) from failure


@torch.no_grad()
def watch_once(module: nn.Module, runner: nn.Module, example: object) -> list[Watched]:
    """Return what runs through a copy, which is not used any more afterwards."""
    seen: dict[str, Watched] = {}
    for path, part in runner.named_modules():
        if (step := linear_step(path, module.get_submodule(path))) is None:
            continue

        def keep(
            _: nn.Module, given: tuple[Any, ...], made: Any, path: str = path, step: Step = step
        ) -> None:
            if path not in seen and given and isinstance(made, Tensor):
                seen[path] = Watched(path, step, first_rows(given[0]), first_rows(made))

        part.register_forward_hook(keep)
    if isinstance(example, Mapping):
        runner(**example)
    elif isinstance(example, tuple):
        runner(*example)
    else:
        runner(example)
    return list(seen.values())


def in_dtype(example: object, dtype: torch.dtype) -> object:
    if isinstance(example, Mapping):
        return {name: in_dtype(part, dtype) for name, part in example.items()}
    if isinstance(example, tuple):
        return tuple(in_dtype(part, dtype) for part in example)
    if isinstance(example, Tensor):
        return example.detach().to("cpu", dtype if example.is_floating_point() else None)
    return example


def first_rows(values: Tensor) -> Tensor:
    return values.detach().reshape(-1, values.shape[-1])[:ROWS].clone()


def observed_layers(watched: Sequence[Watched]) -> tuple[list[FoundLayer], list[Agreement]]:
    """Return the layers among linear maps that ran, and how far each is from what ran."""
    layers: list[FoundLayer] = []
    checks: list[Agreement] = []
    for index, last in enumerate(watched):
        before = watched[max(0, index - REACH) : index]
        neurons = ordinary(before, last) or gated(before, last)
        if neurons is None:
            continue
        layer = FoundLayer(Applied(last.step, neurons), neurons, last.path, None)
        given = next(one for one in before if one.path == str(neurons.source.location)).given
        layers.append(layer)
        found = in_float64(layer.read())(given.double())
        checks.append(agreement("", "the module's own operations", last.made, found))
    return layers, checks


def ordinary(before: Sequence[Watched], last: Watched) -> Neurons | None:
    """Return φ(a) where it is what enters the last map, a what left an earlier one."""
    for one in reversed(before):
        if one.made.shape != last.given.shape:
            continue
        found = activation_through(
            one.made.reshape(-1), last.given.reshape(-1), TOLERANCES[last.given.dtype]
        )
        if found is not None and found.name != "identity":
            source = Source(one.path, one.step.d_in)
            return Neurons(found, Applied(one.step, source), None, source)
    return None


@dataclass(frozen=True, eq=False)
class Branch:
    """One of two values that may be multiplied: a map, or a half of its outputs."""

    source: Source
    given: Tensor
    tree: Tree
    made: Tensor


def gated(before: Sequence[Watched], last: Watched) -> Neurons | None:
    """Return φ(a) ∘ b where it is what enters the last map, a and b of the same input."""
    width = last.given.shape[1]
    branches = [branch for one in before for branch in branches_of(one, width)]
    for pair in reversed([*combinations(branches, 2)]):
        if pair[0].given.shape != pair[1].given.shape or pair[0].made.shape != last.given.shape:
            continue
        if not torch.equal(pair[0].given, pair[1].given):
            continue
        for gate, value in (pair, pair[::-1]):
            if (found := factor(gate.made, value.made, last.given)) is not None:
                inner = Applied(value.tree.step, gate.source)  # type: ignore[union-attr]
                return Neurons(found, gate.tree, inner, gate.source)
    return None


def branches_of(one: Watched, width: int) -> list[Branch]:
    """Return a map, or the halves of its outputs, where they have a width."""
    source = Source(one.path, one.step.d_in)
    if one.made.shape[1] == width:
        return [Branch(source, one.given, Applied(one.step, source), one.made)]
    if one.made.shape[1] != 2 * width:
        return []
    parts = ((0, width), (width, 2 * width))
    return [
        Branch(source, one.given, Applied(rows(one.step, *part), source), one.made[:, slice(*part)])
        for part in parts
    ]


def factor(gate: Tensor, value: Tensor, product: Tensor) -> Activation | None:
    """Return φ with φ(gate) · value = product, everywhere; None for none."""
    t, v, y = gate.reshape(-1), value.reshape(-1), product.reshape(-1)
    large, tolerance = v.abs() > 1e-3, TOLERANCES[product.dtype]
    for one in candidates(t[large], y[large] / v[large]):
        expected = one(t) * v
        if bool(((y - expected).abs() <= tolerance * (1 + expected.abs())).all()):
            return one
    return None
