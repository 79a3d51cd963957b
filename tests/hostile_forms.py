"""Families of quadratic forms that eigensolvers get wrong: ties, clusters, cancellation, hiding.

A family makes a map whose outputs are some forms of its kind; everything is drawn from one
generator. Most are a spectrum of eigenvectors, written as products in one of several ways.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap

WIDTHS = (4, 5, 8, 12, 21, 32, 40)


@dataclass(frozen=True)
class Dice:
    """Random numbers in float64, and the vector that is to be hidden from."""

    generator: torch.Generator
    start: Callable[[int], Tensor]
    widths: tuple[int, ...] = WIDTHS

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        unit = torch.rand(shape, generator=self.generator, dtype=torch.float64)
        return low + (high - low) * unit

    def integer(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def width(self) -> int:
        return self.widths[self.integer(0, len(self.widths) - 1)]

    def rotation(self, n: int) -> Tensor:
        turn: Tensor = torch.linalg.qr(self.randn(n, n)).Q
        return turn

    def signs(self, *shape: int) -> Tensor:
        return torch.where(self.uniform(-1, 1, *shape) < 0, -1.0, 1.0).double()


def map_of(weights: Tensor, left: Tensor, right: Tensor) -> QuadraticMap:
    return QuadraticMap(BilinearTensor(weights, left, right))


# Ways to write Σ_i λ_i v_i v_iᵀ as products, for (num, n) spectra of shared (n, n) eigenvectors.


def squares(_dice: Dice, spectra: Tensor, turn: Tensor) -> QuadraticMap:
    """left = right = the eigenvectors."""
    return map_of(spectra, turn, turn)


def rescaled(dice: Dice, spectra: Tensor, turn: Tensor) -> QuadraticMap:
    """(α left, β right, s / αβ) for each neuron, α and β up to 1e±6."""
    alpha, beta = (10 ** dice.uniform(-6, 6, len(turn)) for _ in range(2))
    return map_of(spectra / (alpha * beta), alpha[:, None] * turn, beta[:, None] * turn)


def with_ballast(dice: Dice, spectra: Tensor, turn: Tensor) -> QuadraticMap:
    """Beside two neurons that cancel exactly, and one of zeros."""
    extra, size = dice.randn(1, turn.shape[1]), dice.randn(len(spectra), 1)
    weights = torch.cat([spectra, size, -size, size], dim=1)
    rows = torch.cat([turn, extra, extra, 0 * extra])
    return map_of(weights, rows, rows)


def matrices(_dice: Dice, spectra: Tensor, turn: Tensor) -> QuadraticMap:
    """left = the axes, right = the rows of each matrix."""
    num, n = spectra.shape
    right = torch.cat([(turn.T * spectrum) @ turn for spectrum in spectra])
    weights = torch.eye(num, dtype=torch.float64).repeat_interleave(n, dim=1)
    return map_of(weights, torch.eye(n, dtype=torch.float64).repeat(num, 1), right)


WRITINGS = (squares, rescaled, with_ballast, matrices)


def written(dice: Dice, spectra: Tensor, turn: Tensor | None = None) -> QuadraticMap:
    turn = dice.rotation(spectra.shape[1]) if turn is None else turn
    return WRITINGS[dice.integer(0, len(WRITINGS) - 1)](dice, spectra, turn)


# Families: (dice, how many forms) → a map with that many outputs.


def rank_one(dice: Dice, num: int) -> QuadraticMap:
    spectra = torch.zeros(num, dice.width()).double()
    spectra[:, 0] = dice.randn(num)
    return written(dice, spectra)


def zero(dice: Dice, num: int) -> QuadraticMap:
    spectra = torch.zeros(num, dice.width()).double()
    spectra[::2] = dice.randn(*spectra[::2].shape)  # beside forms that are not zero
    return written(dice, spectra)


def nearly_identity(dice: Dice, num: int) -> QuadraticMap:
    noise = 10 ** dice.uniform(-15, -3, num, 1)
    return written(dice, 1 + noise * dice.randn(num, dice.width()))


def pairs_of_both_signs(dice: Dice, num: int) -> QuadraticMap:
    half = dice.randn(num, (dice.width() + 1) // 2)
    return written(dice, torch.cat([half, -half * (1 + 1e-12 * dice.randn(num, 1))], dim=1))


def exact_pairs(dice: Dice, num: int) -> QuadraticMap:
    half = dice.randn(num, (dice.width() + 1) // 2)
    return written(dice, torch.cat([half, -half], dim=1))


def tiny_gaps(dice: Dice, num: int) -> QuadraticMap:
    n = dice.width()
    gaps = 10 ** dice.uniform(-14, -6, num, 1) * torch.arange(n, dtype=torch.float64)
    return written(dice, dice.signs(num, 1) * (1 + gaps) * dice.signs(num, n))


def graded(dice: Dice, num: int) -> QuadraticMap:
    n = dice.width()
    return written(dice, 10 ** dice.uniform(-12, 12, num, n) * dice.signs(num, n))


def geometric(dice: Dice, num: int) -> QuadraticMap:
    n = dice.width()
    ratio = dice.uniform(0.05, 0.99, num, 1)
    return written(dice, ratio ** torch.arange(n).double() * dice.signs(num, n))


def wilkinson(dice: Dice, num: int) -> QuadraticMap:
    """W21+, and two of them glued together by 1e-14 to 1e-4; turned around."""
    one = torch.arange(-10, 11).double().abs().diag()
    one += torch.ones(20).double().diag(1) + torch.ones(20).double().diag(-1)
    copies = dice.integer(1, 2)
    q = torch.block_diag(*[one] * copies)
    if copies == 2:
        q[20, 21] = q[21, 20] = 10 ** float(dice.uniform(-14, -4))
    turn = dice.rotation(len(q))
    scales = 10 ** dice.uniform(-1, 1, num, 1)
    return map_of(scales.expand(num, len(q)), turn.T.contiguous(), q @ turn)


def equal_eigenvalues(dice: Dice, num: int) -> QuadraticMap:
    n = dice.width()
    spectra = dice.randn(num, n)
    for spectrum in spectra:
        count = dice.integer(2, n)
        spectrum[:count] = 3 * spectrum.abs().max() * float(dice.signs())
    return written(dice, spectra)


def two_values(dice: Dice, num: int) -> QuadraticMap:
    n = dice.width()
    first, second = dice.randn(num, 1), dice.randn(num, 1)
    return written(dice, torch.where(dice.signs(num, n) > 0, first, second))


def equal_sizes_at_the_cut(dice: Dice, num: int) -> QuadraticMap:
    """The k-th and the next are λ and −λ, for k = 1, 2 and 3."""
    n = dice.width()
    spectra = 0.5 * dice.uniform(-1, 1, num, n)
    for spectrum in spectra:
        k = dice.integer(1, 3)
        spectrum[: k + 1] = torch.tensor([*range(k + 2, 2, -1), 2][-k - 1 :]).double()
        spectrum[k - 1 : k + 1] = torch.tensor([1.0, -1.0]).double() * float(dice.signs())
    return written(dice, spectra)


def mass_at_the_edge(dice: Dice, num: int) -> QuadraticMap:
    """k leading ones, and a tail whose mass is 1 within 1e-2 … 1e-15: proven, or just not."""
    n = dice.width()
    spectra = torch.zeros(num, n).double()
    for spectrum in spectra:
        k = dice.integer(1, min(3, n - 1))
        tail = dice.randn(n - k) if dice.integer(0, 1) else torch.eye(n - k).double()[0]
        off = 10 ** float(dice.uniform(-15, -2)) * float(dice.signs())
        spectrum[:k] = 1
        spectrum[k:] = tail / tail.norm() * (1 + off)
    return written(dice, spectra)


def mass_below_its_rounding(dice: Dice, num: int) -> QuadraticMap:
    """A gap far below the rounding of ‖Q‖², which large neurons that cancel blow up."""
    n = dice.width()
    spectra = torch.zeros(num, n).double()
    spectra[:, 0] = 1
    spectra[:, 1] = 1 - 10 ** dice.uniform(-15, -5, num)
    turn, extra = dice.rotation(n), dice.randn(2, n)
    size = 10 ** dice.uniform(0, 6, num, 1)
    rows, other = torch.cat([turn, extra[:1], extra[:1]]), torch.cat([turn, extra[1:], extra[1:]])
    return map_of(torch.cat([spectra, size, -size], dim=1), rows, other)


def gaussian(dice: Dice, num: int) -> QuadraticMap:
    n, hidden = dice.width(), dice.integer(1, 60)
    return map_of(dice.randn(num, hidden), dice.randn(hidden, n), dice.randn(hidden, n))


def left_is_right(dice: Dice, num: int) -> QuadraticMap:
    rows = dice.randn(dice.integer(1, 60), dice.width())
    return map_of(dice.randn(num, len(rows)).abs() * dice.signs(num, 1), rows, rows)


def left_meets_no_right(dice: Dice, num: int) -> QuadraticMap:
    """Left reads the first half of the inputs, right the second: eigenvalues ±σ."""
    n, hidden = dice.width(), dice.integer(1, 30)
    left, right = dice.randn(hidden, n), dice.randn(hidden, n)
    left[:, n // 2 :], right[:, : n // 2] = 0, 0
    turn = dice.rotation(n)
    return map_of(dice.randn(num, hidden), left @ turn, right @ turn)


def cancelling(dice: Dice, num: int) -> QuadraticMap:
    """s and −s with rows that differ by 1e-8 to 1e-16."""
    n, hidden = dice.width(), dice.integer(1, 12)
    left, right = dice.randn(hidden, n), dice.randn(hidden, n)
    off = 10 ** float(dice.uniform(-16, -8)) * dice.randn(hidden, n)
    weights = dice.randn(num, hidden)
    return map_of(
        torch.cat([weights, -weights], dim=1),
        torch.cat([left, left + off]),
        torch.cat([right, right]),
    )


def cancelling_beside_others(dice: Dice, num: int) -> QuadraticMap:
    n = dice.width()
    here, there = cancelling(dice, num).tensor, gaussian(dice, num).tensor
    lost = min(here.left.shape[1], there.left.shape[1], n)
    small = 10 ** dice.uniform(-12, 0, num, 1)
    return map_of(
        torch.cat([here.down, small * there.down], dim=1),
        torch.cat([here.left[:, :lost], there.left[:, :lost]]),
        torch.cat([here.right[:, :lost], there.right[:, :lost]]),
    )


def extreme_scales(dice: Dice, num: int) -> QuadraticMap:
    """1e±150 in all, 1e±150 spread over the factors."""
    n, hidden = dice.width(), dice.integer(1, 40)
    whole, spread = 150 * dice.integer(-1, 1), 150 * dice.integer(-1, 1)
    return map_of(
        dice.randn(num, hidden) * 10.0**whole,
        dice.randn(hidden, n) * 10.0**spread,
        dice.randn(hidden, n) * 10.0**-spread,
    )


def hidden_from_the_start(dice: Dice, num: int) -> QuadraticMap:
    """The leading eigenvectors have no part, or 1e-16 to 1e-2 of one, in the first vector."""
    n = dice.width()
    start, part = dice.start(n), 10 ** float(dice.uniform(-16, -2)) * dice.integer(0, 1)
    basis = torch.linalg.qr(torch.cat([start[:, None], dice.randn(n, n - 1)], dim=1)).Q.T
    angle = torch.tensor(part).double()
    first, last = basis[0].clone(), basis[-1].clone()
    basis[0] = angle.cos() * first - angle.sin() * last
    basis[-1] = angle.cos() * last + angle.sin() * first
    spectra = dice.uniform(-1, 1, num, n)
    spectra[:, -1] = dice.uniform(1, 5, num) * dice.signs(num)
    if n > 4 and dice.integer(0, 1):  # a second one, wholly hidden, of the same size
        spectra[:, -2] = spectra[:, -1] * dice.signs(num)
    return written(dice, spectra, basis)


def hidden_at_the_edge(dice: Dice, num: int) -> QuadraticMap:
    """A wholly hidden eigenvalue a little above the k-th that is seen, and a low floor."""
    n = 40
    start = dice.start(n)
    basis = torch.linalg.qr(torch.cat([start[:, None], dice.randn(n, n - 1)], dim=1)).Q.T
    spectra = 1e-3 * dice.uniform(-1, 1, num, n)
    for spectrum in spectra:
        k = dice.integer(1, 2)
        spectrum[:k] = torch.tensor([1.0, 1.5][:k]).double()
    spectra[:, -1] = 1 + 10 ** dice.uniform(-11, -3.5, num)
    seen = torch.block_diag(dice.rotation(n - 1), torch.eye(1).double())
    return written(dice, spectra, seen @ basis)


def hidden_on_a_few_axes(dice: Dice, num: int) -> QuadraticMap:
    """The first vector lies in the span of three eigenvectors: the basis is exhausted at once."""
    n = dice.width()
    start = dice.start(n)
    inside = torch.linalg.qr(torch.cat([start[:, None], dice.randn(n, 2)], dim=1)).Q
    inside = inside @ dice.rotation(3)
    basis = torch.linalg.qr(torch.cat([inside, dice.randn(n, n - 3)], dim=1)).Q.T
    return written(dice, dice.randn(num, n), basis)


def few_neurons(dice: Dice, num: int) -> QuadraticMap:
    """2 · hidden < in: most of the spectrum is zero."""
    n, hidden = dice.integer(9, 40), dice.integer(1, 4)
    left = dice.randn(hidden, n)
    right = left if dice.integer(0, 1) else dice.randn(hidden, n)
    return map_of(dice.randn(num, hidden).abs(), left, right)


def narrow(dice: Dice, num: int) -> QuadraticMap:
    n, hidden = dice.integer(1, 3), dice.integer(1, 4)
    return map_of(dice.randn(num, hidden), dice.randn(hidden, n), dice.randn(hidden, n))


def single_precision(dice: Dice, num: int) -> QuadraticMap:
    return gaussian(dice, num).to(torch.float32)


def one_large_beside_noise(dice: Dice, num: int) -> QuadraticMap:
    """Low rank and a floor of 1e-15 to 1e-1."""
    n = dice.width()
    spectra = 10 ** dice.uniform(-15, -1, num, 1) * dice.randn(num, n)
    for spectrum in spectra:
        rank = dice.integer(1, 3)
        spectrum[:rank] = dice.randn(rank)
    return written(dice, spectra)


FAMILIES: dict[str, Callable[[Dice, int], QuadraticMap]] = {
    family.__name__: family
    for family in (
        rank_one,
        zero,
        nearly_identity,
        pairs_of_both_signs,
        exact_pairs,
        tiny_gaps,
        graded,
        geometric,
        wilkinson,
        equal_eigenvalues,
        two_values,
        equal_sizes_at_the_cut,
        mass_at_the_edge,
        mass_below_its_rounding,
        gaussian,
        left_is_right,
        left_meets_no_right,
        cancelling,
        cancelling_beside_others,
        extreme_scales,
        hidden_from_the_start,
        hidden_at_the_edge,
        hidden_on_a_few_axes,
        few_neurons,
        narrow,
        single_precision,
        one_large_beside_noise,
    )
}
