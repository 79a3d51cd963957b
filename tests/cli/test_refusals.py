"""No is said without torch, once, with the command that works; and no command advises in vain."""

import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import bilens
import tiny
from builders import randn
from checkpoints import official_state
from commands import FILE, USAGE, Shell, commands, model_folder
from io_mapped import gated, pair, write

SOURCE = Path(bilens.__file__).parent
SATELLITES = Path(__file__).parents[2]  # the folders of the repository that have a `src`

# ---- without torch

REFUSED: dict[str, tuple[list[str], int]] = {
    "a missing model": (["audit", "nowhere"], FILE),
    "a missing file": (["decompose", "nowhere/m.safetensors"], FILE),
    "a name of the hub": (["audit", "org/name"], FILE),
    "a missing language model": (["trace", "nowhere", "--layer", "0"], FILE),
    "a missing model of features": (
        ["train", "sae", "nowhere", "--hook", "blocks.0.mlp_in", "--out", "o"],
        FILE,
    ),
    "a missing baseline": (["audit", "model", "--baseline", "nowhere"], FILE),
    "a missing table": (["audit", "model", "--table", "nowhere.csv"], FILE),
    "a missing table to train on": (
        ["train", "table", "no.csv", "--target", "y", "--out", "o"],
        FILE,
    ),
    "missing rows": (["fit", "model", "--data", "nowhere.npy"], FILE),
    "a missing table to explain": (["explain", "model", "--index", "0", "--table", "no.csv"], FILE),
    "missing images": (["certify", "model", "--data-dir", "nowhere"], FILE),
    "an empty file": (["audit", "empty.pt"], FILE),
    "an empty folder": (["audit", "nothing"], FILE),
    "a folder of models": (["fit", "several"], FILE),
    "a picture": (["fit", "cat.png"], FILE),
    "a text": (["convert", "model.txt", "--to", "bilens", "--out", "o"], FILE),
    "trees": (["fit", "trees.txt"], FILE),
    "a page that exists": (["audit", "model", "--html", "cat.png"], USAGE),
    "an address": (["audit", "ftp://a.b/c"], FILE),
    "a table at an address": (["audit", "model", "--table", "s3://a.b/c"], FILE),
    "data at an address": (["audit", "model", "--data", "ftp://a.b/c"], FILE),
    "no such command": (["audti", "model"], USAGE),
    "no such option": (["audit", "model", "--fail"], USAGE),
    "a number out of range": (["audit", "model", "--threshold", "3"], USAGE),
    "a word for a number": (["fit", "model", "--samples", "many"], USAGE),
    "no such choice": (["decompose", "model", "--basis", "pixels"], USAGE),
    "no role": (["fit", "model", "--map", "up"], USAGE),
    "no such condition": (["audit", "model", "--fail-on", "beauty<3"], USAGE),
    "a condition without a limit": (["audit", "model", "--fail-on", "r2<"], USAGE),
    "a condition without its baseline": (["audit", "model", "--fail-on", "changed"], USAGE),
}
RUN = """
import contextlib, io, json, os, sys
from bilens.cli.app import main
for name, line in json.loads(sys.stdin.read()).items():
    if os.fork():
        os.wait()
        continue
    sys.argv, err, code = ["bilens", *line], io.StringIO(), 0
    with contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
    print(json.dumps([name, code, err.getvalue(), "torch" in sys.modules]), flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, bool]]:
    """Code, stderr and whether torch was there, of each command in a process of its own."""
    folder = tmp_path_factory.mktemp("refusals")
    model_folder(folder / "model")
    for name in ("nothing", "several"):
        (folder / name).mkdir()
    for name in ("a", "b"):
        write(folder / "several", pair(), f"{name}.safetensors")
    (folder / "empty.pt").touch()
    (folder / "cat.png").write_bytes(b"\x89PNG")
    (folder / "model.txt").write_text("a model")
    (folder / "trees.txt").write_text("tree\nversion=v4\n")
    lines = {name: line for name, (line, _) in REFUSED.items()}
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env=tiny.environment(HF_HOME=str(folder / "hf")),
        timeout=120,
    )
    return {name: tuple(rest) for name, *rest in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_does_not_wait_for_torch(
    name: str, refusals: dict[str, tuple[int, str, bool]]
) -> None:
    code, err, loaded = refusals[name]
    assert code == REFUSED[name][1], err
    assert err.startswith("error: ") or "─ Error ─" in err, err
    assert "Traceback" not in err
    assert not loaded
    if "an address" in name:
        assert re.match(r"error: \w+://a\.b/c: is an address, .*: download it", err), err


# ---- one wrong step, one command that works

WRONG: dict[str, Any] = {
    "m.safetensors": pair(),
    "square.safetensors": {"fc1.weight": randn(4, 4), "fc2.weight": randn(4, 4, seed=1)},
    "m.pt": pair(),
    "training.ckpt": {"model": pair(), "optimizer": {"state": {"a": torch.zeros(3)}}},
    "lens.pt": {
        f"blocks.{k}.mlp.{part}": randn(*shape, seed=k)
        for k in range(2)
        for part, shape in {"W_gate": (4, 7), "W_in": (4, 7), "W_out": (7, 4)}.items()
    },
    "gate.safetensors": {**gated("mlp."), "mlp.other.weight": randn(7, 4)},
    "gates.pt": {
        name: tensor
        for k in range(3)
        for name, tensor in {**gated(f"h.{k}."), f"h.{k}.odd.weight": randn(7, 4)}.items()
    },
}
COMMANDS = ["audit", "fit", "decompose", "certify", "convert --to bilens --out out"]


def options_of(name: str) -> set[str]:
    parameters = commands()[name].params
    return {text for each in parameters for text in (*each.opts, *each.secondary_opts)}


def advised(line: str) -> list[list[str]]:
    """The commands that an error line tells to run."""
    _, colon, text = line.partition(" Run: ")
    assert colon, line
    return [shlex.split(command) for command in text.split(", or: ")]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", WRONG)
def test_the_command_of_a_message_works(
    name: str, command: str, bilens: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if name.endswith(".safetensors"):
        write(tmp_path, WRONG[name], name)
    else:
        torch.save(WRONG[name], tmp_path / name)
    first, *rest = command.split()
    result = bilens("--quiet", first, name, *rest)
    if first == "audit" and result.code == 0:  # inventoried: of a pickle nothing was opened
        _, _, said = result.err.strip().partition(" Or audit it with ")
        words = ["audit", name, *shlex.split(said.partition(".\n")[0].removesuffix("."))]
    else:
        assert result.code in (FILE, USAGE)
        (program, *words), *others = advised(result.error())  # a square one has an order each
        assert program == "bilens"
        assert len(others) == (name == "square.safetensors")
    words = ["relu" if word == "ACTIVATION" else word for word in words]  # what no file says
    verb = words[1] if words[0] == "--quiet" else words[0]
    assert {word for word in words if word.startswith("--")} - {"--quiet"} <= options_of(verb)
    again = bilens(*words)
    if again.code == FILE:
        assert "R² = " in again.error()  # all was said, and decomposing asks for more
    elif verb == "convert":
        assert "the layers alone are read" in again.error()  # and writing a model asks for more
    else:
        assert again.code in (0, 1), again.err  # 1: fitted or audited, and not good enough
        assert again.out


def test_a_checkpoint_of_the_paper_has_two_commands(bilens: Shell, tmp_path: Path) -> None:
    torch.save(official_state(), tmp_path / "m.pt")
    lines = advised(bilens("decompose", tmp_path / "m.pt", "--top", 2).error())
    assert [line[-1] for line in lines] == ["--residual", "--no-residual"]
    for _, *words in lines:
        assert bilens(*words).code == 0


def test_a_folder_of_models_has_a_command_for_each(bilens: Shell, tmp_path: Path) -> None:
    for name in ("a", "b"):
        model_folder(tmp_path / name)
    lines = advised(bilens("decompose", tmp_path, "--top", 2).error())
    assert [line[2] for line in lines] == [str(tmp_path / name) for name in ("a", "b")]
    for _, *words in lines:
        assert bilens(*words).code == 0


# ---- no message advises what its command lacks

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
WHOLE = re.compile(rf"bilens ({'|'.join(filter(None, reversed(commands())))})\b")
EVERYWHERE = ["train image", "train language", "train sae", "train table", "convert", "decompose"]
LANGUAGE = ["train language", "train sae", "trace"]
IMAGES = ["audit", "attack", "certify", "explain", "fit"]
REACHED = {  # module that names an option: the commands that its messages can end
    "base/files": EVERYWHERE,
    "report/html": ["audit"],
    "report/terminal_readings": ["decompose"],
    "api/layer_reading": ["decompose"],
    "api/layer_decomposition": ["decompose"],
    "api/decomposition_request": ["decompose"],
    "api/audit_model": ["audit"],
    "api/options": ["audit"],
    "io/formats/torchscript": ["audit", "fit"],
    "io/autoencoders": ["trace"],
    "records": ["audit"],
    "interp/trace_options": ["trace"],
    "bilens_explorer/compare": ["audit"],
    "bilens_explorer": ["serve"],
    "api/provenance": IMAGES,
    "api/given_data": [*IMAGES, "decompose"],
    "api/convert": ["convert"],
    "api/conversion_job": ["convert"],
    "api/network_conversion": ["convert"],
    "api/network_reading": ["read"],
    "api/push": ["push"],
    "api/quadratic_fit": ["fit"],
    "api/train": ["train image", "train language", "train sae"],
    "train/trackers": [
        *(f"train {one}" for one in ("image", "language", "sae", "table")),
        "convert",
    ],
    "train/run_folder": ["train image", "train language", "train sae", "convert"],
    "train/processes": ["train language", "train sae"],
    "train/corpus": LANGUAGE,
    "train/distillation": ["convert"],
    "train/layer_inputs": ["convert", "fit", "audit"],
    "train/record": ["fit", "audit"],
    "train/tasks/table": ["train table"],
    "data/sample_files": ["fit", "audit"],
    "io/formats/onnx_run": ["fit", "audit"],
    "data/images": ["train image", "audit", "attack", "certify", "explain"],
    "data/labelled_data": ["audit", "attack", "certify", "explain"],
    "data/model_interface": ["audit", "attack", "certify", "explain"],
    "data/table_file": ["audit", "explain", "train table"],
    "data/table_rows": ["train table"],
    "data/text": LANGUAGE,
    "findings/network_rules": ["read"],
    "findings/rules/registry": ["audit"],
    "findings/watching": ["train image"],
    "bilens_studies": ["reproduce"],
    "sweep": ["sweep"],
}


def texts_of(file: Path) -> Iterator[str]:
    """Every text of a module that is no docstring, pieces of an f-string together."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
             for part in node.values}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            inner.add(id(node.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value for part in node.values if isinstance(part, ast.Constant)]
            yield " ".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from [node.value] if id(node) not in inner else []


def advice() -> Iterator[tuple[str, str, str]]:
    """Module, option and text of all that messages outside of the commands name."""
    for file in [*sorted(SOURCE.rglob("*.py")), *sorted(SATELLITES.glob("*/src/*/*.py"))]:
        home = SOURCE if file.is_relative_to(SOURCE) else file.parents[1]
        module = file.relative_to(home).with_suffix("").as_posix()
        if not module.startswith(("cli/", "base/errors")):
            for text in texts_of(file):
                of_others = " " not in text or "llama-gguf-split" in text or "user-data-dir" in text
                for option in [] if of_others else OPTION.findall(text):
                    yield module, option, text


def test_no_message_names_an_option_that_its_command_lacks() -> None:
    found = [*advice()]
    assert len(found) > 30
    for module, option, text in found:
        whole = WHOLE.search(text)
        if whole is not None:
            names = [name for name in commands() if f"{name} ".startswith(f"{whole[1]} ")]
            assert any(option in options_of(name) for name in names), (module, text)
            continue
        if module in ("base/option_rules", "train/recipes"):  # of all commands
            assert any(option in options_of(name) for name in commands()), text
            continue
        home = next((key for key in REACHED if module.startswith(key)), None)
        assert home is not None, f"{module} names {option} of no command: {text}"
        lacking = [name for name in REACHED[home] if option not in options_of(name)]
        assert not lacking, f"{module}: {lacking} lack {option}: {text}"
