"""Which inputs a layer does not read, and which one it reads most."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.approximation.layer_weights import Layer
from bilens.algebra.gram.inner_products import input_gram
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.rotation_null import random_frame
from bilens.findings.layers.units import unused_columns
from bilens.records.layer_audit import InputShares

TURNS = 5  # of the coordinates; the largest of many shares varies little


def read_inputs(layer: Layer, f: QuadraticMap | None, generator: torch.Generator) -> InputShares:
    """Return unused inputs, and the one whose row of the map is largest.

    Math: the share of input i is (Σ_c Q_c²)_ii / ‖B‖², and all shares add up to one. Chance is the
        largest share in coordinates that are turned at random.
    Cost: O(hidden² · (in + out) + in³), nothing of it where f is None.

    Args:
        layer: as it is stored.
        f: its map; None where that is not to be read.
        generator: of the turns.
    """
    unused = unused_columns(layer)
    if f is None:
        return InputShares(unused, None, 0.0, 0.0)
    gram = input_gram(f.tensor.down, f.tensor.left, f.tensor.right)
    shares, chance = gram_shares(gram, generator)
    return InputShares(unused, int(shares.argmax()), float(shares.max()), chance)


def gram_shares(gram: Tensor, generator: torch.Generator) -> tuple[Tensor, float]:
    """Return the share of each input in the trace, and the largest one by chance."""
    mass = gram.trace().where(gram.trace() > 0, 1.0)
    largest = []
    for _ in range(TURNS):
        frame = random_frame(len(gram), len(gram), generator)
        largest.append(float(((gram @ frame) * frame).sum(dim=0).max() / mass))
    return gram.diagonal() / mass, max(largest)
