"""Guards against results of a model that was changed in memory after it had been read."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bilens as bl
from bilens.api.classifier import explain_predictions
from bilens.base.errors import BilensError, NumericalError, UsageError
from bilens.io.loaded_model import LoadedModel
from contract.table import cell


def loaded(folder: Path, seed: int = 0) -> LoadedModel:
    torch.manual_seed(seed)
    bl.save(bl.nn.BilinearClassifier(6, 8, 3, bias=True), folder / "model")
    return bl.load(folder / "model")


def data() -> tuple[Tensor, Tensor]:
    return torch.randn(60, 6, generator=torch.Generator().manual_seed(3)), torch.arange(60) % 3


def train(module: nn.Module | None) -> None:
    assert module is not None
    for parameter in module.parameters():
        parameter.data.mul_(-1.5)


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


@cell("audit", "other function", "saved")
def test_a_loaded_model_that_was_trained_on_is_not_its_file(tmp_path: Path) -> None:
    model = loaded(tmp_path)
    before = bl.audit(model, data(), null_samples=39).record
    assert before.source.files
    copied = copy.deepcopy(model.module)
    train(model.module)
    after = bl.audit(model, data(), null_samples=39)
    assert after.record.source.weights_sha256 not in ("", before.source.weights_sha256)
    assert after.record.reproduce.identity != before.reproduce.identity
    assert after.record.source.path == ""  # of a file no more
    with pytest.raises(UsageError, match="names no file"):
        after.to_evidence(tmp_path / "evidence")
    assert copied is not None
    assert model.module is not None
    model.module.load_state_dict(copied.state_dict())
    again = bl.audit(model, data(), null_samples=39).record
    assert again.source == before.source, "what is its file again has its name"


@cell("audit", "other function")
def test_an_acceptance_is_not_of_a_model_that_was_trained_on(tmp_path: Path) -> None:
    model = loaded(tmp_path)
    history = bl.History(tmp_path)
    first = bl.audit(model, null_samples=39, fail_on=["beyond_null<100"]).record
    kept = history.add(first)
    history.say("accept", kept.model, "rule:beyond_null", "known", author="Ada")
    assert not history.still_fails(first, history.accepted(kept.model))
    train(model.module)
    second = bl.audit(model, null_samples=39, fail_on=["beyond_null<100"]).record
    name = history.add(second).model
    assert history.still_fails(second, history.accepted(name))


@cell("audit", "other function", "own object")
def test_a_module_that_was_trained_on_has_another_identity() -> None:
    module = mlp()
    model = bl.from_module(module)
    before = bl.audit(model, null_samples=3).record
    train(module)
    after = bl.audit(model, null_samples=3).record
    assert after.source.weights_sha256 == bl.from_module(module).weights_sha256
    assert after.source.weights_sha256 != before.source.weights_sha256
    assert after.reproduce.identity != before.reproduce.identity


JOBS: dict[str, Callable[[Any], Any]] = {
    "audit": lambda model: bl.audit(model, null_samples=3),
    "fit": lambda model: bl.quadratic_fit(model, samples=200),
}


@cell("fit", "own object", "other function")
@pytest.mark.parametrize("job", JOBS)
def test_a_hook_that_came_after_reading_is_seen(job: str) -> None:
    module = mlp()
    model = bl.from_module(module)
    JOBS[job](model)
    module.register_forward_hook(lambda _, __, made: made.flip(-1))
    with pytest.raises(UsageError, match="forward hooks"):
        JOBS[job](model)


@cell("explain", "own object", "other function")
def test_an_explanation_is_of_the_module_as_it_runs(tmp_path: Path) -> None:
    model = loaded(tmp_path)
    assert model.module is not None
    model.module.register_forward_hook(lambda _, __, made: -made)
    with pytest.raises(NumericalError, match="forward hooks"):
        explain_predictions(model, data(), [0, 1])


@cell("audit", "own object", "other function")
def test_a_hook_in_a_transformer_that_was_audited_before_is_seen(tmp_path: Path) -> None:
    torch.manual_seed(0)
    bl.save(bl.nn.BilinearTransformer(11, 8, 12, n_layer=2, n_head=2, n_ctx=8), tmp_path / "model")
    model = bl.load(tmp_path / "model")
    bl.audit(model, null_samples=3)
    assert isinstance(model.module, bl.nn.BilinearTransformer)
    model.module.mlps[0].register_forward_hook(lambda _, __, made: -made)
    with pytest.raises(BilensError, match="forward hooks"):
        bl.audit(model, null_samples=3)


class Scaled(nn.Module):
    """A network with a number that is no tensor."""

    def __init__(self, number: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.number = nn.Linear(6, 8), nn.Linear(8, 3), number

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(torch.tanh(self.a(x * self.number)))
        return y


def normed(eps: float) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, eps=eps), nn.ReLU(), nn.Linear(8, 3))


@cell("audit", "other function", "same function")
@pytest.mark.parametrize("kind", [Scaled, normed])
def test_numbers_that_are_no_tensors_are_part_of_the_identity(
    kind: Callable[[float], nn.Module],
) -> None:
    one, other, again = (
        bl.audit(bl.from_module(kind(number).eval()), null_samples=3).record.reproduce.identity
        for number in (0.5, 0.25, 0.5)
    )
    assert one != other
    assert one == again
