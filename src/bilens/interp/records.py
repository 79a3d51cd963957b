"""The records of interpreting a layer: tensors, numbers and token ids, ready to be drawn.

An *output latent* is one output of a map g, `latent_map(f, encoder, offset)`: what an SAE behind
the MLP computes before its activation function. An *input latent* is a column of a dictionary D
in front of the MLP, the decoder of another SAE. Units: "output" is that of the latent's
pre-activation, "input" that of the MLP's input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.interactions.record import ListedInteractions


@dataclass(frozen=True, eq=False)
class NearestLatents:
    """The input latents that lie closest to each eigenvector, by falling |cosine|.

    Attributes:
        latents: (num, k, r) int64, columns of the dictionary; −1 where an eigenvector is missing.
        cosines: (num, k, r), between the eigenvector and the column, signed, −1 … 1.
        projections: (num, k, r), v·d: how far the eigenvector's coordinate moves for one unit of
            the latent; the cosine times the length of the column.
    """

    latents: Tensor
    cosines: Tensor
    projections: Tensor


@dataclass(frozen=True, eq=False)
class LayerTrace:
    """How every output latent of a layer is built, from weights alone.

    Attributes:
        latents: (num,) int64, which outputs of the map; row i of everything below is latents[i].
        interactions: a batch of num, in input latents: the largest self- and cross-interactions,
            mean and spread of all, the norm, the linear term of the decoder's bias and the
            constant. `direct_interactions` gives the histograms of one of them.
        eigenpairs: a batch of num, in the input basis: `eigenpairs[i]`.
        nearest: input latents closest to the eigenvectors.
    """

    latents: Tensor
    interactions: ListedInteractions
    eigenpairs: EigenDecomposition
    nearest: NearestLatents


@dataclass(frozen=True, eq=False)
class LowRankFit:
    """How well the k leading eigenpairs of an output latent predict it, on data.

    The truth is the latent's pre-activation u·f(x) + offset, which its activation equals wherever
    the latent is active; the approximation keeps k eigenpairs and the linear and constant terms.
    A number is NaN where fewer than two inputs, or none that differ, enter it.

    Attributes:
        latents: (num,) int64.
        ranks: (r,) int64, the numbers of eigenpairs k.
        num_inputs: how many inputs were looked at.
        num_active: (num,) int64, how many of them activate the latent.
        correlation: (num, r), Pearson, all inputs.
        correlation_active: (num, r), Pearson, inputs at which the latent is active.
        r_squared: (num, r), 1 − Σ(truth − approximation)² / Σ(truth − mean)², all inputs: the
            share of the variance explained without refitting; negative if worse than the mean.
        r_squared_active: (num, r), the same over active inputs.
        slope: (num, r), of the line truth ≈ slope · approximation + intercept; 1 is calibrated.
        intercept: (num, r), in units of the output; 0 is calibrated.
        null_correlation: (num, r), mean correlation over random forms of the same eigenvalues in
            random orthonormal directions, all inputs.
        null_correlation_active: (num, r), the same over active inputs.
        null_edge_active: (num, r), 95 % quantile of the latter.
        num_random: how many random forms.
    """

    latents: Tensor
    ranks: Tensor
    num_inputs: int
    num_active: Tensor
    correlation: Tensor
    correlation_active: Tensor
    r_squared: Tensor
    r_squared_active: Tensor
    slope: Tensor
    intercept: Tensor
    null_correlation: Tensor
    null_correlation_active: Tensor
    null_edge_active: Tensor
    num_random: int


@dataclass(frozen=True, eq=False)
class Ranking:
    """Output latents by how much of a circuit they look like, the most interesting first.

    Attributes:
        latents: (num,) int64, in the order of the layer trace.
        order: (num,) int64, positions in `latents` by falling score.
        score: (num,), 0 … 1; the product of the parts.
        pair_share: (num,), (λ₊² + λ₋²) / ‖Q‖², the extreme eigenvalues of either sign.
        sign_contrast: (num,), min / max of their sizes: 1 for a product of two features in
            orthogonal directions, 0 for a square.
        interaction_share: (num,), share of the variance of that product that no sum of functions
            of the two features alone explains; 1 without data.
        data: whether data took part.
    """

    latents: Tensor
    order: Tensor
    score: Tensor
    pair_share: Tensor
    sign_contrast: Tensor
    interaction_share: Tensor
    data: bool


@dataclass(frozen=True, eq=False)
class Clusters:
    """Groups of output latents whose quadratic forms point the same way.

    Attributes:
        latents: (num,) int64.
        similarity: (num, num), cosine ⟨Q_i, Q_j⟩ / ‖Q_i‖‖Q_j‖, −1 … 1; NaN for a form of zero.
        threshold: cosine above which groups were joined (average linkage).
        labels: (num,) int64, cluster of each latent, 0 is the largest cluster.
        members: positions in `latents`, one tuple a cluster, largest cluster first.
    """

    latents: Tensor
    similarity: Tensor
    threshold: float
    labels: Tensor
    members: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Context:
    """A stretch of text around a place where a latent is strongly active.

    Attributes:
        sequence: row of the tokens that were looked at.
        start: position of the first token of the stretch in that row.
        peak: position of the strongest activation within the stretch.
        tokens: token ids.
        activations: of the latent at each of these tokens, in units of the output.
    """

    sequence: int
    start: int
    peak: int
    tokens: tuple[int, ...]
    activations: tuple[float, ...]


@dataclass(frozen=True)
class LatentContexts:
    """Where one latent is most active.

    Attributes:
        latent: its number.
        contexts: by falling activation at the peak; no two from overlapping stretches.
        density: share of tokens at which it is active.
        largest: its largest activation.
    """

    latent: int
    contexts: tuple[Context, ...]
    density: float
    largest: float


@dataclass(frozen=True)
class TokenScore:
    """One token id and its number, in the unit that the record around it says."""

    token: int
    value: float


@dataclass(frozen=True)
class TokenEffect:
    """Which tokens a direction at the output of a layer promotes.

    Attributes:
        promoted: by falling change of the logit, for one unit along the direction.
        suppressed: by rising change of the logit.
        norm: how the final norm was treated, in words.
    """

    promoted: tuple[TokenScore, ...]
    suppressed: tuple[TokenScore, ...]
    norm: str


@dataclass(frozen=True)
class EigenvectorTokens:
    """The tokens that a direction at the input of a layer reads, straight from the embedding.

    Attributes:
        eigenvalue: of the pair, in units of the output per squared unit of the input.
        positive: tokens of largest cosine with the eigenvector.
        negative: tokens of most negative cosine.
    """

    eigenvalue: float
    positive: tuple[TokenScore, ...]
    negative: tuple[TokenScore, ...]


@dataclass(frozen=True, eq=False)
class Circuit:
    """An output latent, few input latents, and how these build it.

    Attributes:
        output: the output latent.
        features: (n,) int64, input latents by falling share.
        matrix: (n, n), S[m, n] between them; the coefficient of z_m z_n is twice the entry.
        linear: (n,), coefficient of z_m, from the decoder's bias.
        constant: of the latent where all input latents are zero.
        eigenvalues: (k,), of the whole form in the input basis, by falling size.
        projections: (n, k), v_i·d_m: column i is the input latents seen along eigenvector i.
        share_of_norm: Σ of squared entries of `matrix` / ‖S‖_F².
        share_of_variance: 1 − Var(latent − circuit) / Var(latent) over data, where the latent is
            read at the reconstructed input Dz + b and the circuit keeps the terms of its own
            input latents alone; None without data.
        correlation: between latent and circuit over data; None without data.
        num_inputs: how many inputs; 0 without data.
    """

    output: int
    features: Tensor
    matrix: Tensor
    linear: Tensor
    constant: float
    eigenvalues: Tensor
    projections: Tensor
    share_of_norm: float
    share_of_variance: float | None
    correlation: float | None
    num_inputs: int


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class CausalCheck:
    """What happens to a behaviour when a few directions of a layer's input are changed.

    Attributes:
        kind: "ablate": the coordinates along the directions are set to their mean; "steer": they
            are moved from their mean in one group of prompts to that in the other; "exchange":
            they are traded so that what they contribute changes its sign.
        num_directions: how many.
        before: size of the behaviour in the unchanged model, in logits.
        after: size with the directions changed, in logits.
        share: ablate: 1 − after / before, the share removed; otherwise the share of the
            behaviour that was created in prompts without its cause.
        random_share: the same for as many random directions, moved by the same norm: mean, and
            the 2.5 % and 97.5 % quantiles over draws.
        num_random: how many draws.
        loss_before: loss in nats per token on text away from the behaviour; None if not measured.
        loss_after: the same with the directions changed.
    """

    kind: Literal["ablate", "steer", "exchange"]
    num_directions: int
    before: Interval
    after: Interval
    share: Interval
    random_share: Interval
    num_random: int
    loss_before: float | None
    loss_after: float | None


@dataclass(frozen=True, eq=False)
class ContrastRanking:
    """Pairs of output latents by how much of the difference between them is one product.

    Attributes:
        first: (num,) int64, best pair first.
        second: (num,) int64, another output latent.
        score: (num,), 0 … 1, falling; the product of the two shares.
        nonlinear_share: (num,), share of the variance of g_first − g_second, over inputs at which
            one of them is active, that no linear function of the input explains.
        pair_share: (num,), (λ₊² + λ₋²) / ‖Q‖² of the difference, whitened over these inputs.
    """

    first: Tensor
    second: Tensor
    score: Tensor
    nonlinear_share: Tensor
    pair_share: Tensor


@dataclass(frozen=True, eq=False)
class InputDirections:
    """A few directions of the input of an MLP: how they are read, and how inputs move along them.

    The coordinates of x are c = readers (x − mean); x moves by `patterns`ᵀ Δc. Readers and
    patterns are dual: readers · patternsᵀ = 1. For orthonormal eigenvectors both are the same.

    Attributes:
        readers: (k, in).
        patterns: (k, in).
        mean: (in,), of the inputs that the directions come from.
        eigenvalues: (k,), in units of the output, for coordinates of unit variance; NaN for
            directions that are none of a form.
    """

    readers: Tensor
    patterns: Tensor
    mean: Tensor
    eigenvalues: Tensor
