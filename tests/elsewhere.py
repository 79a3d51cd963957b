"""A device that is not there: tensors that say they are on it, and compute on the processor.

It refuses what a GPU would refuse: operations between it and the processor, and random numbers that
a generator of the processor draws on it. Made for tests of "on the device of its tensors".
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.optim import optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")  # the one that torch knows without hardware
INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
ANYWHERE = {"aten::copy_", "aten::_to_copy"}
FUSED = "_get_fused_kernels_supported_devices"  # of torch.optim
STRICT = {"aten::cat", "aten::stack"}


class Elsewhere(Tensor):
    """A tensor of the device; its numbers are in `held`."""

    held: Tensor
    is_meta = False
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, real: Tensor) -> "Elsewhere":
        made = Tensor._make_wrapper_subclass(
            cls,
            real.shape,
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            device=DEVICE,
            requires_grad=False,
        )
        made.held = real
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Elsewhere({self.held!r})"

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("a tensor of the device is no array: use .cpu() first")

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def there(value: Any) -> Any:
    """Return what is in a value with its tensors on the device."""
    return tree_map(lambda x: Elsewhere(x) if is_plain(x) else x, value)


def back(value: Any) -> Any:
    return tree_map(lambda x: x.held if isinstance(x, Elsewhere) else x, value)


def is_plain(value: Any) -> bool:
    return isinstance(value, Tensor) and not isinstance(value, Elsewhere)


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute on the processor what an operation on the device would find."""
    name, asked = func._schema.name, kwargs.get("device")
    asked = None if asked is None else torch.device(asked)
    leaves = tree_leaves((args, kwargs))
    ours = [x for x in leaves if isinstance(x, Elsewhere)]
    if not ours and (asked is None or asked.type != DEVICE.type):
        return func(*args, **kwargs)
    if name not in ANYWHERE:
        check(name, args, leaves, ours)
    if kwargs.get("generator") is not None or any(isinstance(x, torch.Generator) for x in leaves):
        raise RuntimeError(
            f"{name}: expected a generator of the device, found one of the processor"
        )
    if asked is not None:
        kwargs = {**kwargs, "device": "cpu"}
    found = func(*back(args), **back(kwargs))
    if name == "aten::_local_scalar_dense" or (asked is not None and asked.type != DEVICE.type):
        return found
    if torch.Tag.inplace_view in func.tags:  # the wrapper changes its shape, too
        return return_and_correct_aliasing(func, args, kwargs, args[0])
    in_place = func._schema.is_mutable and isinstance(args[0], Tensor)
    return args[0] if in_place else there(found)


def check(name: str, args: Any, leaves: list[Any], ours: list[Any]) -> None:
    looked_at = leaves
    if name in INDEXED and ours and isinstance(args[0], Elsewhere):
        looked_at = tree_leaves((args[0], args[2:]))
    plain = [x for x in looked_at if is_plain(x)]
    in_place = name.endswith("_") and args and is_plain(args[0])
    if in_place or any(x.ndim > 0 or name in STRICT for x in plain):
        sizes = [
            f"{'cpu' if is_plain(x) else 'device'}{tuple(x.shape)}"
            for x in leaves
            if isinstance(x, Tensor)
        ]
        raise RuntimeError(f"{name}: tensors on two devices: {', '.join(sizes)}")


class Made(TorchFunctionMode):
    """Lets `torch.tensor` make a tensor of the device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in {"__getitem__", "__setitem__"}:  # torch would make lists tensors of the device
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            index = tuple(torch.tensor(x) if isinstance(x, list) else x for x in index)
            args = (args[0], index, *args[2:])
        made = name in {"tensor", "as_tensor"} and "device" in kwargs
        if made and torch.device(kwargs["device"] or "cpu").type == DEVICE.type:
            return there(func(*args, **kwargs | {"device": "cpu"}))
        if name == "new_tensor" and isinstance(args[0], Elsewhere):
            return there(args[0].held.new_tensor(*args[1:], **kwargs))
        return func(*args, **kwargs)


class Computed(TorchDispatchMode):
    """Lets other functions do so."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


@contextmanager
def device() -> Iterator[torch.device]:
    """While it lasts, tensors can be made on the device."""
    name, autocast, enabled = FUSED, torch.autocast, torch.is_autocast_enabled
    kinds = [*getattr(optimizer, name)(), DEVICE.type]

    def on_processor(kind: str, *how: Any, **named: Any) -> torch.autocast:
        return autocast("cpu" if kind == DEVICE.type else kind, *how, **named)

    def is_enabled(kind: str) -> bool:
        return kind != DEVICE.type and enabled(kind)

    with (
        Made(),
        Computed(),
        mock.patch.object(optimizer, name, return_value=kinds),
        mock.patch.object(torch, "autocast", on_processor),
        mock.patch.object(torch, "is_autocast_enabled", is_enabled),
    ):
        yield DEVICE
