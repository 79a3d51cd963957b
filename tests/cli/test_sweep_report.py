"""`bilens sweep report`: the numbers in files, conditions, and where the explorer finds it.

Damage seen to fail: exit code 0 where a condition failed; results of a sweep listed as data; a
sweep that ends without a report.
"""

from pathlib import Path

import pytest
import torch

import tiny
from bilens.cli.options import FAILED
from bilens.records.sweep import SweepOptions
from bilens.sweep.jobs import Spec, run_spec
from bilens.sweep.manifest import NAME, make_plan
from bilens.sweep.output import SweepOutput
from bilens_explorer.folder import ServedFolder
from commands import Shell, model_folder


def test_the_command_reports_fails_and_is_served(bilens: Shell, tmp_path: Path) -> None:
    model = tiny.classifier(n_layers=8)
    with torch.no_grad():
        model.layers[2].left.weight *= 50
    source = model_folder(tmp_path / "model", model)
    place = tmp_path / "folder" / "sweep"
    plan = make_plan(str(source), SweepOptions(tasks=("audit",), null_samples=3))
    SweepOutput(str(place)).write(NAME, plan.text)
    run_spec(Spec(str(place), plan.sha256, 0, tuple(range(len(plan.rows)))))
    again = ("sweep", source, "--null-samples", "3", "--out", place)
    assert bilens("-q", *again).code == 0  # nothing is left but the report
    served = ServedFolder(tmp_path / "folder")
    assert [*served.last_walk().names.values()] == ["sweep/report.json"]
    table, page = tmp_path / "rows.parquet", tmp_path / "page.html"
    line = ("sweep", "report", place, "--table", table, "--html", page, "--lang", "ja")
    assert bilens("-q", *line, "--fail-on", "huge_norm>1e6").code == 0
    told = bilens("-q", *line, "--fail-on", "huge_norm", "--json")
    assert told.code == FAILED
    document = told.json()
    (norm,) = [one for one in document["numbers"] if one["name"] == "weight_norm"]
    assert [one["name"] for one in norm["outliers"]] == ["layers.2"]
    beside = bilens("-q", *line, "--baseline", place, "--json").json()["difference"]["numbers"]
    # the first layer reads columns, of which nothing says in which units they compare
    assert {(one["compared"], one["same"]) for one in beside} == {(8, 8), (7, 7)}
    assert [one["name"] for one in beside if one["compared"] == 7] == ["input_share"]
    none = bilens("sweep", "report", place, "--baseline", tmp_path)
    assert "holds no report of a sweep" in none.error()
    frame = pytest.importorskip("pandas").read_parquet(table)
    assert frame["audit.weight_norm"].idxmax() == 2
    assert "layers.2" in page.read_text("utf-8")
    (row,) = served.overview().reports
    assert str(tmp_path) not in served.report(row.id).to_html()
    assert bilens("sweep", "report", tmp_path).error().endswith("give the folder of one.")
    assert "only with" in bilens("sweep", source, "--out", place, "--table", table).error()
