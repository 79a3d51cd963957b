"""Calls of the algebra: every public function without parameters is a case."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

import bilens as bl
from tools.net.calls import attempts
from tools.net.inputs import randn


def _map(name: str = "one", layer: str = "layers.0") -> bl.QuadraticMap:
    return bl.load(f"models/{name}").layers[layer].quadratic_map.to(torch.float64).detach()


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def quadratic_map() -> Any:
    """A map, what it makes of inputs, and its tensor."""
    f, x = _map("biased"), randn(5, 36, seed=1)
    tensor = f.tensor
    moved = f.plus_affine(constant=torch.ones(3, dtype=torch.float64))
    return {
        "map": f,
        "values": f(x),
        "sum": (f + moved)(x),
        "input": f.compose_input(randn(36, 4, seed=2))(randn(5, 4, seed=3)),
        "output": f.compose_output(randn(2, 3, seed=4))(x),
        "gram": tensor.gram(),
        "norm": tensor.norm(),
        "traces": tensor.traces(),
        "dense": tensor.dense(),
        "inner": tensor.inner(_map().tensor),
    }


def quadratic_form() -> Any:
    """One output as a form."""
    f = _map("biased")
    form, other = f.form(bl.contrast_direction(3, 0, 2)), f.form(bl.raw_directions(3)[1])
    return {
        "form": form,
        "values": form(randn(4, 36, seed=1)),
        "product": form.matvec(randn(2, 36, seed=2)),
        "trace": form.trace(),
        "norm": form.norm(),
        "inner": form.inner(other),
        "dense": form.dense(),
    }


def directions() -> Any:
    """Output directions."""
    return [bl.centred_directions(4), bl.raw_directions(3), bl.contrast_direction(5, 1, 3)]


def eigendecompose() -> Any:
    """Each solver and each choice of pairs."""
    form = _map().form(bl.centred_directions(3)[1])
    methods: list[Any] = ["auto", "dense", "lanczos", "factored"]
    kinds: list[Any] = ["magnitude", "largest", "smallest", "both"]
    return {
        **{name: bl.eigendecompose(form, 4, method=name) for name in methods},
        **{name: bl.eigendecompose(form, 4, which=name) for name in kinds},
        "whole": bl.eigendecompose(form),
    }


def eigendecompose_all() -> Any:
    """All outputs at once, and what can be asked of the result."""
    f = _map("biased")
    eig = bl.eigendecompose_all(f, bl.centred_directions(3), k=5)
    contributions = eig.contributions(randn(3, 36, seed=1))
    return {
        "eig": eig,
        "contributions": contributions,
        "total": contributions.total(),
        "truncated": eig[1].truncate(2),
        "map": eig.truncate_map(2)(randn(3, 36, seed=1)),
        "subspaces": eig[1].subspaces(),
        "rank": bl.effective_rank(eig.eigenvalues),
        "localisation": bl.localisation(eig.eigenvectors),
    }


def plan_eigendecomposition() -> Any:
    """What would be done."""
    return [bl.plan_eigendecomposition(_map(name), k=3) for name in ("one", "wide")]


def rotation_null() -> Any:
    """The level of chance."""
    null = bl.rotation_null(_map(), bl.centred_directions(3), _generator(), num_samples=39)
    low, high = torch.tensor([-1.0, -2, -3]).double(), torch.tensor([1.0, 2, 3]).double()
    return {"null": null, "edges": null.edges(), "p": null.p_values(low, high)}


def hosvd() -> Any:
    """Singular directions of both modes."""
    found = bl.hosvd(_map(), rank=3)
    return {
        "hosvd": found,
        "form": found.form(1).dense(),
        "core": found.core(2, 3),
        "truncated": found.truncate(2, 2)(randn(3, 36, seed=1)),
        "error": found.truncation_error(2, 2),
    }


def cp_decompose() -> Any:
    """Components of a small map."""
    f = _map("layer", "layer")
    found = bl.cp_decompose(f, 3, seed=1)
    symmetric = bl.cp_decompose(f, 2, model="symmetric", method="gradient", num_starts=2)
    return {
        "pairs": found,
        "eigenpairs": found.eigenpairs(),
        "map": found.quadratic_map()(randn(2, 5, seed=1)),
        "symmetric": symmetric,
    }


def similarity() -> Any:
    """Two maps beside each other."""
    f, g = _map("one"), _map("changed")
    return {"same": bl.similarity(f, f), "other": bl.similarity(f, g)}


def match_eigenvectors() -> Any:
    """Eigenvectors of two models."""
    first, second = (bl.eigendecompose_all(_map(name), k=3)[0] for name in ("one", "changed"))
    methods: list[Any] = ["assignment", "subspace"]
    return attempts(
        {
            name: partial(bl.match_eigenvectors, first, second, _generator(), method=name, k=2)
            for name in methods
        }
    )


def attribute() -> Any:
    """Single predictions taken apart."""
    f, x = _map("biased"), randn(2, 36, seed=1)
    return {
        "zeros": bl.attribute(f, x),
        "baseline": bl.attribute(f, x, randn(36, seed=2)),
        "background": bl.attribute_to_background(f, x, randn(36, seed=2), torch.eye(36).double()),
        "pairs": bl.pairwise_interactions(f.form(bl.raw_directions(3)[0]), x[0]),
        "top": bl.top_interactions(f.form(bl.raw_directions(3)[0]), x[0], 4),
    }


def moments() -> Any:
    """Gaussian inputs."""
    f, root = _map("layer", "layer"), randn(5, 5, seed=1)
    activations = [bl.Activation("gelu"), bl.Activation("relu"), bl.Activation("leaky_relu", 0.2)]
    means, deviations = randn(4, seed=2), randn(4, seed=3).abs()
    return {
        "map": bl.gaussian_moments(f, randn(5, seed=2), root @ root.T),
        "whitened": bl.whiten(f, root @ root.T, randn(5, seed=2)),
        "activations": [bl.activation_moments(one, means, deviations) for one in activations],
    }


def dictionary() -> Any:
    """Directions of a dictionary, as sparse autoencoders have them."""
    f, features = _map("layer", "layer"), randn(5, 7, seed=1)
    f = bl.QuadraticMap(f.tensor)
    return {
        "direct": bl.direct_interactions(f, features),
        "submatrix": bl.interaction_submatrix(f, features, randn(4, seed=2), [0, 3, 5]),
        "dual": bl.dual_expression(f, randn(3, 4, seed=3)),
        "interaction": bl.InteractionMatrix(randn(3, 4), randn(3, 4, seed=1), randn(3, seed=2)),
    }


def quantise() -> Any:
    """Numbers of fewer bits."""
    kinds: list[Any] = ["bfloat16", "float16", "int8", "int4"]
    return attempts({kind: partial(bl.quantise, _map(), kind) for kind in kinds})


def quadratic_fit() -> Any:
    """The closest quadratic maps of layers that are not quadratic."""
    gelu, silu = bl.Activation("gelu"), bl.Activation("silu")
    mlp = bl.MLPWeights(randn(3, 6), randn(6, 4, seed=1), gelu, randn(6, seed=2))
    glu = bl.GLUWeights(randn(3, 6), randn(6, 4, seed=1), randn(6, 4, seed=2), silu)
    root = randn(4, 4, seed=3)
    return {
        "mlp": bl.quadratic_fit(mlp, seed=_generator(), samples=500),
        "glu": bl.quadratic_fit(glu, randn(4, seed=4), root @ root.T, seed=_generator()),
        "data": bl.quadratic_fit(mlp, data=randn(300, 4, seed=5), seed=_generator()),
        "gated": bl.quadratic_fit(bl.load("models/deep_gated"), seed=_generator()),
    }


def errors() -> Any:
    """What is refused, and with which sentence."""
    f = _map()
    bad: Any = "x"
    return attempts(
        {
            "k": lambda: bl.eigendecompose_all(f, k=0),
            "method": lambda: bl.eigendecompose_all(f, method=bad),
            "width": lambda: f(torch.zeros(2, 35).double()),
            "dtype": lambda: f(torch.zeros(2, 36)),
            "contrast": lambda: bl.contrast_direction(3, 1, 1),
            "factors": lambda: bl.BilinearTensor(randn(2, 3), randn(4, 5), randn(3, 5)),
            "nan": lambda: bl.BilinearTensor(randn(2, 3) * torch.nan, randn(3, 5), randn(3, 5)),
            "activation": lambda: bl.Activation(bad),
            "rank": lambda: bl.cp_decompose(f, 0),
            "covariance": lambda: bl.whiten(f, -torch.eye(36).double()),
            "samples": lambda: bl.rotation_null(f, bl.raw_directions(3), _generator(), 3),
            "baseline": lambda: bl.attribute(f, torch.zeros(36).double(), torch.zeros(3).double()),
            "quantise": lambda: bl.quantise(f, bad),
            "dense": lambda: _map("enlarged").tensor.dense(),
        }
    )
