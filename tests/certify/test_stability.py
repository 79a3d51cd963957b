"""Eigenvalues and spaces never move by more than guaranteed: random changes and the worst ones.

The spectra after the change come from a dense solver. BILENS_TEST_CHANGES sets how many changes
there are (default 400, each with all of its eigenvalues and spaces)."""

import os
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import bilens.certify.stability as stability
import oracles
from bilens.algebra.quadratic_form import InteractionMatrix, QuadraticForm
from bilens.base.errors import MemoryLimitError, ShapeError, UsageError
from bilens.certify.stability import quantisation_stability, spectrum_stability
from builders import form_from_pairs, form_of, randn, random_map, rotation, seeded, vector
from hostile_forms import FAMILIES, Dice
from raising import raising

CHANGES = int(os.environ.get("BILENS_TEST_CHANGES", "400"))


def dense_of(form: QuadraticForm) -> Tensor:
    matrix = form.matrix
    return oracles.dense_weighted(matrix.left, matrix.right, matrix.weight)


def check(form: QuadraticForm, changed: QuadraticForm, k: int | None = None) -> float:
    """Compare with a dense solver; return how much of the guaranteed angles was used, at most."""
    found = spectrum_stability(form, changed, k)
    before, after = dense_of(form), dense_of(changed)
    old, new = torch.linalg.eigvalsh(before), torch.linalg.eigh(after)
    rounding = 1e-14 * float(before.norm() + after.norm())
    true_change = float(torch.linalg.eigvalsh(after - before).abs().max())
    assert true_change <= found.change + rounding
    assert bool(((new.eigenvalues - old).abs() <= found.movement + rounding).all())
    assert bool((found.sine <= 1).all())
    used = 0.0
    eig = found.decomposition
    for label in eig.cluster.unique().tolist():
        mine = (eig.cluster == label).nonzero()[:, 0]
        sine = float(found.sine[mine[0]])
        if sine == 1.0:
            continue
        # the same eigenvalues by rank: those nearest to the cluster, of which there are as many
        centre = float(eig.eigenvalues[mine].mean())
        ranks = (old - centre).abs().argsort()[: len(mine)]
        vectors = eig.eigenvectors[mine]
        moved = new.eigenvectors[:, ranks].T
        distance = vectors.T @ vectors - moved.T @ moved
        angle = float(torch.linalg.matrix_norm(distance, 2))
        assert angle <= sine + 1e-12
        used = max(used, angle / sine if sine > 0 else 0.0)
    return used


@pytest.mark.parametrize("part", range(4))
def test_random_changes_move_nothing_by_more(part: int) -> None:
    for seed in range(part, CHANGES, 4):
        n = 2 + seed % 6
        q, step = randn(n, n, seed=seed), randn(n, n, seed=seed + 10**6)
        size = 10.0 ** (-(seed % 9))
        check(form_of(q), form_of(q + size * step), k=None if seed % 3 else max(n // 2, 1))


def test_the_worst_change_turns_by_what_is_guaranteed_and_not_less() -> None:
    """diag(1, 0) + t [[−1, 1], [1, 1]]/√2 turns by sin 2θ = … up to 45° at ‖Δ‖ = gap/2."""
    largest = 0.0
    for angle in torch.linspace(0, 3.1416, 24).tolist():
        c, s = torch.cos(torch.tensor(angle)).item(), torch.sin(torch.tensor(angle)).item()
        for size in (0.01, 0.1, 0.3, 0.45, 0.499, 0.5, 0.6):
            step = size * torch.tensor([[-c, s], [s, c]], dtype=torch.float64)
            before = torch.diag(vector(1, 0))
            largest = max(largest, check(form_of(before), form_of(before + step)))
    assert largest > 0.9


@pytest.mark.parametrize("family", FAMILIES)
def test_hostile_forms_and_changes_in_their_eigenvectors(family: str) -> None:
    dice = Dice(seeded(len(family)), start=lambda n: randn(n, seed=n))
    f = FAMILIES[family](dice, 3).to(torch.float64)
    for c in range(3):
        form = f.form(torch.eye(3, dtype=torch.float64)[c])
        q = dense_of(form)
        unit = q.abs().max() if float(q.abs().max()) > 0 else q.new_ones(())
        values, columns = torch.linalg.eigh(q / unit)
        first, last = columns[:, 0], columns[:, -1]
        for size in (1e-12, 1e-6, 1e-2):
            mixing = torch.outer(first, last) + torch.outer(last, first)
            sinking = torch.outer(first, first) - torch.outer(last, last)
            for step in (mixing, sinking, mixing + sinking):
                check(form, form_of(q + size * unit * step))
        assert len(values) == form.d_in


def test_equal_eigenvalues_are_guaranteed_as_a_space() -> None:
    form = form_from_pairs(vector(3, 3, 1, 0), rotation(4))
    step = 1e-3 * randn(4, 4, seed=1)
    changed = form_of(dense_of(form) + (step + step.T) / 2)
    found = spectrum_stability(form, changed)
    assert found.gap.tolist() == pytest.approx([2, 2, 1, 1])
    assert float(found.sine[0]) < 0.01
    assert check(form, changed) > 0
    assert found.norm == "spectral"


def test_no_change_moves_nothing_and_a_part_of_the_spectrum_is_guaranteed_too() -> None:
    form = form_from_pairs(vector(9, -5, 1, 0.5, 0.2, 0.1), rotation(6))
    same = spectrum_stability(form, form)
    assert same.change < 1e-11
    assert float(same.sine.max()) < 1e-10
    part = spectrum_stability(form, form_of(dense_of(form) + 1e-3 * torch.eye(6).double()), 2)
    assert part.gap.tolist()[0] == pytest.approx(4, rel=1e-6)  # to ±5, where the others may be
    assert float(part.sine[1]) == 1.0  # nothing is known between it and the others
    assert part.change == pytest.approx(1e-3, rel=1e-6)


def test_where_the_spectral_norm_is_not_proven_it_is_the_frobenius_norm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    n = 40
    form = form_from_pairs(vector(*range(1, n + 1)), rotation(n))
    changed = form_of(dense_of(form) + 1e-3 * torch.eye(n).double())
    whole = spectrum_stability(form, changed)
    assert (whole.norm, whole.change) == ("spectral", pytest.approx(1e-3, rel=1e-6))
    solver = torch.linalg.eigvalsh
    for target, name, instead in (
        (torch.linalg, "eigvalsh", lambda array: solver(array) / 2),  # wrong, and not believed
        (stability, "check_memory", raising(MemoryLimitError("no room"))),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(target, name, instead)
            found = spectrum_stability(form, changed)
        assert (found.norm, found.change) == ("frobenius", pytest.approx(1e-3 * n**0.5, rel=1e-2))


def test_a_form_that_vanishes_or_nearly_so_is_bounded_too() -> None:
    """Beside zeros a size below 2⁻¹⁰²² keeps its digits; no difference is one of norm zero."""
    ones = torch.ones(40, 40, dtype=torch.float64)
    for size in (1e-322, 2e-310, 1e-150, 1e150):
        found = spectrum_stability(form_of(0 * ones), form_of(size * ones))
        assert 40 * size <= found.change <= 40 * size * (1 + 1e-9) + 1e-322
        assert found.norm == "spectral"
    none = spectrum_stability(form_of(ones), form_of(ones))
    assert none.norm == "spectral"
    assert none.change < 1e-12 * 40  # ‖Q‖


def test_a_form_whose_unit_is_below_float64_is_bounded() -> None:
    matrix = InteractionMatrix(1e-120 * randn(4, 3), 1e-120 * randn(4, 3), 1e-120 * randn(4))
    tiny = QuadraticForm(matrix, torch.zeros(3).double(), vector(0)[0])
    found = spectrum_stability(tiny, replace(tiny, matrix=replace(matrix, weight=-matrix.weight)))
    assert (found.norm, found.change) == ("frobenius", pytest.approx(0, abs=1e-320))
    assert found.change > 0
    ones = form_of(torch.ones(3, 3).double())
    assert spectrum_stability(tiny, ones).change == pytest.approx(3)


def test_a_solver_that_fails_leaves_the_frobenius_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    forms = form_of(randn(6, 6, seed=1)), form_of(randn(6, 6, seed=2))
    whole = spectrum_stability(*forms)
    monkeypatch.setattr(torch.linalg, "eigvalsh", raising(torch.linalg.LinAlgError("no")))
    found = spectrum_stability(*forms)
    assert (whole.norm, found.norm) == ("spectral", "frobenius")
    assert whole.change < found.change


def test_few_neurons_are_compared_in_their_own_space() -> None:
    f, other = random_map(1, 3, 4, 40), random_map(2, 3, 4, 40)
    first, second = (one.form(randn(3, seed=3)) for one in (f, other))
    found = spectrum_stability(first, second)
    exact = torch.linalg.eigvalsh(dense_of(second) - dense_of(first)).abs().max()
    assert found.norm == "spectral"
    assert found.change == pytest.approx(float(exact), rel=1e-7)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "int8"])
def test_rounded_weights_move_nothing_by_more_than_guaranteed(kind: str) -> None:
    f = random_map(seed=3, d_hidden=20, d_in=9)
    directions = randn(2, 3, seed=4)
    found = quantisation_stability(f, kind, directions)
    assert found.kind == kind
    for row, one in zip(directions, found.forms, strict=True):
        check(f.form(row), found.quadratic_map.form(row))
        assert 0 < one.change < float(f.form(row).norm())
    assert len(quantisation_stability(f, kind, k=2).forms) == 3


def test_forms_that_cannot_be_compared_are_refused() -> None:
    form = random_map().form(randn(3))
    with pytest.raises(UsageError, match="changed is a QuadraticMap"):
        spectrum_stability(form, random_map())
    with pytest.raises(ShapeError, match="5 and 4 inputs"):
        spectrum_stability(form, random_map(d_in=4).form(randn(3)))
    other = random_map().compose_input(torch.eye(5).double(), basis="embedding").form(randn(3))
    with pytest.raises(UsageError, match="input and the embedding basis"):
        spectrum_stability(form, other)
    with pytest.raises(ShapeError, match="one output direction"):
        quantisation_stability(random_map(), "int8", randn(2, 4))
