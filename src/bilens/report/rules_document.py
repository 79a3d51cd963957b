"""The rules on weights, layers and differences: what each fills in, and what it speaks of."""

from __future__ import annotations

from typing import Final

from bilens.report.shape import COUNT, NUMBER, TEXT

EVERY_RULE: Final = {"value": NUMBER, "threshold": NUMBER}
RULE_VALUES: Final[dict[str, dict[str, str]]] = {  # beside those of every rule
    "non_finite": {"of": COUNT, "layers": TEXT},
    "r2": {"of": COUNT, "approximate": COUNT, "refused": COUNT, "layers": TEXT},
    "dead_units": {"of": COUNT, "layers": TEXT},
    "duplicate_units": {"of": COUNT, "layers": TEXT, "overlap": NUMBER, "chance": NUMBER},
    "huge_norm": {"norm": NUMBER, "layers": TEXT},
    "unused_inputs": {"of": COUNT, "layers": TEXT},
    "dominant_inputs": {"chance": NUMBER, "input": COUNT, "layers": TEXT},
    "low_rank": {"rank": NUMBER, "chance": NUMBER, "of": COUNT, "layers": TEXT},
    "unstable_directions": {"of": COUNT, "kind": TEXT, "layers": TEXT},
    "changed_layers": {"of": COUNT, "layers": TEXT},
    "similarity": {"layers": TEXT},
    "change": {"layers": TEXT},
    "concentrated_change": {
        "mode": TEXT,
        "rank": NUMBER,
        "chance": NUMBER,
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


def rule_values(rule: str) -> dict[str, str] | None:
    """Return which values a rule has and of which kind; None for one that is not of these."""
    return {**EVERY_RULE, **RULE_VALUES[rule]} if rule in RULE_VALUES else None
