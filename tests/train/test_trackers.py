"""Each line of a history is told to trackers once, with its step, and they are closed.

Broken once: with lines told twice when a run goes on, a tracker left open when a run fails, with
a tracker that ends the training it fails in.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer.testing

import bilens as bl
from bilens.base.errors import InterruptedRunError, MissingExtraError, UsageError
from bilens.base.files import read_json
from bilens.cli.app import app
from bilens.cli.console import Output
from bilens.train import trackers
from bilens.train.recipes import ROWS_RECIPE
from bilens.train.trackers import check_trackers, numbers_in, tracked

IMAGES = torch.rand(90, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(90) % 3


class Fake:
    """A tracker that keeps what it is told; `fails` at a step."""

    def __init__(self, fails: int | None = None) -> None:
        self.lines: list[tuple[int, dict[str, float], dict[str, Any]]] = []
        self.fails = fails

    def log(self, step: int, numbers: Mapping[str, float], figures: Mapping[str, Any]) -> None:
        if step == self.fails:
            raise ConnectionError("no route")
        self.lines.append((step, dict(numbers), dict(figures)))

    @property
    def steps(self) -> list[int]:
        return [step for step, *_ in self.lines]


def train(folder: Path, tracker: Any, **how: Any) -> Any:
    usual = {"epochs": 3, "d_hidden": 8, "batch_size": 30}
    return bl.train_image(IMAGES, LABELS, folder, tracker=tracker, **usual | how)


def test_each_line_arrives_with_its_step(tmp_path: Path) -> None:
    fake = Fake()
    done = train(tmp_path / "run", fake)
    assert fake.steps == [1, 2, 3]
    for (_, numbers, figures), line in zip(fake.lines, done.history, strict=True):
        assert numbers == {name: float(x) for name, x in line.to_dict().items()}
        assert figures == {}


def test_what_is_watched_is_told_with_a_picture(tmp_path: Path) -> None:
    fake = Fake()
    train(tmp_path / "run", fake, watch=True)
    _, numbers, figures = fake.lines[-1]
    assert "weights/left" in numbers
    picture = figures["eigenvectors"]
    assert picture.shape == (3 * 18, 2 * 18, 3)
    assert picture.dtype == np.uint8
    model = bl.load(tmp_path / "run").module
    assert model is not None
    first = picture[1:17, 1:17].astype(int)  # of class 0: blue is positive
    blue = first[..., 2] > first[..., 0]
    eig = bl.eigendecompose_all(
        model.quadratic_map(), bl.centred_directions(3).float(), k=1, which="largest"
    )
    vector = eig.eigenvectors[0, 0].reshape(16, 16)
    strong = (vector.abs() > vector.abs().max() / 2).numpy()
    assert (blue == (vector > 0).numpy())[strong].all()


@pytest.mark.parametrize("told", [True, False], ids=["same tracker", "new tracker"])
def test_a_run_that_goes_on_tells_no_line_twice(tmp_path: Path, told: bool) -> None:
    folder, fake, seen = tmp_path / "run", Fake(), list[int]()

    def stop(line: Any) -> None:
        seen.append(line.epoch)
        if line.epoch == 2:
            raise InterruptedRunError("as by Ctrl-C")

    with pytest.raises(InterruptedRunError):
        train(folder, fake if told else (), epochs=4, on_epoch=stop)
    again = Fake()
    train(folder, again, epochs=4, resume=True)
    assert fake.steps == ([1] if told else [])
    assert fake.steps + again.steps == [1, 2, 3, 4]
    assert read_json(folder / "tracking.json")["Fake"]["step"] == 4


def test_two_trackers_of_one_class_are_both_told(tmp_path: Path) -> None:
    first, second = Fake(), Fake()
    train(tmp_path / "run", [first, second])
    assert first.steps == second.steps == [1, 2, 3]
    assert [*read_json(tmp_path / "run/tracking.json")] == ["Fake", "Fake 2"]


def test_a_new_tracker_is_told_a_finished_run(tmp_path: Path, named: "list[Named]") -> None:
    train(tmp_path / "run", "wandb")
    fake = Fake()
    train(tmp_path / "run", ["wandb", fake], resume=True)
    assert fake.steps == [1, 2, 3]
    assert len(named) == 1  # it knows all, and is not opened again
    again = Fake()
    train(tmp_path / "run", again, resume=True)
    assert again.steps == []


def test_an_epoch_that_is_repeated_is_not_told_again(tmp_path: Path) -> None:
    fake, say = Fake(), list[str]()
    for _ in range(2):  # the second time after a process that was killed
        with tracked(tmp_path, [fake], {}, say.append) as telling:
            for step in (1, 2):
                telling.log(step, {"loss": 1.0})
    assert fake.steps == [1, 2]


def test_a_tracker_that_fails_does_not_end_the_training(tmp_path: Path) -> None:
    said, bad, good = list[str](), Fake(fails=2), type("Good", (Fake,), {})()
    done = train(tmp_path / "run", [bad, good], say=said.append)
    assert len(done.history) == 3
    assert bad.steps == [1]
    assert good.steps == [1, 2, 3]
    sentence = "Fake failed (ConnectionError: no route): the training goes on without it."
    assert said.count(sentence) == 1


def test_an_overwritten_run_begins_anew(tmp_path: Path) -> None:
    train(tmp_path / "run", Fake())
    fake = Fake()
    train(tmp_path / "run", fake, overwrite=True)
    assert fake.steps == [1, 2, 3]


class Named(Fake):
    made: "list[Named]" = []  # noqa: RUF012

    def __init__(self, _folder: Path, recipe: Mapping[str, Any], run: str) -> None:
        super().__init__()
        self.run, self.given, self.recipe, self.status = run or "one", run, recipe, ""
        self.made.append(self)

    def close(self, status: str) -> None:
        self.status = status


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> list[Named]:
    monkeypatch.setitem(trackers.TRACKERS, "wandb", Named)
    monkeypatch.setattr(trackers, "optional_package", lambda *_: None)
    monkeypatch.setattr(Named, "made", [])
    return Named.made


def interrupt(_: Any) -> None:
    raise InterruptedRunError("as by Ctrl-C")


def fail(_: Any) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("end", "status"), [(None, "FINISHED"), (interrupt, "KILLED"), (fail, "FAILED")]
)
def test_a_named_tracker_is_closed_however_a_run_ends(
    tmp_path: Path, named: list[Named], end: Callable[[Any], None] | None, status: str
) -> None:
    if end is None:
        train(tmp_path / "run", "wandb")
    else:
        with pytest.raises((InterruptedRunError, ZeroDivisionError)):
            train(tmp_path / "run", "wandb", on_epoch=end)
    (one,) = named
    assert one.status == status
    assert one.recipe["d_hidden"] == 8


def test_a_run_that_goes_on_is_the_same_one_to_its_tracker(
    tmp_path: Path, named: list[Named]
) -> None:
    with pytest.raises(InterruptedRunError):
        train(tmp_path / "run", "wandb", on_epoch=interrupt)
    train(tmp_path / "run", "wandb", resume=True)
    assert [one.given for one in named] == ["", "one"]


def test_what_is_no_tracker_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for wrong in ("neptune", 3, ["wandb", object()][1]):
        with pytest.raises(UsageError, match="expected one of tensorboard, wandb, trackio, mlflow"):
            check_trackers(wrong)
    monkeypatch.setitem(__import__("sys").modules, "trackio", None)
    with pytest.raises(MissingExtraError, match=r"--track trackio needs .*bilens\[tracking\]"):
        train(tmp_path / "run", "trackio")
    assert not (tmp_path / "run").exists()


def test_numbers_of_a_line_have_names() -> None:
    line = {"step": 3, "fvu": {"a.b": 0.5}, "kind": "x", "ok": True, "none": None}
    assert numbers_in(line) == {"step": 3.0, "fvu/a.b": 0.5}


def test_language_models_and_autoencoders_are_told_by_step(tmp_path: Path) -> None:
    fake = Fake()
    sizes = {"d_model": 8, "n_layer": 1, "n_head": 1, "n_ctx": 16, "steps": 6, "evaluations": 3}
    texts = [f"the cat sat on mat {one} and the dog ran after it all day" for one in range(60)]
    done = bl.train_language(
        texts, tmp_path / "lm", tracker=fake, batch_size=4, vocab_size=280, **sizes
    )
    assert fake.steps == [line.step for line in done.history] == [2, 4, 6]
    other = Fake()
    rows = torch.randn(512, 8)
    how = {"expansion": 2, "k": 2, "batch_size": 64, "tokens": 2048}
    sae = bl.train_sae(rows, tmp_path / "sae", tracker=other, **how)
    assert other.steps == [line.step for line in sae.history]
    assert any(name.startswith("fvu/") for name in other.lines[0][1])


def test_a_table_and_a_conversion_are_told(tmp_path: Path, named: list[Named]) -> None:
    table = tmp_path / "table.csv"
    numbers = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)).tolist()
    rows = [f"{a},{b},{a * b + a}" for a, b in numbers]
    table.write_text("\n".join(["a,b,y", *rows]))
    runner, command = typer.testing.CliRunner(), ["train", "table", str(table), "--target", "y"]
    out = tmp_path / "table"
    done = runner.invoke(
        app, [*command, "--out", str(out), "--track", "wandb"], obj=Output(quiet=True)
    )
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    (one,) = named
    assert one.steps == [*range(1, len(lines) + 2)]
    assert [seen for _, seen, _ in one.lines[:-1]] == [numbers_in(line) for line in lines]
    assert "test_score" in one.lines[-1][1]
    wrong = runner.invoke(
        app, [*command, "--out", "x", "--track", "neptune"], obj=Output(quiet=True)
    )
    assert isinstance(wrong.exception, UsageError)

    fake, data = Fake(), torch.randn(600, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    layers = [torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3)]
    recipe = dataclasses.replace(ROWS_RECIPE, tokens=8000, layer_tokens=300, layer_steps=5)
    network, folder = torch.nn.Sequential(*layers).eval(), tmp_path / "bilinear"
    bl.convert_network(network, data, folder, recipe, tracker=fake)
    (curve,) = folder.glob("checkpoints/distillation.jsonl")
    steps = [json.loads(line)["step"] for line in curve.read_text().splitlines()]
    assert fake.steps == [0, *steps]
    assert any(name.startswith("layers_r_squared/") for name in fake.lines[0][1])
    assert "held_out_kl" in fake.lines[1][1]
