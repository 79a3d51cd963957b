"""The first page: a row a model with its decision first, and by what the rows are chosen."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from operator import itemgetter

from markupsafe import Markup

from bilens.records import displayable
from bilens.report import (
    NONE,
    Catalogue,
    Column,
    Content,
    element,
    grouped,
    joined,
    page_link,
    paragraph,
    quiet,
    section,
    table,
    title_of,
)
from bilens_explorer.overview import SEVERITY, STATES
from bilens_explorer.records.models import ModelRow, Overview, ReportRow
from bilens_explorer.standing import approved, change_list, different_files, paper, sign
from bilens_explorer.walk import DEEPEST, MOST

CHANGES, DRAWN = 3, 50  # changes in a row, rows that a page has at first
VIEW_OF = {"trace": "/circuits"}  # kind of a report → its view, where it has one
Cell = tuple[Content, str | float | None]  # what it holds, and by what rows are sorted
NAME = 2  # column of the name, below which a row is known
HEADS = ("choose_head", "decision", "model", "approved", "failed", "change", "last")


def home(t: Catalogue, found: Overview, *, every: bool) -> Markup:
    """Return the models, the worst first, and reports that lie beside them.

    Rows behind the first ones are on the page of `every` row, which a script asks for.
    """
    most = {"most": grouped(MOST), "deepest": DEEPEST}
    more = quiet(t("explorer.truncated", **most)) if found.truncated else Markup()
    late = found.day > found.clock and bool(found.clock)
    clock = t("explorer.clock", day=found.day, clock=found.clock) if late else ""
    warned = paragraph(clock, class_="callout")
    return joined(more, warned, models(t, found, every), report_list(t, found.reports))


def models(t: Catalogue, found: Overview, every: bool) -> Markup:
    if not found.models:
        first = element("pre", element("code", "bilens demo --out runs/demo"))
        return joined(element("p", t("explorer.empty")), first)
    heads = t.each("explorer", HEADS)
    caption = t("explorer.models", count=grouped(len(found.models)))
    columns = [element("th", name, scope="col", role="columnheader") for name in heads]
    shown = found.models if every else found.models[:DRAWN]
    whole_table = element(
        "table",
        element("caption", element("span", caption, class_="caption")),
        element("thead", element("tr", *columns, role="row"), role="rowgroup"),
        element("tbody", *(row_of(t, tuple(heads), row) for row in shown), role="rowgroup"),
        class_="models",
        role="table",  # also where a narrow page makes blocks of its cells
        data_total=str(len(found.models)),
    )
    name = t("page.scroll", name=caption)
    box = element("div", whole_table, class_="scroll", tabindex="0", role="region", aria_label=name)
    link = element("a", t("explorer.every", count=caption), href=f"/?every=&lang={t.lang}")
    rest = Markup() if len(shown) == len(found.models) else element("noscript", element("p", link))
    return element("div", tools(t, found), box, rest, data_view="home")


@lru_cache(maxsize=20_000)
def row_of(t: Catalogue, heads: tuple[str, ...], row: ModelRow) -> Markup:
    """Return the row of a model: one that did not change is not drawn again."""
    row = displayable(row)
    last, now = row.last, row.answered
    failed = () if now is None else now.failed
    names = [
        t("explorer.accepted", rule=title) if rule in row.accepted else title
        for rule, title in ((rule, title_of(t, rule)) for rule in failed)
    ]
    rank = STATES.index(row.state) * len(SEVERITY)
    rank += SEVERITY.index(now.answer) if now else 0
    signs = [{"worse": 1, "better": -1}.get(one.direction, 0) for one in row.changes]
    box = element(
        "input", type="checkbox", value=row.id, aria_label=t("explorer.choose", name=row.name)
    )
    people = [element("p", line) for line in approved(t, row)]
    date = "" if last is None else last.date
    when = element("time", date[:10], element("br"), date[11:16], datetime=date, title=date)
    name = Markup("/<wbr>").join(row.name.split("/"))  # where a long path may be broken
    cells: list[Cell] = [
        (box, None),
        (element("div", sign(t, row), quiet(different_files(t, row.differences))), rank),
        (page_link(t, f"/models/{row.id}", name), None),
        (element("div", *people) if people else NONE, len(people)),
        (t("list.comma").join(names) or (t("explorer.none") if now else NONE), len(failed)),
        (changed(t, row), sum(signs)),
        (when if date else NONE, date),
    ]
    drawn = []
    for place, (head, (content, order)) in enumerate(zip(heads, cells, strict=True)):
        if place == NAME:
            drawn.append(element("th", content, role="rowheader", scope="row"))
            continue
        sorted_by = None if order is None else str(order)
        drawn.append(element("td", content, role="cell", data_label=head, data_value=sorted_by))
    rules = " ".join(sorted({*failed, *(one.rule for one in row.changes if now)}))
    answer = now.answer if now else row.state
    return element("tr", *drawn, role="row", data_answer=answer, data_rules=rules)


def changed(t: Catalogue, row: ModelRow) -> Markup | str:
    """List rules that got better or worse since the audit before."""
    if row.answered is None or row.audits < 2:
        return NONE
    kind = row.answered.kind
    return change_list(t, row.changes, kind, CHANGES) if row.changes else t("explorer.same")


def tools(t: Catalogue, found: Overview) -> Markup:
    """Return the controls that filter the rows."""
    rules = {one.rule for row in found.models if row.answered for one in row.changes}
    rules |= {rule for row in found.models if row.answered for rule in row.answered.failed}
    every = ("", t("explorer.all"))
    answers = [(answer, t(f"decision.{answer}")) for answer in SEVERITY]
    states = [(one, t(f"explorer.state_of.{one}")) for one in STATES if one != "audited"]
    named = sorted(((rule, title_of(t, rule)) for rule in rules), key=itemgetter(1))
    return element(
        "div",
        control(t, "search", element("input", type="search", id="search")),
        control(t, "decision", select("decision", [every, *answers, *states])),
        control(t, "rule", select("rule", [every, *named])),
        element("output", "", for_="search"),
        class_="controls",
        hidden="",
    )


def control(t: Catalogue, name: str, made: Markup) -> Markup:
    return element(
        "span", element("label", t(f"explorer.{name}"), for_=name), made, class_="control"
    )


def select(name: str, options: Iterable[tuple[str, str]]) -> Markup:
    made = (element("option", text, value=value) for value, text in options)
    return element("select", *made, id=name, name=name)


def report_list(t: Catalogue, listed: Sequence[ReportRow]) -> Markup:
    """Return the reports that lie in the folder, which decide nothing."""
    if not listed:
        return Markup()
    opened = any(row.state for row in listed)
    rows = []
    for row in listed:
        address = f"/reports/{row.id}{VIEW_OF.get(row.kind, '')}"
        name = page_link(t, address, displayable(row.name))
        rows.append((name, t(f"explorer.kind.{row.kind}"), *([paper(t, row)] if opened else [])))
    heads = ("file", "what", *(["paper"] if opened else []))
    columns = [Column(name, numeric=False) for name in t.each("explorer", heads)]
    listing = table(t, t("explorer.reports_caption"), columns, rows)
    return section(t, "explorer.reports", quiet(t("explorer.papers")), listing)
