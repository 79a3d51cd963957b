"""The mean margin against the model's own forward pass; refusals name the class."""

import pytest
import torch
from torch import Tensor

import tiny
from bilens.base.errors import UsageError
from bilens.findings.perturbations import ClassMeans, objective_of
from bilens.nn import BilinearClassifier

DATA = tiny.images()


def means() -> ClassMeans:
    return ClassMeans.of(DATA.train_images, DATA.train_labels, tiny.CLASSES)


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
    objective = objective_of(module.quadratic_map().detach(), means(), 1, source)
    delta = torch.randn(tiny.PIXELS, generator=torch.Generator().manual_seed(1)).double()
    sources = [0, 2] if source is None else [source]
    expected = mean_margin(module, 1, sources, delta) - mean_margin(module, 1, sources, 0 * delta)
    (change,) = objective.changes(delta[None]).tolist()
    assert change == pytest.approx(expected, rel=1e-10)
    assert objective.sources == tuple(sources)


@torch.no_grad()
def test_on_some_inputs_it_is_the_same_for_a_change_of_them_alone() -> None:
    objective = objective_of(tiny.classifier().quadratic_map().detach(), means(), 0)
    inputs = torch.tensor([1, 5, 30])
    delta = torch.zeros(tiny.PIXELS, dtype=torch.float64)
    delta[inputs] = torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64)
    narrow = objective.on(inputs).changes(delta[None, inputs])
    torch.testing.assert_close(narrow, objective.changes(delta[None]))


def test_class_means_are_those_of_their_images() -> None:
    found = means()
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
        objective_of(tiny.classifier().quadratic_map().detach(), means(), target, source)


def test_a_class_without_images_is_named_or_left_out() -> None:
    kept = DATA.train_labels != 2
    some = ClassMeans.of(DATA.train_images[kept], DATA.train_labels[kept], tiny.CLASSES)
    f = tiny.classifier().quadratic_map().detach()
    with pytest.raises(UsageError, match="the target class 2 has no training images"):
        objective_of(f, some, 2)
    with pytest.raises(UsageError, match="the source class 2 has no training images"):
        objective_of(f, some, 0, 2)
    assert objective_of(f, some, 0).sources == (1,)
    one = ClassMeans.of(DATA.train_images[:1], DATA.train_labels[:1], tiny.CLASSES)
    with pytest.raises(UsageError, match="no training images of any class but the target"):
        objective_of(f, one, int(DATA.train_labels[0]))
