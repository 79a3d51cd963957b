"""A card says what is known, guesses nothing, is written anew with its model, and kept if edited.

Broken once: the seal not looked at, a path told in full, the model of the cache not taken for one.
"""

from pathlib import Path
from typing import Any

import pytest

import bilens as bl
from bilens.base.model_card import card_file, hub_origin, is_own_card
from tiny import classifier

hub = pytest.importorskip("huggingface_hub")
SHA256, COMMIT = "5" * 64, "c" * 40
WORDS = {"name": "Net", "task": ""}


def card_of(folder: Path, provenance: dict[str, str] | None = None, **sizes: object) -> Any:
    data = card_file(folder, "model", SHA256, sizes, provenance or {}, WORDS)["README.md"]
    return hub.ModelCard(data.decode())


@pytest.mark.parametrize(
    ("place", "origin"),
    [
        ("hf://org/name", {"hub": "org/name"}),
        (f"hf://org/na.me@{COMMIT}", {"hub": "org/na.me", "revision": COMMIT}),
        (f"hf://org/name@{COMMIT}/a/b", {"hub": "org/name", "revision": COMMIT}),
        (f"/c/models--org--a--b/snapshots/{COMMIT}", {"hub": "org/a--b", "revision": COMMIT}),
        (f"/c/models--gpt2/snapshots/{COMMIT}/x", {"hub": "gpt2", "revision": COMMIT}),
        ("hf://datasets/org/name", {}),
        ("/home/me/models", {}),
        ("", {}),
    ],
)
def test_a_model_of_the_hub_is_known_by_its_place(place: str, origin: dict[str, str]) -> None:
    assert hub_origin(place) == origin


def test_the_base_is_the_model_that_it_was_made_from(tmp_path: Path) -> None:
    bare = card_of(tmp_path, {"teacher": "/home/me/model"})
    assert bare.data.base_model is None
    assert "| teacher | model |" in bare.text  # no path of this machine
    cached = card_of(tmp_path, {"teacher": f"/c/models--org--a/snapshots/{COMMIT}"})
    assert cached.data.base_model == "org/a"
    assert f"| teacher | org/a at {COMMIT} |" in cached.text
    assert card_of(tmp_path, {"hub": "org/b"}).data.base_model == "org/b"


def test_odd_values_stay_in_their_cells(tmp_path: Path) -> None:
    card = card_of(tmp_path, {"a|b": "c\n---\n{d}", "long": "x" * 301}, width=3, bias=None)
    assert "| a\\|b | c --- {d} |" in card.text
    assert "long" not in card.text
    assert "| Sizes | width 3 |" in card.text
    assert card.data.library_name == "bilens"


def test_a_card_that_people_changed_is_kept(tmp_path: Path) -> None:
    folder = bl.save(classifier(), tmp_path / "m")
    own = (folder / "README.md").read_text()
    assert is_own_card(folder / "README.md")
    bl.save(classifier(seed=8), folder, overwrite=True)
    anew = (folder / "README.md").read_text()
    assert is_own_card(folder / "README.md")
    assert anew != own  # it names the weights
    (folder / "README.md").write_text(edited := anew.replace("# Bili", "# My bili"))
    assert not is_own_card(folder / "README.md")
    bl.save(classifier(), folder, overwrite=True)
    assert (folder / "README.md").read_text() == edited


def test_a_card_of_people_stands_in_no_way(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("Mine.")
    bl.save(classifier(), tmp_path)
    assert (tmp_path / "README.md").read_text() == "Mine."
