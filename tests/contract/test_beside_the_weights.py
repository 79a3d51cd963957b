"""Guards against a comparison or an acceptance that passes over what is not in the weights.

Each was seen to pass: another tokenizer or code beside accepted ones, files that nobody compared,
a configuration that gives other answers on long texts or far inputs, a model that was tried with
the configuration of its baseline, and one network whose layers have other numbers for names.
"""

import json
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

import bilens as bl
from bilens.api.comparison import compare_files
from bilens.api.history import History
from bilens.api.provenance import describe_source, files_read, identity_of
from bilens.api.word_trial import changed_host
from bilens.base.errors import CheckpointError
from bilens.findings.rules.changes import kind_of_change
from bilens.findings.rules.judgements import AuditedModel, judgements
from bilens.findings.rules.registry import Condition, parse_conditions
from bilens.io.any_model import open_any
from bilens.io.host import open_host
from bilens.io.loaded_model import ReadOptions
from bilens.records.tensor_changes import FileChange
from contract.table import cell
from io_mapped import pair

FEW = {"null_samples": 3}
SIZES: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "initializer_range": 0.7,
}
FILES = {
    "tokenizer_config.json": '{"a": 1}',
    "helper.py": "print('hello')",
    "tokenizer.json": '{"model": {}}',
    "bpe.codes": "a b",
    "modules.json": "{}",
    "chat/tool_use.jinja": "{{ messages }}",
    "custom_generate/generate.py": "pass",
}
CHANGED = {name: f"{text} " for name, text in FILES.items()} | {"tokenizer_config.json": '{"a": 2}'}


def llama(seed: int = 0, **sizes: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, **sizes})).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("saved")
    llama().save_pretrained(folder)
    return folder


@pytest.fixture
def folders(saved: Path, tmp_path: Path) -> Path:
    """Two folders of one model with the same files beside it."""
    for name in ("base", "tuned"):
        shutil.copytree(saved, tmp_path / name)
        for file, text in FILES.items():
            write(tmp_path / name, file, text)
    return tmp_path


def write(folder: Path, name: str, content: str | bytes) -> None:
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def audited(root: Path) -> Any:
    return bl.audit(bl.load(root / "tuned"), baseline=bl.load(root / "base"), **FEW).record


@cell("audit", "other function", "saved")
@pytest.mark.parametrize("other", [name for name in FILES if name != "tokenizer_config.json"])
@pytest.mark.parametrize("side", ["tuned", "base"])
def test_an_accepted_file_is_no_other_file(folders: Path, other: str, side: str) -> None:
    write(folders / "tuned", "tokenizer_config.json", CHANGED["tokenizer_config.json"])
    history = History(folders)

    def state() -> str:
        past = audited(folders)
        (_, found) = judgements(
            history.entries("tuned"), AuditedModel.of_record(past), date.today().isoformat()
        )["changed_files"]
        return found

    history.add(audited(folders))
    history.say("accept", "tuned", "rule:changed_files", "a comment", author="Ada")
    assert state() == "accepted"
    write(folders / "tuned", "tokenizer_config.json", FILES["tokenizer_config.json"])
    write(folders / side, other, CHANGED[other])
    assert state() == "moved"


@cell("audit", "other function")
@pytest.mark.parametrize("name", FILES)
def test_each_file_of_a_tokenizer_and_of_code_is_compared(folders: Path, name: str) -> None:
    write(folders / "tuned", name, CHANGED[name])
    found = {one.name: one.state for one in audited(folders).difference.whole.files}
    assert found[name] == "changed"
    assert {*found.values()} == {"changed", "same"}


@cell("audit", "same function")
def test_files_that_are_not_compared_are_named(folders: Path) -> None:
    write(folders / "tuned", "notes.md", "one")
    write(folders / "base", "notes.md", "another")
    (folders / "tuned" / "checkpoint").mkdir()
    shutil.copy(folders / "base/model.safetensors", folders / "tuned/checkpoint/model.safetensors")
    whole = audited(folders).difference.whole
    assert (whole.unseen, whole.headline.kind) == (("checkpoint",), "same_tensors")
    assert kind_of_change(whole) == "not_placed"
    assert whole.not_compared == ("checkpoint", "notes.md")
    report = bl.audit(bl.load(folders / "tuned"), baseline=bl.load(folders / "base"), **FEW)
    assert "(checkpoint, notes.md)" in report.to_markdown().replace("\\", "")


@cell("audit", "other function")
@pytest.mark.parametrize("kind", ["checkpoint", "link", "hidden"])
def test_folders_that_are_not_gone_through_lower_what_is_said(
    kind: str, folders: Path, tmp_path: Path
) -> None:
    """Seen red: identical, and the acceptance of one was that of the other."""
    for at, one in enumerate(("base", "tuned")):
        if kind == "link":
            write(tmp_path / f"out{at}", "model.safetensors", f"weights {at}")
            (folders / one / "2_Dense").symlink_to(tmp_path / f"out{at}")
        else:
            name = "checkpoint" if kind == "checkpoint" else ".inner"
            write(folders / one, f"{name}/x.py", f"a = {at}")
    history = bl.History(folders)
    for one in ("base", "tuned"):
        history.add(bl.audit(bl.load(folders / one), **FEW).record)
    history.say("accept", "base", "rule:decision", "ok", "Ada", until="2199-01-01")
    assert {*history.accepted("base")} == {"decision"}
    assert {*history.accepted("tuned")} == set()
    report = bl.audit(
        bl.load(folders / "tuned"), baseline=bl.load(folders / "base"),
        fail_on=("changed_files",), **FEW,
    )  # fmt: skip
    whole = report.record.difference.whole
    assert whole.headline.kind == "same_tensors"
    assert [one.failed for one in report.record.conditions] == [True]
    if kind == "hidden":
        assert [one.name for one in whole.files if one.state == "changed"] == [".inner/x.py"]
        return
    (name,) = whole.unseen
    assert kind_of_change(whole) == "not_placed"
    said = report.to_markdown().replace("\\", "")
    assert "Identical to the baseline in what was compared" in said
    assert f"Not compared: 1 folder ({name})." in said


@cell("audit", "other function")
def test_an_index_that_takes_a_tensor_from_another_shard_is_told(tmp_path: Path) -> None:
    """Seen red: identical, bit for bit, as the shards are."""
    names = [f"model-0000{k}-of-00002.safetensors" for k in (1, 2)]
    parts = pair()
    first = next(iter(parts))
    for at, one in enumerate(("base", "tuned")):
        write(tmp_path / one, names[0], save(parts))
        write(tmp_path / one, names[1], save({first: parts[first] + 1}))
        places = {name: names[at if name == first else 0] for name in parts}
        index = json.dumps({"metadata": {}, "weight_map": places})
        write(tmp_path / one, "model.safetensors.index.json", index)
    both = [open_any(tmp_path / one, ReadOptions(), True) for one in ("tuned", "base")]
    (index,) = (one for one in compare_files(*both) if one.name.endswith("index.json"))
    assert (index.state, index.keys) == ("changed", ("weight_map",))


CONDITIONS = ("changed_tensors", "low_rank_change", "coverage", "coverage<0.1")


@cell("audit", "other function")
@pytest.mark.parametrize("side", ["base", "tuned"])
@pytest.mark.parametrize("single", ["", "base", "tuned"])
def test_no_condition_passes_by_weights_that_were_not_looked_at(
    side: str, single: str, tmp_path: Path
) -> None:
    """A file and the folder around it are not the same model where more weights lie in this."""
    for one in ("base", "tuned"):
        write(tmp_path / one, "model.safetensors", save(pair()))

    def audited_by(*conditions: str) -> Any:
        names = {one: "model.safetensors" if one == single else "" for one in ("tuned", "base")}
        both = [bl.load(tmp_path / one / names[one], activation="identity") for one in names]
        return bl.audit(both[0], baseline=both[1], fail_on=conditions, **FEW).record

    assert not any(one.failed for one in audited_by(*CONDITIONS).conditions)
    write(tmp_path / side, "2_Dense/model.safetensors", save({"linear.weight": torch.eye(3)}))
    found = audited_by(*CONDITIONS)
    failed = {one.condition for one in found.conditions if one.failed}
    if side == single:  # of a file that is named alone, its folder is none of it
        assert not failed
        return
    assert failed == {*CONDITIONS[: 4 if side == "tuned" else 2]}
    assert found.difference.whole.other_weights == ("2_Dense/model.safetensors",)
    assert found.difference.whole.headline.kind != "identical"


@pytest.mark.parametrize("name", ["2_Dense/model.safetensors", "value_head.bin", "export.json"])
@cell("audit", "other function")
def test_a_folder_is_all_of_its_files_and_not_those_alone_that_are_read(
    name: str, folders: Path
) -> None:
    """All weights but one file had been replaced: identical, and as good as what was accepted."""
    for one in ("base", "tuned"):
        write(folders / one, name, "a head")
    history = bl.History(folders)

    def ended(baseline: str | None = "base") -> Any:
        before = None if baseline is None else bl.load(folders / baseline)
        report = bl.audit(bl.load(folders / "tuned"), baseline=before, **FEW)
        history.add(report.record)
        return report

    first = bl.audit(bl.load(folders / "base"), **FEW)
    history.add(first.record)
    history.say("accept", "base", "rule:decision", "ok", "Ada", until="2199-01-01")
    record = ended().record
    outcomes = {one.rule: one.outcome for one in record.verdict}
    assert record.difference.whole.headline.kind == "identical"
    assert (outcomes["changed_tensors"], outcomes["changed_files"]) == ("pass", "pass")
    assert (record.coverage.other_files == (name,)) == (name != "export.json")
    ended(None)
    assert {*history.accepted("tuned")} == {"decision"}  # it is an unchanged copy
    write(folders / "tuned", name, "another")
    record = (report := ended()).record
    outcomes = {one.rule: one.outcome for one in record.verdict}
    whole = record.difference.whole
    assert whole.headline.kind == "same_tensors"
    assert outcomes["changed_files"] == "warn"
    is_of_weights = name != "export.json"
    assert whole.other_weights == ((name,) if is_of_weights else ())
    assert (kind_of_change(whole), outcomes["changed_tensors"]) == (
        ("changed", "warn") if is_of_weights else ("same", "pass")
    )
    said = report.to_markdown().replace("\\", "")
    assert (f"their tensors were not compared: {name}." in said) == is_of_weights
    assert (
        f"1 file of weights in its folder was not read at all: {name}." in said
    ) == is_of_weights
    ended(None)
    assert {*history.accepted("tuned")} == set()


@cell("compare", "own object", "other function")
@pytest.mark.parametrize("window", [4, 16, 100])
def test_a_window_that_long_texts_alone_show_is_another_function(window: int) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    pair = [
        transformers.MistralForCausalLM(
            transformers.MistralConfig(**SIZES, sliding_window=one, max_position_embeddings=512)
        ).eval()
        for one in (None, window)
    ]
    pair[1].load_state_dict(pair[0].state_dict())
    assert bl.audit(pair[1], baseline=pair[0], **FEW).record.difference.around == "answers"


@cell("compare", "own object", "other function", "same function")
def test_what_is_configured_otherwise_is_not_known_to_be_the_same() -> None:
    """A window longer than the texts that both were run on."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    long = {**SIZES, "max_position_embeddings": 4096}
    pair = [
        transformers.MistralForCausalLM(
            transformers.MistralConfig(**long, sliding_window=one, dtype="float32", **about)
        ).eval()
        for one, about in ((None, {}), (2000, {}), (None, {"attention_dropout": 0.0}))
    ]
    for one in pair[1:]:
        one.load_state_dict(pair[0].state_dict())
    around = [bl.audit(one, baseline=pair[0], **FEW).record.difference.around for one in pair]
    assert around == ["", "parts", ""]


class Bounded(nn.Module):
    """An MLP behind a norm, and a bound on the inputs of all."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.bound, self.norm = bound, nn.LayerNorm(6)
        self.mlp = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 3))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.mlp(self.norm(x.clamp(-self.bound, self.bound)))
        return found


@cell("compare", "own object", "other function")
@pytest.mark.parametrize(("bound", "around"), [(1e9, ""), (100.0, "answers"), (1e7, "parts")])
def test_a_bound_far_out_is_another_function(bound: float, around: str) -> None:
    record = bl.audit(Bounded(bound), baseline=Bounded(1e9), **FEW).record
    assert record.difference.around == around


@cell("audit", "other function")
@pytest.mark.parametrize("change", [{"rope_theta": 2.0}, {"rms_norm_eps": 1.0}])
def test_words_are_tried_in_the_model_as_it_is_configured(
    saved: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    for name in ("base", "tuned"):
        shutil.copytree(saved, tmp_path / name)
    config = json.loads((tmp_path / "tuned/config.json").read_text())
    if "rope_theta" in change and "rope_parameters" in config:
        config["rope_parameters"] |= change
    (tmp_path / "tuned/config.json").write_text(json.dumps(config | change))
    text = torch.arange(12)[None]
    after = changed_host(open_host(tmp_path / "base"), bl.load(tmp_path / "tuned"))
    with torch.no_grad():
        own = type(llama()).from_pretrained(tmp_path / "tuned").eval()(text).logits
    torch.testing.assert_close(after.logits(text), own, rtol=1e-4, atol=1e-4)


def layers() -> list[nn.Linear]:
    torch.manual_seed(0)
    return [*(nn.Linear(5, 5) for _ in range(3)), nn.Linear(5, 3)]


PLACES: dict[str, Callable[[list[nn.Linear]], list[nn.Module]]] = {
    "in front": lambda L: [nn.Flatten(), nn.Dropout(), *between(L, [])],
    "inside": lambda L: [L[0], nn.ReLU(), nn.Dropout(), *between(L[1:], [])],
    "everywhere": lambda L: between(L, [nn.Dropout()]),
}


def between(parts: list[nn.Linear], more: list[nn.Module]) -> list[nn.Module]:
    found = [one for part in parts[:-1] for one in (part, nn.ReLU(), *more)]
    return [*found, parts[-1]]


@cell("compare", "same function", "other function")
@pytest.mark.parametrize("where", PLACES)
def test_networks_are_paired_by_place_whatever_numbers_their_layers_have(where: str) -> None:
    plain = nn.Sequential(*between(layers(), [])).eval()
    other = nn.Sequential(*PLACES[where](layers())).eval()
    asked = ["similarity<0.99", "change>0.1", "changed_layers"]
    record = bl.audit(other, baseline=plain, fail_on=asked, **FEW).record
    assert [one.failed for one in record.conditions] == [False] * 3
    with torch.no_grad():
        next(other.parameters()).mul_(-1)
    record = bl.audit(other, baseline=plain, fail_on=asked, **FEW).record
    assert all(one.failed for one in record.conditions)


@cell("compare", "saved", "same function")
def test_a_module_is_paired_with_its_own_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=20, n_embd=8, n_layer=2, n_head=2, n_positions=16)
    model = transformers.GPT2LMHeadModel(config).eval()
    model.save_pretrained(tmp_path / "m")
    record = bl.audit(model, baseline=bl.load(tmp_path / "m"), **FEW).record
    assert [one.identical for one in record.difference.layers] == [True, True]


@cell("audit", "without effect", "other function")
@pytest.mark.parametrize("limit", [0.9999999, 1.0, 0.99999994, 0.1, 1e-9, 3.0])
def test_a_condition_is_shown_as_it_was_asked(limit: float) -> None:
    (found,) = parse_conditions([f"similarity<{limit!r}"], data=True, baseline=True)
    (again,) = parse_conditions([str(found)], data=True, baseline=True)
    assert again == found == Condition("similarity", "<", limit)


class Unbounded(nn.Module):
    """A softmax by hand, whose numbers overflow far out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mlp = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 3))

    def forward(self, x: Tensor) -> Tensor:
        e: Tensor = self.mlp(x).exp()
        return e / e.sum(dim=-1, keepdim=True)


@cell("compare", "own object", "same function")
def test_answers_that_overflow_alike_are_alike() -> None:
    one, other = Unbounded(), Unbounded()
    record = bl.audit(other, baseline=one, fail_on=["changed_layers"], **FEW).record
    assert record.difference.around == ""
    assert not record.conditions[0].failed


@cell("compare", "own object", "other function", "same function")
@pytest.mark.parametrize(
    ("before", "after", "around"),
    [
        (nn.Identity(), nn.Hardtanh(-1e9, 1e9), "parts"),
        (nn.Identity(), nn.Dropout(), ""),
        (nn.Hardtanh(-1e9, 1e9), nn.Hardtanh(-1e9, 1e9), ""),
        (nn.Hardtanh(-1e9, 1e9), nn.Hardtanh(-1e8, 1e9), "parts"),
    ],
)
def test_another_operation_at_a_place_is_not_known_to_be_the_same(
    before: nn.Module, after: nn.Module, around: str
) -> None:
    pair = [Bounded(1e12), Bounded(1e12)]
    for one, part in zip(pair, (before, after), strict=True):
        one.norm = nn.Sequential(part, one.norm)
    assert bl.audit(pair[1], baseline=pair[0], **FEW).record.difference.around == around


@cell("audit", "other function")
def test_files_beside_the_weights_of_a_folder_below_are_compared(folders: Path) -> None:
    for name, activation in (("base", "Identity"), ("tuned", "Tanh")):
        write(folders / name, "2_Dense/config.json", json.dumps({"activation": activation}))
        shutil.copy(folders / "base/model.safetensors", folders / name / "2_Dense")
    found = {one.name: one.state for one in audited(folders).difference.whole.files}
    assert found["2_Dense/config.json"] == "changed"


@cell("audit", "other function", "own object")
def test_other_right_answers_are_other_data(tmp_path: Path) -> None:
    """Also where the inputs are the same file."""
    torch.manual_seed(0)
    model, x = bl.nn.BilinearClassifier(5, 6, 3), np.random.default_rng(0).normal(size=(60, 5))
    np.save(tmp_path / "x.npy", x)
    found = []
    for turn in (0, 1):
        np.save(tmp_path / "y.npy", (np.arange(60) + turn) % 3)
        where = {"labels": str(tmp_path / "y.npy"), "null_samples": 39}
        record = bl.audit(model, tmp_path / "x.npy", **where).record
        train = {"train_labels": where["labels"], "null_samples": 39}
        again = bl.audit(model, train_data=tmp_path / "x.npy", **train).record
        found.append((record, again))
    (one, trained), (other, trained_otherwise) = found
    assert one.data.sha256 != other.data.sha256
    assert one.reproduce.identity.data != other.reproduce.identity.data
    assert trained.reproduce.identity != trained_otherwise.reproduce.identity


def test_a_folder_that_was_named_is_all_that_lies_in_it(tmp_path: Path) -> None:
    weights = {"up.weight": torch.eye(4), "down.weight": torch.ones(2, 4)}
    for name, labels in (("a", '["cat", "dog"]'), ("b", '["dog", "cat"]')):
        write(tmp_path / name, "labels.json", labels)
        (tmp_path / name / "net.safetensors").write_bytes(save(weights))
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    write(tmp_path / "copy", "README.md", "Of animals.")
    first, other, copy = (
        open_any(tmp_path / name, ReadOptions(activation="relu")) for name in ("a", "b", "copy")
    )
    assert compare_files(other, first) == (FileChange("labels.json", "changed"),)
    assert identity_of(other) != identity_of(first) == identity_of(copy)
    assert [*files_read(first)] == ["net.safetensors", "labels.json"]
    assert describe_source(first).path == str(tmp_path / "a")
    alone = [
        open_any(tmp_path / name / "net.safetensors", ReadOptions(activation="relu"))
        for name in ("a", "b")
    ]
    assert compare_files(*alone) is None
    assert identity_of(alone[0]) == identity_of(alone[1])
    write(tmp_path / "a", "labels.json", "[]")
    with pytest.raises(CheckpointError, match=r"labels.json: changed since it was opened"):
        files_read(first)
