"""The document of a certificate: JSON values, checked once, as `document.py` does for an audit.

`docs/certifying.md` says what the keys mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bilens.report.document import EXACTNESS, MODEL, ORIGIN
from bilens.report.guarantees_document import GUARANTEES, check_guarantees
from bilens.report.shape import COUNT, INTEGER, TEXT, Document, checked_copy, require

SCHEMA_VERSION: Final = 1  # of findings/guarantees/certificate_record.py; a test keeps them equal
KIND: Final = "certificate"
SHAPE: Final[dict[str, Any]] = {
    "schema_version": COUNT,
    "kind": TEXT,
    "model": MODEL,
    "exactness": EXACTNESS,
    **GUARANTEES,
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
    check_guarantees(copy, classes)
    return copy
