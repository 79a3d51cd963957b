"""Guards against a label, a column or a unit that means one thing to the data and another to us.

A small model with random weights is changed in ways that leave its meaning alone; what every verb
says of it is compared with what the module gives by hand.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

import bilens as bl
from bilens.api.alignment import align_models
from bilens.api.classifier import (
    attack_model,
    certify_model,
    class_index,
    explain_predictions,
    halves,
)
from bilens.api.given_data import given_data, performance_of
from bilens.base.errors import DataError
from bilens.data.images import ImageDataset
from bilens.io.loaded_model import LoadedModel
from bilens.io.model_folder import save
from bilens.nn import BilinearClassifier
from contract.drawn import fewer
from contract.table import cell

COLUMNS = ("age", "width", "price", "depth")
WORDS, DIGITS = ("owl", "cat", "dog"), ("9", "10", "8")
ROWS = 24


@dataclass(frozen=True, eq=False)
class World:
    """A model with the names of its inputs and outputs, and rows with the class that is right."""

    module: BilinearClassifier
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    frame: pd.DataFrame  # its columns may stand in another order than the model's
    right: tuple[str, ...]  # name of the right class of each row
    saved: bool = False

    @property
    def x(self) -> Tensor:
        """The rows as the model reads them, by hand."""
        return torch.from_numpy(self.frame[[*self.columns]].to_numpy(np.float64, copy=True))

    @property
    def logits(self) -> Tensor:
        return self.module(self.x).detach()

    @property
    def labels(self) -> Tensor:
        return torch.tensor([self.classes.index(name) for name in self.right])

    @property
    def accuracy(self) -> float:
        return float((self.logits.argmax(dim=1) == self.labels).double().mean())

    def model(self, named: bool = True) -> LoadedModel:
        names = self.columns if named else None
        if not self.saved:
            return LoadedModel(
                self.module, "a/folder", "0" * 64, None, self.classes, {}, input_names=names
            )
        with TemporaryDirectory() as folder:
            path = Path(folder, "model")
            save(self.module, path, output_names=self.classes, input_names=names)
            return bl.load(path)


def world(seed: int, classes: tuple[str, ...] = WORDS) -> World:
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        module = BilinearClassifier(len(COLUMNS), 5, len(classes), bias=True).double()
    with torch.no_grad():
        for part in module.parameters():
            part.copy_(torch.randn(part.shape, generator=generator, dtype=torch.float64))
    x = rng.integers(-512, 512, size=(ROWS, len(COLUMNS))) / 256  # exact in float32
    right = tuple(classes[at] for at in rng.permutation(ROWS) % len(classes))
    return World(module, classes, COLUMNS, pd.DataFrame(x, columns=[*COLUMNS]), right)


def changed(module: BilinearClassifier, embed: Tensor, head: Tensor) -> BilinearClassifier:
    """The same layer between another embedding and another head."""
    found = BilinearClassifier(embed.shape[1], len(embed), len(head), bias=True).double()
    found.load_state_dict({**module.state_dict(), "embed.weight": embed, "head.weight": head})
    return found


def permuted_inputs(one: World, rng: np.random.Generator) -> World:
    order, other = rng.permutation(len(one.columns)), rng.permutation(len(one.columns))
    embed = one.module.embed.weight.detach()[:, order]
    return replace(
        one,
        module=changed(one.module, embed, one.module.head.weight.detach()),
        columns=tuple(one.columns[at] for at in order),
        frame=one.frame.iloc[:, other],
    )


def permuted_outputs(one: World, rng: np.random.Generator) -> World:
    order = np.roll(rng.permutation(len(one.classes)), 1)
    head = one.module.head.weight.detach()[order]
    module = changed(one.module, one.module.embed.weight.detach(), head)
    return replace(one, module=module, classes=tuple(one.classes[at] for at in order))


def other_names(one: World, rng: np.random.Generator) -> World:
    """Classes that are called by numbers, none of which is the position of its class."""
    found = permuted_outputs(one, rng)
    called = dict(zip(one.classes, ("1", "2", "0"), strict=True))
    if all(called[name] == str(at) for at, name in enumerate(found.classes)):
        called = dict(zip(one.classes, ("2", "0", "1"), strict=True))
    columns = {name: f"{name} of it" for name in one.columns}
    return replace(
        found,
        classes=tuple(called[name] for name in found.classes),
        right=tuple(called[name] for name in one.right),
        columns=tuple(columns[name] for name in found.columns),
        frame=found.frame.rename(columns=columns),
    )


def other_units(one: World, rng: np.random.Generator) -> World:
    scales = 2.0 ** rng.integers(-6, 7, size=len(one.columns))
    embed = one.module.embed.weight.detach() / torch.from_numpy(scales)
    module = changed(one.module, embed, one.module.head.weight.detach())
    return replace(one, module=module, frame=one.frame * scales)


def in_rows(order: Callable[[World, np.random.Generator], Any]) -> Callable[..., World]:
    def of(one: World, rng: np.random.Generator) -> World:
        rows = [*map(int, order(one, rng))]
        frame = one.frame.iloc[rows].reset_index(drop=True)
        return replace(one, frame=frame, right=tuple(one.right[row] for row in rows))

    return of


RELATIONS: dict[str, Callable[[World, np.random.Generator], World]] = {
    "permuted inputs": permuted_inputs,
    "permuted outputs": permuted_outputs,
    "other names": other_names,
    "other units": other_units,
    "other dtype": lambda one, _: replace(one, frame=one.frame.astype(np.float32)),
    "repeated rows": in_rows(lambda _, __: np.repeat(np.arange(ROWS), 2)),
    "shuffled rows": in_rows(lambda _, rng: rng.permutation(ROWS)),
    "sorted rows": in_rows(lambda one, _: np.argsort(one.right, kind="stable")),
    "saved": lambda one, _: replace(one, saved=True),
}
seeds = st.integers(0, 2**31)


def in_every_form(one: World, folder: Path) -> dict[str, tuple[LoadedModel, Any]]:
    """The same rows and right answers in every form in which they may be given."""
    table, whole = one.frame.assign(kind=one.right), one.model()
    table.to_csv(folder / "t.csv", index=False)
    x, y = one.x, one.labels  # in the order of the model
    np.savez(folder / "t.npz", x=x.numpy(), y=np.array(one.right))
    np.savez(folder / "positions.npz", x=x.numpy(), y=y.numpy().astype(np.int16))
    found = {
        "table": (whole, folder / "t.csv"),
        "arrays": (whole, folder / "t.npz"),
        "frame": (whole, (one.frame, table["kind"])),
        "categories": (whole, (one.frame, table["kind"].astype("category"))),
        "texts": (whole, (one.frame, np.array(one.right))),
        "positions": (one.model(named=False), (x, y)),
        "floats": (one.model(named=False), (x.numpy(), y.numpy().astype(np.float32))),
        "positions in a file": (one.model(named=False), folder / "positions.npz"),
    }
    if {*one.classes} <= {*"012"}:  # numbers that could be either are refused
        del found["floats"], found["positions in a file"]
    if all(name.isdecimal() for name in one.classes):
        numbers = np.array([*map(int, one.right)])
        found["numbers"] = whole, (one.frame, numbers)
        found["tensor of numbers"] = whole, (one.frame, torch.from_numpy(numbers))
    return found


def transformed(relation: str, seed: int) -> World:
    return RELATIONS[relation](world(seed), np.random.default_rng(seed))


def rounding(one: World) -> float:
    """Return how far scores may lie apart: a float32 that goes through text is another double."""
    return 1e-5 if (one.frame.dtypes == np.float32).any() else 1e-6


@pytest.mark.parametrize("relation", RELATIONS)
@fewer(3)
@given(seed=seeds)
@cell("audit", *RELATIONS)
def test_an_audit_tells_the_accuracy_of_the_module(relation: str, seed: int) -> None:
    one = transformed(relation, seed)
    recalls = {
        name: float((one.logits.argmax(1) == one.labels)[one.labels == at].double().mean())
        for at, name in enumerate(one.classes)
    }
    with TemporaryDirectory() as folder:
        forms = in_every_form(one, Path(folder))
        whole = [*forms][seed % len(forms)]  # the others are told through what an audit calls
        for form, (model, data) in forms.items():
            given = given_data(model, data)
            assert given is not None
            found = performance_of(model, given)
            if form == whole:
                named = getattr(model, "input_names", None) is not None  # has no null
                few = {} if named else {"null_samples": 39}
                assert bl.audit(model, data, **few).record.performance == found
            assert found.classification is not None
            told = found.classification
            assert told.accuracy.value == pytest.approx(one.accuracy), form
            assert {c.name: c.recall and c.recall.value for c in told.classes} == pytest.approx(
                recalls
            ), form


@pytest.mark.parametrize("relation", RELATIONS)
@fewer(3)
@given(seed=seeds)
@cell("certify", *RELATIONS)
def test_a_certificate_counts_the_right_answers_of_the_module(relation: str, seed: int) -> None:
    one = transformed(relation, seed)
    own = one.logits.gather(1, one.labels[:, None])[:, 0]
    rest = one.logits.scatter(1, one.labels[:, None], -torch.inf).max(dim=1).values
    with TemporaryDirectory() as folder:
        for form, (model, data) in in_every_form(one, Path(folder)).items():
            if form in ("table", "positions", "numbers"):
                radii = certify_model(model, data).record.l2
                assert radii is not None
                assert radii.num_right == int((own > rest).sum()), form
                margins = [item.margin for item in radii.inputs]
                near = rounding(one)
                assert margins == pytest.approx((own - rest).tolist(), rel=near, abs=near), form
                assert [item.label for item in radii.inputs] == one.labels.tolist()


@pytest.mark.parametrize("relation", RELATIONS)
@fewer(3)
@given(seed=seeds)
@cell("attack", *RELATIONS)
def test_an_attack_of_length_zero_changes_nothing(relation: str, seed: int) -> None:
    """The rows lie between −2 and 2, and some far beyond: no box is known, and none is taken."""
    one = transformed(relation, seed)
    _, order = halves(one.x, one.labels, 0)  # which rows are judged on
    right = (one.logits.argmax(dim=1) == one.labels)[order]
    with TemporaryDirectory() as folder:
        for form, (model, data) in in_every_form(one, Path(folder)).items():
            if form not in ("table", "positions", "numbers"):
                continue
            record = attack_model(
                model, data, epsilons=[0.0, 0.5], random_perturbations=1, restarts=1
            ).record
            assert record.model.output_names == one.classes
            for objective in record.objectives:
                clean = float(right[one.labels[order] != objective.target].double().mean())
                for item in objective.perturbations:
                    assert item.effect.accuracy[0] == pytest.approx(clean), form
                    assert item.clipped is None or item.clipped.accuracy[0] == pytest.approx(clean)


@pytest.mark.parametrize("relation", RELATIONS)
@fewer(3)
@given(seed=seeds)
@cell("explain", *RELATIONS)
@cell("attribute", "permuted inputs", "permuted outputs", "other units", "other dtype", "saved")
def test_an_explanation_knows_the_right_answer_and_adds_up(relation: str, seed: int) -> None:
    one = transformed(relation, seed)
    with TemporaryDirectory() as folder:
        for form, (model, data) in in_every_form(one, Path(folder)).items():
            if form not in ("table", "frame", "positions", "numbers"):
                continue
            first = 2 if form == "table" else 0  # as a spreadsheet numbers rows
            record = explain_predictions(model, data, [first, first + 5], baseline="zeros")
            for row, item in zip((0, 5), record.explanations, strict=True):
                assert item.label is not None
                assert record.model.output_names[item.label] == one.right[row], form
                assert item.predicted == int(one.logits[row].argmax())
                logits = one.logits[row] - one.logits[row].mean()
                near = rounding(one)
                assert item.scores == pytest.approx(logits.tolist(), rel=near, abs=near)
                # of a quadratic function the gradient half way is the mean gradient on the way
                middle = (one.x[row] / 2).requires_grad_()
                output = one.module(middle)
                (output[item.predicted] - output.mean()).backward()
                assert middle.grad is not None
                by_hand = (middle.grad * one.x[row]).tolist()
                assert item.attributions[0].values == pytest.approx(by_hand)
        told = bl.attribute(one.module.quadratic_map(), one.x)
        middle = (one.x / 2).requires_grad_()
        for output in range(len(one.classes)):
            (slope,) = torch.autograd.grad(one.module(middle)[:, output].sum(), middle)
            assert torch.allclose(told[:, output], slope * one.x)


# ---- data sets of images


def dataset(one: World, classes: tuple[str, ...], source: str = "data-dir") -> ImageDataset:
    """Rows as images of 2 × 2 pixels, labelled by positions among some names."""
    pixels = (one.x + 2).float() / 4
    labels = torch.tensor([classes.index(name) for name in one.right])
    shape = (2, 2)
    return ImageDataset(
        "mine",
        pixels,
        labels,
        pixels,
        labels,
        shape,
        classes,
        "drawn",
        source,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("classes", [WORDS, DIGITS, ("2", "0", "1")])
@fewer(2)
@given(seed=seeds)
@cell("audit", "permuted outputs", "other names")
@cell("certify", "permuted outputs", "other names")
@cell("attack", "permuted outputs", "other names")
@cell("explain", "permuted outputs", "other names")
def test_a_label_of_a_data_set_is_no_text(classes: tuple[str, ...], seed: int) -> None:
    """98.7 % were told as 1.3 % where classes are called by digits in another order."""
    one = world(seed, classes)
    one = replace(one, frame=(one.frame + 2) / 4)
    answers = one.logits.argmax(dim=1)
    right = int((answers == one.labels).sum())
    model = one.model(named=False)
    for names in (classes, classes[::-1]):  # the data may number the same names otherwise
        data = dataset(replace(one, frame=one.frame * 4 - 2), names)
        found = bl.audit(model, data, null_samples=39).record
        assert found.performance is not None
        assert found.performance.classification is not None
        assert found.performance.classification.accuracy.right == right
        proven = certify_model(model, data).record.l2
        assert proven is not None
        assert proven.num_right == right
        explained = explain_predictions(model, data, [3]).explanations[0]
        assert explained.label == int(one.labels[3])
        record = attack_model(model, data, target=0, epsilons=[0.0]).record
        others = one.labels != 0
        clean = float((answers == one.labels)[others].double().mean())
        for curve in record.curves:
            assert curve.clipped is not None  # pixels are known to lie between 0 and 1
            assert curve.effect.accuracy[0] == pytest.approx(clean)
            assert curve.clipped.accuracy[0] == pytest.approx(clean)


def test_positions_of_a_data_set_without_names_are_positions_of_the_model() -> None:
    one = world(1, DIGITS)
    one = replace(one, frame=(one.frame + 2) / 4)
    names = ("0", "1", "2")  # what `own images` get where nothing is said
    data = replace(
        dataset(replace(one, frame=one.frame * 4 - 2), DIGITS, "tensors"), class_names=names
    )
    found = bl.audit(one.model(named=False), data, null_samples=39).record.performance
    assert found is not None
    assert found.classification is not None
    assert found.classification.accuracy.value == pytest.approx(one.accuracy)


@pytest.mark.parametrize("kind", ["uint8", "float", "bytes as floats"])
@cell("audit", "other dtype")
def test_pixels_are_read_in_the_scale_of_the_training(kind: str) -> None:
    one = world(2)
    levels = ((one.x.numpy() + 2) * 60).round().astype(np.uint8)
    module = one.module
    expected = float(
        (module(torch.from_numpy(levels / 255.0)).argmax(1) == one.labels).double().mean()
    )
    # a training of ours on a data set of images says its name
    model = LoadedModel(module, "m", "0" * 64, (2, 2), one.classes, {"data_name": "mine"})
    given = {
        "uint8": levels.reshape(-1, 2, 2),
        "float": levels / 255.0,
        "bytes as floats": levels.astype(np.float64),
    }[kind]
    if kind == "bytes as floats":
        with pytest.raises(DataError, match="divide them by 255"):
            bl.audit(model, (given, one.labels), null_samples=39)
        return
    found = bl.audit(model, (given, one.labels), null_samples=39).record.performance
    assert found is not None
    assert found.classification is not None
    assert found.classification.accuracy.value == pytest.approx(expected)


@pytest.mark.parametrize("sizes", [(7, 9, 4), (5, 5, 5), (8, 2, 6)])
@cell("attack", "repeated rows", "sorted rows")
def test_an_attack_learns_from_half_of_the_different_rows_of_each_class(
    sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of each class three times, the classes of odd sizes: no row is on both sides."""
    seen: list[Any] = []

    def caught(_module: Any, training: Any, test: Any, *_: Any, **__: Any) -> Any:
        seen.extend([training, test])
        raise DataError("seen")

    monkeypatch.setattr("bilens.api.classifier.attack_classifier", caught)
    torch.manual_seed(sum(sizes))
    model, x = BilinearClassifier(4, 3, 3).double(), torch.randn(sum(sizes), 4).double()
    labels = torch.arange(3).repeat_interleave(torch.tensor(sizes))
    with pytest.raises(DataError, match="seen"):
        attack_model(model, (x.repeat(3, 1), labels.repeat(3)), seed=1)
    sides = [{(*row,) for row in side.inputs.tolist()} for side in seen]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == sum(sizes)
    for one, size in enumerate(sizes):
        known = [len(side.inputs[side.targets == one].unique(dim=0)) for side in seen]
        assert known == [size - size // 2, size // 2]


FLOATS = {"9": "9.0", "10": "10.0", "8": "8.0"}


@pytest.mark.parametrize("classes", [DIGITS, tuple(FLOATS[one] for one in DIGITS)])
@cell("compare", "other names")
def test_a_number_is_one_name_however_it_is_written(classes: tuple[str, ...]) -> None:
    """A class "9" was another one than "9.0", so that two equal models had no class in common."""
    other = {**FLOATS, **{value: key for key, value in FLOATS.items()}}
    one = world(1, classes)
    turned = permuted_outputs(one, np.random.default_rng(1))
    written = replace(turned, classes=tuple(other[name] for name in turned.classes))
    found = align_models(one.model(), written.model()).outputs
    assert found is not None
    assert {classes[a]: other[written.classes[b]] for a, b in found.pairs} == {
        name: name for name in classes
    }
    index = class_index(one.model(), other[classes[1]])
    assert index == 1


@pytest.mark.parametrize("as_float", [True, False])
@cell("audit", "other names")
def test_labels_that_can_be_no_positions_are_names(as_float: bool) -> None:
    """Labels 9 and 10 of a model of three classes called so were refused as positions."""
    one = world(2, tuple(FLOATS[name] for name in DIGITS))
    y = np.array([float(name) for name in one.right])
    model = one.model(named=False)
    given = given_data(model, (one.x, y if as_float else y.astype(int)))
    assert given is not None
    assert torch.equal(given.targets, one.labels)


@cell("attack", "other units")
def test_rows_beyond_the_pixels_of_the_training_are_not_clipped_to_them() -> None:
    one = world(3)
    named = {"provenance": {"data_name": "mnist"}, "output_names": one.classes}
    model = LoadedModel(one.module, "", "", **named)
    assert float(one.x.min()) < 0
    record = attack_model(
        model, (one.x, one.labels), epsilons=[0.0, 0.5], random_perturbations=1, restarts=1
    ).record
    for objective in record.objectives:
        for item in objective.perturbations:
            assert item.clipped is None or item.clipped.accuracy[0] == item.effect.accuracy[0]
