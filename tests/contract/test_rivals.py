"""Guards against certificates that name an output which never wins, or hang on notation."""

import torch
from hypothesis import given, strategies as st
from torch import Tensor

import bilens as bl
from bilens.certify import l2_radius
from contract.drawn import drawn
from contract.table import cell

SEEDS = st.integers(0, 10**6)
OUT, HIDDEN, WIDTH, ROWS = 4, 6, 5, 8


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn_map(seed: int) -> tuple[bl.QuadraticMap, Tensor, Tensor]:
    """A map, inputs, and the outputs that win there, by hand."""
    down, left, right = (
        randn(*shape, seed=seed + index)
        for index, shape in enumerate(((OUT, HIDDEN), (HIDDEN, WIDTH), (HIDDEN, WIDTH)))
    )
    linear, constant = randn(OUT, WIDTH, seed=seed + 3), randn(OUT, seed=seed + 4)
    f = bl.QuadraticMap(bl.BilinearTensor(down, left, right), linear, constant)
    x = randn(ROWS, WIDTH, seed=seed + 5)
    y = ((x @ left.T) * (x @ right.T)) @ down.T + x @ linear.T + constant
    return f, x, y.argmax(dim=1)


def values(f: bl.QuadraticMap, x: Tensor) -> Tensor:
    """The map by hand."""
    down, left, right = f.tensor.down, f.tensor.left, f.tensor.right
    y = ((x @ left.T) * (x @ right.T)) @ down.T
    y = y if f.linear is None else y + x @ f.linear.T
    return y if f.constant is None else y + f.constant


def test_an_output_that_is_always_below_is_no_rival() -> None:
    down = randn(1, HIDDEN, seed=0).expand(2, -1)
    left, right = randn(HIDDEN, WIDTH, seed=1), randn(HIDDEN, WIDTH, seed=2)
    constant = torch.tensor([1.0, 0.0]).double()  # the second one is the first less 1, everywhere
    f = bl.QuadraticMap(bl.BilinearTensor(down, left, right), None, constant)
    found = l2_radius(f, randn(ROWS, WIDTH, seed=3), [0] * ROWS)
    assert found.rival.tolist() == [-1] * ROWS
    assert bool(found.distance.isinf().all())


@cell("certify", "own object", "other function")
@drawn
@given(SEEDS)
def test_the_rival_is_who_wins_at_the_example(seed: int) -> None:
    f, x, label = drawn_map(seed)
    # one more output, below another one everywhere: a square is taken from it
    parts = f.tensor.down, f.tensor.left, f.tensor.right
    rows = [torch.cat([part, randn(1, WIDTH, seed=seed + 6)]) for part in parts[1:]]
    rows[1][-1] = rows[0][-1]
    down = torch.zeros(OUT + 1, HIDDEN + 1).double()
    down[:OUT, :-1], down[OUT, :-1], down[OUT, -1] = parts[0], parts[0][1], -1.0
    assert f.linear is not None
    assert f.constant is not None
    wide = bl.QuadraticMap(
        bl.BilinearTensor(down, *rows),
        torch.cat([f.linear, f.linear[1:2]]),
        torch.cat([f.constant, f.constant[1:2] - 1e-6]),
    )
    found = l2_radius(wide, x, label)
    assert OUT not in found.rival.tolist()
    there = found.distance.isfinite()
    y = values(wide, found.example[there]).scatter(1, label[there, None], -torch.inf)
    assert found.rival[there].tolist() == y.argmax(dim=1).tolist()
    assert found.rival[~there].tolist() == [-1] * int((~there).sum())


@cell("certify", "common function", "permuted units", "scaled branches", "same function")
@drawn
@given(SEEDS)
def test_radii_do_not_hang_on_how_the_map_is_written(seed: int) -> None:
    f, x, label = drawn_map(seed)
    found = l2_radius(f, x, label)
    order = torch.randperm(HIDDEN, generator=torch.Generator().manual_seed(seed))
    tensor, shift = f.tensor, randn(1, HIDDEN, seed=seed + 7)
    assert f.linear is not None
    assert f.constant is not None
    other = bl.QuadraticMap(
        bl.BilinearTensor(
            (tensor.down + shift)[:, order], 4 * tensor.right[order], tensor.left[order] / 4
        ),
        f.linear + randn(1, WIDTH, seed=seed + 8),
        f.constant + 3.0,
    )
    again = l2_radius(other, x, label)
    torch.testing.assert_close(again.radius, found.radius, rtol=1e-6, atol=1e-9)
    assert again.rival.tolist() == found.rival.tolist()


@cell("certify", "permuted outputs", "permuted inputs")
@drawn
@given(SEEDS)
def test_outputs_and_inputs_in_another_order_have_the_same_radii(seed: int) -> None:
    f, x, label = drawn_map(seed)
    found = l2_radius(f, x, label)
    generator = torch.Generator().manual_seed(seed)
    outputs, inputs = (torch.randperm(n, generator=generator) for n in (OUT, WIDTH))
    assert f.linear is not None
    assert f.constant is not None
    turned = bl.QuadraticMap(
        bl.BilinearTensor(
            f.tensor.down[outputs], f.tensor.left[:, inputs], f.tensor.right[:, inputs]
        ),
        f.linear[outputs][:, inputs],
        f.constant[outputs],
    )
    place = outputs.argsort()
    again = l2_radius(turned, x[:, inputs], place[label])
    torch.testing.assert_close(again.radius, found.radius, rtol=1e-6, atol=1e-9)
    expected = [-1 if one < 0 else int(place[one]) for one in found.rival.tolist()]
    assert again.rival.tolist() == expected
