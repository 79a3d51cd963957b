"""Templates of classes: what a trained model's own classes look like, without data.

Broken once: eigenvectors not turned upright; the template of a level stroke was empty there.
"""

from __future__ import annotations

import torch

import tiny
from bilens.algebra.directions import centred_directions
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.findings.audit import class_centred
from bilens.findings.templates import class_templates, gradients
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


def test_gradients_are_those_of_autograd() -> None:
    f = tiny.classifier(bias=True, residual=True).quadratic_map().detach()
    x = randn(4, tiny.PIXELS, seed=5)
    for point, slopes in zip(x, gradients(f, x), strict=True):
        expected = torch.autograd.functional.jacobian(f, point)
        assert torch.allclose(slopes, expected)
