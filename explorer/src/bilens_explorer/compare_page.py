"""The page of two models, or of two dates of one; a script adds their eigenvectors."""

from collections.abc import Mapping

from markupsafe import Markup

from bilens.findings import AuditedModel, judgements
from bilens.records import Measured, displayable
from bilens.report import (
    NONE,
    Catalogue,
    Column,
    class_spectrum,
    clean_names,
    difference,
    drawings,
    element,
    floored,
    heading,
    items,
    joined,
    judged_line,
    load_catalogue,
    page_link,
    paragraph,
    section,
    table,
    title_of,
)
from bilens_explorer.pages import audit_link, framed, no_script
from bilens_explorer.people import remarks
from bilens_explorer.records.model_comparison import ComparedModel, ComparedRule, ModelComparison
from bilens_explorer.standing import decision
from bilens_explorer.watching import number_of, outcome_of

COLUMNS = ("model", "number", "last", "decision", "weights")


def compare_page(found: ModelComparison, lang: str, secret: str) -> str:
    """Return the page of a comparison."""
    t, found = load_catalogue(lang), displayable(found)
    parts = [part(t, found) for part in (sides, rules, weights, spectra, people_section)]
    return framed(t, t("explorer.compare.title"), secret, *parts)


def sides(t: Catalogue, found: ModelComparison) -> Markup:
    rows = []
    for letter, one in (("A", found.a), ("B", found.b)):
        audit, link = one.audit, page_link(t, f"/models/{one.model.id}", one.model.name)
        told = (NONE,) * 4
        if audit is not None:
            number = page_link(t, f"/audits/{audit.number}", str(audit.number))
            weights = element("code", audit.weights_sha256[:12] or NONE)
            now = audit == one.model.answered
            said = decision(t, audit.answer) if now else t(f"decision.{audit.answer}")
            told = number, audit.date[:16].replace("T", " "), said, weights
        rows.append((letter, link, *told))
    columns = [Column(name, numeric=False) for name in ("", *t.each("explorer", COLUMNS))]
    return table(t, t("explorer.compare.two"), columns, rows, class_="two")


def rules(t: Catalogue, found: ModelComparison) -> Markup:
    a, b = found.a.audit, found.b.audit
    if a is None or b is None:
        return section(t, "explorer.compare.rules", paragraph(t("explorer.compare.no_audit")))
    rows = []
    for one in found.rules:
        ends = ended(t, one, a.kind, "a"), ended(t, one, b.kind, "b")
        rows.append((title_of(t, one.rule), *ends, moved(t, one)))
    names = (t("explorer.rule"), "A", "B", t("explorer.compare.from_a"))
    columns = [Column(name, numeric=False) for name in names]
    listed = table(t, t("explorer.compare.rules_caption"), columns, rows)
    return section(t, "explorer.compare.rules", element("div", listed, data_view="takeTable"))


def ended(t: Catalogue, one: ComparedRule, kind: str, side: str) -> str:
    judged = one.a if side == "a" else one.b
    if judged is None:
        return t("explorer.not_judged")
    number = number_of(t, one.rule, kind, judged.value)
    outcome = outcome_of(t, judged.outcome)
    return outcome if number == NONE else f"{t('explorer.of', what=outcome)}{number}"


def moved(t: Catalogue, one: ComparedRule) -> str:
    return NONE if one.direction is None else t(f"explorer.compare.{one.direction}")


def weights(t: Catalogue, found: ModelComparison) -> Markup:
    """Return the changes of the weights, or why not known; a script adds eigenvectors."""
    if found.difference is None:
        key = "dates" if found.dates else "not_compared"
        told = paragraph(t(f"explorer.compare.{key}", why=found.why), class_="callout")
        return section(t, "explorer.compare.weights", told)
    lead = t("explorer.compare.lead", a=found.a.model.name, b=found.b.model.name)
    both = (audit_link(t, one.audit, one.model.name) for one in (found.a, found.b) if one.audit)
    links = [*dict.fromkeys(both)]  # of a model beside itself one
    instead = no_script(t, "reports" if links else "", links)
    pairs = section(t, "explorer.compare.vectors", instead)
    root = element(
        "div", pairs, data_view="compare", data_a=found.a.model.id, data_b=found.b.model.id
    )
    more = list[Markup]()
    if found.r_squared is not None:
        about = t("explorer.compare.approximate", r2=floored(found.r_squared))
        more.append(paragraph(about, class_="callout"))
    more.append(paragraph(lead))
    if found.left_out:
        more.append(paragraph(t("explorer.compare.left_out", count=found.left_out)))
    return joined(difference(t, found.difference, lead=more), root)


def spectra(t: Catalogue, found: ModelComparison) -> Markup:
    """Return the spectra of the classes as the documents of two dates hold them."""
    if not found.spectra:
        return Markup()
    names = clean_names([one.name for one, _ in found.spectra])
    drawn = []
    for pair, name in zip(found.spectra, names, strict=True):
        sides = zip("AB", pair, strict=True)
        charts = [(f"{letter}: {name}", class_spectrum(t, one, name)) for letter, one in sides]
        drawn.append(drawings(charts))
    return section(t, "explorer.compare.spectra", *drawn)


def people_section(t: Catalogue, found: ModelComparison) -> Markup:
    parts = list[Markup]()
    ended = {found.a.model.id: {rule.rule: rule.a for rule in found.rules}}
    ended = {found.b.model.id: {rule.rule: rule.b for rule in found.rules}} | ended
    for one in {found.b.model.id: found.b, found.a.model.id: found.a}.values():
        lines = judged(t, one, {rule: how for rule, how in ended[one.model.id].items() if how})
        parts += [heading(one.model.name), *lines, remarks(t, one.entries, named=True)]
        if not one.entries:
            parts.append(paragraph(t("explorer.nobody")))
    return section(t, "explorer.people", *parts)


def judged(t: Catalogue, one: ComparedModel, ended: Mapping[str, Measured]) -> list[Markup]:
    if one.audit is None:
        return []
    identity = one.audit.identity
    standing = judgements(one.entries, AuditedModel.of_past(one.audit, ended), one.day)
    lines = [judged_line(t, rule, *how, identity) for rule, how in standing.items()]
    return [items(lines, "sentences")] if lines else []
