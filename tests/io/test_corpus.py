"""Of every model file in the corpus, exactly what its maker knows can be read is read.

Nothing is passed over in silence: the share read is the maker's, what was not read stands in the
coverage, a refusal is one sentence, and no change of a tensor is called no change.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bilens as bl
import corpus_files  # noqa: F401 - more rows
import corpus_odd  # noqa: F401 - and more
import tiny_language_models as language
from bilens.base.errors import BilensError
from bilens.findings.coverage import measure_coverage
from bilens.findings.tensor_difference import compare_tensors
from bilens.io.loaded_model import LoadedModel
from bilens.io.stored_mlp import StoredTensor
from corpus import REFUSED, ROWS, Made
from raising import refusal

LARGE = 200_000  # parameters
Keep = Callable[[str], tuple[Made, LoadedModel]]


def loaded(made: Made) -> LoadedModel:
    if isinstance(made.source, Path):
        return bl.load(made.source, **made.options)
    if isinstance(made.source, nn.Module):
        return bl.from_module(made.source)
    return bl.from_sklearn(made.source)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Keep:
    """Make and load the models, each once."""
    known: dict[str, tuple[Made, LoadedModel]] = {}

    def keep(name: str) -> tuple[Made, LoadedModel]:
        if name not in known:
            made = ROWS[name](tmp_path_factory.mktemp("model"))
            known[name] = made, loaded(made)
        return known[name]

    return keep


UNVERIFIED = {  # what they read is not known, or nothing that can be watched stands at an end
    "torch CNN",
    "torch CNN with an activation that is not known",
    "torchvision vgg11",
    "torchvision vit_b_16",
    "torchvision convnext_tiny",
    "torchvision mobilenet_v3",
    "torchvision squeezenet",
    "Keras CNN",  # which Keras itself was not asked about: they are no one network
    "Keras CNN, padded on one side",
    "Keras, two inputs",
    "Keras of texts",
}


def test_the_corpus_is_large() -> None:
    assert len(ROWS) + len(REFUSED) >= 60


@pytest.mark.parametrize("name", ROWS)
def test_what_is_read_is_what_can_be_read(corpus: Keep, name: str) -> None:
    made, model = corpus(name)
    ended = {view.name: "exact" if view.exact else "approximate" for view in model.layers.values()}
    found = measure_coverage(model.tensors, model.layers.values(), ended, "known", None, False)
    unread = [(group.name, group.parameters) for group in found.groups if group.reason]
    assert (found.parameters, found.exact + found.approximate) == (made.parameters, made.read), (
        unread
    )
    assert bool(unread) == (made.read < made.parameters)
    told = made.options.get("activation") is not None
    if model.load_report is not None:
        assert model.load_report.verified == (not told and name not in UNVERIFIED)
        assert bool(model.load_report.unverified) == (name in UNVERIFIED)


@pytest.mark.parametrize("name", ROWS)
def test_a_partial_reading_is_no_pass(corpus: Keep, name: str) -> None:
    made, model = corpus(name)
    if made.parameters > LARGE:
        pytest.skip("takes ten seconds")
    approximated = any(not view.exact for view in model.layers.values())
    read = {"threshold": 0.0} if approximated else {}
    record = bl.audit(model, null_samples=3, command="here", **read).record
    assert record.coverage is not None
    assert record.coverage.approximate == 0  # R² is of an input that nobody gave
    assumed = any(one.reason == "assumed" for one in record.coverage.groups)
    assert assumed == approximated
    assert assumed or record.coverage.parameters - record.coverage.unread == made.read
    assert record.decision is not None
    assert record.decision.answer != "use"  # without data
    if made.read < made.parameters or "activation" in made.options:
        assert record.decision.answer == "not_read"
        assert record.passed is None


def changed(tensor: StoredTensor) -> StoredTensor:
    """A tensor of which one entry is another."""

    def fetch(block: Any) -> Tensor:
        found = tensor.fetch(block).clone()
        found.view(-1)[-1] += 0.5
        return found

    return replace(tensor, fetch=fetch)


@pytest.mark.parametrize("name", ROWS)
def test_no_change_is_called_none(corpus: Keep, name: str) -> None:
    """One entry of one tensor, read or not, wherever in the model it is."""
    _, model = corpus(name)
    assert not compare_tensors(model.tensors, model.tensors).changed
    names = [one for one, tensor in model.tensors.items() if tensor.dtype.is_floating_point]
    for one in {names[0], names[len(names) // 2], names[-1]}:
        other = {**model.tensors, one: changed(model.tensors[one])}
        assert [found.name for found in compare_tensors(other, model.tensors).changed] == [one]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    make, words = REFUSED[name]
    made = make(tmp_path)
    refusal(BilensError, words, loaded, made)


# ---- four failures that were met


def audited(model: LoadedModel, **options: Any) -> Any:
    return bl.audit(model, null_samples=3, command="here", **options).record


def rules(record: Any) -> dict[str, Any]:
    return {finding.rule: finding for finding in record.verdict}


def test_of_a_random_network_two_layers_are_no_pass(corpus: Keep) -> None:
    _, model = corpus("torch CNN with an activation that is not known")
    record = audited(model)
    assert [*model.layers] == ["fc1"]
    assert rules(record)["coverage"].outcome == "warn"
    assert record.decision.answer == "not_read"
    assert record.coverage.groups[0].name == "conv2.weight"  # what is not read comes first


def test_attention_that_changed_is_no_unchanged_model(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    model = language.write(tmp_path / "a", "qwen2", torch.float32).float()
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight.mul_(1.5)
    model.save_pretrained(tmp_path / "b")
    record = audited(bl.load(tmp_path / "b"), baseline=bl.load(tmp_path / "a"))
    whole = record.difference.whole
    assert not whole.identical
    (one,) = whole.changed
    assert (one.kind, one.layer, one.change) == ("o", 1, pytest.approx(0.5))
    same = audited(bl.load(tmp_path / "a"), baseline=bl.load(tmp_path / "a"))
    assert same.difference.whole.identical


def test_an_adapter_of_rank_two_is_no_noise(tmp_path: Path) -> None:
    made = ROWS["PEFT adapter, merged"](tmp_path)
    record = audited(bl.load(made.source), baseline=bl.load(tmp_path / "base"))
    changed = record.difference.whole.changed
    assert {(one.kind, one.state, one.rank) for one in changed} == {
        ("q", "low_rank", 2),
        ("down", "low_rank", 2),
    }
    assert rules(record)["low_rank_change"].outcome == "warn"


def test_an_ordinary_checkpoint_takes_one_step(tmp_path: Path) -> None:
    made = ROWS["PyTorch training checkpoint"](tmp_path)
    with pytest.raises(BilensError) as caught:
        bl.load(made.source)
    (call,) = re.findall(r"(bl\.load\(.*\))\.$", str(caught.value))
    call = call.replace("ACTIVATION", "relu")  # which no file says
    record = audited(eval(call, {"bl": bl}))  # noqa: S307 - our own message
    assert record.coverage.parameters == made.parameters
    assert {one.reason for one in record.coverage.groups} == {"assumed"}  # read on no rows of data
    assert record.coverage.layout == "guessed"
