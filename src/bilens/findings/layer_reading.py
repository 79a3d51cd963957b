"""The reading of one layer: its fit first, then what its map says, then its weights."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, fields

import torch
from msgspec.structs import replace
from torch import Tensor

from bilens.algebra.approximation.closed_form import approximate_layer
from bilens.algebra.approximation.layer_weights import Layer, in_float64
from bilens.algebra.approximation.quadratic_fit import THRESHOLD, QuadraticFit, fit_layers
from bilens.algebra.concentration import effective_rank, localisation
from bilens.algebra.directions import from_centred_basis, in_centred_basis
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose
from bilens.algebra.gaussian import GaussianInput
from bilens.algebra.gram.inner_products import input_gram
from bilens.algebra.hosvd import HOSVD, hosvd
from bilens.algebra.map_comparison import Kind, rounded
from bilens.algebra.quadratic_form import QuadraticForm
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.random_rotations import OutputModeNull, output_mode_null, random_frame
from bilens.base.errors import BilensError, NonFiniteError
from bilens.certify.stability import spectrum_stability
from bilens.findings.hidden_units import read_units, unused_columns
from bilens.nn.layer_view import LayerView
from bilens.records.common import NullInterval
from bilens.records.layer_audit import (
    Component,
    FitQuality,
    InputShares,
    LayerReading,
    LeadingPair,
    OutputModes,
    Stability,
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


def rounded_layer(layer: Layer, kind: Kind) -> Layer:
    """Return a float64 layer whose weights are rounded; int8 leaves biases alone."""
    parts = {field.name: getattr(layer, field.name) for field in fields(layer)}
    short = {
        name: rounded(part, kind)
        for name, part in parts.items()
        if isinstance(part, Tensor) and (kind != "int8" or part.ndim == 2)
    }
    return dataclasses.replace(layer, **short)  # type: ignore[arg-type]


TURNS = 5  # of the coordinates; the largest of many shares varies little


def read_inputs(layer: Layer, f: QuadraticMap | None, generator: torch.Generator) -> InputShares:
    """Return unused inputs, and the one whose row of the map is largest."""
    unused = unused_columns(layer)
    if f is None:
        return InputShares(unused, None, 0.0, 0.0)
    gram = input_gram(f.tensor.down, f.tensor.left, f.tensor.right)
    shares, null = gram_shares(gram, generator)
    return InputShares(unused, int(shares.argmax()), float(shares.max()), null)


def gram_shares(gram: Tensor, generator: torch.Generator) -> tuple[Tensor, float]:
    """Return the share of each input in the trace, and the largest one under the null."""
    mass = gram.trace().where(gram.trace() > 0, 1.0)
    largest = []
    for _ in range(TURNS):
        frame = random_frame(len(gram), len(gram), generator)
        largest.append(float(((gram @ frame) * frame).sum(dim=0).max() / mass))
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
    """Return the eigenpairs of a form that are shown."""
    size = float(eig.norm) or 1.0
    return tuple(
        LeadingPair(
            eigenvalue=float(value),
            explained=(float(value) / size) ** 2,
            residual=float(residual),
            localisation=float(localisation(vector)),
            parts=largest_parts(vector),
        )
        for value, residual, vector in zip(
            eig.eigenvalues[:PAIRS], eig.residuals[:PAIRS], eig.eigenvectors[:PAIRS], strict=True
        )
    )


def largest_parts(direction: Tensor) -> tuple[Component, ...]:
    """Return the largest components of a direction."""
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
    ends = torch.stack(samples.aminmax())
    return NullInterval(float(samples.median()), float(ends[0]), float(ends[1]))


SAMPLES = 2_000  # inputs that R² is measured on: three digits
ROUNDING: Kind = "bfloat16"
LEADING = 5  # eigenvectors whose direction rounding may not change


@dataclass(frozen=True)
class AuditOptions:
    """How much is looked at in each layer."""

    null_samples: int
    seed: int
    threshold: float = THRESHOLD  # R² from which a map stands for its layer


@dataclass(frozen=True, eq=False)
class FittedLayer:
    """A layer with its weights and its map; neither is kept in a reading."""

    layer: Layer
    fit: QuadraticFit
    classes: bool
    embedding: Tensor | None

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


def fit_layer(subject: LayerView, seed: int, threshold: float = THRESHOLD) -> FittedLayer:
    """Read a layer and fit its map."""
    layer = in_float64(subject.read())
    generator = torch.Generator().manual_seed(seed)
    samples = 100 if subject.exact else SAMPLES  # an exact one is met by any sample
    fit = fit_layers([layer], layer, generator=generator, samples=samples, threshold=threshold)
    return FittedLayer(
        layer,
        fit,
        subject.classes,
        None if subject.embedding is None else subject.embedding(),
    )


def read_layer(
    subject: LayerView, options: AuditOptions
) -> tuple[LayerReading, FittedLayer | None]:
    """Return what the weights of a layer say, and the layer; a broken one is said to be so."""
    try:
        fitted = fit_layer(subject, options.seed, options.threshold)
        return reading_of(subject, fitted, options), fitted
    except NonFiniteError as error:
        return replace(described(subject), broken=str(error)), None


def reading_of(subject: LayerView, fitted: FittedLayer, options: AuditOptions) -> LayerReading:
    """Return what the weights of a layer say."""
    layer, f = fitted.layer, fitted.map
    generator = torch.Generator().manual_seed(options.seed)
    found = replace(
        described(subject),
        weight_norm=weight_norm(layer),
        fit=None if subject.exact else fit_record(fitted.fit),
        units=read_units(layer),
        inputs=read_inputs(layer, f, generator),
    )
    if f is None:
        return found
    spectrum = hosvd(f)
    size = math.sqrt(float(spectrum.frobenius_squared))
    linear = 0.0 if f.linear is None else float(f.linear.norm())
    found = replace(found, quadratic_norm=size, linear_norm=linear)
    if float(spectrum.frobenius_squared) == 0:
        return found
    outputs = outputs_of(subject, fitted, spectrum, generator, options.null_samples)
    return replace(found, outputs=outputs, stability=stability(fitted, spectrum))


def outputs_of(
    subject: LayerView,
    fitted: FittedLayer,
    spectrum: HOSVD,
    generator: torch.Generator,
    samples: int,
) -> OutputModes:
    """Return the output spectrum of a map beside its null interval."""
    null = output_mode_null(
        spectrum.f,
        generator,
        samples,
        "rotation" if subject.gated else "directions",
        fitted.embedding,
    )
    direction = fitted.output(spectrum.output_directions[0])
    return read_outputs(spectrum, direction, eigendecompose(spectrum.form(0)), null)


def stability(fitted: FittedLayer, spectrum: HOSVD) -> Stability | None:
    """Return what rounding the weights can do along the leading output direction."""
    direction = fitted.output(spectrum.output_directions[0])
    try:
        changed = form_of(rounded_layer(fitted.layer, ROUNDING), direction)
        found = spectrum_stability(fitted.fit.quadratic_map.form(direction), changed)
    except BilensError:
        return None
    sines = found.sine[:LEADING].tolist()
    sure = [sine for sine in sines if sine < 1]
    angle = math.degrees(math.asin(max(sure, default=0.0)))
    return Stability(ROUNDING, found.movement, len(sure), len(sines), angle)


def form_of(layer: Layer, direction: Tensor) -> QuadraticForm:
    """Return a layer's map along an output direction."""
    return approximate_layer(layer, GaussianInput.of(layer.d_in, None, None)).form(direction)


def fit_record(fit: QuadraticFit) -> FitQuality:
    """Return a fit as numbers."""
    scores = fit.r_squared
    return FitQuality(
        linear=scores.linear.overall,
        quadratic=scores.quadratic.overall,
        standard_error=scores.quadratic.standard_error,
        samples=scores.rows,
        assumed_input=fit.assumed_input,
        threshold=fit.threshold,
        usable=fit.usable,
    )


def weight_norm(layer: Layer) -> float:
    """Return the root of the sum of squares of all weights and biases."""
    parts = (getattr(layer, field.name) for field in fields(layer))
    return math.hypot(*(float(part.norm()) for part in parts if isinstance(part, Tensor)))
