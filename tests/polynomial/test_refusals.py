"""Guards against networks, tables and numbers that are not what they say: one sentence for each."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import bilens as bl
from bilens.base.errors import BilensError, NonFiniteError, NotQuadraticError, UsageError
from bilens.nn import PolynomialTransformer
from bilens.polynomial import token_interactions as module
from bilens.polynomial.network import PolynomialNetwork, QuadraticLayer
from polynomial.test_composition import two_layers
from polynomial.test_reading import ROLES, transformer
from polynomial.test_token_interactions import Product


def products(*behind: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Product(4, 6, 4), Product(4, 5, 3), *behind).double()


@pytest.mark.parametrize("head", [nn.Softmax(dim=-1), nn.LogSoftmax(dim=-1)])
def test_a_function_behind_the_last_layer_is_no_polynomial(head: nn.Module) -> None:
    """Seen: read without it, and "the module itself, as it runs"."""
    with pytest.raises(NotQuadraticError, match="behind the last layer"):
        bl.polynomial_network(products(head))


def test_an_estimator_with_exp_is_refused() -> None:
    neural = pytest.importorskip("sklearn.neural_network")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    options = {"activation": "identity", "hidden_layer_sizes": (4,), "max_iter": 20}
    found = neural.MLPClassifier(**options, random_state=0).fit(x, (x[:, 0] > 0).astype(int))
    with pytest.raises(BilensError, match="behind the last layer"):
        bl.polynomial_network(found)


def quiet(found: PolynomialTransformer) -> PolynomialTransformer:
    """The same with attention far below rounding: a comparison sees nothing of it."""
    with torch.no_grad():
        for name, weight in found.named_parameters():
            if name.endswith("attention.out.weight"):
                weight *= 1e-9
    return found


def test_a_decay_is_a_rate_for_each_head() -> None:
    attention: Any = bl.polynomial_network(transformer()).parts[0]
    rates = torch.tensor([0.1, 0.0]).double()
    assert replace(attention, decay=rates).decay is rates
    for wrong, words in ((rates[:1], "decay has shape"), (-rates, "below 0")):
        with pytest.raises(BilensError, match=words):
            replace(attention, decay=wrong)
    with pytest.raises(UsageError, match=r"decay is 0\.3; expected True or False"):
        PolynomialTransformer(7, 8, 6, 2, 2, 10, decay=0.3)  # type: ignore[arg-type]


def acting(part: str, hook: Any) -> PolynomialTransformer:
    torch.manual_seed(0)
    found = quiet(PolynomialTransformer(20, 16, 24, 2, 2, 16))
    found.get_submodule(part).register_forward_hook(hook)
    return found


class Flipped(PolynomialTransformer):
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().forward(tokens.flip(1)).flip(1)


def replaced(part: str, by: nn.Module) -> PolynomialTransformer:
    found = transformer()
    parent, _, name = part.rpartition(".")
    setattr(found.get_submodule(parent), name, by)
    return found


OTHERWISE = {
    "a hook below rounding": (lambda: acting("blocks.0.attention", lambda *a: -3 * a[2]), "hooks"),
    "a forward of its own": (lambda: quiet(Flipped(20, 16, 24, 2, 2, 16)), "forward of its own"),
    "a bias": (lambda: replaced("unembed", nn.Linear(8, 7)), "without a bias"),
    "a norm": (lambda: replaced("final_scale", nn.LayerNorm(8)), "is a LayerNorm; expected"),
    "no MLP": (lambda: replaced("blocks.0.mlp", nn.Identity()), "is a Identity; expected"),
    "an adapter": (
        lambda: replaced("blocks.0.attention.value", nn.Sequential(nn.Linear(8, 8))),
        "is a Sequential; expected",
    ),
    "another block": (lambda: replaced("blocks.1", nn.Identity()), "is a Identity; expected"),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_transformer_with_other_parts_is_refused(name: str) -> None:
    make, words = OTHERWISE[name]
    with pytest.raises(BilensError, match=words):
        bl.polynomial_network(make())


def test_what_is_read_is_a_copy() -> None:
    chain, text = products(), transformer().double()
    networks = bl.polynomial_network(chain), bl.polynomial_network(text)
    x, tokens = torch.randn(5, 4).double(), torch.randint(7, (2, 6))
    before = networks[0](x), networks[1](tokens)
    with torch.no_grad():
        for part in (*chain.parameters(), *text.parameters()):
            part.mul_(3)
    torch.testing.assert_close(networks[0](x), before[0], rtol=0, atol=0)
    torch.testing.assert_close(networks[1](tokens), before[1], rtol=0, atol=0)
    assert networks[1].checked_against
    assert not networks[1].changed(torch.zeros_like).checked_against


def test_a_file_with_a_gap_or_more_than_the_roles_is_refused(tmp_path: Path) -> None:
    state, file = transformer().state_dict(), tmp_path / "n.safetensors"
    save_file({k: v for k, v in state.items() if k != "blocks.1.attention.value.weight"}, file)
    with pytest.raises(BilensError, match=r"no tensor 'blocks.1.attention.value.weight'"):
        bl.polynomial_network(file, ROLES)
    save_file({k: v for k, v in state.items() if "blocks.0." not in k}, file)
    with pytest.raises(BilensError, match=r"the blocks \[1\] have tensors"):
        bl.polynomial_network(file, ROLES)
    save_file(state | {"unembed.bias": torch.ones(7)}, file)
    with pytest.raises(BilensError, match=r"no role names unembed.bias"):
        bl.polynomial_network(file, ROLES)
    save_file(state | {"final_scale.scale": torch.ones(8, 8)}, file)
    with pytest.raises(BilensError, match=r"final_scale.scale has shape \(8, 8\)"):
        bl.polynomial_network(file, ROLES)


def test_positions_count_without_attention_too() -> None:
    (first, _) = two_layers(0, residual=True, bias=True).parts
    assert isinstance(first, QuadraticLayer)
    torch.manual_seed(0)
    embedding, places = torch.randn(6, 3).double(), torch.randn(8, 3).double()
    network = PolynomialNetwork((first,), embedding=embedding, positions=places)
    x = embedding[torch.tensor([1, 2])] + places[:2]
    torch.testing.assert_close(network(torch.tensor([[1, 2]]))[0], x + first.map(x))
    for given, positions in (([[1] * 20], None), ([[1, 2]], [5, 2])):
        with pytest.raises(UsageError):
            network(torch.tensor(given), positions)


def test_numbers_that_are_not_finite_reach_no_table() -> None:
    network = bl.polynomial_network(transformer())
    assert network.embedding is not None
    huge = replace(network, embedding=network.embedding * 1e30)
    with pytest.raises(NonFiniteError):
        bl.token_interactions(huge, 2)
    for base in (0, -1.0, float("nan"), "10000"):
        with pytest.raises(UsageError, match="rotary_base"):
            PolynomialTransformer(7, 8, 6, 2, 2, 10, rotary_base=base)  # type: ignore[arg-type]


def test_chance_is_compared_with_its_own_kind_of_table() -> None:
    network = bl.polynomial_network(transformer())
    few = bl.interaction_chance(network, 1, num_samples=18)
    with pytest.raises(UsageError, match=r"18 turned networks tell nothing .* takes 19"):
        few.count_beyond(bl.token_interactions(network, 1))
    chance = bl.interaction_chance(network, 1, num_samples=19)
    for other in (
        bl.token_interactions(network, 2),
        bl.token_interactions(network, 1, measure="probability"),
        bl.token_interactions(network, 1, tokens=[[1, 2]]),
    ):
        with pytest.raises(UsageError, match="compute both with the same arguments"):
            chance.count_beyond(other)
    half = bl.token_interactions(network.to(torch.float16), 1)
    assert chance.count_beyond(half) == chance.count_beyond(bl.token_interactions(network, 1))
    with pytest.raises(UsageError, match="between 0 and 1"):
        chance.count_beyond(half, false_share=5)


def test_blocks_fit_whatever_place_has_many_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    network = bl.polynomial_network(transformer())
    given = [[5], [0, 1, 2, 3, 4], [6, 2, 0]]
    whole = bl.token_interactions(network, 3, distance=(4, 1), tokens=given, k=9)
    monkeypatch.setattr(module, "AT_ONCE", 16)  # two combinations
    sizes = []
    made = module.interact

    def watched(*args: Any) -> torch.Tensor:
        sizes.append(made(*args).numel())
        return made(*args)

    monkeypatch.setattr(module, "interact", watched)
    small = bl.token_interactions(network, 3, distance=(4, 1), tokens=given, k=9)
    assert max(sizes) <= 2 * 7
    torch.testing.assert_close(small.values, whole.values)
    assert small.strongest.tolist() == whole.strongest.tolist()


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    network = bl.polynomial_network(transformer())
    expected = bl.token_interactions(network, 2, distance=3, tokens=[[1], None]).values
    found = bl.token_interactions(network, 2, distance=np.int64(3), tokens=[np.array([1]), None])
    torch.testing.assert_close(found.values, expected)


WRONG: dict[str, Any] = {
    "a distance of a float": {"order": 2, "distance": 2.0},
    "a distance of a text": {"order": 2, "distance": "2"},
    "places as a number": {"order": 2, "tokens": 5},
    "tokens as a number": {"order": 1, "tokens": [5]},
    "tokens as a text": {"order": 1, "tokens": [["a"]]},
    "a mask": {"order": 1, "tokens": [torch.arange(7) < 5]},
    "floats": {"order": 1, "tokens": [[1.0]]},
    "no tokens": {"order": 1, "tokens": [[]]},
    "a token twice": {"order": 2, "tokens": [[0, 1], [2, 0, 2]]},
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_one_sentence(name: str) -> None:
    network = bl.polynomial_network(transformer())
    given = dict(WRONG[name])
    with pytest.raises(UsageError):
        bl.token_interactions(network, given.pop("order"), **given)


def test_a_module_in_place_of_a_network_is_named() -> None:
    model: Any = transformer()
    tokens = torch.tensor([[1, 2]])
    for act in (
        lambda: bl.token_interactions(model, 1),
        lambda: bl.split_interactions(model, tokens),
        lambda: bl.interaction_chance(model, 1),
        lambda: bl.output_moments(model),
        lambda: bl.network_similarity(model, model),
        lambda: bl.decompose_wires(model),
        lambda: bl.approximate_moments(model),
    ):
        with pytest.raises(UsageError, match=r"use bl.polynomial_network\(model\)"):
            act()


def test_similarity_does_not_depend_on_the_size_of_the_outputs() -> None:
    f, g = (two_layers(seed, residual=True, bias=True) for seed in (0, 1))
    expected = bl.network_similarity(f, g)
    assert f.head is not None
    assert f.head_bias is not None
    for size in (1e-150, 1e150):
        scaled = replace(f, head=f.head * size, head_bias=f.head_bias * size)
        assert bl.network_similarity(scaled, g) == pytest.approx(expected, rel=1e-9)
    for outputs in (np.array([0, 1]), torch.tensor([0, 1])):
        assert bl.network_similarity(f, g, outputs=outputs) == pytest.approx(expected)  # type: ignore[arg-type]
    for wrong in (1, [0.0, 1.0], [True, False], []):
        with pytest.raises(UsageError, match="expected numbers from 0 to 1"):
            bl.network_similarity(f, g, outputs=wrong)  # type: ignore[arg-type]
