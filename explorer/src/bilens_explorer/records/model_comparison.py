"""Two models of a folder, or two dates of one, beside each other."""

from typing import Annotated, Literal

from bilens.records import (
    ApproximationQuality,
    Count,
    Difference,
    Direction,
    Document,
    Measured,
    Numbers,
    Record,
)
from bilens_explorer.records.layer_spectra import ViewedVectors
from bilens_explorer.records.models import ModelRow


class ComparedRule(Record, frozen=True):
    """How one rule ended in both audits."""

    rule: Annotated[str, "its name"]
    a: Annotated[Measured | None, "of a; null where it had nothing to judge"]
    b: Annotated[Measured | None, "of b, in the same way"]
    direction: Annotated[Direction | None, "from a to b; null where neither is known to be better"]


class ModelComparison(Document, frozen=True, kw_only=True):
    """Two models: b as it differs from a."""

    kind: Annotated[Literal["comparison"], "of the document"] = "comparison"
    a: Annotated[ModelRow, "the first one"]
    b: Annotated[ModelRow, "the second one"]
    rules: Annotated[
        tuple[ComparedRule, ...], "empty where one was never audited, or changed since"
    ]
    difference: Annotated[Difference | None, "of the weights; null where they were not compared"]
    left_out: Annotated[Count, "layers that take too long for a page, compared by tensors"]
    r_squared: Annotated[float | None, "the least of approximations compared; null for exact maps"]
    why: Annotated[str, "why the weights were not compared; empty where they were"]


class VectorPair(Record, frozen=True):
    """Eigenvectors that belong together: one each, or those that cannot be told apart."""

    a: Annotated[tuple[Count, ...], "positions by falling |λ|, from 1"]
    b: Annotated[tuple[Count, ...], "of b, in the same way"]
    cosine: Annotated[float, "|cos|, or the overlap of the spaces that they span"]


class MatchedSide(Record, frozen=True):
    """The leading eigenvectors of one model that are matched with those of another."""

    output: Annotated[str, "as this model numbers it, which people's labels are of"]
    reading: Annotated[str, "as of a `Spectrum`"]
    approximation: Annotated[ApproximationQuality | None, "null where the map is the layer"]
    values: Annotated[Numbers, "leading eigenvalues by falling |λ|; of b in the unit of a"]
    vectors: Annotated[ViewedVectors, "of these"]


class EigenvectorPairs(Document, frozen=True, kw_only=True):
    """The leading eigenvectors of one output of a layer of two models, matched."""

    kind: Annotated[Literal["eigenvector pairs"], "of the document"] = "eigenvector pairs"
    a: Annotated[MatchedSide, "of the first model"]
    b: Annotated[MatchedSide, "of the second one"]
    cosines: Annotated[tuple[Numbers, ...], "|cos| of each of a (rows) with each of b"]
    pairs: Annotated[tuple[VectorPair, ...], "by falling |λ| of a"]
    score: Annotated[float, "the mean of their cosines"]
    chance: Annotated[float, "the mean score where the vectors of b are turned at random"]
    p_value: Annotated[float, "how often turned vectors match as well"]
