"""The document of a certificate: JSON values, checked once, as `document.py` does for an audit.

`docs/certifying.md` says what the keys mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bilens.report.document import EXACTNESS, MODEL, ORIGIN, require
from bilens.report.shape import (
    COUNT,
    FLAG,
    INTEGER,
    NUMBER,
    OBJECT,
    TEXT,
    Document,
    Optional,
    checked_copy,
)

SCHEMA_VERSION: Final = 1  # of findings/guarantees/records.py; a test keeps them equal
KIND: Final = "certificate"
RADII: Final[dict[str, Any]] = {
    "num_inputs": COUNT,
    "num_right": COUNT,
    "median": Optional(NUMBER),
    "curve": [{"radius": NUMBER, "share": NUMBER}],
    "statuses": OBJECT,
    "num_open": COUNT,
    "largest_gap": NUMBER,
    "num_examples": COUNT,
    "num_examples_in_box": COUNT,
    "inputs": [
        {
            "index": COUNT,
            "label": COUNT,
            "status": TEXT,
            "radius": Optional(NUMBER),
            "distance": Optional(NUMBER),
            "rival": Optional(COUNT),
            "margin": NUMBER,
        }
    ],
}
BOUNDS: Final[dict[str, Any]] = {
    "num_inputs": COUNT,
    "median_lower": Optional(NUMBER),
    "median_upper": Optional(NUMBER),
    "restarts": COUNT,
    "steps": COUNT,
    "inputs": [
        {"index": COUNT, "status": TEXT, "lower": Optional(NUMBER), "upper": Optional(NUMBER)}
    ],
}
TRUNCATION: Final[dict[str, Any]] = {
    "radius": NUMBER,
    "radius_origin": TEXT,
    "level": NUMBER,
    "chosen": Optional(COUNT),
    "chosen_by": TEXT,
    "points": [
        {
            "k": COUNT,
            "bounds": [NUMBER],
            "attained": [FLAG],
            "certified": Optional(NUMBER),
            "agreement": Optional(NUMBER),
            "mean": Optional([NUMBER]),
            "deviation": Optional([NUMBER]),
        }
    ],
}
SHAPE: Final[dict[str, Any]] = {
    "schema_version": COUNT,
    "kind": TEXT,
    "model": MODEL,
    "exactness": EXACTNESS,
    "box": {"low": NUMBER, "high": NUMBER},
    "l2": Optional(RADII),
    "linf": Optional(BOUNDS),
    "truncation": TRUNCATION,
    "input_use": {
        "unused": [COUNT],
        "num_undecided": COUNT,
        "influence": [{"output": COUNT, "input": COUNT, "bound": NUMBER, "reached": NUMBER}],
    },
    "stability": [
        {
            "kind": TEXT,
            "refused": Optional(TEXT),
            "classes": [
                {
                    "change": NUMBER,
                    "norm": TEXT,
                    "movement": NUMBER,
                    "largest": NUMBER,
                    "sines": [NUMBER],
                }
            ],
        }
    ],
    "seed": INTEGER,
    **ORIGIN,
}


def check_certificate(document: Mapping[str, Any]) -> Document:
    """Return a document as plain JSON values of its own, once it is known to be drawable.

    Raises:
        UsageError: If it is not a certificate, of a later schema, or a value is absent or of
            another kind.
        NonFiniteError: If a number is NaN or infinite.
    """
    copy = checked_copy(document, KIND, SCHEMA_VERSION, SHAPE)
    model, classes = copy["model"], len(copy["model"]["output_names"])
    rows = model["input_shape"]
    require(len(rows) == 2 and rows[0] * rows[1] == model["d_input"] > 0, f"input_shape is {rows}")
    require(classes > 1, "there are fewer than two output_names")
    require(len(copy["exactness"]) > 0, "exactness is empty")
    points = copy["truncation"]["points"]
    require(len(points) > 0, "truncation has no points")
    require(all(len(point["bounds"]) == classes for point in points), "bounds and classes differ")
    influence = copy["input_use"]["influence"]
    places = [item["output"] for item in influence]
    require(places == list(range(classes)), "influence does not have one entry a class")
    require(
        all(item["refused"] is not None or item["classes"] for item in copy["stability"]),
        "stability has a kind without classes",
    )
    if copy["l2"] is not None:
        check_radii(copy["l2"], classes)
    return copy


def check_radii(radii: dict[str, Any], classes: int) -> None:
    """Refuse radii without inputs, or of classes that are not there."""
    require(len(radii["curve"]) > 1, "the curve has fewer than two points")
    require(0 < radii["num_inputs"] == len(radii["inputs"]), "l2 has another number of inputs")
    require(all(item["label"] < classes for item in radii["inputs"]), "a label is not a class")
