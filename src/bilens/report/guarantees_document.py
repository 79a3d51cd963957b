"""What is proven, as a part of a document: the shape of its JSON values, checked once.

`docs/certifying.md` says what the keys mean.
"""

from __future__ import annotations

from typing import Any, Final

from bilens.report.shape import COUNT, FLAG, NUMBER, OBJECT, TEXT, Optional, require

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
GUARANTEES: Final[dict[str, Any]] = {
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
}


def check_guarantees(proven: dict[str, Any], classes: int) -> None:
    """Refuse guarantees whose parts do not fit each other or the model."""
    points = proven["truncation"]["points"]
    require(len(points) > 0, "truncation has no points")
    require(all(len(point["bounds"]) == classes for point in points), "bounds and classes differ")
    influence = proven["input_use"]["influence"]
    places = [item["output"] for item in influence]
    require(places == list(range(classes)), "influence does not have one entry a class")
    require(
        all(item["refused"] is not None or item["classes"] for item in proven["stability"]),
        "stability has a kind without classes",
    )
    if proven["l2"] is not None:
        check_radii(proven["l2"], classes)


def check_radii(radii: dict[str, Any], classes: int) -> None:
    """Refuse radii without inputs, or of classes that are not there."""
    require(len(radii["curve"]) > 1, "the curve has fewer than two points")
    require(0 < radii["num_inputs"] == len(radii["inputs"]), "l2 has another number of inputs")
    require(all(item["label"] < classes for item in radii["inputs"]), "a label is not a class")
