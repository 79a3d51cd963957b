"""The identities of the theory, drawn by hypothesis and compared with the dense definition."""

import torch
from hypothesis import given, strategies as st
from torch import Tensor
from torch.testing import assert_close

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.concentration import effective_rank
from bilens.algebra.directions import centred_directions
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose, eigendecompose_all
from bilens.algebra.quadratic_form import InteractionMatrix, QuadraticForm
from bilens.algebra.quadratic_map import QuadraticMap
from builders import random_map
from strategies import SCALES, entries, maps, maps_with_direction, maps_with_inputs

TIGHT = {"rtol": 1e-10, "atol": 1e-10}
MAPS_WITH_DIRECTION = maps_with_direction()


def all_pairs(form: QuadraticForm) -> EigenDecomposition:
    return eigendecompose(form, k=None)


@given(entries(1, 3, 4), entries(1, 3, 4), entries(2, 4))
def test_an_antisymmetric_part_adds_nothing(left: Tensor, right: Tensor, x: Tensor) -> None:
    """l rᵀ − r lᵀ is antisymmetric: adding it to any form changes neither q(x) nor Q."""
    left, right = left[0], right[0]
    weight = torch.ones(len(left), dtype=torch.float64)
    nothing = InteractionMatrix(
        torch.cat([left, right]), torch.cat([right, left]), torch.cat([weight, -weight])
    )
    zero = torch.zeros(4, 4, dtype=torch.float64)
    assert_close(nothing.dense(), zero, **TIGHT)
    assert_close(nothing.evaluate(x), zero[:2, 0], **TIGHT)
    assert_close(nothing.matvec(x), zero[:2], **TIGHT)


@given(maps(), st.data(), SCALES)
def test_the_form_is_linear_in_the_direction(
    f: QuadraticMap, data: st.DataObject, scale: float
) -> None:
    u, v = (data.draw(entries(f.sizes.d_out)) for _ in range(2))
    x = data.draw(entries(2, f.sizes.d_in))
    both, first, second = f.form(u + scale * v), f.form(u), f.form(v)
    assert_close(both(x), first(x) + scale * second(x), **TIGHT)
    assert_close(both.dense(), first.dense() + scale * second.dense(), **TIGHT)
    assert_close(both.trace(), first.trace() + scale * second.trace(), **TIGHT)


@given(MAPS_WITH_DIRECTION)
def test_all_pairs_rebuild_the_matrix(drawn: tuple[QuadraticMap, Tensor]) -> None:
    form = drawn[0].form(drawn[1])
    eig = all_pairs(form)
    rebuilt = (eig.eigenvectors.T * eig.eigenvalues) @ eig.eigenvectors
    assert_close(rebuilt, form.dense(), **TIGHT)
    assert bool(eig.complete)
    assert bool(eig.converged.all())
    assert_close(eig.explained, torch.ones((), dtype=torch.float64), **TIGHT)


@given(MAPS_WITH_DIRECTION)
def test_vectors_are_orthonormal_ordered_and_signed(drawn: tuple[QuadraticMap, Tensor]) -> None:
    """|λ| falls, and the largest component of each vector is positive: the first, in a tie."""
    eig = all_pairs(drawn[0].form(drawn[1]))
    size, vectors = eig.eigenvalues.abs(), eig.eigenvectors
    assert bool((size[:-1] >= size[1:] * (1 - 1e-7)).all())  # ties, to 1e-8 each, stand by sign
    assert_close(vectors @ vectors.T, torch.eye(len(vectors), dtype=torch.float64), **TIGHT)
    for row in vectors.tolist():
        largest = max(abs(component) for component in row)
        assert next(c for c in row if abs(c) >= largest * (1 - 1e-8)) > 0


@given(MAPS_WITH_DIRECTION, st.data())
def test_contributions_sum_to_the_value(
    drawn: tuple[QuadraticMap, Tensor], data: st.DataObject
) -> None:
    """Σ λ_i (v_i·x)² + b·x + c = q(x)."""
    form = drawn[0].form(drawn[1])
    x = data.draw(entries(data.draw(st.integers(1, 3)), form.d_in))
    assert_close(all_pairs(form).contributions(x).total(), form(x), **TIGHT)


@given(maps_with_inputs())
def test_contributions_of_every_output_sum_to_the_logits(
    drawn: tuple[QuadraticMap, Tensor],
) -> None:
    f, x = drawn
    assert_close(eigendecompose_all(f, k=None).contributions(x).total(), f(x).T, **TIGHT)


@given(MAPS_WITH_DIRECTION, st.data())
def test_truncation_is_optimal_and_its_error_is_the_tail(
    drawn: tuple[QuadraticMap, Tensor], data: st.DataObject
) -> None:
    """Eckart–Young: ‖Q − Q_k‖_F² = Σ_{i>k} λ_i² and ‖Q − Q_k‖₂ = |λ_{k+1}|, the least possible."""
    form = drawn[0].form(drawn[1])
    eig = all_pairs(form)
    k = data.draw(st.integers(0, form.d_in))
    error = form.dense() - eig.truncate(k).dense()
    tail = torch.cat([eig.eigenvalues[k:], torch.zeros(1, dtype=torch.float64)])
    assert_close(error.square().sum(), tail.square().sum(), **TIGHT)
    assert_close(torch.linalg.matrix_norm(error, 2), tail[0].abs(), **TIGHT)
    best = form.dense() - oracles.best_truncation(form.dense(), k)
    assert_close(oracles.norm(error) ** 2, oracles.norm(best) ** 2, **TIGHT)


@given(MAPS_WITH_DIRECTION, st.data())
def test_the_spectral_bound_is_attained_by_the_next_eigenvector(
    drawn: tuple[QuadraticMap, Tensor], data: st.DataObject
) -> None:
    """sup |q(x) − q_k(x)| over ‖x‖ ≤ ρ is ρ² |λ_{k+1}|, reached at x = ρ v_{k+1}."""
    form = drawn[0].form(drawn[1])
    eig = all_pairs(form)
    k, radius = data.draw(st.integers(0, form.d_in - 1)), data.draw(SCALES)
    truncated = eig.truncate(k)
    x = data.draw(entries(8, form.d_in))
    bound = eig.eigenvalues[k].abs() * x.square().sum(dim=1)
    assert bool(((form(x) - truncated(x)).abs() <= bound + 1e-9).all())
    worst = radius * eig.eigenvectors[k]
    reached = (form(worst) - truncated(worst)).abs()
    assert_close(reached, radius**2 * eig.eigenvalues[k].abs(), rtol=1e-9, atol=1e-8)


@given(maps_with_inputs(), st.data())
def test_a_truncated_map_is_its_truncated_forms_side_by_side(
    drawn: tuple[QuadraticMap, Tensor], data: st.DataObject
) -> None:
    f, x = drawn
    eigs = eigendecompose_all(f, k=None)
    k = data.draw(st.integers(0, f.sizes.d_in))
    stacked = torch.stack([eigs[c].truncate(k)(x) for c in range(len(eigs))], dim=-1)
    assert_close(eigs.truncate_map(k)(x), stacked, **TIGHT)


@given(maps(), st.data())
def test_adding_one_form_to_all_classes_changes_no_centred_form(
    f: QuadraticMap, data: st.DataObject
) -> None:
    """The softmax gauge: Q_c → Q_c + S for every class c changes no prediction."""
    d_out, _, d_in = f.sizes
    ones = torch.ones(d_out, 1, dtype=torch.float64)
    shared = QuadraticMap(
        BilinearTensor(ones, data.draw(entries(1, d_in)), data.draw(entries(1, d_in))),
        ones @ data.draw(entries(1, d_in)),
        ones[:, 0],
    )
    x = data.draw(entries(2, d_in))
    assert_close((f + shared)(x).softmax(-1), f(x).softmax(-1), **TIGHT)
    for row in centred_directions(d_out):
        plain, shifted = f.form(row), (f + shared).form(row)
        assert_close(shifted.dense(), plain.dense(), **TIGHT)
        assert_close(shifted.linear, plain.linear, **TIGHT)
        assert_close(shifted.constant, plain.constant, **TIGHT)


@given(maps_with_inputs(), SCALES)
def test_scaling_an_input_by_a_scales_the_bilinear_part_by_its_square(
    drawn: tuple[QuadraticMap, Tensor], a: float
) -> None:
    f, x = drawn
    bilinear = QuadraticMap(f.tensor)
    assert_close(bilinear(a * x), a * a * bilinear(x), **TIGHT)
    scaled = bilinear.compose_input(a * torch.eye(f.sizes.d_in, dtype=torch.float64))
    plain, wide = eigendecompose_all(bilinear, k=None), eigendecompose_all(scaled, k=None)
    assert_close(wide.eigenvalues.abs(), a * a * plain.eigenvalues.abs(), rtol=1e-9, atol=1e-9)
    assert_close(
        effective_rank(wide.eigenvalues), effective_rank(plain.eigenvalues), rtol=1e-6, atol=1e-6
    )


@given(maps_with_inputs(), st.data())
def test_composing_with_affine_maps_is_composing_the_functions(
    drawn: tuple[QuadraticMap, Tensor], data: st.DataObject
) -> None:
    """U f(E z + e) + p, in either order of composition."""
    f, _ = drawn
    d_out, _, d_in = f.sizes
    width, outputs = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    embed, shift = data.draw(entries(d_in, width)), data.draw(entries(d_in))
    head, offset = data.draw(entries(outputs, d_out)), data.draw(entries(outputs))
    z = data.draw(entries(2, width))
    expected = f(z @ embed.T + shift) @ head.T + offset
    inner_first = f.compose_input(embed, shift).compose_output(head, offset)
    outer_first = f.compose_output(head, offset).compose_input(embed, shift)
    assert_close(inner_first(z), expected, rtol=1e-9, atol=1e-9)
    assert_close(outer_first(z), expected, rtol=1e-9, atol=1e-9)


@given(maps_with_inputs(), st.data())
def test_maps_add_like_functions_in_any_order(
    drawn: tuple[QuadraticMap, Tensor], data: st.DataObject
) -> None:
    f, x = drawn
    g = random_map(data.draw(st.integers(0, 99)), f.sizes.d_out, 2, f.sizes.d_in)
    assert_close((f + g)(x), f(x) + g(x), **TIGHT)
    assert_close((g + f).tensor.gram(), (f + g).tensor.gram(), **TIGHT)
