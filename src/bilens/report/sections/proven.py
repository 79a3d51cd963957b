"""What is proven: one statement for each guarantee, with its number, assumptions and scope."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bilens.records.common import Exactness, ModelSummary
from bilens.records.guarantees import (
    Certificate,
    Guarantees,
    LargestEntryRadii,
    RoundingStability,
    TruncationGuarantee,
    TruncationGuarantees,
)
from bilens.report.blocks import facts, heading, paragraph, section
from bilens.report.catalogue import Catalogue
from bilens.report.numbers import MINUS, percent, quantity, scientific, whole
from bilens.report.sections.overview import class_names, input_name
from bilens.report.svg import element


@dataclass(frozen=True)
class Statement:
    """One proven sentence."""

    term: str
    claim: str
    assumes: str
    scope: str


def proven(
    t: Catalogue,
    exactness: Sequence[Exactness],
    model: ModelSummary,
    found: Guarantees | Certificate | None,
    more: str,
    class_: str,
) -> Markup:
    """Return the statements, those about test inputs first, and what more there is."""
    parts = []
    if found is not None:
        listed = (statement(t, one) for one in statements(t, model, found))
        parts = [
            paragraph(common_ground(t, exactness)),
            element("ol", *listed, class_="statements"),
        ]
    parts.append(paragraph(more, class_="callout"))
    return section("proven", t("proven.heading"), *parts, class_=class_)


def statement(t: Catalogue, one: Statement) -> Markup:
    """Return one statement with what it assumes and holds for."""
    terms = ((t("proven.assumes"), one.assumes), (t("proven.scope"), one.scope))
    return element("li", heading(one.term), paragraph(one.claim, class_="claim"), facts(terms))


def common_ground(t: Catalogue, exactness: Sequence[Exactness]) -> str:
    """Return what all statements assume, with how far formula and model are apart."""
    errors = {item.precision: item.relative_error for item in exactness}
    return t(
        "proven.lead",
        inputs=whole(exactness[0].num_inputs),
        float32=scientific(errors.get("float32", 0.0)),
        float64=scientific(errors.get("float64", 0.0)),
    )


def statements(
    t: Catalogue, model: ModelSummary, found: Guarantees | Certificate
) -> Iterator[Statement]:
    """Yield the statements, those about test inputs first."""
    yield from of_radii(t, found)
    if found.linf is not None:
        yield of_bounds(t, found.linf)
    yield from of_truncation(t, model, found)
    yield from of_inputs(t, model, found)
    for item in found.stability:
        yield of_rounding(t, item)


def box(found: Guarantees | Certificate) -> dict[str, str]:
    """Return the ends of the interval in which inputs lie."""
    ends = {"low": found.box.low, "high": found.box.high}
    return {name: f"{end:g}".replace("-", MINUS) for name, end in ends.items()}


def of_radii(t: Catalogue, found: Guarantees | Certificate) -> Iterator[Statement]:
    """Yield how far inputs can move, and that the radii are not too small."""
    radii, ends = found.l2, box(found)
    if radii is None:
        return
    total = whole(radii.num_inputs)
    moved = [item for item in radii.inputs if item.radius is None or item.radius > 0]
    sure = [item for item in moved if item.status != "not_finite"]
    key = "claim" if radii.median is not None else "unbounded"
    yield Statement(
        t("proven.radius.term"),
        t(
            f"proven.radius.{key}",
            count=whole(len(sure)),
            total=total,
            median=floored(radii.median or 0.0),
        ),
        t("proven.radius.assumes", **ends),
        t("proven.radius.scope", total=total),
    )
    if not radii.num_examples:
        return
    if radii.num_open:
        claim = t("proven.exact.some", open=whole(radii.num_open), total=whole(len(sure)))
    else:
        claim = t(
            "proven.exact.all",
            examples=whole(radii.num_examples),
            gap=scientific(up(radii.largest_gap, 2)),
        )
    yield Statement(
        t("proven.exact.term"),
        claim,
        t("proven.exact.assumes"),
        t("proven.exact.scope", **ends),
    )


def of_bounds(t: Catalogue, bounds: LargestEntryRadii) -> Statement:
    """Return what is proven where every entry may change."""
    total, lower = whole(bounds.num_inputs), bounds.median_lower
    if lower is None:
        claim = t("proven.linf.unbounded", total=total)
    else:
        claim = t("proven.linf.claim", lower=floored(lower), total=total)
    if bounds.median_upper is not None:
        upper = raised(bounds.median_upper)
        claim += t("sentence.gap") + t("proven.linf.attack", upper=upper)
    return Statement(
        t("proven.linf.term"),
        claim,
        t("proven.linf.assumes"),
        t("proven.linf.scope", total=total),
    )


def of_truncation(
    t: Catalogue, model: ModelSummary, found: Guarantees | Certificate
) -> Iterator[Statement]:
    """Yield what truncation can change, and how many predictions provably survive it."""
    cut = found.truncation
    point = main_point(cut)
    bounds, attained = point.bounds, sum(point.attained)
    claim = t(
        "proven.truncation.claim",
        k=whole(point.k),
        of=whole(model.d_input),
        bound=raised(max(bounds)),
        lowest=raised(min(bounds)),
        highest=raised(max(bounds)),
    )
    if attained:
        claim += t("sentence.gap") + t(
            "proven.truncation.attained", count=whole(attained), classes=whole(len(bounds))
        )
    yield Statement(
        t("proven.truncation.term"),
        claim,
        t("proven.truncation.assumes"),
        t(
            f"proven.truncation.{cut.radius_origin}",
            radius=floored(cut.radius, 6),
            **box(found),
        ),
    )
    if point.certified is None or point.agreement is None or found.l2 is None:
        return
    total = whole(found.l2.num_inputs)
    yield Statement(
        t("proven.agreement.term"),
        t(
            "proven.agreement.claim",
            k=whole(point.k),
            certified=floored_percent(point.certified),
            agreement=percent(point.agreement),
            total=total,
        ),
        t("proven.agreement.assumes"),
        t("proven.agreement.scope", total=total),
    )


def main_point(cut: TruncationGuarantees) -> TruncationGuarantee:
    """Return the truncation that is spoken of: the one chosen, or the mildest shown."""
    return next((point for point in cut.points if point.k == cut.chosen), cut.points[-1])


def of_inputs(
    t: Catalogue, model: ModelSummary, found: Guarantees | Certificate
) -> Iterator[Statement]:
    """Yield which inputs are unused, and how much a single one can do."""
    use, total = found.input_use, whole(model.d_input)
    if use.unused:
        claim = t("proven.unused.some", count=whole(len(use.unused)), total=total)
    elif use.num_undecided:
        undecided = whole(use.num_undecided)
        claim = t("proven.unused.none", total=total, undecided=undecided)
    else:
        claim = t("proven.unused.all", total=total)
    yield Statement(
        t("proven.unused.term"),
        claim,
        t("proven.unused.assumes"),
        t("proven.unused.scope"),
    )
    most = max(use.influence, key=lambda item: item.bound)
    yield Statement(
        t("proven.influence.term"),
        t(
            "proven.influence.claim",
            bound=raised(most.bound),
            reached=floored(most.reached),
            input=input_name(t, model, most.input),
            name=class_names(model)[most.output],
        ),
        t("proven.influence.assumes"),
        t("proven.influence.scope", **box(found)),
    )


@dataclass(frozen=True)
class RoundingNumbers:
    """What holds for every class."""

    movement: float
    share: float  # of the largest eigenvalue of the class; 0 where all are 0
    guaranteed: int
    total: int
    angle: float  # degrees, of those that are guaranteed


def rounding_numbers(item: RoundingStability) -> RoundingNumbers:
    """Return the worst numbers over the classes."""
    classes = item.classes
    sines = [sine for one in classes for sine in one.sines]
    sure = [sine for sine in sines if sine < 1]
    return RoundingNumbers(
        max(one.movement for one in classes),
        max((one.movement / one.largest for one in classes if one.largest > 0), default=0),
        len(sure),
        len(sines),
        math.degrees(math.asin(max(sure, default=0.0))),
    )


def of_rounding(t: Catalogue, item: RoundingStability) -> Statement:
    """Return what storing the weights in one format can do."""
    term = t("proven.rounding.term", kind=item.kind)
    if item.refused is not None:
        claim, leading = t("proven.rounding.refused", reason=item.refused), "0"
    else:
        numbers = rounding_numbers(item)
        leading = whole(len(item.classes[0].sines))
        claim = t(
            "proven.rounding.claim" if numbers.guaranteed else "proven.rounding.none",
            movement=raised(numbers.movement, 2),
            share=percent(up(numbers.share, 3), 2),
            count=whole(numbers.guaranteed),
            total=whole(numbers.total),
            angle=raised(numbers.angle, 2),
        )
    return Statement(
        term, claim, t("proven.rounding.assumes"), t("proven.rounding.scope", leading=leading)
    )


def floored(value: float, significant: int = 3) -> str:
    """Return a number that is proven from below: what is shown is never more."""
    return quantity(-up(-value, significant), significant)


def floored_percent(share: float) -> str:
    """Return a proven share as a percentage that is never more."""
    return percent(math.floor(1000 * share + 1e-9) / 1000)


def raised(value: float, significant: int = 3) -> str:
    """Return a number that is proven from above: what is shown is never less."""
    return quantity(up(value, significant), significant)


def up(value: float, significant: int) -> float:
    """Return the smallest number of so many significant digits that is not below a value."""
    if value == 0:
        return 0.0
    shift = significant - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, shift)
    return rounded if rounded >= value else round(rounded + 10.0**-shift, shift)
