"""The report of a sweep: what stands out and what moved is named, what is missing is counted.

Damage seen to fail: layers of all kinds compared with each other; the least changes named first;
a condition that passes though a layer has no result; results of another manifest taken in.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from bilens.base.errors import FileError, UsageError
from bilens.findings.rules.registry import parse_conditions
from bilens.records.base import to_json
from bilens.report.charts.sweeps import Grid
from bilens.report.reports import SweepReport
from bilens.report.sections.sweep_page import scores
from bilens.sweep.jobs import result_name
from bilens.sweep.manifest import NAME
from bilens.sweep.report import read_sweep, summary_of
from sweep_documents import CHANGED, OUTLIER, RUN, drawn, experts, plan_of, reading, swept_of, write

NORM = ("audit", "weight_norm")


def test_an_outlier_is_named_among_its_kind() -> None:
    """A dense layer of ten times the size is of another kind, and no outlier."""
    names = experts()
    norms = drawn(names, **{OUTLIER: 4.0, "layers.0.mlp": 10.0})
    found = summary_of(swept_of(plan_of(names), {NORM: norms}), (), None, RUN)
    (number,) = found.numbers
    assert [(one.name, one.value) for one in number.outliers] == [(OUTLIER, 4.0)]
    assert [(one.count, one.outliers) for one in number.kinds] == [(27, 1), (1, 0)]
    z = scores(found, number)
    assert z[0] is None  # too few of its kind
    assert max(range(1, len(z)), key=lambda row: z[row] or 0.0) == names.index(OUTLIER)
    page = SweepReport(found).to_html()
    assert f'<th scope="row">{OUTLIER}</th>' in page
    assert len(page) < 60_000


def test_a_map_has_layers_across_and_experts_downwards() -> None:
    names = [
        "layers.0.mlp",
        "layers.1.mlp.shared",
        "layers.1.mlp.experts.10",
        "layers.2.mlp.experts.9",
    ]
    found = Grid.place_layers(names)
    assert found.layers == [0, 1, 2]
    experts = ["layers.*.mlp.experts.9", "layers.*.mlp.experts.10"]
    assert found.lines == ["layers.*.mlp", "layers.*.mlp.shared", *experts]
    assert [*map(found.number, range(4))] == ["", "", "9", "10"]
    assert found.cells == [(0, 0), (1, 1), (1, 3), (2, 2)]


def test_what_moved_between_two_sweeps_is_named() -> None:
    names = experts()
    norms = drawn(names)
    earlier = swept_of(plan_of(["old", *names[1:]]), {NORM: norms | {"old": 1.0}})
    before = summary_of(earlier, (), None, RUN)
    now = norms | {CHANGED: norms[CHANGED] / 3, OUTLIER: norms[OUTLIER] * 1.5}
    swept = swept_of(plan_of(names), {NORM: now})
    found = summary_of(swept, (), before, RUN).difference
    assert found is not None
    assert (found.alone, found.baseline_alone) == ("layers.0.mlp", "old")
    (number,) = found.numbers
    assert (number.compared, number.same) == (27, 25)
    assert [one.name for one in number.moved] == [CHANGED, OUTLIER]
    other = summary_of(swept_of(plan_of(names, samples=100), {NORM: norms}), (), None, RUN)
    with pytest.raises(UsageError, match="same tasks and options"):
        summary_of(swept, (), other, RUN)


@pytest.mark.parametrize("place", ["folder [1]", "memory://sweep"])
def test_results_are_read_and_what_is_missing_is_counted(tmp_path: Path, place: str) -> None:
    plan = plan_of(experts(3, 6), tasks=("audit",))
    where = place if "://" in place else str(tmp_path / place)
    results: dict[tuple[str, int], Any] = {
        ("audit", row): ({"weight_norm": 1.0}, to_json(reading(plan.rows[row].name)))
        for row in range(6)
    }
    results |= {("audit", row): f"{plan.rows[row].name}: width {row} is odd" for row in (6, 7)}
    output = write(where, plan, results)
    failed = {"audit 8": "out of memory", "audit 0": "no more"}  # the second one is done since
    output.write("failed.json", json.dumps(failed).encode())
    asked = parse_conditions(["r2<0.5"], data=True, baseline=True)
    found = summary_of(read_sweep(output), asked, None, RUN)
    (count,) = found.tasks
    assert (count.found, count.refused, count.failed, count.missing) == (6, 2, 1, 6)
    assert [(one.state, one.count) for one in found.reasons] == [("refused", 2), ("failed", 1)]
    assert found.numbers[0].kinds[0].count == 5
    assert [finding.outcome for finding in found.verdict][:2] == ["pass", "pass"]
    assert [(one.value, one.failed) for one in found.conditions or ()] == [(None, True)]
    strange = replace(plan.head, release="another")
    output.write(NAME, replace_head(plan.text, to_json(strange)))
    with pytest.raises(FileError, match="another manifest"):
        read_sweep(output)
    output.write(NAME, plan.text)
    output.write(result_name("audit", 0), b"{")
    with pytest.raises(FileError, match="truncated"):
        read_sweep(output)


def replace_head(text: bytes, head: dict[str, Any]) -> bytes:
    _, rest = text.split(b"\n", 1)
    return json.dumps(head, separators=(",", ":")).encode() + b"\n" + rest
