"""Two models of a folder, or two dates of one, beside each other."""

from typing import Literal

from bilens.records import (
    ApproximationQuality,
    ClassReading,
    Count,
    Difference,
    Direction,
    Document,
    Entry,
    Measured,
    Numbers,
    PastAudit,
    Record,
)
from bilens_explorer.records.layer_spectra import ViewedVectors
from bilens_explorer.records.models import ModelRow


class ComparedModel(Record, frozen=True):
    """One of the two models that are compared, with its audit and remarks on it."""

    model: ModelRow
    audit: PastAudit | None  # that is compared; null where it was never audited
    entries: tuple[Entry, ...]  # what was said of the model, the last one first


class ComparedRule(Record, frozen=True):
    """How one rule ended in both audits."""

    rule: str
    a: Measured | None  # null where it had nothing to judge
    b: Measured | None
    direction: Direction | None  # from a to b; null where neither is known to be better


class ModelComparison(Document, frozen=True, kw_only=True):
    """Two models, or two audits of one: b as it differs from a."""

    kind: Literal["comparison"] = "comparison"
    a: ComparedModel
    b: ComparedModel
    rules: tuple[ComparedRule, ...]  # empty where one was never audited
    difference: Difference | None  # of the weights; null where they were not compared
    left_out: Count  # layers that would take too long for a page; their tensors are compared
    # the least R² of the quadratic approximations that are compared; null where maps are the layers
    r_squared: float | None
    why: str  # the weights were not compared; empty where they were
    dates: bool  # whether audits were asked for, whose weights may be gone
    # of audits class by class: what each document says of a class, without its eigenvectors
    spectra: tuple[tuple[ClassReading, ClassReading], ...]


class VectorPair(Record, frozen=True):
    """Eigenvectors that belong together: one each, or those that cannot be told apart."""

    a: tuple[Count, ...]  # positions by falling |λ|, from 1
    b: tuple[Count, ...]
    cosine: float  # |cos|, or the overlap of the spaces that they span


class MatchedSide(Record, frozen=True):
    """The leading eigenvectors of one model that are matched with those of another."""

    output: str  # as this model numbers it, which people's labels are of
    reading: str  # as of a `Spectrum`
    approximation: ApproximationQuality | None  # null where the map is the layer
    values: Numbers  # leading eigenvalues, by falling |λ|; of b in the unit of a's output
    vectors: ViewedVectors  # of these


class EigenvectorPairs(Document, frozen=True, kw_only=True):
    """The leading eigenvectors of one output of a layer of two models, matched."""

    kind: Literal["eigenvector pairs"] = "eigenvector pairs"
    a: MatchedSide
    b: MatchedSide
    cosines: tuple[Numbers, ...]  # |cos| of each of a (rows) with each of b
    pairs: tuple[VectorPair, ...]  # by falling |λ| of a
    score: float  # the mean of their cosines
    chance: float  # the mean score where the vectors of b are turned at random
    p_value: float
