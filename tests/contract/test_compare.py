"""Guards against a comparison of two models by place: a class, column or unit is what it is called.

Each was seen to fail: classes paired in the order of their logits (names exchanged were no change,
classes in another order one of 173 %), the new model's means and fills given to the baseline, a
column in grams beside one in kilograms, equal moments taken for a renamed column, hidden units
paired by place, residual streams of other coordinates compared as if they were one.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn

import bilens as bl
from bilens.io.load import load
from bilens.io.loaded_model import LoadedModel
from bilens.io.model_folder import save
from contract.compared_models import (
    ANIMALS,
    COLUMNS,
    EXACT,
    change_by_hand,
    classifier,
    compared,
    copied,
    generator_of,
    images,
    only_layer,
    table,
    with_common_function,
    with_inputs,
    with_outputs,
    with_units,
    with_units_permuted,
)
from contract.drawn import drawn, fewer
from contract.table import cell

SEEDS = st.integers(0, 2**20)
FEW = {"null_samples": 39}


def same(document: dict[str, Any]) -> bool:
    """Whether a comparison says that the layer is the same function."""
    layer = only_layer(document)
    whole = layer["identical"] or layer["same_function"]
    return bool(whole and (layer["change"] or 0) <= EXACT)


def notes(document: dict[str, Any]) -> dict[str, list[str]]:
    return {one["kind"]: one["names"] for one in document["difference"]["aligned"]}


# ---- classes


@cell("compare", "permuted outputs")
@drawn
@given(SEEDS, st.permutations(range(3)))
def test_classes_in_another_order_are_the_same_classes(seed: int, order: list[int]) -> None:
    model = images(seed)
    found = compared(with_outputs(model, order), model, **FEW)
    assert same(found)
    assert ("outputs_reordered" in notes(found)) == (order != [0, 1, 2])


@cell("compare", "other names")
@drawn
@given(SEEDS)
def test_exchanged_names_are_another_function(seed: int) -> None:
    model = images(seed)
    exchanged = copied(model, output_names=("bee", "ape", "cat"))
    layer = only_layer(compared(exchanged, model, **FEW))
    assert layer["change"] == pytest.approx(change_by_hand(exchanged, model), rel=1e-9)
    assert layer["change"] > 0.1


@cell("compare", "other names")
def test_classes_without_a_counterpart_are_named_and_not_compared() -> None:
    model = images(0)
    found = compared(copied(model, output_names=("Affe", "bee", "cat")), model, **FEW)
    layer = only_layer(found)
    assert layer["change"] is None
    assert "Affe" in layer["refused"]
    assert "ape" in layer["refused"]
    assert (notes(found)["outputs_alone"], notes(found)["baseline_outputs_alone"]) == (
        ["Affe"],
        ["ape"],
    )


@cell("compare", "other names")
def test_one_model_without_names_is_matched_by_place_and_says_so() -> None:
    found = compared(images(3), copied(images(3), output_names=None), **FEW)
    assert same(found)
    assert notes(found)["by_place"] == ["outputs"]


@cell("compare", "common function", "same function")
@drawn
@given(SEEDS)
def test_what_is_added_to_all_logits_changes_nothing(seed: int) -> None:
    model = images(seed)
    assert same(compared(with_common_function(model, seed + 1), model, **FEW))


# ---- units


@cell("compare", "permuted units", "scaled branches", "same function")
@drawn
@given(SEEDS, st.permutations(range(5)))
def test_hidden_units_in_another_order_and_scale_are_the_same_function(
    seed: int, order: list[int]
) -> None:
    model = images(seed)
    scale = torch.rand(5, generator=generator_of(seed), dtype=torch.float64) + 0.5
    scale[::2] *= -1
    layer = only_layer(compared(with_units_permuted(model, order, scale), model, **FEW))
    assert layer["same_function"]
    assert layer["change"] < EXACT
    assert layer["gaussian"] == pytest.approx(1, abs=1e-12)


@cell("compare", "other function")
@drawn
@given(SEEDS, st.permutations(range(5)), st.floats(-5, -1))
def test_a_small_change_behind_a_permutation_keeps_its_digits(
    seed: int, order: list[int], power: float
) -> None:
    model = images(seed)
    moved = copied(model)
    with torch.no_grad():
        moved.module.head.weight[1, 2] += 10.0**power  # type: ignore[union-attr]
    layer = only_layer(
        compared(with_units_permuted(moved, order, torch.ones(5).double()), model, **FEW)
    )
    assert layer["change"] == pytest.approx(change_by_hand(moved, model), rel=1e-4)
    assert not layer["same_function"]


@cell("compare", "other dtype")
@drawn
@given(SEEDS)
def test_the_same_numbers_in_another_type_are_no_change(seed: int) -> None:
    module = classifier(seed).float()
    wide = copy.deepcopy(module).double()
    models = (LoadedModel(one, "", "", output_names=ANIMALS) for one in (wide, module))
    layer = only_layer(compared(*models, **FEW))
    assert layer["identical"]


@cell("compare", "saved")
def test_a_saved_model_is_the_one_in_memory(tmp_path: Path) -> None:
    model = copied(images(4))
    model.module.float()  # type: ignore[union-attr]
    save(model.module, tmp_path / "a", output_names=ANIMALS, input_shape=(2, 3))
    order = [2, 0, 1]
    other = with_outputs(model, order)
    save(other.module, tmp_path / "b", output_names=other.output_names, input_shape=(2, 3))
    for pair in ((load(tmp_path / "b"), model), (load(tmp_path / "b"), load(tmp_path / "a"))):
        assert same(compared(*pair, **FEW))


# ---- other heads


def fitted(kind: str, x: Any, y: Any) -> Any:
    sklearn = pytest.importorskip("sklearn.neural_network")
    about = {"hidden_layer_sizes": (5,), "activation": "tanh", "max_iter": 20, "random_state": 0}
    with pytest.warns(Warning, match="converge"):
        return getattr(sklearn, kind)(**about).fit(x, y)


@cell("compare", "same function")
def test_one_logit_is_the_second_of_two_less_the_first() -> None:
    x = np.random.default_rng(0).normal(size=(60, 3))
    two = fitted("MLPClassifier", x, (x[:, 0] > 0).astype(int))
    one = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    with torch.no_grad():
        for part, weight, bias in zip(one[::2], two.coefs_, two.intercepts_, strict=True):
            part.weight.copy_(torch.from_numpy(weight.T))
            part.bias.copy_(torch.from_numpy(bias))
    said = one(torch.from_numpy(x).float()).detach().sigmoid()[:, 0].numpy()
    np.testing.assert_allclose(said, two.predict_proba(x)[:, 1], atol=1e-6)
    for pair in ((one, two), (two, one)):
        found = compared(*pair, null_samples=3)
        layer = only_layer(found)
        assert layer["change"] == pytest.approx(0, abs=1e-6)
        assert layer["gaussian"] == pytest.approx(1, abs=1e-6)
        assert "one_logit" in notes(found)
    with torch.no_grad():  # the first class in the place of the second one is another function
        one[2].weight.mul_(-1)
    assert only_layer(compared(one, two, null_samples=3))["change"] == pytest.approx(2, abs=1e-5)


@cell("compare", "other function")
def test_numbers_are_not_compared_with_logits() -> None:
    x = np.random.default_rng(0).normal(size=(60, 3))
    y = (x[:, 0] > 0).astype(int)
    regressor = fitted("MLPRegressor", x, np.stack([y, 1 - y], axis=1).astype(float))
    classes = fitted("MLPClassifier", x, y)
    layer = only_layer(compared(classes, regressor, null_samples=3))
    assert "numbers" in layer["refused"]
    assert layer["gaussian"] is None


# ---- columns


@cell("compare", "permuted inputs", "permuted outputs")
@drawn
@given(SEEDS, st.permutations(range(4)), st.permutations(range(3)))
def test_columns_in_another_order_are_the_same_columns(
    seed: int, order: list[int], outputs: list[int]
) -> None:
    model = table(seed)
    found = compared(with_outputs(with_inputs(model, order), outputs), model)
    assert found["column_changes"]["change"] < EXACT
    assert same(found)


@cell("compare", "other units")
@drawn
@given(SEEDS)
def test_grams_are_a_thousandth_of_kilograms(seed: int) -> None:
    model = table(seed)
    heavy = with_units(model, {"mass": "kg"})
    mean, scale = ([*part] for part in (model.input_mean or (), model.input_scale or ()))
    mean[2], scale[2] = 1000 * mean[2], 1000 * scale[2]
    light = with_units(
        copied(model, input_mean=tuple(mean), input_scale=tuple(scale)), {"mass": "g"}
    )
    with torch.no_grad():
        light.module.embed.weight[:, 2] /= 1000  # type: ignore[union-attr]
    for pair in ((light, heavy), (heavy, light)):
        found = compared(*pair)
        assert found["column_changes"]["change"] < EXACT
        assert same(found)
        (said,) = notes(found)["units"]
        assert "mass" in said


@cell("compare", "other units", "other function")
@pytest.mark.parametrize("units", [("m", "kg"), ("Mg", "mg"), ("MW", "mW"), ("M", "m")])
def test_units_that_have_no_factor_are_not_compared(units: tuple[str, str]) -> None:
    model, other = (with_units(table(1), {"size": unit}) for unit in units)
    found = compared(model, other)
    assert found["column_changes"]["added"] == ["size"]
    assert found["column_changes"]["removed"] == ["size"]
    assert "size" in only_layer(found)["refused"]


@cell("compare", "other names")
def test_a_column_of_the_same_moments_is_another_column() -> None:
    model = table(2)
    other = copied(model, input_names=("male", *COLUMNS[1:]))
    found = compared(other, model)
    changes = found["column_changes"]
    assert (changes["added"], changes["removed"]) == (["male"], ["age"])
    assert changes["renamed"] == [["age", "male"]]  # perhaps
    text = bl.audit(other, baseline=model, command="here").to_markdown()
    assert "Perhaps renamed" in text
    assert "+ male, − age" in text


# ---- answers


def csv_of(path: Path, names: tuple[str, ...], rows: list[list[str]]) -> Path:
    text = [",".join(names), *(",".join(row) for row in rows)]
    path.write_text("\n".join(text) + "\n")
    return path


def moved_rows(before: list[str], after: list[str]) -> list[list[Any]]:
    """The rows of a table whose answers differ, as a spreadsheet numbers them."""
    both = enumerate(zip(before, after, strict=True), 2)
    return [[row, one, other] for row, (one, other) in both if one != other]


def by_hand(model: LoadedModel, x: np.ndarray[Any, Any]) -> list[str]:
    logits = model.module(torch.from_numpy(x))  # type: ignore[misc]
    return [(model.output_names or ())[at] for at in logits.argmax(dim=1).tolist()]


@cell("compare", "own object", "other function")
@drawn
@given(seed=SEEDS)
def test_each_model_fills_what_is_missing_with_its_own_means(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    model, before = (with_units(one, {}) for one in (table(seed), table(seed + 7)))
    values = 3 * torch.randn(40, 4, generator=generator_of(seed), dtype=torch.float64)
    cells = [[f"{one:.6f}" for one in row] for row in values.tolist()]
    for row in range(40):
        cells[row][row % 4] = ""
    path = csv_of(tmp_path_factory.mktemp("rows") / "rows.csv", COLUMNS, cells)
    said = []
    for one in (model, before):
        x = [
            [
                float(text) if text else mean
                for text, mean in zip(row, one.input_mean or (), strict=True)
            ]
            for row in cells
        ]
        said.append(by_hand(one, np.array(x)))
    found = compared(model, before, path)["column_changes"]
    assert (found["rows"], found["changed"]) == (40, len(moved_rows(said[1], said[0])))
    assert found["examples"] == moved_rows(said[1], said[0])[:12]


@cell("compare", "repeated rows", "shuffled rows", "sorted rows", "permuted inputs")
@drawn
@given(SEEDS, st.permutations(range(4)))
def test_the_answers_that_differ_do_not_depend_on_the_order_of_rows_or_columns(
    seed: int, order: list[int]
) -> None:
    model, before = table(seed), with_inputs(table(seed + 3), order)
    x = 3 * torch.randn(60, 4, generator=generator_of(seed), dtype=torch.float64)
    right = torch.randint(3, (60,), generator=generator_of(seed))
    places = torch.randperm(60, generator=generator_of(seed))
    moved = [
        one != other
        for one, other in zip(
            by_hand(model, x.numpy()), by_hand(before, x[:, order].numpy()), strict=True
        )
    ]
    for rows, times in ((torch.arange(60), 1), (places, 1), (right.argsort(), 1), (places, 2)):
        at = rows.repeat(times)
        names = [ANIMALS[one] for one in right[at].tolist()]
        found = compared(model, before, (x[at].numpy(), np.array(names)))["column_changes"]
        assert (found["rows"], found["changed"]) == (60 * times, sum(moved) * times)


@cell("compare", "other units")
def test_rows_in_the_units_of_the_model_are_converted_for_the_baseline(tmp_path: Path) -> None:
    model = with_units(table(5), {"mass": "kg"})
    before = with_units(table(8), {"mass": "g"})
    values = 3 * torch.randn(40, 4, generator=generator_of(1), dtype=torch.float64)
    cells = [[f"{one:.6f}" for one in row] for row in values.tolist()]
    for at, row in enumerate(cells):
        row[2] = f"{row[2]} kg" if at % 4 == 0 else ""
    path = csv_of(tmp_path / "rows.csv", COLUMNS, cells)
    x = np.array([[float(one.split()[0]) if one else 0 for one in row] for row in cells])
    mine, theirs, lacking = x.copy(), x * [1, 1, 1000, 1], x[:, 2] == 0
    mine[lacking, 2] = (model.input_mean or ())[2]
    theirs[lacking, 2] = (before.input_mean or ())[2]
    moved = moved_rows(by_hand(before, theirs), by_hand(model, mine))
    found = compared(model, before, path)["column_changes"]
    assert (found["rows"], found["changed"]) == (40, len(moved))
    assert found["examples"] == moved[:12]


# ---- layers of language models


def turned(model: Any, seed: int) -> Any:
    """The same language model with its residual stream in other coordinates."""
    other = copy.deepcopy(model).double()
    width = other.embed.weight.shape[1]
    gauss = torch.randn(width, width, generator=generator_of(seed), dtype=torch.float64)
    turn = torch.linalg.qr(gauss).Q
    with torch.no_grad():
        for table_ in {id(one.weight): one.weight for one in (other.embed, other.unembed)}.values():
            table_.copy_(table_ @ turn)
        for block in other.blocks:
            for name, part in block.named_parameters():
                if part.ndim != 2:
                    continue
                writes = name.endswith(("down.weight", "o.weight", "out.weight", "project.weight"))
                part.copy_(turn.T @ part if writes else part @ turn)
    return other


@pytest.fixture(scope="module")
def language() -> Any:
    torch.manual_seed(0)
    return bl.nn.BilinearTransformer(40, 8, 12, 2, 2, 16).double()


@cell("compare", "same function")
@fewer(2)
@given(seed=SEEDS)
def test_a_turned_residual_stream_is_the_same_function(language: Any, seed: int) -> None:
    other = turned(language, seed)
    tokens = torch.randint(40, (3, 9), generator=generator_of(seed))
    with torch.no_grad():  # by hand: it is the same language model
        torch.testing.assert_close(other(tokens), language(tokens))
    found = compared(other, language, null_samples=3)
    for layer in found["difference"]["layers"]:
        assert layer["matched"] == ["stream"]
        assert layer["change"] < 1e-6  # embeddings are read in float32
        assert layer["gaussian"] == pytest.approx(1, abs=1e-9)


@cell("compare", "other function")
def test_streams_of_two_trainings_give_no_number(language: Any) -> None:
    torch.manual_seed(1)
    other = bl.nn.BilinearTransformer(40, 8, 12, 2, 2, 16).double()
    found = compared(other, language, null_samples=3)
    for layer in found["difference"]["layers"]:
        assert "coordinates" in layer["refused"]
        assert layer["gaussian"] is None
    near = copy.deepcopy(language)
    with torch.no_grad():
        near.blocks[1].mlp.down.weight[0, 0] += 0.01
        near.embed.weight.mul_(1.01)
    first, second = compared(near, language, null_samples=3)["difference"]["layers"]
    assert first["identical"]
    assert second["refused"] is None
    assert 0 < second["change"] < 0.1


@cell("compare", "permuted units")
@fewer(2)
@given(seed=SEEDS)
def test_hidden_units_of_a_language_model_in_another_order(language: Any, seed: int) -> None:
    other = copy.deepcopy(language)
    with torch.no_grad():
        for block in other.blocks:
            order = torch.randperm(12, generator=generator_of(seed))
            for branch in (block.mlp.left, block.mlp.right):
                branch.weight.copy_(branch.weight[order].clone())
            block.mlp.down.weight.copy_(block.mlp.down.weight[:, order].clone())
    for layer in compared(other, language, null_samples=3)["difference"]["layers"]:
        assert layer["change"] < EXACT
        assert layer["identical"] or layer["same_function"]


@cell("compare", "threads")
def test_two_threads_find_what_one_finds(language: Any) -> None:
    other = copy.deepcopy(language)
    with torch.no_grad():
        other.blocks[0].mlp.down.weight[0, 0] += 0.1
    found = []
    before = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(compared(other, language, null_samples=3)["difference"]["layers"][0])
    finally:
        torch.set_num_threads(before)
    assert found[0]["change"] == pytest.approx(found[1]["change"], rel=1e-12)


def with_head(*head: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3), *head).eval()


@cell("compare", "other function")
@pytest.mark.parametrize(
    ("head", "before"),
    [((), (nn.Softmax(-1),)), ((nn.LogSoftmax(-1),), (nn.Softmax(-1),)), ((nn.Softmax(-1),), ())],
)
def test_another_head_is_a_change(head: tuple[Any, ...], before: tuple[Any, ...]) -> None:
    def compare(one: Any, other: Any) -> Any:
        model, baseline = (bl.from_module(with_head(*ends)) for ends in (one, other))
        asked = ["similarity<0.99"]
        return bl.audit(model, baseline=baseline, null_samples=3, fail_on=asked)

    found = compare(head, before)
    assert found.passed is False
    assert "similarity" not in [one.rule for one in found.record.verdict]
    assert "behind the last layer the model has" in str(found.to_dict())
    same = compare(head, head)
    assert [one.failed for one in same.record.conditions] == [False]


@cell("compare", "permuted inputs", "other function")
@pytest.mark.parametrize("shapes", [((2, 3), (3, 2)), ((1, 2, 3), (2, 3, 1))])
def test_images_laid_out_otherwise_are_not_compared_pixel_by_place(
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    model, other = (images(3, input_shape=shape) for shape in shapes)
    alike = [side for side in shapes[0] if side > 1] == [side for side in shapes[1] if side > 1]
    assert bool(only_layer(compared(model, other))["refused"]) != alike
