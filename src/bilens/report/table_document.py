"""The document of a table audit: JSON values, checked once, as `document.py` does for an audit.

`docs/tables.md` says what the keys mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bilens.report.document import EXACTNESS, ORIGIN
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
    require,
)

SCHEMA_VERSION: Final = 1  # of findings/records.py; a test keeps them equal
KIND: Final = "table"
SCORE_VALUES: Final = {
    "value": NUMBER,
    "low": NUMBER,
    "high": NUMBER,
    "plain": NUMBER,
    "total": COUNT,
}
RULE_VALUES: Final[dict[str, dict[str, str]]] = {
    "exact": {"error": NUMBER, "inputs": COUNT},
    "accuracy": SCORE_VALUES,
    "r_squared": SCORE_VALUES,
    "seen_rows": {},
    "shares": {"linear": NUMBER, "square": NUMBER, "pair": NUMBER},
}
PAIR: Final[dict[str, Any]] = {"first": COUNT, "second": COUNT}
VALUES: Final[dict[str, Any]] = {"columns": [COUNT], "z": [NUMBER], "effect": NUMBER}
SHAPE: Final[dict[str, Any]] = {
    "schema_version": COUNT,
    "kind": TEXT,
    "passed": FLAG,
    "model": {
        "kind": TEXT,
        "task": TEXT,
        "d_input": COUNT,
        "d_hidden": COUNT,
        "d_output": COUNT,
        "num_parameters": COUNT,
        "dtype": TEXT,
        "standardised": FLAG,
        "output_names": [TEXT],
        "input_names": [TEXT],
    },
    "exactness": EXACTNESS,
    "score": Optional(
        {
            "kind": TEXT,
            "value": NUMBER,
            "low": Optional(NUMBER),
            "high": Optional(NUMBER),
            "total": COUNT,
            "plain": NUMBER,
        }
    ),
    "outputs": [
        {
            "index": COUNT,
            "name": TEXT,
            "constant": NUMBER,
            "columns": [{"column": COUNT, "linear": NUMBER, "square": NUMBER, "size": NUMBER}],
            "pairs": [{**PAIR, "coefficient": NUMBER}],
            "num_pairs": COUNT,
            "variance": NUMBER,
            "linear_share": NUMBER,
            "square_share": NUMBER,
            "pair_share": NUMBER,
        }
    ],
    "loudest": [{"output": COUNT, "one": VALUES, "two": Optional(VALUES)}],
    "rows": [
        {
            "kind": TEXT,
            "index": COUNT,
            "label": Optional(COUNT),
            "target": Optional(NUMBER),
            "predicted": COUNT,
            "inputs": [NUMBER],
            "scores": [NUMBER],
            "attributions": [
                {
                    "kind": TEXT,
                    "output": COUNT,
                    "rival": Optional(COUNT),
                    "score": NUMBER,
                    "score_at_baseline": NUMBER,
                    "residual": NUMBER,
                    "values": [NUMBER],
                    "pairs": [{**PAIR, "value": NUMBER}],
                }
            ],
        }
    ],
    "verdict": [{"rule": TEXT, "outcome": TEXT, "values": OBJECT}],
    "seed": INTEGER,
    **ORIGIN,
}


def check_table(document: Mapping[str, Any]) -> Document:
    """Return a document as plain JSON values of its own, once it is known to be drawable.

    Raises:
        UsageError: If it is not a table audit, of a later schema, or a value is absent or of
            another kind.
        NonFiniteError: If a number is NaN or infinite.
    """
    copy = checked_copy(document, KIND, SCHEMA_VERSION, SHAPE)
    for finding in copy["verdict"]:
        values = RULE_VALUES.get(finding["rule"], OBJECT)
        check_shape(finding["values"], values, f"verdict of {finding['rule']!r}", KIND)
    check_places(copy)
    return copy


def check_places(document: Document) -> None:
    """Refuse columns, outputs and lists that do not fit the model."""
    model = document["model"]
    width, count = len(model["input_names"]), len(model["output_names"])
    require(width == model["d_input"] > 0, "input_names does not fit d_input")
    require(len(document["outputs"]) == count == model["d_output"] > 0, "outputs differ in number")
    require((model["task"] == "regression") == (count == 1), "the task does not fit the outputs")
    require(len(document["exactness"]) > 0, "exactness is empty")
    loudest = [item[key] for item in document["loudest"] for key in ("one", "two") if item[key]]
    require(len(document["loudest"]) in (0, count), "the loudest values differ in number")
    require(all(len(v["columns"]) == len(v["z"]) > 0 for v in loudest), "a value has no column")
    columns = [column for values in loudest for column in values["columns"]]
    columns += [one["column"] for item in document["outputs"] for one in item["columns"]]
    pairs = [pair for item in document["outputs"] for pair in item["pairs"]]
    parts = [part for row in document["rows"] for part in row["attributions"]]
    pairs += [pair for part in parts for pair in part["pairs"]]
    columns += [pair[key] for pair in pairs for key in ("first", "second")]
    require(all(column < width for column in columns), "a column is not there")
    places = [row["predicted"] for row in document["rows"]]
    places += [item["output"] for item in document["loudest"]]
    places += [row["label"] for row in document["rows"] if row["label"] is not None]
    places += [place for part in parts for place in (part["output"], part["rival"]) if place]
    require(all(place < count for place in places), "an output is not there")
    for row in document["rows"]:
        require(len(row["inputs"]) == width and len(row["scores"]) == count, "a row does not fit")
        require(len(row["attributions"]) > 0, "a row is not taken apart")
    require(all(len(part["values"]) == width for part in parts), "an attribution does not fit")
