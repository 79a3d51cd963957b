"""What a change of a map would look like if every weight had changed by chance alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.map_difference import map_difference
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.similarity import check_comparable
from bilens.base.errors import ShapeError


@dataclass(frozen=True, eq=False)
class NoiseChange:
    """The mean of the two Gram matrices of a change that is independent noise in every weight.

    Attributes:
        output_gram: (out, out), the mean of ⟨ΔQ_i, ΔQ_j⟩.
        input_gram: (in, in), the mean of Σ_c ΔQ_c².
    """

    output_gram: Tensor
    input_gram: Tensor


def noise_change(f: QuadraticMap, g: QuadraticMap) -> NoiseChange:
    """Return the level of chance for the change from f to g, in closed form.

    Each of down, left and right gets independent entries of mean 0 with the mean square that its
    own change has. So the sizes are kept, and only where the change lies is left to chance. The
    spectra of the means stand for those of one draw where many weights change. Where left and right
    are the same rows, they change together.

    Math: to first order Δ = δD(L∘R) + D(δL∘R) + D(L∘δR), and with variances a, b, c of the entries
        E ⟨ΔQ_i, ΔQ_j⟩ = a tr H · 1[i=j] + ½ (in + 1) (D diag(b ‖r_h‖² + c ‖l_h‖²) Dᵀ)_ij,
        E Σ_c ΔQ_c² = ¼ a · out [Lᵀ diag‖r_h‖² L + Lᵀ diag(l_h·r_h) R + its transpose
        + Rᵀ diag‖l_h‖² R] + ¼ b [Σ_h p_h ‖r_h‖² · I + (in + 2) Rᵀ diag(p_h) R] + the same for c
        with l in the place of r; p_h = ‖D e_h‖².
    Cost: O(hidden · (in² + out²)) time, O(in² + out²) memory.

    Args:
        f: the map before; linear and constant terms take no part.
        g: the map after, with the neurons in the same order.

    Raises:
        UsageError: If one is no map, or they read different bases.
        ShapeError: If they differ in any size.

    Source: second moments of independent entries; checked against samples in the tests.
    """
    check_comparable(f, g)
    if f.sizes != g.sizes:
        raise ShapeError(
            f"maps with {f.sizes.d_hidden} and {g.sizes.d_hidden} hidden units have no weights "
            "that correspond: their change has no level of chance."
        )
    old, new = (one.detach().to(torch.float64).tensor for one in (f, g))
    down, left, right = old.down, old.left, old.right
    in_down, in_left, in_right = (
        float((after - before).square().mean())
        for before, after in ((down, new.down), (left, new.left), (right, new.right))
    )
    if torch.equal(left, right):  # an ordinary MLP: one branch, whose change counts on both sides
        in_left, in_right = 4 * in_left, 0.0
    d_out, _, d_in = old.sizes
    lefts, rights = left.square().sum(dim=1), right.square().sum(dim=1)
    mixed, size = (left * right).sum(dim=1), down.square().sum(dim=0)
    trace = float(lefts @ rights + mixed @ mixed) / 2  # of H
    moved = in_left * rights + in_right * lefts
    one = torch.eye(d_out, dtype=torch.float64)
    output = in_down * trace * one + (d_in + 1) / 2 * (down * moved) @ down.T
    crossed = (left.T * mixed) @ right
    own = (left.T * rights) @ left + crossed + crossed.T + (right.T * lefts) @ right
    spread = (d_in + 2) * (in_left * (right.T * size) @ right + in_right * (left.T * size) @ left)
    even = torch.eye(d_in, dtype=torch.float64) * float(size @ moved)
    return NoiseChange(output, (in_down * d_out * own + spread + even) / 4)


def noise_draw(
    f: QuadraticMap,
    g: QuadraticMap,
    generator: torch.Generator,
    embeddings: tuple[Tensor, Tensor] | None = None,
) -> QuadraticMap:
    """Return one draw of the change that `noise_change` has the mean of, to all orders.

    Behind an embedding the noise is in the weights as they are stored, that of the embedding among
    them: a mean over draws says little there, as one embedding serves all units.

    Cost: O(hidden · (in + out)), and O(hidden · width · in) behind an embedding.

    Args:
        f: the map before, in float64.
        g: the map after, with the neurons in the same order.
        generator: the source of randomness.
        embeddings: E before and after, (width, in), in front of both branches; None for none.
    """
    check_comparable(f, g)
    old, new = (one.detach().to(torch.float64).tensor for one in (f, g))
    before = [old.down, old.left, old.right]
    after = [new.down, new.left, new.right]
    if embeddings is not None:
        e, e_after = (one.detach().double() for one in embeddings)
        before[1:] = [part @ torch.linalg.pinv(e) for part in before[1:]]
        after[1:] = [part @ torch.linalg.pinv(e_after) for part in after[1:]]
        before, after = [*before, e], [*after, e_after]
    noisy = [noise_like(a, b, generator) for a, b in zip(before, after, strict=True)]
    if torch.equal(before[1], before[2]):
        noisy[2] = noisy[1]
    if embeddings is not None:
        *noisy, e = noisy
        noisy[1:] = [part @ e for part in noisy[1:]]
    return map_difference(f, QuadraticMap(BilinearTensor(*noisy), basis=f.basis))


def noise_like(before: Tensor, after: Tensor, generator: torch.Generator) -> Tensor:
    """Return `before` with independent noise of the mean square of its change."""
    size = (after - before).square().mean().sqrt()
    return before + size * torch.randn(before.shape, generator=generator, dtype=torch.float64)
