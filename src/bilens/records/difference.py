"""What changed from a baseline: layer by layer, and into which directions."""

from __future__ import annotations

from bilens.records.base import Count, Record


class Component(Record, frozen=True):
    """One coordinate of a direction."""

    index: Count
    component: float


class ModeChange(Record, frozen=True):
    """The singular values of a change along its outputs, or its inputs."""

    effective_rank: float
    effective_rank_null: float | None  # of noise of the same size in every weight
    directions_90: Count  # directions that hold 90% of ‖Δ‖²
    top_share: float  # σ₁² / ‖Δ‖²
    top_share_null: float | None  # of noise of the same size in every weight


class ChangeDirection(Record, frozen=True):
    """An input direction that the change answers to most, along its leading output direction."""

    eigenvalue: float
    explained: float  # λ² / ‖Q‖² of the form along that direction
    residual: float  # ‖Qv − λv‖
    localisation: float  # Σ v⁴
    parts: tuple[Component, ...]  # the largest components
    vector: tuple[float, ...] | None  # where inputs can be drawn


class LayerDifference(Record, frozen=True):
    """What changed in one layer."""

    name: str
    identical: bool  # bit for bit
    refused: str | None = None  # why the maps are not compared; null follows `changed_units`
    weight_change: float | None = None  # ‖ΔW‖ / ‖W‖ over all weights
    changed_units: Count | None = None  # hidden units with a weight that changed
    frobenius: float | None = None  # similarity of the quadratic parts; null where one is zero
    gaussian: float | None = None  # similarity of the whole maps under N(0, I)
    change: float | None = None  # ‖Δ‖ / ‖B‖ of the quadratic parts
    linear_change: float | None = None  # ‖Δb‖ / ‖b‖; null where the baseline has no linear part
    outputs: ModeChange | None = None  # into how many output directions; null where nothing changed
    inputs: ModeChange | None = None  # into how many input directions; null likewise
    output_parts: tuple[Component, ...] = ()  # of the leading output direction of the change
    triggers: tuple[ChangeDirection, ...] = ()  # leading eigenpairs of the form along it


class BaselineSource(Record, frozen=True):
    """The model that is compared with."""

    path: str
    weights_sha256: str


class Difference(Record, frozen=True):
    """What changed from the baseline."""

    baseline: BaselineSource
    layers: tuple[LayerDifference, ...]  # one entry for each layer
