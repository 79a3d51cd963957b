"""Hidden units that do nothing, or the same, on inputs that were seen, and ranks there."""

import torch
from torch import Tensor

from bilens.algebra.approximation.layer_weights import Layer
from bilens.algebra.approximation.quadratic_fit import SeenRows
from bilens.algebra.gram.kernel import nonzero
from bilens.findings.hidden_units import DEAD, SAME
from bilens.records.layer_readings import SeenUnits

BLOCK = 1024  # rows at once
MOST_UNITS = 8192  # of which pairs are compared: a matrix of half a gigabyte
MOST_ROWS = 2_000  # that ranks are of, drawn evenly
MASS = 0.99  # of the variance


def read_seen_units(layer: Layer, seen: SeenRows) -> SeenUnits:
    """Return which units are silent or alike on all rows that were seen, and how many directions.

    Cost: O(rows · hidden · (in + hidden)) and the ranks of 2,000 rows at most.
    """
    x = torch.cat([seen.x, seen.held_out])
    units, products = len(layer.down.T), None
    largest = x.new_zeros(units, dtype=torch.float64)
    if units <= MOST_UNITS:
        products = largest.new_zeros(units, units)
    for rows in torch.split(x, BLOCK):
        hidden = layer.hidden(rows.double())
        largest = torch.maximum(largest, hidden.abs().amax(dim=0))
        products = None if products is None else products.addmm_(hidden.T, hidden)
    silent = largest <= DEAD * largest.median()
    duplicates = None
    if products is not None:
        sizes = nonzero(products.diagonal().sqrt())
        cosines = (products / sizes / sizes[:, None])[~silent][:, ~silent].abs()
        duplicates = int((cosines.triu(1) >= 1 - SAME**2 / 2).sum())
    some = x[torch.linspace(0, len(x) - 1, min(len(x), MOST_ROWS)).long()].double()
    hidden = layer.hidden(some)
    return SeenUnits(
        len(x),
        int(silent.sum()),
        duplicates,
        input_rank=directions_of(some),
        hidden_rank=directions_of(hidden),
        output_rank=directions_of(layer.behind(hidden, some)),
    )


def directions_of(rows: Tensor) -> int:
    """Return how many directions hold 99 % of the variance of rows."""
    values = torch.linalg.svdvals(rows - rows.mean(dim=0)).square()
    held = values.cumsum(dim=0) < MASS * values.sum()
    return int(held.sum()) + 1 if float(values.sum()) > 0 else 0
