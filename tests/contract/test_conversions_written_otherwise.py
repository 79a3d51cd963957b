"""Guards against a conversion that hangs on how its model or its rows are written.

The steps of a conversion are the exact ones alone: what is learnt by gradients differs by rounding
and drifts apart from there. What each conversion gives is laid beside the user's own module, run on
the same rows, and beside the best quadratic of those rows, which numpy finds.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import bilens as bl
from bilens.api.network_conversion import RECIPE
from bilens.report.reports import ConversionReport
from bilens.train.randomness import ORDER as PLACES, stream
from contract.table import cell

EXACT = replace(RECIPE, layer_steps=0, skip=("distillation",))
ORDER, UNITS, CLASSES = [2, 0, 3, 1], [3, 5, 0, 1, 2, 4], [2, 0, 1]
COLUMNS, NAMES = ["age", "dose", "mass", "size"], ("ape", "bee", "cat")


class Gated(nn.Module):
    """A gated layer with an activation, which is not exact."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 3)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.act(self.gate(x)) * self.up(x))
        return y


def network(gated: bool = False) -> Any:
    torch.manual_seed(0)
    return (Gated() if gated else nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))).eval()


def rows(count: int = 600) -> Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(1))


def answers(module: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        y: Tensor = module(x)
    return y


def r_squared(y: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> float:
    """Of logits, less what is common to all."""
    y, found = (one - one.mean(axis=1, keepdims=True) for one in (y, found))
    return 1 - float(np.square(found - y).sum() / np.square(y - y.mean(axis=0)).sum())


def best_quadratic(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    first, second = np.triu_indices(x.shape[1])
    features = np.c_[np.ones(len(x)), x, x[:, first] * x[:, second]]
    return np.asarray(features @ np.linalg.lstsq(features, y, rcond=None)[0])


@dataclass(frozen=True)
class Made:
    """A conversion: what it gives, and what was measured of it."""

    module: Any
    measured: dict[str, Any]
    names: tuple[str, ...] | None

    def __call__(self, x: Tensor) -> Tensor:
        return answers(self.module, x.float())


def converted(folder: Path, model: Any, x: Any, labels: Any = None) -> Made:
    given = x if labels is None else (x, labels)
    (measured,) = bl.convert_network(model, given, folder, EXACT, held_out=0.3)["domains"]
    loaded = bl.load(folder)
    return Made(loaded.module, measured, loaded.output_names)


def check_measured(made: Made, module: Any, x: Tensor, labels: Tensor) -> None:
    """What is said of a draw of the rows is what numpy finds on all of them, but for the draw."""
    y, found = answers(module, x).double().numpy(), made(x).double().numpy()
    best = r_squared(y, best_quadratic(x.double().numpy(), y))
    assert r_squared(y, found) == pytest.approx(best, abs=0.01)
    for name, right in (("same_top_token", y.argmax(axis=1)), ("accuracy", labels.numpy())):
        by_hand = float((found.argmax(axis=1) == right).mean())
        assert made.measured[name] == pytest.approx(by_hand, abs=0.06), name


def check_same(found: Tensor, known: Tensor) -> None:
    torch.testing.assert_close(found, known, rtol=0, atol=1e-6 * float(known.abs().max()))


def permuted_units(net: Any, x: Tensor) -> tuple[Any, Tensor, list[int]]:
    with torch.no_grad():
        for part in (net[0].weight, net[0].bias):
            part.copy_(part[UNITS].clone())
        net[2].weight.copy_(net[2].weight[:, UNITS].clone())
    return net, x, [0, 1, 2]


def permuted_inputs(net: Any, x: Tensor) -> tuple[Any, Tensor, list[int]]:
    with torch.no_grad():
        net[0].weight.copy_(net[0].weight[:, ORDER].clone())
    return net, x[:, ORDER], [0, 1, 2]


def permuted_outputs(net: Any, x: Tensor) -> tuple[Any, Tensor, list[int]]:
    with torch.no_grad():
        for part in (net[2].weight, net[2].bias):
            part.copy_(part[CLASSES].clone())
    return net, x, CLASSES


def other_units(net: Any, x: Tensor) -> tuple[Any, Tensor, list[int]]:
    scale = torch.tensor([1e3, 1.0, 1e-3, 1.0])
    with torch.no_grad():
        net[0].weight.div_(scale)
    return net, x * scale, [0, 1, 2]


def with_branches_scaled(net: Any, scale: Tensor) -> Any:
    with torch.no_grad():
        net.up.weight.mul_(scale[:, None])
        net.up.bias.mul_(scale)
        net.down.weight.div_(scale)
    return net


def scaled_branches(net: Any, x: Tensor) -> tuple[Any, Tensor, list[int]]:
    return with_branches_scaled(net, -1000 * torch.ones(6)), x, [0, 1, 2]


def common_function(net: Any, x: Tensor) -> tuple[Any, Tensor, list[int]]:
    with torch.no_grad():
        net[2].weight.add_(torch.tensor([0.5, -1, 2, 0, 1, 0.3]))
    return net, x, [0, 1, 2]


def other_dtype(net: Any, x: Tensor) -> tuple[Any, Tensor, list[int]]:
    return net.double(), x.double(), [0, 1, 2]


WAYS: list[Callable[[Any, Tensor], tuple[Any, Tensor, list[int]]]]
WAYS = [permuted_units, permuted_inputs, permuted_outputs]
WAYS += [other_units, scaled_branches, common_function, other_dtype]


@pytest.mark.parametrize("way", WAYS, ids=[way.__name__ for way in WAYS])
@cell("convert", "permuted units", "permuted inputs", "permuted outputs", "scaled branches")
@cell("convert", "common function", "other units", "other dtype", "same function", "own object")
def test_the_same_function_is_converted_to_the_same_one(way: Any, tmp_path: Path) -> None:
    gated, x = way is scaled_branches, rows()
    known = network(gated)
    other, inputs, order = way(network(gated), x)
    labels = answers(known, x).argmax(dim=1)
    moved = torch.tensor(order).argsort()[labels]
    one = converted(tmp_path / "a", known, x, labels)
    two = converted(tmp_path / "b", other, inputs, moved)
    expected, found = one(x)[:, order], two(inputs)
    if way is common_function:
        expected, found = (y - y.mean(dim=1, keepdim=True) for y in (expected, found))
    check_same(found, expected)
    check_measured(one, known, x, labels)
    for name, value in one.measured.items():
        if isinstance(value, float):
            assert two.measured[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert two.measured["teacher_accuracy"] == 1


@pytest.mark.parametrize("scale", [(3.0, -0.5, 10, 1, -2, 0.1), (1e4, 1e-4, 1, 1e3, 1e-3, 1)])
@cell("convert", "scaled branches")
def test_units_that_are_scaled_each_by_its_own_number_are_fitted_as_well(
    scale: tuple[float, ...], tmp_path: Path
) -> None:
    """Not the same numbers: a ridge, in units of the mean variance of all products, is chosen."""
    x, known = rows(), network(gated=True)
    y, other = answers(known, x), with_branches_scaled(network(gated=True), torch.tensor(scale))
    one, two = (
        r_squared(y.numpy(), converted(tmp_path / name, net, x, y.argmax(dim=1))(x).numpy())
        for name, net in (("a", known), ("b", other))
    )
    assert two == pytest.approx(one, abs=1e-3)


@cell("convert", "other units", "own object")
def test_an_answer_in_another_unit_is_converted_to_the_same_one(tmp_path: Path) -> None:
    x, known, other = rows(), network(), network()
    scale = torch.tensor([1e4, 1.0, 1e-3])
    with torch.no_grad():
        other[2].weight.mul_(scale[:, None])
        other[2].bias.mul_(scale)
    models = [
        replace(bl.from_module(one), provenance={"gives": "numbers"}) for one in (known, other)
    ]
    one, two = (converted(tmp_path / str(at), model, x) for at, model in enumerate(models))
    check_same(two(x) / scale, one(x))
    assert two.measured["loss"] == pytest.approx(one.measured["loss"], rel=1e-4)


@cell("convert", "permuted inputs", "permuted outputs", "other names", "other function")
def test_columns_and_classes_are_those_of_their_names(tmp_path: Path) -> None:
    x, net = rows(), network()
    labels = answers(net, x).argmax(dim=1).numpy()
    named = replace(bl.from_module(net), input_names=tuple(COLUMNS), output_names=NAMES)
    frame = pd.DataFrame(x.numpy(), columns=COLUMNS)
    one = converted(tmp_path / "a", named, frame, np.array(NAMES)[labels])
    two = converted(tmp_path / "b", named, frame.iloc[:, ORDER], np.array(NAMES)[labels])
    assert two(x).equal(one(x))
    assert one.names == NAMES
    assert one.measured["teacher_accuracy"] == 1
    check_measured(one, net, x, torch.from_numpy(labels))
    alone = replace(named, output_names=("bee", "cat", "ape"))  # and what bears them is not
    three = converted(tmp_path / "c", alone, frame, np.array(NAMES)[labels])
    assert three.measured["teacher_accuracy"] == 0
    assert three(x).equal(one(x))


WITH_ROWS: dict[str, Callable[[Tensor], Tensor]] = {
    "repeated": lambda labels: torch.arange(len(labels)).repeat_interleave(2),
    "shuffled": lambda labels: torch.randperm(len(labels), generator=torch.Generator()),
    "sorted": lambda labels: labels.argsort(),
}


@pytest.mark.parametrize("way", WITH_ROWS)
@cell("convert", "repeated rows", "shuffled rows", "sorted rows", "own object")
def test_any_order_of_the_rows_is_converted_alike(way: str, tmp_path: Path) -> None:
    """Not to the same numbers: another draw of the rows is held out."""
    x, net = rows(), network()
    labels = answers(net, x).argmax(dim=1)
    chosen = WITH_ROWS[way](labels)
    made = converted(tmp_path / "a", net, x[chosen], labels[chosen])
    assert made.measured["teacher_accuracy"] == 1
    check_measured(made, net, x, labels)


@cell("convert", "threads")
def test_two_threads_convert_to_the_same(tmp_path: Path) -> None:
    x, net, before = rows(), network(), torch.get_num_threads()
    labels = answers(net, x).argmax(dim=1)
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(converted(tmp_path / str(threads), net, x, labels)(x))
    finally:
        torch.set_num_threads(before)
    check_same(found[1], found[0])


# ---- what a loss is told in


def seen(found: dict[str, Any], lang: str = "en") -> str:
    """The page of a conversion, without the document that it carries."""
    page = ConversionReport(found).to_html(lang=lang)
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


@cell("convert", "other units")
def test_the_error_of_a_regression_is_told_with_its_unit(tmp_path: Path) -> None:
    """The page said "mean squared error" of a number that is divided by the variance."""
    torch.manual_seed(0)
    x = torch.randn(300, 3)
    net = nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 1))
    with torch.no_grad():
        net[2].weight.mul_(1000)
    y = net(x).detach()[:, 0] + 300 * torch.randn(300)
    recipe = replace(RECIPE, layer_steps=5, skip=("distillation",), measured_tokens=1000)
    found = bl.convert_network(net, (x, y), tmp_path / "c", recipe)
    (domain,) = found["domains"]
    assert found["unit"] == "share of the variance"
    order = torch.randperm(len(x), generator=stream(recipe.seed, PLACES))[:60]
    given = [m(x.float())[order, 0].detach() for m in (net, bl.load(tmp_path / "c").module.float())]
    for model, loss in zip(given, (domain["teacher_loss"], domain["loss"]), strict=True):
        error = float((model - y[order]).square().mean().sqrt())
        assert loss**0.5 * found["spread"] == pytest.approx(error, rel=1e-3)
    told = [f"{found['spread'] * domain[k] ** 0.5:.4g}" for k in ("teacher_loss", "loss")]
    for lang, words in (
        ("en", ("of the variance of what the model gives", "root mean square error")),
        ("ja", ("分散に対する割合", "2乗平均平方根誤差")),
    ):
        text = seen(found, lang)
        assert all(word in text for word in (*words, *told)), (lang, told)


def test_the_notes_of_a_conversion_stand_on_its_page(tmp_path: Path) -> None:
    x = torch.randn(200, 3)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    recipe = replace(RECIPE, layer_steps=5, skip=("distillation",))
    found = bl.convert_network(net, (x, torch.arange(200) % 2), tmp_path / "c", recipe)
    found["notes"].append("Something that is to be known.")
    assert "Something that is to be known." in seen(found)
