"""Ours beside published: intervals, what agrees, and what is said of too few runs and of flaws."""

import pytest
from markdown_it import MarkdownIt

from bilens_studies.page_writer import finding_cells, findings_table, table
from bilens_studies.published import (
    Published,
    Reproduced,
    finding,
    findings,
    interval,
    read_published,
    rising,
)


def test_an_interval_is_students_and_needs_three_runs() -> None:
    # t(0.975; 2) = 4.3027, s = 1, √3 runs
    assert interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 2.4841, 2 + 2.4841), abs=1e-4)
    assert interval([1.0, 2.0]) is None


@pytest.mark.parametrize(
    ("published", "measured", "verdict"),
    [
        ({"value": 10.0, "deviation": 1.0}, {"values": (12.9,) * 3}, "agrees"),
        ({"value": 10.0, "deviation": 1.0}, {"values": (13.1,) * 3}, "differs"),
        ({"value": 10.0, "tolerance": 0.5}, {"values": (9.6,) * 3}, "agrees"),
        ({"value": 10.0, "tolerance": 0.5}, {"values": (9.6,) * 2}, "not judged"),
        ({"value": 10.0}, {"values": (10.1,) * 3}, "differs"),
        ({"claim": "clean"}, {"holds": True}, "not judged"),  # of no run that is told of
        ({"claim": "clean"}, {"holds": True, "runs": 1}, "not judged"),
        ({"claim": "clean"}, {"holds": True, "runs": 3}, "agrees"),
        ({"claim": "first"}, {"holds": False, "runs": 5, "values": (5.0, 5.0)}, "differs"),
        ({"claim": "clean"}, {"holds": False, "values": (0.2, 0.2, 0.2)}, "differs"),
        ({"claim": "clean"}, {"holds": True, "values": (0.2, 0.2)}, "not judged"),
        ({"claim": "clean"}, {"holds": True, "values": (0.2, 0.2), "once": True}, "agrees"),
        ({"claim": "clean"}, {"values": (0.2,)}, "not judged"),
        ({"value": 10.0}, {}, "not measured"),
    ],
)
def test_what_agrees(published: dict, measured: dict, verdict: str) -> None:  # type: ignore[type-arg]
    row = finding(Published("q", "App. A", **published), Reproduced(**measured))
    assert row["verdict"] == verdict


def test_published_numbers_are_read_from_a_table() -> None:
    rows = "name,quantity,source,value,tolerance,flaw\n"
    rows += 'a,"rank, {WIDTH:,} wide",Fig. 1,0.5,10%,\nb,ends,Fig. 2,11,0.5,as above\n'
    found = read_published(rows, {"WIDTH": 1000})
    assert found["a"] == Published("rank, 1,000 wide", "Fig. 1", 0.5, tolerance=0.05)
    assert found["b"] == Published("ends", "Fig. 2", 11, tolerance=0.5, flaw="as above")


def test_small_models_are_not_held_against_published_ones() -> None:
    number, claim = Published("q", "App. A", value=1.0), Published("q", "App. A", claim="clean")
    rows = [
        finding(number, Reproduced((1.0, 2.0, 3.0)), quick=True),
        finding(claim, Reproduced(holds=True), quick=True),
        finding(claim, Reproduced(), quick=True),
    ]
    assert [row["verdict"] for row in rows] == [*["not judged: --quick"] * 2, "not measured"]
    assert rows[0]["low"] is not None


def test_rows_say_the_interval_the_flaw_and_what_is_missing() -> None:
    flawed = Published("rank", "Fig. 1", value=3.0, deviation=0.25, flaw="one seed", others="4")
    full = finding(flawed, Reproduced((1.0, 2.0, 3.0)))
    assert full["values"] == (1.0, 2.0, 3.0)
    assert finding_cells(full) == [
        "rank",
        "3 ± 0.25 (published deviation; Fig. 1)",
        "4",
        "2 [-0.4841, 4.484]",
        "differs; published protocol flawed: one seed",
    ]
    few = finding_cells(finding(flawed, Reproduced((3.0, 3.0), note="by eye")))
    assert few[3] == "3 (2 of at least 3 runs: no interval); by eye"
    assert few[4].startswith("not judged;")
    some = finding(flawed, Reproduced((3.0, 3.0), False, runs=5))
    assert finding_cells(some)[3] == "3 (of 5 runs fewer than 3 have a value: no interval)"
    near = Published("rank", "Fig. 1", value=3.0, tolerance=0.5)
    assert finding_cells(finding(near, Reproduced()))[1] == "3 ± 0.5 (tolerance; Fig. 1)"
    rises = finding(Published("loss", "Fig. 1", claim="rises"), rising([1.0, 2.0], "2 layers"))
    told = finding_cells(rises)[3:]
    assert told == ["1, 2 (2 layers) (1 of at least 3 runs: no interval)", "not judged"]
    assert finding_cells(finding(flawed, Reproduced()))[3:] == [
        "–",
        "not measured; published protocol flawed: one seed",
    ]


def test_a_bar_in_a_cell_is_no_border() -> None:
    text = table("quantity | ours", [["by |λ|", 1]])
    assert MarkdownIt("commonmark").enable("table").render(text).count("<td>") == 2
    assert "<td>by |λ|</td>" in MarkdownIt("commonmark").enable("table").render(text)


def test_rows_follow_what_is_declared() -> None:
    declared = {"a": Published("A", "T", value=1.0), "b": Published("B", "T", claim="small")}
    rows = findings(declared, {"a": Reproduced((1.0,))})
    assert [row["verdict"] for row in rows] == ["not judged", "not measured"]
    assert findings_table(rows).count("\n| ") == 3
    assert findings_table([]) == ""
    with pytest.raises(AssertionError, match="declared"):
        findings(declared, {"c": Reproduced()})
