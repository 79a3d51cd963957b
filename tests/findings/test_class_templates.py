"""Templates of classes: what a trained model's own classes look like, without data."""

import math

import pytest
import torch

import tiny
from bilens.algebra.directions import centred_directions
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.findings.audit import class_centred
from bilens.findings.overfitting import class_templates, gaussian_blob, gradients, moved
from builders import randn


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
    model = tiny.classifier(bias=True)
    f = model.quadratic_map().detach()
    with torch.no_grad():
        f.tensor.down.zero_()
    centred = f.compose_output(centred_directions(3))
    assert centred.linear is not None
    templates = class_templates(eigendecompose_all(centred, k=None))
    expected = centred.linear.clamp(min=0)
    assert torch.allclose(templates, expected / expected.norm(dim=1, keepdim=True))


def test_nothing_speaks_for_a_class_of_zeros() -> None:
    model = tiny.classifier()
    with torch.no_grad():
        model.head.weight.zero_()
    assert not class_templates(class_centred(model)).any()


def test_a_spot_is_round_and_in_the_middle() -> None:
    blob = gaussian_blob((8, 4)).reshape(8, 4)
    assert torch.allclose(blob, blob.flip(0))
    assert torch.allclose(blob, blob.flip(1))
    assert float(blob.norm()) == pytest.approx(1)
    assert float(blob[3, 1] / blob[1, 1]) == pytest.approx(math.exp(8 * (2.5**2 - 0.5**2) / 64))


def test_templates_are_moved_a_tenth_of_a_side_to_each_of_four_sides() -> None:
    shape = (28, 12)  # three rows, one column
    templates = torch.zeros(2, *shape, dtype=torch.float64)
    templates[0, 10, 5], templates[0, 1, 5] = 0.8, 0.6  # the second is lost on the way up
    found = moved(templates.flatten(1), shape).reshape(4, 2, *shape)
    assert found[0, 0].nonzero().tolist() == [[7, 5]]
    assert found[1, 0].nonzero().tolist() == [[4, 5], [13, 5]]
    assert found[2, 0].nonzero().tolist() == [[1, 4], [10, 4]]
    assert found[3, 0].nonzero().tolist() == [[1, 6], [10, 6]]
    assert torch.allclose(found[:, 0].flatten(1).norm(dim=1), torch.ones(4).double())
    assert not found[:, 1].any()


def test_gradients_are_those_of_autograd() -> None:
    f = tiny.classifier(bias=True, residual=True).quadratic_map().detach()
    x = randn(4, tiny.PIXELS, seed=5)
    for point, slopes in zip(x, gradients(f, x), strict=True):
        expected = torch.autograd.functional.jacobian(f, point)
        assert torch.allclose(slopes, expected)
