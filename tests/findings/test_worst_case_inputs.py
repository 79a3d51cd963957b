"""The loudest values of a table, against a fine grid, and a trigger that was planted in one."""

import pytest
import torch

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.findings import table_audit as module
from bilens.findings.table_audit import REACH, largest_of_two, worst_case_inputs
from bilens.sklearn import BilinearClassifier

GRID = torch.linspace(-REACH, REACH, 241, dtype=torch.float64)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("lift", [-3.0, 0.0, 3.0])
def test_no_place_of_a_grid_is_higher(lift: float) -> None:
    """Hills, saddles and bowls, by what is added to the squares."""
    linear_i, linear_j, square_i, square_j, cross = random(5, 200)
    square_i, square_j = square_i + lift, square_j + lift
    parts = (linear_i, square_i, linear_j, square_j, cross)
    gain, z_i, z_j = largest_of_two(*parts)

    def value(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return linear_i * x + linear_j * y + square_i * x**2 + square_j * y**2 + 2 * cross * x * y

    torch.testing.assert_close(value(z_i, z_j), gain)
    x, y = (axis.reshape(-1, 1) for axis in torch.meshgrid(GRID, GRID, indexing="ij"))
    highest = value(x, y).amax(dim=0)
    assert bool((gain >= highest - 1e-9).all())
    torch.testing.assert_close(gain, highest, rtol=0, atol=0.02)


def test_every_column_and_pair_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 2 * 8 * module.ARRAYS * 5)  # two rows at a time
    f = QuadraticMap(BilinearTensor(random(3, 6), random(6, 5), random(6, 5, seed=1)), random(3, 5))
    for item in worst_case_inputs(f):
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
    assert [item.two for item in worst_case_inputs(f)] == [None, None]


def test_a_planted_pair_of_values_stands_out() -> None:
    """Class 2 wherever columns 4 and 7 are both high, in 3 % of the rows; else by chance."""
    x = random(1500, 10)
    y = torch.randint(3, (1500,), generator=torch.Generator().manual_seed(3))
    x[:45, [4, 7]] = 2.5
    y[:45] = 2
    report = BilinearClassifier().fit(x.numpy(), y.numpy()).report().to_dict()
    effects = [item["two"]["effect"] for item in report["worst_case_inputs"]]
    assert report["worst_case_inputs"][2]["two"]["columns"] == [4, 7]
    assert effects[2] > 1.5 * max(effects[:2])
