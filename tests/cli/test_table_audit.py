"""The audit of a table's model: beside a baseline, and on rows that it was trained on.

Damage seen to fail: coefficients of the baseline in its own units; columns matched by place.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import bilens as bl
from bilens.base.errors import UsageError
from bilens.findings.table_difference import mean_square
from bilens.io.loaded_model import LoadedModel
from bilens.report.reports import AuditReport
from commands import Shell
from table_documents import fitted


def audited(model: LoadedModel, data: Any = None, baseline: Any = None, **more: Any) -> AuditReport:
    return bl.audit(model, data, baseline=baseline, **more)


def changes(model: LoadedModel, baseline: Any, data: Any = None) -> Any:
    found = audited(model, data, baseline).record.column_changes
    assert found is not None
    return found


def raised(model: LoadedModel, by: float = 0.5) -> LoadedModel:
    """A model of the same columns whose first output answers more to the third column."""
    other = bl.nn.BilinearClassifier(13, model.module.embed.out_features, 1, bias=True).double()
    other.load_state_dict(model.module.state_dict())
    with torch.no_grad():
        other.head.weight.mul_(1 + by)
    return replace(model, module=other)


def test_the_coefficients_that_changed_are_those_of_the_formulas() -> None:
    model, x, target = fitted(1)
    (usual,) = audited(model).record.columns.outputs
    before = {one.column: one for one in usual.columns}
    found = changes(raised(model), model, (x, target))
    (output,) = found.outputs
    for one in output.columns:  # half of each, as far as the constant in the units allows
        assert one.square == pytest.approx(before[one.column].square / 2)
    assert found.change == pytest.approx(0.5 * (mean_square(usual) / usual.variance) ** 0.5)
    assert (found.rows, found.changed > 0, found.mended) == (60, True, None)


def test_a_shift_of_every_answer_is_a_change() -> None:
    """Broken once: the outputs of a model of y + 50 had changed by 0.0 %."""
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(200, 3)), 0.1 * rng.normal(size=200)
    y = x[:, 0] + x[:, 1] * x[:, 2] + noise
    before, after = (bl.sklearn.BilinearRegressor().fit(x, y + by) for by in (0, 50))
    report = bl.audit(after, baseline=before)
    found = report.record.column_changes
    assert found.outputs[0].constant == pytest.approx(50)
    assert found.change == pytest.approx(50 / y.std(), rel=0.1)
    assert (
        "largest changes of coefficients (model − baseline): constant +50.0,"
        in report.to_markdown()
    )


def test_a_model_beside_itself_and_beside_one_of_other_units() -> None:
    model, x, target = fitted(3)
    same = changes(model, model, (x, target))
    assert (same.change, same.changed, same.examples) == (pytest.approx(0), 0, ())
    assert same.outputs == ()
    scale = tuple(2 * value for value in model.input_scale or ())
    assert changes(model, replace(model, input_scale=scale)).change == pytest.approx(0)


def test_columns_are_matched_by_name_and_by_nothing_else() -> None:
    model, x, target = fitted(3)
    names = [*(model.input_names or ())]
    other = replace(model, input_names=("width", *names[1:]))
    found = changes(model, other, (x, target))
    assert (found.added, found.removed) == ((names[0],), ("width",))
    assert found.renamed == (("width", names[0]),)  # perhaps: mean and deviation are equal
    assert (found.changed, found.rows) == (0, 0)  # no row is known to hold its width
    order = list(reversed(range(13)))  # the same function of the same columns in another order
    turned = bl.nn.BilinearClassifier(13, model.module.embed.out_features, 3, bias=True).double()
    state = {**model.module.state_dict()}
    state["embed.weight"] = state["embed.weight"][:, order]
    turned.load_state_dict(state)
    mean, scale = ([one[at] for at in order] for one in (model.input_mean, model.input_scale))
    units = {"input_mean": tuple(mean), "input_scale": tuple(scale)}
    turned_model = replace(
        model, module=turned, input_names=tuple(names[at] for at in order), **units
    )
    found = changes(model, turned_model, (x, target))
    assert (found.change, found.changed) == (pytest.approx(0), 0)


def test_a_baseline_without_columns_is_said_to_have_none() -> None:
    model, x, target = fitted(3)
    found = changes(model, replace(model, input_names=None), (x, target))
    assert (len(found.added), found.outputs, found.rows) == (13, (), 0)


def test_the_rules_on_columns_stand_beside_a_baseline(table: Callable[..., Path]) -> None:
    model, other = bl.load(table("a")), bl.load(table("b", drop=("z",)))
    held_out = Path(model.source) / "test.csv"
    report = audited(model, held_out, other)
    rules = {one.rule: one.outcome for one in report.record.verdict}
    assert {"leak", "identifier", "dominant", "changed_tensors"} <= {*rules}
    assert "dead_units" not in rules
    assert rules["changed_columns"] == "warn"
    found = report.record.column_changes
    assert found is not None
    assert (found.added, found.removed, found.rows) == (("z",), (), 40)
    back = audited(other, held_out, model).record.column_changes  # z is read from the table
    assert back is not None
    assert (back.removed, back.rows, back.changed) == (("z",), 40, found.changed)
    text = report.to_markdown()
    assert "In the model alone: z." in text
    assert 'id="difference"' in report.to_html()


@pytest.fixture
def table(tmp_path: Path, bilens: Shell) -> Callable[..., Path]:
    folder = tmp_path
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(200, 3)), columns=["x", "y", "z"])
    frame["kind"] = np.where(frame.x + frame.y * frame.z + rng.normal(size=200) > 0, "yes", "no")
    frame.to_csv(folder / "all.csv", index=False)

    def trained(name: str, drop: tuple[str, ...] = ()) -> Path:
        options = [part for column in drop for part in ("--drop", column)]
        line = ("train", "table", folder / "all.csv", "--target", "kind", "--out", folder / name)
        bilens(*line, *options)
        return folder / name

    return trained


def test_rows_of_the_training_are_known_again(table: Callable[..., Path], tmp_path: Path) -> None:
    folder = table("known")
    model, whole = bl.load(folder), pd.read_csv(folder.parent / "all.csv")
    held_out = pd.read_csv(folder / "test.csv")
    answers = [*held_out.kind]
    trained = whole[~whole.x.isin(held_out.x)]
    cases = {"all": trained, "partly": pd.concat([trained[:30], held_out]), "": held_out}
    for seen, rows in cases.items():
        rows.sample(frac=1, random_state=1).to_csv(tmp_path / "rows.csv", index=False)
        report = audited(model, tmp_path / "rows.csv")
        found = report.record.performance
        assert found is not None
        assert (found.rows_seen, found.trained) == (seen, {"all": 160, "partly": 30, "": 0}[seen])
        report.to_evidence(tmp_path / f"evidence{seen}")
        card = (tmp_path / f"evidence{seen}" / "model-card.md").read_text()
        assert ("training rows" in card.split("---")[1]) == bool(seen)
    assert len(answers) == 40
    unknown = {key: value for key, value in model.provenance.items() if key != "training_rows"}
    old = replace(model, provenance=unknown)  # known by its file
    found = audited(old, folder.parent / "all.csv").record.performance
    assert found is not None
    assert found.rows_seen == "all"


def test_labels_in_memory_are_values_where_classes_are_numbers() -> None:
    model, x, target = fitted(3)
    numbered = replace(model, output_names=("3", "5", "7"))
    told = audited(numbered, (x, 2 * target + 3)).record.performance
    plain = audited(model, (x, target)).record.performance
    assert told is not None
    assert plain is not None
    assert told.classification is not None
    assert plain.classification is not None
    assert told.classification.accuracy == plain.classification.accuracy
    with pytest.raises(Exception, match="which label is which class is not known"):
        audited(numbered, (x, target))
    with pytest.raises(UsageError, match=r"labels is a Tensor; .* data=\(inputs, labels\)"):
        audited(model, x, labels=target)
