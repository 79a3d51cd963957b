"""Guards against saying of a conversion what is not so of what it wrote."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.neural_network import MLPRegressor

import bilens as bl
from bilens.api.given_data import given_data, performance_of
from bilens.base.files import read_json
from bilens.records.base import read_document
from bilens.records.bilinear_conversion import Conversion
from bilens.report.sections.conversion import summary
from bilens.report.text import load_catalogue
from commands import Shell
from contract.table import cell
from contract.test_conversions_written_otherwise import EXACT, network, rows


@pytest.fixture
def bilens(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)


def regressor(targets: int = 1, **options: Any) -> Any:
    x = np.random.default_rng(0).normal(size=(150, 4))
    y = np.stack([x[:, 0] ** 2 + x[:, 1], x[:, 2]], axis=1)[:, :targets]
    made = MLPRegressor(hidden_layer_sizes=(6,), max_iter=20, random_state=0, **options)
    return made.fit(x, np.exp(y / 2).squeeze() if options else y.squeeze()), x


@pytest.mark.parametrize("kind", ["network", "regressor"])
@cell("convert", "own object")
def test_a_conversion_counts_what_it_wrote_and_speaks_of_no_tokens(
    kind: str, tmp_path: Path
) -> None:
    """Seen: 1,538 parameters, 100 % of the model, of a file in which the audit counted 9,360."""
    model, x = (network(), rows()) if kind == "network" else regressor()
    bl.convert_network(model, x, tmp_path / "made", EXACT)
    found = read_document(Conversion, read_json(tmp_path / "made" / "conversion.json"))
    loaded = bl.load(tmp_path / "made")
    counted = sum(one.numel() for one in loaded.module.parameters())  # type: ignore[union-attr]
    named = dataclasses.replace(loaded, input_names=(*"abcd",))
    coverage = bl.audit(named).record.coverage
    assert coverage is not None
    assert found.num_parameters == found.exact_parameters == counted == coverage.parameters
    for lang, word in (("en", "token"), ("ja", "トークン")):
        lines = summary(load_catalogue(lang), found)
        assert not any(word in line for line in lines)
        assert any(f"{counted:,}" in line for line in lines)


@pytest.mark.parametrize("lang", ["en", "ja"])
@cell("explain", "other units")
def test_a_row_of_a_converted_poisson_regressor_is_told_in_one_unit(
    lang: str, tmp_path: Path, bilens: Shell
) -> None:
    """Seen: the model says 1.114, the table says 7.000; the first is the logarithm of 3.05."""
    model, x = regressor(loss="poisson")
    named = dataclasses.replace(bl.from_sklearn(model), input_names=("a", "b", "c", "d"))
    bl.convert_network(named, pd.DataFrame(x, columns=[*"abcd"]), tmp_path / "made", EXACT)
    claims = np.where(np.arange(len(x)) % 2, 7.125, 8.25)
    path, page = tmp_path / "rows.csv", tmp_path / "page.html"
    pd.DataFrame(x, columns=[*"abcd"]).assign(claims=claims).to_csv(path, index=False)
    asked = ("explain", tmp_path / "made", "--data", path, "--labels", "claims", "--index", 3)
    result = bilens(*asked, "--html", page, "--lang", lang)
    assert result.code == 0
    text = page.read_text("utf-8")
    shown, document = text.split("<script", 1)
    assert "7.125" not in result.out + shown
    assert '"target":7.125' not in document
    words = {"en": "The output is the logarithm of a mean", "ja": "出力は平均の対数です"}
    assert words[lang] in shown


@cell("convert", "other function")
@cell("audit", "other function")
def test_rows_that_a_conversion_was_fitted_to_are_no_test(tmp_path: Path) -> None:
    """Seen: an audit on the very rows of a conversion called them test inputs."""
    model, x = regressor()
    frame = pd.DataFrame(x, columns=[*"abcd"])
    named = dataclasses.replace(bl.from_sklearn(model), input_names=("a", "b", "c", "d"))
    bl.convert_network(named, (frame, model.predict(x)), tmp_path / "made", EXACT, held_out=0.3)
    made = bl.load(tmp_path / "made")
    report = bl.audit(made, (frame, model.predict(x)))
    performance = report.record.performance
    assert (performance.rows, performance.trained, performance.rows_seen) == (150, 105, "partly")
    (found,) = [one for one in report.record.verdict if one.rule == "seen_rows"]
    assert (found.outcome, found.values["value"]) == ("warn", 105)
    assert "105 of these rows are training rows" in report.to_html()
    assert "fitted_rows" not in report.to_dict()["source"]["provenance"]
    other = np.random.default_rng(9).normal(size=(50, 4))
    again = bl.audit(made, (pd.DataFrame(other, columns=[*"abcd"]), model.predict(other)))
    assert again.record.performance.trained == 0
    copied = bl.load(bl.save(made.module, tmp_path / "copy", provenance=dict(made.provenance)))
    unnamed = performance_of(copied, given_data(copied, (x, model.predict(x))))
    assert unnamed.trained == 105, "answers are no part of what was fitted to"
