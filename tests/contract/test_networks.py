"""Guards what is read of whole polynomial networks: the same function, the same interactions."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import bilens as bl
from bilens.base.errors import NumericalError, UsageError
from bilens.nn import PolynomialTransformer
from contract.table import cell
from polynomial.test_composition import two_layers
from polynomial.test_reading import ROLES, transformer

TOKENS = 7
Change = Callable[[PolynomialTransformer], None]


def interactions(module: PolynomialTransformer | bl.PolynomialNetwork) -> Tensor:
    network = module if isinstance(module, bl.PolynomialNetwork) else bl.polynomial_network(module)
    values = bl.token_interactions(network.to(torch.float64), 2, distance=3).values
    assert values is not None
    return values


def changed(change: Change) -> PolynomialTransformer:
    module = transformer().double()
    with torch.no_grad():
        change(module)
    return module


def permuted_units(module: PolynomialTransformer) -> None:
    for block in module.blocks:
        block: Any
        order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
        block.mlp.left.weight[:] = block.mlp.left.weight[order]
        block.mlp.right.weight[:] = block.mlp.right.weight[order]
        block.mlp.down.weight[:] = block.mlp.down.weight[:, order]
        heads = torch.arange(8).view(2, 4).flip(0).flatten()  # both heads exchanged
        for part in (*block.attention.queries, *block.attention.keys, block.attention.value):
            part.weight[:] = part.weight[heads]
        block.attention.out.weight[:] = block.attention.out.weight[:, heads]


def scaled_branches(module: PolynomialTransformer) -> None:
    for block in module.blocks:
        block: Any
        block.mlp.left.weight *= 4
        block.mlp.right.weight /= 4
        block.attention.queries[0].weight *= 8
        block.attention.keys[1].weight /= 8
        block.attention_scale.scale *= 2
        for part in (*block.attention.queries, *block.attention.keys, block.attention.value):
            part.weight /= 2


def exchanged(module: PolynomialTransformer) -> None:
    for block in module.blocks:
        block: Any
        left, right = block.mlp.left.weight.clone(), block.mlp.right.weight.clone()
        block.mlp.left.weight[:], block.mlp.right.weight[:] = right, left
        for maps in (block.attention.queries, block.attention.keys):
            one, two = maps[0].weight.clone(), maps[1].weight.clone()
            maps[0].weight[:], maps[1].weight[:] = two, one


def common_function(module: PolynomialTransformer) -> None:
    module.unembed.weight += torch.linspace(-3, 3, 8).double()


SAME: dict[str, Change] = {
    "permuted units": permuted_units,
    "scaled branches": scaled_branches,
    "exchanged branches": exchanged,
    "a common function": common_function,
}


@cell("network", "permuted units", "scaled branches", "same function", "common function")
@pytest.mark.parametrize("name", SAME)
def test_the_same_function_has_the_same_interactions(name: str) -> None:
    expected = interactions(transformer().double())
    torch.testing.assert_close(
        interactions(changed(SAME[name])), expected, rtol=1e-8, atol=1e-9 * expected.abs().max()
    )


@cell("network", "permuted inputs", "permuted outputs")
def test_tokens_in_another_order_are_the_same_tokens() -> None:
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(1))
    network = bl.polynomial_network(transformer().double())
    assert network.embedding is not None
    assert network.head is not None
    values = interactions(network)
    inputs = interactions(replace(network, embedding=network.embedding[order]))
    torch.testing.assert_close(inputs, values[order][:, order])
    outputs = interactions(replace(network, head=network.head[order]))
    torch.testing.assert_close(outputs, values[:, :, order])


@cell("network", "other function")
def test_one_changed_weight_changes_what_is_read() -> None:
    def one_weight(module: PolynomialTransformer) -> None:
        block: Any = module.blocks[1]
        block.attention.keys[1].weight[0, 0] += 0.5

    expected, found = interactions(transformer().double()), interactions(changed(one_weight))
    assert float((found - expected).abs().max()) > 1e-4 * float(expected.abs().max())
    f = two_layers(0, residual=True, bias=True)
    assert f.head is not None
    assert bl.network_similarity(f, f) == pytest.approx(1.0, abs=1e-12)
    assert bl.network_similarity(f, two_layers(1, residual=True, bias=True)) < 0.99


@cell("network", "own object")
def test_a_module_is_read_as_it_runs_and_refused_where_it_does_something_else() -> None:
    module, tokens = transformer(), torch.randint(TOKENS, (3, 10))
    made = module(tokens).detach().double()
    torch.testing.assert_close(bl.polynomial_network(module)(tokens), made, rtol=1e-4, atol=1e-5)
    module.embed.register_forward_hook(lambda _m, _i, out: 1.01 * out)
    with pytest.raises(NumericalError, match="another function"):
        bl.polynomial_network(module)
    looked = transformer()
    looked.blocks[0].register_forward_hook(lambda *_: None)  # looks on
    assert bl.polynomial_network(looked).checked_against


@cell("network", "saved")
def test_a_saved_network_is_the_same(tmp_path: Path) -> None:
    save_file(transformer().state_dict(), tmp_path / "n.safetensors")
    read = bl.polynomial_network(tmp_path / "n.safetensors", ROLES)
    torch.testing.assert_close(interactions(read), interactions(transformer()))


@cell("network", "other dtype")
def test_the_same_numbers_in_another_type() -> None:
    expected = interactions(transformer())
    torch.testing.assert_close(interactions(transformer().double()), expected)
    network = bl.polynomial_network(transformer())
    assert network.reference.dtype == torch.float64
    single = bl.token_interactions(network.to(torch.float32), 2, distance=3).values
    assert single is not None
    assert float((single.double() - expected).abs().max()) < 1e-4 * float(expected.abs().max())


@cell("network", "threads")
def test_two_threads_find_the_same() -> None:
    expected, before = interactions(transformer()), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        torch.testing.assert_close(interactions(transformer()), expected, rtol=1e-9, atol=1e-10)
    finally:
        torch.set_num_threads(before)


@cell("network", "other units")
def test_inputs_in_other_units_with_their_covariance_are_the_same() -> None:
    f, g = (two_layers(seed, residual=False, bias=True) for seed in (0, 1))
    units = torch.tensor([0.1, 10.0, 3.0], dtype=torch.float64)

    def rescaled(network: bl.PolynomialNetwork) -> bl.PolynomialNetwork:
        first: Any = network.parts[0]
        turned = replace(first, map=first.map.compose_input(torch.diag(1 / units)))
        return replace(network, parts=(turned, network.parts[1]))

    covariance = torch.eye(3, dtype=torch.float64) + 0.3
    expected = bl.network_similarity(f, g, covariance=covariance)
    found = bl.network_similarity(
        rescaled(f), rescaled(g), covariance=covariance * units * units[:, None]
    )
    assert found == pytest.approx(expected, abs=1e-10)
    assert bl.network_similarity(rescaled(f), rescaled(g)) != pytest.approx(expected, abs=1e-4)


@cell("network", "without effect")
def test_options_that_do_nothing_are_refused() -> None:
    network = bl.polynomial_network(transformer())
    with pytest.raises(UsageError, match="distance is 1"):
        bl.token_interactions(network, 1, distance=1)
    with pytest.raises(UsageError, match="roles= are of a file"):
        bl.polynomial_network(transformer(), ROLES)
