"""The quadratic approximation of a model: on the inputs it sees, or under a normal one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bilens.algebra.approximation.closed_form import (
    affine_part,
    approximate_network,
    composition_error,
    derivation,
    exact_map,
    output_moments,
)
from bilens.algebra.approximation.data_fit import (
    fit_neurons,
    quadratic_ceiling,
    refit_down,
    row_weights,
    train_factors,
)
from bilens.algebra.approximation.fit_options import (
    SAMPLES as SAMPLES,
    THRESHOLD as THRESHOLD,
    LayerFitOptions,
)
from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, in_float64
from bilens.algebra.approximation.r_squared import (
    MASSIVE,
    FitScores,
    RSquared,
    centred,
    r_squared_on,
    usual_norm,
)
from bilens.algebra.directions import outputs_of
from bilens.algebra.gaussian import GaussianInput
from bilens.algebra.quadratic_map import QuadraticMap, add
from bilens.algebra.repeated_rows import count_different, equal_rows, rows_alone
from bilens.algebra.shapes import check_shape
from bilens.base.checks import check_count, generator_of
from bilens.base.errors import MemoryLimitError, NumericalError, UsageError
from bilens.base.frame import frame_of
from bilens.base.keyword_options import takes_options
from bilens.base.memory import check_memory
from bilens.base.notebook import frozen_result

# Below it more than a tenth of the variance is missing, and the correlation with the truth falls
# below 0.95; small trained MLPs reach 0.94 under a normal input (arXiv:2502.01032).
BLOCK = 1024  # rows at a time
HELD_OUT = 0.2  # of the rows
LEAST_ROWS = 13  # ten for a neuron, and a fifth held out
EXACT_BUDGET = 2 * 10**10  # products for the error of two bilinear layers
SAME = 1e-4  # of the largest output: what the dtype of a model may change
CEILING_INPUTS = 64  # at most: 2,144 features, seconds
STANDARD, GIVEN, NORMAL, NEURONS = "standard normal", "given normal", "normal", "neurons"
REFITTED, TRAINED, CEILING = "refitted", "trained", "ceiling"


@frozen_result("exact", "r_squared.quadratic", "usable", "threshold", "derivation", "assumed_input")
class QuadraticFit:
    """The quadratic approximation of a model, and how close it is.

    With data it is the best, on rows held out, of a ladder of fits to the others; without, nothing
    is known of the real inputs, and R² is that under a normal one.

    Attributes:
        quadratic_map: the map, float64.
        exact: whether the map is the model: one layer without an activation.
        derivation: how far it is the one of least error, in words.
        assumed_input: the inputs that R² is of, in words.
        chosen: the fit of the ladder that the map is.
        ladder: R² by degree of each fit, on the same inputs: the closed form under a "standard
            normal" (or "given normal") input, under a "normal" one with mean and covariance of the
            data; by least squares "neurons", "refitted", "trained"; and, for up to 64 inputs, the
            "ceiling", of all quadratics. Where the model gives classes, all are of its outputs
            minus their mean over classes.
        missing: what could not be fitted, and what it needs.
        threshold: R² below which the map does not stand for the model.
    """

    quadratic_map: QuadraticMap
    exact: bool
    derivation: str
    assumed_input: str
    chosen: str
    ladder: dict[str, FitScores]
    missing: tuple[str, ...]
    threshold: float

    def to_frame(self) -> Any:
        """Return R² of each fit of the ladder as a DataFrame of pandas.

        Raises: MissingExtraError if pandas is not installed.
        """
        return frame_of(
            [
                {
                    "fit": name,
                    "linear": scores.linear.overall,
                    "quadratic": scores.quadratic.overall,
                    "standard_error": scores.quadratic.standard_error,
                    "rows": scores.rows,
                }
                for name, scores in self.ladder.items()
            ]
        )

    @property
    def r_squared(self) -> FitScores:
        """R² by degree of the map."""
        return self.ladder[self.chosen]

    @property
    def usable(self) -> bool:
        """Whether R² reaches the threshold, with and without the rows of largest outputs."""
        found = self.r_squared.quadratic
        return min(found.overall, found.trimmed) >= self.threshold

    def check_usable(self) -> None:
        """Refuse to read a map that does not stand for the model.

        Raises: NumericalError if R² is below the threshold.
        """
        if not self.usable:
            raise NumericalError(
                "the quadratic approximation explains too little of the model: "
                f"{in_words(self.r_squared)} on {self.assumed_input}, and at least "
                f"{self.threshold:g} is asked for: make no claim about the model by it, or fit it "
                "to the model's own inputs (data=...)."
            )


def in_words(scores: FitScores) -> str:
    found = scores.quadratic
    return f"R² = {found.overall:.3f} ± {found.standard_error:.3f}"


@takes_options(LayerFitOptions)
def fit_layers(
    layers: Sequence[Layer], run: Callable[[Tensor], Tensor], options: LayerFitOptions
) -> QuadraticFit:
    """Return the quadratic approximation of layers one behind the other, with its R².

    All is computed where the weights are. The scores of `classes` are of outputs minus their mean.
    """
    d_in, device = layers[0].d_in, layers[0].down.device
    threshold, classes = options.threshold, options.classes
    samples = check_count("samples", options.samples, minimum=100)
    check_count("train_steps", options.train_steps, minimum=0)
    if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise UsageError(f"threshold must be between 0 and 1, got {threshold!r}.")
    generator = generator_of(options.seed)
    if options.data is None and options.held_out is not None:
        raise UsageError("held_out are rows beside data: pass data too.")
    rows = None if options.data is None else checked_data(options.data, d_in).to(device)
    given = options.mean is not None or options.covariance is not None
    learnt = None if given or rows is not None else options.assumed
    moments = options.mean, options.covariance, device
    assumed = learnt or GaussianInput.from_moments(d_in, *moments)
    derived = derivation(layers)
    f, missing = approximate_network(layers, assumed), tuple[str, ...]()
    maps = {GIVEN if given or learnt else STANDARD: f}
    if rows is None:
        memory = 16 * samples * (d_in + 4 * f.sizes.d_out)
        what = f"measuring R² on {samples} samples"
        check_memory(memory, what, "take fewer samples", device=device)
        x, about = assumed.draw(samples, generator), assumed.about
    else:
        train, x, about = rows_to_score(rows, options.held_out, options.apart, generator)
        assumed = GaussianInput.of_data(train)
        if derived != "exact":
            seen, steps = in_blocks(run, train), options.train_steps
            more, missing = fits_to_data(layers, f, train, seen, steps, generator, classes)
            maps |= more
    y = centred(in_blocks(run, x), classes)
    ladder = {
        name: scores_of(outputs_of(one, centred=classes), assumed, x, y)
        for name, one in maps.items()
    }
    if rows is None and bilinear_pair(layers):
        pair = exact_map(in_float64(layers[0])), exact_map(in_float64(layers[1]))
        pair = pair[0], outputs_of(pair[1], centred=classes)
        ladder = {name: exact_scores(pair, one, assumed, x, y) for name, one in ladder.items()}
    rivals = [name for name in maps if name != CEILING]  # of equal ones the simplest, the first
    chosen = max(rivals, key=lambda name: ladder[name].quadratic.overall)
    how = derived if chosen in (STANDARD, GIVEN, NORMAL) else "least squares on data"
    return QuadraticFit(
        maps[chosen], derived == "exact", how, about, chosen, ladder, missing, float(threshold)
    )


class SeenRows(NamedTuple):
    """Rows that a layer sees: to fit it to, and others that R² is of."""

    x: Tensor
    held_out: Tensor
    about: str  # those held out, in words
    files: Tensor | None = None  # (rows held out,) the file of each; none of `x` is of these


def rows_to_score(
    rows: Tensor, held_out: Tensor | None, apart: bool, generator: torch.Generator
) -> tuple[Tensor, Tensor, str]:
    """Return the rows to fit to, other rows that R² is measured on, and words for these."""
    if held_out is None:
        x, train = (rows[part] for part in split_rows(rows, generator))
        how = f"held out of {len(rows):,}"
    else:
        x, train = checked_data(held_out, rows.shape[1]).to(rows.device), rows
        how = f"beside the {len(train):,} that it is fitted to"
    new = rows_alone(x, train) if not apart else torch.ones(len(x), dtype=torch.bool)
    x, how = (x[new], how) if int(new.sum()) > 1 else (x, f"{how}, and repeat others of them")
    return train, x, f"{len(x):,} rows of data {how}"


def fits_to_data(
    layers: Sequence[Layer],
    f: QuadraticMap,
    x: Tensor,
    y: Tensor,
    train_steps: int,
    generator: torch.Generator,
    classes: bool,
) -> tuple[dict[str, QuadraticMap], tuple[str, ...]]:
    """Return the fits to rows that there are enough rows for, and what the others need."""
    told, path = centred(y, classes), x.new_zeros(y.shape[1], x.shape[1])
    norms = told.norm(dim=1)
    weights = row_weights(told) if bool(norms.max() > MASSIVE * usual_norm(norms)) else None
    steps: dict[str, Callable[[GLUWeights], GLUWeights]] = {
        NORMAL: lambda _: as_weights(approximate_network(layers, GaussianInput.of_data(x)))
    }
    if len(layers) == 1:
        steps[NEURONS] = lambda _: fit_neurons(layers[0], x, weights=weights)
    steps[REFITTED] = lambda fit: refit_down(
        replace(fit, linear=add(fit.linear, path)), x, y, weights=weights, classes=classes
    )
    if train_steps:
        steps[TRAINED] = lambda fit: train_factors(
            fit, x, y, steps=train_steps, weights=weights, generator=generator, classes=classes
        )
    if x.shape[1] <= CEILING_INPUTS:
        steps[CEILING] = lambda _: quadratic_ceiling(x, y, classes)
    found: dict[str, QuadraticMap] = {}
    missing, fit = [], as_weights(f)
    for name, step in steps.items():
        try:
            fit = step(fit)
        except (UsageError, MemoryLimitError) as error:
            missing.append(f"{name}: {error}")
        else:
            found[name] = exact_map(fit)
    return found, tuple(missing)


def as_weights(f: QuadraticMap) -> GLUWeights:
    down, left, right = f.tensor.down, f.tensor.left, f.tensor.right
    return GLUWeights(down, left, right, "identity", linear=f.linear, constant=f.constant)


def checked_data(data: Tensor, d_in: int) -> Tensor:
    rows, _ = check_shape("data", data, ("rows", d_in))
    if rows < LEAST_ROWS:
        raise UsageError(f"data have {rows} row(s): fit and R² take {LEAST_ROWS} or more.")
    return data.detach().double()


def split_rows(rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the numbers of a random fifth of the rows, and of the others.

    Equal rows stay together, unless fewer than 13 differ.
    """
    equal, order = equal_rows(rows), torch.randperm(len(rows), generator=generator)
    held_out = torch.zeros(len(rows), dtype=torch.bool)
    held_out[order[: int(HELD_OUT * len(rows))]] = True
    if count_different(equal) >= LEAST_ROWS:
        held_out = held_out[equal]
    chosen = held_out[order]
    return order[chosen], order[~chosen]


def scores_of(f: QuadraticMap, assumed: GaussianInput, x: Tensor, y: Tensor) -> FitScores:
    value, slope = affine_part(f, assumed)
    affine = value + (x - assumed.mean) @ slope.T
    return FitScores(r_squared_on(y, affine), r_squared_on(y, in_blocks(f, x)), len(x))


def bilinear_pair(layers: Sequence[Layer]) -> bool:
    """Return whether R² of layers is known exactly, in a second or so."""
    if len(layers) != 2 or any(layer.phi.name != "identity" for layer in layers):
        return False
    inner, outer = (exact_map(in_float64(layer)).tensor.sizes for layer in layers)
    rank = min(inner.d_in, 2 * inner.d_hidden)
    return outer.d_hidden**2 * rank**3 <= EXACT_BUDGET


def exact_scores(
    pair: tuple[QuadraticMap, QuadraticMap],
    found: FitScores,
    assumed: GaussianInput,
    x: Tensor,
    y: Tensor,
) -> FitScores:
    """Return R² of two bilinear layers under a normal input, if the model that ran is these."""
    inner, outer = pair
    if float((outer(inner(x)) - y).abs().max()) > SAME * float(y.abs().max()):
        return found
    lost = composition_error(outer, inner, assumed)
    f = approximate_network([as_weights(one) for one in pair], assumed)
    total = output_moments(f, assumed)[1].diagonal() + lost
    straight = assumed.spread(affine_part(f, assumed)[1]).square().sum(dim=1)

    def score(sampled: RSquared, missed: Tensor) -> RSquared:
        each = torch.where(total > 0, 1 - missed / torch.where(total > 0, total, 1.0), 1.0)
        overall = 1 - float(missed.sum() / total.sum()) if float(total.sum()) > 0 else 1.0
        none = torch.zeros_like(each)
        return replace(
            sampled, overall=overall, standard_error=0.0, outputs=each, output_errors=none
        )

    return replace(
        found, linear=score(found.linear, total - straight), quadratic=score(found.quadratic, lost)
    )


@torch.no_grad()
def in_blocks(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    starts = range(0, len(x), BLOCK)
    return torch.cat([run(x[start : start + BLOCK]).double() for start in starts])
