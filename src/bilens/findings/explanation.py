"""One prediction, taken apart into the eigenvectors that spoke for and against a class."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import Contributions, EigenDecomposition
from bilens.base.errors import NumericalError
from bilens.findings.subject import drawn
from bilens.records.audit import ClassScore, Contribution, Explanation

SHOWN = 4  # contributions of each class
GAP_TOLERANCE = 1e-10  # of the sum of all parts in size
TYPICAL, NARROW, WRONG, ASKED = "typical", "narrow", "wrong", "asked"


def explain(
    eigs: EigenDecomposition,
    x: Tensor,
    logits: Tensor,
    label: int | None,
    index: int = 0,
    kind: str = ASKED,
) -> Explanation:
    """Return how the class-centred logits of one input come about; of one output, its value.

    Exact: score = Σ contributions + rest + linear + constant for each class. The scores are the
    model's own; that the parts add up to them is checked.

    Cost: O(classes · in²).

    Args:
        eigs: whole spectra of the class-centred forms.
        x: (in,) float64.
        logits: (classes,) float64, what the model itself says of x.
        label: the right class, if it is known.
        index: of the input in its data set.
        kind: why it was chosen.

    Raises:
        NumericalError: If the parts do not add up to what the model says.
    """
    parts = eigs.contributions(x[None])
    scores = logits - logits.mean() if len(logits) > 1 else logits
    gap = float((parts.total()[:, 0] - scores).abs().max())
    if not gap <= GAP_TOLERANCE * float(parts.pairs.abs().sum() + scores.abs().max()):
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
        classes=tuple(
            _score(eigs[c], _of_class(parts, c), (c, float(scores[c])), x) for c in shown
        ),
    )


def _of_class(parts: Contributions, c: int) -> Contributions:
    return Contributions(parts.pairs[c, 0], parts.linear[c, 0], parts.constant[c])


def _score(
    eig: EigenDecomposition, parts: Contributions, place: tuple[int, float], x: Tensor
) -> ClassScore:
    index, score = place
    largest = torch.argsort(parts.pairs.abs(), descending=True)[:SHOWN]
    overlaps = eig.eigenvectors[largest] @ x
    return ClassScore(
        index=index,
        score=score,
        linear=float(parts.linear),
        constant=float(parts.constant),
        contributions=tuple(
            Contribution(
                rank=position + 1,
                eigenvalue=float(eig.eigenvalues[position]),
                overlap=float(overlap),
                value=float(parts.pairs[position]),
                vector=drawn(eig.eigenvectors[position]),
            )
            for position, overlap in zip(largest.tolist(), overlaps, strict=True)
        ),
        rest=float(parts.pairs.sum() - parts.pairs[largest].sum()),
    )


def choose_examples(scores: Tensor, labels: Tensor) -> dict[str, int]:
    """Return which inputs to explain: a typical and a narrow right answer, and a wrong one.

    Typical is the right answer with the median margin, narrow the one with the smallest, wrong
    the wrong answer that the model was surest of. A kind that does not occur is left out.

    Args:
        scores: (batch, classes), logits.
        labels: (batch,).
    """
    highest = scores.topk(2, dim=1)
    margin, right = highest.values[:, 0] - highest.values[:, 1], highest.indices[:, 0] == labels
    chosen = {}
    places = torch.nonzero(right).flatten()
    if len(places) > 0:
        order = places[torch.argsort(margin[places])]
        chosen = {TYPICAL: int(order[len(order) // 2]), NARROW: int(order[0])}
    places = torch.nonzero(~right).flatten()
    if len(places) > 0:
        chosen[WRONG] = int(places[margin[places].argmax()])
    return chosen
