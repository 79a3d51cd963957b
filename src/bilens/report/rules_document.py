"""The rules of a verdict: which values each has, in which kind of document, and what it is of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from bilens.base.errors import UsageError
from bilens.records.verdict import Finding

TEXT, NUMBER, COUNT = "a text", "a number", "an integer of at least 0"
TYPES = {TEXT: (str,), NUMBER: (int, float), COUNT: (int,)}
EVERY_RULE: Final = {"value": NUMBER, "threshold": NUMBER}
RULE_VALUES: Final[dict[str, dict[str, str]]] = {  # beside those of every rule
    "non_finite": {"of": COUNT, "layers": TEXT},
    "r2": {"of": COUNT, "approximate": COUNT, "refused": COUNT, "layers": TEXT},
    "dead_units": {"of": COUNT, "layers": TEXT},
    "duplicate_units": {"of": COUNT, "layers": TEXT, "overlap": NUMBER, "null": NUMBER},
    "huge_norm": {"norm": NUMBER, "layers": TEXT},
    "unused_inputs": {"of": COUNT, "layers": TEXT},
    "dominant_inputs": {"null": NUMBER, "input": COUNT, "layers": TEXT},
    "low_rank": {"rank": NUMBER, "null": NUMBER, "of": COUNT, "layers": TEXT},
    "unstable_directions": {"of": COUNT, "kind": TEXT, "layers": TEXT},
    "changed_layers": {"of": COUNT, "layers": TEXT},
    "similarity": {"layers": TEXT},
    "change": {"layers": TEXT},
    "concentrated_change": {
        "mode": TEXT,
        "rank": NUMBER,
        "null": NUMBER,
        "directions": COUNT,
        "layers": TEXT,
    },
}
RULE_SCOPES: Final = {  # said in the catalogue
    "non_finite": "weights",
    "r2": "fit",
    "dead_units": "weights",
    "duplicate_units": "weights",
    "huge_norm": "weights",
    "unused_inputs": "weights",
    "dominant_inputs": "map",
    "low_rank": "map",
    "unstable_directions": "rounding",
    "changed_layers": "weights",
    "similarity": "map",
    "change": "map",
    "concentrated_change": "map",
}
VERDICT_VALUES: Final[dict[str, dict[str, str]]] = {
    "exact": {"float32": NUMBER, "float64": NUMBER, "inputs": COUNT},
    "complete": {"residual": NUMBER, "classes": COUNT, "incomplete": TEXT},
    "accuracy": {"value": NUMBER, "low": NUMBER, "high": NUMBER, "total": COUNT},
    "few_directions": {"k": COUNT, "of": COUNT, "accuracy": NUMBER, "full": NUMBER},
    "beyond_null": {"median": NUMBER, "least": COUNT, "most": COUNT, "none": TEXT},
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
SCORE_VALUES: Final = {
    "value": NUMBER,
    "low": NUMBER,
    "high": NUMBER,
    "plain": NUMBER,
    "total": COUNT,
}
TABLE_VALUES: Final[dict[str, dict[str, str]]] = {
    "exact": {"error": NUMBER, "inputs": COUNT},
    "accuracy": SCORE_VALUES,
    "r_squared": SCORE_VALUES,
    "seen_rows": {},
    "shares": {"linear": NUMBER, "square": NUMBER, "pair": NUMBER},
}


def rule_values(rule: str) -> dict[str, str] | None:
    """Return which values a rule has and of which kind; None for one that is not of these."""
    return {**EVERY_RULE, **RULE_VALUES[rule]} if rule in RULE_VALUES else None


def check_values(kind: str, verdict: Iterable[Finding]) -> None:
    """Refuse findings that lack a number of their sentence."""
    known: Mapping[str, dict[str, str]] = TABLE_VALUES if kind == "table" else VERDICT_VALUES
    for finding in verdict:
        for name, wanted in (rule_values(finding.rule) or known.get(finding.rule, {})).items():
            value = finding.values.get(name)
            negative = wanted == COUNT and isinstance(value, int) and value < 0
            if not isinstance(value, TYPES[wanted]) or negative:
                said = "is missing" if value is None else f"is {value!r:.40}, not {wanted}"
                raise UsageError(f"{kind} document, verdict of {finding.rule!r}: {name!r} {said}.")
