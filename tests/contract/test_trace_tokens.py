"""Guards against traces whose tokens are not those that the model itself would give.

Oracles: the model's own last norm and head, run by hand, and the same function written otherwise.
"""

import copy
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

import bilens as bl
import traced_models
from bilens.api.tracing import trace
from bilens.data.tokenizer import load_tokenizer
from bilens.nn import BilinearTransformer
from contract.drawn import drawn
from contract.table import cell

QUICK: dict[str, Any] = {"outputs": 2, "pairs": 3, "command": "here"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return traced_models.write_model(tmp_path_factory.mktemp("traced") / "model", n_layer=2)


def module_of(folder: Path) -> BilinearTransformer:
    return cast(BilinearTransformer, bl.load(folder).module)


def readings(folder: Path, layer: int = 1, **said: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = trace(folder, layer, **QUICK, **said).to_dict()["readings"]
    return found


def saved(folder: Path, module: BilinearTransformer, place: Path) -> Path:
    """Save a changed module with the tokenizer of a folder."""
    bl.save(module, place, overwrite=True)
    (place / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    return place


def ends(side: dict[str, Any]) -> list[tuple[int, ...]]:
    return [tuple(one["id"] for one in side[end][:4]) for end in ("high", "low")]


def alike(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    """Whether readings have the same spectra and the same tokens, up to a direction's sign."""
    for a, b in zip(one, other, strict=True):
        values, others = (torch.tensor(x["spectrum"]["eigenvalues"]) for x in (a, b))
        sign = 1 if ends(a["output"]) == ends(b["output"]) else -1
        if sign < 0 and ends(a["output"]) != ends(b["output"])[::-1]:
            return False
        if not torch.allclose(values.sort().values, (sign * others).sort().values, rtol=1e-4):
            return False
    return len(one) == len(other)


@cell("trace", "own object")
def test_tokens_of_a_direction_are_what_head_and_norm_make_of_it(folder: Path) -> None:
    module = module_of(folder)
    f = module.layer_map(1).detach().to(torch.float64)
    name = load_tokenizer(folder).token
    word = next(name(t) for t in range(5, 60) if name(t).strip().isalpha())
    (found,) = readings(folder, toward=[word])
    token = next(t for t in range(60) if name(t) == word)
    double = copy.deepcopy(module).double()
    rows = cast(Tensor, double.unembed.weight)
    u = rows[token] - rows.mean(dim=0)
    u = (u / u.norm()).detach()
    with torch.no_grad():
        effect = double.unembed(double.final_norm(1e4 * u[None]))[0]
    order = (effect - effect.mean()).argsort(descending=True).tolist()
    assert [one["id"] for one in found["output"]["high"]] == order[: len(found["output"]["high"])]
    values = torch.linalg.eigvalsh(f.form(u).dense())
    largest = values[values.abs().argsort(descending=True)][:3]
    assert torch.allclose(torch.tensor(found["spectrum"]["eigenvalues"][:3]).double(), largest)


@cell("trace", "permuted units")
@drawn
@given(seed=st.integers(0, 2**31))
def test_the_order_of_hidden_units_is_nothing(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    module = module_of(folder)
    mlp: Any = module.mlps[1]
    order = torch.randperm(mlp.left.out_features, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        mlp.left.weight.copy_(mlp.left.weight[order])
        mlp.right.weight.copy_(mlp.right.weight[order])
        mlp.down.weight.copy_(mlp.down.weight[:, order])
    place = saved(folder, module, tmp_path_factory.mktemp("units"))
    assert alike(readings(folder), readings(place))


def rotated(module: BilinearTransformer, turn: Tensor) -> BilinearTransformer:
    """The same function with its residual stream in other coordinates."""
    with torch.no_grad():
        for table in (module.embed, module.unembed):
            weight = cast(Tensor, table.weight)
            weight.copy_(weight @ turn.T)
        for block in cast(Any, module.blocks):
            for reader in (block.attention.qkv, block.mlp.left, block.mlp.right):
                reader.weight.copy_(reader.weight @ turn.T)
            for writer in (block.attention.out, block.mlp.down):
                writer.weight.copy_(turn @ writer.weight)
    return module


@cell("trace", "permuted inputs", "same function")
@drawn
@given(seed=st.integers(0, 2**31), permuted=st.booleans())
def test_the_coordinates_of_the_stream_are_nothing(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, seed: int, permuted: bool
) -> None:
    """A stream in another order, or rotated: the norms have no gain, so that it is one function."""
    draw, width = torch.Generator().manual_seed(seed), traced_models.WIDTH
    turn = torch.eye(width)[torch.randperm(width, generator=draw)]
    if not permuted:
        turn = torch.linalg.qr(torch.randn(width, width, generator=draw))[0]
    text = torch.randint(0, 50, (2, 9), generator=draw)
    module = module_of(folder)
    with torch.no_grad():
        before, after = module(text), rotated(module, turn)(text)
    assert torch.allclose(before, after, atol=1e-4)
    place = saved(folder, module, tmp_path_factory.mktemp("turned"))
    assert alike(readings(folder), readings(place))


@cell("trace", "other function")
def test_another_head_gives_other_tokens(folder: Path, tmp_path: Path) -> None:
    module = module_of(folder)
    with torch.no_grad():
        weight = cast(Tensor, module.unembed.weight)
        weight.copy_(weight.roll(1, dims=0))
    one, other = readings(folder)[0], readings(saved(folder, module, tmp_path / "rolled"))[0]
    tokens = [ends(x["output"])[0] for x in (one, other)]
    assert [t + 1 for t in tokens[0]] == [*tokens[1]]


@cell("trace", "other dtype")
def test_the_same_numbers_in_float64_give_the_same_tokens(folder: Path, tmp_path: Path) -> None:
    place = saved(folder, module_of(folder).double(), tmp_path / "double")
    assert alike(readings(folder), readings(place))


@cell("trace", "saved")
def test_a_folder_of_hugging_face_gives_the_same_tokens(folder: Path, tmp_path: Path) -> None:
    """With gains that are not 1, which the reader has to put into the weights and the head."""
    from safetensors.torch import load_file, save_file

    module_of(folder).save_huggingface(tmp_path / "hf", tokenizer=folder / "tokenizer.json")
    assert alike(readings(folder), readings(tmp_path / "hf"))
    weights = tmp_path / "hf" / "model.safetensors"
    state = load_file(weights)
    gain = 0.5 + torch.rand(traced_models.WIDTH, generator=torch.Generator().manual_seed(0))
    state["model.norm.weight"] = gain
    state["lm_head.weight"] = state["lm_head.weight"] / gain
    save_file(state, weights, {"format": "pt"})
    assert alike(readings(folder), readings(tmp_path / "hf"))
