"""Which tensor of a file plays which role in an MLP."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path

from bilens.base.errors import CheckpointError, UsageError

ROLE = re.compile(r"(up|gate|down)(_bias)?(?:\.(\d{1,4}))?", re.ASCII)
GRAMMAR = (
    "up, gate and down, each with _bias, and .0, .1, … where there are several layers "
    "(for example up.0, up_bias.0, down.0)"
)


@dataclass(frozen=True)
class LayerRoles:
    """The tensors of one layer, by name.

    Attributes:
        up: reads the input; of a gated layer the branch without the activation.
        down: gives the output; None where the neurons themselves do.
        gate: the branch with the activation; None for an ordinary layer.
        up_bias: added to what `up` reads; None for none.
        down_bias: added to the output; None for none.
        gate_bias: added to what `gate` reads; None for none.
    """

    up: str
    down: str | None = None
    gate: str | None = None
    up_bias: str | None = None
    down_bias: str | None = None
    gate_bias: str | None = None

    def named(self) -> Iterator[tuple[str, str]]:
        """Yield role and tensor of what there is."""
        for field in fields(self):
            tensor = getattr(self, field.name)
            if tensor is not None:
                yield field.name, tensor

    def __str__(self) -> str:
        return ", ".join(f"{role} = {tensor}" for role, tensor in self.named())


def parse_roles(path: Path, roles: Mapping[str, str], names: Collection[str]) -> list[LayerRoles]:
    """Return the layers that a mapping of roles to tensors describes.

    Args:
        path: of the file, for messages.
        roles: role → tensor.
        names: of the tensors in the file.

    Raises:
        UsageError: If a role is unknown, missing, or fits no other, or a tensor has two roles.
        CheckpointError: If the file has no tensor of a name.
    """
    if not roles:
        raise UsageError(f"{path}: roles is empty; expected {GRAMMAR}.")
    layers: dict[int, dict[str, str]] = {}
    unknown = []
    for role, tensor in roles.items():
        match = ROLE.fullmatch(role) if isinstance(role, str) else None
        if match is None or not isinstance(tensor, str):
            unknown.append(f"{role}={tensor}")
            continue
        part = layers.setdefault(int(match[3] or 0), {})
        if f"{match[1]}{match[2] or ''}" in part:
            raise UsageError(f"{path}: the role {role} is given twice: give each once.")
        part[f"{match[1]}{match[2] or ''}"] = tensor
    if unknown:
        raise UsageError(f"{path}: {', '.join(unknown)} is no role; expected {GRAMMAR}.")
    check_complete(path, layers)
    check_tensors(path, [*roles.values()], names)
    return [LayerRoles(**layers[index]) for index in range(len(layers))]


def check_complete(path: Path, layers: Mapping[int, Mapping[str, str]]) -> None:
    """Refuse layers that lack a part.

    Raises:
        UsageError: With everything that is missing.
    """
    missing = []
    for index in range(max(layers) + 1):
        part = layers.get(index, {})
        needed = ["up"] if "up" not in part else []
        needed += [role for role in ("gate", "down") if f"{role}_bias" in part and role not in part]
        missing += [f"{role}.{index}" for role in needed]
    if missing:
        raise UsageError(
            f"{path}: the roles lack {', '.join(missing[:8])}: every layer needs `up`, a bias "
            "needs its matrix, and layers are counted from 0."
        )


def check_tensors(path: Path, tensors: list[str], names: Collection[str]) -> None:
    """Refuse tensors that are not in the file, or that are used twice.

    Raises:
        CheckpointError: With the nearest names that there are.
        UsageError: If one has two roles.
    """
    for tensor in tensors:
        if tensor not in names:
            near = get_close_matches(tensor, names, n=3, cutoff=0.4) or sorted(names)[:4]
            raise CheckpointError(
                f"{path}: has no tensor {tensor!r}; there are {len(names)}, for example "
                f"{', '.join(near) or 'none'}."
            )
    twice = sorted({tensor for tensor in tensors if tensors.count(tensor) > 1})
    if twice:
        raise UsageError(f"{path}: the tensor {twice[0]!r} has two roles: give it one.")


def is_network(layers: list[LayerRoles]) -> bool:
    """Tell whether layers are one behind the other: only the last has an output map of its own."""
    return all(layer.down is None for layer in layers[:-1])
