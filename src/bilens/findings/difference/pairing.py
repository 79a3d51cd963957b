"""Which layers of two models belong together."""

from __future__ import annotations

from collections.abc import Sequence

from bilens.base.errors import UsageError
from bilens.findings.layers.subject import LayerSubject

NAMED = 8  # layers that the message names


def check_pairs(model: Sequence[LayerSubject], baseline: Sequence[LayerSubject]) -> None:
    """Refuse two models whose layers do not pair off by name, in order, with the same sizes.

    Raises:
        UsageError: With every layer that has no partner.
    """
    mine, theirs = ({layer.name: layer for layer in layers} for layers in (model, baseline))
    faults = [
        *(f"{name} is in the model alone" for name in mine if name not in theirs),
        *(f"{name} is in the baseline alone" for name in theirs if name not in mine),
        *(
            f"{name} is {described(layer)} in the model and {described(theirs[name])} in the "
            "baseline"
            for name, layer in mine.items()
            if name in theirs and described(layer) != described(theirs[name])
        ),
    ]
    if faults:
        more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        raise UsageError(
            f"the two models do not match layer by layer: {'; '.join(faults[:NAMED])}{more}. "
            "Compare a model with the one it was made from."
        )


def described(layer: LayerSubject) -> str:
    """Return what has to be the same in both."""
    kind = "gated" if layer.gated else "plain"
    return f"{kind} {layer.activation} {layer.d_input} → {layer.d_hidden} → {layer.d_output}"
