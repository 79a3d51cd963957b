"""The records of a comparison: what one model has that the other has not."""

from __future__ import annotations

from dataclasses import dataclass

from bilens.findings.layers.records import Part


@dataclass(frozen=True)
class ModeChange:
    """The singular values of a change along its outputs, or its inputs."""

    effective_rank: float
    effective_rank_chance: float | None  # of noise of the same size in every weight
    directions_90: int  # directions that hold 90 % of ‖Δ‖²
    top_share: float  # σ₁² / ‖Δ‖²
    top_share_chance: float | None


@dataclass(frozen=True)
class Trigger:
    """An input direction that the change answers to most, along its leading output direction."""

    eigenvalue: float
    explained: float  # λ² / ‖Q‖² of the form along that direction
    residual: float  # ‖Qv − λv‖
    localisation: float  # Σ v⁴
    parts: tuple[Part, ...]  # the largest components
    vector: tuple[float, ...] | None  # where inputs can be drawn


@dataclass(frozen=True)
class LayerDifference:
    """What changed in one layer."""

    name: str
    identical: bool  # bit for bit
    refused: str | None  # why the maps are not compared; then what follows `changed_units` is null
    weight_change: float | None  # ‖ΔW‖ / ‖W‖ over all weights
    changed_units: int | None  # hidden units with a weight that changed
    frobenius: float | None  # similarity of the quadratic parts; null where one is zero
    gaussian: float | None  # similarity of the whole maps under N(0, I)
    change: float | None  # ‖Δ‖ / ‖B‖ of the quadratic parts
    linear_change: float | None  # ‖Δb‖ / ‖b‖; null where the baseline has no linear part
    outputs: ModeChange | None  # null where the quadratic part did not change
    inputs: ModeChange | None
    output_parts: tuple[Part, ...]  # of the leading output direction of the change
    triggers: tuple[Trigger, ...]
