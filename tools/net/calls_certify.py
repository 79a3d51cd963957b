"""Calls of `bl.certify`: every public function without parameters is a case."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

import bilens as bl
from tools.net.calls import attempts
from tools.net.inputs import randn, strokes


def _map(name: str = "biased") -> bl.QuadraticMap:
    return bl.load(f"models/{name}").layers["layers.0"].quadratic_map.to(torch.float64).detach()


def _images() -> Any:
    images, labels = strokes(6, 1)
    return images.double(), labels


def _box() -> Any:
    return torch.zeros(36).double(), torch.ones(36).double()


def l2_radius() -> Any:
    """Radii in the Euclidean norm."""
    f = _map()
    images, labels = _images()
    found = bl.certify.l2_radius(f, images, labels, bl.certify.prepare(f))
    radii = torch.tensor([0.0, 0.05, 0.1, 0.5]).double()
    return {
        "radii": found,
        "accuracy": bl.certify.certified_accuracy(found, radii),
        "projected": bl.certify.projected_margin(f, found),
        "spectra": bl.certify.prepare(f).contrast(0, 1),
    }


def linf_radius() -> Any:
    """Radii in the maximum norm."""
    images, labels = _images()
    generator = torch.Generator().manual_seed(1)
    return bl.certify.linf_radius(_map(), images, labels, generator, 2, 5)


def trust_region() -> Any:
    """The problems underneath."""
    values = torch.tensor([[-2.0, 0.5, 1.0]]).double()
    linear = torch.tensor([[0.3, -0.2, 0.1]]).double()
    constant = torch.tensor([-0.4]).double()
    return attempts(
        {
            "region": lambda: bl.certify.solve_trust_region(
                values, linear, torch.tensor([0.7]).double()
            ),
            "quadric": lambda: bl.certify.distance_to_quadric(values, linear, constant),
        }
    )


def universal_perturbation() -> Any:
    """The best mask for the mean margin."""
    mean = randn(36, seed=1)
    return attempts(
        {
            "number": lambda: bl.certify.universal_perturbation(_map(), mean, 0, 1, 0.5),
            "zero": lambda: bl.certify.universal_perturbation(_map(), mean, 2, 1, 0.0),
        }
    )


def truncation() -> Any:
    """Eigenpairs that may be left out."""
    f = _map()
    eig = bl.eigendecompose_all(f, bl.centred_directions(3), k=36)
    x = _images()[0]
    return attempts(
        {
            "error": lambda: bl.certify.truncation_error(eig, 3, 2.0),
            "input": lambda: bl.certify.truncated_input_bound(eig, 3, x),
            "smallest": lambda: bl.certify.smallest_k(eig, 0.5, 2.0),
            "moments": lambda: bl.certify.truncation_moments(
                eig, 3, randn(36, seed=1), torch.eye(36).double()
            ),
            "agreement": lambda: bl.certify.certified_agreement(f, 6, x),
        }
    )


def inputs() -> Any:
    """What inputs can do."""
    f = _map()
    return attempts(
        {
            "influence": lambda: bl.certify.influence_range(f, 3, _box(), 1),
            "removed": lambda: bl.certify.remove_inputs(f, [0, 5], 2.0),
            "removed with moments": lambda: bl.certify.remove_inputs(
                f, [2], 1.0, mean=randn(36, seed=1), covariance=torch.eye(36).double()
            ),
            "unused": lambda: bl.certify.unused_inputs(f),
            "tolerant": lambda: bl.certify.unused_inputs(f, 0.5),
        }
    )


def stability() -> Any:
    """Rounded and changed weights."""
    f, g = _map("one"), _map("changed")
    forms = [h.form(bl.centred_directions(3)[0]) for h in (f, g)]
    kinds: list[Any] = ["bfloat16", "float16", "int8"]
    return attempts(
        {
            **{kind: partial(bl.certify.quantisation_stability, f, kind, k=3) for kind in kinds},
            "spectrum": lambda: bl.certify.spectrum_stability(forms[0], forms[1], 3),
        }
    )


def errors() -> Any:
    """What is refused."""
    f, (x, labels) = _map(), _images()
    return attempts(
        {
            "width": lambda: bl.certify.l2_radius(f, x[:, :5], labels),
            "label": lambda: bl.certify.l2_radius(f, x, labels + 7),
            "radius": lambda: bl.certify.remove_inputs(f, [0], -1.0),
            "input": lambda: bl.certify.influence_range(f, 99, _box(), 0),
            "inputs": lambda: bl.certify.remove_inputs(f, [0, 99], 1.0),
            "target": lambda: bl.certify.universal_perturbation(f, randn(36), 0, 9, 1.0),
        }
    )
