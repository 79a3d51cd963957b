"""`bilens convert --to bilinear --data`: a file becomes one exact map; idle options are refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import bilens as bl
import tiny
from bilens.nn import BilinearClassifier, ThresholdSAE, TopKSAE
from builders import randn
from commands import USAGE, Shell, assert_one_line
from io_mapped import chain, poisoned, write

X = randn(300, 4, seed=9)


def test_one_hidden_layer_becomes_one_exact_map_with_exact_radii(
    bilens: Shell, tmp_path: Path
) -> None:
    path, data = write(tmp_path, chain(4, 6, 3)), tmp_path / "x.npz"
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    net.load_state_dict(chain(4, 6, 3))
    net.double()
    labels = net(X.double()).argmax(dim=1)
    np.savez(data, x=X.numpy(), y=labels.numpy())
    out, line = tmp_path / "out", ["--to", "bilinear", "--activation", "relu", "--data", data]
    result = bilens("convert", path, *line, "--tokens", 30_000, "--out", out)
    assert "1 of 1 MLP made bilinear" in result.out
    assert "of the rows right, its teacher 100.0%" in result.out
    found = json.loads((out / "conversion.json").read_text())
    (domain,), (before,) = found["domains"], found["after_layers"]
    assert (found["unit"], domain["texts"], domain["tokens"]) == ("nats per row", 60, 60)
    assert domain["kl"] < before["kl"]
    assert domain["accuracy"] > 0.85
    assert found["loaded_by"] == "bl.load"
    model = bl.load(out)
    assert [view.exact for view in model.layers.values()] == [True]
    assert isinstance(model.module, BilinearClassifier)
    f = model.module.double().quadratic_map().detach()
    x, y = X.double(), f(X.double())
    assert (y.softmax(1) - net(X.double()).softmax(1)).abs().mean() < 0.05
    record = bl.certify.l2_radius(f, x[:20], y[:20].argmax(dim=1))
    assert torch.all(record.radius > 0)
    beyond = x[:20] + (record.example - x[:20]) * 1.001
    assert not torch.any(f(beyond).argmax(dim=1) == y[:20].argmax(dim=1))
    assert torch.allclose(bl.attribute(f, x[:3]).sum(-1), y[:3] - f(0 * x[:3]), atol=1e-9)


def test_without_labels_the_outputs_of_the_teacher_are_the_measure(
    bilens: Shell, tmp_path: Path
) -> None:
    bl.save(tiny.classifier(gate="relu"), tmp_path / "gated")
    np.save(tmp_path / "x.npy", tiny.images().train_images.numpy())
    line = ["--to", "bilinear", "--data", tmp_path / "x.npy", "--tokens", 2000]
    result = bilens("convert", tmp_path / "gated", *line, "--out", tmp_path / "out")
    assert "nats to the cross-entropy with what the teacher gives" in result.out
    found = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert "accuracy" not in found["domains"][0] or found["domains"][0]["accuracy"] is None


def test_the_command_refuses_options_that_do_nothing(bilens: Shell, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X.numpy())
    path, data = write(tmp_path, chain(4, 6, 3)), ["--data", tmp_path / "x.npy"]
    line = ["convert", path, "--to", "bilinear", "--out", tmp_path / "out"]
    assert_one_line(bilens(*line), USAGE, ["--text", "--data"])
    activation = ["--activation", "relu"]
    assert_one_line(bilens(*line, *activation), USAGE, ["--activation: only with --data"])
    text = [*activation, *data, "--text", "a.txt", "--context-length", 8]
    words = ["--text, --context-length: only with text in the place of --data"]
    assert_one_line(bilens(*line, *text), USAGE, words)
    poisoned_path = write(tmp_path, poisoned(chain(4, 6, 3)), "nan.safetensors")
    result = bilens("convert", poisoned_path, *line[2:], *activation, *data)
    assert "NaN" in result.error()


def test_an_autoencoder_is_written_in_the_layouts_of_other_libraries(
    bilens: Shell, tmp_path: Path
) -> None:
    """It has no layers to tell of: seen refused with "has no layers of its own"."""
    sae = TopKSAE(8, 16, 4)
    bl.save(sae, tmp_path / "sae")
    for layout in ("saelens", "sparsify", "bilens"):
        out = tmp_path / layout
        assert bilens("convert", tmp_path / "sae", "--to", layout, "--out", out).code == 0
        again = bl.load(out).module
        assert isinstance(again, TopKSAE)
        torch.testing.assert_close(again(X.repeat(1, 2)), sae(X.repeat(1, 2)))
    kept = ThresholdSAE(8, 16)
    kept.threshold.fill_(0.1)
    bl.save(kept, tmp_path / "kept")
    line = ["convert", tmp_path / "kept", "--out", tmp_path / "jumprelu", "--to"]
    assert "keeps the k largest latents" in bilens(*line, "sparsify").error()
    assert bilens(*line, "saelens").code == 0
    written = bl.load(tmp_path / "jumprelu").module
    torch.testing.assert_close(written(X.repeat(1, 2)), kept(X.repeat(1, 2)))


def test_a_table_of_numbers_goes_to_onnx_with_the_names_of_its_inputs(
    bilens: Shell, tmp_path: Path
) -> None:
    pytest.importorskip("onnx")
    model = bl.save(tiny.classifier(d_input=2), tmp_path / "m", input_names=["age", "city=a"])
    line = ["convert", model, "--to", "onnx", "--out"]
    told = bilens(*line, tmp_path / "m.onnx")
    assert "it differs from the model by" in told.out
    assert "A row of its input is 'age', 'city=a', as numbers in this order." in told.out
    found = bilens(*line, tmp_path / "m.onnx", "--overwrite", "--json").json()
    assert found["files"] == ["m.onnx"]
    assert found["agreement"]["relative_error"] < 1e-6
    assert_one_line(bilens(*line, tmp_path / "m"), USAGE, ["a name that ends in .onnx"])
    for changed in (False, True):  # an ONNX file does not say that its outputs are logits
        if changed:
            other = tiny.classifier(d_input=2)
            with torch.no_grad():
                other.head.weight[0] += 0.1
            model = bl.save(other, tmp_path / "other", input_names=["age", "city=a"])
        for pair in ((tmp_path / "m.onnx", model), (model, tmp_path / "m.onnx")):
            told = bilens("audit", pair[0], "--baseline", pair[1], "--json").json()
            (layer,) = told["difference"]["layers"]
            assert layer["refused"] is None
            assert (layer["change"] > 0.01) == changed
