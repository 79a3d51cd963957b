"""Named points of a transformer where activations are read or replaced during a run."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from bilens.base.errors import ShapeError, UsageError

POINTS = ("resid_pre", "attn_out", "resid_mid", "mlp_in", "mlp_out", "resid_post")
NAME = re.compile(rf"blocks\.(0|[1-9]\d*)\.({'|'.join(POINTS)})", re.ASCII)

Edit = Callable[[Tensor], Tensor]
# Is shown an activation by the name of its point; what it returns takes the activation's place.
Observer = Callable[[str, Tensor], Tensor]


def unobserved(_point: str, value: Tensor) -> Tensor:
    """Return the value as it is: the observer of a run that nobody watches."""
    return value


@dataclass(frozen=True, eq=False)
class Hooks:
    """What a run captures and what it replaces."""

    capture: frozenset[str]
    replace: Mapping[str, Edit]
    # filled during the run; after the edit where there is one
    captured: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, capture: Collection[str], replace: Mapping[str, Edit], n_layer: int) -> Hooks:
        """Return the hooks of a run."""
        if isinstance(capture, str):
            raise UsageError(f"capture is the text {capture!r}; expected names in a tuple.")
        for name in (*capture, *replace):
            hook_layer(name, n_layer)
        return cls(frozenset(capture), dict(replace))

    def observer(self, layer: int) -> Observer:
        """Return what watches one block."""
        names = {point: f"blocks.{layer}.{point}" for point in POINTS}
        if not {*names.values()} & (self.capture | {*self.replace}):
            return unobserved
        return lambda point, value: self._meet(names[point], value)

    def _meet(self, name: str, value: Tensor) -> Tensor:
        if name in self.replace:
            edited = self.replace[name](value)
            if not isinstance(edited, Tensor) or edited.shape != value.shape:
                came = tuple(edited.shape) if isinstance(edited, Tensor) else type(edited).__name__
                raise ShapeError(
                    f"the function that replaces {name} returned {came}; expected a tensor of "
                    f"shape {tuple(value.shape)}."
                )
            value = edited
        if name in self.capture:
            self.captured[name] = value
        return value


def hook_layer(name: str, n_layer: int) -> int:
    """Return the layer of a hook point."""
    match = NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None or int(match[1]) >= n_layer:
        raise UsageError(
            f"{name!r} is no hook point: expected blocks.{{i}}.{{point}} with i below {n_layer} "
            f"and the point one of {', '.join(POINTS)}."
        )
    return int(match[1])
