"""How good predictions are: accuracy by class, calibration, ranking, residuals, and R² on data."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bilens.algebra.approximation.closed_form import approximate_layer
from bilens.algebra.approximation.layer_weights import Layer
from bilens.algebra.approximation.quadratic_fit import in_blocks
from bilens.algebra.approximation.r_squared import centred, r_squared_on
from bilens.algebra.gaussian import GaussianInput
from bilens.findings.subject import share_of, share_right
from bilens.nn.layer_view import LayerView
from bilens.records.performance import (
    Answer,
    ApproximationOnData,
    Classification,
    ClassPerformance,
    Curve,
    Regression,
    ReliabilityBin,
)

BINS = 10  # of confidence, of equal width
DOTS, POINTS = 400, 200  # of a drawing of residuals; of a curve
MOST_CLASSES = 30  # of a confusion matrix
ROUNDINGS = 8  # of a logit, that its log-odds may be off


def answers_of(logits: Tensor) -> Tensor:
    """Return the class of the largest logit, the first of those that are equal but for rounding."""
    near = logits.amax(dim=1) - rounding_of(logits)
    return (logits >= near[:, None]).int().argmax(dim=1)


def rounding_of(logits: Tensor) -> Tensor:
    """Return by how much logits of a row may differ and be equal, (rows,)."""
    largest = logits.abs().masked_fill(~logits.isfinite(), 0).amax(dim=1)
    return ROUNDINGS * torch.finfo(logits.dtype).eps * (1 + largest)


def classification(logits: Tensor, labels: Tensor, names: Sequence[str]) -> Classification:
    """Return how good answers are that name a class: (rows, classes) float64, (rows,) int64.

    Source: Guo et al., On calibration of modern neural networks, 2017; Brier, 1950.
    """
    # Math: the null takes the right answers of a bin for binomial with its mean confidence c; then
    # E|accuracy − c| is about √(2 c (1 − c) / (π rows)).
    p, (rows, count) = logits.softmax(dim=1), logits.shape
    confidence, answers = p.amax(dim=1), answers_of(logits)
    # A class is ranked by its log-odds, ln p − ln(1 − p), which rounding neither ties nor orders.
    rest = logits.scatter(1, answers[:, None], -math.inf).logsumexp(1) - logits.logsumexp(1)
    known = logits.log_softmax(dim=1)
    scores = known - (-known.exp()).log1p().scatter(1, answers[:, None], rest[:, None])
    rounding = rounding_of(logits)
    right, places = answers == labels, (confidence * BINS).long().clamp(max=BINS - 1)
    bins, ece, null = [], 0.0, 0.0
    for inside in (places == place for place in sorted({*places.tolist()})):
        size, mean = int(inside.sum()), float(confidence[inside].mean())
        bins.append(ReliabilityBin(mean, share_of(int(right[inside].sum()), size)))
        ece += size / rows * abs(bins[-1].accuracy.value - mean)
        null += size / rows * math.sqrt(2 * mean * max(1 - mean, 0.0) / (math.pi * size))
    confusion = torch.bincount(labels * count + answers, minlength=count**2).reshape(count, count)
    classes, drawn = [], list[Curve]()
    for one, name in enumerate(names):
        hits, auc, average = int(confusion[one, one]), None, None
        curves = threshold_curves(scores[:, one], labels == one, rounding)
        if curves is not None:
            roc, found = curves
            average = float((found[0].diff() * found[1, 1:]).sum())
            auc = float(torch.trapezoid(roc[1], roc[0]))
            if count == 2:  # thinned to what can be drawn; the ends stay
                thinned = (curve[:, evenly(curve.shape[1], POINTS)].T.tolist() for curve in curves)
                drawn = [tuple((round(x, 5), round(y, 5)) for x, y in one) for one in thinned]
        sums = int(confusion[one].sum()), int(confusion[:, one].sum())
        recall, precision = (share_of(hits, total) if total else None for total in sums)
        classes.append(ClassPerformance(name, recall, precision, auc, average))
    return Classification(
        accuracy=share_right(answers, labels),
        classes=tuple(classes),
        confusion=tuple(map(tuple, confusion.tolist())) if count <= MOST_CLASSES else (),
        ece=ece,
        ece_null=null,
        brier=float((p - torch.nn.functional.one_hot(labels, count)).square().sum() / rows),
        reliability=tuple(bins),
        roc=drawn[0] if drawn else (),
        precision_recall=drawn[1] if drawn else (),
    )


def threshold_curves(
    scores: Tensor, positive: Tensor, rounding: Tensor
) -> tuple[Tensor, Tensor] | None:
    """Return (1 − specificity, recall) and (recall, precision), (2, points), by falling threshold.

    None where all rows are on one side. Scores are equal that differ by no more than `rounding`.
    """
    if not bool(positive.any()) or bool(positive.all()):
        return None
    order = scores.argsort(descending=True)
    ranked, hits, off = scores[order], positive[order].double(), rounding[order]
    apart = ranked[:-1] - ranked[1:] > torch.maximum(off[:-1], off[1:])
    last = torch.cat([apart, torch.ones(1, dtype=torch.bool)])  # of equal ones
    hits, alarms = hits.cumsum(0)[last], (1 - hits).cumsum(0)[last]
    recall, precision = hits / hits[-1], hits / (hits + alarms)
    roc, curve = torch.stack([alarms / alarms[-1], recall]), torch.stack([recall, precision])
    start = torch.stack([torch.zeros(1), precision[:1]])
    return torch.cat([torch.zeros(2, 1), roc], dim=1), torch.cat([start, curve], dim=1)


def evenly(count: int, most: int) -> list[int]:
    """Return at most so many of the positions below a count, spread evenly, with both ends."""
    spread: list[int] = torch.linspace(0, count - 1, min(count, most)).round().long().tolist()
    return spread


def regression(predicted: Tensor, target: Tensor, rows: Sequence[int]) -> Regression:
    """Return how good numbers are, both (rows,) float64; `rows` is how these are numbered."""
    errors = predicted - target
    squares, spread = float(errors.square().mean()), float(target.var(correction=0))
    return Regression(
        r_squared=1 - squares / spread if spread > 0 else None,
        rmse=math.sqrt(squares),
        mae=float(errors.abs().mean()),
        spread=math.sqrt(spread),
        residuals=tuple(
            Answer(rows[row], "", float(target[row]), float(predicted[row]), None, None)
            for row in evenly(len(target), DOTS)
        ),
    )


def approximation_on_data(
    views: Sequence[LayerView], layers: Sequence[Layer], x: Tensor, members: Sequence[Tensor]
) -> tuple[ApproximationOnData, ...]:
    """Return R² of the quadratic approximations of layers one behind the other, on what comes in.

    Logits of classes are taken minus their mean. `members` are the rows of each class.
    Cost: for each layer two fits, O(out · hidden · in + hidden · in² + in³), and rows · the layer.
    """
    found = []
    for view, layer in zip(views, layers, strict=True):
        out = in_blocks(layer, x)
        if not view.exact:
            read, data = GaussianInput.from_moments(layer.d_in), GaussianInput.of_data(x)
            fits = (approximate_layer(layer, one) for one in (read, data))
            outputs = out, *(in_blocks(fit, x) for fit in fits)
            y, said, fitted = (centred(one, view.classes) for one in outputs)
            whole = [known_r_squared(y, map_of_x) for map_of_x in (said, fitted)]
            within = tuple(known_r_squared(y[k], said[k]) for k in members)
            found.append(ApproximationOnData(view.name, whole[0], whole[1], within))
        x = out
    return tuple(found)


def known_r_squared(y: Tensor, predicted: Tensor) -> float | None:
    """Return R²; None for that of nothing, or of a constant that is missed."""
    value = r_squared_on(y, predicted).overall if len(y) else math.nan
    return value if math.isfinite(value) else None
