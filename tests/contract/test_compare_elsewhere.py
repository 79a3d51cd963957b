"""Guards against an explorer or a sweep that compares by place what an audit compares by name.

Each was seen to fail: tables compared in the explorer whatever columns and units are called (141 %
told for 0), the eigenvectors of one class beside those of another that stands in its place, classes
of two dates paired in their order, a turned language model swept as another function.
"""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given

import bilens as bl
from bilens.io.loaded_model import LoadedModel
from bilens.records.base import json_text
from bilens.records.column_readings import TableColumn, TableReading
from bilens.records.sweep import SweepOptions
from bilens.sweep.driver import drive, plan_of
from bilens.sweep.jobs import result_name
from bilens.sweep.output import SweepOutput
from bilens_explorer.records.models import id_of
from contract.compared_models import (
    ANIMALS,
    EXACT,
    change_by_hand,
    copied,
    images,
    picked,
    table,
    with_inputs,
    with_outputs,
    with_units,
    with_units_permuted,
)
from contract.drawn import fewer
from contract.table import cell
from contract.test_compare import SEEDS, turned
from contract.test_compare_neurons import network, with_neurons_permuted
from engine_here import Here

pytest.importorskip("starlette")


def written(root: Path, name: str, model: LoadedModel) -> str:
    """Save a model in a folder and return its key in the explorer."""
    parts = ("input_shape", "output_names", "input_names", "input_mean", "input_scale")
    about = {part: getattr(model, part) for part in parts}
    bl.save(model.module, root / name, provenance=dict(model.provenance), **about)
    return id_of(name)


def explored(root: Path, model: LoadedModel, baseline: LoadedModel, **query: str) -> Any:
    """What the explorer says of a model beside another one."""
    from explorer_server import client_of

    a, b = written(root, "before", baseline), written(root, "after", model)
    where = "/api/v1/compare/eigenvectors" if query else "/api/v1/compare"
    with client_of(root) as client:
        return client.get(where, params={"a": a, "b": b, **query}).json()


@cell("explore", "other units", "permuted inputs", "permuted outputs", "same function")
@fewer(2)
@given(seed=SEEDS)
def test_tables_are_compared_by_the_names_and_units_of_columns(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    model = table(seed)
    heavy = with_units(model, {"mass": "kg"})
    light = with_outputs(with_inputs(in_grams(model), [3, 2, 0, 1]), [1, 2, 0])
    light = with_units(light, {"mass": "g"})
    found = explored(tmp_path_factory.mktemp("a"), light, heavy)["difference"]
    (layer,) = found["layers"]
    assert layer["identical"] or layer["same_function"]
    assert (layer["change"] or 0) < EXACT
    kinds = {one["kind"] for one in found["aligned"]}
    assert kinds == {"inputs_reordered", "outputs_reordered", "units"}


@cell("explore", "other names", "other function", "permuted units", "scaled branches")
@fewer(2)
@given(seed=SEEDS)
def test_exchanged_names_are_another_function_in_the_explorer(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    model = images(seed)
    same = with_units_permuted(model, [4, 2, 0, 1, 3], 2 * torch.ones(5).double())
    (layer,) = explored(tmp_path_factory.mktemp("a"), same, model)["difference"]["layers"]
    assert layer["same_function"]
    exchanged = copied(same, output_names=("bee", "ape", "cat"))
    (layer,) = explored(tmp_path_factory.mktemp("b"), exchanged, model)["difference"]["layers"]
    assert layer["change"] == pytest.approx(change_by_hand(exchanged, model), rel=1e-9)


@cell("explore", "permuted outputs", "permuted inputs")
def test_eigenvectors_are_those_of_the_same_class(tmp_path: Path) -> None:
    model = table(3)
    other = with_outputs(with_inputs(model, [3, 2, 0, 1]), [1, 2, 0])
    found = explored(tmp_path, other, model, layer="layers.0", output="0")
    assert all(pair["a"] == pair["b"] for pair in found["pairs"])
    assert min(pair["cosine"] for pair in found["pairs"]) == pytest.approx(1, abs=1e-9)
    assert found["a"]["values"] == pytest.approx(found["b"]["values"])
    assert (found["a"]["output"], found["b"]["output"]) == ("0", "2")  # of which a label is
    names = [found[side]["vectors"]["input_names"] for side in "ab"]
    assert names[0] == names[1] == [*(model.input_names or ())]  # as the vectors stand


# ---- sweeps


def swept(folder: Path, model: Path, baseline: Path, halves: int = 1) -> list[dict[str, Any]]:
    """What a sweep says of each layer beside a baseline; in so many goes."""
    options = SweepOptions(tasks=("compare",), null_samples=3, baseline=str(baseline))
    output = SweepOutput(str(folder))
    for _ in range(halves):
        plan = plan_of(str(model), options, output)
        assert drive(plan, output, Here).is_complete
        if halves > 1:  # lost: it is done again
            (folder / result_name("compare", 0)).unlink(missing_ok=True)
    assert drive(plan, output, Here).is_complete
    paths = [folder / result_name("compare", row) for row in range(len(plan.rows))]
    return [json.loads(path.read_bytes()) for path in paths]


def saved(folder: Path, model: Any) -> Path:
    written_ = bl.save(model, folder)
    return Path(written_)


@cell("sweep", "same function", "other function", "permuted units", "resumed", "own object")
def test_a_sweep_compares_streams_by_their_tokens(tmp_path: Path) -> None:
    torch.manual_seed(0)
    language = bl.nn.BilinearTransformer(40, 8, 12, 2, 2, 16).double()
    other = turned(language, 1)
    with torch.no_grad():
        order = torch.randperm(12)
        for name in ("left", "right"):
            part = getattr(other.blocks[0].mlp, name).weight
            part.copy_(part[order].clone())
        down = other.blocks[0].mlp.down.weight
        down.copy_(down[:, order].clone())
        other.blocks[1].mlp.down.weight.mul_(1.5)
    torch.manual_seed(1)
    stranger = bl.nn.BilinearTransformer(40, 8, 12, 2, 2, 16).double()
    base, near, far = (
        saved(tmp_path / name, one)
        for name, one in (("a", language), ("b", other), ("c", stranger))
    )
    first, second = swept(tmp_path / "near", near, base, halves=2)
    assert first["record"]["change"] < 1e-6
    assert first["numbers"]["similarity"] == pytest.approx(1, abs=1e-9)
    assert second["record"]["change"] == pytest.approx(0.5, abs=1e-6)
    for one in swept(tmp_path / "far", far, base):
        assert one["numbers"]["similarity"] is None
        assert "coordinates" in one["record"]["refused"]


@cell("sweep", "permuted outputs", "other names", "same function")
@fewer(2)
@given(seed=SEEDS)
def test_a_sweep_compares_classes_by_their_names(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    root, model = tmp_path_factory.mktemp("a"), images(seed)
    order = [2, 0, 1]
    other = with_outputs(model, order)
    exchanged = copied(model, output_names=picked(ANIMALS, [1, 0, 2]))
    for name, one in (("a", model), ("b", other), ("c", exchanged)):
        written(root, name, one)
    (found,) = swept(root / "b-out", root / "b", root / "a")
    assert found["numbers"]["similarity"] == pytest.approx(1)
    (found,) = swept(root / "c-out", root / "c", root / "a")
    change = change_by_hand(exchanged, model)
    assert found["record"]["change"] == pytest.approx(change, rel=1e-9)


def in_grams(model: LoadedModel) -> LoadedModel:
    """The same function, where the third column is a thousand times as large."""
    mean, scale = ([*part] for part in (model.input_mean or (), model.input_scale or ()))
    mean[2], scale[2] = 1000 * mean[2], 1000 * scale[2]
    found = copied(model, input_mean=tuple(mean), input_scale=tuple(scale))
    with torch.no_grad():
        found.module.embed.weight[:, 2] /= 1000  # type: ignore[union-attr]
    return with_units(found, {"mass": "g"})


def in_standard_units(model: LoadedModel) -> LoadedModel:
    found = copied(model)
    with torch.no_grad():
        found.module.embed.weight *= torch.tensor(model.input_scale)  # type: ignore[union-attr]
    return found


def in_another_type(model: LoadedModel, dtype: torch.dtype) -> LoadedModel:
    """Numbers that single precision has, in a type."""
    found = copied(model)
    found.module.float().to(dtype)  # type: ignore[union-attr]
    return found


def saved_again(root: Path, model: LoadedModel) -> LoadedModel:
    written(root, "first", model)
    return bl.load(root / "first")


SWEPT: dict[str, Callable[[Path, LoadedModel], LoadedModel]] = {
    "permuted inputs": lambda _, model: with_units(
        with_inputs(model, [3, 2, 0, 1]), {"mass": "kg"}
    ),
    "scaled branches": lambda _, model: with_units_permuted(
        model, [*range(5)], torch.tensor([2, -3, 0.1, 1, 50]).double()
    ),
    "other units": lambda _, model: in_grams(model),
    "other dtype": lambda _, model: in_another_type(model, torch.float32),
    "saved": saved_again,
    "threads": lambda _, model: model,
}


@pytest.mark.parametrize("relation", SWEPT)
@cell("sweep", *SWEPT, "same function", "other function")
def test_a_sweep_tells_the_same_change_however_a_table_is_written(
    relation: str, tmp_path: Path
) -> None:
    """That in standard units, by hand; seen red: of a column in grams 0.49, in kilograms 0.62."""
    kilograms = with_units(table(3), {"mass": "kg"})
    baseline = in_another_type(kilograms, torch.float64)
    changed = copied(baseline)
    with torch.no_grad():
        changed.module.head.weight[1] *= 2  # type: ignore[union-attr]
    known = change_by_hand(*map(in_standard_units, (changed, baseline)))
    before = torch.get_num_threads()
    written(tmp_path, "baseline", baseline)
    try:
        torch.set_num_threads(2 if relation == "threads" else before)
        for name, model, change in (("same", baseline, 0.0), ("other", changed, known)):
            folder = tmp_path / name
            written(folder, "model", SWEPT[relation](folder, model))
            (found,) = swept(folder / "out", folder / "model", tmp_path / "baseline")
            assert found["record"]["change"] == pytest.approx(change, rel=1e-6, abs=1e-9)
            assert (found["numbers"]["similarity"] == pytest.approx(1, abs=1e-9)) is (change == 0)
    finally:
        torch.set_num_threads(before)


@cell("explore", "other units")
def test_eigenvalues_of_another_unit_are_shown_in_the_first_one(tmp_path: Path) -> None:
    """A target in grams beside one in kilograms had eigenvalues a thousand times as large."""
    model = table(4, outputs=("mass",))
    other = copied(model)
    with torch.no_grad():
        other.module.head.weight *= 1000  # type: ignore[union-attr]
        if other.module.head.bias is not None:  # type: ignore[union-attr]
            other.module.head.bias *= 1000  # type: ignore[union-attr]

    def of_target(one: LoadedModel, unit: str) -> LoadedModel:
        target = TableColumn("mass", "number", (), unit)
        columns = tuple(TableColumn(n, "number", (n,), "") for n in one.input_names or ())
        said = json_text(TableReading(columns, (), target=target))
        return replace(one, provenance={"reading": said, "target": "mass"})

    both = of_target(other, "g"), of_target(model, "kg")
    found = explored(tmp_path, *both, layer="layers.0", output="0")
    assert found["b"]["values"] == pytest.approx(found["a"]["values"], rel=1e-6)


@cell("explore", "same function", "other function")
def test_eigenvectors_of_residual_streams_are_of_one_stream_or_refused(tmp_path: Path) -> None:
    """Those of a turned stream, and of another training, were laid beside each other."""
    torch.manual_seed(0)
    language = bl.nn.BilinearTransformer(40, 8, 12, 2, 2, 16).double()
    near = copy.deepcopy(language)
    with torch.no_grad():
        near.blocks[0].mlp.down.weight.mul_(1.01)
    torch.manual_seed(1)
    stranger = bl.nn.BilinearTransformer(40, 8, 12, 2, 2, 16).double()
    from explorer_server import client_of

    for name, one in (
        *(("a", language), ("b", near)),
        *(("c", turned(language, 1)), ("d", stranger)),
    ):
        bl.save(one, tmp_path / name)
    layer = next(iter(bl.load(tmp_path / "a").layers))
    with client_of(tmp_path) as client:
        told = {
            name: client.get(
                "/api/v1/compare/eigenvectors",
                params={"a": id_of("a"), "b": id_of(name), "layer": layer, "output": "0"},
            ).json()
            for name in "bcd"
        }
    assert min(pair["cosine"] for pair in told["b"]["pairs"]) > 0.999
    assert "turned" in json.dumps(told["c"])
    assert "coordinates" in json.dumps(told["d"])


@pytest.mark.parametrize("place", [0, 1])
@cell("explore", "permuted units")
def test_eigenvectors_of_neurons_are_of_the_same_neurons(tmp_path: Path, place: int) -> None:
    module = network("bilinear", 2)
    moved = with_neurons_permuted(module, "bilinear", 3)
    both = (LoadedModel(one, "", "", output_names=ANIMALS) for one in (moved, module))
    found = explored(tmp_path, *both, layer=f"layers.{place}", output="0")
    assert found["b"]["values"] == pytest.approx(found["a"]["values"])
    assert min(pair["cosine"] for pair in found["pairs"]) == pytest.approx(1, abs=1e-6)
