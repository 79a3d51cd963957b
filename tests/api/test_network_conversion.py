"""Ordinary networks made bilinear: what comes out, what is measured, resumed and refused.

Damage that they notice: output weights of a layer left in other units, labels of fitted rows.
"""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

import bilens as bl
import tiny
import tiny_language_models
from bilens.api.network_conversion import RECIPE, convert_network
from bilens.base.errors import (
    DataError,
    InterruptedRunError,
    OutputExistsError,
    ShapeError,
    UsageError,
)
from bilens.io.host import host_of
from bilens.io.load import from_module
from bilens.io.loaded_model import LoadedModel
from bilens.nn import BilinearClassifier
from builders import randn, usual_where_idle
from kill_sweep import KILLS, conversions_killed

SHORT = replace(RECIPE, tokens=3000, layer_steps=5, batch_size=32, learning_rate=1e-3)
X = randn(300, 4, seed=9)
DATA = tiny.images()


def go(model: Any, data: Any, out: Path, **changes: Any) -> dict[str, Any]:
    names = ("held_out", "resume", "overwrite", "report", "say")
    options = {name: changes.pop(name) for name in names if name in changes}
    changes = usual_where_idle(RECIPE, changes) | changes
    return convert_network(model, data, out, replace(SHORT, **changes), **options)


def module(folder: Path) -> BilinearClassifier:
    found = bl.load(folder).module
    assert isinstance(found, BilinearClassifier)
    return found


def fitted(kind: Any, *widths: int, columns: float = 1.0) -> tuple[Any, Tensor, Tensor]:
    """A pipeline of scikit-learn, with columns of very different units, and its data."""
    x = X * torch.tensor([1.0, 30.0, 1e-3, columns]) + torch.tensor([0.0, 100.0, 0.0, 5.0])
    y = X[:, 0] * X[:, 1] + X[:, 2]
    y = (y > 0).long() + (y > 1) if kind is MLPClassifier else 100 + 50 * y
    mlp = kind(hidden_layer_sizes=widths, max_iter=80, random_state=0, solver="lbfgs", alpha=0.1)
    return make_pipeline(StandardScaler(), mlp).fit(x.numpy(), y.numpy()), x, y


def net() -> LoadedModel:
    """Two layers one behind the other, the same each time."""
    torch.manual_seed(0)
    return from_module(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh()))


# ---- what comes out


def test_layers_of_any_widths_stay_as_many_exact_ones(tmp_path: Path) -> None:
    pipeline, x, y = fitted(MLPClassifier, 9, 5)
    found = go(
        pipeline, (x, y), tmp_path / "out", linear_skip=True, tokens=20_000, measured_tokens=50
    )
    assert found["domains"][0]["tokens"] == 50  # of 60 that are held out
    loaded = bl.load(tmp_path / "out")
    assert [view.exact for view in loaded.layers.values()] == [True, True]
    assert loaded.output_names == ("0", "1", "2")
    assert [one["name"] for one in found["layers"]] == ["layers.0", "layers.1"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "library_name: bilens\n" in card
    assert "2 of 2 layers were made bilinear" in card
    assert all(one["r_squared"] > 0.8 for one in found["layers"])
    logits = module(tmp_path / "out").double()(x.double())
    same = logits.argmax(dim=1).numpy() == pipeline.predict(x.numpy())
    assert same.mean() > 0.85


def test_a_regression_is_learnt_in_units_of_its_own(tmp_path: Path) -> None:
    pipeline, x, y = fitted(MLPRegressor, 8)
    found = go(pipeline, (x, y), tmp_path / "out", tokens=8_000)
    given = torch.from_numpy(pipeline.predict(x.numpy()))
    out = module(tmp_path / "out").double()(x.double())[:, 0].detach()
    missed = (out - given).square().mean() / given.var()
    assert missed < 0.3
    (domain,) = found["domains"]
    assert found["unit"] == "share of the variance"
    assert domain["kl"] is None
    assert 0 < domain["loss"] < 0.6
    unlabelled = go(pipeline, x, tmp_path / "alone", tokens=8_000)["domains"][0]
    assert unlabelled["teacher_loss"] == 0
    assert unlabelled["loss"] == pytest.approx(float(missed), rel=1)


@pytest.mark.parametrize("n_layers", [1, 2])
def test_a_gated_classifier_with_residual_paths_is_converted(n_layers: int, tmp_path: Path) -> None:
    gated = tiny.classifier(gate="silu", n_layers=n_layers, bias=True, residual=True)
    bl.save(gated, tmp_path / "gated", input_shape=(6, 6), output_names=DATA.class_names)
    found = go(tmp_path / "gated", DATA, tmp_path / "out", layer_steps=40, tokens=8_000)
    loaded = bl.load(tmp_path / "out")
    assert [view.exact for view in loaded.layers.values()] == [True] * n_layers
    assert (loaded.input_shape, loaded.output_names) == ((6, 6), DATA.class_names)
    x = DATA.test_images
    both = gated(x.double()), module(tmp_path / "out")(x).double()
    theirs, ours = (one - one.mean(dim=1, keepdim=True) for one in both)  # logits of classes
    assert (theirs - ours).square().mean() < 0.05 * theirs.var()
    assert found["domains"][0]["tokens"] == len(x)  # the test images of the data set


# ---- encoders


@pytest.mark.parametrize("kind", ["vit", "deit"])
def test_an_image_encoder_is_converted_on_its_own_inputs(kind: str, tmp_path: Path) -> None:
    tiny_language_models.write(tmp_path / "encoder", kind, dtype=torch.float32)
    x = randn(60, 3, 8, 8).numpy()
    np.save(tmp_path / "x.npy", x)
    found = go(tmp_path / "encoder", tmp_path / "x.npy", tmp_path / "out")
    assert found["loaded_by"] == "bl.nn.load_converted"
    assert [one["r_squared"] > 0.5 for one in found["layers"]] == [True, True]
    assert all(view.exact for view in bl.load(tmp_path / "out").layers.values())
    again = bl.nn.load_converted(tmp_path / "out")
    teacher = host_of(tiny_language_models.make(kind).float(), Path(kind))
    with torch.no_grad():
        theirs, ours = teacher.logits(torch.from_numpy(x)), again(torch.from_numpy(x)).logits
    assert 0 < (theirs - ours).abs().max() < 0.3 * theirs.std()


# ---- resumed


class Killed(BaseException):
    """Stands for kill −9."""


def test_a_run_that_is_broken_off_ends_at_the_same_bits(tmp_path: Path) -> None:
    go(net(), X, tmp_path / "whole")
    for count, points in enumerate((1, 3, 5)):
        left = [points]

        def report(*_: object, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Killed

        with pytest.raises(Killed):
            go(net(), X, tmp_path / "broken", resume=count > 0, report=report)
    go(net(), X, tmp_path / "broken", resume=True)
    whole, broken = (module(tmp_path / name).state_dict() for name in ("whole", "broken"))
    assert all(torch.equal(part, broken[name]) for name, part in whole.items())
    with pytest.raises(UsageError, match="started on other data"):
        go(net(), X + 1, tmp_path / "broken", resume=True)
    with pytest.raises(OutputExistsError, match="already holds files"):
        go(net(), X, tmp_path / "broken")


def test_labels_that_make_logits_of_numbers_are_noticed(tmp_path: Path) -> None:
    model = from_module(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)))
    go(model, X, tmp_path / "out", skip=("distillation",))
    labelled = X, (X[:, 0] > 0).long()
    with pytest.raises(UsageError, match="with gives='numbers', targets_sha256=None; this command"):
        go(model, labelled, tmp_path / "out", skip=("distillation",), resume=True)


def test_several_numbers_stay_numbers_when_converted(tmp_path: Path) -> None:
    y = torch.stack([X[:, 0] ** 2, X[:, 1]], dim=1).numpy()
    network = MLPRegressor(hidden_layer_sizes=(8,), max_iter=20, random_state=0).fit(X.numpy(), y)
    convert_network(
        network, X, tmp_path / "c", replace(RECIPE, layer_steps=5, skip=("distillation",))
    )
    model = bl.load(tmp_path / "c")
    assert [*model.layers.values()][-1].gives == "outputs"
    assert bl.audit(model, null_samples=3).to_dict()["read_as"] == "layers"
    with pytest.raises(UsageError, match="several answers"):
        bl.audit(model, (X.numpy(), y[:, 0]))


def test_a_classifier_that_met_no_labels_can_be_judged(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    go(from_module(module), X, tmp_path / "c", skip=("distillation",))
    labels = module(X.float()).argmax(dim=1)
    record = bl.audit(bl.load(tmp_path / "c"), (X, labels), null_samples=tiny.ROTATIONS).record
    assert record.performance.classification is not None


def test_other_labels_are_noticed(tmp_path: Path) -> None:
    model = from_module(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)))
    y = torch.arange(len(X)) % 3
    go(model, (X, y), tmp_path / "out", skip=("distillation",))
    with pytest.raises(UsageError, match="targets_sha256"):
        go(model, (X, 2 - y), tmp_path / "out", skip=("distillation",), resume=True)


def test_classes_are_no_numbers_that_one_logit_should_give(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    with torch.no_grad():
        module[2].weight *= 20
        y = (module(X.float())[:, 0] > 0).long()
    done = go(from_module(module), (X, y), tmp_path / "out", skip=("distillation",))
    (domain,) = done["domains"]
    assert (domain["teacher_loss"], domain["loss"]) == (0, domain["loss_added"])


def test_kill_9_at_random_moments_ends_at_the_same_bits(tmp_path: Path, sweep_share: float) -> None:
    setup = "import test_network_conversion as t; go = functools.partial(t.go, t.net(), t.X)"
    found = conversions_killed(setup, tmp_path, round(sweep_share * KILLS))
    whole, *others = (module(folder).state_dict() for folder in (tmp_path / "whole", *found))
    assert all(torch.equal(one[name], part) for one in others for name, part in whole.items())


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    with pytest.raises(InterruptedRunError, match=r"Interrupted behind layers\.0"):
        go(net, X, tmp_path / "out", report=interrupt)
    assert (tmp_path / "out/checkpoints/layers/layers.0.safetensors").exists()


# ---- bad input


def test_what_cannot_be_converted_is_said_in_a_sentence(tmp_path: Path) -> None:
    net, out = nn.Sequential(nn.Linear(4, 200), nn.ReLU(), nn.Linear(200, 3)), tmp_path / "out"
    with pytest.raises(DataError, match=r"layers\.0 needs 201 rows or more, and gets 144"):
        go(net, X[:200], out)
    with pytest.raises(DataError, match="a conversion needs 20 rows or more, and gets 19"):
        go(net, X[:19], out)
    with pytest.raises(ShapeError, match="the model reads 4 inputs"):
        go(net, X[:, :3], out)
    with pytest.raises(DataError, match="NaN or infinity"):
        go(net, X / 0, out)
    with pytest.raises(DataError, match="which is no class of the model"):
        go(net, (X, torch.arange(300) % 5), out)
    with pytest.raises(ShapeError, match="expected one each"):
        go(net, (X, torch.zeros(5)), out)
    with pytest.raises(UsageError, match="leave out --layers, --keep"):
        go(net, X, out, keep=(0,))
    dead = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        dead[0].bias.fill_(-1000)
    with pytest.raises(DataError, match="none of its neurons is active"):
        go(dead, X, tmp_path / "dead")
    assert not (tmp_path / "dead").exists()


def test_a_model_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is exact already"):
        go(tiny.classifier(), DATA, tmp_path)
    with pytest.raises(UsageError, match="LinearRegression is no MLP"):
        go(LinearRegression().fit(X.numpy(), X.numpy()), X, tmp_path)
    tiny_language_models.write(tmp_path / "bert", "bert", dtype=torch.float32)
    with pytest.raises(UsageError, match="reads text: give some with --text"):
        go(tmp_path / "bert", X, tmp_path / "out")
    block = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True)
    with pytest.raises(UsageError, match="is not MLPs one behind the other"):
        go(block, X, tmp_path / "out")
