"""The template image of each class, and the leads between classes there."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.concentration import cosine_transform, cosines
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.certify.trust_region import solve_trust_region

TEMPLATE_PAIRS = 3  # eigenvectors of a class; more bring in what no input has
INK = 0.1  # mean square of an image's pixels that the length of a template stands for
MOST_SOURCES = 32  # classes whose templates a pattern is tried on
LEAST_NEED = 0.1  # of the median lead: what is taken for a lead at least
HARD = 0.25  # the source at which a pattern is judged: a quarter of them are harder


def class_templates(eigs: EigenDecomposition) -> Tensor:
    """Return an image for each class that its own score answers to, (classes, in), unit length."""
    # relu(Σ_{i ≤ 3} λ_i v_i + b / 2ρ), over the largest λ_i > 0, Σ v_i ≥ 0
    largest = eigs.distinct_from_zero.clamp(min=0).topk(
        min(TEMPLATE_PAIRS, eigs.eigenvalues.shape[1])
    )
    chosen = largest.indices[..., None].expand(-1, -1, eigs.eigenvectors.shape[2])
    vectors = eigs.eigenvectors.gather(1, chosen)
    upright = torch.where(vectors.sum(dim=2, keepdim=True) < 0, -vectors, vectors)
    pattern = (largest.values[..., None] * upright).sum(dim=1)
    pattern = (pattern + eigs.linear / (2 * usual_length(pattern.shape[1]))).clamp(min=0)
    length = pattern.norm(dim=1, keepdim=True)
    return pattern / torch.where(length > 0, length, 1.0)


def usual_length(d_input: int) -> float:
    """Return the length ρ of an image whose mean square is `INK`; a digit of MNIST has 9.2."""
    return float((INK * d_input) ** 0.5)


def gradients(f: QuadraticMap, x: Tensor) -> Tensor:
    """Return the gradient of every output at every point, (points, out, in)."""
    down, left, right = f.tensor.down, f.tensor.left, f.tensor.right
    slopes = (x @ right.T)[:, None] * down @ left + (x @ left.T)[:, None] * down @ right
    return slopes if f.linear is None else slopes + f.linear


@dataclass(frozen=True, eq=False)
class Leads:
    """The lead of each class t over each other class s on the template of s."""

    f: QuadraticMap  # class-centred
    eigs: EigenDecomposition  # its whole spectra
    templates: Tensor  # (classes, in), unit length
    shape: tuple[int, int]  # rows and columns of an image

    @cached_property
    def sources(self) -> Tensor:
        """The classes s, (sources,)."""
        classes = len(self.templates)
        return torch.arange(0, classes, -(-classes // MOST_SOURCES))

    @cached_property
    def images(self) -> Tensor:
        return usual_length(self.f.sizes.d_in) * self.templates[self.sources]

    @cached_property
    def is_rival(self) -> Tensor:
        """Where t is not s, (sources, classes)."""
        return self.sources[:, None] != torch.arange(len(self.templates))

    def over_sources(self, values: Tensor) -> Tensor:
        """Return values of each class minus those of the source, (sources, classes, ...)."""
        return values - values[torch.arange(len(self.sources)), self.sources][:, None]

    @cached_property
    def slopes(self) -> Tensor:
        """Gradients of the leads, (sources, classes, in)."""
        return self.over_sources(gradients(self.f, self.images))

    @cached_property
    def needs(self) -> Tensor:
        """By how much s leads t, (sources, classes); at least a tenth of the median lead."""
        needs = -self.over_sources(self.f(self.images))
        return needs.clamp(min=LEAST_NEED * float(needs[self.is_rival].median().clamp(min=0)))

    @cached_property
    def mean_slopes(self) -> Tensor:
        """Gradient of the mean lead of each class over the others, (classes, in)."""
        share = self.is_rival.to(self.slopes.dtype)
        return torch.einsum("st,sti->ti", share / share.sum(dim=0), self.slopes)

    @property
    def bend(self) -> float:
        """The factor from the class-centred form of t to that of its mean lead: Σ Q_s = 0."""
        return len(self.templates) / (len(self.templates) - 1)

    def gains(self, pattern: Tensor) -> Tensor:
        """Return how much a pattern, (in,), raises each lead, (sources, classes)."""
        before, after = (self.over_sources(self.f(x)) for x in (self.images, self.images + pattern))
        return after - before

    def turned(self, pattern: Tensor, target: int) -> int:
        """Return how many templates of other classes a pattern turns to the target."""
        before, after = (self.f(x).argmax(dim=1) for x in (self.images, self.images + pattern))
        return int(((after == target) & (before != target))[self.sources != target].sum())

    def shares_won(self, patterns: Tensor) -> Tensor:
        """Return the share of the lead that the pattern of t wins from s, s among the harder."""
        gains = torch.stack([self.gains(x)[:, t] for t, x in enumerate(patterns)], dim=1)
        shares = (gains / self.needs).masked_fill(~self.is_rival, torch.inf)
        rank = round(HARD * (int(self.is_rival.sum(dim=0).min()) - 1))
        return shares.sort(dim=0).values[rank]


@dataclass(frozen=True, eq=False)
class FineBand:
    """The cosines of an image with at least so many half waves along a side."""

    shape: tuple[int, int]
    lowest: int

    @property
    def is_kept(self) -> Tensor:
        rows, columns = (torch.arange(length) for length in self.shape)
        return (rows[:, None] >= self.lowest) | (columns >= self.lowest)

    def coefficients(self, images: Tensor) -> Tensor:
        """Return orthonormal coordinates, (..., in) → (..., cosines)."""
        return cosine_transform(images, self.shape)[..., self.is_kept]

    def images(self, coefficients: Tensor) -> Tensor:
        down, across = (cosines(length, coefficients.dtype) for length in self.shape)
        whole = coefficients.new_zeros(*coefficients.shape[:-1], *self.shape)
        whole[..., self.is_kept] = coefficients
        return (down @ whole @ across.T).flatten(-2)


def best_patterns(leads: Leads, lengths: Sequence[float], band: FineBand | None = None) -> Tensor:
    """Return the patterns that raise the mean lead of each class most, (lengths, classes, in).

    They are exact: the trust region of its form, in all of space or in that of a band. Above
    `MOST_SOURCES` classes the slopes are means over the sources alone, the forms over all classes.
    """
    slopes = leads.mean_slopes
    if band is None:
        values, vectors = leads.bend * leads.eigs.eigenvalues, leads.eigs.eigenvectors
    else:
        slopes = band.coefficients(slopes)
        left, right = map(band.coefficients, (leads.f.tensor.left, leads.f.tensor.right))
        down = leads.bend * leads.f.tensor.down
        inner = eigendecompose_all(QuadraticMap(BilinearTensor(down, left, right)))
        values, vectors = inner.eigenvalues, inner.eigenvectors
    along = torch.einsum("tkn,tn->tk", vectors, slopes)
    rest = slopes - torch.einsum("tkn,tk->tn", vectors, along)
    beside = rest.norm(dim=1, keepdim=True)
    values = torch.cat([-values, torch.zeros_like(beside)], dim=1)
    linear = torch.cat([-along, -beside], dim=1)
    patterns = []
    for length in lengths:
        point = solve_trust_region(values, linear, linear.new_full((len(linear),), length)).point
        across = point[:, -1:] * rest / torch.where(beside > 0, beside, 1.0)
        patterns.append(torch.einsum("tk,tkn->tn", point[:, :-1], vectors) + across)
    found = torch.stack(patterns)
    return found if band is None else band.images(found)
