"""Findings from the inputs given: training against test, examples, whitened spectra."""

from collections.abc import Sequence

from markupsafe import Markup

from bilens.records.audit import Audit
from bilens.records.given_inputs import Area, GivenInputs, Sample, TrainingExample
from bilens.report.markup import (
    Content,
    element,
    heading,
    items,
    joined,
    keyed_table,
    paragraph,
    quiet,
    section,
    vector_image,
)
from bilens.report.raster import Painter
from bilens.report.sections.overview import class_names, class_painter
from bilens.report.sections.performance_section import interval
from bilens.report.text import (
    NONE,
    Catalogue,
    fixed,
    floored,
    grouped,
    percent,
    points,
    quantity,
    signed_quantity,
)

NAMED = 3  # training inputs that a sentence names


def inputs_section(t: Catalogue, audit: Audit, found: GivenInputs) -> Markup:
    """Return the section on the inputs that were given."""
    names, painter = class_names(audit), class_painter(audit)
    first, *more = input_lines(t, found, names)
    parts: list[Content] = [paragraph(first), items(more, "sentences"), samples(t, found)]
    if found.training is not None:
        parts += [heading(t("given.examples.heading")), quiet(t("given.examples.lead"))]
        parts.append(examples(t, found.examples, said_of(found), names, painter))
    parts += [heading(t("given.spectra.heading")), quiet(t("given.spectra.lead"))]
    parts.append(spectra(t, found, names))
    return section(t, "given", *parts)


def input_lines(t: Catalogue, found: GivenInputs, names: list[str]) -> list[str]:
    """Return a sentence for each sample looked at, for its findings, and for their limits."""
    first = found.examples[:NAMED]
    kinds = known_samples(found)
    read = [
        t(
            f"given.read.{kind}",
            count=grouped(one.rows),
            labels=t(f"given.labels.{'no' if one.accuracy is None else 'yes'}"),
        )
        for kind, one in kinds
    ]
    lines = [t("given.read", list=t.listing(read))]
    if (bound := found.bound) is not None:  # what the margins prove of new inputs, or nothing
        needed = "" if bound.needed is None else quantity(bound.needed, 2, 1)
        key = "useful" if bound.error < 1 else "vacuous" if needed else "never"
        lines.append(t(f"given.bound.{key}", error=percent(bound.error, toward=1), needed=needed))
    if found.examples:
        key = f"given.first.{said_of(found)}"
        named = [t(key, row=grouped(one.index), label=names[one.label]) for one in first]
        lines.append(t("given.look", list=t.listing(named)))
    if found.repeated and found.reason != "same":
        lines.append(t("given.repeated", count=found.repeated))
    compared = found.comparison
    if compared is None:
        return [*lines, t(f"given.reason.{found.reason}")]
    lines.append(t("given.lead", **area_words(compared.lead)))
    if compared.radius is not None:
        rows = [one.num_radii for _, one in kinds]
        counts = {"training": grouped(rows[0]), "test": grouped(rows[1])}
        lines.append(t("given.radius", **area_words(compared.radius), **counts))
    gap, key = compared.gap or compared.estimate, "gap" if compared.gap else "estimate"
    ends = {"low": points(gap.low, -1), "high": points(gap.high, 1)}
    return [*lines, t(f"given.{key}", value=points(gap.value), **ends)]


def said_of(found: GivenInputs) -> str:
    """Return "label", or "answer" where training inputs came without labels."""
    known = found.training is not None and found.training.accuracy is not None
    return "label" if known else "answer"


def known_samples(found: GivenInputs) -> list[tuple[str, Sample]]:
    samples = ("training", found.training), ("test", found.test)
    return [(kind, one) for kind, one in samples if one is not None]


def area_words(found: Area) -> dict[str, str]:
    ends = {"low": percent(found.low, toward=-1), "high": percent(found.high, toward=1)}
    return {"value": percent(found.value), **ends, "p": quantity(found.p, 2, 1)}


def samples(t: Catalogue, found: GivenInputs) -> Markup:
    """Return a row for each sample."""
    rows = []
    for kind, one in known_samples(found):
        scores = interval(one.accuracy), percent(one.confidence), quantity(one.lead)
        radius = NONE if one.radius is None else floored(one.radius)
        rows.append([t(f"given.sample.{kind}"), grouped(one.rows), *scores, radius])
    return keyed_table(t, "given.sample", "kind rows accuracy confidence lead radius", rows)


def examples(
    t: Catalogue, found: Sequence[TrainingExample], said: str, names: list[str], painter: Painter
) -> Markup:
    """Return the training examples that look most learnt by heart."""
    if not found:
        return paragraph(t("given.examples.none"))
    rows: list[Sequence[Content]] = []
    for one in found:
        alt = t("given.examples.alt", row=grouped(one.index))
        side = {} if painter.is_strip else {"width": 72}
        image = element("img", class_="input", src=painter.image(one.image), alt=alt, **side)
        others = f"{names[one.nearest]} ({signed_quantity(one.others, 2)})"
        second = f"{names[one.second]} ({signed_quantity(one.lead)})"
        radius = NONE if one.radius is None else floored(one.radius)
        cells = [grouped(one.index), image, names[one.label], others, second, radius]
        resting = []  # eigenvectors that the lead of an example rests on
        for each in one.supports:
            value, use = signed_quantity(each.value), fixed(each.use, 1)
            text = t("given.examples.support", value=value, use=use)
            image = vector_image(painter, each.vector, text, 44)
            resting.append(element("div", image, " ", element("span", text, class_="quiet")))
        rows.append([*cells, joined(*resting)])
    wide = f"row {said} others second supports"  # columns of numbers and images are narrow
    keys = f"row image {said} others second radius supports"
    return keyed_table(t, "given.examples", keys, rows, words=wide)


def spectra(t: Catalogue, found: GivenInputs, names: list[str]) -> Markup:
    """Return the spectra in the basis where the inputs vary equally, a row for each class."""
    read = [(kind, one) for kind, one in known_samples(found) if one.classes]
    if not read:
        return paragraph(t("given.spectra.none"))
    rows = []
    for place, name in enumerate(names):
        for kind, one in read:
            here = one.classes[place]
            leading = t("list.comma").join(map(signed_quantity, here.eigenvalues[:3]))
            shape = percent(here.linear, 0), fixed(here.effective_rank, 1), grouped(here.num_90)
            sample = t(f"given.sample.{kind}")
            rows.append([name, sample, quantity(here.deviation), *shape, leading])
    keys = "class sample deviation linear rank num_90 leading"
    return keyed_table(t, "given.spectra", keys, rows, words="class sample")
