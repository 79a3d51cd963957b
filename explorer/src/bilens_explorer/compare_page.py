"""The page of two models; a script adds their eigenvectors."""

from markupsafe import Markup

from bilens.records import displayable
from bilens.report import (
    NONE,
    Catalogue,
    Column,
    difference,
    element,
    floored,
    joined,
    load_catalogue,
    page_link,
    paragraph,
    rule_number,
    section,
    table,
    title_of,
)
from bilens_explorer.pages import audit_link, framed, no_script, quoting
from bilens_explorer.records.model_comparison import ComparedRule, ModelComparison
from bilens_explorer.standing import outcome_of, sign

COLUMNS = ("model", "decision", "number", "weights")


def compare_page(found: ModelComparison, lang: str, secret: str) -> str:
    """Return the page of a comparison."""
    t, found = load_catalogue(lang), displayable(found)
    parts = [part(t, found) for part in (sides, rules, weights)]
    return framed(t, t("explorer.compare.title"), secret, *parts)


def sides(t: Catalogue, found: ModelComparison) -> Markup:
    rows = []
    for letter, one in (("A", found.a), ("B", found.b)):
        told, link = (NONE,) * 2, page_link(t, f"/models/{one.id}", one.name)
        if (audit := one.answered) is not None:
            weights = element("code", audit.weights_sha256[:12] or NONE)
            told = page_link(t, f"/audits/{audit.number}", str(audit.number)), weights
        rows.append((letter, link, sign(t, one), *told))
    columns = [Column(name, numeric=False) for name in ("", *t.each("explorer", COLUMNS))]
    return table(t, t("explorer.compare.two"), columns, rows, class_="two")


def rules(t: Catalogue, found: ModelComparison) -> Markup:
    a, b = found.a.answered, found.b.answered
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
    number = rule_number(t, one.rule, kind, judged.value)
    outcome = outcome_of(t, judged.outcome)
    return outcome if number == NONE else f"{t('explorer.of', what=outcome)}{number}"


def moved(t: Catalogue, one: ComparedRule) -> str:
    return NONE if one.direction is None else t(f"explorer.compare.{one.direction}")


def weights(t: Catalogue, found: ModelComparison) -> Markup:
    """Return the changes of the weights, or why not known; a script adds eigenvectors."""
    if found.difference is None:
        why = quoting(t, "explorer.compare.not_compared", why=found.why)
        told = element("div", why, class_="callout")
        return section(t, "explorer.compare.weights", told)
    lead = t("explorer.compare.lead", a=found.a.name, b=found.b.name)
    sides = (found.a, found.b)
    both = (audit_link(t, one.answered, one.name) for one in sides if one.answered)
    links = [*dict.fromkeys(both)]  # of a model beside itself one
    instead = no_script(t, "reports" if links else "", links)
    pairs = section(t, "explorer.compare.vectors", instead)
    root = element("div", pairs, data_view="compare", data_a=found.a.id, data_b=found.b.id)
    more = list[Markup]()
    if found.r_squared is not None:
        about = t("explorer.compare.approximate", r2=floored(found.r_squared))
        more.append(paragraph(about, class_="callout"))
    more.append(paragraph(lead))
    if found.left_out:
        more.append(paragraph(t("explorer.compare.left_out", count=found.left_out)))
    return joined(difference(t, found.difference, lead=more), root)
