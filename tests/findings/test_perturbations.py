"""What an attack asks for and each perturbation, against its definition and single images."""

import pytest
import torch
from torch import Tensor

import tiny
from bilens.base.errors import UsageError
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
    scale_direction,
)
from bilens.nn import BilinearClassifier

DATA = tiny.images()
MEANS = ClassMeans.from_images(DATA.train_images, DATA.train_labels, tiny.CLASSES)
LENGTHS = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)


def objective(target: int = 1, source: int | None = None) -> Objective:
    return objective_of(tiny.trained().quadratic_map().detach(), MEANS, target, source)


def test_masks_have_the_length_asked_for_and_the_sign_that_lowers_more() -> None:
    goal = objective()
    direction = torch.randn(tiny.PIXELS, generator=torch.Generator().manual_seed(0)).double()
    for sign in (1, -1):
        perturbation = scale_direction("random", 1, sign * 3.7 * direction, goal, LENGTHS)
        assert perturbation is not None
        torch.testing.assert_close(perturbation.deltas.norm(dim=1), LENGTHS)
        assert bool((goal.changes(perturbation.deltas) <= goal.changes(-perturbation.deltas)).all())
    assert scale_direction("random", 1, 0 * direction, goal, LENGTHS) is None


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
            perturbation = scale_direction("random", 1, direction, goal, LENGTHS)
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


def mean_margin(
    module: BilinearClassifier, target: int, sources: list[int], delta: Tensor
) -> float:
    """From single images, through the layers of the model."""
    margins = []
    for image, label in zip(DATA.train_images.double(), DATA.train_labels.tolist(), strict=True):
        if label in sources:
            logits = module(image + delta)
            margins.append(float(logits[label] - logits[target]))
    return sum(margins) / len(margins)


@pytest.mark.parametrize("options", [{}, {"bias": True, "residual": True}])
@pytest.mark.parametrize("source", [None, 0, 2])
@torch.no_grad()
def test_the_change_is_that_of_the_images(source: int | None, options: dict[str, bool]) -> None:
    module = tiny.classifier(3, **options)
    goal = objective_of(module.quadratic_map().detach(), MEANS, 1, source)
    delta = torch.randn(tiny.PIXELS, generator=torch.Generator().manual_seed(1)).double()
    sources = [0, 2] if source is None else [source]
    expected = mean_margin(module, 1, sources, delta) - mean_margin(module, 1, sources, 0 * delta)
    (change,) = goal.changes(delta[None]).tolist()
    assert change == pytest.approx(expected, rel=1e-10)
    assert goal.sources == tuple(sources)


@torch.no_grad()
def test_on_some_inputs_it_is_the_same_for_a_change_of_them_alone() -> None:
    goal = objective_of(tiny.classifier().quadratic_map().detach(), MEANS, 0)
    inputs = torch.tensor([1, 5, 30])
    delta = torch.zeros(tiny.PIXELS, dtype=torch.float64)
    delta[inputs] = torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64)
    narrow = goal.on(inputs).changes(delta[None, inputs])
    torch.testing.assert_close(narrow, goal.changes(delta[None]))


def test_class_means_are_those_of_their_images() -> None:
    found = MEANS
    for label in range(tiny.CLASSES):
        own = DATA.train_images[DATA.train_labels == label].double()
        torch.testing.assert_close(found.means[label], own.mean(dim=0))
        assert found.counts[label] == len(own)
    torch.testing.assert_close(found.overall, DATA.train_images.double().mean(dim=0))


@pytest.mark.parametrize(
    ("target", "source", "words"),
    [
        (3, None, "target is 3; the model has classes 0 to 2"),
        (-1, None, "target is -1"),
        (0, 7, "source is 7"),
        (True, None, "target is True"),
        (1, 1, "source and target are both 1"),
    ],
)
def test_a_class_that_cannot_be_attacked_is_named(
    target: int, source: int | None, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        objective_of(tiny.classifier().quadratic_map().detach(), MEANS, target, source)


def test_a_class_without_images_is_named_or_left_out() -> None:
    kept = DATA.train_labels != 2
    some = ClassMeans.from_images(DATA.train_images[kept], DATA.train_labels[kept], tiny.CLASSES)
    f = tiny.classifier().quadratic_map().detach()
    with pytest.raises(UsageError, match="the target class 2 has no inputs"):
        objective_of(f, some, 2)
    with pytest.raises(UsageError, match="the source class 2 has no inputs"):
        objective_of(f, some, 0, 2)
    assert objective_of(f, some, 0).sources == (1,)
    one = ClassMeans.from_images(DATA.train_images[:1], DATA.train_labels[:1], tiny.CLASSES)
    with pytest.raises(UsageError, match="no inputs to make it from but of the target"):
        objective_of(f, one, int(DATA.train_labels[0]))
