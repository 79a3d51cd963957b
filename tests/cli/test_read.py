"""`bilens read`: page, Markdown and tables say the same; each mistake is one line with its code."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import bilens as bl
from commands import Shell
from polynomial.test_reading import ROLES, transformer

QUICK = ("--rules", 3, "--samples", 19, "--farthest", 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(transformer().state_dict(), tmp_path / "net.safetensors")
    (tmp_path / "roles.json").write_text(json.dumps(asdict(ROLES)))
    (tmp_path / "names.json").write_text(json.dumps({"tokens": list("abcdefg")}))
    return tmp_path


def test_tables_page_and_markdown_say_the_same(bilens: Shell, folder: Path) -> None:
    given = [folder / "net.safetensors", "--roles", folder / "roles.json"]
    given += ["--tokens", folder / "names.json", *QUICK]
    page, notes = folder / "page.html", folder / "page.md"
    result = bilens("--quiet", "read", *given, "--html", page, "--markdown", notes)
    assert result.code == 0
    document = bilens("--quiet", "read", *given, "--json").json()
    assert document["kind"] == "network reading"
    first = document["pairs"][0]
    tokens, output = first["tokens"], first["output"]
    rule = f"{tokens[0]} … {tokens[1]} → {output}"
    for text in (result.out, notes.read_text(), page.read_text().replace("\u00a0", " ")):
        assert rule in text
        assert "compared with nothing" in text
    refused = bilens("--quiet", "read", *given, "--html", page)
    assert (refused.code, "--overwrite" in refused.error()) == (2, True)
    more = ["--html", page, "--lang", "ja", "--overwrite"]
    assert bilens("--quiet", "read", *given, *more).code == 0
    assert 'lang="ja"' in page.read_text()


def test_each_mistake_is_one_line_with_its_code(bilens: Shell, folder: Path) -> None:
    network, roles = folder / "net.safetensors", ["--roles", folder / "roles.json"]
    softmax = folder / "softmax"
    torch.manual_seed(0)
    bl.save(bl.nn.BilinearTransformer(7, 8, 6, 1, 2, 10), softmax)
    bl.save(bl.nn.BilinearClassifier(3, 4, 2), folder / "vectors")
    (folder / "few.json").write_text('["a"]')
    (folder / "damaged.json").write_text("{")
    cases = [
        (3, "no such file", [folder / "nowhere.safetensors", *roles]),
        (3, "no such file", [network, "--roles", folder / "nowhere.json"]),
        (3, "not valid JSON", [network, "--roles", folder / "damaged.json"]),
        (2, "the network has 7 tokens", [network, *roles, "--tokens", folder / "few.json"]),
        (3, "damaged.json", [network, *roles, "--tokens", folder / "damaged.json"]),
        (3, "bl.read_at_text", [softmax]),
        (2, "reads vectors, not tokens", [folder / "vectors"]),
        (2, "give it (--tokens)", [network, *roles, "--tokens-of", folder / "few.json"]),
        (2, "give their roles (--roles), or a folder", [network]),
        (2, "with roles", [network, "--probe", network]),
        (3, "there is no tokens", [network, *roles, "--probe", network]),
    ]
    for code, said, line in cases:
        result = bilens("--quiet", "read", *line)
        assert (result.code, said in result.error()) == (code, True), (result.err, line)
