"""The document of a layer audit: JSON values, checked once, as `document.py` does for an audit.

`docs/auditing.md` says what the keys mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bilens.report.difference_document import CONDITIONS, DIFFERENCE, PARTS
from bilens.report.document import CHANCE, ORIGIN, SHARE, VERDICT_VALUES
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
    require,
)

SCHEMA_VERSION: Final = 1  # of findings/records.py; a test keeps them equal
KIND: Final = "layer_audit"
FIT: Final[dict[str, Any]] = {
    "linear": NUMBER,
    "quadratic": NUMBER,
    "standard_error": NUMBER,
    "samples": COUNT,
    "assumed_input": TEXT,
    "threshold": NUMBER,
    "usable": FLAG,
}
OUTPUTS: Final[dict[str, Any]] = {
    "effective_rank": NUMBER,
    "effective_rank_chance": CHANCE,
    "directions_90": COUNT,
    "top_share": NUMBER,
    "top_share_chance": CHANCE,
    "leading_rank": NUMBER,
    "leading_rank_chance": CHANCE,
    "leading_complete": FLAG,
    "output_parts": PARTS,
    "pairs": [
        {
            "eigenvalue": NUMBER,
            "explained": NUMBER,
            "residual": NUMBER,
            "localisation": NUMBER,
            "parts": PARTS,
        }
    ],
}
LAYER: Final[dict[str, Any]] = {
    "name": TEXT,
    "kind": TEXT,
    "activation": TEXT,
    "exact": FLAG,
    "d_input": COUNT,
    "d_hidden": COUNT,
    "d_output": COUNT,
    "class_centred": FLAG,
    "broken": Optional(TEXT),
    "weight_norm": Optional(NUMBER),
    "norm_z": Optional(NUMBER),
    "fit": Optional(FIT),
    "quadratic_norm": Optional(NUMBER),
    "linear_norm": Optional(NUMBER),
    "outputs": Optional(OUTPUTS),
    "units": Optional(
        {
            "dead": COUNT,
            "silent": COUNT,
            "duplicates": COUNT,
            "largest_overlap": NUMBER,
            "overlap_chance": NUMBER,
        }
    ),
    "inputs": Optional(
        {
            "unused": [COUNT],
            "dominant": Optional(COUNT),
            "share": NUMBER,
            "share_chance": NUMBER,
        }
    ),
    "stability": Optional(
        {
            "kind": TEXT,
            "movement": NUMBER,
            "guaranteed": COUNT,
            "leading": COUNT,
            "largest_angle": NUMBER,
        }
    ),
}
SHAPE: Final[dict[str, Any]] = {
    "schema_version": COUNT,
    "kind": TEXT,
    "passed": FLAG,
    "model": {"kind": TEXT, "num_layers": COUNT, "dtype": TEXT},
    "layers": [LAYER],
    "accuracy": Optional(SHARE),
    "verdict": [{"rule": TEXT, "outcome": TEXT, "values": OBJECT}],
    "difference": Optional(DIFFERENCE),
    "conditions": Optional(CONDITIONS),
    "null_samples": COUNT,
    "seed": INTEGER,
    **ORIGIN,
}


def check_layer_audit(document: Mapping[str, Any]) -> Document:
    """Return a document as plain JSON values of its own, once it is known to be drawable.

    Raises:
        UsageError: If it is not a layer audit, of a later schema, or a value is absent or of
            another kind.
        NonFiniteError: If a number is NaN or infinite.
    """
    copy = checked_copy(document, KIND, SCHEMA_VERSION, SHAPE)
    for finding in copy["verdict"]:
        rule = finding["rule"]
        values = rule_values(rule) or VERDICT_VALUES.get(rule, OBJECT)
        check_shape(finding["values"], values, f"verdict of {rule!r}", KIND)
    require(len(copy["layers"]) > 0, "layers is empty")
    return copy
