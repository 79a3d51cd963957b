"""A pushed model comes back bit for bit, with nothing else of its folder, and no key on the way.

Broken once: run.json sent, a report of other weights taken, a public repository taken for private,
a miss remembered after the push, the hash of the weights not looked at in the card, a page or rows
taken for a report, a stale report left there, a file that others changed taken away.
"""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import bilens as bl
import tiny
import tiny_language_models
from bilens.api.convert import convert_model
from bilens.api.train import run_demo
from bilens.base.errors import CheckpointError, MissingExtraError, UsageError
from bilens.cli import main
from bilens.io.converted_folder import save_converted
from bilens.io.host import host_of
from bilens.io.loaded_model import LoadedModel
from fake_hub import TOKEN, FakeHub, Repository, hub_of_this_process, hub_on_loopback
from tiny import classifier

hub_package = pytest.importorskip("huggingface_hub")
pytest.importorskip("fsspec")
NAME = "me/digits"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with hub_of_this_process(monkeypatch, tmp_path) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return bl.save(classifier(), tmp_path / "digits", provenance={"seed": "3"})


def weights(model: LoadedModel) -> dict[str, torch.Tensor]:
    return {name: stored.read_tensor() for name, stored in model.tensors.items()}


def same(a: LoadedModel, b: LoadedModel) -> bool:
    left, right = weights(a), weights(b)
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


# ---- there and back


def transformer() -> bl.nn.BilinearTransformer:
    return bl.nn.BilinearTransformer(50, 8, 12, n_layer=2, n_head=2, n_ctx=8)


def dictionary() -> bl.nn.TopKSAE:
    return bl.nn.TopKSAE(8, 16, 3, sign="raw")


def converted(place: Path) -> Path:
    place.mkdir()
    save_converted(host_of(tiny_language_models.make("gpt2").float(), Path("gpt2")), place)
    return place


SAVED = {
    "converted": converted,
    "bilens": lambda place: bl.save(classifier(), place),
    "transformer": lambda place: bl.save(transformer(), place),
    "llama": lambda place: transformer().save_huggingface(place),
    "autoencoder": lambda place: bl.save(dictionary(), place),
    "saelens": lambda place: bl.export_sae(bl.nn.TopKSAE(8, 16, 3), place),
    "sparsify": lambda place: bl.export_sae(bl.nn.TopKSAE(8, 16, 3), place, "sparsify"),
}
LIBRARIES = {"llama": "transformers", "saelens": "saelens"}


@pytest.mark.parametrize("kind", SAVED)
def test_what_bilens_writes_comes_back_from_the_hub(
    hub: FakeHub, tmp_path: Path, kind: str
) -> None:
    near = SAVED[kind](tmp_path / kind)
    done = bl.push(near, NAME)
    commit = hub.repositories[NAME].head
    assert done.address == f"hf://{NAME}@{commit}"
    far = bl.load(f"hf://{NAME}")
    assert same(far, bl.load(near))
    origin = {"hub": NAME, "revision": commit}
    assert origin.items() <= far.provenance.items()
    sent = hub.files(NAME)
    assert sent.keys() - {".gitattributes"} == done.files.keys()
    lying = {one.name for one in near.iterdir()}  # the job of a conversion writes its card
    assert {n: sent[n] for n in lying} == {n: (near / n).read_bytes() for n in lying}
    card = hub_package.ModelCard(sent["README.md"].decode()).data
    assert card.library_name == LIBRARIES.get(kind, "bilens")
    assert "bilens" in card.tags
    assert (card.license, card.language, card.datasets, card.base_model) == (None,) * 4


def test_a_revision_and_a_folder_are_told_in_the_address(hub: FakeHub, folder: Path) -> None:
    first = bl.push(folder, NAME)
    other = bl.save(classifier(seed=8), folder.parent / "other")
    hub.repositories[NAME].commit(
        {f"below/x/{one.name}": one.read_bytes() for one in other.iterdir()}, "moved"
    )
    assert same(bl.load(first.address), bl.load(folder))
    assert same(bl.load(f"hf://{NAME}@main/below/x"), bl.load(other))
    with pytest.raises(CheckpointError, match=r"digits@[0-9a-f]{40}: no model; expected"):
        bl.load(f"hf://{NAME}")


@pytest.mark.usefixtures("hub")
def test_a_name_that_was_missing_is_found_once_it_is_there(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="no model, or none that may be read"):
        bl.load(f"hf://{NAME}")
    bl.push(folder, NAME)
    assert same(bl.load(f"hf://{NAME}"), bl.load(folder))


def test_a_module_is_pushed_as_it_would_be_saved(hub: FakeHub) -> None:
    module = classifier()
    done = bl.push(module, NAME, message="the first")
    assert hub.repositories[NAME].messages[-1] == "the first"
    found: Any = bl.load(done.address).module
    assert all(map(torch.equal, found.state_dict().values(), module.state_dict().values()))


# ---- what goes and what stays


def test_the_files_of_the_model_go_and_nothing_beside_them(hub: FakeHub, folder: Path) -> None:
    for name in ("test.csv", "run.json", ".env", "history.jsonl", "train.py", "metrics.json"):
        (folder / name).write_text("rows")
    (folder / "checkpoints").mkdir()
    (folder / "LICENSE").write_text("do as you like")
    lines = list[str]()
    done = bl.push(folder, NAME, dry_run=True, say=lines.append)
    assert hub.seen == []
    assert (done.url, done.address) == ("", "")
    names = ["LICENSE", "README.md", "config.json", "model.safetensors"]
    assert sorted(done.files) == names
    assert f"LICENSE: {len('do as you like')} bytes" in lines
    assert set(done.left_here) == {p.name for p in folder.iterdir()} - {*names}
    bl.push(folder, NAME)
    assert set(hub.files(NAME)) == {*names, ".gitattributes"}
    assert hub.repositories[NAME].private


KEYS = {
    "hub": "hf_" + "Z" * 34,
    "code": "ghp_" + "a1" * 18,
    "cloud": "AKIA" + "B7" * 8,
    "private": "-----BEGIN RSA PRIVATE KEY-----",
}


@pytest.mark.parametrize("place", ["LICENSE", "config.json", "model.safetensors", "README.md"])
@pytest.mark.parametrize("kind", KEYS)
def test_nothing_with_a_key_in_it_is_sent(
    hub: FakeHub, tmp_path: Path, kind: str, place: str
) -> None:
    key = KEYS[kind]
    said = {"command": f"train --key {key}"} if place == "model.safetensors" else {}
    names = [key, "b", "c"] if place == "config.json" else None
    folder = bl.save(classifier(), tmp_path / "m", provenance=said, output_names=names)
    if place in ("LICENSE", "README.md"):
        (folder / place).write_text(f"about\n{key}\n")
    with pytest.raises(UsageError, match="holds what looks like a key or a token") as caught:
        bl.push(folder, NAME)
    assert key not in str(caught.value)
    assert hub.seen == []


@pytest.mark.usefixtures("hub")
def test_the_own_token_is_found_whatever_it_looks_like(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "of-a-mirror")
    (folder / "LICENSE").write_text("by of-a-mirror")
    with pytest.raises(UsageError, match="LICENSE: holds what looks like a key"):
        bl.push(folder, NAME)


def test_rows_are_no_report(hub: FakeHub, folder: Path) -> None:
    (folder / "test.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match=r"test.csv: is no file of a report .*are not sent"):
        bl.push(folder, NAME, reports=[folder / "test.csv"])
    assert hub.seen == []


# ---- the card and the numbers


def test_the_card_has_the_scores_of_these_weights_alone(hub: FakeHub, folder: Path) -> None:
    torch.manual_seed(0)
    x, y = torch.rand(60, 36), torch.arange(60) % 3
    model = bl.load(folder)
    report = bl.audit(model, data=(x, y), null_samples=39)
    report.to_json(folder.parent / "audit.json")
    report.to_evidence(folder.parent / "evidence")
    named = [folder.parent / "audit.json", folder.parent / "evidence"]
    done = bl.push(folder, NAME, reports=named, license="apache-2.0")
    assert {"audit.json", "evidence/audit.sarif", "evidence/junit.xml"} <= done.files.keys()
    text = hub.files(NAME)["README.md"].decode()
    card = hub_package.ModelCard(text)
    performance = report.record.performance
    assert performance is not None
    assert performance.classification is not None
    (found,) = card.data.eval_results
    assert found.metric_value == performance.classification.accuracy.value
    assert (card.data.license, card.data.model_name) == ("apache-2.0", "digits")
    assert "| Licence | apache-2.0 |" in text
    assert "60" in text  # rows
    assert str(folder) not in card.text.partition("Reproduce")[0]
    assert (folder / "README.md").read_text() != text  # the folder stays as it is
    other = bl.save(classifier(seed=8), folder.parent / "other")
    with pytest.raises(UsageError, match=r"audit.json: is a report of other weights than"):
        bl.push(other, NAME, reports=[folder.parent / "audit.json"])


def test_scores_go_into_a_card_that_people_wrote(hub: FakeHub, folder: Path) -> None:
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# Mine\n\nWords.\n")
    bl.audit(bl.load(folder), null_samples=39).to_json(folder.parent / "audit.json")
    bl.push(folder, NAME, reports=[folder.parent / "audit.json"])
    card = hub_package.ModelCard(hub.files(NAME)["README.md"].decode())
    assert (card.data.language, card.data.license) == ("en", "mit")
    assert card.text.startswith("# Mine\n\nWords.\n")
    assert "bilens audit: digits" in card.text


@pytest.mark.usefixtures("hub")
def test_a_card_of_other_weights_is_refused(folder: Path) -> None:
    card = (folder / "README.md").read_text() + "\nMy own words.\n"
    (folder / "README.md").write_text(card)
    bl.save(classifier(seed=8), folder, overwrite=True)
    assert (folder / "README.md").read_text() == card  # what people wrote is kept
    with pytest.raises(UsageError, match=r"README.md: is the card of other weights"):
        bl.push(folder, NAME)


# ---- reports


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, `a` and `b`, and reports of `a`."""
    place = tmp_path_factory.mktemp("audited")
    for seed, name in enumerate("ab"):
        report = bl.audit(bl.load(bl.save(classifier(seed=seed), place / name)), null_samples=39)
        report.to_json(place / f"{name}.json")
        report.to_html(place / f"{name}.html")
        report.to_markdown(place / f"{name}.md")
        report.to_evidence(place / f"evidence of {name}", lang="ja")
    return place


def test_the_documented_push_of_the_demo_goes_through(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_demo(Path("runs/demo"), tiny.images(), recipe=tiny.RECIPE, null_samples=tiny.ROTATIONS)
    pages = (ROOT / "docs" / "hub.md", ROOT / "README.md")
    text = "".join(page.read_text("utf-8") for page in pages)
    lines = {*re.findall(r"bilens push runs/[^`\n]*", text)}
    assert len(lines) == 3
    for line in sorted(lines):
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0, line
    assert "report.json" in hub.files("owner/digits")


def test_reports_of_these_weights_go(hub: FakeHub, audited: Path) -> None:
    named = [audited / name for name in ("a.json", "a.html", "a.md", "evidence of a")]
    sent = bl.push(audited / "a", NAME, reports=named).files
    assert {"a.json", "a.html", "a.md", "evidence of a/junit.xml"} <= sent.keys()
    card = hub.files(NAME)["README.md"].decode()
    assert card.count("## bilens audit: digits") == 1  # the document is there twice
    document = hashlib.sha256((audited / "a.json").read_bytes()).hexdigest()
    assert f"SHA-256 of the JSON document: `{document}`" in card


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("b.json", None, "is a report of other weights"),
        ("b.html", None, "is a report of other weights"),
        ("b.md", None, "nothing tells of which weights it is"),
        ("evidence of b/audit.sarif", None, "nothing tells of which weights"),
        ("rows.json", b'[{"name": "Ann", "income": 3}]', "nothing tells of which weights"),
        ("rows.json", b'{"kind": "rows"}', "nothing tells of which weights"),
        ("page.html", b"<p>accuracy 100%</p>", "nothing tells of which weights"),
        ("broken.json", b'{"a":', "is no report that can be read"),
        ("deep.json", b"[" * 100_000, "is no report that can be read"),
        ("latin.json", b'"caf\xe9"', "is no report that can be read"),
        ("half.json", b'{"kind": "audit", "schema_version": 2}', "is no report that can be read"),
        ("plate.svg", b"<svg/>", "is no file of a report"),
    ],
)
def test_what_is_not_known_to_be_of_these_weights_is_refused(
    hub: FakeHub, audited: Path, tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    path = audited / name if content is None else tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=said) as caught:
        bl.push(audited / "a", NAME, reports=[audited / "a.json", path])
    assert str(path) in str(caught.value)
    assert hub.seen == []


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "a.json"])
def test_no_report_takes_the_name_of_another_file(
    hub: FakeHub, audited: Path, tmp_path: Path, name: str
) -> None:
    shutil.copy(audited / "a.json", tmp_path / name)
    with pytest.raises(UsageError, match=f"another file is sent or read as {name}: rename it"):
        bl.push(audited / "a", NAME, reports=[audited / "a.json", tmp_path / name])
    assert hub.seen == []


def test_reports_of_an_earlier_push_go_with_its_weights(hub: FakeHub, audited: Path) -> None:
    said = list[str]()
    bl.push(audited / "a", NAME, reports=[audited / "a.json", audited / "a.html"])
    there = hub.files(NAME) | {"a.html": b"changed there", "notes.md": b"of people"}
    hub.repositories[NAME].commit(there, "by people")
    bl.push(audited / "b", NAME, reports=[audited / "b.json"], say=said.append)
    kept = {"a.html", "notes.md", ".gitattributes"}
    own = {"README.md", "config.json", "model.safetensors", "b.json"}
    assert hub.files(NAME).keys() == own | kept
    assert "a.json: a report of an earlier push, goes from there." in said


# ---- a card says one thing


def test_scores_that_contradict_each_other_are_refused(
    hub: FakeHub, folder: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    x, y = torch.rand(60, 36), torch.arange(60) % 3
    for name, labels in (("one", y), ("other", y.flip(0).roll(7))):
        bl.audit(bl.load(folder), data=(x, labels), null_samples=39).to_json(tmp_path / name)
        (tmp_path / name).rename(tmp_path / f"{name}.json")
    named = [tmp_path / "one.json", tmp_path / "other.json"]
    with pytest.raises(UsageError, match=r"accuracy on unnamed is 0.\d+, and 0.\d+ in the card"):
        bl.push(folder, NAME, reports=named)
    bl.push(folder, NAME, reports=named[:1])
    assert "Nothing was measured" not in hub.files(NAME)["README.md"].decode()


def test_a_card_has_one_licence(hub: FakeHub, folder: Path) -> None:
    text = (folder / "README.md").read_text()
    (folder / "README.md").write_text(text.replace("tags:", "license: mit\ntags:"))
    with pytest.raises(UsageError, match=r"its licence is mit, not apache-2\.0: change one"):
        bl.push(folder, NAME, license="apache-2.0")
    bl.push(folder, NAME)
    assert "| Licence | mit |" in hub.files(NAME)["README.md"].decode()


@pytest.mark.parametrize(
    "card",
    [b"caf\xe9", b"---\nlibrary_name: [\n---\nhi", b"---\n- a\n---\n", b"---\ntags: 3\n---\n"],
)
def test_a_card_that_cannot_be_read_is_one_sentence(
    hub: FakeHub, folder: Path, card: bytes
) -> None:
    (folder / "README.md").write_bytes(card)
    with pytest.raises(UsageError, match=r"README.md: cannot be read \(.*\)\.$"):
        bl.push(folder, NAME, license="mit")
    assert hub.seen == []


@pytest.mark.parametrize("token", [TOKEN, "my_hf_" + "Z" * 34, "api_org_" + "Z" * 34])
def test_no_token_stands_in_the_message(hub: FakeHub, folder: Path, token: str) -> None:
    with pytest.raises(UsageError, match="the message: holds what looks like a key") as caught:
        bl.push(folder, NAME, message=f"as {token}")
    assert token not in str(caught.value)
    assert hub.seen == []


# ---- refusals


def test_what_is_no_model_or_no_name_is_refused(hub: FakeHub, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no model"):
        bl.push(tmp_path / "empty", NAME)
    with pytest.raises(UsageError, match="expected OWNER/NAME"):
        bl.push(folder, "digits")
    with pytest.raises(UsageError, match="save it, and pass that"):
        bl.push(bl.from_module(classifier()), NAME)
    changed = bl.load(folder)
    next(changed.module_for("a test").parameters()).data.add_(1)
    with pytest.raises(UsageError, match="save it, and pass that"):
        bl.push(changed, NAME)
    assert hub.seen == []


def test_nothing_private_goes_where_everybody_reads(hub: FakeHub, folder: Path) -> None:
    hub.repositories[NAME] = Repository(private=False)
    hub.repositories[NAME].commit({}, "initial commit")
    with pytest.raises(UsageError, match="is public on the hub"):
        bl.push(folder, NAME)
    assert hub.files(NAME) == {}
    assert bl.push(folder, NAME, private=False).private is False


def test_files_of_another_model_are_not_left_beside_it(hub: FakeHub, folder: Path) -> None:
    hub.repositories[NAME] = Repository(private=True)
    hub.repositories[NAME].commit({"model.safetensors.index.json": b"{}"}, "another")
    with pytest.raises(UsageError, match=r"files of another model \(model.safetensors.index.json"):
        bl.push(folder, NAME)


def test_what_others_push_meanwhile_is_not_overwritten(hub: FakeHub, folder: Path) -> None:
    bl.push(folder, NAME)
    repository = hub.repositories[NAME]
    hub.meanwhile = lambda: repository.commit({"config.json": b"theirs"}, "theirs")
    with pytest.raises(CheckpointError, match=r"could not be sent \(\w+ 412\)"):
        bl.push(bl.save(classifier(seed=8), folder.parent / "other"), NAME)
    assert hub.files(NAME) == {"config.json": b"theirs"}


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (None, "may not be written: check the name, and run `hf auth login`"),
        (403, "may not be written"),
        (503, r"could not be sent \(HfHubHTTPError 503, 5 times\)"),
    ],
)
def test_a_refusal_is_one_sentence(
    hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch, fault: int | None, sentence: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "w" * 34)
    hub.fault = fault
    with pytest.raises(CheckpointError, match=sentence) as caught:
        bl.push(folder, NAME)
    assert "w" * 34 not in str(caught.value)


def test_why_the_hub_gives_nothing_is_told(
    hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bl.push(folder, NAME)

    def refused(address: str, sentence: str) -> None:
        with pytest.raises(CheckpointError, match=sentence):
            bl.load(address)

    refused(f"hf://{NAME}@none", "has no such revision: put a branch, a tag or a commit")
    refused("hf://digits", "is no name on the hub: expected hf://OWNER/NAME")
    hub.repositories[NAME].gated = True
    refused(f"hf://{NAME}", "asks its readers to accept its conditions first")
    monkeypatch.setenv("HF_TOKEN", "hf_" + "w" * 34)
    refused(f"hf://{NAME}", "none that may be read: check the name, and run `hf auth login`")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused(f"hf://{NAME}", "HF_HUB_OFFLINE keeps this machine off the hub")


def test_a_missing_package_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (lambda: bl.push(folder, NAME), lambda: bl.load("hf://me/digits")):
        with pytest.raises(MissingExtraError, match=r"pip install 'bilens\[hub\]'"):
            call()


def test_a_process_of_its_own_finds_the_hub_by_its_environment(folder: Path) -> None:
    """HF_ENDPOINT and HF_TOKEN are read by huggingface_hub when it is imported."""
    with hub_on_loopback() as hub:
        own = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
        own |= {"HF_HOME": str(folder.parent / "home"), "HF_HUB_OFFLINE": "0"}
        program = (
            "import sys, bilens as bl\n"
            f"done = bl.push({str(folder)!r}, {NAME!r})\n"
            "found = bl.load(done.address)\n"
            "print(found.weights_sha256)"
        )
        result = subprocess.run(
            [sys.executable, "-c", program], env=os.environ | own, capture_output=True, text=True
        )
    sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert result.stdout.split() == [sha256], result.stderr
    assert TOKEN not in result.stderr


@pytest.mark.usefixtures("hub")
def test_a_folder_of_one_file_goes_with_its_licence_and_its_own_card(
    folder: Path, tmp_path: Path
) -> None:
    """Seen red: the one file went alone, and nothing was said to stay here."""
    pytest.importorskip("onnx")
    convert_model(bl.load(folder), "onnx", tmp_path / "one" / "m.onnx")
    texts = {"LICENSE": "MIT", "README.md": "Mine.", "labels.txt": "a"}
    for name, text in texts.items():
        (tmp_path / "one" / name).write_text(text)
    pushed = bl.push(tmp_path / "one", NAME, dry_run=True)
    assert pushed.files.keys() == {"LICENSE", "README.md", "m.onnx"}
    assert pushed.left_here == ("labels.txt",)
