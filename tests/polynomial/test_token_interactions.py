"""Guards against wrong interactions: orders, signs, positions, paths, chance and refusals."""

import math
from collections.abc import Collection
from copy import deepcopy
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
from bilens.polynomial.chance import interaction_chance, turned_networks
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


def turned_by_hand(network: PolynomialNetwork, samples: int, seed: int) -> list[PolynomialNetwork]:
    """Deviations of the embedding, turned where they have covariance I."""
    generator, made = torch.Generator().manual_seed(seed), []
    assert network.embedding is not None
    centre = network.embedding.mean(dim=0)
    u, s, w = torch.linalg.svd(network.embedding - centre, full_matrices=False)
    rank = TOKENS - 1
    for _ in range(samples):
        gauss = torch.randn(rank, rank, generator=generator, dtype=torch.float64)
        turn = torch.linalg.qr(gauss).Q
        turn = turn * torch.where((turn.T @ gauss).diagonal() < 0, -1.0, 1.0)
        embedding = centre + u[:, :rank] @ turn @ torch.diag(s[:rank]) @ w[:rank]
        made.append(replace(network, embedding=embedding))
    return made


def two_parts(network: PolynomialNetwork) -> tuple[Tensor, Tensor]:
    """What the last of two tokens says alone, and their interaction, (first, second, outputs)."""
    alone, both = (token_interactions(network, order).values for order in (1, 2))
    assert alone is not None
    assert both is not None
    return alone.expand(TOKENS, -1, -1), both


def test_chance_is_of_turned_embeddings_at_the_size_of_the_network() -> None:
    network, samples = bl.polynomial_network(transformer()), 3
    sizes = [part.square().mean().sqrt() for part in two_parts(network)]
    in_logits, changes = [], []
    for turned in turned_by_hand(network, samples, 5):
        rest, found = (
            part / part.square().mean().sqrt() * size
            for part, size in zip(two_parts(turned), sizes, strict=True)
        )
        in_logits.append((found / sizes[1]).flatten())
        changes.append(((rest + found).softmax(dim=-1) - rest.softmax(dim=-1)).flatten())
    for measure, expected in (("logits", in_logits), ("probability", changes)):
        chance = interaction_chance(network, 2, num_samples=samples, seed=5, measure=measure)  # type: ignore[arg-type]
        told = torch.cat(expected).sort().values
        torch.testing.assert_close(chance.pooled, told, rtol=1e-7, atol=1e-10)


def test_a_turned_embedding_keeps_mean_and_covariance() -> None:
    network = bl.polynomial_network(transformer())
    assert network.embedding is not None
    (turned,) = turned_networks(network, 1, 0)
    assert turned.embedding is not None
    assert float((turned.embedding - network.embedding).abs().max()) > 0.1
    torch.testing.assert_close(turned.embedding.mean(0), network.embedding.mean(0))
    torch.testing.assert_close(turned.embedding.T.cov(), network.embedding.T.cov())


def test_as_many_are_beyond_chance_as_the_false_share_allows() -> None:
    """By hand: the k largest count where a turned network has at most share · k as large."""
    network = bl.polynomial_network(transformer())
    for measure, counted in (("logits", True), ("probability", False)):
        found = token_interactions(network, 1, measure=measure)  # type: ignore[arg-type]
        assert found.values is not None
        size = found.values.square().mean().sqrt() if counted else 1.0
        values = (found.values / size).flatten().sort(descending=True).values
        chance = interaction_chance(network, 1, num_samples=19, seed=1, measure=measure)  # type: ignore[arg-type]
        for share in (0.05, 0.3, 0.6, 0.9):
            as_large = [(chance.pooled >= value).sum().item() / 19 for value in values]
            fits = [k for k, expected in enumerate(as_large, 1) if expected <= share * k]
            assert chance.count_beyond(found, false_share=share) == max(fits, default=0)
        assert 0 < chance.count_beyond(found, false_share=0.95) < len(values)


def scaled_channels(module: PolynomialTransformer) -> PolynomialTransformer:
    """The same function, with every channel of the stream in units of its own."""
    found, units = deepcopy(module), torch.logspace(-1.5, 1.5, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        found.embed.weight *= units
        for name, part in found.named_parameters():
            if name.endswith("scale"):
                part /= units
            elif name.endswith(("out.weight", "down.weight")):
                part *= units[:, None]
    return found


def test_chance_is_the_same_however_channels_are_scaled() -> None:
    module = transformer()
    network, other = (bl.polynomial_network(one) for one in (module, scaled_channels(module)))
    tokens = torch.tensor([[1, 4, 2]])
    torch.testing.assert_close(other(tokens), network(tokens), rtol=1e-9, atol=1e-11)
    mine, their = (interaction_chance(one, 2, num_samples=300) for one in (network, other))
    at = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    torch.testing.assert_close(
        mine.pooled.quantile(at), their.pooled.quantile(at), rtol=0.3, atol=0.03
    )


def test_a_sure_table_is_beyond_chance() -> None:
    """All is sure, and a turned network is not: in units of its table it would be as large."""
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    sure = PolynomialNetwork((), torch.eye(50).double(), 22 * torch.eye(50).double()[order])
    chance = interaction_chance(sure, 1, measure="probability", num_samples=19)
    assert chance.count_beyond(token_interactions(sure, 1, measure="probability")) == 50


def test_rounding_of_a_large_stream_is_no_interaction() -> None:
    """One attention and no layer has no interaction of three; a constant that nothing reads."""
    generator = torch.Generator().manual_seed(0)
    e, h, *weights, out = (
        torch.randn(n, 9, generator=generator).double() / 2 for n in (12, 12, 4, 4, 4, 4)
    )
    e[:, 8], h[:, 8] = 1e3, 0.0
    for one in (*weights, out):
        one[:, 8] = 0.0
    turn = torch.linalg.qr(torch.randn(9, 9, generator=generator).double()).Q
    q, k, v = (one @ turn for one in weights)
    attention = bl.BilinearAttention((bl.QueryKeyPair(q, k),), v, (out @ turn).T.contiguous(), 1)
    network = PolynomialNetwork((attention,), e @ turn, h @ turn)
    assert float(token_interactions(network, 2).strongest_values[0]) > 0.01
    three = token_interactions(network, 3).values
    assert three is not None
    assert not bool(three.any())


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
