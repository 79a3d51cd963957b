"""Weights are read in trainings with transformers, Lightning and Keras, which do not notice it.

Broken once: without the random generator being put back, without the guard around a reading, with
an epoch counted from zero, with the model opened once for Keras.
"""

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bilens as bl
from bilens.base.errors import UsageError
from bilens.callbacks import EpochReader


class Block(nn.Module):
    """A bilinear layer between dropout and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.mlp = nn.Dropout(0.3), bl.nn.BilinearMLP(4, 6, 3)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        logits = self.mlp(self.drop(x))
        if labels is None:
            return logits
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Taken:
    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []

    def log(self, step: int, numbers: Any, figures: Any) -> None:
        assert figures == {}
        self.lines.append((step, dict(numbers)))


ROWS = [
    {"x": row, "labels": at % 3}
    for at, row in enumerate(torch.randn(24, 4, generator=torch.Generator().manual_seed(0)))
]


def train_with_transformers(
    folder: Path, *, watched: bool, logging_strategy: str = "no", **how: Any
) -> tuple[Any, Any]:
    library = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    torch.manual_seed(0)
    model = Block()
    arguments = library.TrainingArguments(
        str(folder), num_train_epochs=4, per_device_train_batch_size=8, report_to=[], use_cpu=True,
        save_strategy="no", logging_strategy=logging_strategy, disable_tqdm=True, seed=1,
    )  # fmt: skip
    trainer = library.Trainer(model=model, args=arguments, train_dataset=ROWS)
    if watched:
        trainer.add_callback(bl.callbacks.transformers(trainer, **how))
    trainer.train()
    return model, trainer


def test_a_training_ends_at_the_same_bits_and_logs_numbers(tmp_path: Path) -> None:
    plain, _ = train_with_transformers(tmp_path, watched=False)
    model, trainer = train_with_transformers(tmp_path, watched=True, every=2)
    assert model.training == plain.training
    for name, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    lines = [one for one in trainer.state.log_history if any("bilens" in name for name in one)]
    assert [one["step"] for one in lines] == [6, 12]
    names = {name for name in lines[0] if name.startswith("bilens/")}
    (layer,) = bl.from_module(model).layers
    kinds = ("norm", "dead_units", "effective_rank", "largest_eigenvalue")
    assert names == {f"bilens/{layer}/{kind}" for kind in kinds}
    weights = [one.detach().double() for one in model.parameters()]
    norm = torch.cat([one.flatten() for one in weights]).norm()
    assert lines[1][f"bilens/{layer}/norm"] == pytest.approx(float(norm), rel=1e-6)
    assert lines[0][f"bilens/{layer}/norm"] != lines[1][f"bilens/{layer}/norm"]


def test_losses_of_an_epoch_are_logged_as_without_it(tmp_path: Path) -> None:
    def losses(watched: bool) -> list[tuple[int, float]]:
        _, trainer = train_with_transformers(tmp_path, watched=watched, logging_strategy="epoch")
        return [(one["step"], one["loss"]) for one in trainer.state.log_history if "loss" in one]

    assert [step for step, _ in losses(True)] == [3, 6, 9, 12]
    assert losses(True) == losses(False)


def test_a_tracker_is_told_instead(tmp_path: Path) -> None:
    taken = Taken()
    _, trainer = train_with_transformers(tmp_path, watched=True, tracker=taken)
    assert [step for step, _ in taken.lines] == [3, 6, 9, 12]
    assert not [one for one in trainer.state.log_history if any("bilens" in name for name in one)]


def test_a_layer_that_is_not_there_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="bilens"):
        _, trainer = train_with_transformers(tmp_path, watched=True, layers="head")
    said = [one.getMessage() for one in caplog.records if one.name == "bilens"]
    assert len(said) == 1
    assert said[0].startswith("Block is not read: UsageError: there is no layer head")
    assert trainer.state.epoch == 4


def test_a_model_without_a_readable_layer_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    reader, logged = EpochReader(None, 1, None, bl.from_module, again=False), list[Any]()
    model = nn.Embedding(3, 4)
    for epoch in (1, 2):
        reader.read_epoch(model, epoch, epoch, logged.append)
    said = [one.getMessage() for one in caplog.records if one.name == "bilens"]
    assert len(said) == 1
    assert "Embedding is not read" in said[0]
    assert not logged


def test_reading_leaves_random_numbers_and_flags(caplog: pytest.LogCaptureFixture) -> None:
    def open_model(model: nn.Module) -> Any:
        torch.rand(3)
        return bl.from_module(model)

    reader, logged = EpochReader(None, 1, None, open_model, again=True), list[Any]()
    model, before = Block().train(), torch.get_rng_state()
    reader.read_epoch(model, 1, 1, logged.append)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(part.training for part in model.modules())
    assert all(one.grad is None and one.requires_grad for one in model.parameters())
    assert len(logged) == 1
    assert not caplog.records


def test_another_model_and_replaced_parameters_are_read_anew() -> None:
    reader, told = EpochReader(None, 1, None, bl.from_module, again=False), list[Any]()
    first, second = Block(), Block()

    def check_norm(model: nn.Module) -> None:
        reader.read_epoch(model, 1, 1, told.append)
        (norm,) = [value for name, value in told[-1].items() if name.endswith("/norm")]
        weights = torch.cat([one.detach().flatten() for one in model.parameters()])
        assert norm == pytest.approx(float(weights.norm()), rel=1e-6)

    check_norm(first)
    check_norm(second)
    larger = {name: 5 * value for name, value in second.state_dict().items()}
    second.load_state_dict(larger, assign=True)
    check_norm(second)


def test_every_is_checked() -> None:
    with pytest.raises(UsageError, match="every must be"):
        EpochReader(None, 0, None, bl.from_module, again=False)


def test_keras_has_the_numbers_in_its_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "torch"))
    library = pytest.importorskip("keras")

    def trained(*callbacks: Any) -> tuple[Any, Any]:
        library.utils.set_random_seed(0)
        layers = [library.layers.Dense(6, "relu"), library.layers.Dropout(0.3)]
        model = library.Sequential([library.Input((4,)), *layers, library.layers.Dense(3)])
        model.compile("sgd", library.losses.SparseCategoricalCrossentropy(from_logits=True))
        x = torch.stack([one["x"] for one in ROWS]).numpy()
        y = torch.tensor([one["labels"] for one in ROWS]).numpy()
        history = model.fit(x, y, epochs=3, batch_size=8, verbose=0, callbacks=[*callbacks])
        return model, history.history

    plain, _ = trained()
    model, history = trained(bl.callbacks.keras())
    for ours, theirs in zip(model.get_weights(), plain.get_weights(), strict=True):
        assert (ours == theirs).all()
    (name,) = [one for one in history if one.endswith("/norm")]
    assert len(set(history[name])) == 3
    assert name.replace("norm", "r_squared") in history


def test_lightning_logs_to_its_own_loggers(tmp_path: Path) -> None:
    library = pytest.importorskip("lightning.pytorch", reason="`pip install lightning` brings it")

    class Module(library.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.block = Block()

        def training_step(self, batch: Any, _: int) -> Tensor:
            loss: Tensor = self.block(**batch)["loss"]
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    def trained(*callbacks: Any) -> tuple[nn.Module, list[tuple[int, dict[str, float]]]]:
        torch.manual_seed(0)
        model, rows = Module(), torch.utils.data.DataLoader(ROWS, batch_size=8)
        logger = library.loggers.CSVLogger(str(tmp_path))
        lines: list[tuple[int, dict[str, float]]] = []
        logger.log_metrics = lambda numbers, step: lines.append((step, numbers))
        quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        trainer = library.Trainer(
            max_epochs=2, logger=logger, callbacks=[*callbacks], accelerator="cpu",
            enable_checkpointing=False, **quiet,
        )  # fmt: skip
        trainer.fit(model, rows)
        return model, [one for one in lines if any("bilens" in name for name in one[1])]

    plain, _ = trained()
    model, lines = trained(bl.callbacks.lightning())
    for name, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert [step for step, _ in lines] == [3, 6]
