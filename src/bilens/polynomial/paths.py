"""Where in a polynomial network something is computed: parts of a sum, by the parts passed."""

from collections.abc import Callable, Collection, Sequence
from itertools import combinations

import torch
from torch import Tensor

from bilens.base.checks import check_type
from bilens.base.errors import UsageError
from bilens.base.notebook import frozen_result
from bilens.polynomial.network import PolynomialNetwork
from bilens.polynomial.token_interactions import interactions_of

MOST_PARTS = 10  # 2^10 runs of the network
DIRECT = "direct"


@frozen_result("paths", "values", "whole")
class PathSplit:
    """A quantity of the network as a sum over paths; the values add up to the whole.

    Attributes:
        paths: the parts that each path passes, in their order; empty for the direct path from
            the embedding to the head.
        values: (paths, …), what each adds.
        whole: (…), their sum, computed by the whole network.
    """

    paths: tuple[tuple[str, ...], ...]
    values: Tensor
    whole: Tensor

    def names(self) -> tuple[str, ...]:
        """Name each path: "attention 0 → mlp 1", or "direct"."""
        return tuple(" → ".join(path) or DIRECT for path in self.paths)

    def largest(self, k: int = 5) -> list[tuple[str, float]]:
        """List the k paths with the largest norm, each with its share of the sum of squares."""
        sizes = self.values.reshape(len(self.paths), -1).square().sum(dim=1)
        shares = sizes / sizes.sum().clamp(min=torch.finfo(sizes.dtype).tiny)
        order = shares.argsort(descending=True)[:k].tolist()
        return [(self.names()[at], float(shares[at])) for at in order]


def split_by_path(
    network: PolynomialNetwork, measure: Callable[[Collection[str]], Tensor]
) -> PathSplit:
    """Split what a network computes by the set of parts that each of its monomials passes.

    Math: with m(A) the quantity when only the parts in A run, the path through exactly the parts
        in A adds Σ_{B ⊆ A} (−1)^{|A| − |B|} m(B), and these sum to m(all parts). Every monomial of
        the network belongs to one path: the one of all parts that it passes.
    Cost: 2^parts evaluations of the quantity, ten parts at most.

    Args:
        network: whose layers have residual paths; one without cannot be left out and is in all.
        measure: the quantity when only the parts of these names add to the stream.

    Raises: UsageError if more than ten parts can be left out.
    """
    check_type("network", network, PolynomialNetwork, "use bl.polynomial_network(model)")
    free = network.optional_parts
    always = {*network.part_names} - {*free}
    return split_by_parts(free, lambda active: measure({*always, *active}))


def split_by_parts(
    free: Sequence[str], measure: Callable[[Collection[str]], Tensor], instead: str = ""
) -> PathSplit:
    """Split a quantity by the sets of the parts that can be left out, as `split_by_path` does.

    Args:
        free: names of the parts, in their order.
        measure: the quantity when only the parts of these names add to the stream.
        instead: what to use where there are too many parts, as the end of a sentence.
    """
    if len(free) > MOST_PARTS:
        raise UsageError(
            f"{len(free)} parts have 2^{len(free)} sets of them: at most {MOST_PARTS} parts can be "
            f"split by path{instead}."
        )
    subsets = [tuple(one) for n in range(len(free) + 1) for one in combinations(free, n)]
    measured = torch.stack([measure(subset) for subset in subsets])
    values, place = measured.clone(), {subset: at for at, subset in enumerate(subsets)}
    for left_out in free:  # the Möbius transform, one part at a time
        for subset, at in place.items():
            if left_out in subset:
                values[at] -= values[place[tuple(one for one in subset if one != left_out)]]
    return PathSplit(tuple(subsets), values, measured[-1])


def split_interactions(
    network: PolynomialNetwork, tokens: Tensor, distance: int | Sequence[int] | None = None
) -> PathSplit:
    """Split interactions of given tokens, (n, order), by path: values (paths, n, outputs)."""
    return split_by_path(
        network, lambda active: interactions_of(network, tokens, distance, active=active)
    )
