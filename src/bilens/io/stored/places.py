"""Where the MLPs and experts of a language model lie, and under which names they are read."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bilens.base.checks import as_integer
from bilens.base.errors import CheckpointError
from bilens.io.stored.families import FUSED, Experts, Family
from bilens.io.stored.gated_tensors import Layout

IN_A_STACK = re.compile(
    r"(model\.language_model\.|language_model\.model\.|model\.|)layers\.(\d+)\.(?:mlp|block_sparse_moe)\."
)
IN_T5 = re.compile(r"(?:encoder|decoder)\.block\.\d+\.layer\.\d+\.DenseReluDense\.")
MAX_EXPERTS = 10_000


@dataclass(frozen=True)
class Place:
    """One gated MLP.

    Attributes:
        name: that the layer is called by: its module path in transformers, without `model.`.
        prefix: of its tensors.
        layout: of them.
        bias: whether it has biases.
        expert: its index in stacks of all experts; None where it has tensors of its own.
    """

    name: str
    prefix: str
    layout: Layout
    bias: bool = False
    expert: int | None = None

    def tensors(self) -> list[str]:
        """Return the names of its tensors."""
        end = ".weight" if self.expert is None else ""
        return [f"{self.prefix}{name}" for name in self.layout.names(self.bias, end)]


def belongs_to_an_mlp(name: str) -> bool:
    """Tell whether a tensor lies in an MLP."""
    return bool(IN_A_STACK.match(name) or IN_T5.match(name))


def places_of(
    path: Path, content: Mapping[str, Any], family: Family, names: Collection[str]
) -> tuple[list[Place], list[str]]:
    """Return the MLPs that a configuration describes, and the tensors beside them.

    Args:
        path: of the configuration, for messages.
        content: of it.
        family: of the model.
        names: of the tensors in MLPs.

    Raises:
        CheckpointError: If a number is missing or out of range.
    """
    if family.is_t5:
        return list(places_in_t5(path, content, family, names)), []
    found = (IN_A_STACK.match(name) for name in sorted(names))
    root = next((match[1] for match in found if match), "")
    bias = family.bias_key is not None and bool(content.get(family.bias_key, False))
    places: list[Place] = []
    beside: list[str] = []
    for index in range(count(path, content, ("num_hidden_layers",), len(names))):
        prefix, name = f"{root}layers.{index}.", f"layers.{index}.mlp"
        home = home_of_experts(prefix, family.experts, names)
        if home is None or family.experts is None:
            places.append(Place(name, f"{prefix}mlp.", family.layout, bias))
            continue
        experts = family.experts
        number = count(path, content, experts.counts, MAX_EXPERTS)
        stacked = f"{home}experts.gate_up_proj" in names
        for expert in range(number):
            inner = f"{home}experts." if stacked else f"{home}experts.{expert}."
            layout, which = (FUSED, expert) if stacked else (experts.each, None)
            places.append(Place(f"{name}.experts.{expert}", inner, layout, expert=which))
        if experts.shared is not None:
            inner = f"{home}{experts.shared}."
            places.append(Place(f"{name}.{experts.shared}", inner, family.layout))
        beside += [f"{home}{other}" for other in experts.others]
    return places, beside


def home_of_experts(prefix: str, experts: Experts | None, names: Collection[str]) -> str | None:
    """Return the prefix of what holds the experts of a layer; None where the layer has none."""
    if experts is None:
        return None
    for module in dict.fromkeys((experts.module, "mlp")):
        home = f"{prefix}{module}."
        if any(name.startswith(f"{home}experts.") for name in names):
            return home
    return None


def places_in_t5(
    path: Path, content: Mapping[str, Any], family: Family, names: Collection[str]
) -> Iterator[Place]:
    """Yield the MLPs of the encoder and, where there is one, of the decoder."""
    before = count(path, content, ("num_layers",), len(names))
    behind = count(path, content, ("num_decoder_layers", "num_layers"), len(names))
    for side, inner, blocks in (("encoder", 1, before), ("decoder", 2, behind)):
        if side == "decoder" and not any(name.startswith("decoder.") for name in names):
            return  # the encoder alone was saved
        for index in range(blocks):
            name = f"{side}.block.{index}.layer.{inner}.DenseReluDense"
            yield Place(name, f"{name}.", family.layout)


def dropped(content: Mapping[str, Any], names: Collection[str]) -> set[str]:
    """Return the names of layers that predict further tokens, which transformers does not run."""
    last = as_integer(content.get("num_hidden_layers")) or 0
    more = as_integer(content.get("num_nextn_predict_layers")) or 0
    found = {name: IN_A_STACK.match(name) for name in names}
    return {name for name, match in found.items() if match and last <= int(match[2]) < last + more}


def count(path: Path, content: Mapping[str, Any], keys: tuple[str, ...], most: int) -> int:
    """Return a number of a configuration.

    Raises:
        CheckpointError: If it is missing, no positive integer, or more than there can be.
    """
    present = [key for key in keys if content.get(key) is not None]
    number = as_integer(content[present[0]]) if present else None
    if number is None or number < 1:
        found = f"has {present[0]} {content[present[0]]!r}" if present else f"lacks {keys[0]}"
        raise CheckpointError(f"{path}: {found}; expected a positive integer: restore the file.")
    if number > most:
        raise CheckpointError(
            f"{path}: has {present[0]} {number}, and the files hold {most} tensors of MLPs at "
            "most: use the files that were saved together."
        )
    return number
