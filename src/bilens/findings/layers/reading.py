"""The reading of one layer: its fit first, then what its map says, then its weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from msgspec.structs import replace
from torch import Tensor

from bilens.algebra.approximation.layer_fit import approximate_layer
from bilens.algebra.approximation.layer_weights import Layer, in_float64
from bilens.algebra.approximation.quadratic_fit import THRESHOLD, QuadraticFit, fit_layers
from bilens.algebra.directions import from_centred_basis, in_centred_basis
from bilens.algebra.eigen.eigendecompose import eigendecompose
from bilens.algebra.gaussian import GaussianInput
from bilens.algebra.hosvd import HOSVD, hosvd
from bilens.algebra.map_changes import Kind
from bilens.algebra.output_mode_null import output_mode_null
from bilens.algebra.quadratic_form import QuadraticForm
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import BilensError, NonFiniteError
from bilens.certify.stability import spectrum_stability
from bilens.findings.layers.inputs import read_inputs
from bilens.findings.layers.outputs import read_outputs
from bilens.findings.layers.rounded import rounded_layer
from bilens.findings.layers.subject import LayerSubject, described
from bilens.findings.layers.units import read_units
from bilens.records.layer_audit import FitQuality, LayerReading, OutputModes, Stability

SAMPLES = 2_000  # inputs that R² is measured on: three digits
ROUNDING: Kind = "bfloat16"
LEADING = 5  # eigenvectors whose direction rounding may not change


@dataclass(frozen=True)
class Extent:
    """How much is looked at in each layer."""

    null_samples: int
    seed: int
    threshold: float = THRESHOLD  # R² from which a map stands for its layer


@dataclass(frozen=True, eq=False)
class Opened:
    """A layer with its weights and its map; neither is kept in a reading.

    Attributes:
        layer: the weights, in float64.
        fit: the map closest to it, with R².
        classes: whether the outputs are logits, which are read class-centred, in a basis.
        embedding: E, (width, in), contained in both branches; None where there is none.
    """

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


def open_layer(subject: LayerSubject, seed: int, threshold: float = THRESHOLD) -> Opened:
    """Read a layer and fit its map.

    Raises:
        NonFiniteError: If a weight is NaN or infinite, or products of weights overflow.
    """
    layer = in_float64(subject.read())
    generator = torch.Generator().manual_seed(seed)
    samples = 100 if subject.exact else SAMPLES  # an exact one is met by any sample
    fit = fit_layers([layer], layer, generator=generator, samples=samples, threshold=threshold)
    return Opened(
        layer,
        fit,
        subject.classes,
        None if subject.embedding is None else subject.embedding(),
    )


def read_layer(subject: LayerSubject, extent: Extent) -> tuple[LayerReading, Opened | None]:
    """Return what the weights of a layer say, and the layer; a broken one is said to be so.

    Cost: `null_samples` times O(hidden² · (in + out) + in³ + out³).
    """
    try:
        opened = open_layer(subject, extent.seed, extent.threshold)
        return reading_of(subject, opened, extent), opened
    except NonFiniteError as error:
        return replace(described(subject), broken=str(error)), None


def reading_of(subject: LayerSubject, opened: Opened, extent: Extent) -> LayerReading:
    """Return what the weights of a layer say."""
    layer, f = opened.layer, opened.map
    generator = torch.Generator().manual_seed(extent.seed)
    found = replace(
        described(subject),
        weight_norm=weight_norm(layer),
        fit=None if subject.exact else fit_record(opened.fit),
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
    outputs = outputs_of(subject, opened, spectrum, generator, extent.null_samples)
    return replace(found, outputs=outputs, stability=stability(opened, spectrum))


def outputs_of(
    subject: LayerSubject,
    opened: Opened,
    spectrum: HOSVD,
    generator: torch.Generator,
    samples: int,
) -> OutputModes:
    """Return the output spectrum of a map beside its level of chance."""
    null = output_mode_null(
        spectrum.f,
        generator,
        samples,
        "rotation" if subject.gated else "directions",
        opened.embedding,
    )
    direction = opened.output(spectrum.output_directions[0])
    return read_outputs(spectrum, direction, eigendecompose(spectrum.form(0)), null)


def stability(opened: Opened, spectrum: HOSVD) -> Stability | None:
    """Return what rounding the weights can do along the leading output direction.

    None where the form did not pass its checks, or a weight does not fit the shorter format.
    """
    direction = opened.output(spectrum.output_directions[0])
    try:
        changed = form_of(rounded_layer(opened.layer, ROUNDING), direction)
        found = spectrum_stability(opened.fit.quadratic_map.form(direction), changed)
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
