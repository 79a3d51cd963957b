"""What all recipes share: checks, JSON values, and the precision that "auto" stands for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import torch

from bilens.base.checks import check_count
from bilens.base.errors import UsageError
from bilens.train.device import CPU, best_precision


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights of a training, and nothing else."""

    def resolved(self, device: torch.device = CPU) -> Self:
        """Return the recipe with `precision="auto"` replaced by what it means on a device."""
        if getattr(self, "precision", None) != "auto":
            return self
        changes: dict[str, Any] = {"precision": best_precision(device)}  # not every recipe has one
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON values."""
        found = asdict(self)
        return {name: list(x) if isinstance(x, tuple) else x for name, x in found.items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return the recipe of `to_dict`."""
        found = content.items()
        return cls(**{name: tuple(x) if isinstance(x, list) else x for name, x in found})


def check_fields(
    recipe: object,
    *,
    counts: Mapping[str, int],
    numbers: Sequence[str],
    positive: Sequence[str] = (),
    below_one: Sequence[str] = (),
    flags: Sequence[str] = (),
    choices: Mapping[str, Sequence[object]] | None = None,
) -> None:
    """Refuse a recipe with a field out of range; counts become int and numbers float."""
    for name, minimum in counts.items():
        value = getattr(recipe, name)
        if value is not None or getattr(type(recipe), name, None) is not None:
            object.__setattr__(recipe, name, check_count(name, value, minimum))
    for name in numbers:
        value = getattr(recipe, name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or value < 0:
            raise UsageError(f"{name} must be a finite number of at least 0, got {value!r}.")
        object.__setattr__(recipe, name, float(value))
    for name in positive:
        if getattr(recipe, name) == 0:
            raise UsageError(f"{name} must be above 0.")
    for name in below_one:
        if getattr(recipe, name) >= 1:
            raise UsageError(f"{name} must be below 1, got {getattr(recipe, name)!r}.")
    for name in flags:
        if not isinstance(getattr(recipe, name), bool):
            raise UsageError(f"{name} must be True or False, got {getattr(recipe, name)!r}.")
    for name, allowed in (choices or {}).items():
        if getattr(recipe, name) not in allowed:
            raise UsageError(
                f"{name}={getattr(recipe, name)!r} is not known: use one of "
                f"{', '.join(map(str, allowed))}."
            )
