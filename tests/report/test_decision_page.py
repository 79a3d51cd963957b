"""Page one: groups that never share a badge, and none that is kinder than what was looked at.

Damage seen to fail: a group of numbers alone called sound; whether answers were measured not asked.
"""

from typing import Any

import pytest

import table_documents
from bilens.records.base import to_json
from bilens.records.coverage import Coverage, CoverageGroup
from bilens.report.reports import AuditReport, TableReport
from bilens.report.sections.decision import decision_of, group_lines, looked_lines
from bilens.report.text import LANGUAGES, load_catalogue
from report_documents import make_document, variants

EN = load_catalogue("en")
ENDINGS = ("pass", "warn", "fail", "unknown")


def ended(document: dict[str, Any]) -> list[str]:
    kind = AuditReport if document["kind"] == "audit" else TableReport
    return [line.outcome for line in group_lines(EN, kind(document).record)]


def covered(read: int, unread: int) -> dict[str, Any]:
    """A coverage of so many parameters."""
    group = CoverageGroup("conv*.weight", 3, unread, 0, 0, "unread" if unread else "")
    counts = (read + unread, read, 0, unread)
    return to_json(Coverage(*counts, (group,), "known", "its forward pass", 0.0, True))


@pytest.mark.parametrize("lang", LANGUAGES)
def test_no_badge_is_of_two_groups_or_says_passed(lang: str) -> None:
    t = load_catalogue(lang)
    words = [t(f"group.{group}.{end}") for group in ("reading", "model", "use") for end in ENDINGS]
    assert len(set(words)) == len(words)
    assert not {"Passed", "合格", "OK"} & {*words}


def test_each_group_answers_for_itself() -> None:
    healthy = {**make_document(), "coverage": covered(100, 0)}
    assert ended(healthy) == ["pass", "unknown", "warn"]  # ten inputs establish nothing
    healthy["accuracy"] |= {"right": 900, "total": 1000}
    assert ended(healthy) == ["pass", "unknown", "pass"]  # its numbers are neither good nor bad
    assert ended({**make_document(data=False), "coverage": covered(100, 0)})[2] == "unknown"
    assert ended(variants()["failed"])[0] == "fail"


def test_an_unchanged_model_is_no_measured_one() -> None:
    document = make_document(data=False)
    same = {"value": 0, "threshold": 0, "of": 1, "layers": ""}
    document["verdict"].append({"rule": "changed_layers", "outcome": "pass", "values": same})
    assert ended({**document, "coverage": covered(100, 0)})[2] == "unknown"


def test_what_was_hardly_read_is_not_called_sound() -> None:
    document = make_document(data=False)
    document["verdict"].append(
        {"rule": "dead_units", "outcome": "pass", "values": {"value": 0, "threshold": 0, "of": 8}}
    )
    document["verdict"][-1]["values"]["layers"] = ""
    assert ended({**document, "coverage": covered(99, 1)})[1] == "unknown"
    document["coverage"] = covered(100, 0)
    assert decision_of(AuditReport(document).record).answer == "conditions"
    assert ended(document)[1] == "pass"


def test_a_table_of_numbers_alone_is_not_called_sound() -> None:
    assert ended(table_documents.variants()["classes"]) == ["pass", "unknown", "warn"]


def test_what_was_not_looked_at_is_said() -> None:
    document = {**make_document(data=False), "coverage": covered(60, 40)}
    document["triggers"] |= {"threshold": None, "reason": "not_measured"}
    looked = dict(looked_lines(EN, AuditReport(document).record))
    (read,) = looked["What was looked at"]
    assert "60.0% were read exactly" in read
    unseen = " ".join(looked["What was not looked at"])
    for words in ("1 of the 1 groups", "no test data", "not searched for", "lawful"):
        assert words in unseen
    (nobody,) = looked["Who has to accept it"]
    assert nobody.startswith("Nobody")
