"""One prediction, taken apart into eigenvectors, or into inputs and pairs of inputs."""

from typing import Literal

import torch
from torch import Tensor

from bilens.algebra.attribution import attribute, top_interactions
from bilens.algebra.directions import centred_directions, contrast_direction, output_form
from bilens.algebra.eigen.decomposition import Contributions, EigenDecomposition
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import NumericalError
from bilens.findings.subject import drawn
from bilens.records.class_readings import ClassScore, Contribution, Explanation
from bilens.records.column_readings import InputAttribution, InputPair

SHOWN = 4  # contributions of each class
GAP_TOLERANCE = 1e-10  # of the sum of all parts in size
ROUNDINGS = 16  # of λ‖x‖², in units of the last place
SEEN = 1e-6  # of the sum of all parts: what a reader of four digits would see
TYPICAL, NARROW, WRONG, ASKED = "typical", "narrow", "wrong", "asked"


def explain(
    eigs: EigenDecomposition,
    x: Tensor,
    logits: Tensor,
    label: int | None,
    index: int = 0,
    kind: str = ASKED,
) -> Explanation:
    """Return how the class-centred logits of one input come about; of one output, its value."""
    parts = eigs.contributions(x[None])
    scores = logits - logits.mean() if len(logits) > 1 else logits
    gap = float((parts.total()[:, 0] - scores).abs().max())
    # what the eigenvectors themselves are rounded by: of inputs in small units it can be the most
    rounded = ROUNDINGS * torch.finfo(x.dtype).eps * eigs.eigenvalues.abs().max() * x.square().sum()
    size = parts.pairs.abs().sum() + scores.abs().max()
    if not gap <= float((GAP_TOLERANCE * size + rounded).clamp(max=SEEN * size)):
        raise NumericalError(
            f"the parts of input {index} miss the model's scores by {gap:.3g}: the decomposition "
            "is not of this model, or is not accurate."
        )
    order = torch.argsort(scores, descending=True).tolist()
    shown = order[:2] + ([label] if label is not None and label not in order[:2] else [])
    return Explanation(
        kind=kind,
        index=index,
        label=label,
        predicted=order[0],
        image=drawn(x),
        scores=tuple(scores.tolist()),
        classes=tuple(class_score(eigs[c], parts, c, float(scores[c]), x) for c in shown),
    )


def class_score(
    eig: EigenDecomposition, parts: Contributions, index: int, score: float, x: Tensor
) -> ClassScore:
    pairs = parts.pairs[index, 0]
    largest = torch.argsort(pairs.abs(), descending=True)[:SHOWN]
    overlaps = eig.eigenvectors[largest] @ x
    return ClassScore(
        index=index,
        score=score,
        linear=float(parts.linear[index, 0]),
        constant=float(parts.constant[index]),
        contributions=tuple(
            Contribution(
                rank=position + 1,
                eigenvalue=float(eig.eigenvalues[position]),
                overlap=float(overlap),
                value=float(pairs[position]),
                vector=drawn(eig.eigenvectors[position]),
            )
            for position, overlap in zip(largest.tolist(), overlaps, strict=True)
        ),
        rest=float(pairs.sum() - pairs[largest].sum()),
    )


def choose_examples(scores: Tensor, labels: Tensor) -> dict[str, int]:
    """Return which inputs to explain: a typical and a narrow right answer, and a wrong one."""
    highest = scores.topk(2, dim=1).values
    margin, right = highest[:, 0] - highest[:, 1], scores.argmax(dim=1) == labels
    chosen = {}
    rows = torch.nonzero(right).flatten()
    if len(rows) > 0:
        order = rows[torch.argsort(margin[rows])]
        chosen = {TYPICAL: int(order[len(order) // 2]), NARROW: int(order[0])}
    rows = torch.nonzero(~right).flatten()
    if len(rows) > 0:
        sure = scores.softmax(dim=1).max(dim=1).values  # as among the mistakes of a report
        chosen[WRONG] = int(rows[sure[rows].argmax()])
    return chosen


PAIRS = 5
Kind = Literal["class", "contrast", "output"]


def attribute_prediction(
    f: QuadraticMap, x: Tensor, baseline: Tensor, label: int | None
) -> tuple[InputAttribution, ...]:
    """Return the attributions of the predicted class, and of its lead over a rival."""
    order = f(x[None])[0].argsort(descending=True, stable=True).tolist()
    winner, rival, d_out = order[0], None, f.sizes.d_out
    kinds: tuple[Kind, ...] = ("output",)
    read = f
    if d_out > 1:
        kinds = ("class", "contrast")
        rival = order[1] if label is None or label == winner else label
        rows = [centred_directions(d_out, [winner])[0], contrast_direction(d_out, winner, rival)]
        read = f.compose_output(torch.stack(rows))
    values = attribute(read, x[None], baseline)[0]
    here, there = read(x[None])[0], read(baseline[None])[0]
    residuals = values.sum(dim=1) - (here - there)
    for residual, parts in zip(residuals, values, strict=True):
        size = parts.abs().sum() + here.abs().max() + there.abs().max()
        if not abs(residual) <= GAP_TOLERANCE * size:
            raise NumericalError(
                f"the attributions miss f(x) − f(baseline) by {float(residual):.3g}: the products "
                "of the weights cancel beyond what float64 can hold."
            )
    forms = (output_form(read, row) for row in range(len(kinds)))
    found = (top_interactions(form, x, PAIRS, baseline) for form in forms)
    strongest = [(one.first, one.second, one.values) for one in found]
    return tuple(
        InputAttribution(
            kind=kind,
            output=winner,
            rival=rival if kind == "contrast" else None,
            score=float(here[row]),
            score_at_baseline=float(there[row]),
            residual=float(residuals[row]),
            values=tuple(values[row].tolist()),
            pairs=tuple(map(InputPair, *(part.tolist() for part in top))),
        )
        for row, (kind, top) in enumerate(zip(kinds, strongest, strict=True))
    )
