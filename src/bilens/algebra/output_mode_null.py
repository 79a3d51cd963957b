"""What the output spectrum of a layer looks like under the null."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bilens.algebra.concentration import effective_rank
from bilens.algebra.gram.blocks import block_size, blocks
from bilens.algebra.mode_spectrum import Factors
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.rotation_null import random_frame
from bilens.algebra.rows import unit_rows
from bilens.base.checks import check_count, check_type

Null = Literal["rotation", "directions"]


@dataclass(frozen=True, eq=False)
class OutputModeNull:
    """The output spectrum of a map under a null, one entry for each sample."""

    effective_rank: Tensor  # (samples,), (Σσ)² / Σσ² of the singular values along the outputs
    top_share: Tensor  # (samples,), σ₁² / Σσ²
    # (samples,), (Σ|λ|)² / Σλ² of the form along the leading direction of a sample
    leading_rank: Tensor


def output_mode_null(
    f: QuadraticMap,
    generator: torch.Generator,
    num_samples: int,
    null: Null = "rotation",
    embedding: Tensor | None = None,
    progress: Callable[[int], None] | None = None,
) -> OutputModeNull:
    """Sample the singular values along the outputs of a map, with its factors turned at random."""
    # "rotation" destroys how the two branches are aligned and nothing else. Where left and right
    # are the same rows, as in an ordinary MLP, that would destroy what every such layer has; there
    # "directions" turns each row on its own, and left and right with it.
    # Math: Gram = D H Dᵀ, H = ½[(LLᵀ)∘(RRᵀ) + M∘Mᵀ], M = L Rᵀ. A rotation of R leaves the first
    # term as it is, and is seen by M alone.
    check_type("f", f, QuadraticMap, "use the layer's quadratic_map()")
    num_samples = check_count("num_samples", num_samples, minimum=1)
    tensor = f.detach().to(torch.float64).tensor
    factors = Factors.of(tensor.down, tensor.left, tensor.right)
    turn = turner(factors, generator, null, embedding)
    samples = []
    for done in range(num_samples):
        left, right = turn()
        samples.append(read_sample(factors.down, left, right))
        if progress is not None:
            progress(done + 1)
    return OutputModeNull(*torch.stack(samples, dim=1))


def turner(
    factors: Factors, generator: torch.Generator, null: Null, embedding: Tensor | None
) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return what draws left and right of a sample, both in the input basis."""
    left, right = factors.left, factors.right
    hidden, d_in = left.shape
    if null == "directions":

        def directions() -> tuple[Tensor, Tensor]:
            gauss = torch.randn(hidden, d_in, generator=generator, dtype=torch.float64)
            rows = unit_rows(gauss)[0]
            return rows, rows

        return directions
    after = None if embedding is None else embedding.detach().double()
    behind = right if after is None else right @ torch.linalg.pinv(after)
    corner = torch.linalg.qr(behind.T, mode="r").R.T  # (hidden, rank): behind = corner Vᵀ

    def rotated() -> tuple[Tensor, Tensor]:
        frame = random_frame(behind.shape[1], corner.shape[1], generator)
        turned = corner @ frame.T
        return left, turned if after is None else turned @ after

    return rotated


def read_sample(down: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return effective rank and top share of the outputs, and the rank of the leading form."""
    squares, columns = torch.linalg.eigh(output_gram_of(down, left, right))
    values = squares.clamp(min=0).sqrt()
    leading = columns[:, -1] @ down
    half = (left.T * leading) @ right
    spectrum = torch.linalg.eigvalsh(half + half.T)
    mass = values.square().sum()
    share = values[-1].square() / mass.where(mass > 0, 1.0)
    return torch.stack([effective_rank(values), share, effective_rank(spectrum)])


def output_gram_of(down: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return D H Dᵀ, up to a factor, from blocks on and above the diagonal of H."""
    size = block_size(len(left), 6 * left.shape[1] + 3 * len(down))
    total = down.new_zeros(len(down), len(down))
    same = right is left
    for rows in blocks(len(left), size):
        reached = down.new_zeros(rows.stop - rows.start, len(down))
        for columns in blocks(len(left), size, start=rows.start):
            straight = left[rows] @ left[columns].T
            if same:
                kernel = 2 * straight.square()
            else:
                crossed = (left[rows] @ right[columns].T) * (right[rows] @ left[columns].T)
                kernel = torch.addcmul(crossed, straight, right[rows] @ right[columns].T)
            reached += (kernel / 2 if columns == rows else kernel) @ down[:, columns].T
        total += down[:, rows] @ reached
    return total + total.T
