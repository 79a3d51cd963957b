"""Linear maps of modules and of loose tensors, as steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bilens.nn.mlp_search.expression import Applied, Fetch, Step, Tree
from bilens.nn.mlp_search.traced import is_transposed_linear


@dataclass(frozen=True, eq=False)
class Weight:
    """A tensor of the module itself, used without a module of its own."""

    path: str
    fetch: Fetch


def linear_step(path: str, module: nn.Module) -> Step | None:
    """Return the linear map that a module is in evaluation; None for any other module."""
    if isinstance(module, nn.Linear):
        return weighted(
            path, lambda: module.weight, None if module.bias is None else (lambda: module.bias)
        )
    if is_transposed_linear(module):
        return weighted(path, lambda: loose(module, "weight").T, lambda: loose(module, "bias"))
    if isinstance(module, nn.BatchNorm1d) and module.running_mean is not None:
        return normalisation_step(path, module)
    return None


def loose(module: nn.Module, name: str) -> Tensor:
    """Return a parameter of a module of another library."""
    tensor = getattr(module, name)
    assert isinstance(tensor, Tensor), "asked of what has it"
    return tensor


def weighted(path: str, weight: Fetch, bias: Fetch | None) -> Step:
    """Return x ↦ weight x + bias for a weight (out, in)."""
    d_out, d_in = weight().shape
    return Step(path, weight, bias, d_out, d_in)


def normalisation_step(path: str, module: nn.BatchNorm1d) -> Step:
    """Return a batch normalisation with the statistics that it has learnt."""
    mean, variance = module.running_mean, module.running_var
    assert mean is not None, "asked before"
    assert variance is not None, "there is both or none"

    def scale() -> Tensor:
        gain = 1.0 if module.weight is None else module.weight.double()
        return gain / torch.sqrt(variance.double() + module.eps)

    def shift() -> Tensor:
        moved = -mean.double() * scale()
        return moved if module.bias is None else moved + module.bias.double()

    return Step(path, scale, shift, module.num_features, module.num_features)


def loose_step(path: str, fetch: Fetch) -> Step | None:
    """Return x ↦ weight x for a loose tensor: a matrix, a diagonal or a number."""
    shape = fetch().shape
    if len(shape) == 2:
        return weighted(path, fetch, None)
    if len(shape) == 1:
        return Step(path, fetch, None, shape[0], shape[0])
    return Step(path, fetch) if len(shape) == 0 else None


def number(value: float) -> Fetch:
    """Return how to read a constant of the code."""
    return lambda: torch.tensor(float(value), dtype=torch.float64)


def halves(tree: Tree, parts: int) -> tuple[Tree, ...] | None:
    """Return equal parts of the outputs of a linear map; None where there is no such map."""
    if not isinstance(tree, Applied) or tree.step.d_out is None or tree.step.weight is None:
        return None
    step, size = tree.step, tree.step.d_out // parts
    if step.d_out != parts * size:
        return None
    return tuple(Applied(rows(step, k * size, (k + 1) * size), tree.inner) for k in range(parts))


def rows(step: Step, start: int, stop: int) -> Step:
    """Return some outputs of a linear map."""
    weight, bias = step.weight, step.bias
    assert weight is not None, "asked before"
    return Step(
        step.path,
        lambda: weight()[start:stop],
        None if bias is None else lambda: bias().expand(step.d_out)[start:stop],  # type: ignore[arg-type]
        stop - start,
        step.d_in,
    )
