"""Guards against "the first n rows": what is sorted answers as what is shuffled does.

What is read of more rows than are wanted is a draw with a seed, so that a corpus whose beginning
is unlike its end, or a table that is sorted, is not judged on its beginning.
"""

from base64 import b64decode
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import bilens as bl
import language_runs
import traced_models
from bilens.api.train import read_model
from bilens.data.cells import ORDER, VOTERS
from bilens.interp.behaviour import trial_of_latents
from bilens.interp.traced_layer import held_out_text, open_layer
from bilens.nn import BilinearClassifier
from bilens.train.corpus import measured_texts
from bilens.train.randomness import drawn_rows
from bilens.train.tasks.language import held_out_loss
from bilens_explorer import playground
from contract.table import cell


def is_a_draw(places: torch.Tensor, count: int) -> bool:
    """Tell whether rising places reach over the whole of `count`, each once."""
    halves = int((places < count // 2).sum()), int((places >= count // 2).sum())
    return bool((places.diff() > 0).all()) and min(halves) >= 0.2 * len(places)


def test_a_draw_is_all_rows_or_as_many_with_a_seed() -> None:
    assert drawn_rows(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert is_a_draw(drawn_rows(1000, 100), 1000)
    assert drawn_rows(1000, 100).equal(drawn_rows(1000, 100))
    assert not drawn_rows(1000, 100, 1).equal(drawn_rows(1000, 100))


@cell("trace", "other function")
def test_the_held_out_text_of_a_trace_is_a_draw(tmp_path: Path) -> None:
    layer = open_layer(traced_models.write_model(tmp_path / "model"), 0)
    every = held_out_text(layer, None, 10**9, lambda _: None).blocks
    some = held_out_text(layer, None, 20 * traced_models.N_CTX, lambda _: None).blocks
    places = torch.tensor([int((every == one).all(dim=1).nonzero()[0]) for one in some])
    assert len(some) == 20
    assert is_a_draw(places, len(every))
    tokens = torch.arange(100).repeat_interleave(8).view(100, 8) % layer.module.config.vocab_size
    given = held_out_text(layer, tokens, 20 * 8, lambda _: None).blocks
    assert is_a_draw((tokens[:, None] == given).all(dim=2).any(dim=1).nonzero()[:, 0], 100)
    seeds = [held_out_text(layer, tokens, 160, lambda _: None, seed).blocks for seed in (0, 1)]
    assert seeds[0].equal(given)
    assert not seeds[1].equal(given)


def test_the_texts_of_a_causal_check_are_a_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """A latent is active in the second half of the texts alone, and was not found there."""
    monkeypatch.setattr("bilens.interp.behaviour.MOST_BLOCKS", 40)
    tried: list[int] = []
    monkeypatch.setattr(
        "bilens.interp.behaviour.positions_of_latent",
        lambda values, _: (tried.append(int((values > 0).sum())), (torch.zeros(0),) * 2)[1],
    )
    active = torch.zeros(100, 7)
    active[50:] = 1
    reader: Any = SimpleNamespace(
        text=SimpleNamespace(blocks=torch.zeros(100, 8, dtype=torch.long)),
        activations=active.view(-1, 1),
        generator=torch.Generator(),
        options=SimpleNamespace(seed=0),
    )
    assert trial_of_latents(reader, None, (0, None), lambda _: None) is None  # type: ignore[arg-type,return-value]
    assert tried[0] > 0


@torch.no_grad()
def test_the_held_out_loss_is_measured_on_a_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bilens.train.corpus.HELD_OUT_TOKENS", 300)
    tokens = torch.arange(1501) % 97
    texts = measured_texts(tokens, 15)
    assert texts.shape == (20, 16)
    every = measured_texts(tokens[:301], 15)
    assert every.equal(tokens[:301].unfold(0, 16, 15))
    found = torch.tensor(
        [int((tokens.unfold(0, 16, 15) == one).all(1).nonzero()[0]) for one in texts]
    )
    assert is_a_draw(found, 100)
    with torch.enable_grad():
        run = language_runs.trained(language_runs.changed(steps=2, evaluations=1))
    held = language_runs.tokens().held_out
    beginning = held[:301]
    assert held_out_loss(run, held, 15) != held_out_loss(run, beginning, 15)


def test_texts_that_judge_an_autoencoder_are_a_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bilens.api.train.MEASURED_TOKENS", 20 * traced_models.N_CTX)
    monkeypatch.setattr("bilens.api.train.HELD_OUT_TEXTS", 5)
    folder = traced_models.write_model(tmp_path / "model")
    every = held_out_text(open_layer(folder, 0), None, 10**9, lambda _: None).blocks
    some = read_model(folder, None, lambda _: None).held_out
    places = torch.tensor([int((every == one).all(dim=1).nonzero()[0]) for one in some])
    assert len(some) == 20
    assert is_a_draw(places, len(every))
    tokens = torch.arange(100)[:, None].expand(100, 8) % 90
    read = read_model(bl.load(folder), tokens, lambda _: None)
    assert is_a_draw(read.held_out[:, 0].unique(), 90)
    assert len(read.held_out) == 20
    assert len(read.texts) == 80


@cell("explore", "other function")
def test_the_playground_begins_with_drawn_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = torch.arange(1000.0)[:, None].expand(1000, 2)
    rows: Any = SimpleNamespace(inputs=inputs, numbers=tuple(range(1000)), empty={})
    monkeypatch.setattr(playground, "held_out_rows", lambda *_: rows)
    model = bl.load(bl.save(BilinearClassifier(2, 3, 2), tmp_path / "m", input_names=("a", "b")))
    f = model.network[0].quadratic_map.to(torch.float64)
    served: Any = SimpleNamespace(folder=tmp_path, shows_rows=True)
    found = playground.of_table(served, model, f)
    numbers = torch.tensor(found.row_numbers)
    assert len(numbers) == playground.ROWS
    assert is_a_draw(numbers, 1000)
    assert found.rows is not None
    sent = torch.frombuffer(bytearray(b64decode(found.rows.base64)), dtype=torch.float64)
    assert sent.view(-1, 2)[:, 0].equal(numbers.double())


def test_cells_that_vote_on_the_order_of_a_date_are_a_draw() -> None:
    """A table that is sorted by day: the first ones could be days or months."""
    cells = [f"{day}/1/2024" for day in range(1, 29) for _ in range(VOTERS // 10)]
    assert 0.5 * VOTERS < ORDER.votes(cells)["day"] == ORDER.votes(cells).total() < VOTERS
