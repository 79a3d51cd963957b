"""‖Q‖_F² of balanced forms, with a bound on its rounding that a proof can rest on."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.eigen.balance import BalancedForms
from bilens.algebra.gram.squared_norms import squared_norm_rounding, squared_norms

UNCERTAIN = 1e-6  # of ‖Q‖²: a larger rounding bound is worth another look at the form
COLUMNS = 128  # of Q at a time, where it is looked at
EPS = torch.finfo(torch.float64).eps


def masses(forms: BalancedForms) -> tuple[Tensor, Tensor]:
    """Return ‖Q_c‖_F² in balanced units and how far each can be off by rounding, (num,) each.

    From the Gram matrix of the hidden units, for all forms together. Where neurons cancel, so
    that Q is far smaller than its terms, that is rounding; such a form is measured column by
    column instead, where only the square root of the cancelling is lost.

    Cost: O(hidden² · (in + num)), and 8 · hidden · in² operations for each form that cancels;
        no (in, in) array.
    """
    mass = squared_norms(forms.weights, forms.left, forms.right)
    error = squared_norm_rounding(forms.weights, forms.left, forms.right)
    summed = summing_error(forms)  # of the weights themselves
    error = error + 2 * mass.sqrt() * summed + summed.square()
    for index in (error > UNCERTAIN * mass).nonzero()[:, 0].tolist():
        mass[index], error[index] = mass_of_columns(forms.rows(slice(index, index + 1)))
    return mass, error


def mass_of_columns(form: BalancedForms) -> tuple[Tensor, Tensor]:
    """Return ‖Q‖_F² of one form from its columns, and how far it can be off.

    Math: each column sums 2 · hidden products, so that the array is off by at most
        e = eps · (hidden + in + 16) · Σ|w| in Frobenius norm, and its square by 2‖Q‖e + e²;
        adding the squares up is off by eps · in of them at most.
    """
    d_in = form.d_in
    total = form.weights.new_zeros(())
    for start in range(0, d_in, COLUMNS):
        axes = torch.arange(start, min(start + COLUMNS, d_in))
        unit = (axes[:, None] == torch.arange(d_in)).double()
        total += form.products(unit[None]).square().sum()
    off = most_rounding(form)[0] + summing_error(form)[0]
    return total, 2 * total.sqrt() * off + off.square() + EPS * COLUMNS * d_in * total


def most_rounding(forms: BalancedForms) -> Tensor:
    """Return how far Qv of a unit vector, or Q as an array, can be off at worst, (num,)."""
    return EPS * (len(forms.left) + forms.d_in + 16) * forms.sizes_before_cancelling


def summing_error(forms: BalancedForms) -> Tensor:
    """Return how far Q can be off because its weights are rounded sums of products, (num,)."""
    lost = forms.sizes_before_cancelling - forms.weights.abs().sum(dim=1)
    return EPS * (forms.summed + 2) * torch.where(lost > 0, forms.sizes_before_cancelling, 0.0)
