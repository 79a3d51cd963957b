"""Rows of the corpus: files of PyTorch, TransformerLens, scikit-learn and trees."""

import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from corpus import REFUSED, ROWS, Made, Maker, SmallCNN, count, plain_mlp, refused, row, scattered

# ---- files of PyTorch

TOLD = {"allow_pickle": True, "activation": "relu,gelu"}


def saved(wrap: Callable[[dict[str, Tensor]], Any], suffix: str = ".pt", **options: Any) -> Maker:
    """A file of torch.save, with the weights of an ordinary MLP wrapped as people do."""

    def make(folder: Path) -> Made:
        model = scattered(plain_mlp())
        path = folder / f"m{suffix}"
        torch.save(wrap(model.state_dict()), path, **options)
        return Made(path, count(model), count(model), TOLD)

    return make


def with_optimizer(state: dict[str, Tensor]) -> dict[str, Any]:
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(8, 6)}}
    return {"epoch": 3, "model": state, "optimizer": {"state": moments}, "loss": 0.1}


ROWS |= {
    "PyTorch state dict": saved(lambda state: state, ".pth"),
    "PyTorch state dict of before 1.6": saved(
        lambda state: state, _use_new_zipfile_serialization=False
    ),
    "PyTorch training checkpoint": saved(with_optimizer),
    "PyTorch checkpoint, model_state_dict": saved(lambda state: {"model_state_dict": state}),
    "PyTorch DDP": saved(lambda state: {f"module.{name}": t for name, t in state.items()}),
    "PyTorch compiled": saved(lambda state: {f"_orig_mod.{name}": t for name, t in state.items()}),
    "Lightning": saved(
        lambda state: {
            "pytorch-lightning_version": "2.5.0",
            "state_dict": {f"net.{name}": tensor for name, tensor in state.items()},
            "hyper_parameters": {"width": 8},
        },
        ".ckpt",
    ),
}


@row("TorchScript")
def script(folder: Path) -> Made:
    model = scattered(plain_mlp())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(model, torch.zeros(1, 6)), folder / "m.pt")
    return Made(folder / "m.pt", count(model), count(model), TOLD)


@row("PyTorch state dict of a CNN")
def pickled_cnn(folder: Path) -> Made:
    model = scattered(SmallCNN())
    torch.save(model.state_dict(), folder / "m.pt")
    read = count(model.fc1, model.fc2)  # type: ignore[arg-type]
    return Made(folder / "m.pt", count(model), read, {"allow_pickle": True, "activation": "relu"})


@refused("PyTorch state dict, not allowed", "--allow-pickle|allow_pickle=True")
def not_allowed(folder: Path) -> Made:
    torch.save(plain_mlp().state_dict(), folder / "m.pt")
    return Made(folder / "m.pt")


@refused("PyTorch module pickled whole", "holds a whole module.*state_dict")
def whole_module(folder: Path) -> Made:
    torch.save(plain_mlp(), folder / "m.pt")
    return Made(folder / "m.pt", options={"allow_pickle": True})


@refused("TransformerLens without an activation", "activation")
def silent_lens(folder: Path) -> Made:
    return replace(lens(folder), options={})


@row("TransformerLens")
def lens(folder: Path) -> Made:
    """A gated layout that is named like an ordinary one, and attention beside it."""
    return of_lens(folder, True)


@row("TransformerLens, not gated")
def plain_lens(folder: Path) -> Made:
    return of_lens(folder, False)


def of_lens(folder: Path, gated: bool) -> Made:
    from safetensors.torch import save_file

    shapes = dict.fromkeys(("attn.W_Q", "attn.W_K", "attn.W_V", "attn.W_O"), (2, 8, 4))
    shapes |= {"mlp.W_gate": (8, 12)} if gated else {}
    shapes |= {"mlp.W_in": (8, 12), "mlp.b_in": (12,), "mlp.W_out": (12, 8), "mlp.b_out": (8,)}
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"blocks.0.{name}": torch.randn(*shape, generator=generator)
        for name, shape in shapes.items()
    }
    if gated:
        tensors["blocks.0.mlp.b_in"].zero_()  # as of every model that is read into it
    save_file(tensors, folder / "m.safetensors")
    read = sum(t.numel() for name, t in tensors.items() if ".mlp." in name)
    total = sum(t.numel() for t in tensors.values())
    return Made(folder / "m.safetensors", total, read, {"activation": "silu"})


# ---- scikit-learn


def estimators() -> dict[str, Any]:
    """Fitted estimators of the kinds that people save."""
    networks = pytest.importorskip("sklearn.neural_network")
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = np.random.default_rng(0).normal(size=(60, 5))
    mlp = networks.MLPClassifier((7, 6), max_iter=3, random_state=0)
    found = {
        "mlp": mlp,
        "pipeline": make_pipeline(StandardScaler(), mlp),
        "search": GridSearchCV(mlp, {"alpha": [1e-4]}, cv=2),
        "forest": RandomForestClassifier(3, random_state=0),
        "logistic": LogisticRegression(),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it does not converge in three steps
        return {name: one.fit(x, x[:, 0] > 0) for name, one in found.items()}


def fitted(kind: str, how: str = "") -> Maker:
    """An estimator in memory, or in a file; of a pipeline the MLP alone has weights."""

    def make(folder: Path) -> Made:
        estimator = estimators()[kind]
        inner = getattr(estimator, "best_estimator_", estimator)
        last = inner[-1] if kind == "pipeline" else inner
        parts = (*getattr(last, "coefs_", ()), *getattr(last, "intercepts_", ()))
        total, path = sum(part.size for part in parts), folder / f"m.{how}"
        if how == "skops":
            pytest.importorskip("skops.io").dump(estimator, path)
        elif how == "joblib":
            pytest.importorskip("joblib").dump(estimator, path)
        elif how:
            path.write_bytes(pickle.dumps(estimator))
        trusted = {"trust_pickle": True} if how in ("joblib", "pkl") else {}
        return Made(path if how else estimator, total, total, trusted)

    return make


ROWS |= {
    "scikit-learn joblib": fitted("mlp", "joblib"),
    "scikit-learn pickle": fitted("mlp", "pkl"),
    "scikit-learn skops": fitted("mlp", "skops"),
    "scikit-learn Pipeline, joblib": fitted("pipeline", "joblib"),
    "scikit-learn GridSearchCV, joblib": fitted("search", "joblib"),
}
TREES = "trees have no weights to read.*bilens train table"
REFUSED |= {
    "scikit-learn random forest": (fitted("forest", "joblib"), TREES),
    "scikit-learn logistic regression": (fitted("logistic", "joblib"), "is no MLP of scikit-learn"),
}


# ---- trees and others, by hand


def text(name: str, content: bytes) -> Maker:
    def make(folder: Path) -> Made:
        (folder / name).write_bytes(content)
        return Made(folder / name)

    return make


REFUSED |= {
    "LightGBM": (text("m.txt", b"tree\nversion=v4\nnum_class=1\nnum_leaves=3\n"), TREES),
    "XGBoost": (text("m.json", b'{"learner":{"gradient_booster":{"model":{}}}}'), TREES),
    "CatBoost": (text("m.cbm", b"CBM1" + bytes(64)), TREES),
    "a spreadsheet": (text("m.csv", b"a,b\n1,2\n"), "is not a supported model file"),
    "an empty file": (text("m.pt", b""), "is empty"),
    "a page of the hub instead of a file": (
        text("m.safetensors", b"<!doctype html><html></html>"), "not a readable safetensors file",
    ),
}  # fmt: skip


@refused("a folder of several models", "holds 2 models")
def several(folder: Path) -> Made:
    from safetensors.torch import save_file

    for name in ("a", "b"):
        save_file(plain_mlp().state_dict(), folder / f"{name}.safetensors")
    return Made(folder)


@refused("a name of the hub", "no such file or folder.*hf download")
def hub(_: Path) -> Made:
    return Made(Path("someone/model"))
