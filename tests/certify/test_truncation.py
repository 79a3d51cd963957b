"""Truncation bounds: never exceeded, reached where they say so, refused where nothing is proven.

E = Q − Q_k is formed as an array from the factors and the kept pairs. BILENS_TEST_INPUTS sets how
many inputs each form sees (default 1,000,000)."""

import os
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.directions import centred_directions
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose, eigendecompose_all
from bilens.algebra.gaussian import gaussian_moments
from bilens.algebra.quadratic_form import InteractionMatrix, QuadraticForm
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import NonFiniteError, NumericalError, ShapeError, UsageError
from bilens.certify.spectrum_enclosure import enclose_spectrum
from bilens.certify.truncated_agreement import certified_agreement
from bilens.certify.truncation import (
    frobenius_bound,
    smallest_k,
    truncated_input_bound,
    truncation_error,
    truncation_moments,
)
from builders import form_from_pairs, form_of, randn, random_map, rotation, seeded, vector
from hostile_forms import FAMILIES, Dice

INPUTS = int(os.environ.get("BILENS_TEST_INPUTS", "1000000"))
CHUNK = 100_000


def dense_of(form: QuadraticForm) -> Tensor:
    matrix = form.matrix.to(torch.float64)
    return oracles.dense_weighted(matrix.left, matrix.right, matrix.weight)


def error_of(form: QuadraticForm, eig: EigenDecomposition, k: int) -> Tensor:
    """E = Q − Σ_{i≤k} λ_i v_i v_iᵀ as an array."""
    v = eig.eigenvectors[:k]
    return dense_of(form) - (v.T * eig.eigenvalues[:k]) @ v


def cancelling() -> QuadraticForm:
    """Neurons 1e6 times larger than what is left of them."""
    big, q = randn(1, 7, seed=5), form_of(randn(7, 7, seed=6))
    return QuadraticForm(
        InteractionMatrix(
            torch.cat([q.matrix.left, big, big]),
            torch.cat([q.matrix.right, big, big]),
            torch.cat([q.matrix.weight, vector(1e6, -1e6)]),
        ),
        randn(7, seed=7),
        vector(1.0)[0],
    )


FORMS: dict[str, Callable[[], QuadraticForm]] = {
    "random": lambda: random_map(seed=1, d_hidden=30, d_in=12).form(randn(3, seed=2)),
    "narrow": lambda: random_map(seed=2, d_hidden=3, d_in=20).form(randn(3, seed=3)),
    "equal sizes": lambda: form_from_pairs(vector(2, -2, 2, 1, -1, 1e-9), rotation(6, seed=1)),
    "cancelling": cancelling,
    "huge": lambda: form_from_pairs(1e140 * vector(3, -2, 1, 0.5), rotation(4, seed=2)),
    "float32": lambda: random_map(seed=3, d_hidden=9, d_in=9).to(torch.float32).form(randn(3)),
}


@pytest.mark.parametrize("name", FORMS)
def test_no_input_of_a_million_exceeds_the_bounds(name: str) -> None:
    """On the sphere, where the error is largest, and close to the worst direction."""
    form, radius = FORMS[name](), 2.5
    eig = eigendecompose(form)
    generator = seeded(3)
    for k in (0, 2, 3):
        found, error = truncation_error(eig, k, radius), error_of(form, eig, k)
        for start in range(0, INPUTS // 3, CHUNK):
            x = torch.randn(CHUNK, form.d_in, generator=generator, dtype=torch.float64)
            if start % (2 * CHUNK):  # half of the chunks crowd around the worst input
                x = found.example / radius + 1e-3 * x
            x *= radius / x.norm(dim=1, keepdim=True)
            values = ((x @ error) * x).sum(dim=1)
            assert bool((values.abs() <= found.bound).all())
            limits = truncated_input_bound(eig, k, x)
            assert bool(((limits.low <= values) & (values <= limits.high)).all())
        value = found.example @ error @ found.example
        assert float(found.example.norm()) <= radius * (1 + 1e-14)
        assert float(value.abs()) >= float(found.reached)
        if bool(found.attained):
            assert float(value.abs()) >= (1 - 1e-6) * float(found.bound)
    assert bool(truncation_error(eig, 2, radius).attained)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["lanczos", "auto"])
def test_a_bound_of_a_hostile_form_is_above_the_dense_norm(
    family: str, method: str, sweep_share: float
) -> None:
    """Wherever a bound is claimed it holds, in every family, from part of the spectrum too."""
    dice = Dice(seeded(len(family)), start=lambda n: randn(n, seed=n))
    num = 8 if sweep_share == 1 else 3
    f = FAMILIES[family](dice, num)
    forms = [f.form(c) for c in range(num)]
    dense = [dense_of(form) for form in forms]
    for which in ("magnitude", "both", "largest"):
        wanted = min(4, f.sizes.d_in)
        eigs = eigendecompose_all(f, k=wanted, which=which, method=method)
        for k in range(wanted + 1):
            found = truncation_error(eigs, k, 1.0)
            for c, one in enumerate(eigs.status):
                if one.name != "OK":
                    assert found.bound[c] == torch.inf
                    continue
                v = eigs[c].eigenvectors[:k]
                error = dense[c] - (v.T * eigs[c].eigenvalues[:k]) @ v
                truth = torch.linalg.eigvalsh(error).abs().max()
                assert truth <= found.bound[c], (which, k, c)
                assert found.reached[c] <= truth * (1 + 1e-12) + 1e-300
                if k in (0, wanted):  # the form's own norm enters where nothing, or most, is kept
                    whole = truncation_error(eigs[c], k, 1.0, form=forms[c]).bound
                    assert truth <= whole < torch.inf


def test_the_bound_is_the_first_eigenvalue_cut_off() -> None:
    eig = eigendecompose(form_from_pairs(vector(5, -3, 2, 1), rotation(4)))
    for k, expected in enumerate((5, 3, 2, 1)):
        assert float(truncation_error(eig, k, 2.0).bound) == pytest.approx(4 * expected, rel=1e-9)
    last = truncation_error(eig, 4, 2.0)
    assert 0 <= float(last.bound) < 1e-9
    assert not bool(last.attained)
    assert float(last.reached) == 0


def test_equal_sizes_at_the_cut_do_not_hide_the_larger_one() -> None:
    """A tie of 1e-8 may stand in either order: the bound holds for the larger of the two."""
    form = form_from_pairs(vector(2.0, -2.0 * (1 + 5e-9), 1.0), rotation(3))
    eig = eigendecompose(form)
    truth = torch.linalg.eigvalsh(error_of(form, eig, 1)).abs().max()
    assert truth <= truncation_error(eig, 1, 1.0).bound
    one = eigendecompose(form, k=1)  # the other one is not at hand
    assert truth <= truncation_error(one, 1, 1.0).bound


def test_what_is_not_proven_is_refused_and_the_form_itself_bounds_it() -> None:
    form = form_from_pairs(torch.ones(40, dtype=torch.float64), rotation(40))  # Lanczos sees one
    eig = eigendecompose(form, k=2, method="lanczos")
    assert not bool(eig.complete)
    with pytest.raises(UsageError, match=r"nothing is proven .* verify=True"):
        truncation_error(eig, 1, 1.0)
    found = truncation_error(eig, 1, 1.0, form=form)
    assert not bool(found.attained)
    assert float(found.bound) == pytest.approx(39**0.5, rel=1e-3)
    with pytest.raises(UsageError, match="nothing is proven"):
        truncated_input_bound(eig, 1, randn(2, 40))


def test_one_end_of_the_spectrum_proves_nothing_about_the_other() -> None:
    eig = eigendecompose(form_from_pairs(vector(1, 0.5, -9, -8), rotation(4)), 2, which="largest")
    assert bool(eig.complete)
    with pytest.raises(UsageError, match="nothing is proven"):
        truncation_error(eig, 1, 1.0)


def test_both_ends_bound_what_lies_between() -> None:
    form = form_from_pairs(vector(6, 5, 0.5, -1, -7, -3), rotation(6))
    eig = eigendecompose(form, 4, which="both")  # 6, 5, -7, -3
    assert float(truncation_error(eig, 4, 1.0).bound) == pytest.approx(5, rel=1e-6)
    limits = truncated_input_bound(eig, 4, randn(1000, 6))
    assert bool((limits.low >= -3.001 * limits.left).all())


def test_a_bad_form_of_a_batch_is_infinite_and_the_others_are_bounded() -> None:
    f = random_map(seed=4)
    directions = torch.eye(3, dtype=torch.float64)
    directions[1, 1] = torch.nan
    found = truncation_error(eigendecompose_all(f, directions, k=None), 2, 1.0)
    assert found.bound.isfinite().tolist() == [True, False, True]
    assert found.attained.tolist() == [True, False, True]


def test_smallest_k_is_the_first_whose_bound_is_within_the_tolerance() -> None:
    eigs = eigendecompose_all(random_map(seed=5, d_hidden=20, d_in=9), k=None)
    for tolerance in (1e-3, 1.0, 10.0, 1e3):
        ks = smallest_k(eigs, tolerance, 1.5)
        for c, k in enumerate(ks.tolist()):
            assert float(truncation_error(eigs[c], k, 1.5).bound) <= tolerance
            if k > 0:
                assert float(truncation_error(eigs[c], k - 1, 1.5).bound) > tolerance
    assert int(smallest_k(eigs[0], 1e3, 0.0)) == 0
    assert int(smallest_k(eigs[0], float(truncation_error(eigs[0], 3, 1.5).bound), 1.5)) == 3
    with pytest.raises(UsageError, match=r"form 0 has 2 pairs.*larger k"):
        smallest_k(eigendecompose_all(form_map(), k=2), 1e-3, 1.0)


def form_map() -> object:
    return random_map(seed=6, d_hidden=20, d_in=9)


def test_input_bounds_are_those_of_the_tail() -> None:
    """A positive tail bounds the error from below by more than zero."""
    eig = eigendecompose(form_from_pairs(vector(9, 3, 2, 1), rotation(4)))
    x = randn(50, 4)
    limits = truncated_input_bound(eig, 1, x)
    torch.testing.assert_close(limits.low, limits.left)
    torch.testing.assert_close(limits.high, 3 * limits.left)
    kept = (x @ eig.eigenvectors[0]).square()
    torch.testing.assert_close(limits.left, x.square().sum(dim=1) - kept)


def test_bad_arguments_are_refused_with_what_came() -> None:
    eig = eigendecompose(form_from_pairs(vector(3, 2, 1), rotation(3)))
    with pytest.raises(UsageError, match="k=4, but only 3 pairs"):
        truncation_error(eig, 4, 1.0)
    for radius in (-1.0, torch.nan, torch.inf, True, "1"):
        with pytest.raises(UsageError, match="radius must be a finite number"):
            truncation_error(eig, 1, radius)
    with pytest.raises(UsageError, match="eig is a QuadraticForm"):
        truncation_error(form_from_pairs(vector(1), rotation(1)), 0, 1.0)
    with pytest.raises(ShapeError, match=r"x has shape \(3,\).*x\[None\]"):
        truncated_input_bound(eig, 1, randn(3))
    with pytest.raises(NonFiniteError):
        truncated_input_bound(eig, 1, randn(2, 3) * torch.nan)
    with pytest.raises(UsageError, match="another basis or linear term"):
        truncation_error(eig, 1, 1.0, form=form_of(randn(3, 3), randn(3)))
    with pytest.raises(NumericalError, match="beyond float64"):
        truncation_error(eig, 1, 1e200)


@pytest.mark.parametrize("k", [0, 1, 3, 6])
def test_moments_are_those_of_the_difference(k: int) -> None:
    f, half, mean = random_map(seed=1, d_hidden=9, d_in=6), randn(6, 6, seed=2), randn(6, seed=3)
    eigs = eigendecompose_all(f, k=None)
    short = eigs.truncate_map(k).tensor
    tensor = BilinearTensor(
        torch.cat([f.tensor.down, -short.down], dim=1),
        torch.cat([f.tensor.left, short.left]),
        torch.cat([f.tensor.right, short.right]),
    )
    expected = gaussian_moments(QuadraticMap(tensor), mean, half @ half.T)
    found = truncation_moments(eigs, k, mean, half @ half.T)
    torch.testing.assert_close(found.mean, expected.mean, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(found.variance, expected.variance, atol=1e-8, rtol=1e-10)
    one = truncation_moments(eigs[1], k, mean, half @ half.T)
    torch.testing.assert_close(one.variance, found.variance[1])


def test_samples_have_these_moments() -> None:
    form, half = form_of(randn(5, 5, seed=4), randn(5, seed=5)), randn(5, 5, seed=6)
    eig = eigendecompose(form)
    x = 1 + randn(400_000, 5, seed=7) @ half.T
    error = form(x) - eig.truncate(2)(x)
    found = truncation_moments(eig, 2, torch.ones(5).double(), half @ half.T)
    assert float(found.mean) == pytest.approx(float(error.mean()), rel=0.02)
    assert float(found.variance) == pytest.approx(float(error.var()), rel=0.03)


def test_residuals_count_by_the_root_of_two() -> None:
    """Four residuals of 10⁻³: √2 times their norm of 2 · 10⁻³, and rounding."""
    eig = eigendecompose(form_of(randn(4, 4)))
    slack = enclose_spectrum(replace(eig, residuals=torch.full((4,), 1e-3).double())).slack
    assert slack == pytest.approx(2**0.5 * 2e-3, rel=1e-6)
    assert slack > 2**0.5 * 2e-3


def test_what_does_not_fit_is_refused() -> None:
    eig, other = eigendecompose(form_of(randn(5, 5))), form_of(randn(4, 4))
    with pytest.raises(ShapeError, match=r"form reads 4 inputs, the vectors have shape \(5, 5\)"):
        truncation_error(eig, 1, 1.0, other)
    f, mean, eye = random_map(seed=2, d_hidden=2, d_in=12), randn(12), torch.eye(12).double()
    whole = eigendecompose_all(f, k=None)
    with pytest.raises(UsageError, match="3 of 12 pairs are at hand"):
        truncation_moments(eigendecompose_all(f, k=3), 1, mean, eye)
    with pytest.raises(UsageError, match="not symmetric"):
        truncation_moments(whole, 1, mean, randn(12, 12))
    with pytest.raises(ShapeError, match=r"mean has shape \(11,\)"):
        truncation_moments(whole, 1, mean[1:], eye)


@pytest.mark.parametrize("exponent", [-600, -540, -280, 0, 260, 400])
def test_the_bound_of_a_norm_does_not_leave_float64_before_the_norm(exponent: int) -> None:
    form, unit = random_map().form(randn(3)), 2.0 ** (2 * exponent)
    norm = float(dense_of(form).norm())
    matrix = form.matrix
    rows = (2.0**exponent * part for part in (matrix.left, matrix.right))
    scaled = InteractionMatrix(*rows, matrix.weight)
    bound = frobenius_bound(QuadraticForm(scaled, form.linear, form.constant))
    smallest = 2.0**-1074
    assert norm * unit <= bound <= norm * unit * (1 + 1e-12) + 20 * smallest
    assert bound > 0


def fading_map(seed: int) -> QuadraticMap:
    """Five classes whose neurons get smaller, so that truncation is worth something."""
    f = random_map(seed, d_out=5, d_hidden=12, d_in=15)
    fading = f.tensor.down * 0.6 ** torch.arange(12, dtype=torch.float64)
    return QuadraticMap(BilinearTensor(fading, f.tensor.left, f.tensor.right), f.linear, f.constant)


@pytest.mark.parametrize("seed", range(4))
def test_no_certificate_is_false(seed: int) -> None:
    """20,000 inputs and every k; the classes of both maps come from their dense logits."""
    f, x = fading_map(seed), randn(20_000, 15, seed=seed)
    eigs = eigendecompose_all(f, k=None)
    shares = []
    for k in range(16):
        found = certified_agreement(f, k, x, eigs)
        kept = eigs.eigenvectors[:, :k]
        dense = torch.einsum("ck,cki,ckj->cij", eigs.eigenvalues[:, :k], kept, kept)
        short = torch.einsum("cij,bi,bj->bc", dense, x, x) + x @ f.linear.T + f.constant
        classes = f(x).argmax(dim=1)
        assert torch.equal(found.predicted, short.argmax(dim=1))
        assert torch.equal(found.agrees, found.predicted == classes)
        assert not bool((found.certified & (found.predicted != classes)).any())
        logits = f(x)
        true_margin = logits.gather(1, found.predicted[:, None])[:, 0] - logits.scatter(
            1, found.predicted[:, None], -torch.inf
        ).amax(dim=1)
        assert bool((found.margin <= true_margin + 1e-9).all())
        assert found.certified_share <= found.agreeing_share
        shares.append(found.certified_share)
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    assert shares[6] > 0.1


def test_part_of_the_spectrum_and_centred_forms_certify_too() -> None:
    f, x = fading_map(7), randn(500, 15)
    whole = certified_agreement(f, 6, x)
    part = certified_agreement(f, 6, x, eigendecompose_all(f, k=9, verify=True))
    assert torch.equal(part.certified, whole.certified)
    centred = f.compose_output(centred_directions(5))
    found = certified_agreement(centred, 6, x)
    assert found.certified_share > 0.1
    assert torch.equal(f(x).argmax(dim=1)[found.certified], found.predicted[found.certified])


def test_single_precision_is_read_exactly() -> None:
    f, x = fading_map(8).to(torch.float32), randn(100, 15).float()
    found = certified_agreement(f, 8, x)
    same = certified_agreement(f.to(torch.float64), 8, x.double())
    assert torch.equal(found.margin, same.margin)


def test_what_does_not_belong_together_is_refused() -> None:
    f, x = fading_map(9), randn(10, 15)
    with pytest.raises(UsageError, match="other linear or constant terms"):
        certified_agreement(f, 2, x, eigendecompose_all(fading_map(10), k=None))
    other = QuadraticMap(fading_map(10).tensor, f.linear, f.constant)
    with pytest.raises(NumericalError, match="not those of f"):
        certified_agreement(f, 15, randn(500, 15), eigendecompose_all(other, k=None))
    with pytest.raises(ShapeError, match="one form for each output"):
        certified_agreement(f, 2, x, eigendecompose_all(f, k=None)[0])
    with pytest.raises(UsageError, match="two classes"):
        certified_agreement(random_map(d_out=1), 1, randn(2, 5))
    with pytest.raises(UsageError, match=r"^f is a QuadraticForm; .*use the layer's quadratic_map"):
        certified_agreement(f.form(randn(len(f.tensor.down))), 2, x)
    with pytest.raises(UsageError, match="no input"):
        certified_agreement(f, 2, x[:0])
    with pytest.raises(UsageError, match="k=16"):
        certified_agreement(f, 16, x)
    with pytest.raises(NonFiniteError):
        certified_agreement(f, 2, x * torch.nan)
