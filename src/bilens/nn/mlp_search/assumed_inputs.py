"""The input of a layer that normalisations beside it speak for, by what they have learnt of it."""

import torch

from bilens.algebra.gaussian import GaussianInput
from bilens.nn.mlp_search.expression import Applied, FoundLayer, NormMoments, Tree, linearised


def assumed_input(layer: FoundLayer) -> GaussianInput | None:
    """Return the input that statistics in a module speak for; None where there are none.

    Those of a normalisation behind a matrix A say mean μ and variance σ² of Ax + c alone: x is
    taken to vary alike in all directions, σ² on average, about the least m with Am + c = μ.
    """
    seen = learnt_moments(layer)
    if seen is None:
        return None
    (tree, sees), width = seen, layer.sizes.d_in
    before = linearised(tree)
    a = before.matrix(layer.source, width).detach().double()
    mean, deviation = (one().detach().cpu().double() for one in (sees.mean, sees.deviation))
    mean = (mean if before.constant is None else mean - before.constant.double()).expand(len(a))
    deviation = deviation.expand(len(a))
    if len(a) == width and bool(a.diagonal().all()) and int(a.count_nonzero()) == width:
        scale = a.diagonal()
        root = torch.diag(deviation / scale.abs())
        return GaussianInput(mean / scale, root, f"N(μ, σ²) of the {sees.of} in front")
    spread = (deviation.square().sum() / a.square().sum().clamp(min=1e-300)).sqrt()
    centre = torch.linalg.lstsq(a, mean[:, None], driver="gelsd").solution[:, 0]
    root = spread * torch.eye(width, dtype=torch.float64)
    return GaussianInput(centre, root, f"N(μ, σ²) of the {sees.of} right behind")


def learnt_moments(layer: FoundLayer) -> tuple[Tree, NormMoments] | None:
    """Return the value nearest to the source whose moments are known; None for none."""
    tree: Tree = layer.neurons.gate
    found = None
    while isinstance(tree, Applied):
        if tree.step.sees is not None:
            found = tree.inner, tree.step.sees
        tree = tree.inner
    if tree is not layer.source:
        return None
    return (tree, layer.source.sees) if layer.source.sees is not None else found
