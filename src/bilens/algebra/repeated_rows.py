"""Rows that occur several times: a split that holds some out has to keep them together."""

import torch
from torch import Tensor

NEAR = 1e-6  # root mean square of what rows differ by, in deviations: rounding, and no more
NEIGHBOURS = 4  # along a line, that are compared with each row
NAN = -12345.678  # stands for it
BLOCK = 4096


def equal_rows(x: Tensor) -> Tensor:
    """Return the number of the first row that each row equals, up to rounding, (rows,).

    Rows are ordered along a random line, where equal ones are neighbours. NaN equals NaN.
    """
    from scipy.sparse import coo_array  # slow to import, needed only here
    from scipy.sparse.csgraph import connected_components

    x = x.detach().flatten(1)
    if bool(x.isnan().any()):
        x = x.nan_to_num(nan=NAN)
    deviation = x.std(dim=0, correction=0).double()
    scale = 1 / torch.where(deviation > 0, deviation, 1.0)
    generator = torch.Generator().manual_seed(0)
    line = torch.randn(x.shape[1], generator=generator, dtype=torch.float64).to(x.device)
    places = [part.double() @ (line * scale) for part in torch.split(x, BLOCK)]
    place, order = torch.cat(places).sort(stable=True)
    reach = 2 * NEAR * x.shape[1] ** 0.5 * float(line.norm())
    ends = []
    for lag in range(1, min(NEIGHBOURS, len(x) - 1) + 1):
        close = (place[lag:] - place[:-lag] <= reach).nonzero()[:, 0]
        one, other = order[close], order[close + lag]
        apart = (x[one].double() - x[other].double()) * scale
        near = apart.square().mean(dim=1) <= NEAR**2
        ends.append(torch.stack([one[near], other[near]]))
    pairs = torch.cat([x.new_zeros(2, 0).long(), *ends], dim=1).cpu().numpy()
    graph = coo_array(([1] * pairs.shape[1], (*pairs,)), shape=(len(x), len(x)))
    label = torch.from_numpy(connected_components(graph, directed=False)[1]).long().to(x.device)
    first = label.new_full((len(x),), len(x))
    first.scatter_reduce_(0, label, torch.arange(len(x), device=x.device), "amin")
    return first[label]


def keep_together(held_out: Tensor, order: Tensor, equal: Tensor) -> Tensor:
    """Return which rows are held out, (rows,) bool, equal rows all or none.

    They go where the one of them went that comes first in the random `order`; `equal` is from
    `equal_rows`. Where no row is repeated, nothing changes.
    """
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    leader = place.new_full((len(order),), len(order))
    leader.scatter_reduce_(0, equal, place, "amin")
    together: Tensor = held_out[order[leader[equal]]]
    return together


def rows_alone(x: Tensor, others: Tensor) -> Tensor:
    """Return which rows equal none of the others, (rows,) bool."""
    equal = equal_rows(torch.cat([others, x]))
    return equal[len(others) :] >= len(others)
