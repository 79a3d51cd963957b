"""The reading of one layer: its fit first, then what its map says, then its weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from msgspec.structs import replace
from torch import Tensor

from bilens.algebra.approximation.closed_form import layer_curvature
from bilens.algebra.approximation.layer_weights import Layer, in_float64
from bilens.algebra.approximation.quadratic_fit import (
    LEAST_ROWS,
    STANDARD,
    THRESHOLD,
    QuadraticFit,
    SeenRows,
    fit_layers,
)
from bilens.algebra.concentration import effective_rank, localisation
from bilens.algebra.directions import from_centred_basis, in_centred_basis
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose
from bilens.algebra.gaussian import GaussianInput
from bilens.algebra.gram.kernel import product_dtype
from bilens.algebra.hosvd import HOSVD, hosvd
from bilens.algebra.map_comparison import Kind, rounded
from bilens.algebra.mode_spectrum import BlockedTensor, InputMode
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.random_rotations import output_mode_null, random_frame
from bilens.base.errors import BilensError, NonFiniteError
from bilens.certify.stability import stability_of
from bilens.findings.fits import fit_quality, fit_record
from bilens.findings.hidden_units import branches, read_seen_units, read_units
from bilens.io.vocabulary import Vocabulary
from bilens.nn.layer_view import LayerView
from bilens.records.common import NullInterval
from bilens.records.layer_readings import (
    Component,
    InputShares,
    LayerReading,
    LeadingPair,
    OutputModes,
    Stability,
)


def describe_layer(subject: LayerView) -> LayerReading:
    """Return the kind and the sizes of a layer, before its weights are read."""
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


def unused_columns(layer: Layer) -> tuple[int, ...]:
    """Return the inputs on which every weight is exactly zero."""
    used = torch.zeros(layer.d_in, dtype=torch.bool)
    for weight, *_ in branches(layer):
        used |= (weight != 0).any(dim=0)
    if layer.linear is not None:
        used |= (layer.linear != 0).any(dim=0)
    return tuple((~used).nonzero()[:, 0].tolist())


TURNS = 5  # of the coordinates; the largest of many shares varies little


def read_inputs(subject: LayerView, fitted: FittedLayer, options: ReadingOptions) -> InputShares:
    """Return unused inputs, and the one that most of the map rests on.

    Inputs that share a unit are compared as they are, by the quadratic part. Others are compared in
    deviations of rows, with the linear part, by the variance of each output or of all logits; and
    not at all without rows.
    """
    unused, f, in_rows = unused_columns(fitted.layer), fitted.map, 0
    generator = torch.Generator().manual_seed(options.seed)
    if f is not None and subject.reads == "inputs" and not options.pixels:
        rows = None if options.seen is None else options.seen(subject.name)
        in_rows = 0 if rows is None else len(rows)
        f = None if rows is None or in_rows < LEAST_ROWS else in_deviations(f, rows, fitted.classes)
    if f is None:
        return InputShares(unused, None, 0.0, 0.0)
    tensor, dtype = f.tensor, product_dtype(f.tensor.left)
    factors = BlockedTensor.from_parts(tensor.down, tensor.left, tensor.right, dtype)
    gram = InputMode(factors).gram(None)
    if in_rows and f.linear is not None:
        gram = 2 * factors.branches.unit**2 * gram + f.linear.T @ f.linear
    shares, null = gram_shares(gram, generator)
    most = int(shares.argmax())
    name = options.names[most] if options.names and subject.reads == "inputs" else ""
    return InputShares(unused, most, float(shares.max()), null, name, in_rows)


def in_deviations(f: QuadraticMap, rows: Tensor, logits: bool) -> QuadraticMap:
    """Return a map of inputs less their mean, in deviations of rows; numbers in their own ones."""
    rows = rows.to(f.dtype)
    deviation, mean = torch.std_mean(rows, dim=0)
    sizes = f(rows).std(dim=0)
    sizes = torch.ones_like(sizes) if logits else sizes.where(sizes > 0, 1.0)
    return f.compose_input(torch.diag(deviation), mean).compose_output(torch.diag(1 / sizes))


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


FitRows = Callable[[str], SeenRows | None]  # of a layer; None for too few
SAMPLES = 2_000  # inputs that R² is measured on: three digits
ROUNDING: Kind = "bfloat16"
LEADING = 5  # eigenvectors whose direction rounding may not change


@dataclass(frozen=True)
class ReadingOptions:
    """How much is looked at in each layer."""

    null_samples: int
    seed: int
    threshold: float = THRESHOLD  # R² from which a map stands for its layer
    rows: FitRows | None = None  # what the layers see; None for N(0, I)
    vocabulary: Vocabulary | None = None  # of the language model that layers are of
    seen: Callable[[str], Tensor | None] | None = None  # rows that layers receive
    pixels: bool = False  # whether the inputs of the model share a unit
    names: Sequence[str] = ()  # of these inputs


@dataclass(frozen=True, eq=False)
class FittedLayer:
    """A layer with its weights and its map; neither is kept in a reading."""

    layer: Layer  # in float64
    fit: QuadraticFit
    classes: bool  # the outputs are logits, which are read class-centred, in a basis
    embedding: Tensor | None  # E, (width, in), contained in both branches; None without one
    centre: Tensor | None = None  # the mean of its inputs, where it is known
    seen: SeenRows | None = None  # what it sees, where that is known

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
    seen = None if rows is None else rows(subject.name)
    how: dict[str, Any] = {"seed": seed, "samples": samples, "threshold": threshold}
    how["classes"] = subject.classes
    if not subject.exact:
        how["assumed"] = subject.assumed_input()
    fitted_to = None if subject.exact else seen
    if fitted_to is not None:
        how |= {"data": fitted_to.x, "held_out": fitted_to.held_out}
        how["apart"] = fitted_to.files is not None
    fit = fit_layers([layer], layer, **how)
    fit = fit if fitted_to is None else dataclasses.replace(fit, assumed_input=fitted_to.about)
    embedding = None if subject.embedding is None else subject.embedding()
    centre = subject.centre if fitted_to is None else fitted_to.x.double().mean(dim=0)
    return FittedLayer(layer, fit, subject.classes, embedding, centre, seen)


def read_layer(
    subject: LayerView, options: ReadingOptions
) -> tuple[LayerReading, FittedLayer | None]:
    """Read the weights of a layer; one with NaN or Inf is returned as broken, without a fit."""
    try:
        fitted = fit_layer(subject, options.seed, options.threshold, options.rows)
        return reading_of(subject, fitted, options), fitted
    except NonFiniteError as error:
        return replace(describe_layer(subject), broken=str(error)), None


def reading_of(subject: LayerView, fitted: FittedLayer, options: ReadingOptions) -> LayerReading:
    layer, f = fitted.layer, fitted.map
    generator = torch.Generator().manual_seed(options.seed)
    told = fit_record(subject.name, subject, fitted.fit, layer, fitted.seen)
    found = replace(
        describe_layer(subject),
        weight_norm=math.hypot(*(float(part.norm()) for part in weights_of(layer).values())),
        fit=None if subject.exact else fit_quality(told),
        units=read_units(layer, fitted.classes, fitted.centre),
        seen=None if fitted.seen is None else read_seen_units(layer, fitted.seen),
        inputs=read_inputs(subject, fitted, options),
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
    values = spectrum.singular_values
    outputs = OutputModes(
        effective_rank=float(effective_rank(values)),
        effective_rank_null=level(null.effective_rank),
        directions_90=directions_holding(values, MASS),
        top_share=float(values[0].square() / spectrum.frobenius_squared),
        top_share_null=level(null.top_share),
        leading_rank=float(effective_rank(leading.distinct_from_zero)),
        leading_rank_null=level(null.leading_rank),
        leading_complete=bool(leading.complete),
        output_parts=largest_parts(direction),
        pairs=leading_pairs(leading),
    )
    return replace(found, outputs=outputs, stability=stability(fitted, spectrum, leading))


def layer_numbers(subject: LayerView) -> dict[str, float]:
    """Return a few numbers of a layer as its weights are now, for a curve over a training.

    Of an approximate layer R² stands beside the others, and the effective rank where it suffices.
    """
    fitted = fit_layer(subject, seed=0)
    layer, f, units = fitted.layer, fitted.map, read_units(fitted.layer, fitted.classes)
    idle = units.dead + units.never_active + units.empty
    norm = math.hypot(*(float(part.norm()) for part in weights_of(layer).values()))
    found = {"norm": norm, "dead_units": idle / subject.sizes.d_hidden}
    if not subject.exact:
        found["r_squared"] = fitted.fit.r_squared.quadratic.overall
    if f is not None:
        spectrum = hosvd(f, min(f.sizes.d_out, f.sizes.d_hidden))
        found["effective_rank"] = float(effective_rank(spectrum.singular_values))
        if subject.exact:
            leading = eigendecompose(spectrum.form(0), 1)
            found["largest_eigenvalue"] = abs(float(leading.eigenvalues[0]))
    return found


def stability(
    fitted: FittedLayer, spectrum: HOSVD, leading: EigenDecomposition | None = None
) -> Stability | None:
    """Bound the effect of rounding on the leading output direction; None for a fit to data.

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
        curvature = layer_curvature(layer, GaussianInput.from_moments(layer.d_in))
        changed = QuadraticMap(curvature).form(direction)
        del short, layer, curvature  # `changed` keeps no more than its two branches
        found = stability_of(leading, form, changed)
    except BilensError:
        return None
    sines = found.sine[:LEADING].tolist()
    sure = [sine for sine in sines if sine < 1]
    angle = math.degrees(math.asin(max(sure))) if sure else None
    return Stability(ROUNDING, found.movement, len(sure), len(sines), angle)
