"""The part of a document that says what changed from a baseline."""

from __future__ import annotations

from typing import Any, Final

from bilens.report.shape import COUNT, FLAG, NUMBER, TEXT, Optional

PARTS: Final[list[Any]] = [{"index": COUNT, "component": NUMBER}]
MODE: Final[dict[str, Any]] = {
    "effective_rank": NUMBER,
    "effective_rank_chance": Optional(NUMBER),
    "directions_90": COUNT,
    "top_share": NUMBER,
    "top_share_chance": Optional(NUMBER),
}
LAYER_DIFFERENCE: Final[dict[str, Any]] = {
    "name": TEXT,
    "identical": FLAG,
    "refused": Optional(TEXT),
    "weight_change": Optional(NUMBER),
    "changed_units": Optional(COUNT),
    "frobenius": Optional(NUMBER),
    "gaussian": Optional(NUMBER),
    "change": Optional(NUMBER),
    "linear_change": Optional(NUMBER),
    "outputs": Optional(MODE),
    "inputs": Optional(MODE),
    "output_parts": PARTS,
    "triggers": [
        {
            "eigenvalue": NUMBER,
            "explained": NUMBER,
            "residual": NUMBER,
            "localisation": NUMBER,
            "parts": PARTS,
            "vector": Optional([NUMBER]),
        }
    ],
}
DIFFERENCE: Final[dict[str, Any]] = {
    "baseline": {"path": TEXT, "weights_sha256": TEXT},
    "layers": [LAYER_DIFFERENCE],
}
CONDITIONS: Final[list[Any]] = [
    {"condition": TEXT, "rule": TEXT, "value": Optional(NUMBER), "failed": FLAG}
]
