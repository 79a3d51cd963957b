"""Rows that occur several times: a split that holds some out has to keep them together.

With `equal` from `equal_rows`, `held_out[equal]` does: equal rows go where the first of them went.
"""

import torch
from torch import Tensor

NEAR = 1e-6  # root mean square of what rows differ by, in deviations: rounding, and no more
NEIGHBOURS = 4  # along a line, that are compared with each row


def equal_rows(x: Tensor) -> Tensor:
    """Return the number of the first row that each row equals up to rounding, (rows,).

    Rows are ordered along a random line, where equal ones are neighbours.
    """
    x = x.detach().cpu()
    deviation = x.std(dim=0, correction=0).double()
    scale = 1 / torch.where(deviation > 0, deviation, 1.0)
    line = torch.randn(x.shape[1], generator=torch.Generator().manual_seed(0)).double()
    place, order = (x.double() @ (line * scale)).sort(stable=True)
    pairs = []
    for lag in range(1, min(NEIGHBOURS, len(x) - 1) + 1):
        close = place[lag:] - place[:-lag] <= 2 * NEAR * len(line) ** 0.5 * line.norm()
        one, other = order[:-lag][close], order[lag:][close]
        near = ((x[one] - x[other]) * scale).square().mean(dim=1) <= NEAR**2
        pairs += torch.stack([one[near], other[near]], dim=1).tolist()
    if not pairs:
        return torch.arange(len(x))
    from scipy.sparse import coo_array  # slow to import, needed only here
    from scipy.sparse.csgraph import connected_components

    ends = torch.tensor(pairs).view(-1, 2).T.numpy()
    graph = coo_array(([1] * len(pairs), (*ends,)), shape=(len(x), len(x)))
    group, numbers = torch.from_numpy(connected_components(graph)[1]).long(), torch.arange(len(x))
    first = numbers.new_full(numbers.shape, len(x)).scatter_reduce_(0, group, numbers, "amin")
    return first[group]


def count_different(equal: Tensor) -> int:
    """Return how many rows differ; `equal` is from `equal_rows`."""
    return int((equal == torch.arange(len(equal))).sum())


def rows_alone(x: Tensor, others: Tensor) -> Tensor:
    """Return which rows equal none of the others, (rows,) bool."""
    equal = equal_rows(torch.cat([others, x]))
    return equal[len(others) :] >= len(others)
