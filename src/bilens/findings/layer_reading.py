"""The reading of one layer: its fit first, then what its map says, then its weights."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from msgspec.structs import replace
from torch import Tensor

from bilens.algebra.approximation.closed_form import layer_curvature
from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, in_float64
from bilens.algebra.approximation.quadratic_fit import STANDARD, THRESHOLD, QuadraticFit, fit_layers
from bilens.algebra.concentration import effective_rank, localisation
from bilens.algebra.directions import from_centred_basis, in_centred_basis
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose
from bilens.algebra.gaussian import GaussianInput
from bilens.algebra.gram.kernel import blocks, product_dtype, rows_within, unit_rows
from bilens.algebra.hosvd import HOSVD, hosvd
from bilens.algebra.map_comparison import Kind, rounded
from bilens.algebra.mode_spectrum import Factors, InputMode
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.random_rotations import OutputModeNull, output_mode_null, random_frame
from bilens.base.errors import BilensError, NonFiniteError
from bilens.certify.stability import stability_of
from bilens.findings.fits import fit_quality, fit_record
from bilens.io.vocabulary import Vocabulary
from bilens.nn.layer_view import LayerView
from bilens.records.common import NullInterval
from bilens.records.layer_audit import (
    Component,
    InputShares,
    LayerReading,
    LeadingPair,
    OutputModes,
    Stability,
    Units,
)


def described(subject: LayerView) -> LayerReading:
    """Return what is known of a layer before its weights are read."""
    return LayerReading(
        name=subject.name,
        kind="gated" if subject.gated else "plain",
        activation=subject.activation.name,
        exact=subject.exact,
        d_input=subject.sizes.d_in,
        d_hidden=subject.sizes.d_hidden,
        d_output=subject.sizes.d_out,
        class_centred=subject.classes,
    )


def weights_of(layer: Layer) -> dict[str, Tensor]:
    parts = {field.name: getattr(layer, field.name) for field in dataclasses.fields(layer)}
    return {name: part for name, part in parts.items() if isinstance(part, Tensor)}


DEAD = 1e-6  # of the size of the median unit
SHUT = -4.75  # standard deviations: a normal variable is above it but for one in a million
SAME = 0.999  # |cos| of rows that count as one direction: 2.6 degrees
CLOSED_BELOW_ZERO = ("relu", "squared_relu")


def read_units(layer: Layer) -> Units:
    """Return how many hidden units are dead, never active or doubled."""
    size: Tensor = layer.down.norm(dim=0)
    for branch in branches(layer):  # ‖down_h‖ ∏ ‖row_h‖ does not change with a scale between them
        size = size * with_bias(*branch).norm(dim=1)
    alive = size > DEAD * float(size.median())
    doubled, largest = overlaps(layer, alive)
    return Units(
        dead=int((~alive).sum()),
        never_active=int((never_active(layer) & alive).sum()),
        duplicates=doubled,
        largest_overlap=largest,
        overlap_null=null_overlap(int(alive.sum()), layer.d_in, len(branches(layer))),
    )


def branches(layer: Layer) -> tuple[tuple[Tensor, Tensor | None], ...]:
    if isinstance(layer, GLUWeights):
        return (layer.gate, layer.gate_bias), (layer.value, layer.value_bias)
    return ((layer.up, layer.up_bias),)


def with_bias(weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return rows of a branch with their biases as a further column."""
    return weight if bias is None else torch.cat([weight, bias[:, None]], dim=1)


def never_active(layer: Layer) -> Tensor:
    """Return which units of a ReLU stay closed under a standard normal input, (hidden,) bool."""
    weight, bias = branches(layer)[0]
    if layer.phi.name not in CLOSED_BELOW_ZERO or bias is None:
        return torch.zeros(len(weight), dtype=torch.bool)
    closed: Tensor = bias < SHUT * weight.norm(dim=1)
    return closed


def overlaps(layer: Layer, alive: Tensor) -> tuple[int, float]:
    """Return how many pairs of units have the same directions, and the largest overlap."""
    rows = [
        unit_rows(with_bias(*branch)[alive])[0].to(product_dtype(branch[0]))
        for branch in branches(layer)
    ]
    count, largest = 0, 0.0
    size = rows_within(4 * rows[0].shape[1] + 2 * len(rows[0]))
    for part in blocks(len(rows[0]), size):
        later = slice(part.start, None)
        overlap = torch.stack([(row[part] @ row[later].T).abs() for row in rows]).amin(dim=0)
        if layer.phi.name == "identity" and len(rows) == 2:
            left, right = rows
            swapped = (left[part] @ right[later].T).abs(), (right[part] @ left[later].T).abs()
            overlap = torch.maximum(overlap, torch.minimum(*swapped))
        overlap = overlap.triu(1)  # each pair once, and none with itself
        count += int((overlap >= SAME).sum())
        largest = max(largest, float(overlap.max()))
    return count, min(largest, 1.0)


def null_overlap(units: int, d_in: int, num_branches: int) -> float:
    """Return the overlap that one pair of random directions is expected to exceed."""
    # cos² of two random unit vectors is Beta(½, (in − 1)/2), and the branches are independent:
    # pairs · P(cos² > t²)^branches = 1
    from scipy.special import betainccinv  # slow to import, needed only here

    pairs = units * (units - 1) / 2
    if pairs < 1 or d_in < 2:
        return 1.0
    share = pairs ** (-1 / num_branches)
    return math.sqrt(float(betainccinv(0.5, (d_in - 1) / 2, share)))


def unused_columns(layer: Layer) -> tuple[int, ...]:
    """Return the inputs on which every weight is exactly zero."""
    used = torch.zeros(layer.d_in, dtype=torch.bool)
    for weight, _ in branches(layer):
        used |= (weight != 0).any(dim=0)
    if layer.linear is not None:
        used |= (layer.linear != 0).any(dim=0)
    return tuple((~used).nonzero()[:, 0].tolist())


TURNS = 5  # of the coordinates; the largest of many shares varies little


def read_inputs(layer: Layer, f: QuadraticMap | None, generator: torch.Generator) -> InputShares:
    """Return unused inputs, and the one whose row of the map is largest."""
    unused = unused_columns(layer)
    if f is None:
        return InputShares(unused, None, 0.0, 0.0)
    tensor, dtype = f.tensor, product_dtype(f.tensor.left)
    factors = Factors.of(tensor.down, tensor.left, tensor.right, dtype)
    shares, null = gram_shares(InputMode(factors).gram(None), generator)
    return InputShares(unused, int(shares.argmax()), float(shares.max()), null)


WIDE = 4096  # inputs from which directions of the null are drawn one by one


def gram_shares(gram: Tensor, generator: torch.Generator) -> tuple[Tensor, float]:
    """Return the share of each input in the trace, and the largest one under the null.

    A column of a random rotation is a direction drawn evenly, and with many inputs the columns are
    as good as independent: then the eigenvalues λ alone are needed, Σ λ g² / Σ g² with g normal.
    """
    width, mass = len(gram), gram.trace().where(gram.trace() > 0, 1.0)
    largest = []
    if width < WIDE:
        for _ in range(TURNS):
            frame = random_frame(width, width, generator)
            largest.append(float(((gram @ frame) * frame).sum(dim=0).max() / mass))
    else:
        values = torch.linalg.eigvalsh(gram) / mass
        for _ in range(TURNS * width):
            squares = torch.randn(width, generator=generator, dtype=torch.float64).square_()
            largest.append(float(squares @ values / squares.sum()))
    return gram.diagonal() / mass, max(largest)


MASS = 0.9  # of ‖B‖², that `directions_90` hold
PAIRS = 3  # eigenpairs shown
PARTS = 5  # components shown of a direction


def read_outputs(
    found: HOSVD, direction: Tensor, leading: EigenDecomposition, null: OutputModeNull
) -> OutputModes:
    """Return the spectrum along the outputs beside its null interval."""
    values = found.singular_values
    return OutputModes(
        effective_rank=float(effective_rank(values)),
        effective_rank_null=level(null.effective_rank),
        directions_90=directions_holding(values, MASS),
        top_share=float(values[0].square() / found.frobenius_squared),
        top_share_null=level(null.top_share),
        leading_rank=float(effective_rank(leading.distinct_from_zero)),
        leading_rank_null=level(null.leading_rank),
        leading_complete=bool(leading.complete),
        output_parts=largest_parts(direction),
        pairs=leading_pairs(leading),
    )


def leading_pairs(eig: EigenDecomposition) -> tuple[LeadingPair, ...]:
    size, shown = float(eig.norm) or 1.0, slice(PAIRS)
    pairs = zip(eig.eigenvalues[shown], eig.residuals[shown], eig.eigenvectors[shown], strict=True)
    return tuple(
        LeadingPair(
            eigenvalue=float(value),
            explained=(float(value) / size) ** 2,
            residual=float(residual),
            localisation=float(localisation(vector)),
            parts=largest_parts(vector),
        )
        for value, residual, vector in pairs
    )


def largest_parts(direction: Tensor) -> tuple[Component, ...]:
    order = direction.abs().argsort(descending=True)[:PARTS].tolist()
    return tuple(Component(index, float(direction[index])) for index in order)


def directions_holding(values: Tensor, share: float) -> int:
    """Return how many leading singular values hold a share of the sum of squares."""
    held = values.square().cumsum(dim=0)
    if float(held[-1]) == 0:
        return 0
    return int((held < share * held[-1]).sum()) + 1


def level(samples: Tensor) -> NullInterval:
    """Return the median of a quantity under a null, and all of its range."""
    low, high = samples.aminmax()
    return NullInterval(float(samples.median()), float(low), float(high))


# layer → rows to fit it to, rows held out, and what these are in words; None for too few
FitRows = Callable[[str], tuple[Tensor, Tensor, str] | None]
SAMPLES = 2_000  # inputs that R² is measured on: three digits
ROUNDING: Kind = "bfloat16"
LEADING = 5  # eigenvectors whose direction rounding may not change


@dataclass(frozen=True)
class AuditOptions:
    """How much is looked at in each layer."""

    null_samples: int
    seed: int
    threshold: float = THRESHOLD  # R² from which a map stands for its layer
    rows: FitRows | None = None  # what the layers see; None for N(0, I)
    vocabulary: Vocabulary | None = None  # of the language model that layers are of


@dataclass(frozen=True, eq=False)
class FittedLayer:
    """A layer with its weights and its map; neither is kept in a reading."""

    layer: Layer  # in float64
    fit: QuadraticFit
    classes: bool  # the outputs are logits, which are read class-centred, in a basis
    embedding: Tensor | None  # E, (width, in), contained in both branches; None without one

    @property
    def map(self) -> QuadraticMap | None:
        """The map, in the basis; None where it does not stand for the layer."""
        if not self.fit.usable:
            return None
        f = self.fit.quadratic_map
        return in_centred_basis(f) if self.classes else f

    def output(self, direction: Tensor) -> Tensor:
        """Return a direction of the map's outputs as one of the layer's."""
        return from_centred_basis(direction) if self.classes else direction


def fit_layer(
    subject: LayerView, seed: int, threshold: float = THRESHOLD, rows: FitRows | None = None
) -> FittedLayer:
    """Read a layer and fit its map: to what it sees, or under N(0, I)."""
    layer = in_float64(subject.read())
    samples = 100 if subject.exact else SAMPLES  # an exact one is met by any sample
    how = {"seed": seed, "samples": samples, "threshold": threshold}
    seen = None if rows is None or subject.exact else rows(subject.name)
    data, held_out, words = (None, None, None) if seen is None else seen
    fit = fit_layers([layer], layer, data=data, held_out=held_out, **how)  # type: ignore[arg-type]
    fit = dataclasses.replace(fit, assumed_input=words or fit.assumed_input)
    embedding = None if subject.embedding is None else subject.embedding()
    return FittedLayer(layer, fit, subject.classes, embedding)


def read_layer(
    subject: LayerView, options: AuditOptions
) -> tuple[LayerReading, FittedLayer | None]:
    """Return what the weights of a layer say, and the layer; a broken one is said to be so."""
    try:
        fitted = fit_layer(subject, options.seed, options.threshold, options.rows)
        return reading_of(subject, fitted, options), fitted
    except NonFiniteError as error:
        return replace(described(subject), broken=str(error)), None


def reading_of(subject: LayerView, fitted: FittedLayer, options: AuditOptions) -> LayerReading:
    layer, f = fitted.layer, fitted.map
    generator = torch.Generator().manual_seed(options.seed)
    found = replace(
        described(subject),
        weight_norm=math.hypot(*(float(part.norm()) for part in weights_of(layer).values())),
        fit=None if subject.exact else fit_quality(fit_record(subject.name, subject, fitted.fit)),
        units=read_units(layer),
        inputs=read_inputs(layer, f, generator),
    )
    if f is None:
        return found
    spectrum = hosvd(f, min(f.sizes.d_out, f.sizes.d_hidden))
    size = math.sqrt(float(spectrum.frobenius_squared))
    linear = 0.0 if f.linear is None else float(f.linear.norm())
    found = replace(found, quadratic_norm=size, linear_norm=linear)
    if float(spectrum.frobenius_squared) == 0:
        return found
    kind: Literal["rotation", "directions"] = "rotation" if subject.gated else "directions"
    null = output_mode_null(spectrum.f, generator, options.null_samples, kind, fitted.embedding)
    direction = fitted.output(spectrum.output_directions[0])
    leading = eigendecompose(spectrum.form(0))
    outputs = read_outputs(spectrum, direction, leading, null)
    return replace(found, outputs=outputs, stability=stability(fitted, spectrum, leading))


def stability(
    fitted: FittedLayer, spectrum: HOSVD, leading: EigenDecomposition | None = None
) -> Stability | None:
    """Return what rounding can do along the leading output direction; None for a fit to data.

    `leading` is the decomposition of its form, where that is at hand.
    """
    if fitted.fit.chosen != STANDARD:
        return None
    direction = fitted.output(spectrum.output_directions[0])
    parts = weights_of(fitted.layer).items()
    form, few = spectrum.form(0), None if fitted.layer.d_in < WIDE else 4 * LEADING
    try:
        if leading is None:
            leading = eigendecompose(form, few)  # all eigenvectors of a wide one take gigabytes
        short = {name: rounded(part, ROUNDING) for name, part in parts}
        layer = dataclasses.replace(fitted.layer, **short)  # type: ignore[arg-type]
        curvature = layer_curvature(layer, GaussianInput.of(layer.d_in, None, None))
        changed = QuadraticMap(curvature).form(direction)
        del short, layer, curvature  # `changed` keeps no more than its two branches
        found = stability_of(leading, form, changed)
    except BilensError:
        return None
    sines = found.sine[:LEADING].tolist()
    sure = [sine for sine in sines if sine < 1]
    angle = math.degrees(math.asin(max(sure))) if sure else None
    return Stability(ROUNDING, found.movement, len(sure), len(sines), angle)
