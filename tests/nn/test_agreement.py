"""What was read against its source: the error is measured, and another function is refused."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from bilens.base.errors import NumericalError, UsageError
from bilens.io.load import load
from bilens.io.model_folder import save
from bilens.nn import BilinearTransformer, TopKSAE
from bilens.nn.agreement import ROWS, agreement, agrees, together
from bilens.nn.mlp import Gate
from models import MAKERS, make


def square(x: Tensor) -> Tensor:
    return x.square()


def test_the_largest_difference_is_measured() -> None:
    found = agrees("a layer", "its source", 3, lambda x: square(x) + 1e-9, square)
    assert (found.layer, found.source, found.rows) == ("a layer", "its source", ROWS)
    assert found.max_error == pytest.approx(1e-9)
    assert 0 < found.relative_error < found.max_error
    assert str(found).startswith("a layer as read against its source on 16 inputs: largest")


@pytest.mark.parametrize("wrong", [0.01, torch.nan])
def test_another_function_is_refused(wrong: float) -> None:
    with pytest.raises(NumericalError, match="what was read is another function than its source"):
        agrees("a layer", "its source", 3, lambda x: square(x) + wrong, square)


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_a_layer_that_gives_nan_is_not_hidden_behind_one_that_agrees(order: slice) -> None:
    ones = torch.ones(2, 3)
    fine = agreement("a", "its source", ones, ones)
    broken = agreement("b", "its source", ones, ones * torch.nan)
    assert together([fine, fine]).passed
    assert not together([fine, broken][order]).passed


def test_nothing_at_all_is_no_division_by_zero() -> None:
    assert agrees("a layer", "its source", 3, torch.zeros_like, torch.zeros_like).max_error == 0


@pytest.mark.parametrize("gate", [None, "relu"])
@pytest.mark.parametrize("kind", MAKERS)
def test_layers_of_ours_are_compared_with_the_module(
    tmp_path: Path, kind: str, gate: Gate | None
) -> None:
    found = load(save(make(kind, gate=gate, bias=True), tmp_path)).exactness
    assert found.source == "the module itself, as it runs"
    assert found.relative_error < found.tolerance < 1e-4


def test_of_a_language_model_each_mlp_is_compared(tmp_path: Path) -> None:
    found = load(save(BilinearTransformer(11, 8, 12, 2, 2, 8, mlp_type="ordinary"), tmp_path))
    assert found.exactness.layer == "blocks.0.mlp and blocks.1.mlp"
    assert found.exactness.relative_error < found.exactness.tolerance < 1e-4


def test_an_autoencoder_has_no_layers_to_compare(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no layers of its own"):
        _ = load(save(TopKSAE(4, 8, 2), tmp_path)).exactness


def test_an_autoencoder_without_layers_is_shown_in_a_notebook(tmp_path: Path) -> None:
    page = load(save(TopKSAE(4, 8, 2), tmp_path))._repr_html_()
    assert "weights sha256" in page
    assert ">layers<" not in page
