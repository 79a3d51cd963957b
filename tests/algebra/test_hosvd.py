"""HOSVD against dense arrays, and what it takes in memory."""

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor, FactorSizes
from bilens.algebra.hosvd import check_mode_memory, hosvd
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import MemoryLimitError, NonFiniteError, UsageError
from builders import D_HIDDEN, D_IN, D_OUT, randn, random_map, random_tensor, rotation
from odd_tensors import LOW_PRECISION, SOUND, Odd
from peak_memory import OVERHEAD, peak_of
from planted import dense_of
from strategies import SCALES, maps, rotations

LOOSE = {"rtol": 1e-9, "atol": 1e-8}


def projected(b: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """B ×₁ UᵀU ×₂ VᵀV ×₃ VᵀV, from the dense tensor."""
    out, side = rows.T @ rows, columns.T @ columns
    return torch.einsum("po,oij,ik,jl->pkl", out, b, side, side)


@given(maps())
def test_the_values_of_both_modes_are_those_of_a_dense_svd(f: QuadraticMap) -> None:
    """√ of a Gram matrix's rounding is all that is lost where a value is zero."""
    found, b = hosvd(f), dense_of(f)
    for ours, matrix in (
        (found.singular_values, b.flatten(1)),
        (found.input.singular_values, b.movedim(1, 0).flatten(1)),
    ):
        exact = torch.zeros_like(ours)
        values = torch.linalg.svdvals(matrix)
        exact[: len(values)] = values
        # A value of zero comes out of a Gram matrix as the root of its rounding: ‖B‖ √(n ε).
        allowed = float(values.max()) * (len(values) * torch.finfo(torch.float64).eps) ** 0.5
        torch.testing.assert_close(ours, exact, rtol=1e-9, atol=allowed)


@given(maps(), st.data(), SCALES)
def test_values_do_not_see_how_a_map_is_written(
    f: QuadraticMap, data: st.DataObject, scale: float
) -> None:
    """Swapped branches, neurons in another order and scale, a turned input, turned outputs."""
    b, expected = f.tensor, hosvd(f)
    order = data.draw(st.permutations(range(f.sizes.d_hidden)))
    turn, head = data.draw(rotations(f.sizes.d_in)), data.draw(rotations(f.sizes.d_out))
    for twin in (
        QuadraticMap(BilinearTensor(b.down, b.right, b.left)),
        QuadraticMap(BilinearTensor(b.down[:, order], b.left[order], b.right[order])),
        QuadraticMap(BilinearTensor(b.down / scale, b.left, b.right * scale)),
        f.compose_input(turn),
        f.compose_output(head),
    ):
        found = hosvd(twin)
        for mine, theirs in ((found.output, expected.output), (found.input, expected.input)):
            apart = (mine.singular_values - theirs.singular_values).abs()
            known = mine.rounding + theirs.rounding
            assert (apart <= known + 1e-8 + 1e-9 * theirs.singular_values).all()


@given(maps(), st.data())
def test_a_turned_input_turns_the_input_space(f: QuadraticMap, data: st.DataObject) -> None:
    """Directions are compared as Σ σ² v vᵀ = Σ_c Q_c², which does not see clusters."""
    turn = data.draw(rotations(f.sizes.d_in))
    here, there = hosvd(f).input, hosvd(f.compose_input(turn)).input

    def mass(directions: Tensor, values: Tensor) -> Tensor:
        return (directions.T * values.square()) @ directions

    torch.testing.assert_close(
        turn @ mass(there.directions, there.singular_values) @ turn.T,
        mass(here.directions, here.singular_values),
        **LOOSE,
    )
    torch.testing.assert_close(
        mass(here.directions, here.singular_values), oracles.input_gram(dense_of(f)), **LOOSE
    )


@given(maps(), st.data())
def test_a_truncation_and_its_error_are_those_of_the_dense_tensor(
    f: QuadraticMap, data: st.DataObject
) -> None:
    found, b = hosvd(f), dense_of(f)
    d_out, _, d_in = f.sizes
    outputs = data.draw(st.none() | st.integers(1, d_out))
    inputs = data.draw(st.none() | st.integers(1, d_in))
    expected = projected(
        b, found.output_directions[: outputs or d_out], found.input_directions[: inputs or d_in]
    )
    truncated = found.truncate(outputs, inputs)
    torch.testing.assert_close(dense_of(truncated), expected, **LOOSE)
    error = found.truncation_error(outputs, inputs)
    exact = oracles.norm(b - expected)
    assert abs(float(error.exact) - float(exact)) <= float(error.rounding) + 1e-13 * float(
        oracles.norm(b)
    )
    assert float(error.exact) <= float(error.bound) + float(error.rounding)


def test_an_error_far_below_the_tensor_is_still_exact() -> None:
    """‖B − B'‖ = 1e-9 ‖B‖ could not be had from ‖B‖² − ‖B'‖², where it is 1e-18."""
    f = random_map(d_out=4, d_hidden=6, d_in=5)
    small = torch.tensor([1.0, 0.8, 0.7, 1e-9, 0.5e-9], dtype=torch.float64)
    f = QuadraticMap(f.tensor).compose_input(torch.diag(small) @ rotation(5))
    found = hosvd(f)
    error = found.truncation_error(input_rank=3)
    exact = oracles.norm(dense_of(f) - dense_of(found.truncate(input_rank=3)))
    assert 1e-10 < float(error.exact / found.frobenius_squared.sqrt()) < 1e-8
    assert float(error.exact) == pytest.approx(float(exact), rel=1e-6)


def test_linear_and_constant_terms_pass_a_truncation_unchanged() -> None:
    f = random_map()
    truncated = hosvd(f).truncate(1, 2)
    assert torch.equal(truncated.linear, f.linear)
    assert torch.equal(truncated.constant, f.constant)


@given(maps())
def test_forms_of_singular_directions_are_orthogonal_and_as_long_as_their_values(
    f: QuadraticMap,
) -> None:
    found = hosvd(f)
    matrices = torch.stack([form.dense() for form in found.forms])
    gram = torch.einsum("aij,bij->ab", matrices, matrices)
    torch.testing.assert_close(gram, torch.diag(found.singular_values.square()), **LOOSE)


def test_a_form_is_the_map_read_along_its_direction() -> None:
    f, x = random_map(), randn(7, D_IN)
    found = hosvd(f)
    for index, form in enumerate(found.forms):
        torch.testing.assert_close(form(x), f(x) @ found.output_directions[index])
        torch.testing.assert_close(found.form(index)(x), form(x))


def test_the_core_has_the_norm_of_the_tensor_and_rebuilds_it() -> None:
    f = random_map()
    found = hosvd(f)
    core = found.core(D_OUT, D_IN)
    torch.testing.assert_close(core.square().sum(), found.frobenius_squared)
    torch.testing.assert_close(found.frobenius_squared.sqrt(), f.tensor.norm())
    u, v = found.output_directions, found.input_directions
    torch.testing.assert_close(torch.einsum("oij,op,ik,jl->pkl", core, u, v, v), dense_of(f))


def test_slices_of_the_core_are_orthogonal_in_every_mode() -> None:
    """All-orthogonality, the property that makes it a higher-order SVD."""
    found = hosvd(random_map())
    core = found.core(D_OUT, D_IN)
    for axis, values in ((0, found.singular_values), (1, found.input.singular_values)):
        flat = core.movedim(axis, 0).flatten(1)
        torch.testing.assert_close(flat @ flat.T, torch.diag(values.square()), **LOOSE)


def test_a_rank_keeps_the_leading_directions_of_both_modes() -> None:
    f = random_map()
    whole, cut = hosvd(f), hosvd(f, rank=2)
    assert torch.equal(cut.singular_values, whole.singular_values[:2])
    assert torch.equal(cut.input_directions, whole.input_directions[:2])
    assert len(cut.forms) == 2
    torch.testing.assert_close(cut.frobenius_squared, whole.frobenius_squared)
    mine, theirs = cut.truncation_error(1, 2), whole.truncation_error(1, 2)
    torch.testing.assert_close((mine.exact, mine.bound), (theirs.exact, theirs.bound))


def test_more_outputs_than_units_are_decomposed_in_the_span_of_their_weights() -> None:
    f = random_map(3, 9, 4, 6)
    whole, cut = hosvd(f), hosvd(f, rank=4)
    torch.testing.assert_close(cut.singular_values, whole.singular_values[:4])
    torch.testing.assert_close(cut.output_directions, whole.output_directions[:4])
    torch.testing.assert_close(cut.frobenius_squared, whole.frobenius_squared)


def test_a_mode_that_is_shorter_than_the_rank_gives_all_of_its_directions() -> None:
    found = hosvd(random_map(), rank=D_OUT + 1)
    assert (len(found.output_directions), len(found.input_directions)) == (D_OUT, D_OUT + 1)


def test_the_inputs_are_not_decomposed_before_they_are_asked_for() -> None:
    found = hosvd(random_map())
    _ = found.forms, found.truncate(1), found.truncation_error(1)
    assert "input" not in vars(found)
    assert found.input is found.input


def test_a_map_of_zeros_has_zeros_and_can_be_truncated() -> None:
    f = QuadraticMap(BilinearTensor(torch.zeros(2, 3), torch.ones(3, 4), torch.ones(3, 4)))
    found = hosvd(f)
    assert found.singular_values.tolist() == [0.0, 0.0]
    assert found.output.cluster_size.tolist() == [2, 2]
    error = found.truncation_error(1, 1)
    assert (float(error.exact), float(error.bound), float(error.rounding)) == (0.0, 0.0, 0.0)


def test_bad_arguments_are_refused() -> None:
    for rank in (0, -1, 2.0, True, "2"):
        with pytest.raises(UsageError, match="rank must be an integer of at least 1"):
            hosvd(random_map(), rank)
    for what in (random_tensor(), randn(2, 3), None):
        with pytest.raises(UsageError, match=r"f is a \w+; expected QuadraticMap: use the layer's"):
            hosvd(what)
    found = hosvd(random_map(), rank=2)
    for call in (found.truncate, found.truncation_error, found.core):
        with pytest.raises(UsageError, match=r"output_rank=3, but 2 singular .* larger rank"):
            call(3, 1)
        with pytest.raises(UsageError, match=r"input_rank=3, but 2 singular .* larger rank"):
            call(1, 3)
        with pytest.raises(UsageError, match="input_rank must be an integer of at least 1"):
            call(1, 0)
    with pytest.raises(UsageError, match="index=2, but only 2 singular directions"):
        found.form(2)
    with pytest.raises(UsageError, match="index must be an integer of at least 0"):
        found.form(-1)
    b = random_tensor()
    with pytest.raises(NonFiniteError, match="down times the lengths of the rows"):
        hosvd(QuadraticMap(BilinearTensor(b.down * 1e150, b.left * 1e150, b.right * 1e150)))


@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_low_precision_maps_are_decomposed_in_float64(dtype: torch.dtype) -> None:
    f = random_map().to(dtype)
    found, exact = hosvd(f), hosvd(f.to(torch.float64))
    assert found.singular_values.dtype is found.input_directions.dtype is torch.float64
    assert torch.equal(found.singular_values, exact.singular_values)
    assert found.truncate(1, 1).dtype is torch.float64


@pytest.mark.parametrize("odd", SOUND, ids=str)
def test_unusual_factors_change_nothing_and_leave_no_graph(odd: Odd) -> None:
    b = random_tensor()
    f = QuadraticMap(BilinearTensor(odd.of(b.down), odd.of(b.left), odd.of(b.right)))
    found = hosvd(f)
    torch.testing.assert_close(found.singular_values, hosvd(random_map()).singular_values)
    for part in (found.singular_values, found.input_directions, found.truncate(1).tensor.down):
        assert not part.requires_grad


def test_the_map_is_not_changed() -> None:
    f, copy = random_map(), random_map()
    hosvd(f).truncation_error(1, 1)
    assert f.sizes.d_hidden == D_HIDDEN
    for name in ("down", "left", "right"):
        assert torch.equal(getattr(f.tensor, name), getattr(copy.tensor, name))


def test_what_does_not_fit_is_refused_before_it_is_computed() -> None:
    """The outputs now; the inputs and the error of a truncation of them when they are read."""
    f = random_map(d_out=2, d_in=9)
    need = check_mode_memory(f.sizes, "out", copies=1)
    with pytest.raises(MemoryLimitError, match=r"along 2 outputs .*, or allow a larger memory_lim"):
        hosvd(f, memory_limit=need - 1)
    within = hosvd(f, memory_limit=need)
    for read in (lambda: within.input, lambda: within.truncation_error(input_rank=2)):
        with pytest.raises(MemoryLimitError, match=r"along 9 inputs .*: .* with compose_input"):
            read()
    enough = check_mode_memory(f.sizes, "in", copies=1)
    assert len(hosvd(f, memory_limit=enough).input_directions) == 9


def test_a_low_precision_map_counts_its_copy_in_float64() -> None:
    need = check_mode_memory(random_map().sizes, "out", copies=1)
    with pytest.raises(MemoryLimitError):
        hosvd(random_map().to(torch.float32), memory_limit=need)


CODE = """
import torch
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.hosvd import hosvd
from bilens.algebra.quadratic_map import QuadraticMap
from builders import random_map, random_tensor
"""
CANCELLING = """
b = random_tensor(0, 1500, 32, 64)
down = torch.cat([b.down, 1e-9 * b.down.roll(1, 0) - b.down], dim=1)
f = QuadraticMap(BilinearTensor(down, torch.cat([b.left, b.left]), torch.cat([b.right, b.right])))
"""


@pytest.mark.parametrize(
    ("sizes", "axis", "code"),
    [
        pytest.param(
            (1500, 64, 64),
            "out",
            "f = random_map(0, 1500, 64, 64)\nmeasure(lambda: hosvd(f, 2))",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (1500, 64, 64),
            "out",
            CANCELLING + "measure(lambda: hosvd(f, 2))",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            (8, 64, 1200),
            "in",
            "h = hosvd(random_map(0, 8, 64, 1200))\nmeasure(lambda: h.input)",
            marks=pytest.mark.slow,
        ),
        (
            (8, 64, 1200),
            "in",
            "h = hosvd(random_map(0, 8, 64, 1200), 2)\nh.input\n"
            "measure(lambda: h.truncation_error(1, 2))",
        ),
    ],
    ids=["outputs", "slices that are built", "inputs", "error"],
)
def test_no_more_than_was_counted_is_taken(
    sizes: tuple[int, int, int], axis: str, code: str
) -> None:
    assert peak_of(CODE + code) <= check_mode_memory(FactorSizes(*sizes), axis, 1) + OVERHEAD
