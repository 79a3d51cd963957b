"""‖Q‖² of forms whose neurons cancel, and a bound that holds."""

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.eigen.proofs import norms_with_error, worst_rounding
from bilens.algebra.eigen.solver import balance_all
from bilens.algebra.gram.inner_products import squared_norms
from bilens.algebra.quadratic_map import QuadraticMap
from builders import randn


def cancelling(size: float) -> tuple[Tensor, Tensor, Tensor]:
    """Neurons in pairs (l, r, 1) and (3l, r/3, −1 + size · noise): Q is `size` of its terms.

    The factor is no power of two, so that the terms of a pair are not rounded alike.
    """
    left, right = randn(8, 6, seed=1), randn(8, 6, seed=2)
    noise = randn(3, 8, seed=3)
    weights = torch.cat([torch.ones(3, 8).double(), size * noise - 1], dim=1)
    return torch.cat([left, 3 * left]), torch.cat([right, right / 3]), weights


def exact(left: Tensor, right: Tensor, weight: Tensor) -> Fraction:
    """‖Q‖² in rational arithmetic, of the numbers as they stand."""
    rows = [[[Fraction(x) for x in row] for row in part.tolist()] for part in (left, right)]
    scale = [Fraction(x) for x in weight.tolist()]
    d_in, hidden = left.shape[1], len(scale)
    total = Fraction(0)
    for i in range(d_in):
        for j in range(d_in):
            terms = (
                scale[h] * (rows[0][h][i] * rows[1][h][j] + rows[0][h][j] * rows[1][h][i])
                for h in range(hidden)
            )
            total += (sum(terms, Fraction(0)) / 2) ** 2
    return total


@pytest.mark.parametrize("size", [1.0, 1e-4, 1e-8, 1e-10, 1e-13, 0.0])
def test_the_bound_holds_whatever_cancels(size: float) -> None:
    forms = balance_all(*cancelling(size))
    mass, error = norms_with_error(forms)
    for index in range(3):
        true = exact(forms.left, forms.right, forms.weights[index])
        assert abs(Fraction(float(mass[index])) - true) <= Fraction(float(error[index]))


def test_the_worst_rounding_is_what_its_formula_says() -> None:
    """16 units and 6 inputs: (16 + 6 + 16) ε Σ|s_h|‖l_h‖‖r_h‖."""
    forms = balance_all(*cancelling(1.0))
    expected = 38 * 2.0**-52 * forms.sizes_before_cancelling
    torch.testing.assert_close(worst_rounding(forms), expected, rtol=1e-12, atol=0)


def test_a_norm_that_the_gram_matrix_cannot_tell_is_told() -> None:
    forms = balance_all(*cancelling(1e-10))
    true = torch.tensor(
        [float(exact(forms.left, forms.right, weight)) for weight in forms.weights]
    ).double()
    torch.testing.assert_close(norms_with_error(forms)[0], true, rtol=1e-4, atol=0)
    blind = squared_norms(forms.weights, forms.left, forms.right)
    assert float(((blind - true).abs() / true).min()) > 0.1  # why the second look is needed


def test_shares_of_a_form_that_cancels_are_those_of_a_dense_solver() -> None:
    left, right, weights = cancelling(1e-9)
    f = QuadraticMap(BilinearTensor(weights, left, right))
    dense = eigendecompose_all(f, k=2, method="dense")
    lanczos = eigendecompose_all(f, k=2, method="lanczos")
    torch.testing.assert_close(lanczos.explained, dense.explained, rtol=1e-4, atol=0)
    torch.testing.assert_close(
        lanczos.frobenius_squared, dense.frobenius_squared, rtol=1e-4, atol=0
    )


def test_what_the_norm_in_float32_leaves_open_the_norm_in_float64_decides() -> None:
    """λ = 1, 0.8, 0.79999: ‖Q‖² − 1 − 0.64 is below 0.64 by less than the bound in float32."""
    turn = torch.linalg.qr(randn(200, 200, seed=1)).Q.float()
    values = torch.tensor([[1.0, 0.8, 0.79999]] * 3).double()
    f = QuadraticMap(BilinearTensor(values.float(), turn[:3], turn[:3]))
    left = torch.cat([f.tensor.left] * 40)  # enough hidden units for the Gram matrix to be cheaper
    down = torch.cat([f.tensor.down / 40] * 40, dim=1)
    f = QuadraticMap(BilinearTensor(down.repeat(30, 1), left, left))
    forms = balance_all(left, left, f.tensor.down.double())
    rough, error = norms_with_error(forms, in_float32=True)
    fine, exact = norms_with_error(forms)
    assert bool((fine + error - 1 > 2 * 0.64).all())
    assert bool(((rough - fine).abs() <= error + exact).all())
    eigs = eigendecompose_all(f, k=2, method="lanczos", precision="float32")
    assert bool(eigs.complete.all())
