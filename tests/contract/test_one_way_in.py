"""Guards against a verb that reads a model past the comparison with the object that was given.

Seen red: a decomposition, a fit of layers, a lone layer and the attributes of a loaded model that
spoke of the module as it had been read.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bilens as bl
from bilens.api.classifier import explain_predictions
from bilens.api.convert import convert_model
from bilens.api.layer_decomposition import decompose_layers
from bilens.api.layer_reading import Request
from bilens.api.quadratic_fit import fit_layers_of
from bilens.base.errors import BilensError, UsageError
from bilens.io.loaded_model import LoadedModel
from contract.table import cell

DATA = torch.rand(60, 6), torch.arange(60) % 3
REQUEST = Request(top=2, null_samples=0)
VERBS: dict[str, Callable[[Any], Any]] = {
    "audit": lambda model: bl.audit(model, null_samples=39),
    "certify": lambda model: bl.certify_model(model, DATA),
    "attack": lambda model: bl.attack_model(model, DATA, restarts=1),
    "explain": lambda model: explain_predictions(model, DATA, [0]),
    "decompose": lambda model: decompose_layers(model, REQUEST),
    "fit": lambda model: bl.quadratic_fit(model),
    "fit layers": lambda model: fit_layers_of(model),
    "fit a layer": lambda model: bl.quadratic_fit(next(iter(model.layers.values()))),
    "exactness": lambda model: model.exactness,
    "map": lambda model: next(iter(model.layers.values())).quadratic_map,
}


class Tripled(nn.Linear):
    """A linear map that gives three times as much."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


def flip(module: nn.Module) -> None:
    module.register_forward_hook(lambda _, __, made: made.flip(-1) + 1)


def triple_a_part(module: nn.Module) -> None:
    next(one for one in module.modules() if isinstance(one, nn.Linear)).__class__ = Tripled


def classifier(folder: Path) -> LoadedModel:
    torch.manual_seed(0)
    bl.save(bl.nn.BilinearClassifier(6, 8, 3, bias=True), folder / "model")
    return bl.load(folder / "model")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3)).eval()


def train(module: nn.Module | None) -> None:
    assert module is not None
    for parameter in module.parameters():
        parameter.data.mul_(-1.5)


@cell("audit", "own object")
@cell("certify", "own object")
@cell("attack", "own object")
@cell("explain", "own object")
@cell("decompose", "own object")
@cell("fit", "own object")
@pytest.mark.parametrize("change", [flip, triple_a_part])
@pytest.mark.parametrize("verb", VERBS)
def test_a_loaded_model_that_runs_otherwise_is_seen_by_every_verb(
    verb: str, change: Callable[[nn.Module], None], tmp_path: Path
) -> None:
    model = classifier(tmp_path)
    VERBS[verb](model)
    assert model.module is not None
    change(model.module)
    with pytest.raises(BilensError, match=r"another function than its source|expected a plain"):
        VERBS[verb](model)


@cell("load module", "own object")
@cell("decompose", "own object")
@cell("fit", "own object")
@pytest.mark.parametrize(
    "verb", ["decompose", "fit", "fit layers", "fit a layer", "exactness", "map"]
)
def test_a_module_that_runs_otherwise_is_seen_by_every_verb(verb: str) -> None:
    module = network()
    model = bl.from_module(module)
    VERBS[verb](model)
    flip(module)
    with pytest.raises(BilensError, match="forward hooks"):
        VERBS[verb](model)


@cell("decompose", "own object", "other function")
def test_a_decomposition_is_of_the_module_that_was_given() -> None:
    module = bl.nn.BilinearClassifier(6, 8, 3)
    (found,) = decompose_layers(module, REQUEST)
    assert found["layer"] == "layers.0"
    flip(module)
    with pytest.raises(BilensError, match="forward hooks"):
        decompose_layers(module, REQUEST)


@cell("decompose", "other function")
def test_a_decomposition_of_a_model_that_was_trained_on_is_another_one(tmp_path: Path) -> None:
    model = classifier(tmp_path)
    (before,) = decompose_layers(model, REQUEST)
    train(model.module)
    (after,) = decompose_layers(model, REQUEST)
    assert after["weights_sha256"] not in ("", before["weights_sha256"])
    assert after["identity"] != before["identity"]


@cell("fit", "other function")
def test_a_fit_of_layers_names_the_model_as_it_is_now(tmp_path: Path) -> None:
    model = classifier(tmp_path)
    before = fit_layers_of(model).source
    train(model.module)
    after = fit_layers_of(model).source
    assert after.weights_sha256 not in ("", before.weights_sha256)
    assert after.path == ""  # it is no longer what its file holds


@cell("load file", "own object", "other function")
def test_what_a_loaded_model_says_of_itself_is_of_now(tmp_path: Path) -> None:
    model = classifier(tmp_path)
    sha256, identity = model.weights_sha256, model.identity
    assert model.exactness is not None
    kept = {name: one.clone() for name, one in model.module.state_dict().items()}
    train(model.module)
    assert model.weights_sha256 not in ("", sha256)
    assert model.identity != identity
    model.module.load_state_dict(kept)
    assert (model.weights_sha256, model.identity) == (sha256, identity)


@cell("load module", "own object", "other function")
def test_what_is_said_of_a_module_in_memory_is_of_now() -> None:
    module = network()
    model = bl.from_module(module)
    sha256, exactness = model.weights_sha256, model.exactness
    train(module)
    assert model.weights_sha256 == bl.from_module(module).weights_sha256 != sha256
    assert model.exactness is not None
    assert model.exactness.largest != exactness.largest


@cell("trace", "own object", "other function")
def test_a_trace_is_of_the_module_as_it_runs(tmp_path: Path) -> None:
    import traced_models

    folder = traced_models.write_model(tmp_path / "model")
    model = bl.load(folder)
    assert model.module is not None
    before = bl.trace(model, 0, outputs=1, pairs=2).record
    train(model.module)
    after = bl.trace(model, 0, outputs=1, pairs=2).record
    assert after.source.weights_sha256 not in ("", before.source.weights_sha256)
    flip(model.module.mlps[0])
    with pytest.raises(BilensError, match="forward hooks"):
        bl.trace(model, 0, outputs=1, pairs=2)


@cell("load file", "own object")
@pytest.mark.parametrize("layout", ["saelens", "sparsify"])
def test_a_file_of_an_autoencoder_that_nothing_was_compared_with_says_so(
    layout: Any, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    bl.export_sae(bl.nn.TopKSAE(6, 12, 3), tmp_path / "sae", layout)
    report = bl.load(tmp_path / "sae").load_report
    assert report is not None
    assert not report.verified
    assert any(re.search("Unverified: .*autoencoder", line) for line in report.lines())


@cell("compare", "other function")
@pytest.mark.parametrize("softmax", [nn.Softmax(-1), nn.LogSoftmax(-1)])
def test_probabilities_beside_logits_are_told_apart_in_words(softmax: nn.Module) -> None:
    ends, bare = nn.Sequential(*network(), softmax).eval(), network()
    for model, baseline, whose in ((ends, bare, "model"), (bare, ends, "baseline")):
        report = bl.audit(model, baseline=baseline, null_samples=3).record
        (layer,) = report.difference.layers
        assert re.search(rf"softmax.*: take it off the {whose}, so that both give", layer.refused)


@cell("audit", "own object")
@pytest.mark.parametrize("verb", ["audit", "certify", "attack", "decompose"])
def test_a_path_is_refused_with_the_way_to_load_it(verb: str) -> None:
    with pytest.raises(UsageError, match=r"bl\.load\('models/one'\)"):
        VERBS[verb]("models/one")


class Two(nn.Module):
    """Two networks beside each other, which are not the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = network(), network()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.first(x) + torch.sin(self.second(torch.cos(x)))
        return y


@cell("fit", "own object")
def test_a_lone_layer_is_compared_with_its_own_part() -> None:
    module = Two().eval()
    layers = bl.from_module(module).layers
    flip(module.second)
    assert bl.quadratic_fit(layers["first"], samples=100)
    with pytest.raises(UsageError, match="second has forward hooks"):
        bl.quadratic_fit(layers["second"], samples=100)


@cell("convert", "own object", "other function")
def test_a_layout_of_a_model_that_was_trained_on_says_so(tmp_path: Path) -> None:
    model = classifier(tmp_path)
    train(model.module)
    convert_model(model, "bilens", tmp_path / "out")
    made = bl.load(tmp_path / "out").provenance
    assert made["changed_since_read_from"] == str(tmp_path / "model")
