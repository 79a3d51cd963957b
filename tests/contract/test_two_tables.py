"""Guards against a table's model beside one of the same rows that were only written otherwise.

Each was seen to fail: a target in grams beside one in kilograms (484 % told for 0), classes in
capitals ("60 of 60 another answer, mended 50" for none), days counted from the first date of each
table ("decides from other columns"), rows of texts never seen that "hold no text" of that kind.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import bilens as bl
from bilens.findings.column_effects import exact_layer
from bilens.io.loaded_model import LoadedModel
from bilens.records.base import json_text
from bilens.records.column_readings import TableColumn, TableReading
from commands import Shell
from contract.compared_models import compared, table
from contract.table import cell

Train = Callable[..., LoadedModel]


@pytest.fixture
def train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Train:
    """Train a model of a table, its last column the target."""
    bilens = Shell(capsys, monkeypatch)

    def trained(name: str, frame: pd.DataFrame) -> LoadedModel:
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        line = ("train", "table", tmp_path / f"{name}.csv", "--target", frame.columns[-1])
        line += ("--column-scale", "standard")
        assert bilens(*line, "--out", tmp_path / name).code == 0
        return bl.load(tmp_path / name)

    return trained


def rows_of(model: LoadedModel) -> Path:
    return Path(model.source, "test.csv")


def outcomes(found: dict[str, Any]) -> dict[str, str]:
    return {one["rule"]: one["outcome"] for one in found["verdict"]}


def measured(count: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    a, b = np.round(rng.normal(10, 3, count), 2), np.round(rng.normal(50, 9, count), 1)
    y = 2 * a + 0.1 * b + a * b / 50 + 0.3 * rng.normal(size=count) + 5
    return pd.DataFrame({"a": a, "b": b, "out": np.round(y, 3)})


@cell("compare", "other units", "other names")
def test_a_target_in_another_unit_is_converted_or_refused(train: Train) -> None:
    frame = measured()
    heavy = train("kg", frame.assign(out=[f"{y:.3f} kg" for y in frame.out]))
    light = train("g", frame.assign(out=[f"{1000 * y:.0f} g" for y in frame.out]))
    for model, baseline in ((heavy, light), (light, heavy)):
        found = compared(model, baseline, rows_of(model))
        changes = found["column_changes"]
        assert changes["change"] < 1e-6
        assert (changes["rows"] > 0, changes["changed"], changes["examples"]) == (True, 0, [])
        assert found["difference"]["layers"][0]["change"] < 1e-6
        assert [one["kind"] for one in found["difference"]["aligned"]] == ["units"]
    late = train("h", frame.assign(out=[f"{y:.3f} h" for y in frame.out]))
    found = compared(heavy, late, rows_of(heavy))
    assert (found["column_changes"]["change"], found["column_changes"]["rows"]) == (None, 0)
    assert "kg" in found["difference"]["layers"][0]["refused"]
    other = train("profit", frame.rename(columns={"out": "profit"}))
    report = bl.audit(train("plain", frame), baseline=other)
    assert (
        "The model predicts another target than the baseline: profit → out" in report.to_markdown()
    )
    aligned = report.to_dict()["difference"]["aligned"]
    assert aligned == [{"kind": "target", "names": ["profit → out"]}]


@cell("compare", "other names")
def test_classes_are_matched_as_labels_are(train: Train) -> None:
    frame = measured()
    frame["out"] = pd.qcut(frame.out, 3, labels=["low", "mid", "high"]).astype(str)
    model = train("low", frame)
    for name, written in (("upper", str.upper), ("wide", lambda text: f" {text}  ")):
        found = compared(
            model, train(name, frame.assign(out=frame.out.map(written))), rows_of(model)
        )
        changes = found["column_changes"]
        assert changes["other_outputs"] == []
        assert [changes[key] for key in ("changed", "mended", "broken")] == [0, 0, 0]
    for last, rows in (("top", len(pd.read_csv(rows_of(model)))), ("3 of 3", 0)):
        read = {"low": "1 of 3" if rows == 0 else "LOW", "mid": "2 of 3", "high": last}
        other = train(last, frame.assign(out=frame.out.map(read)))
        report = bl.audit(model, rows_of(model), baseline=other)
        changes = report.to_dict()["column_changes"]
        assert [changes[key] for key in ("rows", "mended", "broken")] == [rows, None, None]
        said = "It is not known how many of them were right" in report.to_markdown()
        assert said == (rows > 0)  # of classes none of which is in both, no row is compared


@cell("compare", "other names", "other function")
def test_answers_are_right_or_wrong_by_the_classes_of_the_model(train: Train) -> None:
    rng, frame = np.random.default_rng(0), measured()
    frame["out"] = pd.qcut(frame.out, 3, labels=["low", "mid", "high"]).astype(str)
    model = train("plain", frame)
    odd = frame.assign(out=np.where(rng.random(len(frame)) < 0.3, "low", frame.out))
    baseline = train("odd", odd.assign(out=odd.out.str.upper()))
    found = compared(model, baseline, rows_of(model))["column_changes"]
    rows = pd.read_csv(rows_of(model))
    x = torch.from_numpy(rows[["a", "b"]].to_numpy(np.float64, copy=True))
    after, before = (
        [(one.output_names or ())[at].lower() for at in exact_layer(one).double()(x).argmax(dim=1)]
        for one in (model, baseline)
    )
    moved = [at for at in range(len(rows)) if after[at] != before[at]]
    assert found["changed"] == len(moved) > 0
    assert found["mended"] == sum(after[at] == rows.out[at] for at in moved)
    assert found["broken"] == sum(before[at] == rows.out[at] for at in moved)


@cell("compare", "other units")
def test_the_indicator_of_a_missing_number_has_no_unit() -> None:
    model = table(2, input_names=("mass", "mass=(missing)", "age", "dose"))
    kilo, gram = (
        dataclasses.replace(model, provenance={"reading": json_text(TableReading(columns, ()))})
        for unit in ("kg", "g")
        for columns in [
            (
                TableColumn("mass", "number", ("mass", "mass=(missing)"), unit),
                TableColumn("age", "number", ("age",)),
                TableColumn("dose", "number", ("dose",)),
            )
        ]
    )
    (note,) = compared(kilo, gram)["difference"]["aligned"]
    assert note == {"kind": "units", "names": ["mass (g → kg)"]}


@cell("compare", "other names", "other function")
def test_days_are_counted_from_one_day_in_both_models(train: Train) -> None:
    rng = np.random.default_rng(3)
    days = np.sort(rng.integers(0, 700, 150))
    a = np.round(rng.normal(10, 3, 150), 2)
    y = 3 * a + 0.05 * days + 0.004 * days * (a - 10) + rng.normal(size=150)
    dates = (pd.Timestamp("2021-06-15") + pd.to_timedelta(days, "D")).strftime("%Y-%m-%d")
    frame = pd.DataFrame({"day": dates, "a": a, "y": np.round(y, 3)})
    first = pd.DataFrame([{"day": "2020-06-15", "a": 10.0, "y": 11.75}])
    model, baseline = train("late", frame), train("early", pd.concat([first, frame]))
    found = compared(model, baseline, rows_of(model))
    changes = found["column_changes"]
    assert (changes["added"], changes["removed"]) == ([], [])
    assert outcomes(found)["changed_columns"] == "pass"
    assert changes["rows"] == len(pd.read_csv(rows_of(model)))
    names = [(one.input_names or ()) for one in (model, baseline)]
    at = next(at for at, name in enumerate(names[0]) if "days since" in name)
    starts = [pd.Timestamp(of[at].rpartition(" ")[2]) for of in names]
    mean, scale = (torch.tensor(part) for part in (model.input_mean, model.input_scale))
    z = torch.randn(200_000, len(mean), generator=torch.Generator().manual_seed(0))
    x = z.double() * scale + mean
    theirs = x.clone()
    theirs[:, at] += (starts[0] - starts[1]).days
    after, before = (
        exact_layer(one).double()(rows)[:, 0].detach()
        for one, rows in ((model, x), (baseline, theirs))
    )
    truth = float((after - before).square().mean().sqrt() / before.std())
    assert changes["change"] == pytest.approx(truth, rel=0.05)
    unread = compared(model, dataclasses.replace(baseline, provenance={}))["column_changes"]
    assert unread["added"]  # nothing says that these inputs are days


@cell("audit", "other function")
def test_a_text_never_seen_is_told_where_rare_ones_share_an_input(
    train: Train, tmp_path: Path
) -> None:
    rng = np.random.default_rng(5)
    texts = [f"k{at:02d}" for at in range(19)] * 8 + ["ra", "Rb", "rc", "rd"] * 3
    c = rng.permutation(np.array(texts))
    a = np.round(rng.normal(10, 3, len(c)), 2)
    noise = 0.1 * rng.normal(size=len(c))
    y = np.round(1.5 * a + np.char.startswith(np.char.lower(c), "r") * 5 + noise, 3)
    model = train("a", pd.DataFrame({"c": c, "a": a, "y": y}))
    assert "c=(other)" in (model.input_names or ())

    def told(c: list[str], model: LoadedModel = model) -> Any:
        rows = pd.DataFrame({"c": c, "a": a[: len(c)], "y": y[: len(c)]})
        rows.to_csv(tmp_path / "new.csv", index=False)
        found = bl.audit(model, tmp_path / "new.csv", command="here").to_dict()
        (rule,) = [one for one in found["verdict"] if one["rule"] == "unseen_categories"] or [None]
        return rule and (rule["outcome"], rule["values"]["value"])

    assert told(["ra", "RB ", "rc", "k01", "k02"]) == ("pass", 0)
    assert told(["ra", "never", "again", "k01", "k02"]) == ("warn", 2)
    reading = json.loads(model.provenance["reading"])
    for column in reading["columns"]:
        del column["merged"]
    before = dataclasses.replace(model, provenance={"reading": json.dumps(reading)})
    assert told(["ra", "never", "again", "k01", "k02"], before) is None
