"""A trace: how the outputs of one MLP of a language model are built from its inputs."""

from typing import Literal

from bilens.records.base import Count, Document, Integer, Numbers, Record, require
from bilens.records.common import Interval, Run, Source, TextOrigin


class TokenValue(Record, frozen=True):
    """One token and its number, in the unit that the record around it says."""

    id: Count
    text: str
    value: float


class TokenEnds(Record, frozen=True):
    """The tokens at both ends of a direction."""

    high: tuple[TokenValue, ...]  # by falling value
    low: tuple[TokenValue, ...]  # by rising value


class ActiveContext(Record, frozen=True):
    """A stretch of text around a position where a latent is strongly active."""

    sequence: Count  # row of the tokens that were looked at
    start: Count  # position of the first token of the stretch in that row
    peak: Count  # position of the strongest activation within the stretch
    tokens: tuple[str, ...]
    activations: Numbers  # of the latent at each of these tokens

    def __post_init__(self) -> None:
        length = len(self.tokens)
        fits = length == len(self.activations) and self.peak < length
        require(fits, "a context does not have one activation for each token")


class LatentReading(Record, frozen=True):
    """One latent: where it is active, and the tokens that go with it."""

    latent: Count
    density: float  # share of tokens at which it is active
    largest: float  # its largest activation
    contexts: tuple[ActiveContext, ...]  # by falling activation at the peak
    tokens: TokenEnds  # promoted through the unembedding, or resembled in the embedding


class NearLatent(Record, frozen=True):
    """An input latent that lies close to an eigenvector."""

    latent: Count
    cosine: float  # between the eigenvector and the column of the dictionary
    projection: float  # how far the coordinate moves for one unit of the latent


class ReadEigenvector(Record, frozen=True):
    """One eigenvector of an output, read as latents and tokens."""

    eigenvalue: float
    nearest: tuple[NearLatent, ...]  # by falling |cosine|
    tokens: TokenEnds  # cosines


class TracedSpectrum(Record, frozen=True):
    """The leading eigenpairs of one output."""

    eigenvalues: Numbers  # by falling size, in output units per squared unit of input
    num_eigenvalues: Count  # there are
    norm: float  # ‖Q‖
    explained: float  # share of ‖Q‖² in the eigenvalues listed
    rounding_bound: float  # eigenvalues below it are rounding
    complete: bool  # no larger eigenvalue can have been missed
    eigenvectors: tuple[ReadEigenvector, ...]  # the leading ones


class InteractionEntry(Record, frozen=True):
    """One entry of the interactions of input latents."""

    first: Count
    second: Count
    value: float  # S_mn
    coefficient: float  # of z_m z_n


class InteractionEntries(Record, frozen=True):
    """The largest interactions of one kind, and the distribution of all."""

    entries: tuple[InteractionEntry, ...]
    count: Count  # there are
    mean: float
    standard_deviation: float
    listed_share: float  # of ‖S‖²
    edges: Numbers  # of the histogram
    counts: tuple[Count, ...]
    below: Count
    above: Count

    def __post_init__(self) -> None:
        require(len(self.edges) == len(self.counts) + 1, "a bad histogram")


class CausalCheck(Record, frozen=True):
    """The change of a behaviour where a few directions of a layer's input are changed."""

    # `ablate`: coordinates are set to their mean; `steer`: moved by the difference of means;
    # `sign_flip`: traded so that what they contribute changes its sign
    kind: str
    num_directions: Count
    before: Interval  # size of the behaviour in the unchanged model, in logits
    after: Interval  # size with the directions changed
    share: Interval  # removed, or created in prompts without the cause
    random_share: Interval  # the same for as many random directions, moved as far
    num_random: Count  # draws
    loss_before: float | None  # nats per token on text away from the behaviour; null if unmeasured
    loss_after: float | None  # the same with the directions changed
    # the shares of the same steps in random dictionaries that show a behaviour; null: not measured
    null_shares: Numbers | None = None
    num_null: Count | None = None  # random dictionaries
    confirmed: bool | None = None  # beyond random directions, and beyond what 95 % of these reach


class Behaviour(Record, frozen=True):
    """The tokens whose mean logits are compared."""

    high: tuple[str, ...]
    low: tuple[str, ...]


class CausalReading(Record, frozen=True):
    """Whether directions cause what goes with a latent, or a pair of them."""

    behaviour: Behaviour | None  # null where latents are active too rarely
    checks: tuple[CausalCheck, ...]


class RankFit(Record, frozen=True):
    """The accuracy of the k leading eigenpairs for an output latent; null where not defined."""

    rank: Count  # k
    correlation: float | None  # over all tokens
    correlation_active: float | None  # where the latent is active
    r_squared: float | None
    r_squared_active: float | None
    slope: float | None  # of truth ≈ slope · approximation + intercept
    intercept: float | None
    null_correlation: float | None  # mean over the same eigenvalues in random directions
    null_correlation_active: float | None
    null_edge_active: float | None  # 95 % quantile of the latter


class Points(Record, frozen=True):
    """An output latent against its approximation at some tokens."""

    rank: Count  # eigenpairs of the approximation
    truth: Numbers
    approximation: Numbers
    active: tuple[bool, ...]

    def __post_init__(self) -> None:
        same = len(self.truth) == len(self.approximation) == len(self.active)
        require(same, "points that lack a coordinate")


class Circuit(Record, frozen=True):
    """An output latent, few input latents, and how these build it."""

    latent: Count
    position: Count  # in the ranking, from 1
    output: LatentReading
    spectrum: TracedSpectrum
    self_interactions: InteractionEntries  # the diagonal of S
    cross_interactions: InteractionEntries  # the pairs
    features: tuple[Count, ...]  # input latents by falling share
    matrix: tuple[Numbers, ...]  # S between them; the coefficient of z_m z_n is twice the entry
    linear: Numbers  # coefficient of z_m, from the decoder's bias
    constant: float  # of the latent where all input latents are zero
    projections: tuple[Numbers, ...]  # of the input latents along the leading eigenvectors
    share_of_norm: float  # of ‖S‖² in `matrix`
    share_of_variance: float | None  # over the text
    correlation: float | None  # between latent and circuit over the text
    num_active: Count  # tokens at which the latent is active
    example: Numbers  # the input latents at the strongest context
    fits: tuple[RankFit, ...]  # one for each rank
    points: Points
    causal: CausalReading

    def __post_init__(self) -> None:
        name, size = f"the circuit of latent {self.latent}", len(self.features)
        square = len(self.matrix) == size and all(len(row) == size for row in self.matrix)
        require(size > 0 and square, f"{name} does not have a square matrix of its features")
        fits = len(self.linear) == len(self.projections) == size
        require(fits, f"{name} does not have one number for each feature")
        active = len(self.output.contexts) > 0
        whole = len(self.example) == size * active
        require(whole, f"{name} lacks activations at its strongest context")
        columns = {len(row) for row in self.projections}
        require(len(columns) == 1, f"{name} has rows of projections of different lengths")
        require(len(self.spectrum.eigenvalues) > 0, f"{name} has no eigenvalues")
        require(len(self.fits) > 0, f"{name} has no fits")


class Distribution(Record, frozen=True):
    """Quantiles and a histogram."""

    levels: Numbers
    values: Numbers  # the quantiles at these levels
    counts: tuple[Count, ...]  # between the edges

    def __post_init__(self) -> None:
        require(len(self.levels) == len(self.values), "a distribution lacks a value")


class RankCorrelations(Record, frozen=True):
    """The correlations of all output latents with k eigenpairs."""

    rank: Count  # k
    all: Distribution  # over all tokens
    active: Distribution  # where the latent is active
    null: Distribution  # the same eigenvalues in random directions
    null_active: Distribution


class Correlations(Record, frozen=True):
    """The distribution over output latents of the correlation, for each k."""

    num_latents: Count
    num_latents_active: Count
    num_random: Count  # random forms of each latent
    edges: Numbers  # of the histograms
    ranks: tuple[RankCorrelations, ...]

    def __post_init__(self) -> None:
        require(len(self.ranks) > 0, "correlations has no ranks")
        for item in self.ranks:
            parts = (item.all, item.active, item.null, item.null_active)
            fits = all(len(part.counts) == len(self.edges) - 1 for part in parts)
            require(fits, f"the correlations of rank {item.rank} lack a count")


class SAEMetrics(Record, frozen=True):
    """The reconstruction errors of an autoencoder; losses in nats per token."""

    tokens: Count
    fvu: float  # Σ‖x − x̂‖² / Σ‖x − mean‖²
    nmse: float  # Σ‖x − x̂‖² / Σ‖x‖²
    l0: float  # latents active at a token, on average
    dead: float  # share of latents that are never active
    loss: float  # of the model
    loss_patched: float  # with the reconstruction in place
    loss_zero: float  # with zeros in place
    loss_mean: float  # with the mean in place
    loss_added: float  # `loss_patched` − `loss`
    recovered_from_zero: float | None  # share of the loss between `loss_zero` and `loss`
    recovered_from_mean: float | None


class TracedSAE(Record, frozen=True):
    """One of the two autoencoders around the MLP."""

    hook: str
    path: str
    weights_sha256: str
    num_latents: Count
    k: Count  # active latents
    sign: str
    metrics: SAEMetrics


class RankedLatent(Record, frozen=True):
    """One output latent of the ranking."""

    latent: Count
    score: float  # the product of the three shares below, 0 to 1
    pair_share: float  # of ‖Q‖² in the extreme eigenvalues of either sign
    sign_contrast: float  # min / max of their sizes
    interaction_share: float  # of the product's variance that no sum of functions explains
    positive: float  # extreme eigenvalue of its sign, 0 where there is none
    negative: float
    explained_by_two: float  # share of ‖Q‖² in two eigenpairs
    correlation_active: float | None  # k = 2; null where it is active on fewer than two tokens
    density: float  # share of tokens at which it is active
    peak: str | None  # its strongest token
    cluster: Count
    null_score: float | None = None  # at this position, the median of random dictionaries
    p_value: float | None = None  # how often any latent of a random dictionary scores as much


class LatentContrast(Record, frozen=True):
    """A pair of output latents, and how much of the difference between them is one product."""

    first: Count
    second: Count
    score: float  # the product of the two shares
    nonlinear_share: float  # of the variance, that no linear function of the input explains
    pair_share: float  # of the quadratic part, in one pair of opposite eigenvalues
    causal: CausalReading | None  # null for all but the first pairs
    p_value: float | None = None  # how often any pair of a random dictionary scores as much


class RandomDictionaries(Record, frozen=True):
    """Dictionaries in random directions, of the same covariances and activity, ranked likewise."""

    num: Count
    level: float  # a p-value above it is taken for chance
    best: Numbers  # the largest score of each
    best_contrast: Numbers  # of those in which pairs were compared


class Contrasts(Record, frozen=True):
    """Pairs of output latents at tokens where one of them is active."""

    num_compared: Count  # output latents
    pairs: tuple[LatentContrast, ...]  # by falling score


class DirectionReading(Record, frozen=True):
    """One output direction, read from weights alone."""

    kind: str  # `hosvd` or `token`
    name: str  # the token; of a converted model, the layer
    singular_value: float | None
    share: float | None  # of the squared norm of the tensor
    output: TokenEnds  # promoted and suppressed
    spectrum: TracedSpectrum
    edges: tuple[float, float] | None = None  # that 95% of the rotation null keep, each
    causal: CausalReading | None = None  # where texts were run through the model


class LanguageModel(Record, frozen=True):
    """Sizes of the model."""

    kind: str  # class of the model
    vocab_size: Count
    d_model: Count
    d_hidden: Count
    n_layer: Count
    n_head: Count
    n_ctx: Count
    num_parameters: Count
    dtype: str  # of the weights as stored


class LayerLocation(Record, frozen=True):
    """The place of the MLP that is traced."""

    index: Count  # block
    name: str
    input: str  # hook point
    output: str  # hook point


class MapError(Record, frozen=True):
    """The errors of the map against the MLP, on random inputs of root mean square 1."""

    largest_error: float
    scale: float  # root mean square of the outputs
    num_inputs: Count


class Trace(Document, frozen=True, kw_only=True):
    """A trace: how the outputs of one MLP are built from its inputs."""

    kind: Literal["trace"] = "trace"
    model: LanguageModel
    layer: LayerLocation
    exactness: MapError
    tokens_carry_spaces: bool  # a token may start with a space
    saes: tuple[TracedSAE, ...]  # two, or none
    ranking: tuple[RankedLatent, ...]  # every output latent by falling score
    num_outputs: Count
    clusters: tuple[tuple[Count, ...], ...]  # groups of two and more output latents
    cluster_threshold: float  # cosine
    contrasts: Contrasts
    correlations: Correlations | None  # null without autoencoders
    circuits: tuple[Circuit, ...]
    input_latents: tuple[LatentReading, ...]  # those that the circuits name
    data: TextOrigin | None  # what was read; null without text
    readings: tuple[DirectionReading, ...]  # without autoencoders
    seed: Integer
    source: Source  # where the weights come from
    reproduce: Run  # what it takes to run the same again
    null: RandomDictionaries | None = None  # null without autoencoders

    def __post_init__(self) -> None:
        with_saes = len(self.circuits) > 0
        require(with_saes != (len(self.readings) > 0), "there is nothing, or both, to draw")
        require(len(self.saes) == 2 * with_saes, "a trace of latents has two autoencoders")
        known = (self.correlations is not None) == with_saes
        require(known, "correlations are those of latents")
        ranked = {item.latent for item in self.ranking}
        for pair in self.contrasts.pairs:
            listed = {pair.first, pair.second} <= ranked
            require(listed, "a contrast names an output latent that is not ranked")
        described = {item.latent for item in self.input_latents}
        for circuit in self.circuits:
            named = described.issuperset(circuit.features)
            name = f"the circuit of latent {circuit.latent}"
            require(named, f"{name} names an input latent that is not described")
