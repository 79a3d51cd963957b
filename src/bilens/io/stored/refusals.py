"""Language models that are not read, each with its reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from bilens.base.errors import CheckpointError
from bilens.io.stored.families import FAMILIES, WITH_IMAGES

ONE_BRANCH = (
    "its MLPs have one branch ({}) and no gate: such a layer is no product of two linear maps"
)
REFUSED = {
    "gpt_oss": "its experts clamp both branches and compute (up + 1) · gate · σ(α · gate), from "
    "weights that are transposed and interleaved: that is no gated layer of the kind that is read",
    "gpt_neox": ONE_BRANCH.format("dense_h_to_4h, dense_4h_to_h"),
    "falcon": ONE_BRANCH.format("dense_h_to_4h, dense_4h_to_h"),
    "gpt2": ONE_BRANCH.format("c_fc, c_proj"),
    "starcoder2": ONE_BRANCH.format("c_fc, c_proj"),
    "phi": ONE_BRANCH.format("fc1, fc2"),
    "opt": ONE_BRANCH.format("fc1, fc2"),
    "nemotron": "its MLPs (up_proj, down_proj, without gate_proj) square what is positive and drop "
    "the rest: quadratic up to a sign, but not bilinear",
}
# Names that give a model away whatever its type is called: all of these, none of those.
MARKS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("gpt_oss", ("mlp.experts.gate_up_proj_bias",), ()),
    ("gpt_neox", ("mlp.dense_h_to_4h.weight", "mlp.dense_4h_to_h.weight"), ()),
    ("gpt2", ("mlp.c_fc.weight", "mlp.c_proj.weight"), ()),
    ("phi", ("mlp.fc1.weight", "mlp.fc2.weight"), ()),
    ("opt", (".fc1.weight", ".fc2.weight"), ()),
    ("nemotron", ("mlp.up_proj.weight", "mlp.down_proj.weight"), ("mlp.gate_proj.weight",)),
)


def refuse_config(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse a model for what its `config.json` says.

    Raises:
        CheckpointError: With the reason.
    """
    kind = content.get("model_type")
    if content.get("auto_map"):
        raise CheckpointError(
            f"{path}: the model needs code of its own (auto_map), which is never run: load it "
            "from a folder that a model class inside transformers has saved."
        )
    if content.get("quantization_config"):
        raise CheckpointError(
            f"{path}: the model is quantised (quantization_config): save it in floating point."
        )
    if isinstance(kind, str) and kind in REFUSED:
        raise CheckpointError(
            f"{path}: the model is of the type {kind!r}, and {REFUSED[kind]}. {what_is_read()}"
        )


def unknown_model(path: Path, kind: object, names: Collection[str]) -> CheckpointError:
    """Return why a model of a type that is not in the table is not read."""
    found = reason_by_names(names)
    if found is not None:
        return CheckpointError(
            f"{path}: the model is of the type {kind!r}, and by the names of its tensors "
            f"{found}. {what_is_read()}"
        )
    return CheckpointError(
        f"{path}: the model is of the type {kind!r}, which is not known: names alone do not say "
        f"which branch has the activation, nor whether there is more to it. {what_is_read()}"
    )


def reason_by_names(names: Collection[str]) -> str | None:
    """Return the reason that the names of tensors give away; None if they give none away."""
    for kind, present, absent in MARKS:
        if all(any(name.endswith(mark) for name in names) for mark in present) and not any(
            name.endswith(mark) for name in names for mark in absent
        ):
            return REFUSED[kind]
    return None


def what_is_read() -> str:
    """Return the types that are read, for a message."""
    return f"Gated MLPs are read of the types {', '.join(sorted({*FAMILIES, *WITH_IMAGES}))}."
