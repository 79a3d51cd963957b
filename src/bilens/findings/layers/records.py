"""The records of a layer audit: plain numbers and words, ready to be written as JSON."""

from __future__ import annotations

from dataclasses import dataclass

from bilens.findings.records import Chance


@dataclass(frozen=True)
class Fit:
    """How much of a layer its closest quadratic map explains; all claims on the map rest on it."""

    linear: float  # R² of the affine part
    quadratic: float  # R² of the whole map
    standard_error: float  # of `quadratic`
    samples: int
    assumed_input: str
    threshold: float
    usable: bool  # False: claims on the map are refused


@dataclass(frozen=True)
class Part:
    """One coordinate of a direction."""

    index: int
    component: float


@dataclass(frozen=True)
class LeadingPair:
    """One eigenpair of the form along the leading output direction."""

    eigenvalue: float
    explained: float  # λ² / ‖Q‖_F²
    residual: float  # ‖Qv − λv‖
    localisation: float  # Σ v⁴: 1/in where spread evenly, 1 where on one input
    parts: tuple[Part, ...]  # the largest components, by falling size


@dataclass(frozen=True)
class OutputSpectrum:
    """The singular values of a layer along its outputs, and the form along the leading one."""

    effective_rank: float
    effective_rank_chance: Chance
    directions_90: int  # directions that hold 90 % of ‖B‖²
    top_share: float  # σ₁² / ‖B‖²
    top_share_chance: Chance
    leading_rank: float  # effective rank of the leading form
    leading_rank_chance: Chance
    leading_complete: bool  # no larger eigenvalue can have been missed
    output_parts: tuple[Part, ...]  # of the leading output direction
    pairs: tuple[LeadingPair, ...]


@dataclass(frozen=True)
class Units:
    """Hidden units that do nothing, or the same as another one."""

    dead: int  # adds less than 1e-6 of what the median unit adds
    silent: int  # with a ReLU: open for less than one input in a million
    duplicates: int  # pairs whose rows agree to |cos| of at least 0.999
    largest_overlap: float
    overlap_chance: float  # the largest one expected of random rows


@dataclass(frozen=True)
class Inputs:
    """Inputs that a layer does not read, and the one that it reads most."""

    unused: tuple[int, ...]  # every weight on them is exactly zero
    dominant: int | None  # None where the map is not to be read
    share: float  # of ‖B‖², that the dominant one takes part in
    share_chance: float  # the largest share in randomly turned coordinates


@dataclass(frozen=True)
class Stability:
    """What rounding the stored weights can do to the leading eigenvectors."""

    kind: str
    movement: float  # no eigenvalue moves farther
    guaranteed: int  # eigenvectors whose direction is guaranteed
    leading: int  # of so many
    largest_angle: float  # degrees, of those that are guaranteed


@dataclass(frozen=True)
class LayerReading:
    """What the weights of one layer say."""

    name: str
    kind: str  # "gated" or "plain"
    activation: str
    exact: bool  # whether the map is the layer
    d_input: int
    d_hidden: int
    d_output: int
    class_centred: bool  # its outputs are logits, read against their mean
    broken: str | None  # why it cannot be read; then all that follows is null
    weight_norm: float | None  # √Σ of the squares of all weights
    norm_z: float | None  # robust z of its logarithm across the layers
    fit: Fit | None
    quadratic_norm: float | None  # ‖B‖_F; null where the map is refused
    linear_norm: float | None  # ‖b‖_F, of the linear part of the map
    outputs: OutputSpectrum | None
    units: Units | None
    inputs: Inputs | None
    stability: Stability | None
