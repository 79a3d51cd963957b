"""The fit of a table: the minimum of what is said to be minimised, whichever way it is found."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bilens.base.errors import MemoryLimitError, NonFiniteError, UsageError
from bilens.train import table_fit
from bilens.train.newton import CrossEntropy, Loss, SquaredError
from bilens.train.table_choice import TableFit, fit_table
from bilens.train.table_fit import TableRecipe, expand, held_out_rows

USUAL = TableRecipe(alpha=3.0, column_scale="standard", quadratic_scale=0.3)


def problem(rows: int, columns: int, classes: int = 3) -> tuple[Tensor, Tensor, Loss]:
    generator = torch.Generator().manual_seed(rows * columns)
    x = torch.randn(rows, columns, generator=generator, dtype=torch.float64) * 5 + 20
    weights = torch.rand(rows, generator=generator, dtype=torch.float64) + 0.5
    labels = torch.randint(classes, (rows,), generator=generator)
    return x, weights, CrossEntropy(torch.nn.functional.one_hot(labels, classes).double())


def outputs(fit: TableFit, x: Tensor) -> Tensor:
    return fit.standard_map((x - fit.mean) / fit.scale)


def objective(parts: list[Tensor], z: Tensor, weights: Tensor, loss: Loss) -> Tensor:
    """The penalised loss of dense coefficients, as the recipe states it: a naive twin."""
    products, linear, constant = parts
    products = (products + products.transpose(1, 2)) / 2
    outputs = torch.einsum("ni,cij,nj->nc", z, products, z) + z @ linear.T + constant
    recipe = USUAL
    assert recipe.alpha is not None
    assert recipe.quadratic_scale is not None
    quadratic = z.shape[1] / recipe.quadratic_scale * products.square().sum()
    penalty = recipe.alpha * (linear.square().sum() + quadratic) / 2
    return weights @ loss.values(outputs) + penalty


@pytest.mark.parametrize("rows", [12, 60], ids=["more products", "more rows"])
@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_the_gradient_of_the_stated_problem_is_zero(rows: int, kind: str) -> None:
    x, weights, loss = problem(rows, 5)
    if kind == "numbers":
        loss = SquaredError(x[:, :1].square() / 100 + x[:, 1:2])
    fit = fit_table(x, loss, weights, USUAL)
    assert fit.converged
    f = fit.standard_map
    d_out = f.sizes.d_out
    dense = torch.stack([f.form(u).dense() for u in torch.eye(d_out, dtype=torch.float64)])
    assert f.linear is not None
    assert f.constant is not None
    parts = [part.clone().requires_grad_() for part in (dense, f.linear, f.constant)]
    z = (x - fit.mean) / fit.scale
    value = objective(parts, z, weights, loss)
    value.backward()  # type: ignore[no-untyped-call]
    for part in parts:
        assert part.grad is not None
        assert float(part.grad.abs().max()) < 1e-6 * float(value.detach())
    assert float(value.detach() / weights.sum()) == pytest.approx(fit.steps[-1].objective)


def test_classes_are_centred_and_two_of_them_are_one_form() -> None:
    x, weights, loss = problem(50, 4, classes=2)
    f = fit_table(x, loss, weights, USUAL).standard_map
    assert f.sizes == (2, 4, 4)
    assert float((f.tensor.down[0] + f.tensor.down[1]).abs().max()) < 1e-12


def test_the_squared_error_is_solved_in_one_step() -> None:
    x, weights, _ = problem(40, 4)
    fit = fit_table(x, SquaredError(x[:, :1] * x[:, 1:2]), weights, USUAL)
    assert len(fit.steps) == 2  # the second one finds the gradient at zero


def test_identical_rows_leave_the_constant() -> None:
    x = torch.ones(6, 3, dtype=torch.float64)
    target = torch.arange(6.0, dtype=torch.float64)[:, None]
    fit = fit_table(x, SquaredError(target), torch.ones(6, dtype=torch.float64), USUAL)
    torch.testing.assert_close(outputs(fit, x), torch.full((6, 1), 2.5, dtype=torch.float64))


def test_a_wide_table_is_fitted_by_way_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """3,000 columns took most of a minute, and 100,000 memory without an end."""
    x, weights, loss = problem(10, 40)
    recipe = replace(USUAL, n_components=5)
    expected = outputs(fit_table(x, loss, weights, recipe), x)
    monkeypatch.setattr(table_fit, "MANY_COLUMNS", 30)
    monkeypatch.setattr(torch.linalg, "eigh", lambda a, eigh=torch.linalg.eigh: small(a) or eigh(a))
    monkeypatch.setattr(torch, "diag", None)  # a matrix of columns by columns
    found = outputs(fit_table(x, loss, weights, recipe), x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    more = fit_table(x, loss, weights, USUAL).standard_map
    assert more.sizes.d_hidden <= 2 * 10  # there are no more directions than rows


def small(matrix: Tensor) -> None:
    """Fail where a decomposition is of a matrix as wide as the table."""
    assert matrix.shape[-1] < 40


@pytest.mark.parametrize("factor", [5e-324, 1e-310, 1e-120])
def test_a_column_that_hardly_varies_is_named(factor: float) -> None:
    x, weights, loss = problem(12, 3)
    x[:, 1] = factor * torch.arange(12).double()
    with pytest.raises(
        UsageError, match=r"column 1 .* varies by .* only; expected at least 1e-100"
    ):
        fit_table(x, loss, weights, USUAL)


def test_every_class_keeps_a_row_when_some_are_held_out() -> None:
    labels = torch.tensor([0] * 10 + [1] * 5 + [2])
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(2)).double()
    held_out = held_out_rows(x, labels, 0.3, torch.Generator().manual_seed(1))
    assert torch.bincount(labels[held_out], minlength=3).tolist() == [3, 2, 0]


def test_what_cannot_be_fitted_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weights, loss = problem(20, 3)
    with pytest.raises(UsageError, match="leave out rows that do not count"):
        fit_table(x, loss, torch.cat([0 * weights[:1], weights[1:]]), USUAL)
    broken = x.clone()
    broken[0, 0] = torch.inf
    with pytest.raises(NonFiniteError, match="x holds 1 non-finite"):
        fit_table(broken, loss, weights, USUAL)
    for options in ({"alpha": 0.0}, {"tol": float("nan")}, {"column_scale": "log"}):
        with pytest.raises(UsageError, match=next(iter(options))):
            TableRecipe(**options)  # type: ignore[arg-type]
    monkeypatch.setenv("BILENS_MEMORY_LIMIT", "1k")
    with pytest.raises(MemoryLimitError, match="n_components"):
        expand(x, weights, torch.eye(3, dtype=torch.float64), 1.0)
