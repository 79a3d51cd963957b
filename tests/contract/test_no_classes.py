"""Guards against readings of classes where a model gives numbers, or several yes-no answers.

Seen: a certificate of two targets in two units said that no score changes by more than half the
difference of the two, where the first alone changed by more than that.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neural_network import MLPClassifier, MLPRegressor

import bilens as bl
from bilens.api.classifier import explain_predictions
from bilens.api.given_data import LabelledData
from bilens.api.layer_decomposition import decompose_layers
from bilens.api.layer_reading import Request
from bilens.api.subject import is_one_exact_layer
from bilens.base.errors import UsageError
from bilens.records.common import DataOrigin
from commands import Shell
from contract.table import cell
from contract.test_conversions_written_otherwise import EXACT

SAID: dict[str, dict[str, str]] = {
    "numbers": {"gives": "numbers"},
    "sigmoids": {"head": "sigmoid of each logit"},
    "sigmoid": {"ends": "sigmoid"},
    "regressor": {"format": "scikit-learn MLPRegressor"},
}


@pytest.fixture
def bilens(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)


def saved(folder: Path, said: dict[str, str]) -> Path:
    torch.manual_seed(0)
    return bl.save(bl.nn.BilinearClassifier(3, 5, 2, bias=True), folder, provenance=said)


def rows_and_classes() -> LabelledData:
    x = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return LabelledData(x, (x[:, 0] > 0).long(), DataOrigin("rows", "rows", "tensors", 40, ""))


JOBS: dict[str, Any] = {
    "certify": bl.certify_model,
    "certify with data": lambda model: bl.certify_model(model, rows_and_classes()),
    "attack": lambda model: bl.attack_model(model, rows_and_classes()),
    "explain": lambda model: explain_predictions(model, rows_and_classes(), [0]),
    "decompose": lambda model: decompose_layers(model, Request(reading="centred")),
}


@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
@cell("certify", "other function", "other units")
@cell("attack", "other function")
@cell("explain", "other function")
@cell("decompose", "other function")
def test_what_is_about_classes_is_refused_of_outputs_that_are_none(
    job: Any, said: dict[str, str], tmp_path: Path
) -> None:
    """The outputs may be kilograms and euros: their mean is nothing."""
    model = bl.load(saved(tmp_path / "model", said))
    with pytest.raises(UsageError, match="no classes"):
        job(model)
    assert not is_one_exact_layer(model)
    assert not any(view.classes for view in model.layers.values())
    assert not any(layer.class_centred for layer in bl.audit(model).record.layers.readings)


@pytest.mark.parametrize("kind", ["numbers", "labels"])
@cell("certify", "other function")
@cell("convert", "other function")
def test_a_conversion_of_several_answers_is_not_certified(
    kind: str, bilens: Shell, tmp_path: Path
) -> None:
    x = np.random.default_rng(0).normal(size=(120, 3))
    y = np.stack([x[:, 0] ** 2 + x[:, 1], 10 * x[:, 2]], axis=1)
    how: Any = {"hidden_layer_sizes": (6,), "max_iter": 20, "random_state": 0}
    one = MLPRegressor(**how).fit(x, y) if kind == "numbers" else MLPClassifier(**how).fit(x, y > 0)
    bl.convert_network(one, x, tmp_path / "made", EXACT)
    result = bilens("certify", tmp_path / "made")
    assert result.code == 2
    assert "no classes" in result.err
    assert "bilens decompose" in result.err


@cell("decompose", "other function")
def test_each_number_is_decomposed_as_it_is(tmp_path: Path) -> None:
    model = bl.load(saved(tmp_path / "model", SAID["numbers"]))
    (found,) = decompose_layers(model, Request())
    assert found["reading"] == "raw"
