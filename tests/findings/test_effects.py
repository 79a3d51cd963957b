"""Columns and pairs of a map, against the dense matrix and against sampled variances."""

import pytest
import torch

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.findings import table_audit as module
from bilens.findings.subject import gauge_free
from bilens.findings.table_audit import output_effects


def some_map(d_out: int) -> QuadraticMap:
    generator = torch.Generator().manual_seed(1)

    def factor(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tensor = BilinearTensor(factor(d_out, 6), factor(6, 5), factor(6, 5))
    return QuadraticMap(tensor, factor(d_out, 5), factor(d_out))


@pytest.mark.parametrize("d_out", [1, 3])
def test_they_are_the_entries_of_the_form(d_out: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 2 * 32 * 5)  # two rows at a time
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
