"""Findings from inputs: training against test, memorised examples, whitened spectra."""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from bilens.algebra.approximation.quadratic_fit import in_blocks
from bilens.algebra.concentration import effective_rank
from bilens.algebra.directions import outputs_of
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.gaussian import mean_and_covariance, whiten
from bilens.algebra.gram.inner_products import squared_norms
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.repeated_rows import rows_alone
from bilens.base.checks import check_finite
from bilens.certify.contrast import PairSpectra, contrast_of
from bilens.certify.l2_certificates import l2_radius
from bilens.data.model_interface import LabelledData
from bilens.findings.subject import drawn, share_right
from bilens.records.common import Share
from bilens.records.given_inputs import (
    Area,
    Bound,
    Comparison,
    Gap,
    GivenInputs,
    Sample,
    Support,
    TrainingExample,
    WhitenedClass,
)

FEWEST = 30  # inputs of each sample that are compared
RADII = 500  # inputs of each sample whose exact radius is computed
EXAMPLES, SUPPORTS = 8, 2  # training inputs that are shown, eigenvectors of each
LEADING = 10  # whitened eigenvalues that are kept of each class
# of the estimated gap; fitted on models that docs/findings_inputs.md names
POINTS, SPARE = 2.96, 0.038


@dataclass(frozen=True, eq=False)
class RowReadings:
    """Answers, leads and radii of a model on inputs, a row each."""

    x: Tensor  # (rows, in) float64
    label: Tensor | None
    answer: Tensor
    lead: Tensor  # of the answer over the second class, in logits
    nearest: Tensor  # lead / ‖its gradient‖: to first order, how far it is to the second class
    radius: Tensor  # exact, of rows drawn at random
    sample: Sample


def read_inputs(
    f: QuadraticMap,
    training: LabelledData | None,
    test: LabelledData | None,
    pairs: PairSpectra | None,
    seed: int,
) -> GivenInputs:
    """Compare training and test inputs of a classifier; exact radii where `pairs` is given.

    Cost: for n inputs O(n · (in · hidden + in²) + classes · in³); nothing is (n, n).
    """
    generator = torch.Generator().manual_seed(seed)
    seen = None if training is None else read_rows(f, training, pairs, generator)
    new = None if test is None else read_rows(f, test, pairs, generator)
    compared, repeated, reason = None, 0, "training_alone" if new is None else "test_alone"
    bound = None
    if seen is not None and seen.label is not None:
        margins = torch.where(seen.answer == seen.label, seen.lead, 0.0)
        bound = margin_bound(f, seen.x, margins)
    if seen is not None and new is not None:
        repeated = int((~rows_alone(new.x, seen.x)).sum())
        few = min(len(seen.x), len(new.x)) < FEWEST
        reason = "same" if repeated == len(new.x) else "few" if few else ""
        compared = compare(seen, new) if reason == "" else None
    return GivenInputs(
        training=None if seen is None else seen.sample,
        test=None if new is None else new.sample,
        bound=bound,
        comparison=compared,
        reason=reason,
        repeated=repeated,
        examples=() if seen is None else learnt_by_heart(f, seen, pairs),
    )


def read_rows(
    f: QuadraticMap, given: LabelledData, pairs: PairSpectra | None, generator: torch.Generator
) -> RowReadings:
    """Return answers, leads and radii, and what is told of the sample."""
    x = given.inputs.detach().double()
    label = None if given.targets is None else given.targets.long()
    answer, lead, nearest, confidence = in_blocks(partial(leads, f), x).T.contiguous()
    check_finite("the lead of the model's answers to the inputs given", lead)
    answer = answer.long()
    picked = torch.randperm(len(x), generator=generator)[: 0 if pairs is None else RADII]
    radius = l2_radius(f, x[picked], answer[picked], pairs).radius
    known = radius[radius.isfinite()]
    told = Sample(
        rows=len(x),
        data=given.origin,
        accuracy=None if label is None else share_right(answer, label),
        confidence=float(confidence.mean()),
        lead=float(lead.median()),
        radius=float(known.median()) if len(known) else None,
        num_radii=len(picked),
        classes=whitened_spectra(outputs_of(f, centred=True), x),
    )
    return RowReadings(x, label, answer, lead, nearest, radius, told)


def leads(f: QuadraticMap, x: Tensor) -> Tensor:
    """Return answer, lead over the second class, lead / ‖its gradient‖ and probability, (rows, 4).

    A lead without a gradient stays as it is.
    """
    logits = f(x)
    top = logits.sort(dim=1, descending=True, stable=True)  # of equal ones the first, as argmax
    (first, second), left, right = top.indices.T[:2], f.tensor.left, f.tensor.right
    weight = f.tensor.down[first] - f.tensor.down[second]
    slopes = ((x @ right.T) * weight) @ left + ((x @ left.T) * weight) @ right
    if f.linear is not None:
        slopes = slopes + f.linear[first] - f.linear[second]
    lead, size = top.values[:, 0] - top.values[:, 1], slopes.norm(dim=1)
    nearest = lead / torch.where(size > 0, size, 1.0)
    return torch.stack([first.double(), lead, nearest, logits.softmax(dim=1).amax(dim=1)], dim=1)


def whitened_spectra(centred: QuadraticMap, x: Tensor) -> tuple[WhitenedClass, ...]:
    """Return the spectra of the class-centred forms where inputs of one kind vary equally."""
    mean, covariance = mean_and_covariance(x)
    if not bool(covariance.diagonal().any()):
        return ()
    eigs = eigendecompose_all(whiten(centred, covariance, mean), k=None)
    eigs.check_usable()
    found = []
    for values, linear in zip(eigs.eigenvalues, eigs.linear, strict=True):
        squares, straight = values.square(), float(linear.square().sum())
        total = float(squares.sum())
        variance = 2 * total + straight
        held = squares.cumsum(dim=0) < 0.9 * total
        found.append(
            WhitenedClass(
                deviation=math.sqrt(variance),
                linear=straight / variance if variance > 0 else 0.0,
                effective_rank=float(effective_rank(values)),
                num_90=int(held.sum()) + 1 if total > 0 else 0,
                eigenvalues=tuple(values[:LEADING].tolist()),
            )
        )
    return tuple(found)


def compare(training: RowReadings, test: RowReadings) -> Comparison:
    """Return leads, radii and accuracy of training inputs against those of others."""
    ours, theirs = training.sample.accuracy, test.sample.accuracy
    few = min(len(training.radius), len(test.radius)) < FEWEST
    return Comparison(
        lead=area(training.lead, test.lead),
        radius=None if few else area(training.radius, test.radius),
        gap=None if ours is None or theirs is None else gap(ours, theirs),
        estimate=estimated_gap(training, test),
    )


def estimated_gap(training: RowReadings, test: RowReadings) -> Gap:
    """Return the gap as it is put without any label: a regression on one reading, and no bound.

    The reading is how much farther another answer is from training inputs;
    docs/findings_inputs.md says on which models the range held how often.
    """
    found = area(training.nearest, test.nearest)
    value, low, high = (POINTS * (end - 0.5) for end in (found.value, found.low, found.high))
    return Gap(min(max(value, 0.0), 1.0), max(low - SPARE, 0.0), min(max(high + SPARE, 0.0), 1.0))


def learnt_by_heart(
    f: QuadraticMap, seen: RowReadings, pairs: PairSpectra | None
) -> tuple[TrainingExample, ...]:
    """Return the training inputs that look most learnt by heart, among those answered as labelled.

    First are those whose label all other training inputs speak against: the model must have it from
    the row itself. docs/findings_inputs.md says how often that is so, and what ranks worse.
    """
    label = seen.answer if seen.label is None else seen.label
    fitted = (seen.answer == label).nonzero()[:, 0]
    if len(fitted) == 0 or bool((label == label[0]).all()):
        return ()
    others, rival = left_out_margins(seen.x, label, f.sizes.d_out)
    chosen = fitted[others[fitted].argsort(stable=True)[:EXAMPLES]]
    radius = torch.full((len(chosen),), math.nan)
    if pairs is not None:
        radius = l2_radius(f, seen.x[chosen], label[chosen], pairs).radius
    second = f(seen.x[chosen]).scatter(1, label[chosen, None], -math.inf).argmax(dim=1).tolist()
    return tuple(
        TrainingExample(
            index=row,
            label=int(label[row]),
            lead=float(seen.lead[row]),
            radius=float(one) if math.isfinite(one) else None,
            others=float(others[row]),
            nearest=int(rival[row]),
            second=other,
            image=drawn(seen.x[row]),
            supports=supports(f, seen.x, row, (int(label[row]), other), pairs),
        )
        for row, one, other in zip(chosen.tolist(), radius.tolist(), second, strict=True)
    )


def left_out_margins(x: Tensor, label: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return the margin of each label by a ridge regression on all other rows, and its rival."""
    # Math: with H = X (XᵀX + ρI)⁻¹ Xᵀ, what the fit without row i answers there is
    # y_i − (y_i − (HY)_i) / (1 − H_ii). ρ is the mean eigenvalue of XᵀX: among 0.01 to 100 of it
    # the best at what docs/findings_inputs.md measures.
    targets = torch.nn.functional.one_hot(label, classes).double()
    x = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
    gram = x.T @ x
    gram.diagonal().add_(gram.trace() / len(gram))
    inverse = torch.linalg.inv(gram)
    weights = inverse @ (x.T @ targets)
    leverage = in_blocks(lambda rows: ((rows @ inverse) * rows).sum(dim=1), x)
    told = targets - (targets - x @ weights) / (1 - leverage)[:, None]
    own = told.gather(1, label[:, None])[:, 0]
    best = told.scatter(1, label[:, None], -math.inf).max(dim=1)
    return own - best.values, best.indices


def supports(
    f: QuadraticMap, x: Tensor, row: int, pair: tuple[int, int], known: PairSpectra | None
) -> tuple[Support, ...]:
    """Return the eigenvectors of f_first − f_second that add most to the lead of a row."""
    found = contrast_of(f, *pair) if known is None else known.contrast(*pair)
    parts = found.values * (found.vectors @ x[row]).square()
    largest = parts.argsort(descending=True)[:SUPPORTS]
    overlaps = (x @ found.vectors[largest].T).square()
    use = overlaps[row] / overlaps.mean(dim=0).clamp(min=1e-300)
    return tuple(
        Support(
            eigenvalue=float(found.values[place]),
            value=float(parts[place]),
            use=float(times),
            vector=drawn(found.vectors[place]),
        )
        for place, times in zip(largest.tolist(), use, strict=True)
        if float(parts[place]) > 0
    )


Z = 1.959964  # of a two-sided 95 % interval


def area(ours: Tensor, theirs: Tensor) -> Area:
    """Return P(ours > theirs) + P(equal) / 2 over all pairs, with an interval and a test."""
    # Math: with the placements u_i, the share of theirs below ours_i, and v_j likewise, DeLong's
    # variance is var(u) / n + var(v) / m. A (1 − A) over it is the number of trials of a share
    # with as much variance, of which Wilson's interval does not end at a point where A is 0 or 1.
    from scipy.stats import mannwhitneyu  # slow to import, needed only where data are given

    u, v = placements(ours, theirs), 1 - placements(theirs, ours)
    value = float(u.mean())
    variance = float(u.var() / len(u) + v.var() / len(v))
    least = min(len(u), len(v))
    trials = max(value * (1 - value) / variance, least) if variance > 0 else least
    middle = (value + Z**2 / (2 * trials)) / (1 + Z**2 / trials)
    half = Z / (1 + Z**2 / trials) * math.sqrt(value * (1 - value) / trials + (Z / 2 / trials) ** 2)
    test = mannwhitneyu(ours.numpy(), theirs.numpy(), alternative="greater", method="asymptotic")
    return Area(value, max(middle - half, 0.0), min(middle + half, 1.0), float(test.pvalue))


def placements(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return for each of ours the share of theirs that is smaller, ties counted half."""
    ordered = theirs.sort().values
    below, upto = (torch.searchsorted(ordered, ours, right=right) for right in (False, True))
    return (below + upto).double() / (2 * len(theirs))


def gap(training: Share, test: Share) -> Gap:
    """Return the difference of two accuracies; their exact intervals are squared and added."""
    # Source: Newcombe, Statistics in Medicine 17 (1998), method 10, with exact intervals.
    value = training.value - test.value
    down = math.hypot(training.value - training.low, test.high - test.value)
    up = math.hypot(training.high - training.value, test.value - test.low)
    return Gap(value, max(value - down, -1.0), min(value + up, 1.0))


def margin_bound(f: QuadraticMap, x: Tensor, margin: Tensor) -> Bound:
    """Bound the error on new inputs by the margins of training inputs, (rows, in)."""
    # Math: f_c is a product of W_c with φ(x) = x̃x̃ᵀ, x̃ = (x, 1), and ‖W‖² = Σ_c ‖Q_c‖² + ‖b_c‖²/2 +
    # c_c². The margin is √2-Lipschitz in the scores, so the ramp loss of margin γ has a Rademacher
    # complexity of at most 2 (‖W‖/γ) √(classes · mean ‖φ‖² / n) (Maurer, 2016, vector contraction).
    # With r = ‖W‖/γ any power 2^k, each with 2^−|k|/3 of the 5 % (Mohri et al., 2018, theorem 3.3):
    # error ≤ mean ramp(margin · r / ‖W‖) + twice the complexity + 3 √(ln(6 · 2^|k| / 0.05) / 2n).
    centred, rows = outputs_of(f, centred=True), len(x)
    tensor, linear, constant = centred.tensor, centred.linear, centred.constant
    size = squared_norms(tensor.down, tensor.left, tensor.right).sum()
    affine = linear is not None or constant is not None
    size = size + (0 if linear is None else linear.square().sum() / 2)
    size = (size + (0 if constant is None else constant.square().sum())).sqrt()
    feature = (x.square().sum(dim=1) + affine).square().mean()
    margin = margin / torch.where(size > 0, size, 1.0)
    powers = torch.arange(-40, 41, dtype=torch.float64)
    ratio = 2**powers
    ramp = torch.stack([(1 - margin * one).clamp(0, 1).mean() for one in ratio])
    spread = 4 * ratio * (f.sizes.d_out * feature).sqrt()
    spread = spread + 3 * ((math.log(120) + powers.abs() * math.log(2)) / 2).sqrt()
    bounds = [float((ramp + spread / math.sqrt(rows * 2**k)).min()) for k in range(60)]
    enough = next((k for k, one in enumerate(bounds) if one < 0.5), None)
    return Bound(bounds[0], None if enough is None else float(rows) * 2**enough)
