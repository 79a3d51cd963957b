"""Guards against an explorer that shows another function than the file on disk holds.

Seen red with raw classes, outputs in another order, and eigenvalues that another thread changes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import tiny
from bilens.nn import BilinearClassifier
from bilens_explorer.records.models import id_of
from commands import model_folder
from contract.table import cell
from explorer_server import client_of

A, B = map(id_of, "ab")
NAMES = ("x", "y", "z")
OUTPUTS = range(3)


def model() -> BilinearClassifier:
    """A model whose weights every type of floating-point numbers holds."""
    found = tiny.classifier(4, dtype=torch.float32)
    with torch.no_grad():
        for weight in found.parameters():
            weight.copy_((32 * weight).round() / 32)
    return found


def with_common_function(original: BilinearClassifier) -> BilinearClassifier:
    """The same model with one function of the input added to the logits of all classes."""
    with torch.no_grad():
        original.head.weight += torch.arange(8.0) / 8
    return original


def answers(root: Path) -> dict[str, Any]:
    """What the explorer shows of model "a": of each class, as numbers."""
    shown: dict[str, Any] = {}
    with client_of(root) as client:

        def ask(path: str, **query: object) -> Any:
            found = client.get(f"/api/v1/models/{A}/{path}", params=query)
            assert found.status_code == 200, found.text
            return found.json()

        for output in OUTPUTS:
            where = {"layer": "layers.0", "output": output}
            form = ask("spectrum", **where)["form"]
            shown[f"{output} name"] = form["name"]
            shown[f"{output} values"] = [one["eigenvalue"] for one in form["pairs"]]
            vectors = ask("eigenvectors", **where)["vectors"]
            shown[f"{output} squares"] = [[v * v for v in one["vector"]] for one in vectors]
            part = ask("interactions", **where)
            shown[f"{output} matrix"] = part["matrix"]
            shown[f"{output} inputs"] = part["inputs"]
    return shown


def forms_in(file: Path) -> Tensor:
    """The class-centred matrices of a file of weights, multiplied by hand: (class, in, in)."""
    weights = {name: one.double() for name, one in load_file(file).items()}
    left, right = (weights[f"layers.0.{side}.weight"] @ weights["embed.weight"] for side in LR)
    head = weights["head.weight"] - weights["head.weight"].mean(dim=0)
    q = torch.einsum("oh,hi,hj->oij", head, left, right)
    return (q + q.mT) / 2


LR = ("left", "right")


@cell("explore", "own object")
def test_what_is_shown_is_what_the_file_holds(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "a", model(), input_shape=(6, 6), output_names=NAMES)
    shown, forms = answers(tmp_path), forms_in(folder / "model.safetensors")
    for output, q in enumerate(forms):
        assert shown[f"{output} name"] == NAMES[output]
        values = torch.linalg.eigvalsh(q)
        found = torch.tensor(shown[f"{output} values"])
        largest = values[values.abs().argsort(descending=True)][: len(found)]
        torch.testing.assert_close(found.double(), largest, rtol=1e-5, atol=1e-7)
        at = shown[f"{output} inputs"]
        matrix = torch.tensor(shown[f"{output} matrix"], dtype=torch.float64)
        torch.testing.assert_close(matrix, q[at][:, at], rtol=1e-4, atol=1e-6)


def in_type(dtype: torch.dtype) -> Callable[[BilinearClassifier], BilinearClassifier]:
    return lambda original: original.to(dtype)


def same(original: BilinearClassifier) -> BilinearClassifier:
    return original


@contextmanager
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cell("explore", "common function", "other dtype")
@pytest.mark.parametrize(
    "written",
    [with_common_function, *map(in_type, (torch.float64, torch.float16, torch.bfloat16))],
    ids=["common function", "float64", "float16", "bfloat16"],
)
def test_the_same_classes_are_shown_alike(
    tmp_path: Path, written: Callable[[BilinearClassifier], BilinearClassifier]
) -> None:
    about = {"input_shape": (6, 6), "output_names": NAMES}
    for root, change in (("one", same), ("other", written)):
        model_folder(tmp_path / root / "a", change(model()), **about)
    check_alike(*(answers(tmp_path / root) for root in ("one", "other")))
    model_folder(tmp_path / "one" / "b", written(model()), **about)
    with client_of(tmp_path / "one") as client:
        found = client.get("/api/v1/compare", params={"a": A, "b": B}).json()
    (layer,) = found["difference"]["layers"]
    assert layer["frobenius"] == pytest.approx(1, abs=1e-9)
    assert layer["change"] == pytest.approx(0, abs=1e-6)


@cell("explore", "threads")
def test_two_threads_show_what_one_shows(tmp_path: Path) -> None:
    model_folder(tmp_path / "a", model(), input_shape=(6, 6), output_names=NAMES)
    alone = answers(tmp_path)
    with two_threads():
        check_alike(alone, answers(tmp_path))


def check_alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name, shown in one.items():
        if name.endswith("name"):
            assert other[name] == shown
        else:
            found, expected = torch.tensor(other[name]), torch.tensor(shown)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=name)
