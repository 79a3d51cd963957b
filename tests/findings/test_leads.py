"""Templates, leads between classes, and the patterns that raise them most.

Damage seen to fail: the bend left out, a pattern of a band not brought back to pixels, shares of
all sources instead of the harder ones, slopes of the class itself among those of the others.
"""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import tiny
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.directions import centred_directions
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.findings.exact_classifier import class_centred
from bilens.findings.leads import (
    FineBand,
    Leads,
    best_patterns,
    class_templates,
    gradients,
    usual_length,
)
from bilens.findings.subject import gauge_free, in_float64
from bilens.nn import BilinearClassifier
from builders import randn

SHAPE, WIDTH, CLASSES = (5, 6), 30, 4


def leads_of(f: QuadraticMap, shape: tuple[int, int] = SHAPE) -> Leads:
    """Return the leads of a map that is class-centred."""
    eigs = eigendecompose_all(f)
    return Leads(f, eigs, class_templates(eigs), shape)


def random_leads(seed: int = 0, classes: int = CLASSES, hidden: int = 9) -> Leads:
    down = randn(classes, hidden, seed=seed)
    branches = randn(hidden, WIDTH, seed=seed + 1), randn(hidden, WIDTH, seed=seed + 2)
    linear = randn(classes, WIDTH, seed=seed + 3)
    tensor = BilinearTensor(down - down.mean(dim=0), *branches)
    return leads_of(QuadraticMap(tensor, linear=linear - linear.mean(dim=0)))


def mean_lead(leads: Leads, target: int, pattern: Tensor) -> float:
    """Return what a pattern adds to the lead of a class, from outputs and nothing else."""
    images = usual_length(WIDTH) * leads.templates
    added = leads.f(images + pattern) - leads.f(images)
    others = [s for s in range(len(images)) if s != target]
    return sum(float(added[s, target] - added[s, s]) for s in others) / len(others)


def test_the_templates_of_a_trained_model_look_like_its_classes() -> None:
    data = tiny.images()
    templates = class_templates(class_centred(tiny.trained()))
    assert templates.shape == (tiny.CLASSES, tiny.PIXELS)
    assert bool((templates >= 0).all())
    assert torch.allclose(templates.norm(dim=1), torch.ones(3).double())
    means = torch.stack([data.train_images[data.train_labels == c].mean(dim=0) for c in range(3)])
    contrast = (means - means.mean(dim=0)).double()
    assert (templates @ contrast.T).argmax(dim=1).tolist() == [0, 1, 2]


def test_a_linear_term_alone_is_the_template_where_it_is_positive() -> None:
    f = tiny.classifier(bias=True).quadratic_map().detach()
    with torch.no_grad():
        f.tensor.down.zero_()
    centred = f.compose_output(centred_directions(3))
    assert centred.linear is not None
    expected = centred.linear.clamp(min=0)
    templates = class_templates(eigendecompose_all(centred, k=None))
    assert torch.allclose(templates, expected / expected.norm(dim=1, keepdim=True))


def test_a_class_that_nothing_speaks_for_has_no_template() -> None:
    """q₀ = −(x₀ + x₁)² and q₁ = −q₀: the first has no eigenvalue above zero."""
    row = torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64)
    tensor = BilinearTensor(torch.tensor([[-1.0], [1.0]], dtype=torch.float64), row, row)
    found = class_templates(eigendecompose_all(QuadraticMap(tensor)))
    assert not found[0].any()
    assert found[1].tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0.0], abs=1e-12)


def test_gradients_are_those_of_autograd() -> None:
    f = tiny.classifier(bias=True, residual=True).quadratic_map().detach()
    x = randn(4, tiny.PIXELS, seed=5)
    for point, slopes in zip(x, gradients(f, x), strict=True):
        assert torch.allclose(slopes, torch.autograd.functional.jacobian(f, point))


def test_a_gain_is_what_the_model_itself_answers_more() -> None:
    model: BilinearClassifier = tiny.classifier(bias=True, residual=True)
    leads = leads_of(gauge_free(model.quadratic_map().detach()), (tiny.SIDE, tiny.SIDE))
    pattern, images = randn(tiny.PIXELS, seed=4), leads.images
    with torch.no_grad():
        change = in_float64(model)(images + pattern) - in_float64(model)(images)
    expected = change - change.diagonal()[:, None]
    torch.testing.assert_close(leads.gains(pattern), expected)


def test_the_mean_gain_is_a_form_of_the_pattern() -> None:
    leads, pattern = random_leads(), randn(WIDTH, seed=9)
    forms = QuadraticMap(leads.f.tensor)(pattern[None])[0]
    for target in range(CLASSES):
        form = leads.mean_slopes[target] @ pattern + leads.bend * forms[target]
        assert float(form) == pytest.approx(mean_lead(leads, target, pattern))
        mine = leads.gains(pattern)[leads.is_rival[:, target], target]
        assert float(mine.mean()) == pytest.approx(mean_lead(leads, target, pattern))


def climbed(leads: Leads, target: int, length: float, band: FineBand | None) -> float:
    """Return the largest mean lead that 300 steps up its slope find, from many starts."""
    patterns = randn(40, WIDTH, seed=target)
    form = QuadraticMap(leads.f.tensor)
    value = torch.zeros(40)
    for _ in range(300):
        bent = leads.bend * gradients(form, patterns)[:, target]
        patterns = patterns + 0.02 * (leads.mean_slopes[target] + bent)
        if band is not None:
            patterns = band.images(band.coefficients(patterns))
        patterns = length * functional.normalize(patterns, dim=1)
        value = patterns @ leads.mean_slopes[target] + leads.bend * form(patterns)[:, target]
    return float(value.max())


@pytest.mark.parametrize("band", [None, FineBand(SHAPE, 3)])
@pytest.mark.parametrize("hidden", [3, 40])  # fewer and more products than inputs
def test_no_climb_beats_the_best_pattern(hidden: int, band: FineBand | None) -> None:
    leads = random_leads(hidden=hidden)
    lengths = 0.3, 2.0
    for length, patterns in zip(lengths, best_patterns(leads, lengths, band), strict=True):
        assert torch.allclose(patterns.norm(dim=1), torch.full((CLASSES,), length).double())
        for target in range(CLASSES):
            best = mean_lead(leads, target, patterns[target])
            assert best == pytest.approx(climbed(leads, target, length, band), rel=1e-4)


def test_where_every_pattern_costs_the_best_is_the_cheapest() -> None:
    """A form below zero in all directions: none of the space beside its eigenvectors is left."""
    rows = torch.eye(WIDTH, dtype=torch.float64)
    down = -torch.linspace(1, 2, WIDTH, dtype=torch.float64).expand(2, WIDTH)
    down = down * torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    linear = 0.1 * randn(2, WIDTH)
    leads = leads_of(QuadraticMap(BilinearTensor(down, rows, rows), linear - linear.mean(dim=0)))
    (pattern,) = best_patterns(leads, [0.01])
    assert mean_lead(leads, 0, pattern[0]) == pytest.approx(climbed(leads, 0, 0.01, None), rel=1e-3)


def test_a_band_holds_what_flips_often_and_nothing_else() -> None:
    band, images = FineBand((8, 8), 3), randn(5, 64)
    inside = band.images(band.coefficients(images))
    torch.testing.assert_close(band.images(band.coefficients(inside)), inside)
    assert float((inside * (images - inside)).sum(dim=1).abs().max()) < 1e-12
    steps = torch.arange(8, dtype=torch.float64)
    for waves, share in ((0, 0.0), (2, 0.0), (3, 1.0), (7, 1.0)):
        wave = torch.cos(torch.pi * waves * (steps + 0.5) / 8).expand(8, 8).flatten()
        assert float(band.coefficients(wave).norm() / wave.norm()) == pytest.approx(
            share, abs=1e-12
        )


def test_the_share_won_is_that_from_the_harder_sources() -> None:
    """f_t = a_t·x, one input a class: the pattern of t adds its steps to its own input."""
    classes = 6
    rows = torch.eye(classes, dtype=torch.float64)
    f = QuadraticMap(BilinearTensor(torch.zeros(classes, 1).double(), rows[:1], rows[:1]), rows)
    needs = torch.tensor([1.0, 2.0, 4.0, 5.0, 8.0, 10.0], dtype=torch.float64)
    leads = Leads(f, eigendecompose_all(f), rows, (1, classes))
    leads.__dict__["needs"] = needs[:, None].expand(classes, classes)  # what s leads every t by
    won = leads.shares_won(2.0 * rows)
    # of five others, sorted: one is harder than the second-smallest share
    assert won.tolist() == pytest.approx([2 / 8, 2 / 8, 2 / 8, 2 / 8, 2 / 5, 2 / 5])


def test_with_many_classes_some_of_them_lend_their_templates() -> None:
    leads = random_leads(classes=40)
    assert leads.sources.tolist() == list(range(0, 40, 2))
    assert leads.slopes.shape == (20, 40, WIDTH)
    mine = leads.slopes[leads.is_rival[:, 7], 7].mean(dim=0)
    torch.testing.assert_close(leads.mean_slopes[7], mine)
    even = leads.slopes[leads.is_rival[:, 8], 8]
    assert len(even) == 19
    torch.testing.assert_close(leads.mean_slopes[8], even.mean(dim=0))
