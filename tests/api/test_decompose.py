"""Taking a layer of a loaded model apart: which layer, in which basis, read how."""

from typing import Any

import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

import tiny
from bilens.algebra.rotation_null import rotation_null
from bilens.api.audit import audit
from bilens.api.decompose import Decomposition, prepare, run_job
from bilens.api.layer_reading import Request
from bilens.base.errors import MemoryLimitError, NotQuadraticError, UsageError
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
    classes = audit(ONE, null_samples=99, seed=3).to_dict()["classes"]
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
from bilens.api.decompose import plan_layers, prepare, run_job
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
