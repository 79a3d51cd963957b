"""The document of an attack: JSON values, checked once, as `document.py` does for an audit.

`docs/attacking.md` says what the keys mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bilens.report.document import MODEL, ORIGIN
from bilens.report.shape import (
    COUNT,
    FLAG,
    INTEGER,
    NUMBER,
    TEXT,
    Document,
    Optional,
    checked_copy,
    require,
)

SCHEMA_VERSION: Final = 1  # of findings/records.py; a test keeps them equal
KIND: Final = "attack"
EFFECT: Final[dict[str, Any]] = {"accuracy": [NUMBER], "margin": [NUMBER], "target_rate": [NUMBER]}
CURVE: Final[dict[str, Any]] = {
    "kind": TEXT,
    "reads": [TEXT],
    "edge": FLAG,
    "members": COUNT,
    "effect": EFFECT,
    "clipped": EFFECT,
    "change": [NUMBER],
    "gap": [NUMBER],
}
MASK: Final[dict[str, Any]] = {
    "kind": TEXT,
    "member": COUNT,
    "change": [NUMBER],
    "effect": EFFECT,
    "clipped": EFFECT,
    "drawn_epsilon": NUMBER,
    "vector": [NUMBER],
}
SHAPE: Final[dict[str, Any]] = {
    "schema_version": COUNT,
    "kind": TEXT,
    "holds": FLAG,
    "tolerance": NUMBER,
    "model": MODEL,
    "epsilons": [NUMBER],
    "curves": [CURVE],
    "objectives": [
        {
            "target": COUNT,
            "source": Optional(COUNT),
            "attacked_images": COUNT,
            "clipped_images": COUNT,
            "lower": [NUMBER],
            "lower_edge": Optional([NUMBER]),
            "proof_gap": NUMBER,
            "worst_excess": NUMBER,
            "holds": FLAG,
            "masks": [MASK],
        }
    ],
    "edge_pixels": COUNT,
    "random_masks": COUNT,
    "restarts": COUNT,
    "seed": INTEGER,
    **ORIGIN,
}


def check_attack(document: Mapping[str, Any]) -> Document:
    """Return the document of an attack as JSON values of its own, once it is known to be drawable.

    Raises:
        UsageError: If it is not an attack, of a later schema, or a value does not fit.
        NonFiniteError: If a number is NaN or infinite.
    """
    copy = checked_copy(document, KIND, SCHEMA_VERSION, SHAPE)
    model, lengths = copy["model"], len(copy["epsilons"])
    width, shape, classes = model["d_input"], model["input_shape"], len(model["output_names"])
    require(len(shape) == 2 and shape[0] * shape[1] == width > 0, f"input_shape is {shape}")
    require(lengths > 0 and len(copy["curves"]) > 0, "there is nothing to draw")
    require(len(copy["objectives"]) > 0, "objectives is empty")
    for curve in copy["curves"]:
        check_lengths(curve, lengths)
    for objective in copy["objectives"]:
        places = [objective["target"], *filter(None, [objective["source"]])]
        require(max(places) < classes, "an objective names a class that is not there")
        for mask in objective["masks"]:
            check_lengths(mask, lengths)
            require(len(mask["vector"]) == width, f"a mask does not have {width} values")
    return copy


def check_lengths(record: dict[str, Any], lengths: int) -> None:
    """Refuse numbers that are not one for each length of the mask."""
    rows = [record["change"], *record["effect"].values(), *record["clipped"].values()]
    rows += [record["gap"]] if "gap" in record else []
    fits = all(len(row) == lengths for row in rows)
    require(fits, f"{record['kind']!r} does not have one number for each epsilon")
