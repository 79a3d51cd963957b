"""Running a module as its owner does, unmodified and in evaluation, and leaving it as it was."""

import inspect
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils._pytree import tree_leaves

from bilens.base.errors import UsageError

WEIGHT_HOOKS = (WeightNorm, SpectralNorm, BasePruningMethod)  # that compute a weight for forward
INSIDE = ".parametrizations."  # of a module: where its parametrised weights are kept
CALLED = {"forward", "__call__", "_call_impl", "_wrapped_call_impl"}
# what a run comes past in every module, and in every list of modules
CALLED |= {"__getattr__", "__getattribute__", "__iter__", "__getitem__"}
# what no forward pass on given weights comes past
BESIDE = {"to", "cpu", "cuda", "half", "float", "double", "bfloat16", "train", "eval"}
BESIDE |= {"parameters", "named_parameters", "buffers", "named_buffers"}
BESIDE |= {"state_dict", "load_state_dict", "requires_grad_", "zero_grad"}
TOKENS = 16  # of a text that a language model is run on
SAME_IN_TRAINING = (
    "bilens.",
    *(f"torch.nn.modules.{kind}" for kind in ("linear", "container", "activation", "conv")),
)
ONE_AT_A_TIME = threading.RLock()  # of two threads, one would take the other's state for the first
# (path of a part, "entered", "began", "ended" or "left") → what did so first: "began" and "ended"
# are what its forward was given and gave, inside of the part's own hooks
Seen = dict[tuple[str, str], Tensor]


@contextmanager
def in_evaluation(module: nn.Module) -> Iterator[None]:
    """Put every part of a module into evaluation, and everything back afterwards.

    Flags, attributes, buffers and the state of torch's random numbers are what they were before;
    neither `eval` nor `train` is called, which a module may have its own way of.
    """
    with ONE_AT_A_TIME, torch.random.fork_rng(), torch.no_grad():
        parts = [*module.modules()]
        before = [(vars(part), {**vars(part)}) for part in parts]  # `training` is one of them
        before += [(part._buffers, {**part._buffers}) for part in parts]
        kept = [(one, one.clone()) for one in module.buffers()]
        try:
            for part in parts:
                part.training = False
            yield
        finally:
            for now, then in before:
                for name in now.keys() - then.keys():
                    del now[name]
                now.update(then)
            for one, values in kept:
                if not one.is_meta and not torch.equal(one, values):
                    one.copy_(values)


def run_as_owner(
    module: nn.Module, example: object, paths: Collection[str] = (), within: str = ""
) -> tuple[Any, Seen]:
    """Call a part of a module in evaluation.

    Returns: Its answer, and what entered and left the parts at some paths, outside of their own
        hooks and inside of them.
    """
    seen: Seen = {}
    handles: list[Any] = []

    def enter(path: str, side: str, _: nn.Module, args: Any, kwargs: Any) -> None:
        keep(path, side, copy_of_input(args, kwargs))

    def leave(path: str, side: str, _: nn.Module, __: Any, made: Any) -> None:
        made = only_tensor(made)
        keep(path, side, None if made is None else made.detach().clone())

    def keep(path: str, side: str, value: Tensor | None) -> None:
        if value is not None:
            seen.setdefault((path, side), value)

    part = module.get_submodule(within)
    with in_evaluation(part):
        try:
            for path in paths:
                one = module.get_submodule(path)
                for side, first in (("entered", True), ("began", False)):
                    hook = partial(enter, path, side)
                    handles.append(
                        one.register_forward_pre_hook(hook, prepend=first, with_kwargs=True)
                    )
                for side, first in (("ended", True), ("left", False)):
                    hook = partial(leave, path, side)
                    handles.append(one.register_forward_hook(hook, prepend=first))
            return call(part, example), seen
        finally:
            for handle in handles:
                handle.remove()


def copy_of_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Return a copy of the tensor that a part is given, which may be changed in place later."""
    given = args[0] if args else only_tensor(kwargs)
    return given.detach().clone() if isinstance(given, Tensor) else None


def call(module: nn.Module, example: object) -> Any:
    """Call a module with an input, a tuple of arguments or a mapping of named ones."""
    if isinstance(example, Mapping):
        return module(**example)
    return module(*example if isinstance(example, tuple) else (example,))


def only_tensor(value: Any) -> Tensor | None:
    """Return a tensor, or the one in a tuple or mapping; None where there is not one alone."""
    if isinstance(value, Tensor):
        return value
    parts = value.values() if isinstance(value, Mapping) else value
    found = [one for one in parts if isinstance(one, Tensor)] if hasattr(parts, "__iter__") else []
    return found[0] if len(found) == 1 else None


def what_may_differ(module: nn.Module) -> str:
    """Name the hooks and methods that may make a module compute something else, as a clause."""
    said = [f"{name} has forward hooks" for name in hooked_parts(module)]
    for name, part in module.named_modules():
        said += [f"{name or 'it'} has {why}" for why in replaced_methods(part)]
    return f" ({'; '.join(said[:4])})" if said else ""


def hooks_of(module: nn.Module) -> Iterator[tuple[str, dict[int, Any]]]:
    """Yield the forward hooks of each part by its path, those of all modules of torch first."""
    everywhere = torch.nn.modules.module
    of_all = (everywhere._global_forward_pre_hooks, everywhere._global_forward_hooks)
    yield from (("each module of torch", hooks) for hooks in of_all)
    for name, part in module.named_modules():
        yield from ((name, hooks) for hooks in (part._forward_pre_hooks, part._forward_hooks))


def hooked_parts(module: nn.Module) -> tuple[str, ...]:
    """Return the paths of the parts with hooks of another kind than those of a weight."""
    found = (
        name or type(module).__name__
        for name, hooks in hooks_of(module)
        if any(not isinstance(hook, WEIGHT_HOOKS) for hook in hooks.values())
    )
    return tuple(dict.fromkeys(found))


@dataclass(eq=False)
class WatchedHook:
    """A hook in whose place this stands, and the parts whose hooks have acted so far."""

    hook: Callable[..., Any]
    part: str
    acted: dict[str, None]

    def __call__(self, *given: Any, **named: Any) -> Any:
        tensors = [one for one in tree_leaves((given, named)) if isinstance(one, Tensor)]
        kept = [(one, one._version) for one in tensors if not one.is_inference()]
        answer = self.hook(*given, **named)
        if answer is not None or any(one._version != version for one, version in kept):
            self.acted[f"{self.part} has hooks that give another answer"] = None
        return answer


@contextmanager
def watch_what_acts(module: nn.Module) -> Iterator[dict[str, None]]:
    """Note what acts while a module runs and was not read, so that it may act elsewhere, too.

    A hook, one of all modules of torch too, acts if it returns something, or changes a tensor in
    place, in any run; a forward of an instance and a __call__ of a class do by being there.
    """
    acted, kept = dict[str, None](), []
    with ONE_AT_A_TIME:
        for name, part in module.named_modules():
            compiled = type(part).__module__.startswith("torch._dynamo")  # which adds nothing
            for why in [] if compiled else replaced_methods(part):
                acted[f"{name or 'it'} has {why}"] = None
        for name, hooks in hooks_of(module):
            for key, hook in [*hooks.items()]:
                if not isinstance(hook, WEIGHT_HOOKS):
                    kept.append((hooks, key, hook))
                    hooks[key] = WatchedHook(hook, name or "it", acted)
        try:
            yield acted
        finally:
            for hooks, key, hook in kept:
                if key in hooks:  # it may have taken itself off
                    hooks[key] = hook


def refuse_what_acts(module: nn.Module, acted: Collection[str]) -> None:
    """Refuse a module of ours in which something acts that is in no weight, if anything does."""
    if acted:
        raise UsageError(
            f"the {type(module).__name__} does more than its layers say: "
            f"{'; '.join([*acted][:4])}. That is in no weight: take it off, or read the module "
            "with bl.from_module."
        )


def foreign_methods(module: nn.Module) -> list[str]:
    """Name the parts whose class brings a forward, or what one uses, that was not read.

    Known are the classes of bilens and torch; what a class below them adds beside is no reason.
    """
    said = []
    for name, part in module.named_modules():
        known, own = list[type](), set[str]()
        for kind in [] if INSIDE in f".{name}." else type(part).__mro__:
            if kind.__module__.startswith(("bilens.", "torch.")):
                known.append(kind)
            elif kind is not object:
                own |= {*vars(kind)}
        if own and (found := sorted(own & ({*CALLED, *names_used_by(known)} - BESIDE))):
            what = f"{', '.join(found)} of its own"
            said.append(f"{name or 'it'} is a {type(part).__name__} with a {what}")
    return said


def names_used_by(kinds: Collection[type]) -> Iterator[str]:
    """Yield the names of methods of classes, and those that they use."""
    for kind in kinds:
        for name, method in vars(kind).items() if kind is not nn.Module else ():
            code = getattr(inspect.unwrap(method), "__code__", None)
            used = (name, *getattr(code, "co_names", ()))
            yield from (one for one in used if not one.startswith("__"))


def is_traced_by_nnsight(part: nn.Module) -> bool:
    """Tell whether nnsight wraps the forward of a part; outside of a trace that runs as it is."""
    return type(vars(part).get("forward")).__module__.startswith("nnsight.")


def replaced_methods(part: nn.Module) -> list[str]:
    """Name the methods that run in the place of those that are read."""
    reasons = {
        "a forward of its own instance": "forward" in vars(part) and not is_traced_by_nnsight(part),
        "a __call__ of its own class": type(part).__call__ is not nn.Module.__call__,
    }
    return [why for why, holds in reasons.items() if holds]


def answers_otherwise_in_training(module: object) -> bool:
    """Tell whether a part is in training mode that is not known to be the same in evaluation."""
    parts = module.modules() if isinstance(module, nn.Module) else ()
    kinds = {type(part) for part in parts if part.training}
    return any(
        kind in (nn.RReLU, nn.MultiheadAttention)
        or not kind.__module__.startswith(SAME_IN_TRAINING)
        for kind in kinds
    )


def first_tokens(vocab_size: int, n_ctx: int) -> Tensor:
    """Return a text of the first tokens, (1, tokens)."""
    return torch.arange(min(n_ctx, TOKENS))[None] % vocab_size


def check_as_rebuilt(module: nn.Module, rebuilt: nn.Module, x: Tensor) -> None:
    """Refuse a module that gives other answers than one of its class with the same tensors."""
    with watch_what_acts(module) as acted:
        made = run_as_owner(module, x)[0]
    again = run_as_owner(rebuilt, x)[0]
    if isinstance(made, Tensor) and made.shape == again.shape:
        share = max(1e-5, 4 * torch.finfo(again.dtype).eps)  # of memory laid out otherwise
        largest = float(again.nan_to_num(0, 0, 0).abs().max())
        if torch.allclose(made, again, rtol=share, atol=share * largest, equal_nan=True):
            refuse_what_acts(module, acted)
            return
    raise UsageError(
        f"the {type(module).__name__} computes something else when it runs than its class does "
        f"with its weights{what_may_differ(module)}, and a file holds the weights alone: take off "
        "its hooks, and put plain parts in the place of those that were replaced."
    )
