"""The share of a model that was read: one table on every page, the same list elsewhere."""

from collections.abc import Iterator

from markupsafe import Markup

from bilens.findings.rules.rule import list_names
from bilens.records.decision import Coverage, CoverageGroup
from bilens.report.markup import element, keyed_table, paragraph, quiet, section
from bilens.report.text import Catalogue, grouped, read_percents, shortened

LONGEST = 60  # characters of a name
MOST = 12  # groups that a terminal or a comment lists
SHOWN = 60  # rows of the table


def coverage(t: Catalogue, found: Coverage | None) -> Markup:
    """Return the shares of a model that were read, and one row for each group of tensors."""
    if found is None:
        return Markup("")
    rows, keys = [], "name parameters exact approximate unread reason"
    for group in found.groups[:SHOWN]:
        name = element("span", group_name(t, group), class_="name")
        read = shares(group).values() if group.parameters else 3 * ("–",)
        why = t(f"coverage.reason.{group.reason}") if group.reason else ""
        rows.append((name, grouped(group.parameters), *read, why))
    more = len(found.groups) - SHOWN
    return section(
        t,
        "coverage",
        paragraph(t("sentence.gap").join([summary(t, found), *other_files(t, found)])),
        keyed_table(t, "coverage.table", keys, rows, words="name reason"),
        quiet(t("coverage.more", count=grouped(more))) if more > 0 else Markup(""),
    )


def summary(t: Catalogue, found: Coverage) -> str:
    """Return how many parameters were read exactly, approximately and not at all."""
    key = "summary" if found.share else "none" if found.parameters else "unlisted"
    return t(f"coverage.{key}", count=grouped(found.parameters), **shares(found))


def other_files(t: Catalogue, found: Coverage) -> Iterator[str]:
    """Yield which other files of weights lie in the folder, and what was too large to be hashed."""
    for key, names in (("files", found.other_files), ("not_hashed", found.not_hashed)):
        if names:
            yield t(f"coverage.{key}", count=grouped(len(names)), names=list_names(names))


def shares(found: Coverage | CoverageGroup) -> dict[str, str]:
    """Return the shares read exactly, approximately and not at all, as percentages."""
    total = found.parameters or 1
    shown = read_percents(found.exact / total, found.approximate / total)
    return {name: shown[name] for name in ("exact", "approximate", "unread")}


def unread_lines(t: Catalogue, found: Coverage | None) -> Iterator[str]:
    """Yield what was not read: other files of weights, and groups of tensors, the largest first."""
    yield from () if found is None else other_files(t, found)
    groups = [] if found is None else [group for group in found.groups if group.reason]
    for group in groups[:MOST]:
        yield t(
            "coverage.line",
            name=group_name(t, group),
            parameters=grouped(group.parameters - group.exact - group.approximate),
            reason=t(f"coverage.reason.{group.reason}"),
        )
    if len(groups) > MOST:
        yield t("coverage.more", count=grouped(len(groups) - MOST))


def group_name(t: Catalogue, group: CoverageGroup) -> str:
    name = shortened(group.name, LONGEST)
    if group.tensors <= 1:
        return name
    return t("coverage.several", name=name, tensors=grouped(group.tensors))
