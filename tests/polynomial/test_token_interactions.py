"""Guards against wrong interactions: orders, signs, positions, paths, chance and refusals."""

import math
from collections.abc import Collection
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

import bilens as bl
from bilens.base.errors import MemoryLimitError, NotQuadraticError, NumericalError, UsageError
from bilens.nn import PolynomialTransformer
from bilens.polynomial import token_interactions as module
from bilens.polynomial.chance import interaction_chance
from bilens.polynomial.network import PolynomialNetwork
from bilens.polynomial.paths import split_by_path, split_interactions
from bilens.polynomial.token_interactions import interactions_of, token_interactions

TOKENS, WIDTH, HEADS, CONTEXT = 5, 8, 2, 12


def transformer(pairs: int = 2, seed: int = 0, **sizes: int) -> PolynomialTransformer:
    """A network of two blocks in float64 whose every part matters."""
    torch.manual_seed(seed)
    found = PolynomialTransformer(
        TOKENS, WIDTH, 6, 2, HEADS, CONTEXT, pairs=pairs, **sizes
    ).double()
    with torch.no_grad():
        for name, part in found.named_parameters():
            part.normal_(1.0 if name.endswith("scale") else 0.0, 0.4)
    return found


def logits_by_hand(
    module: PolynomialTransformer,
    tokens: list[int],
    places: list[int],
    without: Collection[str] = (),
) -> Tensor:
    """The logits at the last place, position by position in plain loops, rotary angles and all."""
    w = {name: value.detach() for name, value in module.named_parameters()}
    width = int(module.config.d_head or 0)
    x = [w["embed.weight"][token].clone() for token in tokens]
    rates = (0.3, 1 / CONTEXT) if module.config.decay else (0.0, 0.0)

    def turned(vector: Tensor, place: int) -> Tensor:
        found = vector.clone()
        half = width // 2
        for head in range(HEADS):
            for i in range(half):
                # angles are formed in float32, as everywhere
                exponent = torch.tensor(2 * i, dtype=torch.float32) / width
                angle = torch.tensor(place) * (1.0 / module.config.rotary_base**exponent)
                c, s = angle.cos().double(), angle.sin().double()
                a, b = vector[head * width + i], vector[head * width + half + i]
                found[head * width + i] = a * c - b * s
                found[head * width + half + i] = b * c + a * s
        return found

    for block in range(module.config.n_layer):
        at = f"blocks.{block}."
        if f"attention {block}" not in without:
            y = [one * w[at + "attention_scale.scale"] for one in x]
            added = []
            for q in range(len(x)):
                heads = torch.zeros(HEADS * width, dtype=torch.float64)
                for k in range(q + 1):
                    for head in range(HEADS):
                        part = slice(head * width, (head + 1) * width)
                        score = math.exp(-rates[head] * (places[q] - places[k]))
                        for pair in range(module.config.pairs):
                            names = f"attention.queries.{pair}", f"attention.keys.{pair}"
                            one, other = (w[f"{at}{name}.weight"] for name in names)
                            query = turned(one @ y[q], places[q])
                            key = turned(other @ y[k], places[k])
                            score *= float(query[part] @ key[part]) / math.sqrt(width)
                        heads[part] += score * (w[at + "attention.value.weight"] @ y[k])[part]
                added.append(w[at + "attention.out.weight"] @ heads)
            x = [one + more for one, more in zip(x, added, strict=True)]
        if f"mlp {block}" not in without:
            y = [one * w[at + "mlp_scale.scale"] for one in x]
            left, right = w[at + "mlp.left.weight"], w[at + "mlp.right.weight"]
            down = w[at + "mlp.down.weight"]
            x = [a + down @ ((left @ b) * (right @ b)) for a, b in zip(x, y, strict=True)]
    found: Tensor = w["unembed.weight"] @ (x[-1] * w["final_scale.scale"])
    return found


def interaction_by_hand(
    module: PolynomialTransformer, tokens: list[int], places: list[int], **more: Any
) -> Tensor:
    """Inclusion and exclusion over the sets that hold the last place."""
    last, total = len(tokens) - 1, torch.zeros(TOKENS, dtype=torch.float64)
    for size in range(last + 1):
        for chosen in combinations(range(last), size):
            kept = [*chosen, last]
            sign = (-1) ** (last - size)
            there = [tokens[i] for i in kept], [places[i] for i in kept]
            total += sign * logits_by_hand(module, *there, **more)
    return total - total.mean()


@pytest.mark.parametrize("decay", [False, True])
@pytest.mark.parametrize("pairs", [1, 2])
@pytest.mark.parametrize(
    ("tokens", "distance"), [([3], None), ([1, 4], 1), ([1, 4], 5), ([2, 2, 0], (4, 1))]
)
def test_interactions_are_those_of_loops_over_positions(
    pairs: int, decay: bool, tokens: list[int], distance: Any
) -> None:
    found = transformer(pairs, decay=decay)
    network = bl.polynomial_network(found)
    steps = () if distance is None else (distance,) if isinstance(distance, int) else distance
    places = [*(max(steps, default=0) - step for step in steps), max(steps, default=0)]
    expected = interaction_by_hand(found, tokens, places)
    whole = token_interactions(network, len(tokens), distance=distance)
    assert whole.values is not None
    torch.testing.assert_close(whole.values[tuple(tokens)], expected, rtol=1e-9, atol=1e-11)
    rows = interactions_of(network, torch.tensor([tokens, tokens]), distance)
    torch.testing.assert_close(rows, expected.expand(2, -1), rtol=1e-9, atol=1e-11)
    if len(tokens) > 1:
        earlier = [place + 3 for place in places]  # only distances matter to rotary positions
        moved = interaction_by_hand(found, tokens, earlier)
        torch.testing.assert_close(moved, expected, rtol=1e-5, atol=1e-7)


def test_the_logits_of_a_text_are_the_sum_of_the_interactions_of_its_subsets() -> None:
    found, text = transformer(), [1, 3, 0]
    network = bl.polynomial_network(found)
    one, two, three = (lambda t, d: interactions_of(network, torch.tensor([t]), d) for _ in "abc")
    total = one(text[2:], None) + two(text[1:], 1) + two([text[0], text[2]], 2)
    total = total + three(text, (2, 1))
    logits = found(torch.tensor([text]))[0, -1].detach()
    # rotary angles are formed in float32, so that a shift of all positions rounds to 1e-8
    torch.testing.assert_close(total[0], logits - logits.mean(), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(network(torch.tensor([text]))[0, -1], logits, rtol=1e-9, atol=0)


def test_the_strongest_are_those_of_the_whole_array(monkeypatch: pytest.MonkeyPatch) -> None:
    network = bl.polynomial_network(transformer())
    whole = token_interactions(network, 2, distance=3, k=7)
    assert whole.values is not None
    values, places = whole.values.flatten().sort(descending=True)
    expected = torch.stack(torch.unravel_index(places[:7], whole.values.shape), dim=1)
    monkeypatch.setattr(module, "MOST_NUMBERS", 10)
    monkeypatch.setattr(module, "AT_ONCE", 1)  # a block a token
    kept = token_interactions(network, 2, distance=3, k=7)
    assert kept.values is None
    for found in (whole, kept):
        assert found.strongest.tolist() == expected.tolist()
        torch.testing.assert_close(found.strongest_values, values[:7])
    some = token_interactions(network, 2, distance=3, tokens=[[4, 1], [2]], k=3)
    for (first, second, output), value in zip(
        some.strongest.tolist(), some.strongest_values.tolist(), strict=True
    ):
        assert first in (1, 4)
        assert value == pytest.approx(float(whole.values[first, second, output]))


def test_probabilities_are_changes_of_the_softmax() -> None:
    found = transformer()
    network = bl.polynomial_network(found)
    both = logits_by_hand(found, [1, 4], [0, 2]).softmax(0)
    alone = logits_by_hand(found, [4], [2]).softmax(0)
    values = token_interactions(network, 2, distance=2, measure="probability").values
    assert values is not None
    torch.testing.assert_close(values[1, 4], both - alone, rtol=1e-8, atol=1e-10)


def test_paths_add_up_and_are_runs_without_the_other_parts() -> None:
    found, tokens, places = transformer(), [1, 4], [0, 3]
    network = bl.polynomial_network(found)
    split = split_interactions(network, torch.tensor([tokens]), 3)
    assert split.values.shape == (16, 1, TOKENS)
    torch.testing.assert_close(split.values.sum(0), split.whole, rtol=1e-10, atol=1e-12)
    names = [*network.part_names]
    by_hand = {
        kept: interaction_by_hand(
            found, tokens, places, without=[one for one in names if one not in kept]
        )
        for size in range(3)
        for kept in combinations(names, size)
    }
    for path, value in zip(split.paths, split.values, strict=True):
        if len(path) == 2:
            expected = by_hand[path] - by_hand[path[:1]] - by_hand[path[1:]] + by_hand[()]
            torch.testing.assert_close(value[0], expected, rtol=1e-8, atol=1e-10)
    assert split.names()[0] == "direct"
    assert "attention 0 → mlp 1" in split.names()


def test_the_network_runs_with_gaps_between_positions() -> None:
    found = transformer(decay=True)
    network, tokens, places = bl.polynomial_network(found), [1, 4, 2], [0, 3, 9]
    said = network(torch.tensor(tokens), positions=places)[-1]
    torch.testing.assert_close(said, logits_by_hand(found, tokens, places), rtol=1e-9, atol=1e-11)


def test_chance_pools_tables_of_turned_embeddings_in_units_of_their_size() -> None:
    network, samples = bl.polynomial_network(transformer()), 3
    assert network.embedding is not None
    chance = interaction_chance(network, 2, distance=2, num_samples=samples, seed=5)
    generator, pooled = torch.Generator().manual_seed(5), []
    for _ in range(samples):
        gauss = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)
        turn = torch.linalg.qr(gauss).Q
        turn = turn * torch.where((turn.T @ gauss).diagonal() < 0, -1.0, 1.0)
        table = token_interactions(
            replace(network, embedding=network.embedding @ turn), 2, distance=2
        )
        assert table.values is not None
        pooled.append((table.values / table.values.square().mean().sqrt()).flatten())
    torch.testing.assert_close(chance.pooled, torch.cat(pooled).sort().values, rtol=1e-9, atol=0)


def test_as_many_are_beyond_chance_as_the_false_share_allows() -> None:
    """By hand: the k largest count where a turned network has at most share · k as large."""
    network = bl.polynomial_network(transformer())
    found = token_interactions(network, 1)
    assert found.values is not None
    values = (found.values / found.values.square().mean().sqrt()).flatten().sort().values.flip(0)
    chance = interaction_chance(network, 1, num_samples=4, seed=1)
    for share in (0.05, 0.3, 0.6, 0.9):
        as_large = [(chance.pooled >= value).sum().item() / 4 for value in values]
        fits = [k for k, expected in enumerate(as_large, 1) if expected <= share * k]
        assert chance.count_beyond(found, false_share=share) == max(fits, default=0)
    assert 0 < chance.count_beyond(found, false_share=0.9) < len(values)


def test_a_planted_rule_is_beyond_chance_and_random_weights_are_not() -> None:
    network = bl.polynomial_network(transformer())
    chance = interaction_chance(network, 1, num_samples=40)
    random = token_interactions(network, 1)
    assert float(chance.share_as_large(random).min()) > 1e-3
    assert network.head is not None
    assert network.embedding is not None
    planted = network.head + 0
    planted[2] += 40 * network.embedding[3] / network.embedding[3].square().sum()
    sure = replace(network, head=planted)
    chance, found = interaction_chance(sure, 1, num_samples=40), token_interactions(sure, 1)
    assert found.strongest[0].tolist() == [3, 2]
    assert float(chance.share_as_large(found)[3, 2]) < 0.05


class Product(torch.nn.Module):
    """A bilinear layer of somebody else."""

    def __init__(self, d_in: int, d_hidden: int, d_out: int) -> None:
        super().__init__()
        self.one, self.two = torch.nn.Linear(d_in, d_hidden), torch.nn.Linear(d_in, d_hidden)
        self.down = torch.nn.Linear(d_hidden, d_out)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.one(x) * self.two(x))
        return y


def network_of_vectors() -> PolynomialNetwork:
    torch.manual_seed(0)
    return bl.polynomial_network(torch.nn.Sequential(Product(4, 6, 4), Product(4, 5, 3)).double())


def test_layers_one_behind_the_other_are_a_network() -> None:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(Product(4, 6, 4), Product(4, 5, 3)).double()
    network, x = bl.polynomial_network(layers), torch.randn(7, 4, dtype=torch.float64)
    torch.testing.assert_close(network(x), layers(x).detach())
    assert (network.degree, network.d_in, network.d_out) == (4, 4, 3)
    assert network.checked_against


def hooked() -> PolynomialTransformer:
    found = transformer()
    found.blocks[1].register_forward_hook(lambda _m, _i, out: 2 * out)
    return found


def ordinary() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "a hook that acts": (
        lambda: bl.polynomial_network(hooked()),
        NumericalError,
        "another function",
    ),
    "softmax": (
        lambda: bl.polynomial_network(bl.nn.BilinearTransformer(5, 8, 6, 1, 2, 8)),
        NotQuadraticError,
        "softmax.*RMSNorm",
    ),
    "an activation": (
        lambda: bl.polynomial_network(ordinary()),
        NotQuadraticError,
        "activation relu",
    ),
    "a file without roles": (lambda: bl.polynomial_network("x.safetensors"), UsageError, "roles="),
    "order 4": (
        lambda: token_interactions(bl.polynomial_network(transformer()), 4),
        UsageError,
        "order is 4",
    ),
    "distances that rise": (
        lambda: token_interactions(bl.polynomial_network(transformer()), 3, distance=(1, 2)),
        UsageError,
        "fall",
    ),
    "beyond the context": (
        lambda: token_interactions(bl.polynomial_network(transformer()), 2, distance=CONTEXT),
        UsageError,
        "position 12 is beyond the 12",
    ),
    "vectors": (lambda: token_interactions(network_of_vectors(), 1), UsageError, "reads vectors"),
    "a token that is not there": (
        lambda: token_interactions(bl.polynomial_network(transformer()), 1, tokens=[[7]]),
        UsageError,
        "tokens run from 7",
    ),
    "three pairs": (lambda: transformer(3), UsageError, "pairs is 3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_one_sentence(name: str) -> None:
    act, error, words = REFUSED[name]
    with pytest.raises(error, match=words):
        act()


def test_a_vocabulary_of_150_000_is_refused_with_the_number() -> None:
    network = bl.polynomial_network(transformer())
    assert network.embedding is not None
    assert network.head is not None
    many = replace(
        network,
        embedding=network.embedding[:1].expand(150_000, -1),
        head=network.head[:1].expand(150_000, -1),
    )
    with pytest.raises(MemoryLimitError, match="22,500,000,000 combinations of 2 tokens"):
        token_interactions(many, 2)
    few = token_interactions(many, 2, tokens=[[0, 1], [5]], k=2)
    assert few.strongest.shape == (2, 3)


def test_what_is_left_out_must_have_a_residual_path() -> None:
    network = network_of_vectors()
    with pytest.raises(UsageError, match="no residual path"):
        network.step(torch.zeros(4, dtype=torch.float64), 0, (), active=())
    split = split_by_path(network, lambda _active: torch.ones(1))
    assert split.paths == ((),)
