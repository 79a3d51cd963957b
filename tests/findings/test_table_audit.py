"""The audit of a model with named columns: right whatever the units of the columns are."""

import dataclasses

import pytest
import torch

from bilens.base.errors import NonFiniteError, ShapeError
from bilens.findings.table_audit import LabelledRows, NamedColumns, audit_columns
from bilens.nn import BilinearClassifier
from table_documents import fitted


def columns_of(classes: int) -> tuple[BilinearClassifier, NamedColumns, torch.Tensor, torch.Tensor]:
    model, x, target = fitted(classes)
    assert isinstance(model.module, BilinearClassifier)
    assert model.input_names is not None
    assert model.output_names is not None
    mean, scale = torch.tensor([model.input_mean, model.input_scale], dtype=torch.float64)
    return model.module, NamedColumns(model.input_names, model.output_names, mean, scale), x, target


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_the_effects_rebuild_the_outputs(classes: int) -> None:
    module, columns, x, target = columns_of(classes)
    found = audit_columns(module, columns, LabelledRows(x, target))
    assert found.passed
    assert columns.mean is not None
    assert columns.scale is not None
    z = (x - columns.mean) / columns.scale
    scores = module(x).detach()
    scores = scores - scores.mean(dim=1, keepdim=True) if classes > 1 else scores
    for place, item in enumerate(found.outputs):
        assert item.num_pairs == 78
        parts = [one.linear * z[:, one.column] for one in item.columns]
        parts += [one.square * z[:, one.column] ** 2 for one in item.columns]
        rest = scores[:, place] - item.constant - torch.stack(parts).sum(dim=0)
        listed = sum(p.coefficient * z[:, p.first] * z[:, p.second] for p in item.pairs)
        assert float((rest - listed).abs().max()) < float(rest.abs().max())
    for row in found.rows:
        torch.testing.assert_close(torch.tensor(row.scores).double(), scores[row.index])
        for part in row.attributions:
            change = part.score - part.score_at_baseline
            assert sum(part.values) == pytest.approx(change)


def test_the_planted_pair_is_the_strongest() -> None:
    module, columns, x, target = columns_of(1)
    (output,) = audit_columns(module, columns, LabelledRows(x, target)).outputs
    assert (output.pairs[0].first, output.pairs[0].second) == (1, 2)
    assert output.columns[0].column == 0
    assert output.pair_share > 0.1


def test_columns_in_another_unit_are_the_same_columns() -> None:
    """Metres for kilometres change the model's weights and none of the coefficients."""
    module, columns, x, target = columns_of(3)
    assert columns.scale is not None
    assert columns.mean is not None
    other = BilinearClassifier(13, module.embed.out_features, 3, bias=True).double()
    other.load_state_dict(module.state_dict())
    with torch.no_grad():
        other.embed.weight[:, 0] /= 1000
    unit = torch.ones(13, dtype=torch.float64)
    unit[0] = 1000
    changed = dataclasses.replace(columns, mean=columns.mean * unit, scale=columns.scale * unit)
    first = audit_columns(module, columns, LabelledRows(x, target))
    second = audit_columns(other, changed, LabelledRows(x * unit, target))
    for one, two in zip(first.outputs, second.outputs, strict=True):
        assert [p.column for p in one.columns] == [p.column for p in two.columns]
        assert [p.linear for p in one.columns] == pytest.approx([p.linear for p in two.columns])
        assert one.pairs[0].coefficient == pytest.approx(two.pairs[0].coefficient)


def test_without_answers_the_first_rows_are_taken_apart() -> None:
    module, columns, x, _ = columns_of(3)
    found = audit_columns(module, columns, LabelledRows(x, None))
    assert found.score is None
    assert [(row.kind, row.index) for row in found.rows] == [("first", i) for i in range(3)]
    assert audit_columns(module, columns, None).rows == ()


def test_rows_that_the_model_has_seen_are_a_caution() -> None:
    module, columns, x, target = columns_of(3)
    found = audit_columns(module, columns, LabelledRows(x, target, seen=True))
    assert ("seen_rows", "warn") in [(item.rule, item.outcome) for item in found.verdict]


def test_rows_that_do_not_fit_are_refused() -> None:
    module, columns, x, target = columns_of(3)
    for rows in (
        LabelledRows(x[:, 1:], target),
        LabelledRows(x, target.double()),
        LabelledRows(x, target + 1),
        LabelledRows(x, target[1:]),
    ):
        with pytest.raises(ShapeError):
            audit_columns(module, columns, rows)
    with pytest.raises(NonFiniteError):
        audit_columns(module, columns, LabelledRows(x / 0, target))
