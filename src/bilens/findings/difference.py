"""The difference of one layer before and after: its size, rank, and the inputs it responds to."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from msgspec.structs import asdict, replace
from torch import Tensor

from bilens.algebra.approximation.layer_weights import Layer
from bilens.algebra.concentration import effective_rank
from bilens.algebra.eigen.eigendecompose import eigendecompose
from bilens.algebra.gram.inner_products import input_gram, output_gram, outputs_traces
from bilens.algebra.gram.kernel import nonzero
from bilens.algebra.hosvd import HOSVD, hosvd
from bilens.algebra.map_comparison import (
    Measure,
    map_difference,
    noise_change,
    noise_draw,
    similarity,
)
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import NumericalError, UsageError
from bilens.findings.layer_reading import (
    MASS,
    PAIRS,
    FittedLayer,
    directions_holding,
    largest_parts,
    leading_pairs,
    weights_of,
)
from bilens.findings.residual_stream import CLOSE, Turn
from bilens.findings.subject import drawn
from bilens.nn.agreement import ROWS, inputs_at_scales
from bilens.nn.layer_view import LayerView
from bilens.records.layer_readings import ChangeDirection, LayerDifference, ModeChange, TokenPair


def kind_of_layer(layer: LayerView) -> str:
    """Return gating, activation and sizes of a layer, equal in layers that can be compared."""
    kind, sizes = "gated" if layer.gated else "plain", layer.sizes
    return f"{kind} {layer.activation} {sizes.d_in} → {sizes.d_hidden} → {sizes.d_out}"


def other_kind(before: LayerView, after: LayerView) -> str | None:
    """Return "old kind became new kind"; None where kind and sizes are the same."""
    kinds = kind_of_layer(before), kind_of_layer(after)
    return None if kinds[0] == kinds[1] else " became ".join(kinds)


DRAWS = 5  # of noise, where its mean does not stand for one draw
WIDE = 2  # hidden units for each input, from which the mean does


@dataclass(frozen=True)
class ModeNull:
    """Effective rank and top share of the singular values of pure noise."""

    effective_rank: float
    top_share: float


def null_of_change(
    f: QuadraticMap, g: QuadraticMap, seed: int, embeddings: tuple[Tensor, Tensor] | None
) -> tuple[ModeNull, ModeNull] | None:
    """Return the null values along the outputs and along the inputs."""
    grams = []  # along the outputs and along the inputs
    if embeddings is None and f.sizes.d_hidden >= WIDE * f.sizes.d_in:
        mean = noise_change(f, g)
        grams.append((mean.output_gram, mean.input_gram))
    else:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(DRAWS):
            tensor = noise_draw(f, g, generator, embeddings).tensor
            factors = (tensor.down, tensor.left, tensor.right)
            grams.append((output_gram(*factors, *factors), input_gram(*factors)))
    if float(grams[0][0].trace()) == 0:
        return None
    outputs, inputs = (torch.stack(each) for each in zip(*grams, strict=True))
    return mode_null(outputs), mode_null(inputs)


def mode_null(grams: Tensor) -> ModeNull:
    """Return the mean over Gram matrices, (draws, n, n)."""
    squares = torch.linalg.eigvalsh(grams).clamp(min=0)
    share = squares[:, -1] / squares.sum(dim=1)
    return ModeNull(float(effective_rank(squares.sqrt()).mean()), float(share.mean()))


SEED = 0  # of the noise that a change is compared with
ROUNDED = 1e-12  # of a map: what computing in float64 leaves
REWRITTEN = 1e-6  # what rounding to float32 leaves of one that is written otherwise
OTHER_STREAM = (
    "nothing shows that the two residual streams are the same coordinates: the weights are not "
    "near each other, and the embeddings of the tokens neither are nor can be turned to be equal"
)


def compare_layers(
    name: str,
    before: FittedLayer | None,
    after: FittedLayer | None,
    *,
    vectors: bool = False,
    pairs_of: Callable[[QuadraticMap], tuple[TokenPair, ...]] | None = None,
    turn: Callable[[], Turn] | None = None,
    rows: Tensor | None = None,
) -> LayerDifference:
    """Measure the change of a layer; `turn` finds the rotation of the residual stream, if any.

    `rows` are inputs that the layer of the model receives, where data were given.
    """
    if before is None or after is None:
        which = "the baseline" if before is None else "the model"
        return LayerDifference(name, False, f"the layer of {which} cannot be read")
    f, g = before.map, after.map
    changes, weights = weight_changes(before.layer, after.layer)
    units = changed_units(before.layer, changes)
    if all(not bool(change.any()) for change in changes.values()):
        linear = 0.0 if f is not None and f.linear is not None else None
        return LayerDifference(name, True, None, 0.0, 0, 1.0, 1.0, 0.0, linear)
    if f is None or g is None:
        return LayerDifference(name, False, why_not_read(before, after), weights, units)
    matched = tuple[str, ...]()
    if turn is not None and weights > CLOSE:
        turned = in_stream_of_model(f, turn())
        if turned is None:
            return LayerDifference(name, False, OTHER_STREAM, weights, units)
        f, matched = turned
    delta = map_difference(f, g)
    spectrum = hosvd(delta)
    base, size = float(f.tensor.norm()), math.sqrt(float(spectrum.frobenius_squared))
    # hidden units in another order cancel, and leave more than those that stand in their places
    same = nearly_zero(delta, f, after.layer, REWRITTEN if weights > CLOSE else ROUNDED)
    alike, change_of_rows = compare_on_rows(before, after, None if matched else rows)
    found = LayerDifference(
        name=name,
        identical=False,
        same_function=same and before.fit.exact and after.fit.exact,
        matched=matched,
        weight_change=None if matched else weights,
        changed_units=None if matched else units,
        frobenius=cosine(f, g, "frobenius"),
        gaussian=cosine(f, g, "gaussian"),
        change=size / base if base > 0 else None,
        linear_change=linear_change(f, delta),
        row_similarity=alike,
        row_change=change_of_rows,
        map_change=None if same or change_of_rows is not None else map_change(f, delta),
    )
    if float(spectrum.frobenius_squared) == 0 or same:
        return found
    exact = before.fit.exact and after.fit.exact
    return replace(
        with_modes(found, before, after, (f, g), spectrum),
        triggers=triggers(spectrum, vectors),
        token_pairs=() if pairs_of is None or not exact else pairs_of(delta),
    )


def why_not_read(before: FittedLayer, after: FittedLayer) -> str:
    score = min(one.fit.r_squared.quadratic.overall for one in (before, after))
    return f"R² = {score:.3f} is below {before.fit.threshold:g}"


def in_stream_of_model(f: QuadraticMap, turn: Turn) -> tuple[QuadraticMap, tuple[str, ...]] | None:
    """Return the map of the baseline in the model's residual stream; None if that is not known."""
    if isinstance(turn, Tensor):
        f = f.detach().to(torch.float64).compose_input(turn)
        return f.compose_output(turn.T), ("stream",)
    return None if turn == "unknown" else (f, ())


def with_modes(
    found: LayerDifference,
    before: FittedLayer,
    after: FittedLayer,
    maps: tuple[QuadraticMap, QuadraticMap],
    spectrum: HOSVD,
) -> LayerDifference:
    """Return a difference with how concentrated it is, beside what chance gives, and where."""
    embeddings = None
    if before.embedding is not None and after.embedding is not None:
        embeddings = before.embedding, after.embedding
    nulls = null_of_change(*maps, SEED, embeddings) or (None, None)
    return replace(
        found,
        outputs=mode_change(spectrum.singular_values, nulls[0]),
        inputs=mode_change(spectrum.input.singular_values, nulls[1]),
        output_parts=largest_parts(after.output(spectrum.output_directions[0])),
    )


def compare_on_rows(
    before: FittedLayer, after: FittedLayer, rows: Tensor | None
) -> tuple[float | None, float | None]:
    """Return how alike two layers answer to rows, of logits but for what all have in common.

    Math: with μ the mean of f, the cosine between f − μ and g − μ, and ‖g − f‖ / ‖f − μ‖.
    """
    if rows is None:
        return None, None
    f, g = (one.layer(rows.double()) for one in (before, after))
    if after.classes:
        f, g = (one - one.mean(dim=1, keepdim=True) for one in (f, g))
    old, new = (one - f.mean(dim=0) for one in (f, g))
    sizes = float(old.norm()), float(new.norm())
    if min(sizes) == 0:
        return None, None
    return float((old / sizes[0] * (new / sizes[1])).sum()), float((g - f).norm()) / sizes[0]


def weight_changes(before: Layer, after: Layer) -> tuple[dict[str, Tensor], float]:
    """Return ΔW of each part of the weights, and ‖ΔW‖ / ‖W‖ of all together."""
    old, new = weights_of(before), weights_of(after)
    changes = {  # a part that one lacks is zero there
        part: new.get(part, torch.zeros_like(like)) - old.get(part, torch.zeros_like(like))
        for part, like in {**new, **old}.items()
    }
    norms = [
        math.hypot(*(float(part.norm()) for part in parts.values())) for parts in (changes, old)
    ]
    return changes, norms[0] / (norms[1] or 1.0)


def nearly_zero(delta: QuadraticMap, f: QuadraticMap, layer: Layer, rounding: float) -> bool:
    """Tell whether a difference is rounding of a map, wherever its layer answers.

    Constant, linear and quadratic part each count at inputs of another size, and inputs may be in
    any units: `layer` says which sizes its branches answer to. Nothing cancels but what is rounded.
    """
    parts = weights_of(layer)
    weights = torch.cat([parts[name] for name in layer.branches])
    shifts = [parts[f"{name}_bias"] for name in layer.branches if f"{name}_bias" in parts]
    plain = inputs_at_scales(layer.d_in, gaps=True)
    own = plain / nonzero(weights.norm(dim=0))  # each input as if it was in units of its own
    reached = own / nonzero((own @ weights.T).square().mean().sqrt())
    shifted = [reached * nonzero(torch.cat(shifts).square().mean().sqrt())] if shifts else []
    for x in (plain, reached, *shifted):
        for few in (x[at : at + ROWS] for at in range(0, len(x), ROWS)):
            if float(delta(few).abs().max()) > rounding * float(f(few).abs().max()):
                return False
    return True


def changed_units(before: Layer, changes: dict[str, Tensor]) -> int:
    """Return how many hidden units have a weight that changed."""
    moved = torch.zeros(before.down.shape[1], dtype=torch.bool)
    for name, change in changes.items():
        if name == "down":
            moved |= (change != 0).any(dim=0)
        elif name not in ("linear", "constant"):
            moved |= (change != 0).flatten(1).any(dim=1) if change.ndim > 1 else change != 0
    return int(moved.sum())


def cosine(f: QuadraticMap, g: QuadraticMap, measure: Measure) -> float | None:
    """Return the similarity; None where a map cannot be told from zero."""
    try:
        return float(similarity(f, g, measure))
    except UsageError:
        return None


def linear_change(f: QuadraticMap, delta: QuadraticMap) -> float | None:
    """Return ‖Δb‖ / ‖b‖; None where the baseline has no linear part."""
    base = 0.0 if f.linear is None else float(f.linear.norm())
    if base == 0:
        return None
    return 0.0 if delta.linear is None else float(delta.linear.norm()) / base


def map_change(f: QuadraticMap, delta: QuadraticMap) -> float | None:
    """Return √(E‖Δ(x)‖² / E‖f(x) − E f(x)‖²), x ~ N(0, I); None where f is constant.

    Math: E‖f − E f‖² = 2‖Q‖² + ‖b‖², and E Δ = tr ΔQ + Δc.
    """
    sizes = []
    for one in (f, delta):
        linear = 0.0 if one.linear is None else float(one.linear.norm())
        sizes.append(math.hypot(math.sqrt(2) * float(one.tensor.norm()), linear))
    tensor = delta.tensor
    shift = outputs_traces(tensor.down, tensor.left, tensor.right)
    shift = shift if delta.constant is None else shift + delta.constant
    return math.hypot(sizes[1], float(shift.norm())) / sizes[0] if sizes[0] > 0 else None


def mode_change(values: Tensor, null: ModeNull | None) -> ModeChange:
    """Summarise the singular values of a change, beside those of the null."""
    return ModeChange(
        effective_rank=float(effective_rank(values)),
        effective_rank_null=None if null is None else null.effective_rank,
        directions_90=directions_holding(values, MASS),
        top_share=float(values[0].square() / values.square().sum()),
        top_share_null=None if null is None else null.top_share,
    )


def triggers(spectrum: HOSVD, vectors: bool) -> tuple[ChangeDirection, ...]:
    """Return the leading eigenvectors of the change along its leading output direction."""
    try:
        eig = eigendecompose(spectrum.form(0), min(PAIRS, spectrum.f.sizes.d_in))
    except NumericalError:
        return ()
    return tuple(
        ChangeDirection(**asdict(pair), vector=drawn(vector) if vectors else None)
        for pair, vector in zip(leading_pairs(eig), eig.eigenvectors, strict=True)
        if abs(pair.eigenvalue) > float(eig.rounding_bound)
    )
