"""The largest inner products of two sets of vectors, exactly, without the array of all."""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

BLOCK = 2048  # rows of either side whose products are held at a time
SLACK = 1 + 1e-9  # of a bound, for the rounding of norms and products


def largest_products(
    firsts: Sequence[Tensor], seconds: Sequence[Tensor], k: int, *, absolute: bool = False
) -> tuple[Tensor, Tensor]:
    """Find the k largest Π_p firsts[p][i] · seconds[p][j] over all pairs (i, j).

    Math: |Π_p u_p · v_p| ≤ Π_p ‖u_p‖ · Π_p ‖v_p‖. Rows are taken in blocks by falling norms, and a
        block whose bound is below the k-th best so far holds nothing that is missing. Others are
        screened in float32, whose rounding is at most width · ε Π_p ‖u_p‖ ‖v_p‖, and computed
        again where one may be among the best.
    Cost: O(n · m · width) at most; memory BLOCK² numbers, and the rows once more.

    Args:
        firsts: (n, width) each, one or more.
        seconds: (m, width) each, as many.
        k: how many.
        absolute: whether the largest in size are meant, of either sign.

    Returns: (k, 2) positions i and j by falling value, and (k,) the products with their signs.
    """
    sizes, orders, rows, exponent = [], [], [], 0
    for given in (firsts, seconds):
        # of size 1: the screening in float32 would lose small products
        exponents = [int(torch.frexp(one.abs().max()).exponent) for one in given]
        side = [one * 2.0**-power for one, power in zip(given, exponents, strict=True)]
        exponent += sum(exponents)
        norms = torch.stack([one.norm(dim=1) for one in side]).prod(dim=0)
        order = norms.argsort(descending=True, stable=True)
        sizes.append(norms[order] * SLACK)
        orders.append(order)
        rows.append([one[order].contiguous() for one in side])
    rough = [[one.float() for one in side] for side in rows]
    rounding = len(firsts) * (firsts[0].shape[1] + 4) * torch.finfo(torch.float32).eps
    best = firsts[0].new_zeros(0)
    found = torch.zeros(0, 2, dtype=torch.int64, device=orders[0].device)
    for i in range(0, len(orders[0]), BLOCK):
        for j in range(0, len(orders[1]), BLOCK):
            full = len(best) == k
            floor = float(best[-1].abs() if absolute else best[-1]) if full else -torch.inf
            bound = float(sizes[0][i] * sizes[1][j])
            if full and bound <= floor:
                break  # the blocks behind it hold smaller rows still
            if full:
                near = block_of_products(rough, i, j)
                if float((near.abs() if absolute else near).max()) <= floor - rounding * bound:
                    continue
            values = block_of_products(rows, i, j)
            measured = values.abs() if absolute else values
            _, at = measured.flatten().topk(min(k, values.numel()))
            first, second = torch.unravel_index(at, values.shape)
            pairs = torch.stack([orders[0][i + first], orders[1][j + second]], dim=1)
            best, found = torch.cat([best, values.flatten()[at]]), torch.cat([found, pairs])
            falling = (best.abs() if absolute else best).argsort(descending=True, stable=True)[:k]
            best, found = best[falling], found[falling]
    return found, best * 2.0**exponent


def block_of_products(rows: Sequence[Sequence[Tensor]], i: int, j: int) -> Tensor:
    values = [u[i : i + BLOCK] @ v[j : j + BLOCK].T for u, v in zip(*rows, strict=True)]
    product: Tensor = reduce(torch.mul, values)
    return product


def factored_singular_values(left: Tensor, right: Tensor) -> Tensor:
    """Compute the singular values of left rightᵀ, (n, r) and (m, r), from its factors alone."""
    corners = (torch.linalg.qr(one, mode="r").R for one in (left, right))
    first, second = corners
    values: Tensor = torch.linalg.svdvals(first @ second.T)
    return values
