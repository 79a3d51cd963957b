"""Of every model file in the corpus, exactly what its maker knows can be read is read.

Nothing is passed over in silence: the share read is the maker's, what was not read stands in the
coverage, a refusal is one sentence, and no change of a tensor is called no change.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

import bilens as bl
from bilens.base.errors import BilensError
from bilens.findings.coverage import measure_coverage
from bilens.io.loaded_model import LoadedModel
from corpus import REFUSED, ROWS, Made

Keep = Callable[[str], tuple[Made, LoadedModel]]


def loaded(made: Made) -> LoadedModel:
    if isinstance(made.source, Path):
        return bl.load(made.source, **made.options)
    if isinstance(made.source, nn.Module):
        return bl.from_module(made.source)
    return bl.from_sklearn(made.source)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Keep:
    """Make and load the models, each once."""
    known: dict[str, tuple[Made, LoadedModel]] = {}

    def keep(name: str) -> tuple[Made, LoadedModel]:
        if name not in known:
            made = ROWS[name](tmp_path_factory.mktemp("model"))
            known[name] = made, loaded(made)
        return known[name]

    return keep


def test_the_corpus_is_large() -> None:
    assert len(ROWS) + len(REFUSED) >= 60


@pytest.mark.parametrize("name", ROWS)
def test_what_is_read_is_what_can_be_read(corpus: Keep, name: str) -> None:
    made, model = corpus(name)
    ended = {view.name: "exact" if view.exact else "approximate" for view in model.layers.values()}
    found = measure_coverage(model.tensors, model.layers.values(), ended, "known", None)
    unread = [(group.name, group.parameters) for group in found.groups if group.reason]
    assert (found.parameters, found.exact + found.approximate) == (made.parameters, made.read), (
        unread
    )
    assert bool(unread) == (made.read < made.parameters)
    told = made.options.get("activation") is not None
    assert model.load_report is None or model.load_report.verified == (not told)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    make, words = REFUSED[name]
    made = make(tmp_path)
    with pytest.raises(BilensError, match=words) as caught:
        loaded(made)
    assert "\n" not in str(caught.value)
