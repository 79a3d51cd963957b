"""One decomposition a layer: whole files, and going on where it stopped."""

import json
import re
import signal
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import tiny
from bilens.api import decompose as job
from bilens.api.decompose import LayerJob, decompose_layers, prepare, run_job
from bilens.api.layer_reading import Request, moments_of
from bilens.base.errors import InterruptedRunError, OutputExistsError, UsageError
from bilens.base.files import write_files

TWO = replace(tiny.loaded(tiny.classifier(n_layers=2)), weights_sha256="a")
REQUEST = Request(top=3)
FILES = ["layers.0.json", "layers.0.safetensors", "layers.1.json", "layers.1.safetensors"]


def run(folder: Path | None, request: Request = REQUEST, **options: Any) -> list[dict[str, Any]]:
    return list(decompose_layers(TWO, request, folder=folder, **options))


def test_each_layer_leaves_its_pairs_and_its_record(tmp_path: Path) -> None:
    records = run(tmp_path / "new" / "out")
    out = tmp_path / "new" / "out"
    assert sorted(path.name for path in out.iterdir()) == FILES
    for record in records:
        result = run_job(prepare(TWO, REQUEST, record["layer"]))
        with safe_open(out / f"{record['layer']}.safetensors", framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            inside = json.loads(file.metadata()["bilens"])
        assert tensors["eigenvectors"].shape[1] == 3
        for name, tensor in tensors.items():
            assert torch.equal(tensor, getattr(result.pairs, name))
        text = (out / f"{record['layer']}.json").read_text()
        assert json.loads(text) == inside == json.loads(json.dumps(record))
        assert inside["weights_sha256"] == "a"


def test_a_layer_that_is_done_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(tmp_path)
    (tmp_path / "layers.1.safetensors").unlink()
    done: list[str] = []

    def watched(job: LayerJob, *options: Any) -> object:
        done.append(job.outputs.layer)
        return run_job(job, *options)

    monkeypatch.setattr(job, "run_job", watched)
    assert json.dumps(run(tmp_path)) == json.dumps(first)
    assert done == ["layers.1"]


@pytest.mark.parametrize(("kept", "times"), [(4, 1), (10**12, 2)])
def test_a_map_that_fits_into_memory_is_made_once(
    monkeypatch: pytest.MonkeyPatch, kept: int, times: int
) -> None:
    made: list[str] = []

    def watched(model: Any, request: Any, name: str, *options: Any) -> LayerJob:
        made.append(name)
        return prepare(model, request, name, *options)

    monkeypatch.setattr(job, "KEPT", kept)
    monkeypatch.setattr(job, "prepare", watched)
    assert len(run(None)) == 2
    assert made == times * ["layers.0", "layers.1"]


@pytest.mark.parametrize("kind", ["junk", "of another run"])
def test_pairs_that_do_not_belong_to_their_record_are_computed_again(
    tmp_path: Path, kind: str
) -> None:
    run(tmp_path)
    path = tmp_path / "layers.0.safetensors"
    good = job.inner_record(path)
    assert good is not None
    if kind == "junk":
        path.write_bytes(b"junk")
    else:  # as a kill between two renames leaves it
        run(tmp_path / "other", Request(top=3, which="largest"))
        path.write_bytes((tmp_path / "other" / path.name).read_bytes())
    run(tmp_path)
    assert job.inner_record(path) == good


def test_a_record_says_how_to_make_it_again(tmp_path: Path) -> None:
    records = run(tmp_path, Request(top=3, seed=7), command="bilens decompose it")
    for record in records:
        reproduce = json.loads((tmp_path / f"{record['layer']}.json").read_text())["reproduce"]
        assert reproduce == record["reproduce"]
        assert (reproduce["command"], reproduce["seed"]) == ("bilens decompose it", 7)
        assert reproduce["versions"]["torch"] == torch.__version__
        assert reproduce["date"] == datetime.now(UTC).strftime("%Y-%m-%d")
    again = run(tmp_path, Request(top=3, seed=7), command="another line")
    assert json.dumps(again) == json.dumps(records)  # when it was made, not when it was read


def interrupt(stage: str, _done: int, _total: int) -> None:
    """Ctrl-C in the second layer."""
    if stage == "layers.1":
        raise KeyboardInterrupt


def test_ctrl_c_keeps_the_layers_that_are_done(tmp_path: Path) -> None:
    kept = f"Interrupted: layers.0 is kept in {tmp_path}; the same command goes on with layers.1."
    with pytest.raises(InterruptedRunError, match=re.escape(kept)):
        run(tmp_path, progress=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES[:2]
    assert len(run(tmp_path)) == 2
    with pytest.raises(InterruptedRunError, match=r"nothing is kept, since .*--out"):
        run(None, progress=interrupt)


def test_ctrl_c_in_the_first_layer_promises_nothing(tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError, match=r"no layer was done; .* on with layers\.1"):
        run(tmp_path, layers=["layers.1"], progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_while_a_layer_is_written_waits_until_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(contents: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        write_files(contents)

    monkeypatch.setattr(job, "write_files", write)
    with pytest.raises(InterruptedRunError, match=r"layers\.0 is kept .* on with layers\.1"):
        run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES[:2]
    with pytest.raises(InterruptedRunError, match=r"layers\.0, layers\.1 are kept .* shows them"):
        run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES


@pytest.mark.parametrize(
    "other",
    [
        {"request": Request(top=4)},
        {"request": Request(top=3, precision="float32")},
        {"weights": "b"},
    ],
)
def test_another_decomposition_is_not_replaced_unless_asked(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    run(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    model = replace(TWO, weights_sha256=other.get("weights", "a"))
    request = other.get("request", REQUEST)
    with pytest.raises(OutputExistsError, match="other weights, or with other options"):
        list(decompose_layers(model, request, folder=tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    list(decompose_layers(model, request, folder=tmp_path, overwrite=True))
    assert (tmp_path / "layers.0.json").read_bytes() != before["layers.0.json"]


def test_whitened_with_other_data_is_another_decomposition(tmp_path: Path) -> None:
    request = Request(top=3, basis="whitened")
    first, second = (moments_of(tiny.images(seed)) for seed in (0, 1))
    (record,) = run(tmp_path, request, layers=["layers.0"], inputs=first)
    assert record["data"] == first.about
    (again,) = run(tmp_path, request, layers=["layers.0"], inputs=first)
    assert json.dumps(again) == json.dumps(record)
    with pytest.raises(OutputExistsError, match="or with other options or data"):
        run(tmp_path, request, layers=["layers.0"], inputs=second)
    with pytest.raises(UsageError, match=r"layers\.1 has no images .*--layer layers\.0"):
        run(tmp_path / "new", request, inputs=first)
    assert not (tmp_path / "new").exists()  # said before the first layer was read


def test_files_of_somebody_else_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "layers.1.safetensors").write_text("mine")
    with pytest.raises(OutputExistsError, match="so it is something else"):
        run(tmp_path)
    (tmp_path / "layers.1.safetensors").unlink()
    (tmp_path / "layers.1.json").write_text("[]")
    with pytest.raises(OutputExistsError, match="other weights, or with other options"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["layers.1.json"]  # looked at beforehand
    with pytest.raises(OutputExistsError, match="is a file; expected a folder"):
        run(tmp_path / "layers.1.json")


@pytest.mark.parametrize(
    "request_", [Request(contrast=(2, 0)), Request(outputs="level"), Request(reading="centred")]
)
def test_a_reading_of_classes_is_refused_before_any_layer_is_read(
    tmp_path: Path, request_: Request
) -> None:
    with pytest.raises(UsageError, match=r"layers\.0.* --layer layers\.1"):
        run(tmp_path, request_, layers=["layers.1", "layers.0"])
    assert not list(tmp_path.iterdir())
    assert len(run(tmp_path, request_, layers=["layers.1"])) == 1


def test_indices_are_read_of_every_layer() -> None:
    first, last = run(None, Request(outputs="0,2"))
    assert (first["output_kind"], last["output_kind"]) == ("neurons", "logits")
    assert [output["name"] for output in first["outputs"]] == ["0", "2"]
    assert [output["name"] for output in last["outputs"]] == ["upright", "slanting"]


def test_only_the_layers_that_are_named(tmp_path: Path) -> None:
    assert [record["layer"] for record in run(tmp_path, layers=["layers.1"])] == ["layers.1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES[2:]
    with pytest.raises(UsageError, match=r"has the layers layers\.0, layers\.1; got 'layers\.7'"):
        run(None, layers=["layers.7"])
