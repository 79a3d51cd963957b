"""One-layer classifiers, explained, attacked, certified: what comes in, what documents say."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import bilens as bl
import tiny
from bilens.api.classifier import explain_predictions
from bilens.base.errors import DataError, NotQuadraticError, ShapeError, UsageError
from bilens.io.load import LoadedModel
from bilens.nn import BilinearMLP
from bilens.records.base import to_json

DATA = tiny.images()
QUICK = {"epsilons": (0.0, 1.0), "random_perturbations": 1, "restarts": 1}


def test_each_index_is_explained_in_the_order_asked_for() -> None:
    model = tiny.trained()
    document = to_json(explain_predictions(tiny.loaded(model), DATA, [7, 0, 7], command="here"))
    assert list(document) == [
        "schema_version",
        "kind",
        "model",
        "baseline",
        "explanations",
        "source",
        "data",
        "reproduce",
    ]
    assert (document["schema_version"], document["kind"]) == (1, "explanation")
    assert document["reproduce"]["command"] == "here"
    assert document["data"]["sha256"] == DATA.fingerprint
    assert [item["index"] for item in document["explanations"]] == [7, 0, 7]
    for item in document["explanations"]:
        logits = model(DATA.test_images[item["index"]].double()).detach()
        assert item["scores"] == pytest.approx((logits - logits.mean()).tolist(), rel=1e-10)
        assert item["label"] == int(DATA.test_labels[item["index"]])
        assert item["kind"] == "asked"
    json.dumps(document, allow_nan=False)


REFUSED: list[tuple[LoadedModel, list[int], type[Exception], str]] = [
    (tiny.loaded(tiny.classifier()), [60], UsageError, "no row 60: there are 60"),
    (tiny.loaded(tiny.classifier()), [0, -1], UsageError, "no row -1"),
    (LoadedModel(BilinearMLP(4, 3), "an/mlp", ""), [0], UsageError, "an/mlp is a BilinearMLP"),
    (tiny.loaded(tiny.classifier(gate="relu")), [0], NotQuadraticError, "gate 'relu'"),
    (tiny.loaded(tiny.classifier(n_layers=2)), [0], NotQuadraticError, "2 layers"),
    (tiny.loaded(tiny.classifier(d_input=9)), [0], ShapeError, "the model reads 9 inputs"),
    (tiny.loaded(tiny.classifier(d_output=2)), [0], DataError, "no class of the model"),
]


@pytest.mark.parametrize(("model", "indices", "error", "message"), REFUSED)
def test_what_cannot_be_explained_is_refused(
    model: LoadedModel, indices: list[int], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        explain_predictions(model, DATA, indices)


def test_the_baseline_is_zero_or_the_mean_of_the_training_images() -> None:
    model = tiny.trained()
    mean = DATA.train_images.double().mean(dim=0)
    for baseline, start in (("zeros", 0 * mean), ("mean", mean)):
        document = to_json(explain_predictions(tiny.loaded(model), DATA, [4], baseline=baseline))  # type: ignore[arg-type]
        logits = model(start).detach()
        part = document["explanations"][0]["attributions"][0]
        assert document["baseline"] == baseline
        expected = float((logits - logits.mean())[part["output"]])
        assert part["score_at_baseline"] == pytest.approx(expected, abs=1e-12)
        assert part["score"] == pytest.approx(max(document["explanations"][0]["scores"]))
        assert sum(part["values"]) == pytest.approx(part["score"] - part["score_at_baseline"])
    with pytest.raises(UsageError, match='use "zeros" or "mean"'):
        explain_predictions(tiny.loaded(model), DATA, [4], baseline="black")  # type: ignore[arg-type]


def test_no_index_is_no_explanation() -> None:
    document: dict[str, Any] = to_json(
        explain_predictions(tiny.loaded(tiny.classifier()), DATA, [])
    )
    assert document["explanations"] == []


NAMED = replace(
    tiny.loaded(tiny.classifier(d_input=3)), input_names=("age", "income", "zip"), input_shape=None
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("zip,name,age,income\n3,x,1,2\n30,y,10,20\n")
    return path


def test_rows_are_explained_by_their_columns_whatever_the_order_of_the_table(table: Path) -> None:
    document = to_json(explain_predictions(NAMED, table, [3, 2], command="here"))
    assert document["model"]["input_names"] == ["age", "income", "zip"]
    assert (document["model"]["input_shape"], document["data"]["source_kind"]) == ([1, 3], "table")
    rows = ([10.0, 20.0, 30.0], [1.0, 2.0, 3.0])
    for item, x in zip(document["explanations"], rows, strict=True):
        logits = NAMED.module(torch.tensor(x, dtype=torch.float64)).detach()
        part = item["attributions"][0]
        assert part["score"] == pytest.approx(float((logits - logits.mean()).max()), rel=1e-10)
        total = part["score"] - part["score_at_baseline"]
        assert sum(part["values"]) == pytest.approx(total, rel=1e-10)
        assert item["label"] is None
    json.dumps(document, allow_nan=False)


def test_the_mean_of_the_table_is_a_baseline(table: Path) -> None:
    start = torch.tensor([5.5, 11.0, 16.5], dtype=torch.float64)
    logits = NAMED.module(start).detach()
    document = to_json(explain_predictions(NAMED, table, [2], baseline="mean"))
    part = document["explanations"][0]["attributions"][0]
    centred = (logits - logits.mean())[part["output"]]
    assert part["score_at_baseline"] == pytest.approx(float(centred), rel=1e-10)


def test_rows_that_cannot_be_explained_are_refused(table: Path) -> None:
    with pytest.raises(UsageError, match="no row 1: there are 2, numbered from 2 to 3"):
        explain_predictions(NAMED, table, [1])
    with pytest.raises(DataError, match="row 2 has 'x' in column 'name'"):  # by order, unnamed
        explain_predictions(replace(NAMED, input_names=None), table, [0])
    with pytest.raises(DataError, match="has no column, or two, of the name 'weight'"):
        explain_predictions(replace(NAMED, input_names=("age", "weight", "zip")), table, [0])


def test_a_class_is_named_by_index_or_name() -> None:
    loaded = tiny.loaded(tiny.trained())
    named = bl.attack_model(loaded, DATA, target="level", source="slanting", **QUICK)
    counted = bl.attack_model(loaded, DATA, target=1, source=2, **QUICK)
    assert named.document["objectives"] == counted.document["objectives"]
    (objective,) = named.document["objectives"]
    assert (objective["source"], objective["target"]) == (2, 1)


def test_the_document_says_where_it_comes_from() -> None:
    loaded = tiny.loaded(tiny.trained(), seed="5")
    document = bl.attack_model(loaded, DATA, target=0, seed=3, command="bilens attack", **QUICK)
    content = document.to_dict()
    assert content["source"]["provenance"] == {"seed": "5"}
    assert content["data"]["num_images"] == tiny.NUM_TEST
    assert content["reproduce"]["command"] == "bilens attack"
    assert (content["seed"], content["reproduce"]["seed"]) == (3, 3)
    assert content["model"]["output_names"] == ["upright", "level", "slanting"]


def test_a_module_in_memory_is_attacked_as_the_loaded_one() -> None:
    found = bl.attack_model(tiny.trained(), DATA, target=2, **QUICK)
    expected = bl.attack_model(tiny.loaded(tiny.trained()), DATA, target=2, **QUICK)
    assert found.document["objectives"] == expected.document["objectives"]
    with pytest.raises(UsageError, match="names no output"):
        bl.attack_model(tiny.trained(), DATA, target="level", **QUICK)


def test_what_cannot_be_attacked_is_refused() -> None:
    with pytest.raises(UsageError, match=r"an attack reads a model, .*pass bl\.load"):
        bl.attack_model("runs/demo", DATA)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="data is a list; expected an ImageDataset or a pair"):
        bl.attack_model(tiny.trained(), [DATA.test_images])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="'horizontal'"):
        bl.attack_model(tiny.loaded(tiny.trained()), DATA, target="horizontal")
    deep = tiny.loaded(tiny.classifier(n_layers=2, dtype=torch.float32))
    with pytest.raises(NotQuadraticError, match="2 layers"):
        bl.attack_model(deep, DATA)


def test_a_model_in_memory_and_one_from_a_file_have_the_same_guarantees() -> None:
    model = tiny.trained()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pair = (DATA.test_images, DATA.test_labels)
    loaded = bl.certify_model(tiny.loaded(model), DATA, samples=10, command="c").to_dict()
    memory = bl.certify_model(model, pair, samples=10).to_dict()
    for key in ("l2", "linf", "truncation", "input_use", "stability"):
        assert loaded[key] == memory[key]
    assert loaded["source"]["path"] == "a/folder"
    assert loaded["data"]["num_images"] == len(DATA.test_images)
    assert (memory["source"]["path"], loaded["reproduce"]["command"]) == ("", "c")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_the_same_seed_gives_the_same_document() -> None:
    model = tiny.trained()
    first, again = (bl.certify_model(model, DATA, samples=10, seed=3).to_dict() for _ in range(2))
    assert first == again


def test_a_path_is_no_model() -> None:
    with pytest.raises(UsageError, match=r"a certificate reads a model, .*bl\.load\('a/path'\)"):
        bl.certify_model("a/path")  # type: ignore[arg-type]


def test_other_data_are_refused() -> None:
    with pytest.raises(UsageError, match="data is a list"):
        bl.certify_model(tiny.trained(), [1, 2])  # type: ignore[arg-type]
