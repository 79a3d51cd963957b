"""Results as tables of pandas: every number stands where its row and column say."""

import sys

import pytest
import torch

import bilens as bl
from bilens.algebra.approximation.r_squared import r_squared_on
from bilens.base.errors import MissingExtraError, UsageError
from bilens.base.frame import frame_of_document
from builders import D_IN, D_OUT, randn, random_map
from every_document import DOCUMENTS
from report_documents import make_document

F = random_map()


def test_a_batch_of_spectra_is_a_row_for_each_pair() -> None:
    eigs = bl.eigendecompose_all(F, k=2)
    table = eigs.to_frame()
    assert [*table.columns[:3]] == ["form", "pair", "eigenvalues"]
    assert len(table) == D_OUT * 2
    row = table[(table.form == 1) & (table.pair == 1)].iloc[0]
    assert row.eigenvalues == float(eigs.eigenvalues[1, 1])
    assert row.explained == float(eigs.explained[1])  # of the form, on each of its rows
    assert row.status == "ok"
    assert "eigenvectors" not in table
    single = eigs[2].to_frame()
    assert "form" not in single
    assert [*single.eigenvalues] == eigs[2].eigenvalues.tolist()


def test_every_result_that_is_a_table_becomes_one() -> None:
    eigs, x, eye = bl.eigendecompose_all(F), randn(4, D_IN), torch.eye(D_IN).double()
    label = F(x).argmax(dim=1)
    null = bl.rotation_null(F, None, num_samples=D_OUT)
    two = bl.certify.universal_perturbation(F, x[0], 0, 1, [0.1, 0.2])
    tables = {
        "match": (bl.match_eigenvectors(eigs[0], eigs[1]), None),
        "interactions": (bl.top_interactions(F.form(0), x[0], 3), 3),
        "null": (null, D_OUT * D_OUT),
        "significant": (null.num_significant(eigs.eigenvalues), D_OUT * D_IN),
        "moments": (bl.gaussian_moments(F, x[0], eye), D_OUT),
        "hosvd": (bl.hosvd(F), D_OUT),
        "components": (bl.cp_decompose(F, D_OUT), D_OUT),
        "duals": (bl.dual_expression(F, torch.eye(D_OUT).double()), D_OUT * D_OUT),
        "contributions": (eigs.contributions(x), D_OUT * 4 * D_IN),
        "l2": (bl.certify.l2_radius(F, x, label), 4),
        "linf": (bl.certify.linf_radius(F, x, label), 4),
        "truncation": (bl.certify.truncation_error(eigs, 1, 1.0), D_OUT),
        "one truncation": (bl.certify.truncation_error(eigs[0], 1, 1.0), 1),
        "bounds": (bl.certify.truncated_input_bound(eigs, 1, x), D_OUT * 4),
        "agreement": (bl.certify.certified_agreement(F, 2, x), 4),
        "unused": (bl.certify.unused_inputs(F), D_OUT * D_IN),
        "perturbations": (two, 2),
        "entries": (bl.direct_interactions(F, eye), None),
        "fit": (bl.quadratic_fit(bl.nn.BilinearMLP(D_IN, 3), samples=100), 1),
    }
    for name, (result, rows) in tables.items():
        table = result.to_frame()
        assert len(table) > 0, name
        assert rows is None or len(table) == rows, name
        assert len(table.columns) >= 2, name
    assert [*tables["components"][0].to_frame()] == ["component", "sizes"]
    assert [*tables["duals"][0].to_frame()] == ["output", "direction", "duals"]
    assert "status" not in null.to_frame()  # one for each direction, not for each sample
    assert [*tables["l2"][0].to_frame().label] == label.tolist()
    assert {*tables["entries"][0].to_frame().kind} == {"self", "cross"}


def test_a_table_of_a_report_is_named() -> None:
    report = bl.AuditReport(make_document())
    classes = report.to_frame("classes.readings")
    assert [*classes["name"]] == [one["name"] for one in report.document["classes"]["readings"]]
    vectors = report.to_frame("classes.readings.positive.vector")
    (found,) = vectors.query("readings == 1 and positive == 0 and vector == 2")["value"]
    assert found == report.document["classes"]["readings"][1]["positive"][0]["vector"][2]
    pairs = report.to_frame("classes.readings.eigenvalues").query("readings == 1")
    assert [*pairs["value"]] == report.document["classes"]["readings"][1]["eigenvalues"]
    with pytest.raises(UsageError, match=r"^name one of the tables .*classes"):
        report.to_frame()
    with pytest.raises(UsageError, match=r"there is no table 'class': name one of"):
        report.record.to_frame("class")


@pytest.mark.parametrize("name", ["healthy", "trace plain", "table classes", "attack plain"])
def test_the_tables_of_a_document_hold_plain_values(name: str) -> None:
    with pytest.raises(UsageError, match="name one of the tables") as error:
        frame_of_document(DOCUMENTS[name], "?")
    for table in str(error.value).rpartition("the tables ")[2].rstrip(".").split(", "):
        rows = frame_of_document(DOCUMENTS[name], table)
        assert len(rows) > 0
        assert not rows.map(lambda value: isinstance(value, list | dict)).to_numpy().any(), table


def test_a_table_without_pandas_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    for ask in (bl.eigendecompose(F.form(0)).to_frame, lambda: bl.hosvd(F).to_frame()):
        with pytest.raises(MissingExtraError, match=r"'bilens\[tables\]'"):
            ask()


def test_no_column_is_of_something_else_that_is_as_long() -> None:
    eigs = bl.eigendecompose_all(F)  # as many pairs as inputs
    assert "linear" not in eigs.to_frame()
    assert "linear" not in eigs[0].to_frame()
    y = randn(40, 2)
    assert "median_interval" not in r_squared_on(y, y + 0.1).to_frame()
