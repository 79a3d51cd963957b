"""Every output latent of a layer, from weights alone: how it is built, ranked and grouped.

An *output latent* is one output of a map g, `latent_map(f, encoder, offset)`: what an SAE behind
the MLP computes before its activation function. An *input latent* is a column of a dictionary D
in front of the MLP, the decoder of another SAE.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bilens.algebra.directions import outputs_of
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.gram.inner_products import output_gram
from bilens.algebra.gram.kernel import blocks
from bilens.algebra.interactions.feature_factors import check_dictionary
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.shapes import check_shape
from bilens.base.checks import check_count, check_dense_tensor, check_type
from bilens.base.errors import ShapeError, UsageError
from bilens.base.memory import check_memory

ROWS = 4096  # eigenvectors compared at a time: (ROWS, features) cosines are held
BINS = 6  # of each feature: two-way tables of 36 cells
ROUNDING = 1e-12  # of the largest squared norm: a form below it has no direction


@dataclass(frozen=True, eq=False)
class NearestLatents:
    """The input latents that lie closest to each eigenvector, by falling |cosine|."""

    latents: Tensor  # (num, k, r) int64, columns of the dictionary; −1 without an eigenvector
    cosines: Tensor  # (num, k, r), between the eigenvector and the column, signed, −1 … 1
    projections: Tensor  # (num, k, r), v·d


@dataclass(frozen=True, eq=False)
class LayerTrace:
    eigenpairs: EigenDecomposition
    nearest: NearestLatents


def latent_map(f: QuadraticMap, encoder: Tensor, offset: Tensor | None = None) -> QuadraticMap:
    """Return g, whose output a is the pre-activation of output latent a."""
    check_type("f", f, QuadraticMap, "use model.layer_map(i)")
    latents, width = check_dense_tensor("encoder", encoder, num_axes=2)
    if width != f.sizes.d_out or latents == 0:
        raise ShapeError(
            f"encoder has shape {(latents, width)}; the layer writes {f.sizes.d_out} outputs, so "
            f"(latents, {f.sizes.d_out}) was expected: is this the SAE behind this layer?"
        )
    device = f.tensor.down.device
    shift = None if offset is None else offset.detach().to(device).double()
    wide = f.detach().to(torch.float64)
    return wide.compose_output(encoder.detach().to(device).double(), shift)


def nearest_latents(
    g: QuadraticMap, eigenvectors: Tensor, dictionary: Tensor, num: int = 5
) -> NearestLatents:
    """Return the columns of a dictionary of largest |cosine| with each eigenvector."""
    num = min(check_count("num", num, minimum=1), check_dictionary(g, dictionary))
    columns = dictionary.detach().to(eigenvectors)
    lengths = torch.linalg.vector_norm(columns, dim=0)
    units = columns / torch.where(lengths > 0, lengths, 1.0)
    vectors = eigenvectors.flatten(0, 1)
    found, cosines = [], []
    for part in blocks(len(vectors), ROWS):
        overlap = vectors[part] @ units
        sizes, found_at = overlap.abs().topk(num, dim=1)
        missing = sizes.isnan()
        found.append(found_at.masked_fill(missing, -1))
        cosines.append(overlap.gather(1, found_at))
    latents, cosine = torch.cat(found), torch.cat(cosines)
    shape = (*eigenvectors.shape[:2], num)
    projections = (cosine * lengths[latents.clamp(min=0)]).view(shape)
    return NearestLatents(latents.view(shape), cosine.view(shape), projections)


def trace_layer(g: QuadraticMap, dictionary: Tensor, *, k: int = 4) -> LayerTrace:
    """Return eigenpairs of output latents and the input latents nearest to them."""
    check_type("g", g, QuadraticMap, "use latent_map(f, encoder, offset)")
    pairs = eigendecompose_all(g, k=min(k, g.sizes.d_in))
    return LayerTrace(pairs, nearest_latents(g, pairs.eigenvectors, dictionary))


def only(g: QuadraticMap, latents: Tensor) -> QuadraticMap:
    """Keep these latents of a map's outputs."""
    return outputs_of(g, latents.tolist())


@dataclass(frozen=True, eq=False)
class Ranking:
    """Output latents by how much of a circuit they look like, the most interesting first."""

    order: Tensor  # (num,) int64, output latents by falling score
    score: Tensor  # (num,), 0 … 1; the product of the parts
    pair_share: Tensor  # (num,), (λ₊² + λ₋²) / ‖Q‖², the extreme eigenvalues of either sign
    sign_contrast: Tensor  # (num,), min / max of their sizes
    interaction_share: Tensor
    positive: Tensor  # (num,), λ₊, 0 without one
    negative: Tensor  # (num,), λ₋, 0 without one


def rank_latents(g: QuadraticMap, pairs: EigenDecomposition, inputs: Tensor) -> Ranking:
    """Order output latents by how nearly they are one product of two different features.

    Cost: two more eigenpairs of each latent whose given ones are all of one sign.
    """
    values, vectors = both_ends(g, pairs)
    usable = values.isfinite().all(dim=1)
    values = values.where(usable[:, None], 0.0)
    plus, minus = values[:, 0].clamp(min=0), values[:, 1].clamp(max=0)
    sizes, norm = torch.stack([plus, minus.abs()]), pairs.norm.where(usable, 0.0)
    pair_share = (sizes / norm.where(norm > 0, torch.inf)).square().sum(dim=0)
    contrast = sizes.amin(dim=0) / sizes.amax(dim=0).where(norm > 0, torch.inf)
    interaction = torch.ones_like(contrast)
    check_shape("inputs", inputs, ("rows", vectors.shape[-1]))
    x = inputs.detach().double()
    for row in (contrast > 0).nonzero()[:, 0].tolist():
        one, other = sizes[:, row, None].sqrt() * (vectors[row] @ x.T)
        interaction[row] = interaction_share(one + other, one - other)
    score = pair_share * contrast * interaction
    order = score.argsort(descending=True, stable=True)
    return Ranking(order, score, pair_share, contrast, interaction, plus, minus)


def both_ends(g: QuadraticMap, pairs: EigenDecomposition) -> tuple[Tensor, Tensor]:
    """Return the largest and the smallest eigenvalue, (num, 2), and their vectors, (num, 2, in).

    Pairs of both signs, by falling size, hold the extreme ones; where all are of one sign, the
    other end lies behind them.
    """

    def ends(pairs: EigenDecomposition) -> tuple[Tensor, Tensor]:
        values, vectors = pairs.eigenvalues, pairs.eigenvectors
        at = torch.stack([values.argmax(dim=1), values.argmin(dim=1)], dim=1)
        rows = torch.arange(len(values), device=values.device)[:, None]
        return values.gather(1, at), vectors[rows, at]

    values, vectors = ends(pairs)
    alike = (values.sign().sum(dim=1).abs() == 2).nonzero()[:, 0]
    if len(alike) and pairs.eigenvalues.shape[1] < g.sizes.d_in:
        values[alike], vectors[alike] = ends(eigendecompose_all(only(g, alike), k=2, which="both"))
    return values, vectors


def interaction_share(first: Tensor, second: Tensor) -> Tensor:
    """Return the share of the variance of a product that no sum f(first) + g(second) explains."""
    product = first * second
    product = product - product.mean()
    total = product.square().sum()
    if float(total) == 0:
        return total
    row, column = in_bins(first), in_bins(second)
    cell = row * BINS + column
    count = torch.bincount(cell, minlength=BINS**2).double()
    mean = product.new_zeros(BINS**2).index_add(0, cell, product) / count.clamp(min=1)
    index = torch.arange(BINS**2, device=cell.device)
    design = product.new_zeros(BINS**2, 2 * BINS)
    design[index, index // BINS] = 1.0
    design[index, BINS + index % BINS] = 1.0
    weight = count.sqrt()[:, None]
    problem = (weight * design).cpu(), (weight * mean[:, None]).cpu()  # the only one that has gelsd
    fit = torch.linalg.lstsq(*problem, driver="gelsd").solution
    rest = mean - (design @ fit.to(design))[:, 0]
    share: Tensor = ((count * rest.square()).sum() / total).clamp(0.0, 1.0)
    return share


def in_bins(values: Tensor) -> Tensor:
    levels = torch.linspace(0, 1, BINS + 1, dtype=values.dtype, device=values.device)[1:-1]
    ordered = values.sort().values
    edges = ordered[(levels * (len(values) - 1)).round().long()]
    return torch.bucketize(values, edges)


@dataclass(frozen=True, eq=False)
class Clusters:
    similarity: Tensor  # (num, num), cosine ⟨Q_i, Q_j⟩ / ‖Q_i‖‖Q_j‖, −1 … 1; NaN for a form of zero
    threshold: float  # cosine above which groups were joined (average linkage)
    labels: Tensor  # (num,) int64, cluster of each latent, 0 is the largest cluster
    members: tuple[tuple[int, ...], ...]


def cluster_latents(g: QuadraticMap, *, threshold: float = 0.5) -> Clusters:
    """Group output latents by the cosine between their forms, without looking at data."""
    check_type("g", g, QuadraticMap, "use latent_map(f, encoder, offset)")
    if not -1 < threshold < 1:
        raise UsageError(f"threshold={threshold!r}; a cosine between −1 and 1 was expected.")
    num = g.sizes.d_out
    what = f"the similarities of {num} output latents"
    check_memory(8 * 6 * num * num, what, "cluster fewer latents", device=g.device)
    down, left, right = g.tensor.down, g.tensor.left, g.tensor.right
    with torch.no_grad():
        gram = output_gram(down, left, right, down, left, right).cpu()
    squared = gram.diagonal()
    known = squared > ROUNDING * squared.max().clamp(min=torch.finfo(torch.float64).tiny)
    lengths = torch.where(known, squared, torch.nan).sqrt()
    similarity = (gram / lengths / lengths[:, None]).clamp(-1.0, 1.0)
    members = groups(similarity, threshold)
    labels = torch.empty(num, dtype=torch.int64)
    for label, group in enumerate(members):
        labels[list(group)] = label
    return Clusters(similarity, threshold, labels, members)


def groups(similarity: Tensor, threshold: float) -> tuple[tuple[int, ...], ...]:
    """Return positions that belong together, largest group first, then by first member."""
    from scipy.cluster.hierarchy import fcluster, linkage  # slow to import, needed only here
    from scipy.spatial.distance import squareform

    num = len(similarity)
    if num == 1:
        return ((0,),)
    distance = (1 - similarity).nan_to_num(2.0).numpy().copy()  # a form of zero is like no other
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), method="average")
    labels = fcluster(tree, 1 - threshold, criterion="distance")
    found: dict[int, list[int]] = {}
    for position, label in enumerate(labels.tolist()):
        found.setdefault(label, []).append(position)
    return tuple(
        tuple(group) for group in sorted(found.values(), key=lambda group: (-len(group), group))
    )
