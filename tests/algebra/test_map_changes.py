"""The difference of two maps, noise in its place, and rounded weights."""

from collections.abc import Callable

import pytest
import torch

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.map_comparison import map_difference, noise_change, noise_draw, quantise
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import ShapeError, UsageError
from builders import randn, random_map


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
    assert f.linear is not None
    found = map_difference(f, bare)
    assert found.linear is not None
    torch.testing.assert_close(found.linear, -f.linear)
    gained = map_difference(bare, f).linear
    assert gained is not None
    torch.testing.assert_close(gained, f.linear)
    assert map_difference(bare, bare).linear is None


def test_maps_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ShapeError, match="cannot be compared"):
        map_difference(random_map(0, 4, 6, 5), random_map(0, 3, 6, 5))
    with pytest.raises(UsageError, match="g is a int"):
        map_difference(random_map(0), 3)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="no weights that correspond"):
        noise_change(random_map(0, 4, 6, 5), random_map(0, 4, 5, 5))


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
    generator = torch.Generator().manual_seed(0)
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
    found = quantise(f, kind)  # type: ignore[arg-type]
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.tensor.left, f.tensor.left.to(getattr(torch, kind)).double())
    assert found.linear is not None
    assert torch.equal(found.linear.to(getattr(torch, kind)).double(), found.linear)
    again = quantise(found, kind)  # type: ignore[arg-type]
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
    assert torch.equal(found.constant, f.constant)  # type: ignore[arg-type]
    assert quantise(QuadraticMap(f.tensor), "int8").linear is None


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match=r"float8.*use one of float16"):
        quantise(random_map(), "float8")  # type: ignore[arg-type]
    big = BilinearTensor(torch.full((1, 1), 1e6).double(), randn(1, 2), randn(1, 2))
    with pytest.raises(UsageError, match=r"1e\+06 is beyond float16"):
        quantise(QuadraticMap(big), "float16")
