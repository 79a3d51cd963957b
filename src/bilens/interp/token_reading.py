"""Directions as tokens: what an output promotes, what an eigenvector reads."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.base.checks import check_count, check_float_tensor
from bilens.base.errors import ShapeError
from bilens.interp.records import EigenvectorTokens, TokenEffect, TokenScore

NORM = (
    "the final RMSNorm divides all logits by one positive number that depends on the text: order "
    "and sign of the effects are exact, their common size is for a stream of root mean square 1"
)


def output_tokens(direction: Tensor, unembed: Tensor, num: int = 10) -> TokenEffect:
    """Return which tokens a direction of the residual stream promotes and suppresses.

    Math: W_U d, centred over the vocabulary, which changes no probability. The effect is the
        direct one, past all later blocks; gains of the final norm are taken to be folded into W_U.
    Cost: O(vocabulary · d_model).

    Args:
        direction: (d_model,), the decoder row of an output latent: its effect for one unit.
        unembed: W_U, (vocabulary, d_model).
        num: how many tokens at each end.

    Raises:
        ShapeError: If the direction does not fit the unembedding.
        NonFiniteError: If one of them holds NaN or infinity.
        UsageError: If num is less than 1.
    """
    num = check_count("num", num, minimum=1)
    effects = check_pair("direction", direction, "unembed", unembed)
    effects = effects - effects.mean()
    return TokenEffect(strongest(effects, num), strongest(effects, num, lowest=True), NORM)


def eigenvector_tokens(
    eigenpairs: EigenDecomposition, embed: Tensor, num: int = 10
) -> tuple[EigenvectorTokens, ...]:
    """Return the tokens whose embeddings lie along each eigenvector, without any SAE.

    A quadratic form does not tell v from −v, so both ends are listed. Cosines are with the
    embedding less its mean over the vocabulary: what tokens share says nothing about one.

    Cost: O(vocabulary · d_model · k).

    Args:
        eigenpairs: of one form, in the basis of the residual stream.
        embed: W_E, (vocabulary, d_model).
        num: how many tokens at each end.

    Raises:
        ShapeError: If this is a batch, or the embedding has another width.
        NonFiniteError: If the embedding holds NaN or infinity.
        UsageError: If num is less than 1.
    """
    num = check_count("num", num, minimum=1)
    if eigenpairs.eigenvalues.ndim != 1:
        raise ShapeError("eigenvector_tokens works on one form: pass eigenpairs[c].")
    check_float_tensor("embed", embed, num_axes=2)
    centred = embed.detach().double()
    centred = centred - centred.mean(dim=0)
    lengths = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    units = centred / torch.where(lengths > 0, lengths, 1.0)
    readings = []
    for value, vector in zip(eigenpairs.eigenvalues, eigenpairs.eigenvectors, strict=True):
        cosines = check_pair("an eigenvector", vector, "embed", units)
        readings.append(
            EigenvectorTokens(
                float(value), strongest(cosines, num), strongest(cosines, num, lowest=True)
            )
        )
    return tuple(readings)


def check_pair(name: str, direction: Tensor, of: str, rows: Tensor) -> Tensor:
    """Return rows · direction in float64, (num rows,).

    Raises:
        ShapeError: If the widths differ.
        NonFiniteError: If one of them holds NaN or infinity.
    """
    (width,) = check_float_tensor(name, direction, num_axes=1)
    _, expected = check_float_tensor(of, rows, num_axes=2)
    if width != expected:
        raise ShapeError(f"{name} has {width} entries; {of} has rows of {expected}.")
    return rows.detach().double() @ direction.detach().to(rows.device).double()


def strongest(values: Tensor, num: int, lowest: bool = False) -> tuple[TokenScore, ...]:
    """Return the largest values, or the most negative ones, with their positions."""
    found = values.topk(min(num, len(values)), largest=not lowest)
    return tuple(
        TokenScore(token, value)
        for value, token in zip(found.values.tolist(), found.indices.tolist(), strict=True)
    )
