"""Truncates the wires of a network, and projects them otherwise as control."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

import bilens as bl

SEED = 0
TOLERANCES = (0.01, 0.001)  # of accuracy or loss, of that of the whole
# of the squared norm, or of the variance, that a wire may lose
SHARES = [0.9, 0.8, 0.7, 0.6, *(0.5 * 10 ** (-0.25 * step) for step in range(32))]
RANDOM_DRAWS, DRAWS = 2, 4_000

Projection = tuple[Tensor, Tensor]  # a matrix on the channels of a wire, and what is added
Moments = tuple[Tensor, Tensor]  # mean and covariance
Good = Callable[[float, float], bool]  # a value of the network, and a tolerance


def along(basis: Tensor, mean: Tensor) -> Projection:
    """Project onto orthonormal directions around a mean."""
    matrix = basis @ basis.T
    return matrix, mean - matrix @ mean


def principal(moments: Sequence[Moments], share: float) -> tuple[list[Projection], int]:
    """Keep all but a share of the variance of each wire; count what is kept, the mean as one."""
    chosen, kept = [], 0
    for mean, covariance in moments:
        values, vectors = torch.linalg.eigh(covariance)
        rest = values.clamp(min=0).cumsum(dim=0) / values.clamp(min=0).sum()
        count = max(int((rest > share).sum()), 1)
        chosen.append(along(vectors[:, -count:], mean))
        kept += count + 1
    return chosen, kept


def random(
    moments: Sequence[Moments], count: int, generator: torch.Generator
) -> tuple[list[Projection], int]:
    """Keep so many random directions of each wire around its mean."""
    chosen = []
    for mean, _ in moments:
        drawn = torch.randn(len(mean), count, generator=generator, dtype=torch.float64)
        chosen.append(along(torch.linalg.qr(drawn)[0], mean))
    return chosen, (count + 1) * len(chosen)


def most_removed(tried: Iterable[dict[str, Any]], good: Good) -> dict[str, dict[str, Any] | None]:
    """Find, for each tolerance, the try that removes most and is good enough."""
    rows = sorted(tried, key=lambda row: -row["removed"])
    return {str(one): next((r for r in rows if good(r["is"], one)), None) for one in TOLERANCES}


def try_controls(
    moments: Sequence[Moments], measure: Callable[[Sequence[Projection]], float], good: Good
) -> dict[str, Any]:
    """Try principal components and random directions; moments are of what each wire carries."""
    generator = torch.Generator().manual_seed(SEED)
    total = sum(len(mean) + 1 for mean, _ in moments)
    pca, drawn = [], []
    for share in SHARES:
        chosen, kept = principal(moments, share)
        pca.append({"removed": 1 - kept / total, "is": measure(chosen)})
    width = len(moments[0][0])
    for count in sorted({*range(width // 8, width, width // 8), *range(width - 7, width)}):
        found = [random(moments, count, generator) for _ in range(RANDOM_DRAWS)]
        values = [measure(chosen) for chosen, _ in found]
        drawn.append({"removed": 1 - found[0][1] / total, "is": sum(values) / len(values)})
    return {
        name: {"tried": rows, "best": most_removed(rows, good)}
        for name, rows in (("principal components", pca), ("random", drawn))
    }


def try_wires(
    network: bl.PolynomialNetwork,
    moments: Moments | None,
    measure: Callable[[bl.WireDecomposition, bl.TruncatedNetwork], float],
    good: Good,
    x: Tensor,
) -> dict[str, Any]:
    """Truncate a network under the moments of its inputs, None for N(0, I); x are inputs."""
    mean, covariance = (None, None) if moments is None else moments
    wires = bl.decompose_wires(network, mean=mean, covariance=covariance)
    total = sum(len(write) for write in wires.write)
    tried: list[dict[str, Any]] = []
    for share in SHARES:
        tails = [one.flip(0).cumsum(0).flip(0) > share * one.sum() for one in wires.spectra]
        less = wires.truncate([max(int(tail.sum()), 1) for tail in tails])
        row = {"removed": 1 - sum(less.widths) / total, "is": measure(wires, less)}
        tried.append({**row, "widths": less.widths})
    best = most_removed(tried, good)
    generator = torch.Generator().manual_seed(SEED)
    root = wires.inputs.root
    z = torch.randn(DRAWS, root.shape[1], generator=generator, dtype=torch.float64)
    drawn = z @ root.T + wires.inputs.mean
    for chosen in best.values():
        if chosen is not None:
            chosen |= describe(wires.truncate(chosen["widths"]), network, x, drawn)
    return {"tried": tried, "best": best}


def relative_error(f: Tensor, g: Tensor) -> float:
    """Return the root of the summed squared error over the summed squares."""
    return float((f - g).detach().norm() / f.detach().norm())


def describe(
    less: bl.TruncatedNetwork, network: bl.PolynomialNetwork, x: Tensor, drawn: Tensor
) -> dict[str, Any]:
    """Return the error that is told and those that are measured."""
    f, g = network(x), less.network(x)
    bounds, far = less.error_bound(x), (f - g).norm(dim=1)
    inside = bounds.isfinite()
    assert bool((far <= bounds).all()), "the bound holds"
    return {
        "told": (less.squared_error / less.squared_norm) ** 0.5,
        "rounding": (less.rounding / less.squared_norm) ** 0.5,
        "on_inputs": relative_error(f, g),
        "on_normal": relative_error(network(drawn), less.network(drawn)),
        "bound_over_error": float((bounds / far)[inside].median()) if bool(inside.any()) else None,
        "inside": float(inside.double().mean()),
    }
