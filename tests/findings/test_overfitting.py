"""Overfitting: templates, each reading against a dense twin, and what the score does with them."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

import tiny
from bilens.algebra.directions import centred_directions
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.rotation_null import rotation_null
from bilens.findings.audit import centred_map, class_centred, read_warnings, rotated_maps
from bilens.findings.overfitting import (
    FORMULA,
    LEADING,
    Subject,
    class_templates,
    gaussian_blob,
    gradients,
    moved,
    nearly_constant,
    null_readings,
    read_overfitting,
    readings,
    usual_length,
)
from bilens.findings.subject import in_float64
from bilens.nn import BilinearClassifier
from bilens.records.audit import Overfitting
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


SHAPE = (tiny.SIDE, tiny.SIDE)


def subject(model: BilinearClassifier, shape: tuple[int, int] = SHAPE) -> Subject:
    eigs = class_centred(model)
    inside = torch.zeros_like(eigs.eigenvalues, dtype=torch.bool)
    return Subject(centred_map(model), eigs, inside, class_templates(eigs), shape)


def own_readings(model: BilinearClassifier, images: Tensor | None = None) -> dict[str, float]:
    one = subject(model)
    return readings(one, one.f, one.eigs.eigenvectors[:, :LEADING], images)


def test_masses_are_shares_of_the_dense_tensor() -> None:
    model = tiny.trained()
    dense = centred_map(model).tensor.dense()
    energy = dense.square().sum(dim=(0, 1)).reshape(SHAPE)
    images = tiny.images().train_images.clone()
    images[:, 7] = 0.5
    found = own_readings(model, images)
    inner = energy[1:-1, 1:-1].sum() / energy.sum()
    assert found["edge_mass"] == pytest.approx(1 - float(inner))
    assert nearly_constant(images).nonzero().tolist() == [[7]]
    assert found["constant_mass"] == pytest.approx(float(energy.flatten()[7] / energy.sum()))


def test_steepness_is_the_slope_of_leads_at_a_spot_of_ink() -> None:
    model = tiny.trained()
    point = usual_length(tiny.PIXELS) * gaussian_blob(SHAPE)
    jacobian = torch.autograd.functional.jacobian(in_float64(model), point).detach()
    slopes = [
        float((jacobian[first] - jacobian[second]).norm())
        for first, second in ((0, 1), (0, 2), (1, 2))
    ]
    assert own_readings(model)["steepness"] == pytest.approx(sorted(slopes)[1])


def test_shift_tolerance_is_the_share_of_shifted_templates_that_are_recognised() -> None:
    model = in_float64(tiny.trained())
    images = class_templates(class_centred(model)).reshape(-1, *SHAPE)
    right = []
    for label, image in enumerate(images):
        padded = torch.nn.functional.pad(image, (1, 1, 1, 1))
        for row, column in ((0, 1), (2, 1), (1, 0), (1, 2)):
            part = padded[row : row + tiny.SIDE, column : column + tiny.SIDE].flatten()
            right.append(int(model(part / part.norm()).argmax()) == label)
    found = own_readings(model)["shift_tolerance"]
    assert found == pytest.approx(sum(right) / len(right))
    assert 0 < found < 1


def test_a_model_of_one_pixel_is_localised_and_one_of_a_flat_image_is_not() -> None:
    pixel = [0.0] * tiny.PIXELS
    pixel[14] = 1.0
    flat = [1 / 6] * tiny.PIXELS
    for pattern, localised in ((pixel, 1.0), (flat, 1 / tiny.PIXELS)):
        model = tiny.planted([(pattern, pattern, [1.0, -1.0, 0.0])], tiny.PIXELS)
        first = subject(model).eigs.eigenvectors[:2, :1]
        one = subject(model)
        found = readings(one, one.f, first, None)
        assert found["localisation"] == pytest.approx(localised)
        assert found["edge_mass"] == pytest.approx(0 if localised == 1 else 20 / 36)


def test_every_reading_stands_beside_chance_and_a_trained_model_is_beyond_it() -> None:
    model = tiny.trained()
    one = subject(model)
    generator = torch.Generator().manual_seed(0)
    null = [
        null_readings(one, rotated, place % tiny.CLASSES, None)
        for place, rotated in enumerate(rotated_maps(model, tiny.ROTATIONS, generator))
    ]
    found = read_overfitting(one, null)
    names = [part.name for part in found.parts]
    assert names == [
        *("localisation", "edge_mass", "roughness", "steepness", "shift_tolerance", "tail_mass")
    ]
    for part in found.parts[:-1]:
        assert part.null_interval is not None
        assert part.null_interval.low <= part.null_interval.median <= part.null_interval.high
    steep = found.parts[3]
    assert steep.null_interval is not None
    assert steep.value > steep.null_interval.high
    assert found.score == FORMULA.gap({part.name: part.value for part in found.parts})


def read(model: BilinearClassifier, shape: tuple[int, int] = SHAPE) -> Overfitting:
    eigs = class_centred(model)
    generator = torch.Generator().manual_seed(0)
    null = rotation_null(
        model.quadratic_map("embedding"),
        centred_directions(tiny.CLASSES),
        generator,
        tiny.ROTATIONS,
        embedding=model.embed.weight,
    )
    return read_warnings(model, eigs, null, shape, None, 0)[0]


def test_the_tail_is_what_the_edges_of_chance_hold() -> None:
    model = tiny.trained()
    one = subject(model)
    everything = dataclasses.replace(one, within_null=torch.ones_like(one.within_null))
    null = [null_readings(one, one.f, 0, None)] * tiny.ROTATIONS
    for item, expected in ((one, 0.0), (everything, 1.0)):
        tail = read_overfitting(item, null).parts[-1]
        assert (tail.name, tail.value, tail.null_interval) == (
            "tail_mass",
            pytest.approx(expected),
            None,
        )
    found = read(model).parts[-1].value
    assert 0 < found < 0.5
    assert found < read(tiny.classifier()).parts[-1].value


def test_inputs_in_a_row_have_readings_and_no_score() -> None:
    found = read(tiny.trained(), (1, tiny.PIXELS))
    assert [part.name for part in found.parts] == ["localisation", "tail_mass"]
    assert (found.score, found.threshold, found.reason) == (None, None, "not_an_image")


def test_a_tiny_image_has_readings_and_no_score() -> None:
    found = read(tiny.classifier(d_input=9), (3, 3))
    assert len(found.parts) == 6
    assert (found.score, found.reason) == (None, "too_small")


def gap(**changes: float) -> float:
    middle = {"steepness": 10.0, "edge_mass": 0.03, "roughness": 0.4, "shift_tolerance": 0.3}
    return FORMULA.gap({**middle, **changes})


def test_the_score_rises_and_falls_with_the_readings_and_is_never_negative() -> None:
    assert gap(steepness=100.0) > gap() > 0
    assert gap(roughness=0.5) > gap() > gap(shift_tolerance=0.5)
    assert gap(edge_mass=0.01) > gap() > gap(edge_mass=0.1)
    assert gap(steepness=0.0) == 0
    assert gap(steepness=1e300, edge_mass=0.0, roughness=1.4) < 10


def test_a_map_of_zeros_has_a_gap_of_zero() -> None:
    model = tiny.classifier()
    with torch.no_grad():
        model.head.weight.zero_()
    found = read(model)
    assert found.score == 0
    values = {part.name: part.value for part in found.parts}
    assert values["steepness"] == values["shift_tolerance"] == values["edge_mass"] == 0
