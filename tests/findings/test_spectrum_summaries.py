"""Class readings, spectra of outputs and null intervals, against dense matrices and by chance."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import oracles
import tiny
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.concentration import effective_rank
from bilens.algebra.directions import centred_directions
from bilens.algebra.eigen.decomposition import EigenDecomposition, select
from bilens.algebra.eigen.eigendecompose import eigendecompose, eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.rotation_null import RotationNull, rotation_null
from bilens.findings.exact_classifier import class_centred
from bilens.findings.spectrum_summaries import (
    end_of_spectrum,
    null_interval,
    rank_null_intervals,
    read_classes,
    summarise_spectra,
)
from bilens.nn import BilinearClassifier
from bilens.records.base import to_json
from bilens.records.class_readings import ClassReading
from bilens.records.common import NullInterval
from bilens.records.decomposition import FormSpectrum
from builders import form_of, random_map, rotation

NAMES = ("upright", "level", "slanting")
MODELS: dict[str, Callable[[], BilinearClassifier]] = {
    "plain": tiny.classifier,
    "bias and residual": lambda: tiny.classifier(1, bias=True, residual=True),
    "trained": lambda: tiny.trained(replace(tiny.RECIPE, d_hidden=32, epochs=10)),
}


@cache
def null_of(name: str) -> RotationNull:
    generator = torch.Generator().manual_seed(0)
    model = MODELS[name]()
    return rotation_null(
        model.quadratic_map("embedding").detach(),
        centred_directions(tiny.CLASSES),
        generator,
        tiny.ROTATIONS,
        embedding=model.embed.weight,
    )


@cache
def readings(name: str) -> tuple[ClassReading, ...]:
    model = MODELS[name]()
    return read_classes(model, class_centred(model), null_of(name), NAMES)


def dense_forms(model: BilinearClassifier, basis: str) -> NDArray[np.float64]:
    """The (classes, in, in) matrices of the logits, straight from the weights."""
    layer, embed = model.layers[0], model.embed.weight.detach()
    left, right = layer.left.weight.detach(), layer.right.weight.detach()
    if basis == "input":
        left, right = left @ embed, right @ embed
    return oracles.dense_tensor(model.head.weight.detach(), left, right).numpy()


def dense_linear(model: BilinearClassifier) -> NDArray[np.float64]:
    """The (classes, in) linear parts: Σ_h d_h (c_h l_h + b_h r_h), and the residual path."""
    layer, embed = model.layers[0], model.embed.weight.detach().numpy()
    head = model.head.weight.detach().numpy()
    total = np.zeros((tiny.CLASSES, tiny.PIXELS))
    if layer.has_bias:
        b, c = layer.left.bias.detach().numpy(), layer.right.bias.detach().numpy()
        left, right = layer.left.weight.detach().numpy(), layer.right.weight.detach().numpy()
        for h in range(len(b)):
            total += np.outer(head[:, h], (c[h] * left[h] + b[h] * right[h]) @ embed)
    return total + head @ embed if model.residual else total


def rank(matrix: NDArray[np.float64]) -> float:
    values = np.linalg.eigvalsh(matrix)
    return float(np.abs(values).sum() ** 2 / (values**2).sum())


@pytest.mark.parametrize("name", MODELS)
def test_a_reading_is_that_of_the_dense_matrices(name: str) -> None:
    model = MODELS[name]()
    raw, embedding = dense_forms(model, "input"), dense_forms(model, "embedding")
    centred = raw - raw.mean(axis=0)
    linear = dense_linear(model)
    linear -= linear.mean(axis=0)
    for reading in readings(name):
        c, matrix = reading.index, centred[reading.index]
        values = np.linalg.eigvalsh(matrix)[::-1]
        assert reading.name == NAMES[c]
        assert reading.eigenvalues == pytest.approx(values, rel=1e-9, abs=1e-12)
        assert reading.effective_rank == pytest.approx(rank(matrix), rel=1e-9)
        assert reading.effective_rank_raw == pytest.approx(rank(raw[c]), rel=1e-9)
        assert reading.effective_rank_embedding == pytest.approx(rank(embedding[c]), rel=1e-9)
        assert reading.frobenius_norm == pytest.approx(np.linalg.norm(matrix), rel=1e-12)
        assert reading.linear_norm == pytest.approx(np.linalg.norm(linear[c]), rel=1e-9)
        assert reading.complete
        assert reading.largest_residual < 1e-12 * np.linalg.norm(matrix)
        zero = 1e-12 * values[0]  # what is smaller is rounding, and has no sign
        ends = [value for value in values[:4] if value > zero]
        assert [pair.eigenvalue for pair in reading.positive] == pytest.approx(ends, rel=1e-9)
        ends = [value for value in values[:-5:-1] if value < -zero]
        assert [pair.eigenvalue for pair in reading.negative] == pytest.approx(ends, rel=1e-9)
        for pair in (*reading.positive, *reading.negative):
            vector = np.array(pair.vector)  # five decimals of it
            assert matrix @ vector == pytest.approx(pair.eigenvalue * vector, abs=2e-4)
            assert vector[np.abs(vector).argmax()] > 0
            share = pair.eigenvalue**2 / (matrix**2).sum()
            assert pair.explained == pytest.approx(share, rel=1e-9)
            assert pair.subspace_size == 1


def test_the_constant_is_the_class_centred_logit_of_the_empty_image() -> None:
    name = "bias and residual"
    logits = MODELS[name]()(torch.zeros(tiny.PIXELS, dtype=torch.float64)).tolist()
    for reading in readings(name):
        expected = logits[reading.index] - sum(logits) / tiny.CLASSES
        assert reading.constant == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_significant_is_what_lies_beyond_the_edge_of_chance(name: str) -> None:
    """⌈0.95 · 40⌉ = 38: the edge is the 76th of the 78 ends of 39 spectra; −O is as likely as O."""
    null = null_of(name)
    for reading in readings(name):
        c, values = reading.index, reading.eigenvalues
        reach = sorted([*null.largest[:, c].tolist(), *(-null.smallest[:, c]).tolist()])
        assert (reading.lower_edge, reading.upper_edge) == (-reach[-3], reach[-3])
        assert reading.significant_positive == sum(value > reach[-3] for value in values)
        assert reading.significant_negative == sum(value < -reach[-3] for value in values)
        assert reading.p_upper == (2 + sum(value >= values[0] for value in reach)) / 80
        assert reading.p_lower == (2 + sum(value >= -values[-1] for value in reach)) / 80
        samples, level = sorted(null.effective_rank[:, c].tolist()), reading.effective_rank_null
        # ⌊0.025 · 40⌋ = 1: the interval is from the smallest to the largest of them
        assert (level.low, level.median, level.high) == (samples[0], samples[19], samples[-1])


def test_a_trained_model_has_more_than_chance_and_a_random_one_hardly() -> None:
    """Of 32 units; of 8, the null of one branch holds all, and that of the other none."""
    trained = readings("trained")
    assert all(item.significant_positive + item.significant_negative > 0 for item in trained)
    assert sum(item.significant_positive for item in readings("plain")) <= 1


def test_the_null_interval_is_median_and_central_95_per_cent() -> None:
    """Of 0, 1, …, 998 in any order: ⌊0.025 · 1000⌋ = 25, so the 25th from either side."""
    samples = torch.randperm(999, generator=torch.Generator().manual_seed(0)).double()
    level = null_interval(samples)
    assert (level.low, level.median, level.high) == (24, 499, 974)


@pytest.mark.parametrize(
    ("values", "positive", "negative"),
    [
        ([5.0, 4.0, 3.0, 2.0, 1.0, -1.0], [5.0, 4.0, 3.0, 2.0], [-1.0]),
        ([-1.0, -2.0, -3.0, -4.0, -5.0, 0.0], [], [-5.0, -4.0, -3.0, -2.0]),
        ([0.0] * 6, [], []),
    ],
)
def test_each_end_shows_at_most_four_of_its_own_sign(
    values: list[float], positive: list[float], negative: list[float]
) -> None:
    eig = eigen(values)
    found = [pair.eigenvalue for pair in end_of_spectrum(eig, positive=True)]
    assert found == pytest.approx(positive, abs=1e-12)
    found = [pair.eigenvalue for pair in end_of_spectrum(eig, positive=False)]
    assert found == pytest.approx(negative, abs=1e-12)


def test_eigenvalues_that_are_equal_say_so() -> None:
    pairs = end_of_spectrum(eigen([3.0, 2.0, 2.0, -1.0, -1.0, -1.0]), positive=True)
    assert [pair.subspace_size for pair in pairs] == [1, 2, 2]
    pairs = end_of_spectrum(eigen([3.0, 2.0, 2.0, -1.0, -1.0, -1.0]), positive=False)
    assert [pair.subspace_size for pair in pairs] == [3, 3, 3]


def eigen(values: list[float]) -> EigenDecomposition:
    turn = rotation(len(values)) if any(values) else torch.eye(len(values), dtype=torch.float64)
    return eigendecompose(form_of(turn.T @ torch.diag(torch.tensor(values).double()) @ turn))


F = random_map(2)  # 5 inputs, 3 outputs


def outputs(f: QuadraticMap = F, top: int = 3) -> tuple[FormSpectrum, ...]:
    names = tuple("abc")[: f.sizes.d_out]
    whole = eigendecompose_all(f, k=None)
    ranks = effective_rank(whole.distinct_from_zero)
    return summarise_spectra(select(whole, top, "magnitude"), names, f.tensor.traces(), ranks)


@pytest.mark.parametrize("top", [1, 3, 5, 9])
def test_each_output_is_its_dense_spectrum(top: int) -> None:
    dense = oracles.dense_tensor(F.tensor.down, F.tensor.left, F.tensor.right)
    assert F.linear is not None
    assert F.constant is not None
    for c, output in enumerate(outputs(top=top)):
        every = torch.linalg.eigvalsh(dense[c])
        leading = oracles.chosen(every, min(top, 5), "magnitude")
        mass = float((every**2).sum())
        assert output.name == "abc"[c]
        assert [pair.eigenvalue for pair in output.pairs] == pytest.approx(leading, rel=1e-12)
        shares = [value**2 / mass for value in leading]
        assert [pair.explained for pair in output.pairs] == pytest.approx(shares, rel=1e-12)
        assert output.explained == pytest.approx(sum(shares), rel=1e-12)
        assert output.effective_rank == pytest.approx(float(oracles.effective_rank(every)))
        assert output.frobenius_norm == pytest.approx(mass**0.5, rel=1e-12)
        assert output.trace == pytest.approx(float(every.sum()), rel=1e-10)
        assert output.linear_norm == pytest.approx(float(F.linear[c].norm()), rel=1e-12)
        assert output.constant == float(F.constant[c])
        assert output.complete
        assert output.status == "every check passed"
        assert all(pair.converged and pair.residual < 1e-13 for pair in output.pairs)


def test_equal_eigenvalues_say_how_many_they_are() -> None:
    """Σ w_h x_h² with w = (3, 2, 2, −2): 2 and −2 are equal in size, but not to each other."""
    identity = torch.eye(4, dtype=torch.float64)
    weight = torch.tensor([[3.0, 2.0, 2.0, -2.0]], dtype=torch.float64)
    (output,) = outputs(QuadraticMap(BilinearTensor(weight, identity, identity)), top=4)
    sizes = {round(pair.eigenvalue): pair.subspace_size for pair in output.pairs}
    assert sizes == {3: 1, 2: 2, -2: 1}


def test_a_form_of_zeros_has_nothing_to_explain() -> None:
    zero = torch.zeros(1, 2, dtype=torch.float64)
    (output,) = outputs(
        QuadraticMap(BilinearTensor(zero, zero.new_ones(2, 3), zero.new_ones(2, 3)))
    )
    assert [pair.explained for pair in output.pairs] == [0.0, 0.0, 0.0]
    assert output.effective_rank == 0.0


@pytest.mark.parametrize("scale", [1e-180, 1e180])
def test_a_norm_whose_square_leaves_float64_is_told(scale: float) -> None:
    identity = torch.eye(2, dtype=torch.float64)
    weight = scale * torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    (output,) = outputs(QuadraticMap(BilinearTensor(weight, identity, identity)))
    assert output.frobenius_norm == pytest.approx(5 * scale)
    assert [pair.explained for pair in output.pairs] == pytest.approx([0.64, 0.36])


def test_an_output_that_was_not_decomposed_says_so_and_the_others_stand() -> None:
    directions = torch.eye(3, dtype=torch.float64)
    directions[1, 0] = torch.nan
    eigs = eigendecompose_all(F, directions, k=None)
    found = summarise_spectra(select(eigs, 2, "magnitude"), "abc", torch.zeros(3), torch.ones(3))
    first, second, third = (to_json(output) for output in found)
    assert second["status"] == "it holds NaN or infinity, or leaves float64, so there is no result"
    assert (second["pairs"], second["complete"]) == ([], False)
    assert second["effective_rank"] is second["frobenius_norm"] is second["trace"] is None
    assert len(first["pairs"]) == len(third["pairs"]) == 2
    json.dumps([first, second, third], allow_nan=False)


def test_leading_pairs_alone_say_nothing_of_the_effective_rank() -> None:
    eigs = eigendecompose_all(F, k=2)
    found = summarise_spectra(eigs, "abc", F.tensor.traces(), None)
    assert [output.effective_rank for output in found] == [None] * 3
    assert [output.trace for output in found] == F.tensor.traces().tolist()


MAP = random_map(5, d_out=3, d_hidden=6, d_in=8)
E = torch.randn(8, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def chances(f: QuadraticMap, embedding: Tensor | None = None) -> tuple[NullInterval, ...]:
    return rank_null_intervals(f, embedding, 39, 0, lambda _done: None)


def scaled(down: float, left: float, right: float) -> QuadraticMap:
    tensor = MAP.tensor
    return QuadraticMap(
        BilinearTensor(down * tensor.down, left * tensor.left, right * tensor.right)
    )


@pytest.mark.parametrize("scale", [2.0**-500, 2.0**500])
def test_a_rank_by_chance_has_no_scale(scale: float) -> None:
    """Products of these overflow, or vanish: 2^±1500."""
    assert chances(scaled(scale, scale, scale)) == chances(MAP)
    assert chances(MAP, scale * E) == chances(MAP, E)


def test_aligned_branches_have_a_lower_rank_than_chance_gives() -> None:
    generator = torch.Generator().manual_seed(2)
    branch = torch.randn(12, 16, generator=generator, dtype=torch.float64)
    down = torch.eye(3, 12, dtype=torch.float64)  # output c is the square of one product
    f = QuadraticMap(BilinearTensor(down, branch, branch))
    ranks = effective_rank(eigendecompose_all(f, k=None).distinct_from_zero)
    assert ranks.tolist() == pytest.approx([1.0] * 3)
    assert all(level.low > 1.1 for level in chances(f))


def test_each_rotation_is_reported() -> None:
    done: list[int] = []
    rank_null_intervals(MAP, None, 39, 0, done.append)
    assert done == [*range(1, 40)]


def test_a_form_of_zeros_has_no_rank_by_chance() -> None:
    zero = scaled(0.0, 1.0, 1.0)
    assert chances(zero) == (NullInterval(0.0, 0.0, 0.0),) * 3
