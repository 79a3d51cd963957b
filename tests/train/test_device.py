"""What a recipe asks for: where a training computes, with and without a GPU, and how precisely."""

from typing import Any

import pytest
import torch

from bilens.base.errors import UsageError
from bilens.train.device import find_device
from bilens.train.recipes import best_precision


@pytest.mark.parametrize(
    ("name", "has_gpu", "expected"),
    [
        ("auto", False, "cpu"),
        ("cpu", False, "cpu"),
        ("auto", True, "cuda"),
        ("cpu", True, "cpu"),
        ("cuda", True, "cuda"),
    ],
)
def test_a_device_is_found_by_name(
    name: Any, has_gpu: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert find_device(name).type == expected


def test_a_gpu_that_is_not_there_and_a_name_that_is_none_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="torch sees no GPU: use 'cpu'"):
        find_device("cuda")
    with pytest.raises(UsageError, match="device='gpu' is not known: use one of auto, cpu, cuda"):
        find_device("gpu")  # type: ignore[arg-type]


@pytest.mark.parametrize(("native", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_the_precision_is_what_the_device_multiplies_natively(
    native: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"amx_bf16": native}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: not native)
    assert best_precision(torch.device("cpu")) == expected
    assert best_precision(torch.device("cuda")) != expected
