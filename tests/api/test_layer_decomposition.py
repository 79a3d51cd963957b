"""What a decomposition reads, and the folder of one: whole files, and going on where it stopped."""

import dataclasses
import json
import re
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from safetensors import safe_open
from torch import Tensor

import tiny
from bilens.algebra.approximation.activation import Activation
from bilens.algebra.rotation_null import rotation_null
from bilens.api import layer_decomposition as job
from bilens.api.audit_model import audit
from bilens.api.layer_decomposition import (
    Decomposition,
    LayerJob,
    decompose_layers,
    prepare,
    run_job,
)
from bilens.api.layer_reading import Request, moments_of
from bilens.base.errors import (
    InterruptedRunError,
    MemoryLimitError,
    NotQuadraticError,
    OutputExistsError,
    UsageError,
)
from bilens.base.files import write_files
from bilens.io.load import LoadedModel
from bilens.nn import BilinearMLP
from peak_memory import peak_of

ONE = tiny.loaded(tiny.classifier(bias=True))
TWO = tiny.loaded(tiny.classifier(n_layers=2))
MLP = LoadedModel(BilinearMLP(5, 7, 4).double(), "an/mlp", "")
X = tiny.images().test_images.double()


def decompose(
    model: LoadedModel, request: Request | None = None, layer: str | None = None
) -> Decomposition:
    return run_job(prepare(model, request or Request(), layer))


def values(result: Any, x: Tensor) -> Tensor:
    """Σ λ (v·x)² + linear + constant: (batch, outputs)."""
    total: Tensor = result.pairs.contributions(x).total().T
    return total


def test_the_logits_of_one_layer_are_read_class_centred() -> None:
    result = decompose(ONE, Request(top=tiny.PIXELS))
    assert (result.record.layer, result.record.basis) == ("layers.0", "input")
    assert result.record.reading == "class-centred"
    assert [output.name for output in result.record.outputs] == ["upright", "level", "slanting"]
    assert [len(output.pairs) for output in result.record.outputs] == [tiny.PIXELS] * 3
    assert result.record.d_in == tiny.PIXELS
    logits = ONE.module(X)
    torch.testing.assert_close(values(result, X), logits - logits.mean(dim=1, keepdim=True))


def test_raw_logits_are_the_logits() -> None:
    result = decompose(ONE, Request(top=tiny.PIXELS, reading="raw"))
    assert result.record.reading == "raw"
    torch.testing.assert_close(values(result, X), ONE.module(X))


def test_a_contrast_is_one_logit_against_another() -> None:
    result = decompose(ONE, Request(top=tiny.PIXELS, contrast=(2, 0)))
    assert result.record.reading == "contrast"
    assert [output.name for output in result.record.outputs] == ["slanting − upright"]
    logits = ONE.module(X)
    torch.testing.assert_close(values(result, X)[:, 0], logits[:, 2] - logits[:, 0])


def test_the_embedding_basis_reads_what_the_embedding_gives() -> None:
    result = decompose(ONE, Request(top=tiny.PIXELS, basis="embedding", reading="raw"))
    assert (result.record.basis, result.record.d_in) == ("embedding", 8)
    torch.testing.assert_close(values(result, ONE.module.embed(X)), ONE.module(X))


def test_a_layer_inside_is_read_raw_and_the_last_one_to_the_logits() -> None:
    whole = Request(top=tiny.PIXELS)
    first, last = decompose(TWO, whole, layer="layers.0"), decompose(TWO, whole, layer="layers.1")
    assert (first.record.reading, first.record.d_in) == ("raw", tiny.PIXELS)
    assert [output.name for output in first.record.outputs] == [str(index) for index in range(8)]
    assert (last.record.reading, last.record.d_in) == ("class-centred", 8)
    hidden = values(first, X)
    torch.testing.assert_close(hidden, TWO.module.layers[0](TWO.module.embed(X)))
    logits = TWO.module(X)
    torch.testing.assert_close(values(last, hidden), logits - logits.mean(dim=1, keepdim=True))


def test_a_layer_that_stands_alone_is_read_raw() -> None:
    result = decompose(MLP, Request(top=5))
    assert (result.record.layer, result.record.reading) == ("layer", "raw")
    x = torch.ones(2, 5, dtype=torch.float64)
    torch.testing.assert_close(values(result, x), MLP.module(x))
    assert decompose(MLP, Request(reading="centred")).record.reading == "class-centred"


def test_float32_weights_are_multiplied_in_float64() -> None:
    model = tiny.classifier(dtype=torch.float32)
    twin = tiny.classifier(dtype=torch.float32).double()
    pairs, expected = decompose(tiny.loaded(model)).pairs, decompose(tiny.loaded(twin)).pairs
    assert torch.equal(pairs.eigenvalues, expected.eigenvalues)
    assert model.embed.weight.dtype == torch.float32


REFUSED: list[tuple[LoadedModel, str | None, dict[str, Any], type[Exception], str]] = [
    (TWO, None, {}, UsageError, "has the layers layers.0, layers.1; got None: name one .*--layer"),
    (ONE, "layers.1", {}, UsageError, "has the layers layers.0; got 'layers.1'"),
    (TWO, "layers.1", {"basis": "embedding"}, UsageError, "no embedding before it"),
    (MLP, None, {"basis": "embedding"}, UsageError, "a BilinearMLP has no embedding"),
    (ONE, None, {"basis": "pixels"}, UsageError, "basis='pixels' is not known"),
    (ONE, None, {"reading": "cooked"}, UsageError, "reading='cooked' is not known"),
    (ONE, None, {"top": 0}, UsageError, "top must be an integer of at least 1"),
    (
        ONE,
        None,
        {"contrast": (0, 3)},
        UsageError,
        "two different outputs between 0 and 2, got 0 and 3",
    ),
    (ONE, None, {"contrast": (1, 1)}, UsageError, "got 1 and 1"),
    (ONE, None, {"contrast": (-1, 1)}, UsageError, "between 0 and 2, got -1 and 1"),
    (tiny.loaded(tiny.classifier(gate="silu")), None, {}, NotQuadraticError, "gate 'silu'"),
    (ONE, None, {"spectrum": "half"}, UsageError, "spectrum='half' is not known"),
    (ONE, None, {"outputs": ""}, UsageError, "'' in '' names no output"),
    (ONE, None, {"outputs": "1-9"}, UsageError, "'1-9' in '1-9' names no output"),
    (ONE, None, {"outputs": "0", "contrast": (0, 1)}, UsageError, "leave reading and outputs out"),
    (ONE, None, {"null_samples": 38}, UsageError, "0, for no .*, or at least 39, .*got 38"),
    (ONE, None, {"null_samples": -1}, UsageError, "null_samples must be an integer of at least 0"),
    (ONE, None, {"seed": 2**32}, UsageError, "seed must be below"),
    (ONE, None, {"method": "power"}, UsageError, "method='power' is not known"),
    (ONE, None, {"precision": "half"}, UsageError, "precision='half' is not known"),
]


@pytest.mark.parametrize(("model", "layer", "options", "error", "message"), REFUSED)
def test_what_does_not_exist_is_refused(
    model: LoadedModel,
    layer: str | None,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        decompose(model, Request(**options), layer=layer)


def test_outputs_are_chosen_by_place_or_name() -> None:
    result = decompose(ONE, Request(outputs="2,upright,0-1"))
    assert [output.name for output in result.record.outputs] == ["slanting", "upright", "level"]
    whole = decompose(ONE)
    assert torch.equal(result.pairs.eigenvalues, whole.pairs.eigenvalues[[2, 0, 1]])


@pytest.mark.parametrize("which", ["magnitude", "largest", "smallest", "both"])
def test_the_pairs_of_an_end_do_not_depend_on_what_else_was_computed(which: Any) -> None:
    whole = decompose(ONE, Request(top=3, which=which, spectrum="whole", method="dense"))
    part = decompose(ONE, Request(top=3, which=which, spectrum="top", method="dense"))
    assert torch.equal(whole.pairs.eigenvalues, part.pairs.eigenvalues)
    assert torch.equal(whole.pairs.eigenvectors, part.pairs.eigenvectors)
    torch.testing.assert_close(whole.pairs.explained, part.pairs.explained)
    here, there = (one.record.outputs[0].pairs for one in (whole, part))
    rounding = {"residual": 0.0, "explained": 0.0}
    assert [replace(pair, **rounding) for pair in here] == [
        replace(pair, **rounding) for pair in there
    ]
    assert max(pair.residual for pair in (*here, *there)) < 1e-14
    assert whole.record.which == which


def test_leading_pairs_alone_are_those_of_the_whole_spectrum() -> None:
    part = decompose(ONE, Request(top=2, spectrum="top", method="lanczos"))
    assert (part.record.spectrum, part.record.method) == ("top", "lanczos")
    assert part.pairs.eigenvalues.shape == (3, 2)
    whole = decompose(ONE, Request(top=2))
    torch.testing.assert_close(
        part.pairs.eigenvalues, whole.pairs.eigenvalues[:, :2], rtol=1e-10, atol=0
    )
    assert part.record.outputs[0].effective_rank is None
    assert part.record.outputs[0].trace == pytest.approx(whole.record.outputs[0].trace)


def levels(result: Any) -> list[tuple[float, float, float]]:
    """Median and interval of chance of each effective rank."""
    found = [output.effective_rank_null for output in result.record.outputs]
    return [(level.median, level.low, level.high) for level in found]


def test_a_rank_stands_beside_the_same_null_interval_as_in_the_audit() -> None:
    result = decompose(ONE, Request(null_samples=99, seed=3))
    classes = audit(ONE, null_samples=99, seed=3).to_dict()["classes"]["readings"]
    expected = [tuple(item["effective_rank_null"].values()) for item in classes]
    assert levels(result) == expected
    assert result.record.null_samples == 99
    chosen = decompose(ONE, Request(null_samples=99, seed=3, outputs="2"))  # the same rotations
    assert levels(chosen)[0] == pytest.approx(expected[2], rel=1e-12)


@pytest.mark.parametrize(
    ("model", "layer", "basis"),
    [(TWO, "layers.1", "input"), (ONE, "layers.0", "embedding"), (MLP, "layer", "input")],
)
def test_without_an_embedding_the_null_rotates_what_the_layer_reads(
    model: LoadedModel, layer: str, basis: Any
) -> None:
    request = Request(null_samples=39, basis=basis, reading="raw")
    module = model.module
    f = module.quadratic_map() if model is MLP else module.layer_map(int(layer[-1]), basis)
    eye = torch.eye(f.sizes.d_out, dtype=torch.float64)
    null = rotation_null(f, eye, torch.Generator().manual_seed(0), num_samples=39)
    ordered = null.effective_rank.sort(dim=0).values  # of 39 and one more, 5 % lie outside
    expected = list(zip(*(ordered[row].tolist() for row in (19, 0, 38)), strict=True))
    assert levels(decompose(model, request, layer=layer)) == expected


def test_chance_can_be_left_out_and_belongs_to_whole_spectra() -> None:
    for request in (Request(null_samples=0), Request(spectrum="top")):
        record = decompose(ONE, request).record
        assert record.null_samples == 0
        assert [output.effective_rank_null for output in record.outputs] == [None] * 3


def test_whole_spectra_are_not_taken_by_themselves_where_chance_would_take_long() -> None:
    """200 · 120 outputs · 384³ for the rotations."""
    wide = LoadedModel(BilinearMLP(384, 400, 120), "an/mlp", "")
    assert prepare(wide, Request(null_samples=200)).num_pairs
    assert prepare(wide, Request(null_samples=0)).num_pairs is None
    assert prepare(wide, Request(null_samples=200, spectrum="whole")).num_pairs is None


def test_the_memory_of_the_null_interval_counts() -> None:
    """A small dense solver: 3 directions of width 8 beside samples of 100,000 rotations."""
    many = Request(null_samples=100_000)
    needed, without = prepare(ONE, many).peak_bytes, prepare(ONE, Request(null_samples=0))
    assert needed > 2e7 > without.peak_bytes
    with pytest.raises(MemoryLimitError, match=r"null intervals of 3 .*--null-samples 0"):
        prepare(ONE, many, memory_limit=10**7)
    assert prepare(ONE, many, memory_limit=needed - 1).peak_bytes <= needed - 1  # fewer together
    assert prepare(ONE, Request(null_samples=0), memory_limit=10**7).num_pairs is None


MANY = """
from bilens.api.layer_decomposition import plan_layers, prepare, run_job
from bilens.api.layer_reading import Request
import tiny
from bilens.nn import BilinearClassifier
model = tiny.loaded(BilinearClassifier(32, 16, {classes}, bias=True, residual=True))
run_job(prepare(tiny.loaded(BilinearClassifier(32, 16, 3)), Request(outputs="0-1")))
"""


def test_a_few_of_many_classes_take_no_array_of_classes_by_classes() -> None:
    """20,000 of them by 20,000 would be 3.2 GB."""
    run = """
def decompose():
    run_job(prepare(model, Request(outputs="0-9"), memory_limit="500M"), "500M")
measure(decompose)
"""
    assert peak_of(MANY.format(classes=20_000) + run) < 100 * 2**20


def test_a_plan_counts_every_class() -> None:
    run = """
def plan():
    (record,) = plan_layers(model, Request(spectrum="top"), memory_limit="2G")
    assert record.num_outputs == 100_000
    assert record.limit_bytes > record.peak_bytes > 8 * 100_000 * 5 * 32
measure(plan)
"""
    assert peak_of(MANY.format(classes=100_000) + run) < 300 * 2**20


STORED = dataclasses.replace(tiny.loaded(tiny.classifier(n_layers=2)), read_sha256="a")
REQUEST = Request(top=3)
FILES = ["layers.0.json", "layers.0.safetensors", "layers.1.json", "layers.1.safetensors"]


def run(folder: Path | None, request: Request = REQUEST, **options: Any) -> list[dict[str, Any]]:
    return list(decompose_layers(STORED, request, folder=folder, **options))


def test_each_layer_leaves_its_pairs_and_its_record(tmp_path: Path) -> None:
    records = run(tmp_path / "new" / "out")
    out = tmp_path / "new" / "out"
    assert sorted(path.name for path in out.iterdir()) == FILES
    for record in records:
        result = run_job(prepare(STORED, REQUEST, record["layer"]))
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
    model = dataclasses.replace(STORED, read_sha256=other.get("weights", "a"))
    request = other.get("request", REQUEST)
    with pytest.raises(OutputExistsError, match="another model, or with other options"):
        list(decompose_layers(model, request, folder=tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    list(decompose_layers(model, request, folder=tmp_path, overwrite=True))
    assert (tmp_path / "layers.0.json").read_bytes() != before["layers.0.json"]


def test_the_same_weights_read_as_another_layer_are_another_decomposition(tmp_path: Path) -> None:
    run(tmp_path, layers=["layers.0"])
    view = dataclasses.replace(STORED.layers["layers.0"], activation=Activation("gelu"))
    model = dataclasses.replace(STORED, views={**STORED.layers, "layers.0": view})
    with pytest.raises(OutputExistsError, match="another model"):
        decompose_layers(model, REQUEST, layers=["layers.0"], folder=tmp_path)


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
    with pytest.raises(OutputExistsError, match="another model, or with other options"):
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
