"""MLPs of any safetensors file: by roles that are said, or guessed and shown, or refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import bilens as bl
from bilens.base.errors import CheckpointError, NonFiniteError, UsageError
from bilens.io.load import LoadedModel
from builders import randn
from io_mapped import chain, gated, pair, poisoned, turned, write


def run(model: LoadedModel, x: Tensor) -> Tensor:
    """The layers of a network, one behind the other."""
    assert model.network
    for view in model.network:
        x = view.weights(torch.float64)(x)
    return x


def by_torch(tensors: dict[str, Tensor], names: list[str], function: Any, x: Tensor) -> Tensor:
    """The same with torch.nn.functional."""
    for index, name in enumerate(names):
        x = functional.linear(x, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))
        x = function(x) if index < len(names) - 1 else x
    return x


@pytest.mark.parametrize("turn", [False, True])
def test_roles_that_are_said_are_read(tmp_path: Path, turn: bool) -> None:
    tensors = {"a.k": randn(6, 4), "a.b": randn(6), "z": randn(3, 6), "other": randn(9)}
    path = write(tmp_path, turned(tensors) if turn else tensors)
    roles = {"up": "a.k", "up_bias": "a.b", "down": "z"}
    model = bl.load(path, roles=roles, activation="leaky_relu:0.2")
    x = randn(9, 4)
    hidden = functional.leaky_relu(x @ tensors["a.k"].T + tensors["a.b"], 0.2)
    torch.testing.assert_close(run(model, x), hidden @ tensors["z"].T)
    assert model.load_report is not None
    assert (model.load_report.guessed, model.load_report.left_out) == (False, ("tensor other",))
    assert not model.load_report.verified
    assert model.input_names is None


def test_several_layers_are_a_network_where_only_the_last_has_an_output(tmp_path: Path) -> None:
    tensors = chain(4, 6, 5, 3)
    path = write(tmp_path, tensors)
    roles = {"up.0": "0.weight", "up.1": "2.weight", "down.1": "4.weight"}
    roles |= {"up_bias.0": "0.bias", "up_bias.1": "2.bias", "down_bias.1": "4.bias"}
    x = randn(9, 4)
    expected = by_torch(tensors, ["0", "2", "4"], torch.tanh, x)
    for model in (
        bl.load(path, roles=roles, activation="tanh"),
        bl.load(path, activation="tanh"),  # the guess is the same
    ):
        torch.testing.assert_close(run(model, x), expected)
    fit = bl.quadratic_fit(model, samples=300)
    assert "closed form layer by layer" in fit.derivation


@pytest.mark.parametrize("said", ["tanh, relu", ["tanh", bl.Activation("relu")]])
def test_each_layer_may_have_an_activation_of_its_own(said: Any, tmp_path: Path) -> None:
    tensors, x = chain(4, 6, 5, 3), randn(9, 4)
    model = bl.load(write(tmp_path, tensors), activation=said)
    first = by_torch(tensors, ["0"], None, x).tanh()
    second = functional.linear(first, tensors["2.weight"], tensors["2.bias"]).relu()
    expected = functional.linear(second, tensors["4.weight"], tensors["4.bias"])
    torch.testing.assert_close(run(model, x), expected)
    with pytest.raises(UsageError, match=r"3 activations are named for 2 layer\(s\)"):
        bl.load(tmp_path, activation="relu,relu,relu")


def test_a_gated_layer_is_read(tmp_path: Path) -> None:
    tensors = {**gated(), "mlp.down_proj.bias": randn(4)}
    model = bl.load(write(tmp_path, tensors), activation="silu")
    x = randn(9, 4)
    gate, up, down, bias = (
        tensors[f"mlp.{n}"]
        for n in ("gate_proj.weight", "up_proj.weight", "down_proj.weight", "down_proj.bias")
    )
    expected = (functional.silu(x @ gate.T) * (x @ up.T)) @ down.T + bias
    torch.testing.assert_close(run(model, x), expected)
    assert bl.load(write(tmp_path, tensors), activation="identity").layers["layer"].exact


GUESSES: dict[str, tuple[dict[str, Tensor], list[str], bool]] = {
    "fc": (pair(), ["layer"], True),
    "linear": (pair("linear1", "linear2", bias=False), ["layer"], True),
    "in a model": ({**pair("m.fc1", "m.fc2"), "norm.weight": randn(3)}, ["layer"], True),
    "Sequential": (chain(4, 6, 3), ["layer"], True),
    "deep": (chain(4, *([5] * 11), 3), [f"layers.{k}" for k in range(11)], True),
    "flax": (
        {
            "Dense_0.kernel": randn(4, 6),
            "Dense_0.bias": randn(6),
            "Dense_1.kernel": randn(6, 3),
            "Dense_1.bias": randn(3),
        },
        ["layer"],
        True,
    ),
    "letters": (
        {"W1": randn(6, 4), "b1": randn(6), "W2": randn(3, 6), "b2": randn(3)},
        ["layer"],
        True,
    ),
    "letters of fc": (
        {"fc1": randn(6, 4), "b1": randn(6), "fc2": randn(3, 6), "b2": randn(3)},
        ["layer"],
        True,
    ),
    "letters, gated": (
        {f"ffn.{n}{k}": randn(*s) for k in (1, 2, 3) for n, s in (("w", (4, 4)), ("b", (4,)))},
        ["layer"],
        True,
    ),
    "by shape": ({"out": randn(3, 6), "first": randn(6, 4)}, ["layer"], True),
    "three": ({**pair(), "fc3.weight": randn(5, 3)}, ["layers.0", "layers.1"], True),
    "square, gated": (gated(width=7), ["layer"], True),
    "blocks": (
        {**gated("h.0."), **gated("h.1."), "h.1.gate_proj.bias": randn(7)},
        ["layers.0", "layers.1"],
        False,
    ),
}


@pytest.mark.parametrize("name", GUESSES)
def test_roles_are_guessed_and_shown(name: str, tmp_path: Path) -> None:
    tensors, layers, network = GUESSES[name]
    is_gated = name in ("blocks", "square, gated", "letters, gated")
    told = {"transposed": False} if is_gated else {}
    model = bl.load(write(tmp_path, tensors), activation="relu", **told)
    assert [*model.layers] == layers
    assert bool(model.network) is network
    assert model.load_report is not None
    assert model.load_report.guessed
    gates = {view.gated for view in model.layers.values()}
    assert gates == {is_gated}
    shown = "\n".join(model.load_report.lines())
    assert "Guessed from names and shapes: layer" in shown
    assert next(iter(tensors)) in shown
    left_out = ("tensor norm.weight",) if name == "in a model" else ()
    assert model.load_report.left_out == left_out


def test_the_shapes_say_which_way_round_matrices_are(tmp_path: Path) -> None:
    x = randn(9, 4)
    results = [
        run(bl.load(write(tmp_path, tensors), activation="relu"), x)
        for tensors in (pair(), turned(pair()))
    ]
    torch.testing.assert_close(*results)


def test_where_shapes_do_not_say_it_the_caller_has_to(tmp_path: Path) -> None:
    path = write(tmp_path, {"fc1.weight": randn(4, 4), "fc2.weight": randn(4, 4, seed=1)})
    with pytest.raises(UsageError, match=r"'fc1.weight' with shape \(4, 4\).*transposed=False"):
        bl.load(path, activation="relu")
    x = randn(9, 4)
    as_torch, turned_round = (
        run(bl.load(path, activation="relu", transposed=way), x) for way in (False, True)
    )
    expected = (x @ randn(4, 4).T).relu() @ randn(4, 4, seed=1).T
    torch.testing.assert_close(as_torch, expected)
    assert not torch.allclose(turned_round, expected)


def test_without_an_activation_what_would_be_read_is_shown(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"up = fc1.weight, down = fc2.weight.*activation='ACTIVATION'"
    ):
        bl.load(write(tmp_path, pair()))


def test_a_folder_with_one_file_is_that_file(tmp_path: Path) -> None:
    path = write(tmp_path, pair())
    model = bl.load(tmp_path, activation="relu")
    assert model.weights_sha256 == bl.load(path, activation="relu").weights_sha256
    write(tmp_path, pair(), "more.safetensors")
    with pytest.raises(CheckpointError, match="holds 2 models"):
        bl.load(tmp_path, activation="relu")


def test_shards_are_one_model(tmp_path: Path) -> None:
    tensors = pair()
    weight_map = {}
    for number, names in enumerate((("fc1.weight", "fc1.bias"), ("fc2.weight", "fc2.bias")), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        write(tmp_path, {name: tensors[name] for name in names}, file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    x = randn(9, 4)
    (tmp_path / "one").mkdir()
    whole = bl.load(write(tmp_path / "one", tensors), activation="relu")
    torch.testing.assert_close(run(bl.load(tmp_path, activation="relu"), x), run(whole, x))


def test_half_precision_stays_what_it_is(tmp_path: Path) -> None:
    path = write(tmp_path, {name: tensor.bfloat16() for name, tensor in pair().items()})
    view = bl.load(path, activation="gelu").layers["layer"]
    assert view.dtype == view.weights().down.dtype == torch.bfloat16
    assert view.quadratic_map.dtype == torch.float32


FC = {"up": "fc1.weight", "down": "fc2.weight"}
BAD: dict[str, tuple[dict[str, Tensor], dict[str, Any], type[Exception], str]] = {
    "no such role": (
        pair(),
        {"roles": {**FC, "head": "fc1.bias"}},
        UsageError,
        "head=fc1.bias is no",
    ),
    "no role at all": (pair(), {"roles": {}}, UsageError, "roles is empty"),
    "no up": (pair(), {"roles": {"down": "fc2.weight"}}, UsageError, "the roles lack up.0"),
    "a gap": (
        pair(),
        {"roles": {**FC, "up.3": "fc1.bias", "gate_bias.3": "fc2.bias"}},
        UsageError,
        "the roles lack up.1, up.2, gate.3",
    ),
    "a role twice": (
        pair(),
        {"roles": {**FC, "up.0": "fc2.bias"}},
        UsageError,
        "role up.0 is given twice",
    ),
    "a tensor twice": (
        pair(),
        {"roles": {"up": "fc1.weight", "down": "fc1.weight"}},
        UsageError,
        "'fc1.weight' has two roles",
    ),
    "no such tensor": (
        pair(),
        {"roles": {**FC, "up": "fc1.wieght"}},
        CheckpointError,
        "no tensor 'fc1.wieght'; there are 4, for example fc1.weight",
    ),
    "no matrix": (
        pair(),
        {"roles": {**FC, "up": "fc1.bias"}},
        CheckpointError,
        r"'fc1.bias' has shape \(6,\); expected 2 axes",
    ),
    "shapes": (
        {"fc1.weight": randn(6, 4), "fc2.weight": randn(3, 5)},
        {"roles": FC},
        CheckpointError,
        "'fc2.weight' reads 5 values and 'fc1.weight' gives 6; and with transposed",
    ),
    "the other way": (
        pair(),
        {"transposed": True},
        CheckpointError,
        "with transposed=True, 'fc2.weight' reads 3 values and 'fc1.weight' gives 4",
    ),
    "no such activation": (
        pair(),
        {"activation": "mish"},
        UsageError,
        "activation 'mish' is not known: use one of identity",
    ),
    "no slope": (pair(), {"activation": "relu:0.1"}, UsageError, "relu has no slope"),
    "a bad slope": (pair(), {"activation": "leaky_relu:x"}, UsageError, "'x' is no slope"),
    "an empty slope": (pair(), {"activation": "leaky_relu:"}, UsageError, "'' is no slope"),
    "a slope of NaN": (pair(), {"activation": "leaky_relu:nan"}, UsageError, "'nan' is no slope"),
    "mixed dtypes": (
        {**pair(), "fc1.bias": randn(6).float()},
        {},
        CheckpointError,
        "mixes the dtypes torch.float32, torch.float64",
    ),
    "NaN": (poisoned(pair()), {}, NonFiniteError, "'fc1.weight' holds 1 non-finite"),
    "a convolution": (
        {"conv.weight": randn(3, 2, 3, 3)},
        {},
        CheckpointError,
        "no MLP that names and shapes give away. Its matrices: none",
    ),
    "two that do not fit": (
        {"a": randn(3, 2), "b": randn(5, 7)},
        {},
        CheckpointError,
        r"Its matrices: a \(3, 2\), b \(5, 7\)",
    ),
    "two orders": (
        {"c": randn(3, 4), "b": randn(3, 3), "d": randn(3, 3), "a": randn(2, 3)},
        {},
        UsageError,
        "orders of its matrices fit, for example a → b → d → c and",
    ),
    "a norm between": (
        {**chain(4, 6, 3), "1.weight": randn(6)},
        {},
        CheckpointError,
        "no MLP that names and shapes give away",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused(name: str, tmp_path: Path) -> None:
    tensors, options, error, words = BAD[name]
    with pytest.raises(error, match=words):
        bl.load(write(tmp_path, tensors), **{"activation": "relu", **options})


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, pair())
    whole = path.read_bytes()
    for content in (whole[:-5], whole[:20], b"\x80\x04K\x01."):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="not a readable safetensors file"):
            bl.load(path, activation="relu")


def test_other_tensors_of_the_file_are_not_read(tmp_path: Path) -> None:
    odd = {"steps": torch.tensor([3]), "broken": torch.full((2,), torch.nan)}
    path = write(tmp_path, {**pair(), **odd})
    model = bl.load(path, roles=FC, activation="relu")
    assert model.load_report is not None
    assert "tensor steps" in model.load_report.left_out
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="was changed or moved after"):
        model.layers["layer"].weights()


def test_objects_are_told_where_to_go() -> None:
    with pytest.raises(UsageError, match=r"a Sequential.*read by bl.from_module"):
        bl.load(nn.Sequential(nn.Linear(2, 2)))  # type: ignore[arg-type]


# ---- TransformerLens, and matrices that may be gates


def lens(
    gate: bool = True, layers: int = 2, b_in: float = 0.0, width: int = 4
) -> dict[str, Tensor]:
    """Blocks of TransformerLens, width → 7 → width, with what else is in a block."""
    tensors = {"embed.W_E": randn(9, width)}
    for k in range(layers):
        block = {"W_in": randn(width, 7, seed=k), "W_out": randn(7, width, seed=k + 9)}
        block |= {"b_in": torch.full((7,), b_in).double(), "b_out": randn(width, seed=k + 5)}
        block |= {"W_gate": randn(width, 7, seed=k + 3)} if gate else {}
        tensors |= {f"blocks.{k}.mlp.{name}": tensor for name, tensor in block.items()}
        tensors[f"blocks.{k}.attn.W_Q"] = randn(2, width, 2)
    return tensors


@pytest.mark.parametrize("width", [4, 7])  # square matrices are no question either
@pytest.mark.parametrize("gate", [True, False])
def test_blocks_of_transformer_lens_are_read(gate: bool, width: int, tmp_path: Path) -> None:
    tensors, x = lens(gate, b_in=0.0 if gate else 0.3, width=width), randn(9, width)
    model = bl.load(write(tmp_path, tensors), activation="gelu")
    for k, view in enumerate(model.layers.values()):
        part = {n.split(".")[-1]: t for n, t in tensors.items() if n.startswith(f"blocks.{k}.mlp.")}
        hidden = functional.gelu(x @ part["W_gate"]) * (x @ part["W_in"]) if gate else None
        hidden = functional.gelu(x @ part["W_in"] + part["b_in"]) if hidden is None else hidden
        expected = hidden @ part["W_out"] + part["b_out"]
        assert view.gated is gate
        torch.testing.assert_close(view.weights(torch.float64)(x), expected)


def test_a_bias_behind_the_product_is_no_bias_of_a_branch(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"0.mlp.b_in is not zero.* b_out \+ b_in @ W_out"):
        bl.load(write(tmp_path, lens(b_in=0.1)), activation="silu")


GATES: dict[str, dict[str, Tensor]] = {
    "beside W_in": {k.replace("W_gate", "V"): t for k, t in lens().items()},
    "beside fc1": {**pair("mlp.fc1", "mlp.fc2"), "mlp.fc_g.weight": randn(6, 4, seed=8)},
    "of the whole model": {**pair(), "norm": randn(4), "other.weight": randn(6, 4, seed=8)},
    "deeper": {**pair("mlp.fc1", "mlp.fc2"), "mlp.act.gate.weight": randn(6, 4, seed=8)},
    "of three layers": {
        name.replace("gate_proj", "glu"): tensor
        for k in range(3)
        for name, tensor in gated(f"h.{k}.").items()
    },
}


@pytest.mark.parametrize("name", GATES)
def test_what_may_be_a_gate_is_asked_for_and_then_read(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, GATES[name])
    with pytest.raises(CheckpointError, match="has the shape of a part of the layer") as caught:
        bl.load(path, activation="silu", transposed=name == "beside W_in")
    ((call, *_),) = [str(caught.value).rpartition("Call ")[2:]]
    model = eval(call.removesuffix("."), {"bl": bl})  # noqa: S307 - our own message
    assert len(model.layers) == {"beside W_in": 2, "of three layers": 3}.get(name, 1)
    assert all(view.gated for view in model.layers.values())


def test_a_star_stands_for_the_numbers_of_layers(tmp_path: Path) -> None:
    tensors = {f"h.{k}.{n}": randn(4, 4, seed=k) for k in (2, 10, 3) for n in ("a", "b")}
    path = write(tmp_path, {**tensors, "h.x.a": randn(4, 4)})
    model = bl.load(
        path, roles={"up": "h.*.a", "down": "h.*.b"}, activation="relu", transposed=False
    )
    made_of = [text.split(",")[0] for text in model.load_report.roles.values()]
    assert made_of == [f"up = h.{k}.a" for k in (2, 3, 10)]
    with pytest.raises(CheckpointError, match=r"has no tensor 'g\.\*\.a'"):
        bl.load(path, roles={"up": "g.*.a"}, activation="relu")
    path = write(tmp_path, {**tensors, "h.2.c": randn(4, 4), "h.3.c": randn(4, 4)})
    with pytest.raises(UsageError, match=r"of up and that of gate stand for .*, '10' in one of"):
        bl.load(path, roles={"up": "h.*.a", "gate": "h.*.c", "down": "h.*.b"}, activation="relu")


def test_what_lies_elsewhere_is_no_gate(tmp_path: Path) -> None:
    tensors = {**pair("l.0.mlp.fc1", "l.0.mlp.fc2"), "l.0.attn.q.weight": randn(6, 4)}
    assert bl.load(write(tmp_path, tensors), activation="relu").layers


def test_a_batch_normalisation_that_may_belong_to_a_layer_is_said(tmp_path: Path) -> None:
    for width, words in ((6, ["'bn'"]), (4, ["'bn'"]), (5, [])):
        norm = {f"bn.running_{end}": torch.ones(width).double() for end in ("mean", "var")}
        model = bl.load(write(tmp_path, {**pair(), **norm}), roles=FC, activation="relu")
        lines = [line for line in model.load_report.lines() if "the layers without it" in line]
        assert [line.split()[5].strip(",") for line in lines] == words


NO_WEIGHTS = {  # beside an MLP, none of them a part of it
    "positions": torch.arange(32).reshape(1, 32),
    "order": torch.arange(6),
    "table": torch.arange(24).reshape(6, 4),
    "codes": torch.ones(6, 4, dtype=torch.int8),
    "mask": torch.ones(6, 6, dtype=torch.bool),
    "random": torch.zeros(40, dtype=torch.uint8),
    "phases": torch.zeros(6, 4, dtype=torch.complex64),
    "maxima": torch.zeros(6, 4).to(torch.float8_e4m3fn),
    "bn.num_batches_tracked": torch.tensor(3),
    "nothing": torch.zeros(0, 4, dtype=torch.float64),
}
BESIDE_ODD = {
    "fc": pair(),
    "in a model": pair("mlp.fc1", "mlp.fc2"),
    "Sequential": chain(4, 6, 3),
    "three": {**pair(), "fc3.weight": randn(5, 3)},
    "gated": gated("mlp.", 7),
}


@pytest.mark.parametrize("odd", NO_WEIGHTS)
@pytest.mark.parametrize("name", BESIDE_ODD)
def test_numbers_that_are_no_weights_change_no_guess(name: str, odd: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"activation": "relu", "transposed": False}
    alone = bl.load(write(tmp_path, BESIDE_ODD[name]), **options)
    place = f"mlp.{odd}" if name == "gated" else odd
    found = bl.load(write(tmp_path, {**BESIDE_ODD[name], place: NO_WEIGHTS[odd]}), **options)
    assert found.load_report is not None
    assert alone.load_report is not None
    assert found.load_report.roles == alone.load_report.roles
    assert f"tensor {place}" in found.load_report.left_out


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float64])
def test_what_may_be_the_mask_of_a_matrix_is_asked_for(dtype: torch.dtype, tmp_path: Path) -> None:
    path = write(tmp_path, {**pair(), "fc1.mask": torch.ones(6, 4).to(dtype)})
    with pytest.raises(CheckpointError, match=r"fc1\.mask \(6, 4\) beside fc1\.weight may be its"):
        bl.load(path, activation="relu")
    assert bl.load(path, activation="relu", roles=FC).layers


@pytest.mark.parametrize("ends", [("weight_orig", "weight_mask"), ("parametrizations.weight.0",)])
def test_what_a_weight_is_made_of_is_no_weight(ends: tuple[str, ...], tmp_path: Path) -> None:
    tensors = {f"{k}.{end}": randn(4, 4) for k in range(2) for end in ends}
    with pytest.raises(CheckpointError, match="holds no MLP that names and shapes give away"):
        bl.load(write(tmp_path, tensors), activation="relu", transposed=False)


def test_codes_that_are_called_weights_are_no_others(tmp_path: Path) -> None:
    tensors = {"fc1.weight": torch.ones(6, 4, dtype=torch.int8), "fc2.weight": randn(3, 6)}
    with pytest.raises(CheckpointError, match=r"has weights of torch\.float64, torch\.int8"):
        bl.load(write(tmp_path, tensors), activation="relu")
    net = {**chain(4, 6, 6, 3), "0.weight": torch.ones(6, 4, dtype=torch.int8)}
    net = {name: tensor for name, tensor in net.items() if "bias" not in name}
    with pytest.raises(CheckpointError, match="has weights of"):
        bl.load(write(tmp_path, net), activation="relu")
