"""A layer in whitened coordinates: the same function, the spectra of Σ^½ Q Σ^½, its null."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import oracles
import tiny
from bilens.algebra.rotation_null import rotation_null
from bilens.api.layer_decomposition import prepare, run_job
from bilens.api.layer_reading import (
    InputMoments,
    LayerOutputs,
    OutputReading,
    Request,
    moments_of,
    read_outputs,
)
from bilens.base.errors import UsageError
from bilens.io.estimator import from_sklearn
from bilens.io.load import LoadedModel
from bilens.nn import BilinearLayer, BilinearMLP
from builders import randn

DATA = tiny.images()
MOMENTS = moments_of(DATA)
ONE = tiny.loaded(tiny.classifier(bias=True))
TWO = tiny.loaded(tiny.classifier(n_layers=2))
MLP = LoadedModel(BilinearMLP(tiny.PIXELS, 7, 4).double(), "an/mlp", "")
WHOLE = Request(top=tiny.PIXELS, basis="whitened", reading="raw", null_samples=39)


def root() -> Tensor:
    """Σ^½ of the training images, from another decomposition than the code's."""
    covariance = torch.cov(DATA.train_images.double().T, correction=0)
    left, values, _ = torch.linalg.svd(covariance)
    return (left * values.sqrt()) @ left.T


@pytest.mark.parametrize(("model", "layer"), [(ONE, "layers.0"), (TWO, "layers.0"), (MLP, "layer")])
def test_whitened_spectra_are_those_of_the_congruent_form(model: LoadedModel, layer: str) -> None:
    result = run_job(prepare(model, WHOLE, layer, inputs=MOMENTS))
    assert (result.record.basis, result.pairs.basis.split()[0]) == ("whitened", "whitened")
    tensor = model.layers[layer].quadratic_map.tensor
    dense = oracles.dense_tensor(tensor.down, tensor.left, tensor.right)
    for c, values in enumerate(result.pairs.eigenvalues):
        expected = torch.linalg.eigvalsh(root() @ dense[c] @ root())
        torch.testing.assert_close(values.sort().values, expected, rtol=1e-9, atol=1e-12)


def test_whitened_inputs_give_the_logits() -> None:
    pairs = run_job(prepare(ONE, WHOLE, inputs=MOMENTS)).pairs
    z = torch.randn(5, tiny.PIXELS, generator=torch.Generator().manual_seed(0)).double()
    x = DATA.train_images.double().mean(dim=0) + z @ root()
    torch.testing.assert_close(pairs.contributions(z).total().T, ONE.module(x))


@pytest.mark.parametrize("model", [ONE, MLP])
def test_the_null_rotates_what_the_layer_reads_behind_the_whitening(model: LoadedModel) -> None:
    module: Any = model.module
    record = run_job(prepare(model, WHOLE, inputs=MOMENTS)).record
    behind = module.quadratic_map() if model is MLP else module.quadratic_map("embedding")
    embedding = root() if model is MLP else module.embed.weight @ root()
    eye = torch.eye(behind.sizes.d_out, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    null = rotation_null(behind, eye, generator, num_samples=39, embedding=embedding)
    found = [output.effective_rank_null for output in record.outputs]
    medians = null.effective_rank.median(dim=0).values.tolist()
    assert [level.median for level in found if level is not None] == pytest.approx(medians)


def test_only_a_layer_that_reads_the_images_can_be_whitened() -> None:
    with pytest.raises(UsageError, match=r"layers\.1 has no images .* --layer layers\.0"):
        run_job(prepare(TWO, WHOLE, "layers.1", inputs=MOMENTS))
    with pytest.raises(UsageError, match="needs inputs: pass their moments"):
        prepare(ONE, WHOLE)
    few = InputMoments(MOMENTS.mean[:9], MOMENTS.covariance[:9, :9], MOMENTS.about)
    with pytest.raises(UsageError, match=r"layers\.0 reads 36 inputs, and tiny has images of 9"):
        run_job(prepare(ONE, WHOLE, inputs=few))


def test_moments_say_what_they_are_of() -> None:
    assert MOMENTS.about["sha256"] == DATA.fingerprint
    assert (MOMENTS.about["split"], MOMENTS.about["num_images"]) == ("training", tiny.NUM_TRAIN)


NAMES = ("upright", "level", "slanting")
DIGITS = LoadedModel(tiny.classifier(), "a/folder", "", output_names=("2", "7", "1"))


def read(model: LoadedModel, layer: str, **options: Any) -> OutputReading:
    return read_outputs(LayerOutputs.from_model(model, layer), Request(**options))


def test_only_the_outputs_of_the_model_have_names() -> None:
    last, inner = LayerOutputs.from_model(TWO, "layers.1"), LayerOutputs.from_model(TWO, "layers.0")
    assert (last.kind, last.names) == ("logits", NAMES)
    assert (inner.kind, inner.names) == ("neurons", tuple("01234567"))
    assert inner.logits == last.logits == "layers.1"
    for module, number in ((BilinearMLP(5, 7, 4), 4), (BilinearLayer(5, 7), 7)):
        alone = LayerOutputs.from_model(LoadedModel(module, "a/layer", ""), "layer")
        assert (alone.kind, len(alone.names), alone.logits) == ("outputs", number, None)
    named = LoadedModel(BilinearMLP(5, 7, 2), "a/layer", "", output_names=("up", "down"))
    assert read(named, "layer", outputs="down").names == ["down"]


def test_one_output_is_not_read_against_itself() -> None:
    alone = tiny.loaded(tiny.classifier(d_output=1))
    assert read(alone, "layers.0").reading == "raw"


def test_outputs_are_numbered_whatever_they_are_called() -> None:
    assert read(DIGITS, "layers.0", outputs=(2, 0, 2)).outputs == [2, 0]
    with pytest.raises(UsageError, match="3 is no output of layers"):
        read(DIGITS, "layers.0", outputs=(0, 3))


def test_an_index_inside_the_model_is_a_neuron() -> None:
    result = read(TWO, "layers.0", outputs="2,5-6")
    assert (result.names, result.reading) == (["2", "5", "6"], "raw")
    assert result.outputs == [2, 5, 6]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contrast": (2, 0)}, "are neurons .*a contrast reads one class .*--layer layers.1"),
        ({"contrast": ("upright", "level")}, "are neurons .*--layer layers.1"),
        ({"reading": "centred"}, "are neurons .*the mean of all classes.*--layer layers.1"),
        ({"outputs": "1,level"}, "'level' in '1,level' names no .*layers.0.*--layer layers.1"),
        ({"outputs": "8"}, "'8' in '8' names no output of layers.0: .* from 0 to 7"),
    ],
)
def test_classes_are_not_looked_for_among_neurons(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(TWO, "layers.0", **options)


@pytest.mark.parametrize("pair", [("slanting", "upright"), ("2", "0"), (2, 0), ("slanting", 0)])
def test_a_contrast_takes_indices_and_names(pair: tuple[Any, Any]) -> None:
    result = read(TWO, "layers.1", contrast=pair)
    assert (result.names, result.reading) == (["slanting − upright"], "contrast")
    assert result.outputs == [2, 0]


def test_what_is_a_name_is_taken_as_one() -> None:
    """Classes called 2, 7 and 1: what is typed is what the table shows."""
    result = read(DIGITS, "layers.0", contrast=("2", "1"))
    assert result.names == ["2 − 1"]
    assert result.outputs == [0, 2]
    assert read(DIGITS, "layers.0", outputs="1,2").names == ["1", "2"]
    for text in ("0", "1,0", "0-2", "1-2"):
        with pytest.raises(UsageError, match="expected one of the names 2, 7, 1, or in Python"):
            read(DIGITS, "layers.0", outputs=text)
    assert read(DIGITS, "layers.0", contrast=(2, 1)).names == ["1 − 7"]  # numbers are indices


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("upright", "round"), "'round' names no output of layers.1: .*upright, level, slanting"),
        (("level", "level"), "two different outputs between 0 and 2, got 1 and 1"),
        (("-1", "level"), "between 0 and 2, got -1 and 1"),
    ],
)
def test_a_contrast_of_nothing_is_refused(pair: tuple[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(TWO, "layers.1", contrast=pair)


def test_a_name_of_two_outputs_is_refused() -> None:
    twins = LoadedModel(tiny.classifier(), "a/folder", "", output_names=("cat", "cat", "dog"))
    for options in ({"contrast": ("cat", "dog")}, {"outputs": "cat"}):
        with pytest.raises(UsageError, match=r"'cat' is the name of the outputs 0, 1 of layers\.0"):
            read(twins, "layers.0", **options)
    assert read(twins, "layers.0", contrast=("1", "dog")).names == ["cat − dog"]


def test_labels_with_a_sigmoid_each_are_read_raw_under_their_names() -> None:
    networks = pytest.importorskip("sklearn.neural_network")
    x = randn(40, 4).numpy()
    estimator = networks.MLPClassifier((6, 5), max_iter=300, random_state=0, tol=1.0)
    model = replace(from_sklearn(estimator.fit(x, x[:, :3] > 0)), output_names=("a", "b", "c"))
    reading = read_outputs(LayerOutputs.from_model(model, "layers.1"), Request())
    assert (reading.reading, reading.names) == ("raw", ["a", "b", "c"])
