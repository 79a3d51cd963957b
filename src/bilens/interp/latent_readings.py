"""What a latent or a direction stands for: where it is active, and its tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.base.checks import check_count, check_float_tensor
from bilens.base.errors import ShapeError

NORM = (
    "the final RMSNorm divides all logits by one positive number that depends on the text: order "
    "and sign of the effects are exact, their common size is for a stream of root mean square 1"
)


@dataclass(frozen=True)
class Context:
    """A stretch of text around a token at which a latent is strongly active."""

    sequence: int  # row of the tokens that were looked at
    start: int  # position of the first token in that row
    peak: int  # of the strongest activation, within the stretch
    tokens: tuple[int, ...]
    activations: tuple[float, ...]


@dataclass(frozen=True)
class LatentContexts:
    """Where one latent is most active."""

    latent: int
    contexts: tuple[Context, ...]
    density: float  # share of tokens at which it is active
    largest: float


def top_contexts(
    tokens: Tensor,
    activations: Tensor,
    latent: int,
    *,
    num: int = 10,
    before: int = 20,
    after: int = 5,
) -> LatentContexts:
    """Return where a latent is most active, with the text around."""
    num = check_count("num", num, minimum=1)
    before, after = check_count("before", before, 0), check_count("after", after, 0)
    shape = check_float_tensor("activations", activations, num_axes=2)
    if tuple(tokens.shape) != shape or 0 in shape:
        raise ShapeError(
            f"tokens has shape {tuple(tokens.shape)} and activations {shape}; one activation for "
            "each token, (sequences, positions), was expected."
        )
    values = activations.detach().cpu()
    length = shape[1]
    taken = torch.zeros(shape, dtype=torch.bool)
    contexts: list[Context] = []
    for position in values.flatten().argsort(descending=True, stable=True).tolist():
        row, peak = divmod(position, length)
        if len(contexts) == num or float(values[row, peak]) <= 0:
            break
        start, stop = max(0, peak - before), min(length, peak + after + 1)
        if bool(taken[row, start:stop].any()):
            continue
        taken[row, start:stop] = True
        contexts.append(
            Context(
                sequence=row,
                start=start,
                peak=peak - start,
                tokens=tuple(tokens[row, start:stop].tolist()),
                activations=tuple(values[row, start:stop].tolist()),
            )
        )
    return LatentContexts(
        latent=latent,
        contexts=tuple(contexts),
        density=float((values > 0).double().mean()),
        largest=float(values.max()),
    )


@dataclass(frozen=True)
class TokenScore:
    """One token id and its number, in the unit that the record around it says."""

    token: int
    value: float


@dataclass(frozen=True)
class TokenEffect:
    """Which tokens a direction at the output of a layer promotes."""

    promoted: tuple[TokenScore, ...]
    suppressed: tuple[TokenScore, ...]
    norm: str  # how the final norm was treated, in words


@dataclass(frozen=True)
class EigenvectorTokens:
    """The tokens that a direction at the input of a layer reads, straight from the embedding."""

    eigenvalue: float
    positive: tuple[TokenScore, ...]  # of largest cosine with the eigenvector
    negative: tuple[TokenScore, ...]


def output_tokens(direction: Tensor, unembed: Tensor, num: int = 10) -> TokenEffect:
    """Return which tokens a direction of the residual stream promotes and suppresses."""
    num = check_count("num", num, minimum=1)
    effects = check_pair("direction", direction, "unembed", unembed)
    effects = effects - effects.mean()
    return TokenEffect(strongest(effects, num), strongest(effects, num, lowest=True), NORM)


def eigenvector_tokens(
    eigenpairs: EigenDecomposition, embed: Tensor, num: int = 10
) -> tuple[EigenvectorTokens, ...]:
    """Return the tokens whose embeddings lie along each eigenvector, without any SAE."""
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
    """Return rows · direction in float64, (num rows,)."""
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
