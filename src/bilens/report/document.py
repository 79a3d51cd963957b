"""The audit document: JSON values, checked once, so that everything drawn from it can rely on it.

`SHAPE` says which keys a document has and of which kind each value is; `docs/report.md` says what
they mean. Keys that are not listed are kept and not drawn, so that a later release may add some.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from bilens.report.difference_document import CONDITIONS, DIFFERENCE
from bilens.report.guarantees_document import GUARANTEES, check_guarantees
from bilens.report.rules_document import rule_values
from bilens.report.shape import (
    COUNT,
    FLAG,
    INTEGER,
    NUMBER,
    OBJECT,
    TEXT,
    Document,
    Optional,
    check_shape,
    checked_copy,
    json_text,
    require,
)

SCHEMA_VERSION: Final = 1  # of findings/records.py; a test keeps them equal
KIND: Final = "audit"

__all__ = ["Document", "check_document", "displayable", "json_text"]

CHANCE = {"median": NUMBER, "low": NUMBER, "high": NUMBER}
SHARE = {"right": COUNT, "total": COUNT, "value": NUMBER, "low": NUMBER, "high": NUMBER}
EIGENVECTOR = {
    "eigenvalue": NUMBER,
    "explained": NUMBER,
    "residual": NUMBER,
    "subspace_size": COUNT,
    "vector": [NUMBER],
}
CLASS_READING = {
    "index": COUNT,
    "name": TEXT,
    "eigenvalues": [NUMBER],
    "positive": [EIGENVECTOR],
    "negative": [EIGENVECTOR],
    "upper_edge": NUMBER,
    "lower_edge": NUMBER,
    "p_upper": NUMBER,
    "p_lower": NUMBER,
    "significant_positive": COUNT,
    "significant_negative": COUNT,
    "effective_rank": NUMBER,
    "effective_rank_chance": CHANCE,
    "effective_rank_raw": NUMBER,
    "effective_rank_embedding": NUMBER,
    "frobenius_norm": NUMBER,
    "linear_norm": NUMBER,
    "constant": NUMBER,
    "largest_residual": NUMBER,
    "complete": FLAG,
}
CONTRIBUTION = {
    "rank": COUNT,
    "eigenvalue": NUMBER,
    "overlap": NUMBER,
    "value": NUMBER,
    "vector": [NUMBER],
}
CLASS_SCORE = {
    "index": COUNT,
    "score": NUMBER,
    "linear": NUMBER,
    "constant": NUMBER,
    "contributions": [CONTRIBUTION],
    "rest": NUMBER,
}
VERDICT_VALUES: Final[dict[str, dict[str, str]]] = {  # what the rules we know fill in
    "exact": {"float32": NUMBER, "float64": NUMBER, "inputs": COUNT},
    "complete": {"residual": NUMBER, "classes": COUNT, "incomplete": TEXT},
    "accuracy": {"value": NUMBER, "low": NUMBER, "high": NUMBER, "total": COUNT},
    "few_directions": {"k": COUNT, "of": COUNT, "accuracy": NUMBER, "full": NUMBER},
    "beyond_chance": {"median": NUMBER, "least": COUNT, "most": COUNT, "none": TEXT},
    "overfitting": {"gap": NUMBER, "threshold": NUMBER},
    "trigger": {
        "score": NUMBER,
        "threshold": NUMBER,
        "target": TEXT,
        "row": COUNT,
        "column": COUNT,
        "side": COUNT,
    },
}
OVERFITTING: Final[dict[str, Any]] = {
    "score": Optional(NUMBER),
    "threshold": Optional(NUMBER),
    "parts": [{"name": TEXT, "value": NUMBER, "chance": Optional(CHANCE)}],
    "reason": TEXT,
}
TRIGGERS: Final[dict[str, Any]] = {
    "score": Optional(NUMBER),
    "threshold": Optional(NUMBER),
    "chance": Optional(CHANCE),
    "windows": [
        {
            "target": COUNT,
            "row": COUNT,
            "column": COUNT,
            "side": COUNT,
            "score": NUMBER,
            "effect": NUMBER,
        }
    ],
    "reason": TEXT,
}
MODEL: Final[dict[str, Any]] = {
    "kind": TEXT,
    "d_input": COUNT,
    "d_hidden": COUNT,
    "d_output": COUNT,
    "bias": FLAG,
    "residual": FLAG,
    "num_parameters": COUNT,
    "dtype": TEXT,
    "input_shape": [COUNT],
    "input_shape_assumed": FLAG,
    "output_names": [TEXT],
    "input_names": Optional([TEXT], added=True),
}
EXACTNESS: Final[list[Any]] = [
    {
        "precision": TEXT,
        "largest_error": NUMBER,
        "relative_error": NUMBER,
        "tolerance": NUMBER,
        "num_inputs": COUNT,
        "passed": FLAG,
    }
]
ORIGIN: Final[dict[str, Any]] = {
    "source": {"path": TEXT, "weights_sha256": TEXT, "provenance": OBJECT},
    "data": Optional(
        {"name": TEXT, "source": TEXT, "source_kind": TEXT, "num_images": COUNT, "sha256": TEXT}
    ),
    "reproduce": {
        "command": TEXT,
        "seed": INTEGER,
        "versions": OBJECT,
        "hardware": TEXT,
        "date": TEXT,
    },
}
SHAPE: Final[dict[str, Any]] = {
    "schema_version": COUNT,
    "kind": TEXT,
    "passed": FLAG,
    "model": MODEL,
    "exactness": EXACTNESS,
    "accuracy": Optional(SHARE),
    "classes": [CLASS_READING],
    "truncation": [{"k": COUNT, "accuracy": NUMBER, "agreement": NUMBER}],
    "explanations": [
        {
            "kind": TEXT,
            "index": COUNT,
            "label": Optional(COUNT),
            "predicted": COUNT,
            "image": [NUMBER],
            "scores": [NUMBER],
            "classes": [CLASS_SCORE],
        }
    ],
    "verdict": [{"rule": TEXT, "outcome": TEXT, "values": OBJECT}],
    "guarantees": Optional(GUARANTEES, added=True),
    "overfitting": Optional(OVERFITTING, added=True),
    "triggers": Optional(TRIGGERS, added=True),
    "difference": Optional(DIFFERENCE, added=True),
    "conditions": Optional(CONDITIONS, added=True),
    "null_samples": COUNT,
    "seed": INTEGER,
    **ORIGIN,
}


def check_document(document: Mapping[str, Any]) -> Document:
    """Return a document as plain JSON values of its own, once it is known to be drawable.

    Raises:
        UsageError: If it is not an audit, of a later schema, or a value is absent or of
            another kind.
        NonFiniteError: If a number is NaN or infinite.
    """
    copy = checked_copy(document, KIND, SCHEMA_VERSION, SHAPE)
    for finding in copy["verdict"]:
        rule = finding["rule"]
        values = rule_values(rule) or VERDICT_VALUES.get(rule, OBJECT)
        check_shape(finding["values"], values, f"verdict of {rule!r}", KIND)
    check_sizes(copy)
    return copy


def check_sizes(document: Document) -> None:
    """Refuse vectors, images, scores and places of classes that do not fit the model."""
    model, classes = document["model"], document["classes"]
    width, shape = model["d_input"], model["input_shape"]
    require(len(shape) == 2 and shape[0] * shape[1] == width > 0, f"input_shape is {shape}")
    require(len(classes) == len(model["output_names"]) > 1, "classes and output_names differ")
    require(len(document["exactness"]) > 0, "exactness is empty")
    for place, reading in enumerate(classes):
        require(reading["index"] == place, f"classes[{place}] has another index")
        require(len(reading["eigenvalues"]) > 0, f"classes[{place}] has no eigenvalues")
        check_vectors((*reading["positive"], *reading["negative"]), width)
    if document["guarantees"] is not None:
        check_guarantees(document["guarantees"], len(classes))
    check_warnings(document)
    for layer in (document["difference"] or {"layers": []})["layers"]:
        check_vectors([one for one in layer["triggers"] if one["vector"] is not None], width)
    for explanation in document["explanations"]:
        label, scores = explanation["label"], explanation["classes"]
        places = [explanation["predicted"], *(score["index"] for score in scores)]
        places += [] if label is None else [label]
        require(max(places) < len(classes), "an explanation names a class that is not there")
        require(len(explanation["scores"]) == len(classes), "an explanation lacks scores")
        require(len(explanation["image"]) == width, f"an image does not have {width} values")
        for score in scores:
            check_vectors(score["contributions"], width)


def check_warnings(document: Document) -> None:
    """Refuse scores without a threshold, and squares that are not inside an image."""
    overfitting, triggers = document["overfitting"], document["triggers"]
    for name, part in (("overfitting", overfitting), ("triggers", triggers)):
        together = part is None or (part["score"] is None) == (part["threshold"] is None)
        require(together, f"{name} has a score or a threshold, and not the other")
    if triggers is None:
        return
    whole = triggers["score"] is None or (triggers["chance"] is not None and triggers["windows"])
    require(whole, "triggers has a score, but no chance or no windows")
    shape, classes = document["model"]["input_shape"], len(document["classes"])
    for window in triggers["windows"]:
        ends = (window["row"] + window["side"], window["column"] + window["side"])
        inside = all(end <= length for end, length in zip(ends, shape, strict=True))
        require(inside and window["target"] < classes, "a window of triggers is not in the model")


def check_vectors(pairs: Iterable[dict[str, Any]], width: int) -> None:
    """Refuse eigenvectors of another length than the inputs."""
    fits = all(len(pair["vector"]) == width for pair in pairs)
    require(fits, f"an eigenvector does not have {width} components")


def displayable(value: Any) -> Any:
    """Return a copy of JSON values whose texts can be shown anywhere.

    Control characters, lone surrogates and the marks that reverse the reading direction become
    U+FFFD: they could drive a terminal, make a file unreadable or show a name as another one.
    """
    if isinstance(value, str):
        return "".join(character if is_printable(character) else "\ufffd" for character in value)
    if isinstance(value, list):
        return [displayable(item) for item in value]
    if isinstance(value, dict):
        return {displayable(key): displayable(item) for key, item in value.items()}
    return value


def is_printable(character: str) -> bool:
    """Return whether a character is shown as itself: no control, surrogate or direction mark."""
    code = ord(character)
    if code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000 or code in (0xFFFE, 0xFFFF):
        return False
    return not (0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069 or code in (0x2028, 0x2029))
