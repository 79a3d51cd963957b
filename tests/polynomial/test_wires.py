"""Guards against wrong wires: spectra, truncation and its error, against the dense tree tensor."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor

import bilens as bl
from bilens.base.errors import NonFiniteError, NumericalError, ShapeError, UsageError
from bilens.polynomial.composition import with_residual
from bilens.polynomial.network import PolynomialNetwork, QuadraticLayer
from bilens.polynomial.tree import Tree, TreeLayer, homogeneous
from bilens.polynomial.wires import WireDecomposition
from polynomial.test_composition import GRID, SHARES, drawn_input, two_layers

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


def dense(tree: list[TreeLayer], head: Tensor, leaves: Tensor | None = None) -> Tensor:
    """The whole tensor, (outputs, leaves), each layer symmetric in its two inputs."""
    wire = torch.eye(tree[0].left.shape[1], dtype=torch.float64) if leaves is None else leaves
    for one in tree:
        core = torch.einsum("oh,hi,hj->oij", one.down, one.left, one.right)
        core = (core + core.mT) / 2
        wire = torch.einsum("oij,ia,jb->oab", core, wire, wire).flatten(1)
    return head @ wire


def dense_network(f: PolynomialNetwork, leaves: Tensor | None = None) -> Tensor:
    assert f.head is not None
    bias = torch.zeros(len(f.head)).double() if f.head_bias is None else f.head_bias
    tree = [homogeneous(with_residual(part)) for part in f.parts]
    return dense(tree, torch.cat([f.head, bias[:, None]], dim=1), leaves)


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


def moments(rank: int = WIDTH) -> tuple[Tensor, Tensor]:
    """A root of a covariance, (WIDTH, rank), and a mean."""
    root = torch.tensor([[1.5, 0.3], [-0.4, 0.8]], dtype=torch.float64)[:, :rank]
    return root, torch.tensor([0.7, -1.2], dtype=torch.float64)


def leaves_of(root: Tensor, mean: Tensor) -> Tensor:
    above = torch.cat([root, mean[:, None]], dim=1)
    last = above.new_zeros(1, above.shape[1])
    last[0, -1] = 1.0
    return torch.cat([above, last])


UNITS = {
    "small": torch.diag(torch.tensor([1e-4, 1e-4])),
    "large": torch.diag(torch.tensor([1e4, 1e4])),
    "apart": torch.diag(torch.tensor([1e-4, 1e4])),
    "mixed": torch.tensor([[3.0, -50.0], [0.02, 7.0]]),
}


@pytest.mark.parametrize("kind", UNITS)
@pytest.mark.parametrize("bias", [True, False])
def test_with_a_covariance_units_of_the_inputs_do_not_matter(kind: str, bias: bool) -> None:
    """Seen, without one: in units 10,000 times as small 86 % of the output was lost, 0 told."""
    f, unit = layers(3, False, bias), UNITS[kind].double()
    first, *others = f.parts
    assert isinstance(first, QuadraticLayer)
    again = QuadraticLayer(first.map.compose_input(torch.linalg.inv(unit)), False)
    g = PolynomialNetwork((again, *others), head=f.head, head_bias=f.head_bias)
    root, mean = moments()
    found = bl.decompose_wires(f, mean=mean, covariance=root @ root.T)
    other = bl.decompose_wires(g, mean=unit @ mean, covariance=unit @ root @ root.T @ unit.T)
    assert other.squared_norm == pytest.approx(found.squared_norm, rel=1e-9)
    for spectrum, turned in zip(found.spectra, other.spectra, strict=True):
        torch.testing.assert_close(spectrum, turned, rtol=1e-7, atol=1e-10 * found.squared_norm)
    widths = found.widths_within(0.1)
    assert widths == other.widths_within(0.1)
    assert widths != tuple(map(len, found.spectra))
    less, same = found.truncate(widths), other.truncate(widths)
    assert same.squared_error == pytest.approx(less.squared_error, rel=1e-7)
    assert same.rounding <= 10 * less.rounding <= 1e-7 * less.squared_norm
    x = torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(same.network(x @ unit.T), less.network(x), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(same.error_bound(x @ unit.T), less.error_bound(x), rtol=0.05, atol=0)


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize(("depth", "residual"), [(1, True), (2, False), (2, True), (3, True)])
def test_the_norm_is_that_of_inputs_in_their_own_coordinates(
    depth: int, residual: bool, rank: int
) -> None:
    """Against the dense tensor, contracted with a root of the covariance of its own."""
    f, (root, mean) = layers(depth, residual, True), moments(rank)
    found = bl.decompose_wires(f, mean=mean, covariance=root @ root.T)
    leaves = leaves_of(root, mean)
    tensor = dense_network(f, leaves)
    assert found.squared_norm == pytest.approx(float(tensor.square().sum()), rel=1e-10)
    for level, spectrum in enumerate(found.spectra, start=1):
        group = (rank + 1) ** (2**level)
        flat = tensor.reshape(OUTPUTS, -1, group).flatten(0, 1)
        singular = torch.linalg.svdvals(flat).square()[: len(spectrum)]
        torch.testing.assert_close(
            spectrum[: len(singular)], singular, rtol=1e-8, atol=1e-12 * found.squared_norm
        )
    widths = [max(1, len(one) - 1) for one in found.spectra]
    less = found.truncate(widths)
    error = float((dense_network(less.network, leaves) - tensor).square().sum())
    assert less.squared_error == pytest.approx(error, rel=1e-7, abs=1e-11 * less.squared_norm)
    assert abs(less.squared_error - error) <= less.rounding <= 1e-4 * less.squared_norm
    assert error <= less.bound * (1 + 1e-9)


def test_the_squared_error_is_expected_of_independent_draws() -> None:
    """By Monte Carlo: every copy of the input is drawn for itself, and is not normal."""
    f, (root, mean) = layers(2, True, True), moments()
    less = bl.decompose_wires(f, mean=mean, covariance=root @ root.T).truncate([2, 2])
    eye = torch.eye(WIDTH + 1).double()
    far = (dense_network(less.network, eye) - dense_network(f, eye)).reshape(OUTPUTS, *[3] * 4)
    generator = torch.Generator().manual_seed(0)
    drawn = (torch.rand(4, 100_000, WIDTH, generator=generator).double() * 2 - 1) * 3**0.5
    ones = torch.ones(4, 100_000, 1).double()
    u = torch.cat([drawn @ root.T + mean, ones], dim=-1)
    errors = torch.einsum("oabcd,na,nb,nc,nd->no", far, *u).square().sum(dim=1)
    standard_error = float(errors.std()) / len(errors) ** 0.5
    assert standard_error < 0.05 * less.squared_error
    assert abs(float(errors.mean()) - less.squared_error) < 4 * standard_error


def exactly(network: PolynomialNetwork, x: list[float]) -> list[Fraction]:
    """What a network gives without any rounding, in fractions."""
    stream = [Fraction(one) for one in x]

    def times(matrix: Tensor | None, vector: list[Fraction], rows: int) -> list[Fraction]:
        if matrix is None:
            return [Fraction(0)] * rows
        return [
            sum((Fraction(w) * v for w, v in zip(row, vector, strict=True)), Fraction(0))
            for row in matrix.tolist()
        ]

    for part in network.parts:
        assert isinstance(part, QuadraticLayer)
        down, left, right = part.map._factors()
        a, b = times(left, stream, 0), times(right, stream, 0)
        y = times(down, [p * q for p, q in zip(a, b, strict=True)], 0)
        straight = times(part.map.linear, stream, len(y))
        constant = [0.0] * len(y) if part.map.constant is None else part.map.constant.tolist()
        y = [p + q + Fraction(c) for p, q, c in zip(y, straight, constant, strict=True)]
        stream = [p + q for p, q in zip(y, stream, strict=True)] if part.residual else y
    bias = [0.0] * OUTPUTS if network.head_bias is None else network.head_bias.tolist()
    return [p + Fraction(c) for p, c in zip(times(network.head, stream, 0), bias, strict=True)]


def test_units_that_cancel_are_in_the_rounding_of_a_distance() -> None:
    generator = torch.Generator().manual_seed(0)

    def tree(apart: float) -> Tree:
        rows = torch.rand(2, 3, generator=torch.Generator().manual_seed(1)).double()
        left = torch.stack([rows[0], rows[0] * (1 + apart)])
        down = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
        return Tree((TreeLayer(down, left, rows[[1, 1]]),), torch.ones(1, 1).double())

    def exact(one: Tree) -> list[Fraction]:
        (layer,) = one.layers
        left, right = (
            [[*map(Fraction, row)] for row in m.tolist()] for m in (layer.left, layer.right)
        )
        return [
            sum(
                (
                    s * (one[i] * other[j] + one[j] * other[i]) / 2
                    for s, one, other in zip((1, -1), left, right, strict=True)
                ),
                Fraction(0),
            )
            for i in range(3)
            for j in range(3)
        ]

    for _ in range(20):
        first, second = (tree(1e-9 * float(torch.rand(1, generator=generator))) for _ in "ab")
        true = sum((a - b) ** 2 for a, b in zip(exact(first), exact(second), strict=True))
        told, rounding = first.squared_distance(second)
        assert abs(Fraction(told) - true) <= Fraction(rounding) < 1e-12


HOSTILE = [[0.0, 0.0], [1e-300, -1e-300], [1e6, -1e6], [1e-8, 1e8], [0.7, -1.2], [1e12, 1.0]]


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("given", ["moments", "large mean", "small deviations"])
@pytest.mark.parametrize("kept", [0.2, 1e-12])
def test_the_bound_of_an_input_holds(rank: int, given: str, kept: float) -> None:
    """As both run in float64, and in fractions without any rounding."""
    f, (root, mean) = layers(3, True, True), moments(rank)
    mean = mean * (1e5 if given == "large mean" else 1)
    root = root * (1e-5 if given == "small deviations" else 1)
    found = bl.decompose_wires(f, mean=mean, covariance=root @ root.T)
    less = found.truncate(found.widths_within(kept))
    z = torch.randn(60, rank, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = z * torch.logspace(-8, 8, 60)[:, None].double() @ root.T + mean
    if rank == WIDTH:
        x = torch.cat([x, torch.tensor(HOSTILE).double()])
    bound = less.error_bound(x)
    assert bool(bound.isfinite().all())
    assert bool(((f(x) - less.network(x)).norm(dim=1) <= bound).all())
    for row, most in zip(x.tolist(), bound.tolist(), strict=True):
        pairs = zip(exactly(f, row), exactly(less.network, row), strict=True)
        assert sum((p - q) ** 2 for p, q in pairs) <= Fraction(most) ** 2
    reach = (1 + z[:20].square().sum(dim=1)) ** 4
    if given == "moments":  # what is told beside the tensor's error is small
        told = (less.squared_error + less.rounding) ** 0.5 * reach
        assert bool((bound[:20] <= 1.01 * told).all())


@pytest.mark.parametrize("residual", [False, True])
def test_wires_projected_in_the_networks_own_channels_are_the_truncation(residual: bool) -> None:
    f, (root, mean) = layers(3, residual, True), moments()
    found = bl.decompose_wires(f, mean=mean, covariance=root @ root.T)
    widths = [2, 1, 2]
    x = torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    stream = torch.cat([x, torch.ones(20, 1).double()], dim=1)  # the 1 is projected, too
    for part, read, write, width in zip(f.parts, found.read, found.write, widths, strict=True):
        torch.testing.assert_close(read @ write, torch.eye(len(read)).double())
        y = homogeneous(with_residual(part))
        stream = ((stream @ y.left.T) * (stream @ y.right.T)) @ y.down.T
        stream = stream @ (write[:, :width] @ read[:width]).T
    assert f.head is not None
    assert f.head_bias is not None
    expected = stream @ torch.cat([f.head, f.head_bias[:, None]], dim=1).T
    torch.testing.assert_close(found.truncate(widths).network(x), expected, rtol=1e-9, atol=1e-9)


def test_outside_of_the_covariance_the_bound_is_infinite() -> None:
    f, (root, mean) = layers(2, True, True), moments(1)
    less = bl.decompose_wires(f, mean=mean, covariance=root @ root.T).truncate([2, 2])
    across = torch.tensor([0.4, 1.5], dtype=torch.float64)  # a right angle to the root
    x = torch.stack([mean + 2 * root[:, 0], mean + 2 * root[:, 0] + 0.01 * across, 1e9 * across])
    assert less.error_bound(x).isfinite().tolist() == [True, False, False]
    assert torch.equal(less.error_bound(1e200 * x[0]), torch.tensor(torch.inf).double())
    flat = bl.decompose_wires(f, covariance=torch.diag(torch.tensor([1.0, 0.0]).double()))
    off = torch.tensor([0.5, 0.1], dtype=torch.float64)  # of which one entry is inside
    assert flat.truncate([2, 2]).error_bound(off) == torch.inf


def test_what_is_just_outside_of_the_covariance_is_in_the_bound() -> None:
    """Across the span f is steep, and what is narrower does not see where in it an input is."""
    f, (root, _) = layers(2, False, True), moments(1)
    across = torch.tensor([0.4, 1.5], dtype=torch.float64)  # a right angle to the root
    steep = torch.eye(WIDTH).double() + 1e4 * across[:, None] * across
    first, *others = f.parts
    assert isinstance(first, QuadraticLayer)
    turned = QuadraticLayer(first.map.compose_input(steep), False)
    g = PolynomialNetwork((turned, *others), head=f.head, head_bias=f.head_bias)
    found = bl.decompose_wires(g, covariance=root @ root.T)
    whole = found.truncate([*map(len, found.spectra)])
    inside = 0.1 * root[:, 0]
    near = inside + 2.5e-7 * across
    far = float((g(near) - whole.network(near)).norm())
    assert far > 1e-4
    assert far <= float(whole.error_bound(near) - whole.error_bound(inside))


@pytest.mark.parametrize("residual", [False, True])
def test_the_error_of_one_normal_input_is_that_of_quadrature(residual: bool) -> None:
    f = two_layers(3, residual=residual, bias=True)
    mean, covariance = drawn_input()
    x = GRID @ torch.linalg.cholesky(covariance).T + mean
    found = bl.decompose_wires(f, mean=mean, covariance=covariance)
    less = found.truncate([max(1, len(one) - 1) for one in found.spectra])
    expected = float(SHARES @ (f(x) - less.network(x)).square().sum(dim=1))
    size = float(SHARES @ f(x).square().sum(dim=1))
    assert less.gaussian_error() == pytest.approx(expected, rel=1e-8, abs=1e-11 * size)
    deep = bl.decompose_wires(layers(3, True, True))
    with pytest.raises(UsageError, match="exact of two layers"):
        deep.truncate([1, 1, 1]).gaussian_error()


@pytest.mark.parametrize("residual", [False, True])
def test_rounding_is_small_in_a_network_of_usual_size(residual: bool) -> None:
    """Seen: sums of absolute values through three layers told 10⁸ times the squared norm."""
    torch.manual_seed(0)
    model = bl.nn.BilinearClassifier(200, 64, 10, n_layers=3, residual=residual)
    found = bl.decompose_wires(bl.polynomial_network(model))
    less = found.truncate(found.widths_within(0.01))
    assert less.squared_error + less.rounding <= less.bound <= 0.011 * less.squared_norm


def test_wrong_moments_and_inputs_are_one_sentence() -> None:
    f, eye = layers(2, True, True), torch.eye(WIDTH).double()
    with pytest.raises(ShapeError, match="expected"):
        bl.decompose_wires(f, mean=torch.zeros(3))
    with pytest.raises(ShapeError, match="expected"):
        bl.decompose_wires(f, covariance=torch.eye(3))
    for wrong in (-eye, torch.tensor([[1.0, 2.0], [0.0, 1.0]])):
        with pytest.raises(UsageError, match="pass a covariance matrix"):
            bl.decompose_wires(f, covariance=wrong)
    less = bl.decompose_wires(f).truncate([1, 1])
    with pytest.raises(ShapeError, match="x has shape"):
        less.error_bound(torch.zeros(4, 3))
    with pytest.raises(NonFiniteError):
        less.error_bound(torch.tensor([torch.nan, 0.0]))


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


def test_sizes_that_float64_cannot_square_are_refused_or_counted() -> None:
    whole = layers(2, True, True)
    with pytest.raises(NumericalError, match="squares of the network's weights overflow"):
        bl.decompose_wires(replace(whole, head=whole.head * 1e160))
    tiny = replace(whole, head=whole.head * 1e-165, head_bias=whole.head_bias * 0)
    small, x = bl.decompose_wires(tiny).truncate([1, 1]), torch.ones(1, WIDTH).double()
    assert float((tiny(x) - small.network(x)).norm()) <= float(small.error_bound(x))
    far = bl.decompose_wires(whole).truncate([1, 1]).error_bound(x * 1e80)
    assert float(far) == float("inf")
