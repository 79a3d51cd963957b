"""Calls of `bl.nn`, `bl.load`, `bl.save`, `bl.from_module` and `bl.sklearn`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import bilens as bl
from tools.net.calls import attempts
from tools.net.inputs import autoencoder, classifier, randn, seeded, strokes, transformer


def load() -> Any:
    """Every model folder."""
    return attempts(
        {path.name: partial(bl.load, path) for path in sorted(Path("models").iterdir())}
    )


def refused() -> Any:
    """Every damaged one."""
    found = {path.name: partial(bl.load, path) for path in sorted(Path("bad").iterdir())}
    return attempts({**found, "nowhere": lambda: bl.load("nowhere")})


def layers() -> Any:
    """What a layer says about itself."""
    views = bl.load("models/deep_gated").layers
    return {name: {"view": view, "weights": view.weights()} for name, view in views.items()}


def save() -> Any:
    """What is refused when models are saved."""
    other: Any = nn.Linear(2, 2)
    ordinary: Any = bl.nn.MLP(4, 6)
    return attempts(
        {
            "linear": lambda: bl.save(other, "out/saved"),
            "ordinary": lambda: bl.save(ordinary, "out/saved"),
            "filled": lambda: bl.save(classifier(), "models/one"),
            "names": lambda: bl.save(classifier(), "out/saved", output_names=["a"]),
            "shape": lambda: bl.save(classifier(), "out/saved", input_shape=(5, 5)),
        }
    )


def classifiers() -> Any:
    """Logits, maps and a gradient step of classifiers of the package."""
    images, labels = strokes(20, 3)
    found = {}
    for name in ("plain", "deep", "residual"):
        options: dict[str, Any] = {"n_layers": 2} if name == "deep" else {}
        model = classifier(residual=name == "residual", bias=name != "plain", **options)
        loss: Any = nn.functional.cross_entropy(model(images.double()), labels)
        loss.backward()
        found[name] = {
            "logits": model(images[:3].double()),
            "loss": loss,
            "gradient": next(model.parameters()).grad,
            "map": model.layer_map(0),
        }
    return found


def modules() -> Any:
    """The smaller modules."""
    layer = seeded(bl.nn.BilinearLayer(5, 4, bias=True, gate=None))
    mlp = seeded(bl.nn.BilinearMLP(4, 3, bias=True))
    ordinary, sae = seeded(bl.nn.MLP(4, 6, bias=True)), autoencoder()
    x = randn(3, 6, seed=1).float()
    return {
        "layer": [layer(randn(2, 5)), layer.quadratic_map()],
        "mlp": [mlp(randn(2, 4)), mlp.quadratic_map()],
        "ordinary": ordinary(randn(2, 4)),
        "sae": [sae(x), sae.encode(x), sae.folded().encode(x)],
    }


def transformers() -> Any:
    """Language models of the package."""
    tokens = torch.randint(11, (2, 7), generator=torch.Generator().manual_seed(0))
    found = {}
    kinds: dict[str, dict[str, Any]] = {
        "bilinear": {},
        "gated": {"gate": "gelu", "tied": True},
        "ordinary": {"mlp_type": "ordinary", "bias": True},
    }
    for name, options in kinds.items():
        model = transformer(**options)
        _, captured = model.run(tokens, capture=("blocks.0.mlp_in", "blocks.1.resid_mid"))
        generator = torch.Generator().manual_seed(1)
        found[name] = {
            "logits": model(tokens),
            "loss": model.next_token_loss(tokens),
            "captured": captured,
            "continued": model.generate(tokens[:1, :3], 4, seed=generator),
            "config": vars(model.config) if hasattr(model.config, "__dict__") else None,
        }
    return found


def initial_weights() -> Any:
    """New modules under a fixed seed."""
    torch.manual_seed(0)
    made = [bl.nn.BilinearClassifier(6, 4, 3), bl.nn.BilinearMLP(4, 6), bl.nn.TopKSAE(4, 8, 2)]
    return [*made, bl.nn.BilinearTransformer(9, 8, 12, 1, 2, 5), bl.nn.MLP(4, 6)]


class _Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> Any:
        """Return x + down(silu(gate x) · up x)."""
        return x + self.down(nn.functional.silu(self.gate(x)) * self.up(x))


def from_module() -> Any:
    """MLPs inside modules of others."""
    plain = seeded(nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3), nn.ReLU()))
    chain = seeded(
        nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    )
    gated = seeded(_Gated())
    wrong: Any = "module"
    return attempts(
        {
            "plain": lambda: bl.from_module(plain),
            "chain": lambda: bl.from_module(chain, randn(2, 4)),
            "gated": lambda: bl.from_module(gated, randn(2, 4)),
            "fit": lambda: bl.quadratic_fit(bl.from_module(chain), samples=500),
            "audit": lambda: bl.audit(bl.from_module(gated), null_samples=3).to_dict(),
            "none": lambda: bl.from_module(nn.Linear(4, 3)),
            "no module": lambda: bl.from_module(wrong),
        }
    )


def estimators() -> Any:
    """Estimators for tables."""
    import pandas as pd
    from sklearn.datasets import load_diabetes, load_wine
    from sklearn.neural_network import MLPClassifier

    wine, diabetes = load_wine(as_frame=True), load_diabetes(as_frame=True)
    model = bl.sklearn.BilinearClassifier().fit(wine.data, wine.target)
    regressor = bl.sklearn.BilinearRegressor(random_state=0, n_components=4).fit(
        diabetes.data, diabetes.target
    )
    saved = bl.load(model.save("out/estimator"))
    network = MLPClassifier((5,), max_iter=20, random_state=0).fit(wine.data, wine.target)
    hole = wine.data.copy()
    hole.iloc[0, 0] = float("nan")
    return attempts(
        {
            "probabilities": lambda: model.predict_proba(wine.data[:3]),
            "decision": lambda: model.decision_function(wine.data[:3]),
            "predicted": lambda: model.predict(wine.data[::20]),
            "effects": lambda: pd.DataFrame(model.effects_),
            "interactions": lambda: pd.DataFrame(model.interactions_.head(5)),
            "attribution": lambda: model.attribute(wine.data[:2]),
            "map": lambda: model.quadratic_map_,
            "saved": lambda: saved,
            "report": lambda: model.report(wine.data, wine.target).to_dict(),
            "regression": lambda: regressor.predict(diabetes.data[:4]),
            "regression pairs": lambda: pd.DataFrame(regressor.interactions_.head(3)),
            "of scikit-learn": lambda: bl.from_sklearn(network),
            "hole": lambda: bl.sklearn.BilinearClassifier().fit(hole, wine.target),
            "alpha": lambda: bl.sklearn.BilinearClassifier(alpha=-1).fit(wine.data, wine.target),
        }
    )
