"""The first page: a row a model with its decision first, and by what the rows are chosen."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from operator import itemgetter

from markupsafe import Markup

from bilens.records import displayable
from bilens.report import (
    LOOKS,
    NONE,
    Catalogue,
    Column,
    Content,
    badge,
    element,
    grouped,
    joined,
    page_link,
    quiet,
    rule_number,
    section,
    table,
    title_of,
)
from bilens_explorer.overview import SEVERITY
from bilens_explorer.records.models import ModelRow, Overview, ReportRow
from bilens_explorer.walk import DEEPEST, MOST
from bilens_explorer.watching import change_list, spark

CHANGES, DRAWN = 3, 100  # changes in a row, rows that a browser draws at first
NEVER, CHANGED = "never", "changed"  # of models of which no audit says anything
VIEW_OF = {"trace": "/circuits"}  # kind of a report → its view, where it has one
Cell = tuple[Content, str | float | None]  # what it holds, and by what rows are sorted
NAME = 2  # column of the name, below which a row is known
HEADS = ("choose_head", "decision", "model", "failed", "change", "trend", "last")


def home(t: Catalogue, found: Overview, *, every: bool) -> Markup:
    """Return the models, the worst first, and reports that lie beside them.

    Rows behind the first ones are in a template, which a script takes; without one, `every` row.
    """
    most = {"most": grouped(MOST), "deepest": DEEPEST}
    more = quiet(t("explorer.truncated", **most)) if found.truncated else Markup()
    return joined(more, models(t, found, every), report_list(t, found.reports))


def models(t: Catalogue, found: Overview, every: bool) -> Markup:
    if not found.models:
        first = element("pre", element("code", "bilens demo --out runs/demo"))
        return joined(element("p", t("explorer.empty")), first)
    heads = t.each("explorer", HEADS)
    if found.watched:
        heads.insert(-2, title_of(t, found.watched))
    caption = t("explorer.models", count=grouped(len(found.models)))
    columns = (element("th", name, scope="col", role="columnheader") for name in heads)
    rows = [
        row_of(t, tuple(heads), found.watched, row, whole=every or place < DRAWN)
        for place, row in enumerate(found.models)
    ]
    later = [] if every else rows[DRAWN:]
    body = [*rows[: len(rows) - len(later)], *([element("template", *later)] if later else [])]
    link = element("a", t("explorer.every", count=caption), href=f"/?every=&lang={t.lang}")
    rest = element("noscript", element("p", link)) if later else Markup()
    whole_table = element(
        "table",
        element("caption", element("span", caption, class_="caption")),
        element("thead", element("tr", *columns, role="row"), role="rowgroup"),
        element("tbody", *body, role="rowgroup"),
        class_="models",
        role="table",  # also where a narrow page makes blocks of its cells
    )
    name = t("page.scroll", name=caption)
    box = element("div", whole_table, class_="scroll", tabindex="0", role="region", aria_label=name)
    return element("div", tools(t, found), box, rest, data_view="home")


@lru_cache(maxsize=20_000)
def row_of(
    t: Catalogue, heads: tuple[str, ...], watched: str, row: ModelRow, *, whole: bool
) -> Markup:
    """Return the row of a model: one that did not change is not drawn again."""
    row = displayable(row)
    last, kind = row.last, "" if row.last is None else row.last.kind
    failed = () if last is None or row.changed else last.failed
    titles = {rule: title_of(t, rule) for rule in failed}
    names = [
        t("explorer.accepted", rule=title) if rule in row.accepted else title
        for rule, title in titles.items()
    ]
    answer = None if last is None or row.changed else last.answer
    state = CHANGED if row.changed else NEVER
    said = decision(t, answer) if answer else quiet(t(f"explorer.{state}"))
    rank = SEVERITY.index(answer) if answer else -1 if row.changed else len(SEVERITY)
    counts = t("explorer.trend_of", counts=", ".join(map(str, row.failures)))
    failures = spark(t("explorer.trend"), counts, row.failures) or NONE
    signs = [{"worse": 1, "better": -1}.get(one.direction, 0) for one in row.changes]
    box = element(
        "input", type="checkbox", value=row.id, aria_label=t("explorer.choose", name=row.name)
    )
    cells: list[Cell] = [
        (box, None),
        (said, rank),
        (linked_name(t, row), None),
        (t("list.comma").join(names) or (t("explorer.none") if answer else NONE), len(failed)),
        (changed(t, row, kind), sum(signs)),
        *([watched_number(t, watched, kind, row)] if watched else []),
        (failures, row.failures[-1] if row.failures else ""),
        (NONE if last is None else time_of(last.date), "" if last is None else last.date),
    ]
    drawn = []
    for head, (content, order) in zip(heads, cells, strict=True):
        if head == heads[NAME]:
            role = "rowheader" if whole else None
            drawn.append(element("th", content, role=role, scope="row"))
            continue
        role, label = ("cell", head) if whole else (None, None)
        sorted_by = None if order is None else str(order)
        drawn.append(element("td", content, role=role, data_label=label, data_value=sorted_by))
    rules = " ".join(sorted({*failed, *(one.rule for one in row.changes)}))
    role = "row" if whole else None
    return element("tr", *drawn, role=role, data_answer=answer or state, data_rules=rules)


def watched_number(t: Catalogue, rule: str, kind: str, row: ModelRow) -> Cell:
    """Return the last number of a rule, with those of the audits before as a line."""
    texts = [rule_number(t, rule, kind, one) for one in row.numbers]
    told = t("explorer.numbers_of", numbers=", ".join(texts))
    line = spark(title_of(t, rule), told, row.numbers)
    if not texts or row.changed:
        return element("span", NONE, " ", line), ""
    return element("span", texts[-1], " ", line), "" if row.numbers[-1] is None else row.numbers[-1]


def linked_name(t: Catalogue, row: ModelRow) -> Markup:
    name = Markup("/<wbr>").join(row.name.split("/"))  # where a long path may be broken
    gone = Markup() if row.there else element("span", t("explorer.gone"), class_="quiet")
    return joined(page_link(t, f"/models/{row.id}", name), " ", gone)


def time_of(date: str) -> Markup:
    return element("time", date[:10], element("br"), date[11:16], datetime=date, title=date)


def changed(t: Catalogue, row: ModelRow, kind: str) -> Markup | str:
    if row.changes:
        return change_list(t, row.changes, kind, CHANGES)
    return NONE if row.audits < 2 else t("explorer.same")


def decision(t: Catalogue, answer: str) -> Markup:
    return badge(t, LOOKS.get(answer, "unknown"), t(f"decision.{answer}"))


def tools(t: Catalogue, found: Overview) -> Markup:
    """Return the controls that filter the rows, and choose the number they show."""
    rules = {one.rule for row in found.models for one in row.changes}
    rules |= {rule for row in found.models if row.last for rule in row.last.failed}
    every = ("", t("explorer.all"))
    answers = [(answer, t(f"decision.{answer}")) for answer in SEVERITY]
    unknown = [(state, t(f"explorer.{state}")) for state in (CHANGED, NEVER)]
    named = sorted(((rule, title_of(t, rule)) for rule in rules), key=itemgetter(1))
    watchable = [(rule, title_of(t, rule)) for rule in found.watchable]
    choices = {
        "decision": select("decision", [every, *answers, *unknown]),
        "rule": select("rule", [every, *named]),
        **({"watch": select("watch", watchable, found.watched)} if found.watched else {}),
    }
    return element(
        "div",
        control(t, "search", element("input", type="search", id="search")),
        *(control(t, name, made) for name, made in choices.items()),
        element("output", "", for_="search"),
        class_="controls",
        hidden="",
    )


def control(t: Catalogue, name: str, made: Markup) -> Markup:
    return element(
        "span", element("label", t(f"explorer.{name}"), for_=name), made, class_="control"
    )


def select(name: str, options: Iterable[tuple[str, str]], chosen: str = "") -> Markup:
    made = (
        element("option", text, value=value, selected="" if value == chosen else None)
        for value, text in options
    )
    return element("select", *made, id=name, name=name)


def report_list(t: Catalogue, listed: Sequence[ReportRow]) -> Markup:
    if not listed:
        return Markup()
    rows = []
    for row in listed:
        address = f"/reports/{row.id}{VIEW_OF.get(row.kind, '')}"
        name = page_link(t, address, displayable(row.name))
        rows.append((name, t(f"explorer.kind.{row.kind}")))
    columns = [Column(name, numeric=False) for name in t.each("explorer", ("file", "what"))]
    return section(t, "explorer.reports", table(t, t("explorer.reports_caption"), columns, rows))
