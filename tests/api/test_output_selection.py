"""Which outputs are read: names and readings of classes belong to what the model gives out.

Broken once: `refuse_neurons` made to refuse nothing; class 2 against class 0 was read of the
neurons of the first layer. The name looked for after the index; the class "2" became class 2.
"""

from __future__ import annotations

from typing import Any

import pytest

import tiny
from bilens.api.decomposition_request import Request
from bilens.api.output_selection import LayerOutputs, OutputReading, read_outputs
from bilens.base.errors import UsageError
from bilens.io.load import LoadedModel
from bilens.nn import BilinearLayer, BilinearMLP

NAMES = ("upright", "level", "slanting")
TWO = tiny.loaded(tiny.classifier(n_layers=2))
DIGITS = LoadedModel(tiny.classifier(), "a/folder", "", output_names=("2", "7", "1"))


def read(model: LoadedModel, layer: str, **options: Any) -> OutputReading:
    return read_outputs(LayerOutputs.of(model, layer), Request(**options))


def test_only_the_outputs_of_the_model_have_names() -> None:
    last, inner = LayerOutputs.of(TWO, "layers.1"), LayerOutputs.of(TWO, "layers.0")
    assert (last.kind, last.names) == ("logits", NAMES)
    assert (inner.kind, inner.names) == ("neurons", tuple("01234567"))
    assert inner.logits == last.logits == "layers.1"
    for module, number in ((BilinearMLP(5, 7, 4), 4), (BilinearLayer(5, 7), 7)):
        alone = LayerOutputs.of(LoadedModel(module, "a/layer", ""), "layer")
        assert (alone.kind, len(alone.names), alone.logits) == ("outputs", number, None)
    named = LoadedModel(BilinearMLP(5, 7, 2), "a/layer", "", output_names=("up", "down"))
    assert read(named, "layer", outputs="down").names == ["down"]


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
    assert read(DIGITS, "layers.0", outputs="1,0").names == ["1", "2"]
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
