"""Models at addresses: read in place, no more of them than is asked for, failures survived or told.

Broken once: ranges one byte too long, a changed ETag not compared, one attempt instead of five,
neighbours fetched one by one, all shards opened for one expert, a version left out of `headers`.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

import bilens as bl
from bilens.base.errors import CheckpointError, UsageError
from bilens.io import remote_stores
from bilens.io.formats import gguf, gguf_header, safetensors_folder
from bilens.io.formats.huggingface import read_layers
from bilens.io.load import load, load_layers, load_with
from bilens.io.loaded_model import LoadedModel, ReadOptions
from bilens.io.remote import located
from bilens.io.remote_stores import ObjectStore, RangeCache
from range_server import RangeServer, served

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp", reason="addresses of http are read with aiohttp")
D, H, LAYERS, EXPERTS = 32, 320, 2, 3


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(remote_stores, "WAIT", 1e-3)
    monkeypatch.setenv("BILENS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama, a mixture in shards, one with its experts in stacks, and one file alone."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    model = bl.nn.BilinearTransformer(50, D, H, n_layer=LAYERS, n_head=2, n_ctx=8, gate="silu")
    model.save_huggingface(folder / "llama")
    write_mixture(folder / "mixture")
    write_stacks(folder / "stacks")
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[RangeServer]:
    with served(folder) as found:
        yield found


def config(folder: Path, **options: Any) -> None:
    content = {"hidden_act": "silu", "hidden_size": D, "num_hidden_layers": LAYERS, **options}
    (folder / "config.json").write_text(json.dumps(content))


def write_mixture(folder: Path) -> None:
    folder.mkdir()
    config(folder, model_type="mixtral", intermediate_size=H, num_local_experts=EXPERTS)
    placed = {}
    for layer in range(LAYERS):
        home, name = f"model.layers.{layer}.block_sparse_moe", f"model-{layer}.safetensors"
        shapes = {"w1": (H, D), "w2": (D, H), "w3": (H, D)}
        tensors = {
            f"{home}.experts.{expert}.{part}.weight": torch.randn(*shape)
            for expert in range(EXPERTS)
            for part, shape in shapes.items()
        }
        tensors |= {f"{home}.gate.weight": torch.randn(EXPERTS, D)}
        tensors |= {f"model.layers.{layer}.self_attn.q_proj.weight": torch.randn(9 * D, 9 * D)}
        safetensors.torch.save_file(tensors, folder / name)
        placed |= dict.fromkeys(tensors, name)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": placed}))


def write_stacks(folder: Path) -> None:
    folder.mkdir()
    config(folder, model_type="qwen3_moe", moe_intermediate_size=H, num_experts=EXPERTS)
    tensors = {}
    for layer in range(LAYERS):
        home = f"model.layers.{layer}.mlp"
        tensors[f"{home}.experts.gate_up_proj"] = torch.randn(EXPERTS, 2 * H, D)
        tensors[f"{home}.experts.down_proj"] = torch.randn(EXPERTS, D, H)
        tensors[f"{home}.gate.weight"] = torch.randn(EXPERTS, D)
    safetensors.torch.save_file(tensors, folder / "model.safetensors")


def numbers(model: LoadedModel) -> dict[str, Tensor]:
    """What each layer computes of one input."""
    x = torch.ones(D)
    return {name: view.weights()(x) for name, view in model.layers.items()}


def in_mlps(model: LoadedModel) -> int:
    return 4 * sum(sum(view.tensors.values()) for view in model.layers.values())


# ---- what is fetched


@pytest.mark.parametrize("name", ["llama", "mixture", "stacks"])
def test_no_more_is_fetched_than_headers_and_the_layers(
    server: RangeServer, folder: Path, name: str
) -> None:
    found = load(f"{server.url}/{name}")
    of_headers = server.sent
    assert of_headers < 0.02 * in_mlps(found)
    near = read_layers(folder / name)
    assert numbers(found).keys() == numbers(near).keys()
    assert all(map(torch.equal, numbers(found).values(), numbers(near).values()))
    assert server.sent <= 1.02 * in_mlps(found)
    whole = sum(file.stat().st_size for file in (folder / name).iterdir())
    assert server.sent < whole


def test_spans_are_the_bytes_that_a_block_is_read_from(folder: Path) -> None:
    """One expert's gate in a stack: rows that lie in one piece, read by hand from the file."""
    file = folder / "stacks" / "model.safetensors"
    stored = load(folder / "stacks").tensors["model.layers.1.mlp.experts.gate_up_proj"]
    gate, up = stored.at_index(2).halves()
    ((name, start, stop),) = gate.spans
    assert (name, stop - start) == (file.name, 4 * H * D)
    assert up.spans == ((name, stop, stop + 4 * H * D),)
    raw = bytearray(file.read_bytes()[start:stop])
    assert torch.equal(torch.frombuffer(raw, dtype=torch.float32).reshape(H, D), gate.read_tensor())
    both = stored.fetch((slice(0, 2), slice(3, 5)))  # of several: cut from what holds them
    whole = safetensors.torch.load_file(file)[stored.name]
    assert torch.equal(both, whole[0:2, 3:5])
    assert torch.equal(stored.fetch((slice(1, 2), slice(4, 4))), whole[1:2, 4:4])


def test_small_ranges_next_to_each_other_are_one_request(server: RangeServer) -> None:
    """An expert lies in one piece; the maps of the next one, which are not asked for, behind it."""
    layer = load(f"{server.url}/mixture").layers["layers.1.mlp.experts.1"]
    server.asked.clear()
    layer.weights()
    ((name, start, stop),) = server.asked
    assert (name, stop - start) == ("model-1.safetensors", 3 * 4 * H * D)


def test_ranges_are_kept_and_no_longer_fetched(server: RangeServer) -> None:
    first = numbers(load(f"{server.url}/mixture"))
    sent = server.sent
    again = numbers(load(f"{server.url}/mixture"))
    assert all(map(torch.equal, first.values(), again.values()))
    assert server.sent == sent


def test_gguf_is_read_in_place(
    server: RangeServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gguf")
    monkeypatch.setattr(gguf_header, "WINDOW", 1 << 12)
    from tools.net.foreign import write_gguf

    layer = {"ffn_gate": (H, D), "ffn_up": (H, D), "ffn_down": (D, H)}
    tensors = {
        f"blk.{index}.{name}.weight": torch.randn(*shape).numpy()
        for index in range(LAYERS)
        for name, shape in layer.items()
    }
    tensors["token_embd.weight"] = torch.randn(4000, D).numpy()
    write_gguf(folder / "m.gguf", tensors, "Q8_0", "llama", LAYERS)
    found, near = load(f"{server.url}/m.gguf"), load(folder / "m.gguf")
    assert all(map(torch.equal, numbers(found).values(), numbers(near).values()))
    some = load_layers(folder / "m.gguf", lambda name: name == "layers.1.mlp")
    assert numbers(some).keys() == {"layers.1.mlp"}
    with pytest.raises(UsageError, match="has none of the layers that are wanted"):
        load_layers(folder / "m.gguf", lambda _: False)
    spans = [stored.spans[0] for name, stored in found.tensors.items() if "ffn" in name]
    in_layers = sum(stop - start for _, start, stop in spans)
    assert server.sent < in_layers + 2 * gguf_header.WINDOW < (folder / "m.gguf").stat().st_size


# ---- some layers alone


@pytest.mark.parametrize("far", [False, True])
def test_an_expert_is_opened_by_the_headers_that_hold_it(
    server: RangeServer, folder: Path, monkeypatch: pytest.MonkeyPatch, far: bool
) -> None:
    home, name = f"{server.url}/mixture" if far else folder / "mixture", "experts.2"
    near = load(folder / "mixture")
    for module in (safetensors_folder, gguf):
        monkeypatch.setattr(module, "file_sha256", lambda *_: pytest.fail("hashed"))
    whole = load_layers(home, lambda _: True)
    names = [*whole.layers]
    assert whole.weights_sha256 == "" != whole.identity
    some = load_layers(home, {names[-1]}.__contains__)
    assert [*some.layers] == [names[-1]]
    assert names[-1].endswith(name)
    assert [*some.headers] == ["model-1.safetensors"]
    assert some.headers.items() < whole.headers.items()
    assert {one: tensor.spans for one, tensor in some.tensors.items()} == {
        one: whole.tensors[one].spans for one in whole.layers[names[-1]].tensors
    }
    x = torch.ones(D)
    assert torch.equal(some.layers[names[-1]].weights()(x), near.layers[names[-1]].weights()(x))
    with pytest.raises(UsageError, match="has none of the layers that are wanted"):
        load_layers(home, lambda _: False)


def test_a_file_that_was_written_again_has_another_header(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder / "stacks", tmp_path / "m")
    name = [*load(tmp_path / "m").layers][3]
    before = load_layers(tmp_path / "m", {name}.__contains__)
    os.utime(tmp_path / "m" / "model.safetensors", (1, 1))
    assert load_layers(tmp_path / "m", {name}.__contains__).headers != before.headers
    assert load_layers(folder / "llama", lambda name: name == "layers.1.mlp").module is None


# ---- small models, read whole


@pytest.mark.parametrize("kind", ["classifier", "autoencoder", "saelens"])
def test_a_folder_that_is_small_is_read_whole(server: RangeServer, folder: Path, kind: str) -> None:
    near = folder / kind
    if kind == "saelens":
        bl.export_sae(bl.nn.TopKSAE(6, 8, 2), near)
    else:
        made = {
            "classifier": bl.nn.BilinearClassifier(6, 4, 3),
            "autoencoder": bl.nn.TopKSAE(6, 8, 2),
        }
        bl.save(made[kind], near)
    expected, found = load(near), load(f"{server.url}/{kind}")
    assert found.weights_sha256 == expected.weights_sha256 != ""
    states = [one.module_for("a test").state_dict() for one in (found, expected)]
    assert all(map(torch.equal, *(state.values() for state in states)))


def test_a_converted_model_is_to_be_downloaded(server: RangeServer, folder: Path) -> None:
    (folder / "converted").mkdir()
    base = {"model_type": "bilens", "vocab_size": 5, "d_model": 4, "d_hidden": 4}
    base |= {"n_layer": 1, "n_head": 1, "n_ctx": 3}
    content = {"format": "bilens converted model 1", "base": base, "sites": {}}
    (folder / "converted" / "config.json").write_text(json.dumps(content))
    shutil.copy(folder / "stacks" / "model.safetensors", folder / "converted")
    with pytest.raises(CheckpointError, match=r"of this kind are files of this machine: download"):
        load(f"{server.url}/converted")


# ---- what goes wrong


@pytest.mark.parametrize("fault", [503, 429, "cut", "short"])
def test_what_passes_is_survived(server: RangeServer, folder: Path, fault: Any) -> None:
    found = load(f"{server.url}/stacks")
    server.faults = [fault, None, fault, fault]
    expected = numbers(load(folder / "stacks"))
    assert all(map(torch.equal, numbers(found).values(), expected.values()))
    assert server.faults == []


def test_what_does_not_pass_is_told_after_five_attempts(server: RangeServer) -> None:
    found = load(f"{server.url}/stacks")
    server.faults = [503] * 10  # of two ranges
    with pytest.raises(CheckpointError, match=r"could not be read \(\w+ 503, 5 times\): check"):
        numbers(found)
    server.faults = [400] * 10
    with pytest.raises(CheckpointError, match=r"could not be read \(\w+ 400\)"):
        numbers(found)
    assert len(server.faults) > 5  # not tried again


def test_an_object_that_changes_is_refused(server: RangeServer) -> None:
    layers = iter(load(f"{server.url}/stacks").layers.values())
    next(layers).weights()
    server.etags["model.safetensors"] = '"another"'
    with pytest.raises(CheckpointError, match=r"model.safetensors: was changed or removed after"):
        next(layers).weights()


def test_a_configuration_that_is_not_what_its_store_says_is_refused(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = ObjectStore.info
    wrong = ("md5", "0" * 32)
    monkeypatch.setattr(ObjectStore, "info", lambda *of: info(*of)._replace(checksum=wrong))
    with pytest.raises(CheckpointError, match=r"config.json: is not what its store says by md5"):
        load(f"{server.url}/stacks")


def test_a_server_without_ranges_is_refused(server: RangeServer) -> None:
    server.in_ranges = False
    with pytest.raises(CheckpointError, match="sends whole files alone, no ranges: download"):
        load(f"{server.url}/stacks")


REFUSED = {
    "nothing there": ("{url}/none", CheckpointError, "no model; .*: check the address"),
    "no such file": ("{url}/none.gguf", CheckpointError, "no model; .*: check the address"),
    "scheme": ("ftp://a.b/c", CheckpointError, "a.b/c: is an address, .*at s3://"),
    "another kind": ("{url}/m.onnx", CheckpointError, "no model"),
    "user": ("s3://key:secret@bucket/m", UsageError, "s3://…: an address is host and path alone"),
    "key": ("https://a.b/m?key=secret", UsageError, "https://…: an address is host and path"),
    "outside": ("http://a.b/m/../secret", UsageError, "an address is host and path alone"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_in_a_sentence(server: RangeServer, name: str) -> None:
    address, kind, sentence = REFUSED[name]
    with pytest.raises(kind, match=sentence) as caught:
        load(address.format(url=server.url))
    assert "secret" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UsageError, match=r"gs:// cannot be read yet: .*gcsfs"):
        load("gs://bucket/model")


def test_an_index_leads_nowhere_else(server: RangeServer, folder: Path) -> None:
    path = folder / "led" / "model.safetensors.index.json"
    path.parent.mkdir(exist_ok=True)
    config(path.parent, model_type="mixtral", intermediate_size=H, num_local_experts=EXPERTS)
    for name in ("../llama/model.safetensors", "/etc/m.safetensors", "http://a.b/m.safetensors"):
        path.write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(CheckpointError, match=r"expected plain names of .safetensors"):
            load(f"{server.url}/led")


def test_a_shard_that_is_missing_is_named(server: RangeServer, folder: Path) -> None:
    shutil.copytree(folder / "mixture", folder / "cut", dirs_exist_ok=True)
    (folder / "cut" / "model-1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"cut/model-1.safetensors: no such file"):
        load(f"{server.url}/cut")


def test_a_redirect_is_followed_to_http_alone(server: RangeServer, folder: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        server.redirects[f"moved/{name}"] = f"{server.url}/stacks/{name}"
    assert len(load(f"{server.url}/moved").layers) == LAYERS * EXPERTS
    file = folder / "stacks" / "config.json"
    server.redirects["moved/config.json"] = f"file://{file}"
    with pytest.raises(CheckpointError, match="could not be read"):
        load(f"{server.url}/moved")


# ---- secrets and names


def test_nothing_is_read_where_access_is_refused(server: RangeServer) -> None:
    server.authorised = "a key"
    with pytest.raises(CheckpointError, match="access is refused: set up credentials that may"):
        load(f"{server.url}/stacks")


def test_what_is_not_read_is_not_claimed(server: RangeServer) -> None:
    found = load(f"{server.url}/stacks")
    assert found.weights_sha256 == ""
    assert len(found.identity) == 64
    assert found.headers.keys() == {"model.safetensors"}
    assert load(f"{server.url}/stacks").identity == found.identity
    server.etags["model.safetensors"] = "other"
    assert load(f"{server.url}/stacks").identity != found.identity


def test_paths_of_this_machine_stay_paths(folder: Path) -> None:
    for given in (str(folder), folder, f"file://{folder}"):
        assert located(given) == folder
    near = load_with(f"file://{folder}/stacks", ReadOptions())
    assert near.weights_sha256 == load(folder / "stacks").weights_sha256 != ""


# ---- other stores


def test_memory_is_read_and_noticed_to_change(folder: Path) -> None:
    files = fsspec.filesystem("memory")
    for file in (folder / "stacks").iterdir():
        files.pipe_file(f"/of/stacks/{file.name}", file.read_bytes())
    found = load(Path("memory://of/stacks"))  # as a command has it, with one slash
    assert found.source == "memory://of/stacks"
    expected = numbers(load(folder / "stacks"))
    assert all(map(torch.equal, numbers(found).values(), expected.values()))
    files.pipe_file("/of/stacks/model.safetensors", b"another")
    with pytest.raises(CheckpointError, match="was changed or removed after the model was loaded"):
        numbers(found)
    files.rm("/of", recursive=True)


@pytest.fixture(scope="module")
def bucket(folder: Path) -> Iterator[Any]:
    """A server of S3 on loopback with one bucket."""
    moto = pytest.importorskip("moto.server", reason="S3 is tested with moto and flask")
    s3fs = pytest.importorskip("s3fs", reason="S3 is read with s3fs")
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {**keys, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            patched.setenv(name, value)
        files = s3fs.S3FileSystem(use_listings_cache=False)
        files.mkdir("bucket")
        for file in (folder / "stacks").iterdir():
            files.pipe_file(f"bucket/stacks/{file.name}", file.read_bytes())
        yield files
    server.stop()


def test_a_bucket_is_read_and_noticed_to_change(
    bucket: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched, read = list[int](), ObjectStore.fetch

    def counted(store: ObjectStore, *of: Any) -> bytes:
        data = read(store, *of)
        fetched.append(len(data))
        return data

    monkeypatch.setattr(ObjectStore, "fetch", counted)
    found = load("s3://bucket/stacks")
    expected = numbers(load(folder / "stacks"))
    assert all(map(torch.equal, numbers(found).values(), expected.values()))
    assert sum(fetched) <= 1.02 * in_mlps(found)
    again = load("s3://bucket/stacks")
    for content in (b"shorter", bytes(10**6)):
        bucket.pipe_file("bucket/stacks/model.safetensors", content)
        with pytest.raises(CheckpointError, match="was changed or removed after"):
            [stored.fetch((slice(0, 1),)) for stored in again.tensors.values()]
    with pytest.raises(CheckpointError, match=r"s3://none/m: no model; .*: check"):
        load("s3://none/m")


def test_the_status_behind_an_error_of_s3fs_is_told() -> None:
    reply = {"ResponseMetadata": {"HTTPStatusCode": 400}}
    behind = type("ClientError", (Exception,), {"response": reply})

    def call() -> None:
        raise OSError from behind()

    with pytest.raises(CheckpointError, match=r"could not be read \(OSError 400\): check"):
        remote_stores.attempt("s3://a/b", call)


SHA = "a" * 40


def test_the_hub_is_read_at_one_commit(
    server: RangeServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    files = folder / "stacks"
    listed = [
        {"type": "file", "path": one.name, "size": one.stat().st_size, "oid": SHA}
        for one in files.iterdir()
    ]
    about = {"id": "org/name", "modelId": "org/name", "sha": SHA}
    server.answers = {"api/models/org/name": about, "api/models/org/name/revision/main": about}
    server.answers |= {
        f"api/models/org/name/revision/{SHA}": about,
        f"api/models/org/name/tree/{SHA}": listed,
    }
    for one in files.iterdir():
        server.redirects[f"org/name/resolve/{SHA}/{one.name}"] = f"{server.url}/stacks/{one.name}"
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
    )
    found = load("hf://org/name")
    assert found.source == f"hf://org/name@{SHA}"
    assert all(map(torch.equal, numbers(found).values(), numbers(load(files)).values()))
    assert server.sent <= 1.02 * in_mlps(found)
    with pytest.raises(CheckpointError, match="hf://org/other: no model, or none that may be read"):
        load("hf://org/other")


# ---- the cache


def test_the_cache_is_bounded_and_what_is_damaged_in_it_is_fetched_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BILENS_CACHE_LIMIT", "64000")
    cache, fetched = RangeCache(), list[int]()

    def get(key: int, size: int = 4000) -> bytes:
        return cache.through(str(key), size, lambda: fetched.append(key) or bytes([key]) * size)

    assert get(1) == get(1)
    assert fetched == [1]
    for key in range(2, 60):
        get(key)
        assert sum(file.stat().st_size for file in cache.folder.iterdir()) <= cache.limit + 99
    assert len([*cache.folder.iterdir()]) > 10
    looked, scandir = list[Path](), os.scandir
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", lambda path: looked.append(path) or scandir(path))
        patched.setattr(cache, "limit", 1 << 20)
        for key in range(60, 160):
            get(key, 400)
    assert len(looked) < 10  # the folder may hold many
    for file in cache.folder.iterdir():
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    fetched.clear()
    assert get(59) == bytes([59]) * 4000
    assert fetched == [59]
    get(99, 16_001)  # more than a quarter
    get(99, 16_001)
    assert fetched == [59, 99, 99]


def test_the_cache_removes_nothing_but_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILENS_CACHE_LIMIT", "64000")
    cache, fetched = RangeCache(), list[int]()
    (cache.folder / "mnist").mkdir(parents=True)
    (cache.folder / "model.gguf").write_bytes(bytes(100_000))
    os.utime(cache.folder / "mnist", (0, 0))
    os.utime(cache.folder / "model.gguf", (1, 1))

    def fetch() -> bytes:
        fetched.append(1)
        return bytes(4000)

    for key in range(40):
        cache.through(str(key), 4000, fetch)
    assert (cache.folder / "model.gguf").stat().st_size == 100_000
    assert sum(len(path.name) == 64 for path in cache.folder.iterdir()) < 17
    cache.through("39", 4000, fetch)
    assert len(fetched) == 40  # the last one is there
