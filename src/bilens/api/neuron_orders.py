"""Layers of a baseline written with the inputs, the outputs and the neurons of a model.

Neurons between the layers of a network have no names, and the same network may be written with
them in any other order: they are matched by what they answer to the same inputs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from bilens.algebra.approximation.layer_weights import GLUWeights, in_float64
from bilens.base.errors import NonFiniteError
from bilens.findings.residual_stream import CLOSE
from bilens.nn.agreement import inputs_that_reach
from bilens.nn.layer_view import LayerView

IN_PLACE = 1e-9  # of the mean distance: what equal neurons are nearer to the one in their place


def in_order(view: LayerView, order: Tensor | None, *, outputs: bool) -> LayerView:
    """Return a layer that reads, or gives, neuron i where it had neuron `order[i]`."""
    if order is None:
        return view
    matrix = torch.eye(len(order), dtype=torch.float64)[order]
    none = matrix.new_zeros(len(order))
    return view.before(matrix, view.gives) if outputs else view.behind(matrix.T, none)


def orders_of_neurons(
    before: Sequence[LayerView], after: Sequence[LayerView]
) -> dict[str, Tensor | None]:
    """Return for each layer of a network but the last which neurons of a baseline its own are.

    Behind a layer of which they are not known, they are known of none. Of layers that are of other
    sizes, and of those that cannot be read, nothing is said.
    """
    found: dict[str, Tensor | None] = {}
    last: Tensor | None = None
    for old, new in zip(before[:-1], after[:-1], strict=True):
        ours = in_order(old, last, outputs=False)
        if (ours.sizes.d_in, ours.sizes.d_out) != (new.sizes.d_in, new.sizes.d_out):
            break
        try:
            last = order_of_neurons(ours, new)
        except NonFiniteError:  # the layer says so itself
            break
        if last is None:
            return found | dict.fromkeys(view.name for view in after[len(found) : -1])
        found[new.name] = last
    return found


@torch.no_grad()
def order_of_neurons(before: LayerView, after: LayerView) -> Tensor | None:
    """Return which neuron of a baseline's layer each of a model's is; None where none is like it.

    Math: the permutation of least Σ ‖y_i − y'_π(i)‖² over inputs that the first branch of the layer
        answers to at several scales; taken where that is below `CLOSE`² of Σ ‖y'_i‖².
    Cost: both layers on some hundred inputs, and an assignment where nearest neurons are shared.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, needed only here

    new, old = (in_float64(one.read()) for one in (after, before))
    weight, bias = (
        (new.gate, new.gate_bias) if isinstance(new, GLUWeights) else (new.up, new.up_bias)
    )
    x = inputs_that_reach(weight, weight.new_zeros(len(weight)) if bias is None else bias)
    made, had = new(x), old(x)
    distances = torch.cdist(made.T, had.T).square()
    total = had.square().sum()
    distances.diagonal().sub_(IN_PLACE * total / len(distances))
    nearest = distances.argmin(dim=1)
    if len({*nearest.tolist()}) < len(nearest):
        nearest = torch.from_numpy(linear_sum_assignment(distances.numpy())[1])
    left = (made - had[:, nearest]).square().sum()
    return nearest if bool(left <= CLOSE**2 * total) else None
