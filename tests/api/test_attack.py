"""`bl.attack_model`: classes by name, provenance, refusals."""

import pytest
import torch

import bilens as bl
import tiny
from bilens.base.errors import NotQuadraticError, UsageError

DATA = tiny.images()
QUICK = {"epsilons": (0.0, 1.0), "random_perturbations": 1, "restarts": 1}


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
    with pytest.raises(UsageError, match="pass the index of the class"):
        bl.attack_model(tiny.trained(), DATA, target="level", **QUICK)


def test_what_cannot_be_attacked_is_refused() -> None:
    with pytest.raises(UsageError, match=r"use bl\.attack_model\(bl\.load"):
        bl.attack_model("runs/demo", DATA)  # type: ignore[arg-type]
    pair = (DATA.test_images, DATA.test_labels)
    with pytest.raises(UsageError, match="data is a tuple; expected an ImageDataset"):
        bl.attack_model(tiny.trained(), pair)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="'horizontal'"):
        bl.attack_model(tiny.loaded(tiny.trained()), DATA, target="horizontal")
    deep = tiny.loaded(tiny.classifier(n_layers=2, dtype=torch.float32))
    with pytest.raises(NotQuadraticError, match="2 layers"):
        bl.attack_model(deep, DATA)
