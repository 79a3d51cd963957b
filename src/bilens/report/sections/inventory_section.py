"""The section on a file: sentences for every page, and tables of operations, tensors and files."""

from collections import Counter
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from bilens.records.base import Record
from bilens.records.inventory import (
    CardField,
    CountedName,
    FileEntry,
    Inventory,
    PartCount,
    Port,
    TensorGroup,
)
from bilens.report.markup import items, quiet, section
from bilens.report.tables import FieldColumn, FieldTable
from bilens.report.text import NONE, Catalogue, grouped, shortened

LONGEST = 60  # characters of a name
MOST_NAMED, MOST_ROWS = 8, 60  # in a sentence, in a table
PARTS = FieldTable(
    PartCount,
    (
        FieldColumn("kind", lambda t, one: t.word("inventory.part", one.kind), numeric=False),
        FieldColumn("count"),
        FieldColumn("read"),
    ),
    "inventory.parts.caption",
)
PORTS = FieldTable(
    Port,
    (
        FieldColumn("side", lambda t, one: t(f"inventory.side.{one.side}"), numeric=False),
        FieldColumn("name", lambda _, one: shortened(one.name, LONGEST), numeric=False),
        FieldColumn("shape", lambda _, one: one.shape or NONE, numeric=False),
        FieldColumn("dtype", numeric=False),
    ),
    "inventory.ports.caption",
    named=(1,),
)
OPERATIONS = FieldTable(
    CountedName,
    (
        FieldColumn("name", lambda _, one: shortened(one.name, LONGEST), numeric=False),
        FieldColumn("count"),
    ),
    "inventory.operations.caption",
)
GROUPS = FieldTable(
    TensorGroup,
    (
        FieldColumn("name", lambda _, one: shortened(one.name, LONGEST), numeric=False),
        FieldColumn("tensors"),
        FieldColumn("shape", lambda _, one: shortened(one.shape, LONGEST), numeric=False),
        FieldColumn("parameters"),
        FieldColumn("dtype", lambda t, one: stored_as(t, one), numeric=False),
        FieldColumn("bytes", lambda _, one: size_text(one.bytes)),
    ),
    "inventory.groups.caption",
)
CARD = FieldTable(
    CardField,
    (
        FieldColumn("name", numeric=False),
        FieldColumn("value", lambda _, one: shortened(one.value, 3 * LONGEST), numeric=False),
        FieldColumn("source", lambda t, x: x.source or t("inventory.itself"), numeric=False),
    ),
    "inventory.card.caption",
)
FILES = FieldTable(
    FileEntry,
    (
        FieldColumn("name", numeric=False),
        FieldColumn("state", lambda t, one: t(f"inventory.state.{one.state}"), numeric=False),
        FieldColumn("parameters"),
        FieldColumn("bytes", lambda _, one: size_text(one.bytes)),
        FieldColumn("sha256", lambda _, one: one.sha256[:12] or NONE, numeric=False),
        FieldColumn("said", lambda _, one: one.said or NONE, numeric=False),
    ),
    "inventory.files.caption",
)


def stored_as(t: Catalogue, group: TensorGroup) -> str:
    return t("inventory.quantised", dtype=group.dtype) if group.quantised else group.dtype


def inventory_section(t: Catalogue, _: Record, found: Inventory) -> Markup:
    """Return the section of a page: sentences, then the tables that are there."""
    blocks = []
    for table, rows, more in inventory_tables(found):
        blocks.append(table.on_page(t, rows, class_="layers"))
        if more:
            blocks.append(quiet(t("inventory.more", count=grouped(more))))
    return section(t, "inventory", items(inventory_lines(t, found), "sentences"), *blocks)


def file_section(t: Catalogue, files: Sequence[FileEntry]) -> Markup:
    """Return every file of folders, and what became of it; nothing where no folder was given."""
    if not files:
        return Markup()
    return section(t, "inventory.files", FILES.on_page(t, files, class_="index"))


def inventory_tables(found: Inventory) -> Iterator[tuple[FieldTable, Sequence[Record], int]]:
    """Yield each table that has rows, its first ones, and how many more there are."""
    kinds: tuple[tuple[FieldTable, Sequence[Record]], ...] = (
        (FILES, found.files),
        (PARTS, found.parts),
        (PORTS, found.ports),
        (OPERATIONS, found.operations),
        (GROUPS, found.groups),
        (CARD, found.card),
    )
    for table, rows in kinds:
        most = len(rows) if table is FILES else MOST_ROWS  # of files none is left out
        if rows:
            yield table, rows[:most], max(len(rows) - most, 0)


def inventory_lines(t: Catalogue, found: Inventory) -> Iterator[str]:
    """Yield what a file is in sentences."""
    stored = Counter[str]()
    for group in found.groups:
        stored[stored_as(t, group)] += group.parameters
    kinds = t.listing([kind for kind, _ in stored.most_common(MOST_NAMED) if kind])
    size = "" if found.bytes is None else size_text(found.bytes)
    key = "file" if found.sha256 else "folder" if found.files else "memory"
    yield t(f"inventory.{key}", format=found.format, size=size, sha256=found.sha256)
    if found.parameters is not None:
        numbers = {"tensors": grouped(found.tensors), "count": grouped(found.parameters)}
        yield t("inventory.tensors", dtypes=kinds or NONE, **numbers)
    if found.codes:
        yield t("inventory.codes", count=grouped(found.codes))
    if found.operations:
        named = [f"{grouped(one.count)} {one.name}" for one in found.operations[:MOST_NAMED]]
        more = len(found.operations) - len(named)
        named += [t("inventory.kinds", count=grouped(more))] if more else []
        total = sum(one.count for one in found.operations)
        yield t("inventory.operations", count=grouped(total), named=t.listing(named))
    for side in ("input", "output"):
        ports = [port_text(one) for one in found.ports if one.side == side]
        if ports:
            yield t(f"inventory.{side}s", count=grouped(len(ports)), named="; ".join(ports[:4]))
    asked = [(one, one.read) for one in found.parts if one.read is not None]
    for key, counts in (
        ("made_of", [(one, one.count) for one in found.parts if one.read is None]),
        ("read", asked),
        ("unread", [(one, one.count - read) for one, read in asked]),
    ):
        parts = [
            t("inventory.part_count", count=grouped(n), name=t.word("inventory.part", one.kind))
            for one, n in counts
            if n > 0
        ]
        if parts:
            yield t(f"inventory.{key}", named=t.listing(parts))
    for tied in found.tied[:4]:
        yield t("inventory.tied", names=t.listing([*tied[:4]]), count=grouped(len(tied)))
    licences = dict.fromkeys(one.value for one in found.card if one.name.startswith("license"))
    if licences:
        yield t("inventory.license", named=shortened("; ".join(licences), 2 * LONGEST))
    if found.imports:
        names = ", ".join(found.imports[:MOST_NAMED])
        yield t("inventory.imports", count=grouped(len(found.imports)), named=names)
    yield from found.notes
    if found.files:
        states = Counter(one.state for one in found.files)
        parts = [
            t("inventory.state_count", count=grouped(count), state=t(f"inventory.state.{state}"))
            for state, count in states.most_common()
        ]
        yield t("inventory.files", count=grouped(len(found.files)), named=t.listing(parts))


def size_text(count: int) -> str:
    """Return a number of bytes for people."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B"


def port_text(port: Port) -> str:
    inside = ", ".join(filter(None, (port.shape, port.dtype)))
    return f"{port.name} ({inside})" if inside else port.name
