"""Models with named columns: effects, worst-case inputs, and rows, whatever the units are."""

import dataclasses

import pytest
import torch

from bilens.algebra import attribution
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.data.model_interface import LabelledData
from bilens.findings import column_effects
from bilens.findings.column_effects import (
    REACH,
    ExactTable,
    exact_layer,
    largest_of_two,
    output_effects,
    units_of,
    worst_case_inputs,
)
from bilens.findings.subject import gauge_free
from bilens.io.loaded_model import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.records.common import DataOrigin
from bilens.sklearn import BilinearClassifier as Estimator
from table_documents import fitted


def table_of(classes: int) -> tuple[LoadedModel, LabelledData]:
    model, x, target = fitted(classes)
    return model, LabelledData(x, target, DataOrigin("", "here", "tensors", len(x), ""))


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_the_effects_rebuild_the_outputs(classes: int) -> None:
    model, rows = table_of(classes)
    found, x = ExactTable(model, rows).read_columns(), rows.inputs
    assert all(one.passed for one in ExactTable(model).exactness)
    mean, scale = units_of(model).T
    scores, z = exact_layer(model)(x).detach(), (x - mean) / scale
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
    model, rows = table_of(1)
    (output,) = ExactTable(model, rows).read_columns().outputs
    assert (output.pairs[0].first, output.pairs[0].second) == (1, 2)
    assert output.columns[0].column == 0
    assert output.pair_share > 0.1


def test_columns_in_another_unit_are_the_same_columns() -> None:
    """Metres for kilometres change the model's weights and none of the coefficients."""
    model, rows = table_of(3)
    module = exact_layer(model)
    other = BilinearClassifier(13, module.embed.out_features, 3, bias=True).double()
    other.load_state_dict(module.state_dict())
    with torch.no_grad():
        other.embed.weight[:, 0] /= 1000
    unit = torch.ones(13, dtype=torch.float64)
    unit[0] = 1000
    mean, scale = ((unit * part).tolist() for part in units_of(model).T)
    units = {"input_mean": tuple(mean), "input_scale": tuple(scale)}
    changed = dataclasses.replace(model, module=other, **units)
    first = ExactTable(model, rows).read_columns()
    scaled = dataclasses.replace(rows, inputs=rows.inputs * unit)
    second = ExactTable(changed, scaled).read_columns()
    for one, two in zip(first.outputs, second.outputs, strict=True):
        assert [p.column for p in one.columns] == [p.column for p in two.columns]
        assert [p.linear for p in one.columns] == pytest.approx([p.linear for p in two.columns])
        assert one.pairs[0].coefficient == pytest.approx(two.pairs[0].coefficient)


def test_without_answers_the_first_rows_are_taken_apart() -> None:
    model, rows = table_of(3)
    found = ExactTable(model, dataclasses.replace(rows, targets=None)).read_columns()
    assert [(row.kind, row.index) for row in found.rows] == [("first", i) for i in range(3)]
    assert ExactTable(model).read_columns().rows == ()


def some_map(d_out: int) -> QuadraticMap:
    generator = torch.Generator().manual_seed(1)

    def factor(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tensor = BilinearTensor(factor(d_out, 6), factor(6, 5), factor(6, 5))
    return QuadraticMap(tensor, factor(d_out, 5), factor(d_out))


@pytest.mark.parametrize("d_out", [1, 3])
def test_they_are_the_entries_of_the_form(d_out: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribution, "BLOCK_BYTES", 2 * 32 * 5)  # two rows at a time
    f = some_map(d_out)
    names = tuple("abc"[:d_out])
    for item in output_effects(gauge_free(f), names, num_pairs=4):
        direction = torch.full((d_out,), -1 / d_out if d_out > 1 else 0.0, dtype=torch.float64)
        direction[item.index] += 1
        form = f.form(direction)
        dense = form.dense()
        assert item.constant == pytest.approx(float(form.constant))
        for one in item.columns:
            assert one.linear == pytest.approx(float(form.linear[one.column]))
            assert one.square == pytest.approx(float(dense[one.column, one.column]))
        found = {(p.first, p.second): p.coefficient for p in item.pairs}
        every = {(i, j): 2 * float(dense[i, j]) for i in range(5) for j in range(i + 1, 5)}
        strongest = sorted(every, key=lambda pair: -abs(every[pair]))[:4]
        assert list(found) == strongest
        assert found == {pair: pytest.approx(every[pair]) for pair in strongest}
        assert item.num_pairs == 10


def test_the_sizes_add_up_to_the_variance_over_normal_columns() -> None:
    f = gauge_free(some_map(3))
    z = torch.randn(400_000, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    sampled = f(z).var(dim=0)
    for item in output_effects(f, ("a", "b", "c"), num_pairs=10):
        total = sum(one.size**2 for one in item.columns)
        total += sum(pair.coefficient**2 for pair in item.pairs)
        assert item.variance == pytest.approx(total)
        assert item.variance == pytest.approx(float(sampled[item.index]), rel=0.02)
        shares = (item.linear_share, item.square_share, item.pair_share)
        assert sum(shares) == pytest.approx(1.0)


ENDS = torch.tensor([-REACH, REACH], dtype=torch.float64)
GRID = torch.linspace(-REACH, REACH, 241, dtype=torch.float64)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("lift", [-3.0, 0.0, 3.0])
def test_no_place_of_a_grid_is_higher(lift: float) -> None:
    """Hills, saddles and bowls, by what is added to the squares."""
    linear_i, linear_j, square_i, square_j, cross = random(5, 200)
    square_i, square_j = square_i + lift, square_j + lift
    i, j = (linear_i, square_i, ENDS), (linear_j, square_j, ENDS)
    gain, z_i, z_j = largest_of_two(i, j, cross)

    def value(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return linear_i * x + linear_j * y + square_i * x**2 + square_j * y**2 + 2 * cross * x * y

    torch.testing.assert_close(value(z_i, z_j), gain)
    x, y = (axis.reshape(-1, 1) for axis in torch.meshgrid(GRID, GRID, indexing="ij"))
    highest = value(x, y).amax(dim=0)
    assert bool((gain >= highest - 1e-9).all())
    torch.testing.assert_close(gain, highest, rtol=0, atol=0.02)


def test_on_a_ridge_the_value_is_that_at_the_place_told() -> None:
    """l·(a·z) − (a·z)²; broken once: its determinant is rounding, and so was the peak told."""
    scale, first, second = random(3, 300)
    i, j = ((scale * each, -each.square(), ENDS) for each in (first, second))
    gain, z_i, z_j = largest_of_two(i, j, -first * second)
    along = first * z_i + second * z_j
    torch.testing.assert_close(gain, scale * along - along.square())
    reach = REACH * (first.abs() + second.abs())
    best = (scale / 2).clamp(-reach, reach)
    torch.testing.assert_close(gain, scale * best - best.square())


def test_every_column_and_pair_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        column_effects, "BLOCK_BYTES", 2 * 8 * column_effects.ARRAYS * 5
    )  # two rows at a time
    f = QuadraticMap(BilinearTensor(random(3, 6), random(6, 5), random(6, 5, seed=1)), random(3, 5))
    for item in worst_case_inputs(f, torch.arange(5), ENDS.expand(5, 2)):
        form = f.form(torch.eye(3, dtype=torch.float64)[item.output])
        singles, pairs = [], []
        for i in range(5):
            x = torch.zeros(len(GRID), 5, dtype=torch.float64)
            x[:, i] = GRID
            singles.append(float((form(x) - form.constant).max()))
            for j in range(i + 1, 5):
                x = torch.zeros(len(GRID), len(GRID), 5, dtype=torch.float64)
                x[..., i], x[..., j] = GRID[:, None], GRID
                pairs.append(float((form(x.reshape(-1, 5)) - form.constant).max()))
        assert item.two is not None
        assert item.one.effect == pytest.approx(max(singles), abs=0.02)
        assert item.two.effect == pytest.approx(max(pairs), abs=0.02)
        at = torch.zeros(5, dtype=torch.float64)
        at[[*item.two.columns]] = torch.tensor(item.two.z, dtype=torch.float64)
        assert float(form(at[None])[0] - form.constant) == pytest.approx(item.two.effect)


def test_one_column_has_no_pair() -> None:
    f = QuadraticMap(BilinearTensor(random(2, 3), random(3, 1), random(3, 1)))
    assert [item.two for item in worst_case_inputs(f, torch.arange(1), ENDS[None])] == [None, None]


def test_a_planted_pair_of_values_stands_out() -> None:
    """Class 2 wherever columns 4 and 7 are both high, in 3 % of the rows; else by chance."""
    x = random(1500, 10)
    y = torch.randint(3, (1500,), generator=torch.Generator().manual_seed(3))
    x[:45, [4, 7]] = 2.5
    y[:45] = 2
    report = Estimator(quadratic_scale=0.1).fit(x.numpy(), y.numpy()).report().to_dict()
    effects = [item["two"]["effect"] for item in report["columns"]["worst_case_inputs"]]
    assert report["columns"]["worst_case_inputs"][2]["two"]["columns"] == [4, 7]
    assert effects[2] > 1.5 * max(effects[:2])
