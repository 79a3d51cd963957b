"""Rules of a network: each number is that of loops over tokens and positions, run one by one.

Broken once: the least change taken over one distance only, a path left out of the others, a listed
rule counted at the wrong distance in the share that is explained: red each time.
"""

import itertools
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import bilens as bl
from bilens.base.errors import (
    BilensError,
    CheckpointError,
    DataError,
    MemoryLimitError,
    NotQuadraticError,
    ShapeError,
    UsageError,
)
from bilens.findings import network_rules
from bilens.polynomial import token_interactions as of_tokens
from polynomial.test_composition import two_layers
from polynomial.test_reading import ROLES, probe, transformer
from tiny_language_models import BASE

FARTHEST, TOKENS = 3, 7
NAMES = [f"w{at}" for at in range(TOKENS)]


@pytest.fixture(scope="module")
def network() -> bl.PolynomialNetwork:
    return bl.polynomial_network(transformer())


def logits(network: bl.PolynomialNetwork, *placed: tuple[int, int]) -> Tensor:
    """The logits behind the last token when just these tokens stand at these places."""
    tokens = torch.tensor([token for _, token in placed])
    return network(tokens, positions=[place for place, _ in placed])[-1]


def changes(network: bl.PolynomialNetwork, distance: int, *, softmax: bool = True) -> Tensor:
    """(first, second, output), one run for each pair."""

    def said(*placed: tuple[int, int]) -> Tensor:
        y = logits(network, *placed)
        return y.softmax(dim=0) if softmax else y - y.mean()

    found = torch.zeros(TOKENS, TOKENS, TOKENS, dtype=torch.float64)
    for a, b in itertools.product(range(TOKENS), repeat=2):
        found[a, b] = said((0, a), (distance, b)) - said((distance, b))
    return found


def read(network: object, **options: Any) -> Any:
    return bl.read_network(
        network, **{"farthest": FARTHEST, "k": 5, "samples": 19} | options
    ).record


def test_pairs_are_the_largest_of_loops_over_all_pairs_and_distances(
    network: bl.PolynomialNetwork,
) -> None:
    record = read(network, tokenizer=NAMES)
    tables = torch.stack([changes(network, at) for at in range(1, FARTHEST + 1)])
    in_logits = torch.stack([changes(network, at, softmax=False) for at in range(1, FARTHEST + 1)])
    best, at = tables.max(dim=0)
    values, order = best.flatten().topk(5)
    places = torch.stack(torch.unravel_index(order, best.shape), dim=1).tolist()
    assert [list(rule.ids) for rule in record.pairs] == places
    for rule, value, (a, b, c) in zip(record.pairs, values.tolist(), places, strict=True):
        assert rule.tokens == (NAMES[a], NAMES[b])
        assert rule.output == NAMES[c]
        assert rule.distance == (int(at[a, b, c]) + 1,)
        assert math.isclose(rule.probability, value, abs_tol=1e-12)
        assert math.isclose(rule.logit, float(in_logits[at[a, b, c], a, b, c]), abs_tol=1e-10)
        assert math.isclose(rule.lowest, float(tables[:, a, b, c].min()), abs_tol=1e-12)
    listed = torch.zeros(TOKENS, TOKENS, TOKENS, dtype=torch.bool)
    listed[tuple(torch.tensor(places).T)] = True
    for reading, table, of_logits in zip(record.distances, tables, in_logits, strict=True):
        assert math.isclose(reading.largest, float(table.max()), abs_tol=1e-12)
        for share, whole in ((reading.explained, table), (reading.explained_logits, of_logits)):
            expected = whole[listed].square().sum() / whole.square().sum()
            assert math.isclose(share, float(expected), rel_tol=1e-9)


def test_paths_of_a_rule_add_up_and_are_those_of_its_interaction(
    network: bl.PolynomialNetwork,
) -> None:
    record = read(network)
    assert all(rule.paths for rule in (*record.single, *record.pairs, *record.triples))
    for rule in (*record.single, *record.pairs, *record.triples):
        split = bl.split_interactions(network, torch.tensor([rule.ids[:-1]]), rule.distance)
        shares = dict(zip(split.paths, split.values[:, 0, rule.ids[-1]] / rule.logit, strict=True))
        assert math.isclose(sum(one.share for one in rule.paths) + rule.others, 1, abs_tol=1e-9)
        largest = sorted(shares.values(), key=lambda share: -abs(share))[: len(rule.paths)]
        assert [one.share for one in rule.paths] == pytest.approx([float(one) for one in largest])
        for path in rule.paths:
            assert math.isclose(path.share, float(shares[path.path]), abs_tol=1e-9)


def test_single_tokens_and_chance_are_those_of_the_network_and_of_turned_ones(
    network: bl.PolynomialNetwork,
) -> None:
    record = read(network)
    table = torch.stack([logits(network, (0, one)).softmax(dim=0) for one in range(TOKENS)])
    values, order = table.flatten().topk(5)
    for rule, value, at in zip(record.single, values.tolist(), order.tolist(), strict=True):
        assert rule.ids == divmod(at, TOKENS)
        assert math.isclose(rule.probability, value, abs_tol=1e-12)
    found = bl.token_interactions(network, 2, distance=2, measure="probability")
    chance = bl.interaction_chance(
        network, 2, distance=2, measure="probability", num_samples=19, seed=0
    )
    shares = chance.share_as_large(found)
    assert record.distances[1].beyond == chance.count_beyond(found)
    told = chance.share_of_strongest(found)
    assert torch.allclose(told, shares[tuple(found.strongest.T)])
    for rule in record.pairs:
        if rule.distance == (2,):
            assert math.isclose(rule.chance, float(shares[rule.ids]), abs_tol=1e-12)
    plain = read(network, samples=0)
    assert {rule.chance for rule in (*plain.single, *plain.pairs)} == {None}
    assert {one.beyond for one in plain.distances} == {None}
    assert plain.induction.chance is None


def test_three_tokens_and_induction_are_those_of_loops(network: bl.PolynomialNetwork) -> None:
    record = read(network)

    def together(a: int, b: int, c: int, *, softmax: bool) -> Tensor:
        a_, b_, c_ = (0, a), (1, b), (2, c)
        whole, alone = logits(network, a_, b_, c_), logits(network, c_)
        added = whole - logits(network, a_, c_) - logits(network, b_, c_) + alone
        return whole.softmax(dim=0) - (whole - added).softmax(dim=0) if softmax else added

    size = range(TOKENS)
    table = torch.stack(
        [together(*abc, softmax=True) for abc in itertools.product(size, repeat=3)]
    ).reshape(TOKENS, TOKENS, TOKENS, TOKENS)
    values = table.flatten().topk(5).values
    assert [rule.probability for rule in record.triples] == pytest.approx(values.tolist())
    whole = float(table.square().sum())
    assert math.isclose(record.triples_explained, float(values.square().sum()) / whole)
    again = [(x, y) for x, y in itertools.product(size, repeat=2) if x != y]
    held = sum(max(float(table[x, y, x, y]), 0.0) ** 2 for x, y in again)  # those that raise Y
    assert math.isclose(record.induction.explained, held / whole)
    right = {(x, y) for x, y in again if int(together(x, y, x, softmax=False).argmax()) == y}
    assert (record.induction.found, record.induction.tried) == (len(right), len(again))
    after = [f"#{x}" for x in size if sum(one == x for one, _ in right) >= (TOKENS - 1) / 2]
    assert list(record.induction.after) == after


def quiet(network: bl.PolynomialNetwork, *, size: float) -> bl.PolynomialNetwork:
    """The first attention alone, its logits so large: they add up over the earlier tokens."""
    assert network.head is not None
    attention = next(one for one in network.parts if isinstance(one, bl.BilinearAttention))
    return bl.PolynomialNetwork((attention,), network.embedding, network.head * size)


def test_what_adds_up_has_no_rules_of_three_tokens_and_no_induction(
    network: bl.PolynomialNetwork,
) -> None:
    """Seen: changes of the softmax, and the last bits of logits, taken for rules."""
    additive = quiet(network, size=1e3)
    record = read(additive)
    assert len(record.pairs) == 5
    assert record.triples == ()
    assert (record.induction.found, record.induction.chance) == (0, 0.0)
    assert (record.triples_explained, record.induction.explained) == (0.0, 0.0)
    table = bl.token_interactions(additive, 3, measure="probability").values
    assert table is not None
    assert not table.any()
    silent = read(quiet(network, size=0))
    assert (silent.pairs, silent.triples, silent.induction.found) == ((), (), 0)
    silence = "no earlier one raises a probability by more than rounding"
    assert silence in bl.read_network(quiet(network, size=0), samples=19).to_markdown()


def test_outputs_that_are_equal_are_no_induction(network: bl.PolynomialNetwork) -> None:
    assert network.head is not None
    same = replace(network, head=network.head[:1].expand(TOKENS, -1))
    assert read(same).induction.found == 0
    twins = network.head.clone()
    twins[1] = twins[0]  # of each largest one there are two
    assert {0, 1} & {rule.ids[-1] for rule in read(network, k=50).triples}
    said = of_tokens.single_largest(
        replace(network, head=twins), torch.tensor([[2, 0, 2], [3, 1, 3]]), (2, 1)
    )
    assert not {0, 1} & {*said.tolist()}


def test_outputs_that_are_no_tokens_are_refused(network: bl.PolynomialNetwork) -> None:
    assert network.head is not None
    for head in (network.head[:5], torch.cat([network.head] * 2)):
        with pytest.raises(UsageError, match=rf"7 tokens and {len(head)} outputs"):
            read(replace(network, head=head), tokenizer=NAMES)


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_shares_of_some_tokens_are_said_to_be_of_those(
    network: bl.PolynomialNetwork, lang: Any
) -> None:
    some, every = (
        bl.read_network(network, tokens=tokens, samples=0).to_html(lang=lang)
        for tokens in ([1, 3, 5], None)
    )
    words = {"en": "of the 3 tokens looked at", "ja": "調べた3個のトークン"}[lang]
    assert some.count(words) == 5  # in short two, by distance, and two sentences of what is left
    assert words.replace("3", "7") not in every


def test_what_fits_is_chosen_before_anything_runs(
    network: bl.PolynomialNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read(network)
    monkeypatch.setattr(network_rules, "MOST_NUMBERS", 4 * 4 * TOKENS)
    monkeypatch.setattr(network_rules, "MOST_TOGETHER", 4 * 4 * TOKENS * 2)
    record = read(network)
    looked = record.looked
    assert (looked.chosen, looked.tokens, looked.distances) == ("strongest", 4, (1, 2))
    assert (looked.samples, looked.triple_tokens, looked.single_tokens) == (19, 2, TOKENS)
    assert [rule.ids for rule in record.single] == [rule.ids for rule in whole.single]
    squares = changes(network, 1).square()
    strength = squares.sum(dim=(1, 2)) + squares.sum(dim=(0, 2))  # all were drawn: 7 of 16
    chosen = {*strength.topk(4).indices.tolist()}
    assert {one for rule in record.pairs for one in rule.ids[:-1]} <= chosen
    asked = read(network, tokens=[1, 3, 5])
    assert (asked.looked.chosen, asked.looked.tokens) == ("given", 3)
    assert {one for rule in asked.pairs for one in rule.ids[:-1]} <= {1, 3, 5}
    with pytest.raises(MemoryLimitError, match=r"5 tokens have 175 .* at most 4 tokens"):
        read(network, tokens=[0, 1, 2, 3, 4])
    monkeypatch.setattr(network_rules, "MOST_RANKED", 6)
    with pytest.raises(MemoryLimitError, match=r"7 tokens have 343 .*--tokens-of"):
        read(network)


def test_tables_are_small_enough_for_all_turned_networks(
    network: bl.PolynomialNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_rules, "MOST_POOLED", 19 * 3 * 3 * TOKENS)
    record = read(network)
    assert (record.looked.tokens, record.looked.samples) == (3, 19)
    assert {one.beyond is None for one in record.distances} == {False}
    monkeypatch.setattr(network_rules, "MOST_POOLED", 19 * 2 * 2 * TOKENS)
    record = read(network)
    assert record.single_beyond is None  # 7 tokens on 7 outputs are too many
    assert {one.chance for one in record.single} == {None}
    with pytest.raises(UsageError, match="samples is 18: of fewer than 19"):
        read(network, samples=18)


def test_a_vocabulary_of_150_000_is_refused_with_the_number() -> None:
    torch.manual_seed(0)
    wide = bl.nn.PolynomialTransformer(150_000, 4, 2, 1, 2, 4)
    with pytest.raises(MemoryLimitError, match=r"3,375,000,000,000,000 interactions"):
        bl.read_network(wide, samples=0)


def test_a_network_whose_tokens_do_not_meet_has_no_pairs() -> None:
    plain = bl.polynomial_network(transformer())
    layers = tuple(part for part in plain.parts if isinstance(part, bl.QuadraticLayer))
    alone = bl.PolynomialNetwork(layers, plain.embedding, plain.head)
    record = read(alone)
    assert (record.pairs, record.distances, record.triples, record.induction) == ((), (), (), None)
    assert len(record.single) == 5
    assert record.model.checked_against == ""


def test_short_texts_have_no_three_tokens() -> None:
    torch.manual_seed(0)
    record = read(bl.nn.PolynomialTransformer(5, 4, 2, 1, 2, 2))
    assert (record.looked.distances, record.induction) == ((1,), None)


def test_networks_of_many_parts_are_read_without_paths() -> None:
    torch.manual_seed(0)
    record = read(bl.nn.PolynomialTransformer(5, 4, 2, 6, 2, 3), samples=0)
    assert {(rule.paths, rule.others) for rule in record.pairs} == {((), 1.0)}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A network in a file, its roles, a probe, names and a tokenizer."""
    paths = {name: tmp_path / f"{name}.json" for name in ("roles", "names")}
    paths |= {name: tmp_path / f"{name}.safetensors" for name in ("network", "probe")}
    save_file(transformer().state_dict(), paths["network"])
    tokens, outputs = probe()
    save_file({"tokens": tokens, "logits": outputs}, paths["probe"])
    paths["roles"].write_text(json.dumps(asdict(ROLES)))
    paths["names"].write_text(json.dumps(NAMES))
    return paths


def test_a_file_is_read_by_its_roles_its_probe_and_its_names(files: dict[str, Path]) -> None:
    record = read(files["network"], **{n: files[n] for n in ("roles", "probe")}, tokenizer=NAMES)
    assert record.model.checked_against == "the outputs of a probe"
    assert record.source.path == str(files["network"])
    assert record.source.files.keys() == {"network.safetensors"}
    in_memory = read(transformer(), tokenizer=NAMES)
    assert record.pairs[0].ids == in_memory.pairs[0].ids
    assert in_memory.source.path == ""
    named = read(files["network"], roles=ROLES, tokenizer=files["names"])
    assert named.pairs[0].tokens == record.pairs[0].tokens
    assert named.model.checked_against == ""
    report = bl.read_network(transformer(), samples=19)
    assert type(report)(report.to_dict()) == report
    assert "# t" not in report.to_markdown()


def test_tokens_of_a_text_are_its_most_frequent(tmp_path: Path) -> None:
    library = pytest.importorskip("tokenizers")
    words = {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "f": 5, "</s>": 6}
    inner = library.Tokenizer(library.models.WordLevel(words))
    inner.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    inner.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "text.txt").write_text("a b b c c c")
    given = {"tokenizer": tmp_path / "tokenizer.json", "tokens": tmp_path / "text.txt"}
    record = read(transformer(), **given)
    assert (record.looked.chosen, record.looked.tokens) == ("given", 3)
    assert {one for rule in record.pairs for one in rule.tokens} <= {"a", "b", "c"}
    with pytest.raises(UsageError, match="give it"):
        read(transformer(), tokens=tmp_path / "text.txt")
    (tmp_path / "text.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match="not UTF-8"):
        read(transformer(), **given)
    (tmp_path / "text.txt").write_text(" ")
    with pytest.raises(DataError, match="has no tokens"):
        read(transformer(), **given)


def test_softmax_and_vectors_are_refused_with_what_to_do() -> None:
    with pytest.raises(NotQuadraticError, match=r"softmax.*bl.read_at_text"):
        read(bl.nn.BilinearTransformer(7, 8, 6, 1, 2, 10))
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model("llama", **{**BASE, "hidden_act": "linear"})
    with pytest.raises(NotQuadraticError, match=r"softmax.*bl.read_at_text"):
        read(transformers.AutoModelForCausalLM.from_config(config))
    with pytest.raises(UsageError, match="reads vectors, not tokens"):
        read(two_layers(0, residual=False, bias=False))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"tokenizer": NAMES[:6]}, "names are 6, and the network has 7 tokens"),
        ({"tokenizer": [*range(7)]}, "list of as many texts"),
        ({"tokenizer": "nowhere"}, "nowhere"),
        ({"tokens": [7]}, "the network knows 0 to 6"),
        ({"tokens": []}, "expected a list of whole ids"),
        ({"tokens": [0, 0, 0, 1, 2]}, "have 0 more than once"),
        ({"k": 0}, "k"),
        ({"farthest": 0}, "farthest"),
        ({"samples": -1}, "samples"),
        ({"seed": -1}, "seed"),
        ({"roles": ROLES}, "roles= is of a .safetensors file"),
        ({"probe": probe()}, "probe= is of a .safetensors file"),
    ],
)
def test_options_that_do_not_fit_are_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises((UsageError, DataError, ShapeError), match=said):
        read(transformer(), **more)


def test_damaged_files_are_refused_in_one_sentence(files: dict[str, Path]) -> None:
    cases: list[tuple[str, str, str]] = [
        ("roles", "{", "not valid JSON"),
        ("roles", "[]", "expected a JSON object"),
        ("roles", json.dumps(asdict(ROLES) | {"unembed": "x"}), "'unembed' is no field"),
        ("roles", json.dumps({"embedding": "e"}), "the roles cannot be read"),
        ("roles", json.dumps(asdict(ROLES) | {"n_head": "two"}), "the roles cannot be read"),
        ("roles", json.dumps(asdict(ROLES) | {"key": ["one"]}), "query and key name as many"),
        ("names", "{", "no list of names"),
        ("names", "[1, 2]", "the names are 2"),
    ]
    before = {name: files[name].read_text() for name in ("roles", "names")}
    for name, text, said in cases:
        files[name].write_text(text)
        with pytest.raises(BilensError, match=said) as refused:
            read(files["network"], roles=files["roles"], tokenizer=files["names"])
        assert "\n" not in str(refused.value)
        files[name].write_text(before[name])
    save_file({"tokens": torch.zeros(1)}, files["probe"])
    with pytest.raises(CheckpointError, match="there is no logits"):
        read(files["network"], roles=files["roles"], probe=files["probe"])
    for missing in ("probe", "roles", "network"):
        files[missing].unlink()
        with pytest.raises(CheckpointError, match=missing):
            read(files["network"], roles=files["roles"], probe=files["probe"])


@pytest.mark.parametrize(("length", "said"), [(2, False), (3, False), (4, True)])
def test_only_what_can_be_is_not_looked_at(length: int, said: bool) -> None:
    """Of texts of so many tokens no two stand farther apart, and no more meet."""
    torch.manual_seed(0)
    module = bl.nn.PolynomialTransformer(7, 8, 6, 2, 2, length)
    page = bl.read_network(module, samples=0).to_markdown()
    assert "farther apart" not in page
    assert ("four and more" in page) is said
    assert ("do not stand side by side" in page) is said
    assert "Not looked at: three tokens." not in page


def test_no_tokens_are_tried_in_pairs_without_attention() -> None:
    table = torch.randn(300, 300, generator=torch.Generator().manual_seed(0)).double()
    alone = bl.PolynomialNetwork((), torch.eye(300).double(), table)
    record = bl.read_network(alone, samples=19).record
    assert (record.looked.tokens, record.looked.single_tokens) == (0, 300)
    assert "In pairs only" not in bl.read_network(alone, samples=0).to_markdown()
