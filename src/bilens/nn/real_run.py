"""Running a module as its owner does, unmodified and in evaluation, and leaving it as it was."""

import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

WEIGHT_HOOKS = (WeightNorm, SpectralNorm, BasePruningMethod)  # that compute a weight for forward
ONE_AT_A_TIME = threading.RLock()  # of two threads, one would take the other's state for the first


@contextmanager
def in_evaluation(module: nn.Module) -> Iterator[None]:
    """Put every part of a module into evaluation, and everything back afterwards.

    Flags, attributes, buffers and the state of torch's random numbers are what they were before;
    neither `eval` nor `train` is called, which a module may have its own way of.
    """
    with ONE_AT_A_TIME, torch.random.fork_rng(), torch.no_grad():
        parts = [*module.modules()]
        flags = [part.training for part in parts]
        attributes = [{**vars(part)} for part in parts]
        buffers = [{**part._buffers} for part in parts]
        kept = {
            id(one): one.clone() for each in buffers for one in each.values() if one is not None
        }
        try:
            for part in parts:
                part.training = False
            yield
        finally:
            for part, flag, before, held in zip(parts, flags, attributes, buffers, strict=True):
                vars(part).clear()
                vars(part).update(before)
                part.training = flag
                part._buffers.update(held)
                for one in held.values():
                    if one is not None and not torch.equal(one, kept[id(one)]):
                        one.copy_(kept[id(one)])


@dataclass(frozen=True, eq=False)
class Ran:
    """What first entered a part of a module, and what left it, outside of all its hooks."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    made: Any


def run_as_owner(
    module: nn.Module, example: object, paths: Collection[str] = ()
) -> tuple[Any, dict[str, Ran]]:
    """Call a module in evaluation; return its answer, and how the parts at some paths ran."""
    given: dict[str, tuple[Any, Any]] = {}
    ran: dict[str, Ran] = {}
    handles: list[Any] = []
    with in_evaluation(module):
        try:
            for path in paths:

                def enter(_: nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
                    given.setdefault(path, (copied(args), copied(kwargs)))

                def leave(_: nn.Module, __: Any, made: Any, path: str = path) -> None:
                    if path in given and path not in ran:
                        ran[path] = Ran(*given[path], copied(made))

                part = module.get_submodule(path)
                handles.append(
                    part.register_forward_pre_hook(enter, prepend=True, with_kwargs=True)
                )
                handles.append(part.register_forward_hook(leave))
            answer = call(module, example)
        finally:
            for handle in handles:
                handle.remove()
    return answer, ran


def call(module: nn.Module, example: object) -> Any:
    """Call a module with an input, a tuple of arguments or a mapping of named ones."""
    example = copied(example)  # which it may change in place
    if isinstance(example, Mapping):
        return module(**example)
    return module(*example if isinstance(example, tuple) else (example,))


def copied(value: Any) -> Any:
    """Return a value with copies of its tensors."""
    if isinstance(value, Mapping):
        return {name: copied(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return tuple(copied(part) for part in value)
    return value.detach().clone() if isinstance(value, Tensor) else value


def only_tensor(value: Any) -> Tensor | None:
    """Return a tensor, or the one in a tuple or mapping; None where there is not one alone."""
    parts = value.values() if isinstance(value, Mapping) else value
    if not isinstance(parts, Tensor):
        found = [part for part in parts if isinstance(part, Tensor)] if iterable(parts) else []
        return found[0] if len(found) == 1 else None
    return parts


def iterable(value: Any) -> bool:
    return hasattr(value, "__iter__")


def what_may_differ(module: nn.Module) -> str:
    """Return what of a module may make it compute something else than its layers, as a clause."""
    said = []
    for name, part in module.named_modules():
        hooks = [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
        where = name or "the module itself"
        if any(not isinstance(hook, WEIGHT_HOOKS) for hook in hooks):
            said.append(f"{where} has forward hooks")
        if "forward" in vars(part):
            said.append(f"{where} has a forward of its own instance")
        if type(part).__call__ is not nn.Module.__call__:
            said.append(f"{where} has a __call__ of its own class")
    return f" ({'; '.join(said[:4])})" if said else ""
