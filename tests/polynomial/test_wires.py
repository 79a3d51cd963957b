"""Guards against wrong wires: spectra, truncation and its error, against the dense tree tensor."""

import pytest
import torch
from torch import Tensor

import bilens as bl
from bilens.base.errors import UsageError
from bilens.polynomial.composition import with_residual
from bilens.polynomial.network import PolynomialNetwork, QuadraticLayer
from bilens.polynomial.wires import TreeLayer, WireDecomposition, homogeneous

WIDTH, OUTPUTS = 2, 3
KINDS = [(1, False, True), (2, True, True), (2, False, False), (3, True, True), (3, False, False)]


def layers(depth: int, residual: bool, bias: bool, units: int = 4) -> PolynomialNetwork:
    generator = torch.Generator().manual_seed(depth)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64) / 2

    parts = tuple(
        QuadraticLayer(
            bl.QuadraticMap(
                bl.BilinearTensor(drawn(WIDTH, units), drawn(units, WIDTH), drawn(units, WIDTH)),
                drawn(WIDTH, WIDTH) if bias else None,
                drawn(WIDTH) if bias else None,
            ),
            residual,
        )
        for _ in range(depth)
    )
    return PolynomialNetwork(parts, head=drawn(OUTPUTS, WIDTH), head_bias=drawn(OUTPUTS))


def dense(tree: list[TreeLayer], head: Tensor) -> Tensor:
    """The whole tensor, (outputs, leaves), each layer symmetric in its two inputs."""
    wire = torch.eye(tree[0].left.shape[1], dtype=torch.float64)
    for one in tree:
        core = torch.einsum("oh,hi,hj->oij", one.down, one.left, one.right)
        core = (core + core.mT) / 2
        wire = torch.einsum("oij,ia,jb->oab", core, wire, wire).flatten(1)
    return head @ wire


def dense_network(f: PolynomialNetwork) -> Tensor:
    assert f.head is not None
    assert f.head_bias is not None
    tree = [homogeneous(with_residual(part)) for part in f.parts]
    return dense(tree, torch.cat([f.head, f.head_bias[:, None]], dim=1))


def cut(found: WireDecomposition, widths: list[int]) -> Tensor:
    """The dense tensor in which every copy of a wire is projected."""
    tree, before = [], found.layers[0].left.shape[1]
    for one, width in zip(found.layers, widths, strict=True):
        tree.append(TreeLayer(one.down[:width], one.left[:, :before], one.right[:, :before]))
        before = width
    return dense(tree, found.head[:, : widths[-1]])


@pytest.mark.parametrize(("depth", "residual", "bias"), KINDS)
def test_spectra_are_those_of_the_dense_tensor(depth: int, residual: bool, bias: bool) -> None:
    f = layers(depth, residual, bias)
    found, tensor = bl.decompose_wires(f), dense_network(f)
    torch.testing.assert_close(cut(found, [len(one) for one in found.spectra]), tensor)
    width = WIDTH + 1  # with the constant
    for level, spectrum in enumerate(found.spectra, start=1):
        group = width ** (2**level)  # the leaves below one copy of the wire
        flat = tensor.reshape(OUTPUTS, -1, group).transpose(1, 2)
        singular = torch.linalg.svdvals(flat.transpose(0, 1).reshape(group, -1)).square()
        torch.testing.assert_close(
            spectrum, singular[: len(spectrum)], rtol=1e-8, atol=1e-12 * found.squared_norm
        )
        assert float(singular[len(spectrum) :].sum()) <= 1e-10 * found.squared_norm


@pytest.mark.parametrize(("depth", "residual", "bias"), KINDS)
def test_truncation_knows_its_error(depth: int, residual: bool, bias: bool) -> None:
    f = layers(depth, residual, bias)
    found, tensor = bl.decompose_wires(f), dense_network(f)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, WIDTH, generator=generator, dtype=torch.float64)
    whole = found.truncate([len(one) for one in found.spectra])
    torch.testing.assert_close(whole.network(x), f(x), rtol=1e-9, atol=1e-9)
    for at in range(depth):
        widths = [len(one) - (at == place) or 1 for place, one in enumerate(found.spectra)]
        less = found.truncate(widths)
        error = float((cut(found, widths) - tensor).square().sum())
        assert less.squared_error == pytest.approx(error, rel=1e-8, abs=1e-12 * less.squared_norm)
        assert error <= less.bound * (1 + 1e-9) + 1e-12
        far = (less.network(x) - f(x)).norm(dim=1)
        reach = torch.cat([x, torch.ones(50, 1).double()], dim=1).norm(dim=1) ** (2**depth)
        assert bool((far <= (error**0.5 + 1e-9) * reach).all())


def test_widths_within_a_share_keep_to_it() -> None:
    found = bl.decompose_wires(layers(3, True, True))
    for share in (0.3, 0.01, 1e-6):
        less = found.truncate(found.widths_within(share))
        assert less.squared_error <= less.bound <= share * found.squared_norm
    narrow, wide = found.widths_within(0.3), found.widths_within(1e-6)
    assert all(a <= b for a, b in zip(narrow, wide, strict=True))


def test_copied_units_leave_the_spectra_as_they_are() -> None:
    f = layers(2, True, True)
    parts = []
    for part in f.parts:
        assert isinstance(part, QuadraticLayer)
        down, left, right = part.map._factors()
        copied = bl.BilinearTensor(
            torch.cat([down / 2, down / 2], dim=1), left.repeat(2, 1), right.repeat(2, 1)
        )
        parts.append(
            QuadraticLayer(bl.QuadraticMap(copied, part.map.linear, part.map.constant), True)
        )
    twice = PolynomialNetwork(tuple(parts), head=f.head, head_bias=f.head_bias)
    for one, other in zip(
        bl.decompose_wires(f).spectra, bl.decompose_wires(twice).spectra, strict=True
    ):
        torch.testing.assert_close(one, other[: len(one)], rtol=1e-8, atol=1e-12)


def test_what_has_no_wires_is_refused() -> None:
    tokens = bl.polynomial_network(bl.nn.PolynomialTransformer(5, 8, 6, 1, 2, 8))
    with pytest.raises(UsageError, match="layers that read vectors"):
        bl.decompose_wires(tokens)
    found = bl.decompose_wires(layers(2, True, True))
    for widths in ([1], [0, 1], [99, 1], [1.5, 1]):
        with pytest.raises(UsageError, match="expected for the wires: 1 to"):
            found.truncate(widths)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="between 0 and 1"):
        found.widths_within(1.5)


@pytest.mark.parametrize("unit", [1e-4, 1e-2, 1e2, 1e4])
def test_the_error_that_is_told_holds_in_any_unit_of_the_inputs(unit: float) -> None:
    """Seen: with inputs 10,000 times as small 86 % of the output was lost, and error 0 was told."""
    f = layers(3, False, True)
    first, *others = f.parts
    assert isinstance(first, QuadraticLayer)
    small = QuadraticLayer(first.map.compose_input(torch.eye(WIDTH).double() / unit), False)
    g = PolynomialNetwork((small, *others), head=f.head, head_bias=f.head_bias)
    found = bl.decompose_wires(g)
    whole = found.truncate([len(one) for one in found.spectra])
    x = torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    far = (whole.network(x * unit) - g(x * unit)).norm(dim=1)
    reach = torch.cat([x * unit, torch.ones(50, 1).double()], dim=1).norm(dim=1) ** 8
    assert bool((far <= (whole.squared_error + whole.rounding) ** 0.5 * reach).all())
    assert whole.squared_error <= whole.bound


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_units_of_a_wire_do_not_matter(scale: float) -> None:
    """Seen: a channel times 1e-8, the next layer's reading of it times 1e8: 7.5 % lost, 0 told."""
    f = layers(2, False, True)
    first, second = f.parts
    assert isinstance(first, QuadraticLayer)
    assert isinstance(second, QuadraticLayer)
    turn = torch.diag(torch.tensor([scale, 1.0], dtype=torch.float64))
    one = QuadraticLayer(first.map.compose_output(turn), False)
    two = QuadraticLayer(second.map.compose_input(torch.linalg.inv(turn)), False)
    found = bl.decompose_wires(f)
    other = bl.decompose_wires(PolynomialNetwork((one, two), head=f.head, head_bias=f.head_bias))
    assert other.squared_norm == pytest.approx(found.squared_norm, rel=1e-9)
    for spectrum, again in zip(found.spectra, other.spectra, strict=True):
        torch.testing.assert_close(spectrum, again, rtol=1e-6, atol=1e-9 * found.squared_norm)


def test_what_is_lost_beside_a_large_channel_is_in_the_error() -> None:
    """A channel that is another one but for 1e-9 of it: what cannot be told apart is counted."""
    f = layers(2, False, True)
    first, second = f.parts
    assert isinstance(first, QuadraticLayer)
    down, left, right = first.map._factors()
    down = torch.stack([down[0], down[0] + 1e-9 * down[1]])
    near = QuadraticLayer(bl.QuadraticMap(bl.BilinearTensor(down, left, right)), False)
    g = PolynomialNetwork((near, second), head=f.head, head_bias=f.head_bias)
    found = bl.decompose_wires(g)
    whole = found.truncate([len(one) for one in found.spectra])
    x = torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    far = (whole.network(x) - g(x)).norm(dim=1)
    reach = torch.cat([x, torch.ones(200, 1).double()], dim=1).norm(dim=1) ** 4
    assert bool((far <= (whole.squared_error + whole.rounding) ** 0.5 * reach).all())
    assert whole.squared_error <= whole.bound
    assert whole.rounding > 0
