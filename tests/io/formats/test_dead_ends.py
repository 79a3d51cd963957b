"""What ended without a layer, or was read as another one, is read, or refused with the choices."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import bilens as bl
from bilens.base.errors import BilensError, CheckpointError, UsageError
from builders import randn
from io_mapped import pair, write

D, H = 5, 8


def two_branches(first: str, second: str, d_out: int = D, bias: bool = True) -> dict[str, Tensor]:
    """One matrix of two branches, and the one behind them, as PyTorch lays them out."""
    tensors = {f"{first}.weight": randn(2 * H, D), f"{second}.weight": randn(d_out, H, seed=1)}
    if bias:
        tensors |= {f"{first}.bias": randn(2 * H, seed=2), f"{second}.bias": randn(d_out, seed=3)}
    return tensors


def run_branches(tensors: dict[str, Tensor], gate_last: bool, x: Tensor) -> Tensor:
    """The same by torch, its biases too."""
    weight, down, *biases = tensors.values()
    first, second = functional.linear(x, weight, *biases[:1]).chunk(2, dim=-1)
    gate, up = (second, first) if gate_last else (first, second)
    return functional.linear(functional.silu(gate) * up, down, *biases[1:])


FUSED = {
    "of Phi-3": ("model.layers.{}.mlp.gate_up_proj", "model.layers.{}.mlp.down_proj", False),
    "of ChatGLM": ("layers.{}.mlp.dense_h_to_4h", "layers.{}.mlp.dense_4h_to_h", False),
    "of ModernBERT": ("layers.{}.mlp.Wi", "layers.{}.mlp.Wo", False),
    "of DINOv2": ("blocks.{}.mlp.w12", "blocks.{}.mlp.w3", False),
    "of diffusers": ("blocks.{}.ff.net.0.proj", "blocks.{}.ff.net.2", True),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", FUSED)
def test_one_matrix_of_two_branches_is_read_where_its_family_is_known(
    name: str, bias: bool, tmp_path: Path
) -> None:
    *names, gate_last = FUSED[name]
    first, second = (
        two_branches(*(one.format(k) for one in names), bias=bias)  # type: ignore[str-format]
        for k in range(2)
    )
    model = bl.load(write(tmp_path, {**first, **second}), activation="silu")
    x = randn(9, D)
    for tensors, view in zip((first, second), model.layers.values(), strict=True):
        assert view.gated
        expected = run_branches(tensors, gate_last, x)
        torch.testing.assert_close(view.weights(torch.float64)(x), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("d_out", [D, D + 1])  # with D it would fit as matrices (in, out), too
@pytest.mark.parametrize("gate_last", [True, False])
def test_an_order_that_nothing_says_is_asked_for_with_the_choices(
    gate_last: bool, d_out: int, tmp_path: Path
) -> None:
    tensors = two_branches("fc1", "fc2", d_out, bias=False)
    path, x = write(tmp_path, tensors), randn(9, D)
    for said in ({}, {"roles": {"up": "fc1.weight", "down": "fc2.weight"}}):
        with pytest.raises(CheckpointError, match=r"gives twice what .* \(gate_up\) or last"):
            bl.load(path, activation="silu", **said)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError) as caught:
        bl.load(path, activation="silu")
    first, last, *plain = caught.value.retries
    assert len(plain) == (d_out == D)
    options: Any = (last if gate_last else first).said
    model = bl.load(path, **options)
    expected = run_branches(tensors, gate_last, x)
    torch.testing.assert_close(model.layers["layer"].weights(torch.float64)(x), expected)
    assert ("up_gate" if gate_last else "gate_up") in model.load_report.lines()[0]  # type: ignore[union-attr]


def test_two_branches_may_lie_one_beside_the_other(tmp_path: Path) -> None:
    tensors, x = two_branches("a", "b"), randn(9, D)
    turned = {name: one.T if one.ndim == 2 else one for name, one in tensors.items()}
    roles = {"up_gate": "a.weight", "up_gate_bias": "a.bias"}
    roles |= {"down": "b.weight", "down_bias": "b.bias"}
    model = bl.load(write(tmp_path, turned), roles=roles, activation="silu")
    expected = run_branches(tensors, True, x)
    torch.testing.assert_close(model.layers["layer"].weights(torch.float64)(x), expected)
    with pytest.raises(UsageError, match="up_gate is up and gate in one tensor"):
        bl.load(write(tmp_path, {**turned, "g": x}), roles={**roles, "gate": "g"})


@pytest.mark.parametrize("shape", [(1, 1, -1), (1, -1), (-1, 1)])
@pytest.mark.parametrize("names", [("fc1", "fc2"), ("a.0", "a.2")])
def test_a_bias_may_have_axes_of_length_one(
    names: tuple[str, str], shape: tuple[int, ...], tmp_path: Path
) -> None:
    tensors, x = pair(*names), randn(9, 4)
    first, last = (tensors[f"{name}.bias"] for name in names)
    flat = functional.linear(x, tensors[f"{names[0]}.weight"], first).relu()
    expected = functional.linear(flat, tensors[f"{names[1]}.weight"], last)
    shaped = {n: t.reshape(shape) if n.endswith("bias") else t for n, t in tensors.items()}
    model = bl.load(write(tmp_path, shaped), activation="relu")
    torch.testing.assert_close(model.layers["layer"].weights(torch.float64)(x), expected)
    roles = {"gate_up": "m.weight", "gate_up_bias": "m.bias", "down": "d.weight"}
    wide = two_branches("m", "d", bias=False) | {"m.bias": randn(2 * H, seed=2)}
    shaped = {n: t.reshape(shape) if n.endswith("bias") else t for n, t in wide.items()}
    model = bl.load(write(tmp_path, shaped), activation="silu", roles=roles, transposed=False)
    wide = {name: wide[name] for name in ("m.weight", "d.weight", "m.bias")}
    x = randn(9, D)
    torch.testing.assert_close(
        model.layers["layer"].weights(torch.float64)(x), run_branches(wide, False, x)
    )


@pytest.mark.parametrize(("rows", "said"), [(2000, True), (20, False)])
def test_a_told_reading_that_leaves_nearly_all_out_says_so_on_page_one(
    rows: int, said: bool, tmp_path: Path
) -> None:
    path = write(tmp_path, {**pair("a", "z"), "embed": randn(rows, 4)})
    model = bl.load(path, roles={"up": "a.weight", "down": "z.weight"}, activation="identity")
    report = bl.audit(model)
    for lang, words in (("en", "99.4% of the model’s weights lie outside"), ("ja", "の99.4%は、")):
        first = report.to_html(lang=lang).split("<h2")[1]
        assert (words in first) is said


def test_a_module_of_torch_fx_is_known_as_a_module(tmp_path: Path) -> None:
    module = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    torch.save(module, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"holds a whole module \(torch.fx.graph_module"):
        bl.load(tmp_path / "m.pt", allow_pickle=True)


def two_ways(first: str, second: str) -> dict[str, Tensor]:
    """Matrices that fit in either order."""
    there, back = randn(6, 4), randn(4, 6)
    biases = {f"{first}.bias": randn(6), f"{second}.bias": randn(4)}
    return {f"{first}.weight": there, f"{second}.weight": back, **biases}


def test_an_activation_that_lies_beside_the_file_is_suggested(tmp_path: Path) -> None:
    path = write(tmp_path, pair())
    (tmp_path / "config.json").write_text('{"hidden_act": "gelu_new"}')
    with pytest.raises(UsageError, match=r"config.json beside it says gelu_new") as caught:
        bl.load(path)
    (options,) = (retry.said for retry in caught.value.retries)
    assert bl.load(path, **options).layers["layer"].activation.name == "gelu_tanh"  # type: ignore[arg-type]


ASKED: dict[str, tuple[dict[str, Tensor], int]] = {
    "an activation": (pair(), 1),
    "an order of branches": (two_branches("fc1", "fc2"), 2),
    "an order or axes": (two_branches("fc1", "fc2", bias=False), 3),
    "in a model": ({"conv.weight": randn(3, 2, 3, 3), **pair("head.0", "head.3")}, 1),
    "a gate": ({**pair("m.fc1", "m.fc2"), "m.g.weight": randn(6, 4), "m.g.bias": randn(6)}, 1),
    "an order": ({n: randn(4, 4) for n in ("p", "q")}, 2),
    "an adapter": (two_ways("adapter.up", "adapter.down"), 2),
    "axes": ({"fc1.weight": randn(4, 4), "fc2.weight": randn(4, 4), "fc1.bias": randn(4)}, 2),
    "layers": ({f"{k}.{n}": t for k in "01" for n, t in two_branches("fc1", "fc2").items()}, 2),
    "a numbered gate": ({f"w{k}.weight": randn(4, 4, seed=k) for k in (1, 2, 3)}, 2),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("name", ASKED)
def test_what_is_suggested_works_and_names_no_activation_that_nobody_said(
    name: str, suffix: str, tmp_path: Path
) -> None:
    """Each suggestion is run, and the one that it leads to, with ACTIVATION filled in."""
    tensors, count = ASKED[name]
    path = write(tmp_path, tensors)
    if suffix == ".pt":
        path = tmp_path / "m.pt"
        torch.save(tensors, path)
    todo: list[dict[str, Any]] = [{}]
    read = 0
    while todo:
        said = todo.pop()
        try:
            model = bl.load(path, **said)
        except BilensError as error:
            assert error.retries, error  # noqa: PT017
            for retry in error.retries:
                assert {*said} < {*retry.said}
                assert retry.said.get("activation") in (None, "ACTIVATION", "tanh")
                filled: dict[str, Any] = {**retry.said}
                todo.append(filled | ({"activation": "tanh"} if "activation" in filled else {}))
            continue
        read += 1
        beside = [name for name in tensors if name.endswith("bias")]
        assert not [name for name in beside if f"tensor {name}" in model.load_report.left_out]  # type: ignore[union-attr]
    assert read == count


ATTENTION: dict[str, tuple[Any, dict[str, Any]]] = {  # layers, and a row of tensors that are none
    "as torch has it": (lambda: nn.MultiheadAttention(8, 2), {}),
    "in the middle": (lambda: nn.ModuleDict({"attn": nn.MultiheadAttention(8, 2)}), {}),
    "as matrices": (
        lambda: nn.ModuleDict({f"{k}_proj": nn.Linear(8, 8, bias=False) for k in "qkvo"}),
        {"up": "k_proj.weight", "down": "o_proj.weight"},
    ),
    "beside two maps": (
        lambda: nn.ModuleDict(
            {"a": nn.Linear(8, 9), "b": nn.Linear(9, 8), "attn": nn.MultiheadAttention(8, 2)}
        ),
        {},
    ),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_an_attention_is_never_taken_for_an_mlp(name: str, tmp_path: Path) -> None:
    make, roles = ATTENTION[name]
    path = write(tmp_path, make().state_dict())
    for options in ({}, {"activation": "relu"}, {"activation": "relu", "transposed": True}):
        with pytest.raises(CheckpointError, match="holds no MLP that names and shapes give away"):
            bl.load(path, **options)
    if roles:  # but where the caller says it
        assert bl.load(path, roles=roles, activation="relu", transposed=False).layers


def test_a_network_may_have_maps_of_such_names(tmp_path: Path) -> None:
    tensors = {"in_proj.weight": randn(H, D), "out_proj.weight": randn(3, H, seed=1)}
    assert bl.load(write(tmp_path, tensors), activation="relu").layers
    tensors = {"stem.weight": randn(H, D), "critic.value.weight": randn(3, H, seed=1)}
    assert bl.load(write(tmp_path, tensors), activation="relu").layers


def test_a_gate_as_timm_names_it_has_the_activation(tmp_path: Path) -> None:
    names = [f"blocks.0.mlp.{part}.weight" for part in ("fc1_g", "fc1_x", "fc2")]
    gate, up, down = randn(H, D), randn(H, D, seed=1), randn(D, H, seed=2)
    path = write(tmp_path, dict(zip(names, (gate, up, down), strict=True)))
    (view,) = bl.load(path, activation="silu", transposed=False).layers.values()
    x = randn(9, D, seed=3)
    expected = (functional.silu(x @ gate.T) * (x @ up.T)) @ down.T
    torch.testing.assert_close(view.weights(torch.float64)(x), expected)
