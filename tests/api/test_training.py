"""Training from Python leaves the folders of the commands, from tensors and from paths alike."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import bilens as bl
import sae_runs
from bilens.base.errors import DataError, ShapeError, UsageError
from bilens.data.own_images import own_images
from bilens.train.tasks.sae import TensorActivations

SMALL: dict[str, Any] = {"d_hidden": 4, "epochs": 2, "batch_size": 8, "noise": 0.0}
TEXT: dict[str, Any] = {"d_model": 8, "d_hidden": 8, "n_head": 2, "n_ctx": 15, "steps": 3}
SAE: dict[str, Any] = {"num_latents": 20, "k": 3, "tokens": 200, "batch_size": 32}


def digits(count: int = 30) -> tuple[Tensor, Tensor]:
    labels = torch.arange(count) % 3
    images = torch.zeros(count, 4, 5, dtype=torch.uint8)
    images[torch.arange(count), labels, labels] = 255
    return images, labels


def test_images_are_tensors_arrays_or_paths(tmp_path: Path) -> None:
    images, labels = digits()
    np.save(tmp_path / "x.npy", images.numpy())
    np.save(tmp_path / "y.npy", labels.numpy())
    given = [
        (images, labels),
        (images[:, None].float() / 255, labels.tolist()),
        (images.numpy(), labels.numpy()),
        (str(tmp_path / "x.npy"), str(tmp_path / "y.npy")),
    ]
    weights = []
    for number, (x, y) in enumerate(given):
        run = bl.train_image(x, y, str(tmp_path / f"run{number}"), **SMALL)
        model = bl.load(run.folder)
        weights.append(model.module.head.weight)
        assert model.input_shape == (4, 5)
    assert all(torch.equal(weights[0], other) for other in weights[1:])
    assert [*run.to_frame().epoch] == [1, 2]
    assert (run.folder / "history.jsonl").exists()
    again = bl.train_image(images, labels, run.folder, **SMALL, resume=True)
    assert [line.test_accuracy for line in again.history] == [
        line.test_accuracy for line in run.history
    ]


def test_every_fifth_image_of_each_class_is_held_out_unless_some_are_given() -> None:
    images, labels = digits()
    data = own_images(images, labels, class_names=("a", "b", "c"))
    assert torch.bincount(data.test_labels).tolist() == [2, 2, 2]
    assert len(data.train_images) == 24
    assert data.class_names == ("a", "b", "c")
    other = own_images(images[:20], labels[:20], test=(images[20:], labels[20:]))
    torch.testing.assert_close(other.test_images, images[20:].flatten(1).float() / 255)


@pytest.mark.parametrize(
    ("x", "y", "error", "said"),
    [
        (torch.zeros(3), torch.arange(3), ShapeError, "expected grey images"),
        (digits()[0], digits()[1].float(), ShapeError, "expected 30 whole numbers"),
        (digits()[0], digits()[1][:5], ShapeError, "expected 30 whole numbers"),
        (digits()[0].float(), digits()[1], DataError, "divide bytes by 255"),
        (digits()[0], None, UsageError, "there are no labels"),
        ("nowhere.npy", "y.npy", DataError, "no such file"),
        ("nowhere", None, DataError, "does not exist"),
    ],
)
def test_images_that_do_not_fit_are_refused(
    x: Any, y: Any, error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        bl.train_image(x, y, tmp_path / "run", **SMALL)


def test_an_option_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no option 'hidden': use one of d_hidden, "):
        bl.train_image(*digits(), tmp_path / "run", hidden=3)


def test_text_and_autoencoders_leave_the_folders_of_the_commands(tmp_path: Path) -> None:
    run = bl.train_language("grammar", str(tmp_path / "model"), limit=60, held_out=0.2, **TEXT)
    assert len(run.to_frame()) == len(run.history) == 3
    assert {"config.json", "tokenizer.json", "corpus.json", "loss.svg"} <= {
        item.name for item in (tmp_path / "model").iterdir()
    }
    sae = bl.train_sae(
        str(tmp_path / "model"), str(tmp_path / "sae"), hooks="blocks.0.mlp_in", **SAE
    )
    loaded = bl.load(sae.folders["blocks.0.mlp_in"])
    assert loaded.provenance["model_sha256"] == bl.load(run.folder).weights_sha256
    assert [*sae.metrics] == ["blocks.0.mlp_in"]


def test_a_language_model_learns_tokens_and_texts_of_the_caller(tmp_path: Path) -> None:
    tokens = (torch.arange(40)[:, None] + torch.arange(30)) % 23  # each is followed by the next
    np.save(tmp_path / "t.npy", tokens.numpy())
    recipe = {**TEXT, "batch_size": 4, "steps": 200, "learning_rate": 1e-2, "dropout": 0.0}
    run = bl.train_language(tokens[:23], tmp_path / "a", held_out=0.2, **recipe)
    model = bl.load(run.folder).module
    assert model.config.vocab_size == 24
    assert model(tokens[:1, :10])[0, -1].argmax() == tokens[0, 10]
    other = bl.train_language(str(tmp_path / "t.npy"), tmp_path / "b", held_out=0.2, **TEXT)
    again = bl.train_language(tokens.numpy(), tmp_path / "c", held_out=0.2, **TEXT)
    assert other.history[-1].held_out_loss == again.history[-1].held_out_loss
    texts = [" ".join("abcdefgh"[n % 8] for n in row) for row in tokens[:8].tolist()]
    words: dict[str, Any] = {**TEXT, "tokenizer": "word", "vocab_size": None, "batch_size": 2}
    of_texts = bl.train_language(texts, tmp_path / "d", held_out=0.3, **words)
    assert "texts of the caller: 8 documents" in of_texts.source
    assert len((tmp_path / "d" / "corpus.json").read_text()) < 1000  # they are not written there
    for odd in (tokens[0], tokens.float(), tokens - 1):
        with pytest.raises(ShapeError, match=r"expected \(texts, length\), whole numbers from 0"):
            bl.train_language(odd, tmp_path / "e", **TEXT)
    with pytest.raises(UsageError, match=r"end of a text need a vocab_size of 24"):
        bl.train_language(tokens, tmp_path / "e", vocab_size=23, **TEXT)
    with pytest.raises(UsageError, match="a text is a int; expected a list of texts"):
        bl.train_language([1, 2], tmp_path / "e", **words)  # type: ignore[list-item]
    with pytest.raises(UsageError, match="column, split and stream are of tables"):
        bl.train_language(texts, tmp_path / "e", column="text", **words)


def test_an_autoencoder_of_a_model_in_memory_reads_tokens(tmp_path: Path) -> None:
    model = sae_runs.transformer()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sae = bl.train_sae(model, tmp_path, hooks=["blocks.1.mlp_out"], text=sae_runs.texts(), **SAE)
    assert sae.metrics["blocks.1.mlp_out"].tokens > 0
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_an_autoencoder_learns_bare_activations(tmp_path: Path) -> None:
    rows = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    sae = bl.train_sae(rows, tmp_path / "a", **{**SAE, "tokens": 6000}, buffer_size=128)
    module = bl.load(tmp_path / "a").module
    left = float(
        (module(rows).detach() - rows).square().sum() / (rows - rows.mean(0)).square().sum()
    )
    assert left < 0.5
    assert sae.history[-1].fvu["activations"] < sae.history[0].fvu["activations"]
    again = bl.train_sae(rows, tmp_path / "b", **{**SAE, "tokens": 6000}, buffer_size=128)
    np.save(tmp_path / "rows.npy", rows.numpy())
    save_file({"rows": rows}, tmp_path / "rows.safetensors")
    for number, given in enumerate(
        (rows.numpy(), str(tmp_path / "rows.npy"), tmp_path / "rows.safetensors")
    ):
        again = bl.train_sae(
            given, tmp_path / f"{number}", **{**SAE, "tokens": 6000}, buffer_size=128
        )
        assert again.history[-1].fvu == sae.history[-1].fvu
    with pytest.raises(DataError, match=r"nowhere\.npy: no such file"):
        bl.train_sae("nowhere.npy", tmp_path / "c")


def test_what_no_autoencoder_can_be_trained_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no hooks are given"):
        bl.train_sae(sae_runs.transformer(), tmp_path)
    with pytest.raises(UsageError, match="hooks and text are of a language model"):
        bl.train_sae(torch.zeros(3, 4), tmp_path, hooks="blocks.0.mlp_in")
    with pytest.raises(UsageError, match="model is a int; expected the folder of a language"):
        bl.train_sae(3, tmp_path, hooks="blocks.0.mlp_in")
    with pytest.raises(ShapeError, match=r"activations have shape \(4,\)"):
        bl.train_sae(torch.zeros(4), tmp_path)


def test_a_pass_over_activations_shows_each_row_once() -> None:
    rows = torch.arange(300.0)[:, None]
    source = TensorActivations(rows, 100, seed=0)
    buffers = [source.buffer(index).activations["activations"] for index in range(6)]
    passes = buffers[:3], buffers[3:]
    for seen in passes:
        assert torch.equal(torch.cat(seen).sort(dim=0).values, rows)
    assert not torch.equal(passes[0][0], passes[1][0])
