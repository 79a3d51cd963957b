"""Comparing maps: differences, noise in their place, rounded weights, and cosines."""

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, strategies as st
from torch import Tensor, nn

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.directions import centred_directions
from bilens.algebra.gram import inner_products, kernel
from bilens.algebra.map_comparison import (
    Measure,
    map_difference,
    noise_change,
    noise_draw,
    quantise,
    similarity,
)
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import NonFiniteError, ShapeError, UsageError
from bilens.nn import BilinearClassifier
from bilens.nn.mlp_search.find_mlps import find_mlps
from builders import (
    D_IN,
    D_OUT,
    randn,
    random_map,
    random_tensor,
    rotation,
    seeded,
    vector,
)
from odd_tensors import LOW_PRECISION, SOUND, Odd
from peak_memory import Largest
from planted import dense_of
from strategies import SCALES, entries


@pytest.mark.parametrize("hidden", [6, 4])
def test_the_difference_is_that_of_the_dense_tensors(hidden: int) -> None:
    f, g = random_map(0, 4, 6, 5), random_map(1, 4, hidden, 5)
    delta = map_difference(f, g)
    torch.testing.assert_close(delta.tensor.dense(), g.tensor.dense() - f.tensor.dense())
    x = randn(7, 5, seed=3)
    torch.testing.assert_close(delta(x), g(x) - f(x))


def test_what_is_shared_leaves_no_neuron_and_nothing_cancels() -> None:
    f = random_map(0, 4, 6, 5)
    left = f.tensor.left.clone()
    left[2, 1] += 1e-12
    g = QuadraticMap(BilinearTensor(f.tensor.down, left, f.tensor.right))
    delta = map_difference(f, g)
    assert delta.sizes.d_hidden == 1
    step = float(left[2, 1] - f.tensor.left[2, 1])
    row = torch.zeros(5, dtype=torch.float64)
    row[1] = step
    half = torch.outer(row, f.tensor.right[2])
    expected = f.tensor.down[:, 2, None, None] * (half + half.T) / 2
    torch.testing.assert_close(delta.tensor.dense(), expected, rtol=1e-12, atol=0)
    same = map_difference(f, f)
    assert (same.sizes.d_hidden, float(same.tensor.norm())) == (1, 0)


def test_parts_that_one_map_lacks_are_zero() -> None:
    f, bare = random_map(0), QuadraticMap(random_map(0).tensor)
    found = map_difference(f, bare)
    torch.testing.assert_close(found.linear, -f.linear)
    gained = map_difference(bare, f).linear
    torch.testing.assert_close(gained, f.linear)
    assert map_difference(bare, bare).linear is None


def of_size(shape: torch.Size, size: float, seed: int) -> torch.Tensor:
    draw = randn(*shape, seed=seed)
    return size * draw / draw.square().mean().sqrt()


Steps = Callable[[int], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


def compare_with_samples(f: QuadraticMap, steps: Steps) -> None:
    """The closed form of one draw against the mean over many."""
    factors, scale, draws = (f.tensor.down, f.tensor.left, f.tensor.right), 1e-5, 800
    output, inputs = 0.0, 0.0
    for draw in range(draws):
        changed = BilinearTensor(
            *(p + scale * s for p, s in zip(factors, steps(draw), strict=True))
        )
        change = (changed.dense() - f.tensor.dense()) / scale
        output = output + torch.einsum("cij,dij->cd", change, change) / draws
        inputs = inputs + torch.einsum("cij,cjk->ik", change, change) / draws
    g = QuadraticMap(BilinearTensor(*(p + s for p, s in zip(factors, steps(7), strict=True))))
    found = noise_change(f, g)
    for mine, mean in ((found.output_gram, output), (found.input_gram, inputs)):
        assert isinstance(mean, torch.Tensor)
        torch.testing.assert_close(mine, mean, rtol=0, atol=0.1 * float(mean.max()))


@pytest.mark.parametrize("same", [False, True])
def test_the_null_interval_is_the_mean_over_noise_of_that_size(same: bool) -> None:
    f = random_map(2, 4, 6, 5)
    if same:  # an ordinary MLP
        f = QuadraticMap(BilinearTensor(f.tensor.down, f.tensor.left, f.tensor.left))

    def steps(draw: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        left = of_size(f.tensor.left.shape, 0.2, 3 * draw)
        right = left if same else of_size(f.tensor.left.shape, 0.5, 3 * draw + 1)
        return of_size(f.tensor.down.shape, 0.3, 3 * draw + 2), left, right

    compare_with_samples(f, steps)


def test_a_draw_has_the_size_of_the_change_and_stays_behind_the_embedding() -> None:
    embedding = randn(3, 6, seed=5)
    behind = random_map(2, 4, 7, 3).tensor
    f = QuadraticMap(behind).compose_input(embedding)
    moved = BilinearTensor(behind.down, behind.left + 1e-3 * randn(7, 3, seed=8), behind.right)
    g = QuadraticMap(moved).compose_input(embedding)
    generator = seeded(0)
    draw = noise_draw(f, g, generator, (embedding, embedding))
    rows = torch.linalg.svd(embedding).Vh[3:]  # what the embedding does not read
    assert float((draw.tensor.dense() @ rows.T).abs().max()) < 1e-12
    size = float(map_difference(f, g).tensor.norm())
    assert 0.3 < float(draw.tensor.norm()) / size < 3
    free = noise_draw(f, g, generator)
    assert float((free.tensor.dense() @ rows.T).abs().max()) > 1e-5


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_a_dtype_rounds_every_entry(kind: str) -> None:
    f = random_map(seed=1)
    found = quantise(f, kind)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.tensor.left, f.tensor.left.to(getattr(torch, kind)).double())
    assert torch.equal(found.linear.to(getattr(torch, kind)).double(), found.linear)
    again = quantise(found, kind)
    assert torch.equal(again.tensor.down, found.tensor.down)


def test_int8_has_127_steps_to_the_largest_entry_of_each_row() -> None:
    f = random_map(seed=2, d_in=40)
    left = f.tensor.left.clone()
    left[1] *= 1e-6
    left[2] = 0.0
    f = QuadraticMap(BilinearTensor(f.tensor.down, left, f.tensor.right), f.linear, f.constant)
    found = quantise(f, "int8")
    step = left.abs().amax(dim=1, keepdim=True) / 127
    assert bool(((found.tensor.left - left).abs() <= step / 2 * (1 + 1e-9)).all())
    for row, unit in zip(found.tensor.left, step, strict=True):
        if unit > 0:
            levels = row / unit
            torch.testing.assert_close(levels, levels.round(), atol=1e-9, rtol=0)
            assert float(levels.abs().max()) == pytest.approx(127)
    assert torch.equal(found.constant, f.constant)
    assert quantise(QuadraticMap(f.tensor), "int8").linear is None


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match=r"float8.*use one of float16"):
        quantise(random_map(), "float8")
    big = BilinearTensor(torch.full((1, 1), 1e6).double(), randn(1, 2), randn(1, 2))
    with pytest.raises(UsageError, match=r"1e\+06 is beyond float16"):
        quantise(QuadraticMap(big), "float16")


MEASURES: list[Measure] = ["frobenius", "gaussian"]
F, G = random_map(1), random_map(2, d_hidden=6)


def products(f: QuadraticMap, g: QuadraticMap, measure: Measure) -> Tensor:
    """⟨f_c, g_c⟩ of every output; the expectation by exact Gauss–Hermite quadrature."""
    if measure == "frobenius":
        return (dense_of(f) * dense_of(g)).sum(dim=(1, 2))
    # three nodes, 0 and ±√3, integrate polynomials of degree 5 exactly; f · g has degree 4
    nodes = {0.0: 2 / 3, 3**0.5: 1 / 6, -(3**0.5): 1 / 6}
    grid = [*itertools.product(nodes, repeat=f.sizes.d_in)]
    points = torch.tensor(grid, dtype=torch.float64)
    weights = torch.tensor([[nodes[t] for t in x] for x in grid], dtype=torch.float64).prod(dim=1)
    parts = [
        oracles.evaluate_map(
            m.tensor.down, m.tensor.left, m.tensor.right, m.linear, m.constant, points
        )
        for m in (f, g)
    ]
    return weights @ (parts[0] * parts[1])


def cosine(f: QuadraticMap, g: QuadraticMap, measure: Measure, per_output: bool) -> Tensor:
    inner = [products(*pair, measure) for pair in ((f, g), (f, f), (g, g))]
    cross, mine, theirs = inner if per_output else [part.sum() for part in inner]
    return cross / (mine * theirs).sqrt()


@pytest.mark.parametrize("per_output", [False, True])
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("drop", [(), ("linear",), ("constant",), ("linear", "constant")], ids=str)
def test_a_similarity_is_the_cosine_of_its_definition(
    measure: Measure, per_output: bool, drop: tuple[str, ...]
) -> None:
    f = replace(F, **dict.fromkeys(drop))
    for first, second in ((f, G), (G, f), (f, f + G)):
        found = similarity(first, second, measure, per_output)
        assert found.shape == ((D_OUT,) if per_output else ())
        assert found.dtype is torch.float64
        torch.testing.assert_close(found, cosine(first, second, measure, per_output))


@pytest.mark.parametrize("per_output", [False, True])
@pytest.mark.parametrize("measure", MEASURES)
def test_gradients_are_those_of_the_definition(measure: Measure, per_output: bool) -> None:
    left, linear = (part.clone().requires_grad_() for part in (F.tensor.left, F.linear))
    live = QuadraticMap(replace(F.tensor, left=left), linear, F.constant)
    wanted = [left, linear] if measure == "gaussian" else [left]
    ours = torch.autograd.grad(similarity(live, G, measure, per_output).sum(), wanted)
    theirs = torch.autograd.grad(cosine(live, G, measure, per_output).sum(), wanted)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("per_output", [False, True])
@pytest.mark.parametrize("measure", MEASURES)
def test_a_map_is_like_its_multiples_and_unlike_its_negative(
    measure: Measure, per_output: bool
) -> None:
    twice = F.compose_output(2 * torch.eye(D_OUT, dtype=torch.float64))
    minus = F.compose_output(-3 * torch.eye(D_OUT, dtype=torch.float64))
    ones = torch.ones(D_OUT if per_output else (), dtype=torch.float64)
    torch.testing.assert_close(similarity(F, twice, measure, per_output), ones)
    torch.testing.assert_close(similarity(F, minus, measure, per_output), -ones)


@given(st.data(), SCALES, st.sampled_from(MEASURES), st.booleans())
def test_a_similarity_does_not_see_how_a_map_is_written(
    data: st.DataObject, scale: float, measure: Measure, per_output: bool
) -> None:
    """Swapped branches, neurons in another order and scale, both inputs turned alike."""
    b = BilinearTensor(data.draw(entries(2, 3)), data.draw(entries(3, 4)), data.draw(entries(3, 4)))
    f = QuadraticMap(b, data.draw(entries(2, 4)), data.draw(entries(2)))
    g = random_map(3, d_out=2, d_hidden=3, d_in=4)
    mass = products(f, f, measure)
    assume(float(mass.min()) > 1e-3)
    order, turn = data.draw(st.permutations(range(3))), rotation(4)
    expected = similarity(f, g, measure, per_output)
    for twin in (
        BilinearTensor(b.down, b.right, b.left),
        BilinearTensor(b.down[:, order], b.left[order], b.right[order]),
        BilinearTensor(b.down / scale, b.left * scale, b.right),
    ):
        found = similarity(QuadraticMap(twin, f.linear, f.constant), g, measure, per_output)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    turned = similarity(f.compose_input(turn), g.compose_input(turn), measure, per_output)
    torch.testing.assert_close(turned, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(similarity(g, f, measure, per_output), expected)


@pytest.mark.parametrize("per_output", [False, True])
@pytest.mark.parametrize("measure", MEASURES)
def test_a_form_that_is_added_to_all_classes_is_seen_unless_they_are_centred(
    measure: Measure, per_output: bool
) -> None:
    """Softmax predictions do not change by it."""
    shared = random_map(5, d_out=1, d_hidden=2, d_in=F.sizes.d_in)
    g = F + shared.compose_output(torch.ones(F.sizes.d_out, 1, dtype=torch.float64))
    centred = (each.compose_output(centred_directions(F.sizes.d_out)) for each in (F, g))
    same = similarity(*centred, measure, per_output)
    torch.testing.assert_close(same, torch.ones_like(same))
    assert float(similarity(F, g, measure, per_output).max()) < 0.999


def test_left_and_right_are_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200 inputs, 16 hidden units at a time; no copy in float64 is made."""
    for part in (kernel, inner_products):
        monkeypatch.setattr(part, "rows_within", lambda *_: 16)
    f = random_map(d_hidden=64, d_in=200).to(torch.float32)
    f = QuadraticMap(f.tensor)
    with Largest() as seen:
        similarity(f, f)
    assert seen.numel <= 16 * 200


def test_affine_terms_take_no_part_in_the_frobenius_cosine() -> None:
    assert float(similarity(F, QuadraticMap(F.tensor))) == pytest.approx(1.0, abs=1e-12)
    assert float(similarity(F, QuadraticMap(F.tensor), "gaussian")) < 0.999


def test_maps_without_a_quadratic_part_can_still_be_compared_over_a_gaussian() -> None:
    """f = x₁, g = x₁ + x₂ on two inputs: E fg = 1, E f² = 1, E g² = 2."""
    nothing = BilinearTensor(torch.zeros(1, 1), torch.zeros(1, 2), torch.zeros(1, 2))
    f = QuadraticMap(nothing, torch.tensor([[1.0, 0.0]]))
    g = QuadraticMap(nothing, torch.tensor([[1.0, 1.0]]))
    assert float(similarity(f, g, "gaussian")) == pytest.approx(2**-0.5)
    with pytest.raises(UsageError, match="the first map cannot be told from zero"):
        similarity(f, g)


@pytest.mark.parametrize("scale", [1e-200, 1e-100, 1e100, 1e140])
@pytest.mark.parametrize("per_output", [False, True])
@pytest.mark.parametrize("measure", MEASURES)
def test_scales_whose_squares_float64_cannot_hold_do_no_harm(
    measure: Measure, per_output: bool, scale: float
) -> None:
    huge = F.compose_output(scale * torch.eye(D_OUT, dtype=torch.float64))
    torch.testing.assert_close(
        similarity(huge, G, measure, per_output), similarity(F, G, measure, per_output)
    )


def test_an_output_may_be_far_smaller_than_the_others() -> None:
    shrink = torch.diag(vector(1, 1e-200, 1))
    torch.testing.assert_close(
        similarity(F.compose_output(shrink), G, per_output=True), similarity(F, G, per_output=True)
    )


@pytest.mark.parametrize("measure", MEASURES)
def test_an_output_of_zeros_has_no_cosine_and_the_others_keep_theirs(measure: Measure) -> None:
    """As a whole the map has a direction; its output 1 has none."""
    dead = G.compose_output(torch.diag(vector(1, 0, 1)))
    assert -1 < float(similarity(F, dead, measure)) < 1
    expected = similarity(F, G, measure, per_output=True)
    expected[1] = torch.nan
    for found in (
        similarity(F, dead, measure, per_output=True),
        similarity(dead, F, measure, per_output=True),
    ):
        torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("measure", MEASURES)
def test_an_output_of_zeros_spoils_no_gradient_of_the_others(measure: Measure) -> None:
    dead = F.compose_output(torch.diag(vector(1, 0, 1)))
    left = F.tensor.left.clone().requires_grad_()

    def gradient(f: QuadraticMap) -> Tensor:
        live = replace(f, tensor=replace(f.tensor, left=left))
        outputs = similarity(live, G, measure, per_output=True)[[0, 2]]
        return torch.autograd.grad(outputs.sum(), left)[0]

    torch.testing.assert_close(gradient(dead), gradient(F))


@pytest.mark.parametrize(("left_over", "known"), [(1e-7, False), (1e-4, True)])
def test_a_length_within_a_few_times_its_rounding_is_none(left_over: float, known: bool) -> None:
    """Terms of length 1 that cancel to 1e-7: their squares are off by 1e-15, a tenth of 1e-14."""
    b = random_tensor(d_out=1, d_hidden=1)
    nearly = BilinearTensor(
        b.down * vector(1, left_over - 1),
        torch.cat([b.left, b.left]),
        torch.cat([b.right, b.right]),
    )
    found = similarity(QuadraticMap(nearly), QuadraticMap(b), per_output=True)
    assert bool(found.isfinite()) is known


def test_a_map_that_only_rounding_keeps_from_zero_has_no_direction() -> None:
    b = random_tensor(d_in=50)
    nothing = BilinearTensor(
        torch.cat([b.down / 3, -b.down / 3], dim=1),
        torch.cat([b.left, b.right]),
        torch.cat([b.right, b.left]),
    )
    with pytest.raises(UsageError, match=r"the first map cannot be told from zero \(length at mo"):
        similarity(QuadraticMap(nothing), QuadraticMap(b))


def test_maps_and_measures_that_do_not_fit_are_refused() -> None:
    for other in (random_map(d_in=D_IN + 1), random_map(d_out=D_OUT + 1)):
        with pytest.raises(ShapeError, match=r"maps 5 → 3 and \d → \d cannot be compared"):
            similarity(F, other)
    for other in (random_tensor(), None, randn(2, 2)):
        with pytest.raises(UsageError, match=r"g is a \w+; expected QuadraticMap: use the layer's"):
            similarity(F, other)
    with pytest.raises(UsageError, match="the input and the embedding basis cannot be compared"):
        similarity(F, replace(G, basis="embedding"))
    first, second = (BilinearClassifier(5, 4, 3, n_layers=2) for _ in range(2))
    same = copy.deepcopy(first).double()
    for read in (lambda m: m.layer_map(1), lambda m: m.layer_map(0, "embedding")):
        with pytest.raises(UsageError, match="numbers are of different coordinates"):
            similarity(read(first), read(second))
        assert float(similarity(read(first), read(same)).detach()) == pytest.approx(1)
    blocks = [part for _ in range(2) for part in (nn.Linear(5, 5), nn.ReLU())]
    with pytest.raises(UsageError, match="numbers are of different coordinates"):
        similarity(
            *(one.quadratic_map for one in find_mlps(nn.Sequential(*blocks)).layers.values())
        )
    with pytest.raises(UsageError, match="measure='cosine' is not known: use one of frobenius, ga"):
        similarity(F, G, "cosine")
    b = random_tensor()
    with pytest.raises(NonFiniteError, match="of row 0 of weights is beyond float64"):
        similarity(QuadraticMap(BilinearTensor(b.down * 1e150, b.left * 1e150, b.right * 1e150)), G)
    with pytest.raises(ShapeError, match="cannot be compared"):
        map_difference(random_map(0, 4, 6, 5), random_map(0, 3, 6, 5))
    with pytest.raises(UsageError, match="g is a int"):
        map_difference(random_map(0), 3)
    with pytest.raises(ShapeError, match="no weights that correspond"):
        noise_change(random_map(0, 4, 6, 5), random_map(0, 4, 5, 5))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_maps_of_two_precisions_are_compared_in_float64(
    dtype: torch.dtype, measure: Measure
) -> None:
    low = F.to(dtype)
    exact = similarity(low.to(torch.float64), G, measure)
    assert torch.equal(similarity(low, G, measure), exact)


@pytest.mark.parametrize("odd", SOUND, ids=str)
def test_unusual_factors_change_nothing(odd: Odd) -> None:
    b = F.tensor
    twin = QuadraticMap(
        BilinearTensor(odd.of(b.down), odd.of(b.left), odd.of(b.right)),
        odd.of(F.linear),
        odd.of(F.constant),
    )
    found = similarity(twin, G, "gaussian").detach()
    torch.testing.assert_close(found, similarity(F, G, "gaussian"))
