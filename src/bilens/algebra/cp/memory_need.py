"""How much memory a CP fit takes, from sizes alone, before anything runs."""

from __future__ import annotations

from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.algebra.cp.residual import SLAB_PRODUCTS
from bilens.algebra.gram.blocks import block_bytes

FACTORS = 3  # float64 copies of the factors of the map alive at once
PAIRS = 25  # L-BFGS keeps 20 steps and 20 changes of the gradient, each as large as a model


def fit_bytes(sizes: FactorSizes, rank: int, method: str, num_starts: int) -> int:
    """Return the bytes that a fit needs at most, beside the map.

    Args:
        sizes: of the map.
        rank: number of components.
        method: "als" or "gradient".
        num_starts: starts, whose models are all kept.
    """
    d_out, d_hidden, d_in = sizes
    factors = FACTORS * (d_out + 2 * d_in) * d_hidden
    largest_slab = SLAB_PRODUCTS // (d_hidden * min(d_out, d_hidden))  # larger ones are not built
    slabs = 3 * min(d_in**2, 4 * (d_hidden + rank) ** 2, largest_slab)
    products = rank * (10 * d_hidden + 16 * d_in + 4 * d_out) + 8 * rank**2
    model = rank * (d_out + 2 * d_in)
    history = 2 * PAIRS * model if method == "gradient" else 0
    norms = block_bytes(d_hidden, 6 * d_in)
    return 8 * (factors + slabs + products + num_starts * model + history) + norms
