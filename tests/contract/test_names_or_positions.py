"""Guards against a class that is meant by its name and found by its position, or the reverse."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, strategies as st

import bilens as bl
from bilens.api.layer_reading import LayerOutputs, Request, read_outputs
from bilens.base.errors import BilensError, DataError
from bilens.data.images import ImageDataset
from bilens.io.loaded_model import LoadedModel
from bilens.nn import BilinearClassifier
from contract.drawn import fewer
from contract.table import cell

ROWS = 40
seeds = st.integers(0, 2**31)


def inputs() -> torch.Tensor:
    return torch.rand(ROWS, 4, generator=torch.Generator().manual_seed(0))


def module_of(seed: int) -> BilinearClassifier:
    """A model with random weights that answers each of its classes more than twice."""
    module, generator = BilinearClassifier(4, 6, 3, bias=True), torch.Generator().manual_seed(seed)
    counts = torch.zeros(3)
    while counts.min() < 3:
        with torch.no_grad():
            for part in module.parameters():
                part.copy_(torch.randn(part.shape, generator=generator))
        counts = module(inputs()).argmax(dim=1).bincount(minlength=3)
    return module


def saved(module: BilinearClassifier, folder: Path, names: tuple[str, ...]) -> Any:
    bl.save(module, folder, output_names=names, overwrite=True)
    return bl.load(folder)


def accuracy(model: Any, data: Any, **options: Any) -> float:
    if model.input_names is None:
        options["null_samples"] = 39
    found = bl.audit(model, data, **options).record.performance
    assert found is not None
    assert found.classification is not None
    return found.classification.accuracy.value


# ---- names of a data set


NAMES = ("top", "middle", "bottom")


def image_model(module: BilinearClassifier) -> LoadedModel:
    return LoadedModel(module, "m", "0" * 64, (2, 2), NAMES, {})


def data_set(
    module: BilinearClassifier, order: tuple[str, ...], own: tuple[str, ...]
) -> ImageDataset:
    """Images of which the model answers each rightly; `own` is how the data spell `order`.

    Those of a class that is not in the order are left out.
    """
    x = inputs()
    answers = [NAMES[at] for at in module(x).argmax(dim=1).tolist()]
    x = x[[name in order for name in answers]]
    labels = torch.tensor([order.index(name) for name in answers if name in order])
    return ImageDataset("mine", x, labels, x, labels, (2, 2), own, "drawn", "tensors")


@pytest.mark.parametrize(
    "own",
    [
        ("Middle", "BOTTOM ", "top"),
        ("middle", "bottom", "top", "never met"),
        (" ｍｉｄｄｌｅ", "bottom", "Top"),
    ],
    ids=["case and space", "one more", "width"],
)
@fewer(2)
@given(seed=seeds)
@cell("audit", "permuted outputs", "other names")
def test_a_data_set_spells_its_classes_as_it_likes(own: tuple[str, ...], seed: int) -> None:
    """100 % were told as few, since the names differed in a letter and positions were taken."""
    module = module_of(seed)
    data = data_set(module, ("middle", "bottom", "top"), own)
    assert accuracy(image_model(module), data) == 1.0


def test_a_data_set_that_lacks_a_class_is_read_by_names() -> None:
    module = module_of(3)
    data = data_set(module, ("bottom", "middle"), ("bottom", "middle"))
    assert len({*data.test_labels.tolist()}) == 2
    assert accuracy(image_model(module), data) == 1.0


def test_a_class_of_a_data_set_that_the_model_has_not_is_refused() -> None:
    module = module_of(3)
    data = data_set(module, NAMES, ("top", "centre", "bottom"))
    with pytest.raises(DataError, match="label 'centre', which is no class of the model"):
        accuracy(image_model(module), data)


def test_names_that_are_none_of_the_models_number_its_classes() -> None:
    module = module_of(3)
    data = data_set(module, NAMES, ("high", "centre", "low"))
    assert accuracy(image_model(module), data) == 1.0


# ---- numbers that are positions and names


@pytest.mark.parametrize("names", [("2", "0", "1"), ("1", "2", "0")])
@fewer(2)
@given(seed=seeds)
@cell("audit", "permuted outputs", "other names", "other dtype")
def test_numbers_that_are_names_and_positions_are_refused(
    names: tuple[str, ...], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """They were positions in an array and names in a table: 100 % there and 30 % here."""
    module, folder = module_of(seed), tmp_path_factory.mktemp("m")
    model, x = saved(module, folder / "model", names), inputs()
    texts = np.array([names[at] for at in module(x).argmax(dim=1).tolist()])
    np.save(folder / "x.npy", x.numpy())
    np.save(folder / "y.npy", texts.astype(int))
    (folder / "y.csv").write_text("y\n" + "\n".join(texts) + "\n")
    for labels in (texts.astype(int), texts.astype(float), texts == "1"):
        with pytest.raises(DataError, match=r"names of its classes .* as texts"):
            accuracy(model, (x, labels))
    with pytest.raises(DataError, match=r"names of its classes .* as texts"):
        accuracy(model, folder / "x.npy", labels=str(folder / "y.npy"))
    assert accuracy(model, (x, texts)) == 1.0
    assert accuracy(model, (x, module(x).argmax(dim=1))) == 1.0  # of torch: positions
    assert accuracy(model, folder / "x.npy", labels=str(folder / "y.csv")) == 1.0


@pytest.mark.parametrize("names", [("0", "1", "2"), ("7", "8", "9"), ("a", "b", "c")])
@cell("audit", "other names")
def test_numbers_of_one_meaning_are_read(names: tuple[str, ...], tmp_path: Path) -> None:
    module, x = module_of(5), inputs()
    model, labels = saved(module, tmp_path / "model", names), module(x).argmax(dim=1)
    for given_labels in (labels, labels.numpy()):
        assert accuracy(model, (x, given_labels)) == 1.0


# ---- outputs that are asked for


@fewer(2)
@given(seed=seeds)
@cell("decompose", "permuted outputs", "other names")
@cell("attack", "permuted outputs", "other names")
def test_a_text_is_a_name_where_classes_are_called_by_numbers(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """`1,2` gave the classes that are called 1 and 2, and `1-2` those called 2 and 3."""
    module, x = module_of(seed), inputs()
    model = saved(module, tmp_path_factory.mktemp("m") / "model", ("1", "2", "3"))
    data = (x, (torch.arange(ROWS) % 3).numpy())

    def asked(**options: Any) -> list[str]:
        layer = LayerOutputs.from_model(model, "layers.0")
        return read_outputs(layer, Request(**options)).names

    assert asked(outputs="1,2") == ["1", "2"]
    assert asked(outputs=(1, 2)) == ["2", "3"]
    assert asked(contrast=("3", "1")) == ["3 − 1"]
    for refused in ({"outputs": "1-2"}, {"outputs": "0"}, {"contrast": ("0", "1")}):
        with pytest.raises(BilensError, match=r"names no output .*names 1, 2, 3"):
            asked(**refused)
    for options in ({"target": "0"}, {"target": "2", "source": "0"}):
        with pytest.raises(BilensError, match=r"names no output .*names 1, 2, 3"):
            bl.attack_model(model, data, epsilons=[0.5], **options)
    record = bl.attack_model(model, data, target="1", epsilons=[0.5]).record
    assert {one.target for one in record.objectives} == {0}


def test_a_span_of_positions_is_read_where_outputs_have_no_numbers_for_names(
    tmp_path: Path,
) -> None:
    for names, expected in ((None, ["1", "2"]), (("a", "b", "c"), ["b", "c"])):
        bl.save(module_of(6), tmp_path / "m", output_names=names, overwrite=True)
        layer = LayerOutputs.from_model(bl.load(tmp_path / "m"), "layers.0")
        assert read_outputs(layer, Request(outputs="1-2")).names == expected


# ---- columns of a table in memory


COLUMNS = [("age", "width", "size", "mass"), ("x0", "x1", "x2", "x3"), ("x1", "x2", "x3", "x0")]


@pytest.mark.parametrize("columns", COLUMNS)
@fewer(2)
@given(seed=seeds, order=st.permutations(range(4)))
@cell("audit", "permuted inputs", "other names")
def test_columns_are_found_by_name_also_where_names_say_a_place(
    columns: tuple[str, ...], seed: int, order: list[int]
) -> None:
    """Names such as x0 are those of a training without names, and names all the same."""
    module, x = module_of(seed), inputs()
    model = LoadedModel(module, "m", "0" * 64, None, NAMES, {}, input_names=columns)
    right = np.array([NAMES[at] for at in module(x).argmax(dim=1).tolist()])
    table = pd.DataFrame(x.numpy(), columns=[*columns])
    moved = table[[columns[at] for at in order]]
    assert accuracy(model, (moved, right)) == 1.0
    assert accuracy(model, (moved.assign(more=1.0), right)) == 1.0
    other = moved.rename(columns={columns[0]: "another"})
    with pytest.raises(DataError, match=f"no columns '{columns[0]}'"):
        accuracy(model, (other, right))
