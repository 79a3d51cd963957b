"""`bl.certify_model`: what may be passed in, and what the document says of where it comes from."""

import pytest
import torch

import bilens as bl
import tiny
from bilens.base.errors import UsageError

DATA = tiny.images()


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
    with pytest.raises(UsageError, match=r"bl\.certify_model\(bl\.load\('a/path'\)\)"):
        bl.certify_model("a/path")  # type: ignore[arg-type]


def test_other_data_are_refused() -> None:
    with pytest.raises(UsageError, match="data is a list"):
        bl.certify_model(tiny.trained(), [1, 2])  # type: ignore[arg-type]
