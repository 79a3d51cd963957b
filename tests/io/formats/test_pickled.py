"""Files of PyTorch as people have them: read without running what they hold, or refused at once."""

import argparse
import io
import os
import pickle
import pickletools
import random
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bilens as bl
from bilens.base.errors import BilensError, CheckpointError, UsageError
from bilens.findings.tensor_difference import compare_tensors
from bilens.io.formats.pickled import open_pickled
from bilens.io.inventory import contents_at
from bilens.io.load import LoadedModel
from bilens.io.pickle_contents import PickleReader
from builders import randn
from io_mapped import gated, pair

State = dict[str, Tensor]


def network(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    parts: list[nn.Module] = []
    for d_in, d_out in pairwise(widths):
        parts += [nn.Linear(d_in, d_out), nn.ReLU()]
    return nn.Sequential(*parts[:-1]).double()


def run(model: LoadedModel, x: Tensor) -> Tensor:
    for view in model.layers.values():
        x = view.weights(torch.float64)(x)
    return x


def training(state: Any) -> Any:
    """What a training script saves beside the weights."""
    optimizer = {"state": {0: {"exp_avg": torch.zeros(6, 4)}}, "param_groups": [{"lr": 0.1}]}
    return {
        "epoch": 3,
        "best": np.float64(0.9),
        "args": argparse.Namespace(lr=0.1, out=PurePosixPath("runs")),
        "model": state,
        "optimizer": optimizer,
        "rng_state": torch.get_rng_state(),
    }


def lightning(state: Any) -> Any:
    return {
        "epoch": 1,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": OrderedDict((f"model.{name}", tensor) for name, tensor in state.items()),
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.1)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(6, 4)}}}],
        "hyper_parameters": argparse.Namespace(width=6),
    }


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {f"{prefix}{name}": tensor for name, tensor in state.items()}


CHECKPOINTS: dict[str, tuple[Callable[[Any], Any], set[str]]] = {  # what it is, what is not read
    "a state dict": (lambda state: state, set()),
    "a training": (training, {"optimizer", "rng_state"}),
    "Lightning": (lightning, {"callbacks", "optimizer_states"}),
    "model_state_dict": (lambda state: {"model_state_dict": state, "loss": 0.1}, set()),
    "net": (lambda state: {"net": state, "acc": 91.5}, set()),
    "nested": (lambda state: {"model": {"state_dict": state}, "optimizer": None}, set()),
    "an average beside": (lambda s: {"model": s, "ema": {k: 2 * v for k, v in s.items()}}, {"ema"}),
    "lists": (lambda s: {"model": s, "states": [{"x": torch.zeros(2)}]}, {"states"}),
    "an average alone": (lambda state: {"ema": state, "optimizer": training({})}, {"optimizer"}),
    "DDP": (prefixed("module."), set()),
    "torch.compile": (prefixed("_orig_mod."), set()),
    "both": (prefixed("module._orig_mod."), set()),
    "parameters": (lambda state: {k: nn.Parameter(v) for k, v in state.items()}, set()),
    "parts of a model": (lambda s: {"body": {"0": {"weight": s["0.weight"], "bias": s["0.bias"]}},
                                    "head": {"weight": s["2.weight"], "bias": s["2.bias"]}}, set()),
}  # fmt: skip


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_are_read_as_the_module(name: str, zipped: bool, tmp_path: Path) -> None:
    make, unread = CHECKPOINTS[name]
    net, x = network(4, 6, 3), randn(9, 4)
    path = tmp_path / "m.ckpt"
    torch.save(make(net.state_dict()), path, _use_new_zipfile_serialization=zipped)
    if not zipped and name in (
        "a training",
        "Lightning",
        "an average alone",
    ):  # which held less of Python
        with pytest.raises(CheckpointError, match="cannot be read as a file of PyTorch"):
            bl.load(path, allow_pickle=True)
        return
    if not zipped and name in ("a training", "Lightning"):  # which hold more of Python
        with pytest.raises(CheckpointError, match="cannot be read as a file of PyTorch"):
            bl.load(path, allow_pickle=True)
        return
    model = bl.load(path, allow_pickle=True, activation="relu")
    torch.testing.assert_close(run(model, x), net(x))
    assert model.load_report is not None
    said = {text.split(",")[0] for text in model.load_report.left_out}
    assert said == unread
    weights = [one for one in model.tensors.values() if one.is_weight]
    assert len(weights) == 4
    if name in ("DDP", "torch.compile", "both", "nested"):
        assert {*model.tensors} == {*net.state_dict()}


def test_roles_orientation_and_depth_are_as_in_safetensors(tmp_path: Path) -> None:
    path, x = tmp_path / "m.pt", randn(9, 4)
    net = network(4, 5, 5, 3)
    torch.save({"state_dict": prefixed("module.")(net.state_dict())}, path)
    roles = {"up.0": "0.weight", "up_bias.0": "0.bias", "up.1": "2.weight", "up_bias.1": "2.bias"}
    roles |= {"down.1": "4.weight", "down_bias.1": "4.bias"}
    model = bl.load(path, roles=roles, activation="relu", allow_pickle=True)
    torch.testing.assert_close(run(model, x), net(x))
    torch.save({name: t.T for name, t in pair(bias=False).items()}, path)  # strides of a view
    model = bl.load(path, activation="tanh", transposed=True, allow_pickle=True)
    expected = (x @ pair()["fc1.weight"].T).tanh() @ pair()["fc2.weight"].T
    torch.testing.assert_close(run(model, x), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_views_dtypes_and_counters_are_what_they_are(dtype: torch.dtype, tmp_path: Path) -> None:
    both = randn(12, 4).to(dtype)
    state = {"gate": both[:6], "up": both[6:], "down": randn(4, 6, seed=1).to(dtype)}
    torch.save({**state, "num_batches_tracked": torch.tensor(7)}, tmp_path / "m.pt")
    model = bl.load(tmp_path / "m.pt", activation="silu", allow_pickle=True, transposed=False)
    assert model.layers["layer"].dtype is dtype
    read = {name: model.tensors[name].read_tensor() for name in state}
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("make", [torch.jit.script, lambda net: torch.jit.trace(net, randn(2, 4))])
@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_file_is_read_without_its_code(
    make: Callable[[nn.Module], Any], tmp_path: Path
) -> None:
    net, x = network(4, 6, 3), randn(9, 4)
    torch.jit.save(make(net), tmp_path / "m.pt")
    model = bl.load(tmp_path / "m.pt", allow_pickle=True, activation="relu")
    torch.testing.assert_close(run(model, x), net(x))
    assert "TorchScript" in model.provenance["format"]


# ---- one message


def asked_of(error: BaseException) -> str:
    """The call that a message ends with, or the first of several."""
    (calls,) = re.findall(r"Call (bl\.load\(.*\))\.$", str(error))
    return str(calls.partition(", or bl.load(")[0])


QUESTIONS: dict[str, tuple[State, str]] = {
    "an MLP": (pair(), "allow_pickle=True, activation='ACTIVATION')"),
    "a square one": (
        pair(bias=False) | {"fc2.weight": randn(4, 6)},
        "allow_pickle=True, activation='ACTIVATION', transposed=False)",
    ),
    "a gate of no name": (
        {**gated(), "mlp.other.weight": randn(7, 4)},
        "'gate': 'mlp.other.weight'}, transposed=False)",
    ),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_one_message_asks_for_all_and_its_call_works(name: str, tmp_path: Path) -> None:
    state, end = QUESTIONS[name]
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises((CheckpointError, UsageError)) as caught:
        bl.load(tmp_path / "m.pt")
    call = asked_of(caught.value)
    assert end in call
    call = call.replace("ACTIVATION", "relu")
    assert eval(call, {"bl": bl}).layers  # noqa: S307 - our own message


def test_what_the_caller_said_stays_in_the_call(tmp_path: Path) -> None:
    torch.save(pair(), tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"none of it is run") as caught:
        bl.load(tmp_path / "m.pt", activation="gelu")
    assert asked_of(caught.value).endswith(", activation='gelu', allow_pickle=True)")


# ---- what is no state dict, or a hostile one


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_of_a_file_is_run(zipped: bool, tmp_path: Path) -> None:
    path, mark = tmp_path / "m.pt", tmp_path / "mark"
    torch.save({**pair(), "evil": Evil(mark)}, path, _use_new_zipfile_serialization=zipped)
    with nullcontext() if zipped else pytest.raises(CheckpointError, match="as a file of PyTorch"):
        assert bl.load(path, activation="relu", allow_pickle=True).layers
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()  # the code is there


def entries(content: bytes, **more: bytes) -> dict[str, bytes]:
    return {
        "m/data.pkl": content,
        **{f"m/{name.replace('__', '/')}": b for name, b in more.items()},
    }


def archive(folder: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(folder / "m.pt", "w") as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return folder / "m.pt"


def tensor_pickle(shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """{"w": a tensor} as torch.save writes it."""
    out = io.BytesIO()
    torch.save({"w": torch.zeros(2, 3)}, out)
    with zipfile.ZipFile(out) as opened:
        content = opened.read(next(n for n in opened.namelist() if n.endswith("data.pkl")))
    written = rb"K\x00K\x02K\x03\x86q.K\x03K\x01\x86q."  # offset, shape, strides
    assert re.search(written, content, re.DOTALL)
    numbers = b"".join(pickle.dumps(part, 2)[2:-1] for part in (offset, shape, stride))
    numbers = numbers.replace(b"q\x00", b"")  # which are kept under numbers that others have
    return re.sub(written, lambda _: numbers, content, flags=re.DOTALL)


BOMB = b"\x80\x02" + b"(" + b"N" + b"t" + b"q\x00" + b"".join(
    b"h" + bytes([k]) + b"h" + bytes([k]) + b"\x86q" + bytes([k + 1]) for k in range(200)
)  # fmt: skip
HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a storage that is not there": (
        lambda p: archive(p, entries(tensor_pickle((2, 3), (3, 1)))),
        "not of dense numbers",
    ),
    "a tensor behind its storage": (
        lambda p: archive(p, entries(tensor_pickle((2, 3), (3, 1), 5), data__0=bytes(24))),
        "'w' is not of dense numbers inside its storage",
    ),
    "one number as 10^18": (
        lambda p: archive(p, entries(tensor_pickle((10**9, 10**9), (0, 0)), data__0=bytes(24))),
        "not of dense numbers",
    ),
    "big-endian": (
        lambda p: archive(p, entries(tensor_pickle((2, 3), (3, 1)), byteorder=b"big")),
        "big-endian",
    ),
    "a key of tuples of tuples": (
        lambda p: archive(p, entries(BOMB + b"}h" + bytes([200]) + b"Ns.")),
        "expected a state dict",
    ),
    "a deep list": (
        lambda p: archive(p, entries(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")),
        "expected a state dict",
    ),
    "a dict in itself": (
        lambda p: archive(p, entries(b"\x80\x02}q\x00X\x05\0\0\0modelh\x00s.")),
        "expected a state dict",
    ),
    "a stack that runs out": (lambda p: archive(p, entries(b"\x80\x02s.")), "cannot be read"),
    "an opcode of other pickles": (
        lambda p: archive(p, entries(b"\x80\x02\x82\x01.")), "cannot be read",
    ),
    "two pickles": (
        lambda p: archive(p, {**entries(b"\x80\x02N."), "n/data.pkl": b"\x80\x02N."}),
        "cannot be read as a file of PyTorch",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    make, words = HOSTILE[name]
    path = make(tmp_path)
    with pytest.raises(CheckpointError, match=words) as caught:
        bl.load(path, allow_pickle=True, activation="relu")
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_bytes_are_an_error_or_other_numbers(zipped: bool, tmp_path: Path) -> None:
    path, generator = tmp_path / "m.pt", random.Random(0)
    torch.save(training(pair()), path, _use_new_zipfile_serialization=zipped)
    good, messages = path.read_bytes(), []
    cut = [good[: len(good) * part // 20] for part in range(1, 20)]
    flips = [generator.randrange(len(good)) for _ in range(150)]
    changed = [good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :] for at in flips]
    for content in (*cut, *changed):
        path.write_bytes(content)
        try:
            bl.load(path, allow_pickle=True, activation="relu")
        except BilensError as error:
            messages.append(str(error))
    assert len(messages) >= len(cut)
    assert all(message.startswith(str(path)) for message in messages)


def test_a_whole_module_says_how_to_read_it(tmp_path: Path) -> None:
    for content in (network(4, 6, 3), {"model": network(4, 6, 3), "epoch": 1}):
        torch.save(content, tmp_path / "m.pt")
        with pytest.raises(CheckpointError, match=r"whole module \(torch.nn.*state_dict\(\)"):
            bl.load(tmp_path / "m.pt", allow_pickle=True)


def test_an_exported_program_says_how_to_save_its_weights(tmp_path: Path) -> None:
    path = archive(tmp_path, {"m/archive_format": b"pt2", "m/models/model.json": b"{}"})
    for name in ("m.pt", "m.pt2"):
        with pytest.raises(CheckpointError, match=r"archive of torch\.export.*save its weights"):
            bl.load(path.rename(tmp_path / name), allow_pickle=True)
        path = tmp_path / name


@pytest.mark.parametrize("content", [3, "weights", [torch.zeros(2)], {"a": 1}, torch.zeros(2)])
def test_what_has_no_names_is_no_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="expected a state dict"):
        bl.load(tmp_path / "m.pt", residual=False, allow_pickle=True)


ODD: dict[str, Callable[[], Any]] = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "quantised": lambda: torch.quantize_per_tensor(torch.zeros(3, 3), 0.1, 0, torch.qint8),
    "in a tuple": lambda: (torch.eye(3).to_sparse(), None),
    "an array": lambda: np.eye(3),
    "float8": lambda: torch.zeros(3, 3).to(torch.float8_e4m3fn),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ODD)
def test_weights_of_another_kind_are_never_passed_over(name: str, tmp_path: Path) -> None:
    torch.save({**pair(), "more": ODD[name]()}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"'more.*' is not of dense numbers"):
        bl.load(tmp_path / "m.pt", activation="relu", allow_pickle=True)


def test_a_file_that_changes_afterwards_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(pair(), path)
    model = bl.load(path, allow_pickle=True, activation="relu")
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="was changed or moved after"):
        model.layers["layer"].weights()


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_pickle_is_read_as_pickle_reads_it(protocol: int) -> None:
    """Plain values of every kind, against the standard library."""
    content = {"a": [1, -(2**70), 2.5, None, True, "é"], "b": {"c": ((), (1, 2, 3, 4))}}
    content["a"] += [b"x" * 300] if protocol > 2 else []  # which are texts there
    raw = pickletools.optimize(pickle.dumps(content, protocol))
    for text in (raw, pickle.dumps(content, protocol)):
        found = PickleReader(io.BytesIO(text)).load()
        assert found.items["a"] == content["a"]
        assert found.items["b"].items["c"] == ((), (1, 2, 3, 4))


@pytest.mark.parametrize("key", ["scaler", "config", "random_features", "hyper_parameters"])
def test_tensors_beside_the_weights_are_compared_whatever_their_key(
    key: str, tmp_path: Path
) -> None:
    """The state of an optimizer alone is set apart, by what is in it, and named."""
    for at, name in enumerate(("old", "new")):
        moments = {"state": {0: {"exp_avg": torch.ones(3) + at}}, "param_groups": [{"lr": 0.1}]}
        held = {"state_dict": gated(), key: {"mean": torch.ones(3) + at}, "opt": moments}
        torch.save(held, tmp_path / f"{name}.pt")
    both = [open_pickled(tmp_path / f"{name}.pt", True) for name in ("new", "old")]
    whole = compare_tensors(*({**one.store, **one.beside} for one in both))
    assert [one.name for one in whole.changed] == [f"{key}.mean"]
    notes = contents_at(tmp_path / "new.pt").notes
    assert "not counted among its weights, nor compared: opt, beside state_dict" in notes
