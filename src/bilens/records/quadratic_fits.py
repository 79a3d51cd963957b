"""How close quadratic maps come to a model and to its layers."""

from __future__ import annotations

from typing import Literal

from bilens.records.base import Count, Document, Record, require
from bilens.records.origin import Run, Source


class Score(Record, frozen=True):
    """R²; null for −∞, where a constant is missed."""

    value: float | None
    standard_error: float | None


class DegreeScores(Record, frozen=True):
    """R² by degree on some inputs."""

    rows: Count  # inputs
    linear: Score  # of the affine part of the map
    quadratic: Score  # of the whole map
    outputs: tuple[float | None, ...]  # of the whole map, for each output


class RefittedScores(Record, frozen=True):
    """R² of the map with output weights refitted by least squares."""

    rows_fitted: Count
    rows_held_out: Count
    held_out: Score  # of the refitted map, on rows that it was not fitted to
    closed_form_held_out: Score  # of the map as it was, on the same rows


class LayerFit(Record, frozen=True):
    """The quadratic approximation of the whole of a model, or of one layer."""

    name: str  # `model` for the whole
    activation: str | None  # null, like gated and the sizes, for the whole
    gated: bool | None
    d_in: Count | None
    d_hidden: Count | None
    d_out: Count | None
    exact: bool  # the map is the layer
    derivation: str
    assumed_input: str
    assumed: DegreeScores  # on samples of the assumed input
    on_data: DegreeScores | None  # null without data
    least_squares: RefittedScores | None  # null without data
    threshold: float  # R² from which a map stands for what it was fitted to
    usable: bool  # R² reaches it


class QuadraticFits(Document, frozen=True, kw_only=True):
    """The quadratic approximations of a model."""

    kind: Literal["quadratic fit"] = "quadratic fit"
    source: Source  # where the weights come from
    num_rows: Count | None  # of the data; null without
    fits: tuple[LayerFit, ...]  # of the whole where it is one, then of each layer
    reproduce: Run  # what it takes to run the same again

    def __post_init__(self) -> None:
        require(len(self.fits) > 0, "fits is empty")
