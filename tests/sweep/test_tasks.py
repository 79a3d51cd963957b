"""Each task of a sweep finds what the same reading of that one layer finds, written to its file.

Seen red: decompose along the plain outputs instead of the leading directions; compare with the
layer itself; convert without the metadata of a conversion's layer; the generator of one row used
for the next; results written before their tensors.
"""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import bilens as bl
from bench.sweep.deepseek import write_model
from bilens.base.errors import FileError, UsageError
from bilens.nn.mlp import BilinearMLP
from bilens.records.sweep import SweepOptions
from bilens.sweep.driver import drive, plan_of
from bilens.sweep.jobs import result_name
from bilens.sweep.manifest import models_of
from bilens.sweep.output import SweepOutput
from builders import randn
from engine_here import Here
from traced_models import write_model as write_bilinear

EXPERT = "layers.3.mlp.experts.1"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), layers=4, experts=2, files=3)


def swept(model: Path, out: Path, *tasks: str, **said: Any) -> tuple[dict[str, Any], Path]:
    """The results of the row of `EXPERT`, or of the last one, by task."""
    options = SweepOptions(tasks=tasks, null_samples=3, **{"threshold": 0.5, **said})
    output = SweepOutput(str(out))
    plan = plan_of(str(model), options, output)
    assert drive(plan, output, Here).is_complete
    names = [row.name for row in plan.rows]
    row = names.index(EXPERT) if EXPERT in names else len(names) - 1
    found = {task: json.loads((out / result_name(task, row)).read_bytes()) for task in tasks}
    assert all(one["refused"] is None for one in found.values())
    return found, out / f"results/{{}}/000/{row:06d}.safetensors"


def test_what_a_refused_approximation_would_say_is_no_number(model: Path, tmp_path: Path) -> None:
    """Broken once: the share of the strongest input was 0."""
    found, _ = swept(model, tmp_path, "audit", threshold=0.99)
    numbers = found["audit"]["numbers"]
    assert {key for key, value in numbers.items() if value is None} == {
        *("effective_rank", "top_share", "input_share")
    }


def test_readings_are_those_of_the_layer(model: Path, tmp_path: Path) -> None:
    found, tensors = swept(model, tmp_path, "audit", "fit", "decompose", directions=3, top=2)
    layer = bl.load(model).layers[EXPERT]
    fit = bl.quadratic_fit(layer, threshold=0.5, samples=2000)
    assert found["fit"]["numbers"]["r_squared"] == fit.r_squared.quadratic.overall
    assert found["audit"]["numbers"]["r_squared"] == fit.r_squared.quadratic.overall
    (rung,) = found["fit"]["record"]["ladder"]
    assert rung["outputs"] == []  # of 7,168 outputs: gigabytes over all experts
    weights = layer.weights(torch.float64)
    norm = sum(float(part.square().sum()) for part in (weights.down, weights.gate, weights.value))
    assert found["audit"]["numbers"]["weight_norm"] == pytest.approx(norm**0.5)

    dense = bl.quadratic_fit(layer).quadratic_map
    stack = torch.stack([dense.form(row).matrix.dense() for row in torch.eye(64).double()])
    _, sizes, directions = torch.linalg.svd(stack.flatten(1).T, full_matrices=False)
    sigma = torch.linalg.svdvals(stack.flatten(1))
    share = float(sigma[:3].square().sum() / sigma.square().sum())
    assert found["decompose"]["numbers"]["directions_share"] == pytest.approx(share)
    leading = torch.einsum("o,oij->ij", directions[0], stack)
    values = torch.linalg.eigvalsh(leading)
    largest = values[values.abs().argmax()].abs()
    kept = load_file(str(tensors).format("decompose"))
    assert kept["eigenvalues"].shape == (3, 2)
    assert float(kept["eigenvalues"][0, 0].abs()) == pytest.approx(float(largest))
    assert (kept["output_directions"][0] @ directions[0]).abs() == pytest.approx(1.0)
    assert sizes[0] == pytest.approx(float(sigma[0]))


def test_a_changed_expert_is_compared(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "changed"
    other.mkdir()
    for file in model.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    name = f"model.{EXPERT}.down_proj.weight_scale_inv"
    index = json.loads((other / "model.safetensors.index.json").read_text())
    shard = other / index["weight_map"][name]
    parts = load_file(shard)
    parts[name] = 2 * parts[name]
    save_file(parts, shard)
    found, _ = swept(model, tmp_path / "out", "compare", baseline=str(other))
    now = bl.load(model).layers[EXPERT].weights(torch.float64)
    down, gate, value = (float(one.norm()) for one in (now.down, now.gate, now.value))
    change = down / math.hypot(gate, value, 2 * down)
    assert found["compare"]["numbers"]["weight_change"] == pytest.approx(change)
    rows = sorted((tmp_path / "out" / "results" / "compare" / "000").iterdir())
    changes = [json.loads(one.read_bytes())["numbers"]["weight_change"] for one in rows]
    assert sorted(changes)[:-1] == [0.0] * (len(changes) - 1)


def test_a_layer_of_another_kind_is_not_compared(model: Path, tmp_path: Path) -> None:
    """Broken once: the same weights behind another activation were called identical."""
    other = shutil.copytree(model, tmp_path / "other")
    (other / "config.json").write_text((model / "config.json").read_text().replace("silu", "relu"))
    options = SweepOptions(tasks=("compare",), baseline=str(other))
    output = SweepOutput(str(tmp_path / "out"))
    assert drive(plan_of(str(model), options, output), output, Here).is_complete
    refused = json.loads(output.read_bytes(result_name("compare", 0)) or b"")["refused"]
    assert "gated relu 64 → 96 → 64 became gated silu 64 → 96 → 64" in refused


@pytest.mark.parametrize("with_rows", [False, True])
def test_a_layer_of_a_conversion(model: Path, tmp_path: Path, with_rows: bool) -> None:
    said: dict[str, Any] = {}
    generator = torch.Generator().manual_seed(1)
    rows = 0.3 * torch.randn(2000, 64, generator=generator)
    if with_rows:
        seen = tmp_path / "seen"
        seen.mkdir()
        names = bl.load(model).layers
        for name in names:
            save_file({"x": rows}, seen / f"{name}.safetensors")
        said = {"activations": str(seen)}
    found, tensors = swept(model, tmp_path / "out", "convert", **said)
    path = str(tensors).format("convert")
    with safe_open(path, framework="pt") as file:
        arguments = json.loads(file.metadata()["arguments"])
    mlp = BilinearMLP(**arguments).double()
    mlp.load_state_dict(load_file(path))
    fresh = (0.3 if with_rows else 1.0) * torch.randn(4000, 64, generator=generator).double()
    truth = bl.load(model).layers[EXPERT].weights(torch.float64)(fresh)
    with torch.no_grad():
        missed = (mlp(fresh) - truth).square().sum()
    score = 1 - float(missed / (truth - truth.mean(dim=0)).square().sum())
    assert found["convert"]["numbers"]["r_squared"] == pytest.approx(score, abs=0.03)
    assert found["convert"]["record"]["rows"] == 400


def test_directions_of_a_bilinear_model_as_tokens(tmp_path: Path) -> None:
    model = write_bilinear(tmp_path / "model", n_layer=2)
    found, _ = swept(model, tmp_path / "out", "trace", directions=2, top=3)
    meant = bl.trace(model, 1, outputs=2, pairs=3).to_dict()
    assert found["trace"]["record"]["readings"] == meant["readings"]


def test_a_broken_layer_is_a_result(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", layers=4, experts=2, files=1)
    shard = next(model.glob("*.safetensors"))
    parts = load_file(shard)
    parts[f"model.{EXPERT}.down_proj.weight_scale_inv"][0, 0] = float("nan")
    save_file(parts, shard)
    output = SweepOutput(str(tmp_path / "out"))
    plan = plan_of(str(model), SweepOptions(tasks=("fit",)), output)
    assert drive(plan, output, Here).is_complete
    results = [
        json.loads(output.read_bytes(result_name("fit", row.index)) or b"") for row in plan.rows
    ]
    broken = {one["name"]: one["refused"] for one in results if one["refused"]}
    assert [*broken] == [EXPERT]
    assert "NaN" in broken[EXPERT]


def seen_by(model: Path, folder: Path, x: torch.Tensor) -> str:
    """A folder with the same activations for each layer."""
    folder.mkdir(exist_ok=True)
    for name in bl.load(model).layers:
        save_file({"x": x}, folder / f"{name}.safetensors")
    return str(folder)


def test_a_conversion_does_not_depend_on_how_rows_are_stored(model: Path, tmp_path: Path) -> None:
    rows = (0.3 * randn(2000, 64, seed=1)).bfloat16()
    found = []
    for kind, x in (("half", rows), ("single", rows.float())):
        seen = seen_by(model, tmp_path / kind, x)
        numbers, tensors = swept(model, tmp_path / f"out-{kind}", "convert", activations=seen)
        found.append((numbers["convert"]["numbers"], load_file(str(tensors).format("convert"))))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(part, found[1][1][name]) for name, part in found[0][1].items())


def test_other_activations_are_not_mixed_in(model: Path, tmp_path: Path) -> None:
    seen = seen_by(model, tmp_path / "seen", randn(2000, 64))
    swept(model, tmp_path / "out", "fit", activations=seen)
    (tmp_path / "out" / result_name("fit", 0)).unlink()  # as if it had been interrupted
    seen_by(model, tmp_path / "seen", randn(2001, 64, seed=1))
    models_of.cache_clear()  # as in another process
    with pytest.raises(FileError, match="other activations"):
        swept(model, tmp_path / "out", "fit", activations=seen)


def test_a_layer_that_was_removed_does_not_pass_for_unchanged(model: Path, tmp_path: Path) -> None:
    less = write_model(tmp_path / "less", layers=3, experts=2, files=3)
    options = SweepOptions(tasks=("compare",), baseline=str(model))
    with pytest.raises(UsageError, match=r"lacks layers of .*layers\.3"):
        plan_of(str(less), options, SweepOutput(str(tmp_path / "out")))
