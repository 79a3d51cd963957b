"""What each perturbation is made of, against its definition."""

import pytest
import torch

import tiny
from bilens.findings.perturbations import (
    USED,
    ClassMeans,
    Objective,
    at_edge,
    mean_difference,
    objective_of,
    only,
    optimum,
    pixel_space_keys,
    projected_gradient,
    published_keys,
    random_phases,
    scaled,
)

DATA = tiny.images()
MEANS = ClassMeans.of(DATA.train_images, DATA.train_labels, tiny.CLASSES)
LENGTHS = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)


def objective(target: int = 1, source: int | None = None) -> Objective:
    return objective_of(tiny.trained().quadratic_map().detach(), MEANS, target, source)


def test_masks_have_the_length_asked_for_and_the_sign_that_lowers_more() -> None:
    goal = objective()
    direction = torch.randn(tiny.PIXELS, generator=torch.Generator().manual_seed(0)).double()
    for sign in (1, -1):
        perturbation = scaled("random", 1, sign * 3.7 * direction, goal, LENGTHS)
        assert perturbation is not None
        torch.testing.assert_close(perturbation.deltas.norm(dim=1), LENGTHS)
        assert bool((goal.changes(perturbation.deltas) <= goal.changes(-perturbation.deltas)).all())
    assert scaled("random", 1, 0 * direction, goal, LENGTHS) is None


def test_published_keys_are_the_papers_construction() -> None:
    module = tiny.classifier(d_hidden=40)
    f = module.quadratic_map("embedding")
    rows = []
    for direction in torch.eye(tiny.CLASSES, dtype=torch.float64):
        values, vectors = torch.linalg.eigh(f.form(direction).dense())
        rows += [vectors[:, -1 - rank] for rank in range(10)]  # the 10 most positive
        assert values[-1] > values[-10]
    inverse = torch.linalg.pinv(torch.stack(rows))  # (hidden, 30)
    for c in range(tiny.CLASSES):
        for rank in range(USED):
            expected = inverse[:, 10 * c + rank] @ module.embed.weight
            found = published_keys(module)[c, rank]
            sign = torch.sign(found @ expected)
            torch.testing.assert_close(found, sign * expected)


@torch.no_grad()
def test_mended_keys_answer_their_own_eigenvector_alone() -> None:
    module = tiny.classifier(d_hidden=36)
    keys = pixel_space_keys(module)  # 30 vectors of 36 pixels, in general position
    f = module.quadratic_map()
    for c in range(tiny.CLASSES):
        centred = torch.eye(tiny.CLASSES).double()[c] - 1 / tiny.CLASSES
        vectors = torch.linalg.eigh(f.form(centred).dense()).eigenvectors.T.flip(0)[:10]
        for other in range(tiny.CLASSES):
            for rank in range(USED):
                expected = torch.zeros(10, dtype=torch.float64)
                if other == c:
                    expected[rank] = 1.0
                torch.testing.assert_close(
                    (vectors @ keys[other, rank]).abs(), expected, atol=1e-8, rtol=0
                )


def test_keys_of_a_model_with_few_directions() -> None:
    narrow = tiny.classifier(d_hidden=2)
    assert published_keys(narrow).shape == (tiny.CLASSES, 2, tiny.PIXELS)
    assert bool(torch.isfinite(pixel_space_keys(narrow)).all())


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (1, 36), (5, 5)])
def test_random_phases_keep_spectrum_and_length_and_are_real(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(4)
    perturbation = torch.randn(shape, generator=generator, dtype=torch.float64).flatten()
    found = random_phases(perturbation, shape, generator)
    assert float(found.norm()) == pytest.approx(float(perturbation.norm()), rel=1e-12)
    torch.testing.assert_close(
        torch.fft.fft2(found.reshape(shape)).abs(),
        torch.fft.fft2(perturbation.reshape(shape)).abs(),
    )
    assert abs(float(found @ perturbation)) < 0.9 * float(
        perturbation @ perturbation
    )  # another image
    assert not torch.equal(found, random_phases(perturbation, shape, generator))


def test_the_difference_of_means() -> None:
    image, label = DATA.train_images.double(), DATA.train_labels
    expected = image[label == 1].mean(dim=0) - image[label != 1].mean(dim=0)
    torch.testing.assert_close(mean_difference(MEANS, objective()), expected)


def test_edge_pixels_are_the_dark_ones() -> None:
    edge = at_edge(torch.tensor([0.0, 0.009, 0.01, 0.5]))
    assert edge.tolist() == [0, 1]
    assert only(torch.tensor([1.0, 2.0, 3.0, 4.0]), edge).tolist() == [1.0, 2.0, 0.0, 0.0]


@pytest.mark.parametrize("source", [None, 0])
@torch.no_grad()
def test_no_mask_lowers_the_mean_margin_more_than_the_optimal_one(source: int | None) -> None:
    """Random directions, and descents that come close from above."""
    goal, generator = objective(1, source), torch.Generator().manual_seed(2)
    edge = torch.arange(10)
    for inputs in (None, edge):
        best = optimum(goal, LENGTHS, inputs)
        change = goal.changes(best.perturbation.deltas)
        assert bool((best.lower <= change).all())
        assert float(change[0]) == 0.0
        assert bool((best.perturbation.deltas.norm(dim=1) <= LENGTHS).all())
        for _ in range(200):
            noise = torch.randn(tiny.PIXELS, generator=generator).double()
            direction = noise if inputs is None else only(noise, inputs)
            perturbation = scaled("random", 1, direction, goal, LENGTHS)
            assert perturbation is not None
            assert bool((goal.changes(perturbation.deltas) >= best.lower).all())
        if inputs is not None:
            assert bool((best.perturbation.deltas[:, 10:] == 0).all())
    descent = goal.changes(projected_gradient(goal, LENGTHS, generator, 3))
    change = goal.changes(optimum(goal, LENGTHS).perturbation.deltas)
    assert bool((descent >= change - 1e-9 * change.abs()).all())
    assert bool((descent <= (1 - 1e-4) * change).all())  # two ways to the same optimum


def test_descents_stay_within_the_length_and_repeat_with_their_seed() -> None:
    first, second = (
        projected_gradient(objective(), LENGTHS, torch.Generator().manual_seed(7), 2)
        for _ in range(2)
    )
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert bool((first.norm(dim=1) <= LENGTHS * (1 + 1e-12)).all())
