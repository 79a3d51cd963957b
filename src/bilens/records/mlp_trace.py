"""A trace: how the outputs of one MLP of a language model are built from its inputs."""

from typing import Annotated, Literal

from bilens.records.attention_edges import AttentionEdges
from bilens.records.base import Count, Document, Integer, Numbers, Record, require
from bilens.records.common import Interval, Run, Source, TextOrigin
from bilens.records.view import View


class TokenValue(Record, frozen=True):
    """One token and its number, in the unit that the record around it says."""

    id: Annotated[Count, "in the vocabulary"]
    text: Annotated[str, "of the token"]
    value: Annotated[float, "the number"]


class TokenEnds(Record, frozen=True):
    """The tokens at both ends of a direction."""

    high: Annotated[tuple[TokenValue, ...], "by falling value"]
    low: Annotated[tuple[TokenValue, ...], "by rising value"]


class ActiveContext(Record, frozen=True):
    """A stretch of text around a position where a latent is strongly active."""

    sequence: Annotated[Count, "row of the tokens that were looked at"]
    start: Annotated[Count, "position of the first token of the stretch in that row"]
    peak: Annotated[Count, "position of the strongest activation within the stretch"]
    tokens: Annotated[tuple[str, ...], "of the stretch"]
    activations: Annotated[Numbers, "of the latent at each of these tokens"]

    def __post_init__(self) -> None:
        length = len(self.tokens)
        fits = length == len(self.activations) and self.peak < length
        require(fits, "a context does not have one activation for each token")


class LatentReading(Record, frozen=True):
    """One latent: where it is active, and the tokens that go with it."""

    latent: Annotated[Count, "its number in the autoencoder"]
    density: Annotated[float, "share of tokens at which it is active"]
    largest: Annotated[float, "its largest activation"]
    contexts: Annotated[tuple[ActiveContext, ...], "by falling activation at the peak"]
    tokens: Annotated[TokenEnds, "promoted through the unembedding, or resembled in the embedding"]


class NearLatent(Record, frozen=True):
    """An input latent that lies close to an eigenvector."""

    latent: Annotated[Count, "its number in the autoencoder"]
    cosine: Annotated[float, "between the eigenvector and the column of the dictionary"]
    projection: Annotated[float, "how far the coordinate moves for one unit of the latent"]


class ReadEigenvector(Record, frozen=True):
    """One eigenvector of an output, read as latents and tokens."""

    eigenvalue: Annotated[float, "λ"]
    nearest: Annotated[tuple[NearLatent, ...], "by falling |cosine|"]
    tokens: Annotated[TokenEnds, "cosines"]


class TracedSpectrum(Record, frozen=True):
    """The leading eigenpairs of one output."""

    eigenvalues: Annotated[Numbers, "by falling size, in output units per squared unit of input"]
    num_eigenvalues: Annotated[Count, "there are"]
    norm: Annotated[float, "‖Q‖"]
    explained: Annotated[float, "share of ‖Q‖² in the eigenvalues listed"]
    rounding_bound: Annotated[float, "eigenvalues below it are rounding"]
    complete: Annotated[bool, "no larger eigenvalue can have been missed"]
    eigenvectors: Annotated[tuple[ReadEigenvector, ...], "the leading ones"]


class InteractionEntry(Record, frozen=True):
    """One entry of the interactions of input latents."""

    first: Annotated[Count, "number of the input latent m"]
    second: Annotated[Count, "number of the input latent n"]
    value: Annotated[float, "S_mn"]
    coefficient: Annotated[float, "of z_m z_n"]


class InteractionEntries(Record, frozen=True):
    """The largest interactions of one kind, and the distribution of all."""

    entries: Annotated[tuple[InteractionEntry, ...], "by falling size"]
    count: Annotated[Count, "there are"]
    mean: Annotated[float, "of all"]
    standard_deviation: Annotated[float, "of all"]
    listed_share: Annotated[float, "of ‖S‖²"]
    edges: Annotated[Numbers, "of the histogram"]
    counts: Annotated[tuple[Count, ...], "of the histogram"]
    below: Annotated[Count, "entries below the first edge"]
    above: Annotated[Count, "entries above the last edge"]

    def __post_init__(self) -> None:
        require(len(self.edges) == len(self.counts) + 1, "a bad histogram")


class CausalCheck(Record, frozen=True):
    """The change of a behaviour where a few directions of a layer's input are changed."""

    kind: Annotated[str, "`ablate`: set to the mean; `steer`: moved; `sign_flip`: signs changed"]
    num_directions: Annotated[Count, "directions that are changed together"]
    before: Annotated[Interval, "size of the behaviour in the unchanged model, in logits"]
    after: Annotated[Interval, "size with the directions changed"]
    share: Annotated[Interval, "removed, or created; says nothing where `before` holds 0"]
    random_share: Annotated[Interval, "the same for as many random directions, moved as far"]
    num_random: Annotated[Count, "draws"]
    loss_before: Annotated[float | None, "nats per token on other text; null if unmeasured"]
    loss_after: Annotated[float | None, "the same with the directions changed"]
    null_shares: Annotated[Numbers | None, "those of random dictionaries with a behaviour"] = None
    num_null: Annotated[Count | None, "random dictionaries"] = None
    confirmed: Annotated[bool | None, "beyond 95% of random directions and dictionaries"] = None


class Behaviour(Record, frozen=True):
    """The tokens whose mean logits are compared."""

    high: Annotated[tuple[str, ...], "tokens whose logits count as they are"]
    low: Annotated[tuple[str, ...], "tokens whose logits are taken off"]


class CausalReading(Record, frozen=True):
    """Whether directions cause what goes with a latent, or a pair of them."""

    behaviour: Annotated[Behaviour | None, "null where latents are active too rarely"]
    checks: Annotated[tuple[CausalCheck, ...], "one for each step"]


class RankFit(Record, frozen=True):
    """The accuracy of the k leading eigenpairs for an output latent; null where not defined."""

    rank: Annotated[Count, "k"]
    correlation: Annotated[float | None, "over all tokens"]
    correlation_active: Annotated[float | None, "where the latent is active"]
    r_squared: Annotated[float | None, "of the approximation as it is, over all tokens"]
    r_squared_active: Annotated[float | None, "the same where the latent is active"]
    slope: Annotated[float | None, "of truth ≈ slope · approximation + intercept"]
    intercept: Annotated[float | None, "of the same"]
    null_correlation: Annotated[float | None, "mean over the same eigenvalues in random directions"]
    null_correlation_active: Annotated[float | None, "the same where the latent is active"]
    null_edge_active: Annotated[float | None, "95% quantile of the latter"]


class Points(Record, frozen=True):
    """An output latent against its approximation at some tokens."""

    rank: Annotated[Count, "eigenpairs of the approximation"]
    truth: Annotated[Numbers, "the latent as the map gives it"]
    approximation: Annotated[Numbers, "by the leading eigenpairs"]
    active: Annotated[tuple[bool, ...], "whether the latent is active there"]

    def __post_init__(self) -> None:
        same = len(self.truth) == len(self.approximation) == len(self.active)
        require(same, "points that lack a coordinate")


class Circuit(Record, frozen=True):
    """An output latent, few input latents, and how these build it."""

    latent: Annotated[Count, "number of the output latent"]
    position: Annotated[Count, "in the ranking, from 1"]
    output: Annotated[LatentReading, "where the latent is active, and its tokens"]
    spectrum: Annotated[TracedSpectrum, "of the form behind the latent"]
    self_interactions: Annotated[InteractionEntries, "the diagonal of S"]
    cross_interactions: Annotated[InteractionEntries, "the pairs"]
    features: Annotated[tuple[Count, ...], "input latents by falling share"]
    matrix: Annotated[tuple[Numbers, ...], "S between them; z_m z_n has twice the entry"]
    linear: Annotated[Numbers, "coefficient of z_m, from the decoder's bias"]
    constant: Annotated[float, "of the latent where all input latents are zero"]
    projections: Annotated[tuple[Numbers, ...], "of input latents along the leading eigenvectors"]
    share_of_norm: Annotated[float, "of ‖S‖² in `matrix`"]
    share_of_variance: Annotated[float | None, "over the text"]
    correlation: Annotated[float | None, "between latent and circuit over the text"]
    num_active: Annotated[Count, "tokens at which the latent is active"]
    example: Annotated[Numbers, "the input latents at the strongest context"]
    fits: Annotated[tuple[RankFit, ...], "one for each rank"]
    points: Annotated[Points, "the latent against its approximation"]
    causal: Annotated[CausalReading, "whether the circuit causes what goes with the latent"]

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

    levels: Annotated[Numbers, "of the quantiles, from 0 to 1"]
    values: Annotated[Numbers, "the quantiles at these levels"]
    counts: Annotated[tuple[Count, ...], "between the edges"]

    def __post_init__(self) -> None:
        require(len(self.levels) == len(self.values), "a distribution lacks a value")


class RankCorrelations(Record, frozen=True):
    """The correlations of all output latents with k eigenpairs."""

    rank: Annotated[Count, "k"]
    all: Annotated[Distribution, "over all tokens"]
    active: Annotated[Distribution, "where the latent is active"]
    null: Annotated[Distribution, "the same eigenvalues in random directions"]
    null_active: Annotated[Distribution, "the same where the latent is active"]


class Correlations(Record, frozen=True):
    """The distribution over output latents of the correlation, for each k."""

    num_latents: Annotated[Count, "output latents that were looked at"]
    num_latents_active: Annotated[Count, "of them, with a correlation where they are active"]
    num_random: Annotated[Count, "random forms of each latent"]
    edges: Annotated[Numbers, "of the histograms"]
    ranks: Annotated[tuple[RankCorrelations, ...], "one for each k"]

    def __post_init__(self) -> None:
        require(len(self.ranks) > 0, "correlations has no ranks")
        for item in self.ranks:
            parts = (item.all, item.active, item.null, item.null_active)
            fits = all(len(part.counts) == len(self.edges) - 1 for part in parts)
            require(fits, f"the correlations of rank {item.rank} lack a count")


class SAEMetrics(Record, frozen=True):
    """The reconstruction errors of an autoencoder; losses in nats per token."""

    tokens: Annotated[Count, "that errors are over"]
    fvu: Annotated[float, "Σ‖x − x̂‖² / Σ‖x − mean‖²"]
    nmse: Annotated[float, "Σ‖x − x̂‖² / Σ‖x‖²"]
    l0: Annotated[float, "latents active at a token, on average"]
    dead: Annotated[float, "share of latents that are never active"]
    loss: Annotated[float, "of the model"]
    loss_patched: Annotated[float, "with the reconstruction in place"]
    loss_zero: Annotated[float, "with zeros in place"]
    loss_mean: Annotated[float, "with the mean in place"]
    loss_added: Annotated[float, "`loss_patched` − `loss`"]
    recovered_from_zero: Annotated[float | None, "share of the loss between `loss_zero` and `loss`"]
    recovered_from_mean: Annotated[float | None, "share of the loss between `loss_mean` and `loss`"]


class TracedSAE(Record, frozen=True):
    """One of the two autoencoders around the MLP."""

    hook: Annotated[str, "point of the model that it reads"]
    path: Annotated[str, "of its file or folder"]
    weights_sha256: Annotated[str, "of its weights"]
    num_latents: Annotated[Count, "its latents"]
    k: Annotated[Count, "active latents"]
    sign: Annotated[str, "of activations: `relu` keeps those above zero, `raw` all"]
    metrics: Annotated[SAEMetrics, "on the text"]


class RankedLatent(Record, frozen=True):
    """One output latent of the ranking."""

    latent: Annotated[Count, "number of the output latent"]
    score: Annotated[float, View("product of the three shares, 0 to 1", "fixed3")]
    pair_share: Annotated[float, View("of ‖Q‖² in the extremes of either sign", "percent")]
    sign_contrast: Annotated[float, View("min / max of the sizes of the extremes", "fixed2")]
    interaction_share: Annotated[float, View("of the variance that no sum explains", "percent")]
    positive: Annotated[float, View("largest eigenvalue above 0, else 0", "signed")]
    negative: Annotated[float, View("smallest eigenvalue below 0, else 0", "signed")]
    explained_by_two: Annotated[float, "share of ‖Q‖² in two eigenpairs"]
    correlation_active: Annotated[float | None, View("k = 2; null below 2 active tokens", "fixed2")]
    density: Annotated[float, "share of tokens at which it is active"]
    peak: Annotated[str | None, "its strongest token"]
    cluster: Annotated[Count, "number of its cluster, 0 is the largest"]
    null_score: Annotated[float | None, View("median of chance at this place", "fixed3")] = None
    p_value: Annotated[float | None, View("how often random latents do as well", "fixed2")] = None


class LatentContrast(Record, frozen=True):
    """A pair of output latents, and how much of the difference between them is one product."""

    first: Annotated[Count, "number of an output latent"]
    second: Annotated[Count, "number of the other one"]
    score: Annotated[float, View("product of the two shares", "fixed3")]
    nonlinear_share: Annotated[float, View("of the variance beyond a linear function", "percent")]
    pair_share: Annotated[float, View("of the quadratic part, in one opposite pair", "percent")]
    causal: Annotated[CausalReading | None, "null for all but the first pairs"]
    p_value: Annotated[float | None, View("how often random pairs score as much", "fixed2")] = None


class RandomDictionaries(Record, frozen=True):
    """Dictionaries in random directions, of the same covariances and activity, ranked likewise."""

    num: Annotated[Count, "how many were drawn"]
    level: Annotated[float, "a p-value above it is taken for chance"]
    best: Annotated[Numbers, "the largest score of each"]
    best_contrast: Annotated[Numbers, "of those in which pairs were compared"]


class Contrasts(Record, frozen=True):
    """Pairs of output latents at tokens where one of them is active."""

    num_compared: Annotated[Count, "output latents"]
    pairs: Annotated[tuple[LatentContrast, ...], "by falling score"]


class DirectionReading(Record, frozen=True):
    """One output direction, read from weights alone."""

    kind: Annotated[str, "`hosvd` or `token`"]
    name: Annotated[str, "the token; of a converted model, the layer"]
    singular_value: Annotated[float | None, "σ; null for a token"]
    share: Annotated[float | None, "of the squared norm of the tensor"]
    output: Annotated[TokenEnds, "promoted and suppressed"]
    spectrum: Annotated[TracedSpectrum, "of the form along the direction"]
    edges: Annotated[tuple[float, float] | None, "that 95% of the rotation null keep, each"] = None
    causal: Annotated[CausalReading | None, "where texts were run through the model"] = None


class LanguageModel(Record, frozen=True):
    """Sizes of the model."""

    kind: Annotated[str, "class of the model"]
    vocab_size: Annotated[Count, "tokens in the vocabulary"]
    d_model: Annotated[Count, "width of the residual stream"]
    d_hidden: Annotated[Count, "hidden units of an MLP"]
    n_layer: Annotated[Count, "blocks"]
    n_head: Annotated[Count, "heads of attention"]
    n_ctx: Annotated[Count, "tokens of the longest text"]
    num_parameters: Annotated[Count, "numbers in all weights and biases"]
    dtype: Annotated[str, "of the weights as stored"]


class LayerLocation(Record, frozen=True):
    """The place of the MLP that is traced."""

    index: Annotated[Count, "block"]
    name: Annotated[str, "as `bl.load(...).layers` has it"]
    input: Annotated[str, "hook point"]
    output: Annotated[str, "hook point"]


class MapError(Record, frozen=True):
    """The errors of the map against the MLP, on random inputs of root mean square 1."""

    largest_error: Annotated[float, "the largest difference of an output"]
    scale: Annotated[float, "root mean square of the outputs"]
    num_inputs: Annotated[Count, "random inputs"]


class Trace(Document, frozen=True, kw_only=True):
    """A trace: how the outputs of one MLP are built from its inputs."""

    kind: Annotated[Literal["trace"], "of the document"] = "trace"
    model: Annotated[LanguageModel, "what was read"]
    layer: Annotated[LayerLocation, "the MLP that is traced"]
    exactness: Annotated[MapError, "the map against the MLP itself"]
    tokens_carry_spaces: Annotated[bool, "a token may start with a space"]
    saes: Annotated[tuple[TracedSAE, ...], "two, or none"]
    ranking: Annotated[tuple[RankedLatent, ...], "every output latent by falling score"]
    num_outputs: Annotated[Count, "output latents; without autoencoders numbers in an output"]
    clusters: Annotated[tuple[tuple[Count, ...], ...], "groups of two and more output latents"]
    cluster_threshold: Annotated[float, "cosine"]
    contrasts: Annotated[Contrasts, "pairs of output latents"]
    correlations: Annotated[Correlations | None, "null without autoencoders"]
    circuits: Annotated[tuple[Circuit, ...], "of output latents that were asked for, or rank first"]
    input_latents: Annotated[tuple[LatentReading, ...], "those that the circuits name"]
    data: Annotated[TextOrigin | None, "what was read; null without text"]
    readings: Annotated[tuple[DirectionReading, ...], "without autoencoders"]
    seed: Annotated[Integer, "of random directions and dictionaries"]
    source: Annotated[Source, "where the weights come from"]
    reproduce: Annotated[Run, "what it takes to run the same again"]
    null: Annotated[RandomDictionaries | None, "null without autoencoders"] = None
    attention_edges: Annotated[AttentionEdges | None, "null unless they were asked for"] = None

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
