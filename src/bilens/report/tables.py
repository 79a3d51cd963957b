"""Tables of records: a column is a field, whose view says how it is shown and what it means.

A table is described once and drawn three times: on pages here, in `terminal.py`, in `markdown.py`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup

from bilens.records.base import Record
from bilens.records.view import field_at, value_at, views
from bilens.report.markup import Column, Content, Row, element, table
from bilens.report.text import FORMATS, NONE, Catalogue


@dataclass(frozen=True)
class FieldColumn:
    """A column of a table: a field, by its path from the record of a row."""

    path: str
    shown: Callable[[Catalogue, Any], str] | None = None  # of what holds it; by its view otherwise
    drawn: Callable[[Catalogue, Any], Content] | None = None  # of the row, where a page has more
    numeric: bool = True
    where: Literal["", "page", "text"] = ""  # where it stands; everywhere otherwise
    heading: str = ""  # key of it; that of the field otherwise
    class_: str = ""
    strong: bool = False

    def text(self, t: Catalogue, kind: type[Record], record: Any) -> str:
        """Write the value of a record; a dash where nothing is known."""
        before = self.path.rpartition(".")[0]
        holder = value_at(record, before) if before else record
        if holder is not None and self.shown is not None:
            return self.shown(t, holder)
        value, (owner, name) = value_at(record, self.path), field_at(kind, self.path)
        return NONE if value is None else FORMATS[views(owner)[name].format](value)

    def cell(self, t: Catalogue, kind: type[Record], record: Any) -> Content:
        """Draw the value of a record on a page."""
        if self.drawn is not None:
            return self.drawn(t, record)
        text = self.text(t, kind, record)
        return element("strong", text) if self.strong else text

    def title(self, t: Catalogue, kind: type[Record]) -> str:
        owner, name = field_at(kind, self.path)
        return t(self.heading or f"field.{owner.__name__}.{name}")

    def meaning(self, t: Catalogue, kind: type[Record]) -> str:
        """Return the description of the field in the language of the catalogue."""
        if self.heading:  # it says more or something else than its field
            return ""
        owner, name = field_at(kind, self.path)
        key = f"field.{owner.__name__}.{name}.about"
        return t(key) if t.has(key) else views(owner)[name].meaning if t.lang == "en" else ""


@dataclass(frozen=True)
class TableRow:
    """A row of a table: the record it is of, or also what is said in place of its numbers."""

    record: Any
    note: str = ""
    class_: str | None = None


@dataclass(frozen=True)
class FieldTable:
    """A table of records of one kind."""

    kind: type[Record]
    columns: tuple[FieldColumn, ...]
    caption: str = ""  # its key in the catalogue
    named: tuple[int, ...] = (0,)  # the columns that say what a row is

    def on_page(
        self,
        t: Catalogue,
        rows: Iterable[TableRow | Record],
        *,
        caption: Content = "",
        class_: str | None = None,
    ) -> Markup:
        """Return the table as a part of a page; its headings say what they mean."""
        shown = [column for column in self.columns if column.where != "text"]
        heads = [
            Column(one.title(t, self.kind), one.numeric, one.class_, one.meaning(t, self.kind))
            for one in shown
        ]
        lines = []
        for row in rows_of(rows):
            known = shown[:1] if row.note else shown
            cells = [column.cell(t, self.kind, row.record) for column in known]
            note = [row.note] if row.note else []
            lines.append(Row([*cells, *note], row.class_, spans=bool(note)))
        label = t(self.caption)
        return table(
            t, caption or label, heads, lines, named=self.named, class_=class_, label=label
        )

    def as_texts(
        self, t: Catalogue, rows: Iterable[TableRow | Record]
    ) -> tuple[list[str], list[bool], list[list[str]]]:
        """Return headings, which of them are above numbers, and rows for a terminal or Markdown."""
        shown = [column for column in self.columns if column.where != "page"]
        lines = []
        for row in rows_of(rows):
            known = shown[:1] if row.note else shown
            cells = [column.text(t, self.kind, row.record) for column in known]
            lines.append([*cells, *([row.note] if row.note else [])])
            lines[-1] += [""] * (len(shown) - len(lines[-1]))
        heads = [column.title(t, self.kind) for column in shown]
        return heads, [column.numeric for column in shown], lines


def rows_of(rows: Iterable[TableRow | Record]) -> list[TableRow]:
    return [row if isinstance(row, TableRow) else TableRow(row) for row in rows]
