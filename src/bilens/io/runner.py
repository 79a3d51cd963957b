"""A model that can be run on inputs that are given, and the values in it that its layers read."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bilens.base.errors import UsageError, first_line
from bilens.data.sample_files import Call, ModelInput
from bilens.nn.mlp_search.expression import FoundLayer, steps
from bilens.nn.mlp_search.find_mlps import Place, below
from bilens.nn.mlp_search.patches import Patch
from bilens.nn.real_run import copy_of_input, in_evaluation

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class LayerEntry(NamedTuple):
    """The value that a layer reads, where a model has it."""

    location: str  # the module whose input it is, or the value of a graph; empty for neither
    patch: Patch | None = None  # that is taken at each place of an image; None for rows
    width: int = 0  # of a row; channels may stand behind the batch, as before a normalisation

    def count(self, value: Tensor) -> int:
        """Return how many rows there are in a value."""
        if self.patch is None:
            return prod(value.shape) // max(self.width, 1)
        return prod(self.patch.windows(value).shape[: -1 - len(self.patch.kernel)])

    def rows(self, value: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Return the rows of a value, (rows, in), all or some by number; no others are made."""
        if self.patch is not None:
            return self.patch.vectors(value, chosen)
        if value.shape[-1] != self.width:
            if value.ndim > 2 and value.shape[1] == self.width:
                value = value.movedim(1, -1)
            elif prod(value.shape[1:]) == self.width:  # it is flattened on its way
                value = value.flatten(1)
            else:
                shape = tuple(value.shape)
                raise UsageError(f"a value of shape {shape} holds no rows of {self.width} numbers.")
        rows = value.flatten(0, -2)
        return rows if chosen is None else rows[chosen]


@dataclass(frozen=True, eq=False)
class Runner:
    """A model that runs: `run` returns what layers are given, layer → value."""

    ports: tuple[ModelInput, ...]
    run: Callable[[Call], Mapping[str, Tensor]]
    about: str  # what runs it, in words


# layer → entry, to what runs the model and gives these values
OpenRunner = Callable[[Mapping[str, LayerEntry]], Runner]


def entry_of(location: str, layer: FoundLayer) -> LayerEntry:
    return LayerEntry(location, layer.source.patch, layer.sizes.d_in)


def entries_of(places: Mapping[str, Place], module: nn.Module) -> dict[str, LayerEntry]:
    """Return the entries of layers of a module: the input of the first linear map of each.

    A module that is the first of two layers is run twice, and has no input of one alone.
    """
    firsts = {
        name: below(place.path, next(steps(place.layer.neurons.gate)).path)
        for name, place in places.items()
    }
    alone = {path for path, count in Counter(firsts.values()).items() if count == 1}
    alone &= {path for path, _ in module.named_modules()}
    return {
        name: entry_of(path if path in alone else "", places[name].layer)
        for name, path in firsts.items()
    }


def open_module(module: nn.Module, entries: Mapping[str, LayerEntry]) -> Runner:
    """Return a module as what runs; it gives the input of parts of it."""
    parameters = inspect.signature(module.forward).parameters.values()
    wanted = [one for one in parameters if one.default is one.empty]
    names = [one.name for one in wanted if one.kind is one.POSITIONAL_OR_KEYWORD]
    first = next((one for one in module.modules() if isinstance(one, CONVOLUTIONS)), None)
    shape = None if first is None else (0, first.in_channels, *(0 for _ in first.kernel_size))
    whole = first is None and any(isinstance(one, nn.Embedding) for one in module.modules())
    kinds = [one.dtype for one in module.parameters() if one.is_floating_point()]
    dtype = "int64" if whole else str(kinds[0]).removeprefix("torch.") if kinds else "float32"
    ports = tuple(ModelInput(name, shape, dtype) for name in names)
    run = partial(run_module, module, entries)
    return Runner(ports, run, f"the {type(module).__name__} itself")


def run_module(
    module: nn.Module, entries: Mapping[str, LayerEntry], call: Call
) -> dict[str, Tensor]:
    """Run a module in evaluation and return what enters some of its parts."""
    found: dict[str, Tensor] = {}
    device = next((one.device for one in module.parameters()), torch.device("cpu"))
    given = {name: torch.from_numpy(one).to(device, copy=True) for name, one in call.items()}
    with ExitStack() as stack:
        for name, entry in entries.items():

            def meet(_: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
                if (value := copy_of_input(args, kwargs)) is not None:
                    found[name] = value.cpu()

            hooked = module.get_submodule(entry.location)
            stack.callback(hooked.register_forward_pre_hook(meet, with_kwargs=True).remove)
        with in_evaluation(module):
            try:
                module(**given)
            except (RuntimeError, IndexError, TypeError, ValueError) as error:
                raise does_not_run(f"the {type(module).__name__}", call, error) from error
    return found


def does_not_run(name: str, call: Call, error: Exception) -> UsageError:
    shapes = "; ".join(f"{key!r}: {one.dtype} {one.shape}" for key, one in call.items())
    return UsageError(
        f"{name} does not run on {shapes} ({first_line(error)[:200]}): pass what it takes."
    )
