"""What inputs show, against planted truths.

Damage seen to fail: the ranking turned round; rows ranked that are answered otherwise; a fit that
keeps the row it judges; ties counted whole; a bound without the factor of the classes; a Σ^½ that
is left out; the mean over all rows in the use of an eigenvector taken for a sum.
"""

import math

import pytest
import torch
from torch import Tensor

import bilens as bl
import tiny
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import NonFiniteError, UsageError
from bilens.certify.contrast import prepare
from bilens.data.model_interface import LabelledData
from bilens.findings.given_inputs import (
    area,
    estimated_gap,
    gap,
    leads,
    learnt_by_heart,
    left_out_margins,
    margin_bound,
    read_inputs,
    read_rows,
    whitened_spectra,
)
from bilens.findings.subject import share_of
from bilens.records.base import json_text
from bilens.records.common import DataOrigin
from bilens.report.reports import AuditReport

DATA = tiny.images()
ORIGIN = DataOrigin("strokes", "drawn for a test", "tensors", 60, "")


def squares(*weights: list[float]) -> QuadraticMap:
    """Each output is Σ weight_i x_i²."""
    down = torch.tensor(weights, dtype=torch.float64)
    eye = torch.eye(down.shape[1], dtype=torch.float64)
    return QuadraticMap(BilinearTensor(down, eye, eye))


def inputs(x: Tensor, label: Tensor | None) -> LabelledData:
    return LabelledData(x, label, ORIGIN)


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_leads_are_those_of_single_differences() -> None:
    f, x = squares([1.0, 0.0], [0.0, 1.0], [0.5, 0.5]), torch.tensor([[3.0, 1.0]]).double()
    # Scores 9, 1, 5: the lead over the third class is 4, its gradient (3, −1), of length √10.
    answer, lead, nearest, _ = leads(f, x)[0].tolist()
    assert (answer, lead) == (0, 4)
    assert nearest == pytest.approx(4 / math.sqrt(10))


def test_an_area_counts_pairs_and_halves_ties() -> None:
    ours, theirs = torch.tensor([1.0, 2.0, 2.0]), torch.tensor([0.0, 2.0])
    found = area(ours, theirs)
    assert found.value == pytest.approx((1 + 1.5 + 1.5) / 6)  # 1 > 0; 2 > 0 and 2 = 2, twice
    assert 0 <= found.low < found.value < found.high <= 1
    apart = area(torch.ones(40) + normal(40).abs(), -normal(60, seed=1).abs())
    assert apart.value == apart.high == 1
    assert 0.85 < apart.low < 1
    assert apart.p < 1e-9


def test_the_interval_of_an_area_holds_the_truth_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(200):
        found = area(normal(40, seed=seed) + 1, normal(60, seed=1000 + seed))
        held += found.low <= 0.7602 <= found.high  # Φ(1 / √2)
    assert 182 <= held <= 199  # 190 are expected


def test_a_gap_is_that_of_two_shares() -> None:
    found = gap(share_of(90, 100), share_of(700, 1000))
    assert found.value == pytest.approx(0.2)
    # exact intervals 0.8238–0.9510 and 0.6705–0.7283, their halves squared and added
    assert found.low == pytest.approx(0.2 - math.hypot(0.0762, 0.0283), abs=1e-3)
    assert found.high == pytest.approx(0.2 + math.hypot(0.0510, 0.0295), abs=1e-3)


def test_the_fit_leaves_each_row_out() -> None:
    x, label = normal(12, 3), torch.tensor([0, 1, 2] * 4)
    margins, rival = left_out_margins(x, label, 3)
    design = torch.cat([x, torch.ones(12, 1, dtype=torch.float64)], dim=1)
    gram = design.T @ design
    penalty = gram.trace() / 4 * torch.eye(4, dtype=torch.float64)
    for row in range(12):
        kept = torch.arange(12) != row
        rest, targets = design[kept], torch.eye(3, dtype=torch.float64)[label[kept]]
        told = design[row] @ torch.linalg.solve(rest.T @ rest + penalty, rest.T @ targets)
        own = int(label[row])
        others = torch.cat([told[:own], told[own + 1 :]])
        assert float(margins[row]) == pytest.approx(float(told[own] - others.max()), abs=1e-12)
        assert float(told[rival[row]]) == pytest.approx(float(others.max()), abs=1e-12)


def test_whitened_spectra_are_those_of_the_covariance() -> None:
    x = normal(4000, 3) * torch.tensor([3.0, 1.0, 0.0]).double()
    x = x - x.mean(dim=0)
    covariance = x.T @ x / len(x)
    first, second = whitened_spectra(squares([1.0, 0.0, 5.0], [0.0, 2.0, 5.0]), x)
    assert first.eigenvalues[0] == pytest.approx(float(covariance[0, 0]))
    assert second.eigenvalues[0] == pytest.approx(2 * float(covariance[1, 1]))
    assert (first.num_90, second.num_90) == (1, 1)  # the third input has a weight, and never varies
    assert first.effective_rank == pytest.approx(1)
    assert first.deviation == pytest.approx(math.sqrt(2) * float(covariance[0, 0]))
    assert first.linear == pytest.approx(0, abs=1e-12)  # around a mean of zero
    assert whitened_spectra(squares([1.0], [2.0]), torch.ones(5, 1).double()) == ()


@pytest.mark.parametrize("bias", [False, True])
def test_a_bound_is_the_formula(bias: bool) -> None:
    f = squares([1.0, 0.0], [0.0, 1.0])
    x = 2 * torch.eye(2, dtype=torch.float64).repeat(10_000, 1)
    if bias:
        f = f.plus_affine(constant=torch.tensor([2.0, 0.0], dtype=torch.float64))
    # Centred forms ±½ diag(1, −1), so ‖W‖² = 2 · ½, and of the constants ±1 two more. All margins
    # are 4; the bias adds 2 to some and takes 2 from others. ‖φ‖² = 16, with the bias (4 + 1)².
    size, features, margins = (3**0.5, 25, (6, 2)) if bias else (1, 16, (4, 4))
    told = []
    for power in range(-40, 41):
        ramp = sum(max(1 - one * 2.0**power / size, 0) for one in margins) / 2
        spread = 4 * 2.0**power * math.sqrt(2 * features / 20_000)
        told.append(ramp + spread + 3 * math.sqrt(math.log(6 * 2 ** abs(power) / 0.05) / 40_000))
    margin = f(x).gather(1, f(x).argmax(1, keepdim=True))[:, 0] - f(x).amin(dim=1)
    found = margin_bound(f, x, margin)
    assert found.error == pytest.approx(min(told))
    assert found.error < 0.25
    assert found.needed == 20_000
    few = margin_bound(f, x[:20], margin[:20])
    assert few.error > 1
    assert few.needed is not None
    assert 20 < few.needed <= 20_000
    none = margin_bound(f, x, torch.zeros(20_000, dtype=torch.float64))
    assert (none.error > 1, none.needed) == (True, None)  # every training input is wrong


def planted() -> tuple[QuadraticMap, Tensor, Tensor, int]:
    """Return a map of two classes, its inputs, their labels, and the one that is learnt by heart.

    Class 0 lies along the first input, class 1 along the second; the last row looks like class 0
    and would be of it, but for the third input, that no other row has.
    """
    x = 0.1 * normal(60, 3)
    label = torch.arange(60) % 2
    x[torch.arange(60), label] += 2
    x[:, 2] = 0
    x[58] = torch.tensor([0.1, 2.0, 0.0])  # its label is 0, and it is not learnt
    x[59] = torch.tensor([2.0, 0.1, 1.0])
    return squares([1.0, 0.0, 0.0], [0.0, 1.0, 4.5]), x, label, 59


def test_the_example_learnt_by_heart_comes_first_with_what_it_rests_on() -> None:
    f, x, label, row = planted()
    pairs = prepare(f)
    seen = read_rows(f, inputs(x, label), pairs, torch.Generator().manual_seed(0))
    first, second, *more = learnt_by_heart(f, seen, pairs)
    assert 58 not in [one.index for one in (second, *more)]
    assert (first.index, first.label, first.nearest, first.second) == (row, 1, 0, 0)
    assert first.others < 0 < second.others
    (support, *_) = first.supports
    assert support.value == pytest.approx(4.5)
    assert support.vector == (0, 0, 1)
    assert support.use == pytest.approx(60)  # alone of 60 rows
    assert first.radius is not None
    assert 0 < first.radius < 0.3  # to where 4.5 t² + 0.01 = 4


def test_training_against_test_inputs() -> None:
    f = squares([1.0, 0.0], [0.0, 1.0])
    easy, hard = normal(300, 2) * torch.tensor([3.0, 1.0]).double(), normal(200, 2, seed=1)
    found = read_inputs(f, inputs(easy, None), inputs(hard, None), prepare(f), 0)
    assert found.comparison is not None
    assert found.comparison.lead.low > 0.6
    assert found.comparison.lead.p < 1e-6
    assert found.comparison.radius is not None
    assert found.comparison.gap is None  # without labels none is measured
    labels = f(hard).argmax(dim=1)
    both = read_inputs(f, inputs(easy, f(easy).argmax(1)), inputs(hard, 1 - labels), None, 0)
    assert both.comparison is not None
    assert both.comparison.radius is None  # that takes the spectra of all pairs
    assert both.comparison.gap is not None
    assert both.comparison.gap.value == 1


def test_an_estimated_gap_is_of_distances_alone() -> None:
    f = squares([1.0, 0.0], [0.0, 1.0])
    near, far = (
        read_rows(f, inputs(rows, None), None, torch.Generator().manual_seed(0))
        for rows in (normal(300, 2), 1.2 * normal(400, 2, seed=1))
    )
    farther = area(far.nearest, near.nearest)
    found = estimated_gap(far, near)
    assert found.value == pytest.approx(2.96 * (farther.value - 0.5))
    assert found.value > 0.1
    assert found.low == pytest.approx(2.96 * (farther.low - 0.5) - 0.038)
    assert found.high == pytest.approx(2.96 * (farther.high - 0.5) + 0.038)
    assert estimated_gap(near, far).value == 0


@pytest.mark.parametrize(
    ("training", "test", "reason", "repeated"),
    [
        (normal(60, 2), None, "training_alone", 0),
        (None, normal(60, 2), "test_alone", 0),
        (normal(60, 2), normal(60, 2)[:40], "same", 40),
        (normal(60, 2), normal(20, 2, seed=1), "few", 0),
        (normal(60, 2), torch.cat([normal(60, 2)[:7], normal(40, 2, seed=1)]), "", 7),
    ],
)
def test_what_cannot_be_compared_is_said(
    training: Tensor | None, test: Tensor | None, reason: str, repeated: int
) -> None:
    given = [None if x is None else inputs(x, None) for x in (training, test)]
    found = read_inputs(squares([1.0, 0.0], [0.0, 1.0]), *given, None, 0)
    assert (found.reason, found.repeated) == (reason, repeated)
    assert (found.comparison is None) == (reason != "")


def test_odd_inputs_leave_no_number_that_is_none() -> None:
    """Constant inputs, one class alone, one row, a model of zeros."""
    for f in (squares([1.0, 0.0], [0.0, 1.0]), squares([0.0, 0.0], [0.0, 0.0])):
        for x in (torch.ones(40, 2), torch.zeros(40, 2), normal(1, 2), normal(40, 2)):
            for labels in (None, torch.zeros(len(x)).long()):
                found = read_inputs(f, inputs(x, labels), inputs(x + 1, labels), prepare(f), 0)
                assert json_text(found)  # NaN and infinity are refused
                if labels is not None:
                    assert found.examples == ()


@pytest.mark.parametrize("labelled", [True, False])
def test_an_audit_reads_training_inputs(labelled: bool) -> None:
    data = LabelledData(DATA.test_images.double(), DATA.test_labels if labelled else None, ORIGIN)
    found = bl.audit(tiny.trained(), data, train_data=DATA, null_samples=tiny.ROTATIONS).record
    assert found.inputs is not None
    assert found.inputs.training is not None
    assert found.inputs.test is not None
    assert (found.inputs.training.rows, found.inputs.test.rows) == (200, 60)
    assert found.inputs.training.accuracy is not None
    assert (found.inputs.test.accuracy is None) is not labelled
    assert found.inputs.comparison is not None
    assert (found.inputs.comparison.gap is None) is not labelled
    assert len(found.inputs.examples) == 8
    page = AuditReport(found).to_html()
    assert ("Measured gap" in page) is labelled
    assert "Looked at: 200 training inputs with labels and 60 test inputs" in page


def test_inputs_beyond_the_range_of_numbers_are_refused() -> None:
    huge = (1e160 * DATA.train_images.double(), DATA.train_labels)
    with pytest.raises(NonFiniteError, match="holds none of the answers"):
        bl.audit(tiny.classifier(), train_data=huge, null_samples=tiny.ROTATIONS)


def test_training_inputs_are_refused_where_they_are_not_read() -> None:
    with pytest.raises(UsageError, match="classifier of one bilinear layer"):
        bl.audit(tiny.classifier(n_layers=2), train_data=DATA)
