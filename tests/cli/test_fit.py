"""`bilens fit`: R² by degree of any model on a shell, and `--map` wherever weights are read."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import bilens as bl
import tiny
from builders import randn
from commands import FILE, USAGE, Cases, Line, Shell, assert_one_line, model_folder
from io_mapped import chain, gated, pair, write

ROLES = ["--map", "up=fc1.weight", "--map", "up_bias=fc1.bias", "--map", "down=fc2.weight"]
ROLES += ["--map", "down_bias=fc2.bias", "--activation", "gelu"]


def test_a_file_of_unknown_names_is_fitted(bilens: Shell, tmp_path: Path) -> None:
    path = write(tmp_path, pair())
    result = bilens("fit", path, *ROLES, "--json")
    fits = result.json()["fits"]
    fit = bl.quadratic_fit(bl.load(path, activation="gelu"))
    assert [one["name"] for one in fits] == ["layer"]
    (found,) = fits[0]["ladder"]
    assert found["quadratic"]["value"] == pytest.approx(fit.r_squared.quadratic.overall)
    assert found["linear"]["value"] == pytest.approx(fit.r_squared.linear.overall)
    assert (fits[0]["d_in"], fits[0]["d_hidden"], fits[0]["d_out"]) == (4, 6, 3)
    assert result.code == (0 if fit.usable else 1)
    assert "Unverified: roles are as you said" in result.err


def test_the_guess_is_printed(bilens: Shell, tmp_path: Path) -> None:
    result = bilens("fit", write(tmp_path, pair()), "--activation", "gelu", "--threshold", 0)
    assert "Guessed from names and shapes: layer: up = fc1.weight, down = fc2.weight" in result.err
    assert "Quadratic approximations" in result.out
    assert result.code == 0
    assert bilens("--quiet", "fit", tmp_path, "--activation", "gelu").err == ""


@pytest.mark.parametrize("kind", [".csv", ".npy", ".safetensors"])
def test_a_network_is_fitted_end_to_end_and_layer_by_layer_on_data(
    kind: str, bilens: Shell, tmp_path: Path
) -> None:
    path, rows = write(tmp_path, chain(4, 6, 5, 2)), randn(200, 4)
    data = tmp_path / f"rows{kind}"
    if kind == ".csv":
        lines = [",".join(map(repr, row)) for row in rows.tolist()]
        data.write_text("\n".join(["a,b,c,d", *lines]))
    elif kind == ".npy":
        np.save(data, rows.numpy())
    else:
        save_file({"x": rows}, data)
    result = bilens("fit", path, "--activation", "tanh", "--data", data, "--json")
    document = result.json()
    assert [one["name"] for one in document["fits"]] == ["model", "layers.0", "layers.1"]
    assert document["num_rows"] == 200
    model = bl.load(path, activation="tanh")
    whole = bl.quadratic_fit(model, data=rows)
    first, last = model.network
    second = bl.quadratic_fit(last, data=first.weights()(rows))
    for record, fit in zip(document["fits"][::2], (whole, second), strict=True):
        assert record["chosen"] == fit.chosen
        assert [one["quadratic"]["value"] for one in record["ladder"]] == pytest.approx(
            [scores.quadratic.overall for scores in fit.ladder.values()]
        )
    line = ["fit", path, "--activation", "tanh", "--data", data, "--train-steps", 9]
    shown = bilens(*line)
    for words in ("end to end", "trained", "R² on 40 rows of data held out of 200"):
        assert words in shown.out


def test_a_map_that_explains_too_little_makes_no_claim(bilens: Shell, tmp_path: Path) -> None:
    model_folder(tmp_path / "model", tiny.classifier(gate="silu", n_layers=2))
    result = bilens("fit", tmp_path / "model", "--threshold", "0.9999")
    assert result.code == 1
    assert "No claim about model, layers.0, layers.1 can be made" in result.out
    values = [
        one["ladder"][0]["quadratic"]["value"]
        for one in bilens("fit", tmp_path / "model", "--json").json()["fits"]
    ]
    some = bilens("fit", tmp_path / "model", "--threshold", (min(values) + max(values)) / 2)
    assert some.code == 1  # one of them suffices
    exact = model_folder(tmp_path / "exact", tiny.classifier())
    refused = bilens("fit", exact, "--threshold", "0.9999", "--json")
    assert "threshold (--threshold): only of a model with a layer that is approx" in refused.err
    document = bilens("fit", exact, "--json")
    assert document.code == 0
    assert document.json()["fits"][0]["exact"]


def test_a_file_of_unknown_names_is_decomposed(bilens: Shell, tmp_path: Path) -> None:
    path = write(tmp_path, gated())
    line = ["decompose", path, "--activation", "identity", "--no-transposed", "--json"]
    record = bilens(*line).json()["layers"][0]
    model = bl.load(path, activation="identity", transposed=False)
    eigs = bl.eigendecompose_all(model.layers["layer"].quadratic_map, k=4)
    found = [output["pairs"][0]["eigenvalue"] for output in record["outputs"]]
    assert found == pytest.approx(eigs.eigenvalues[:, 0].tolist())


def test_a_file_of_unknown_names_is_audited(bilens: Shell, tmp_path: Path) -> None:
    result = bilens("audit", write(tmp_path, pair()), "--activation", "gelu", "--json")
    assert [layer["name"] for layer in result.json()["layers"]["readings"]] == ["layer"], result.err
    assert "Guessed from names and shapes" in result.err


def fit(*options: object, tensors: Callable[[], Any] = pair) -> Callable[[Path], Line]:
    return lambda folder: ["fit", write(folder, tensors()), *options]


def with_file(name: str, content: bytes) -> Callable[[Path], Line]:
    def prepare(folder: Path) -> Line:
        (folder / name).write_bytes(content)
        return ["fit", write(folder, pair()), "--activation=relu", "--data", folder / name]

    return prepare


def empty_file(folder: Path) -> Line:
    (folder / "m.safetensors").write_bytes(b"")
    return ["fit", folder / "m.safetensors", "--activation=relu"]


def pickled(folder: Path) -> Line:
    torch.save(pair(), folder / "m.pt")
    return ["fit", folder / "m.pt", "--activation=relu"]


CASES: Cases = {
    "no activation": (fit(), USAGE, ["up = fc1.weight", "--activation"]),
    "no role": (fit("--map", "fc1.weight"), USAGE, ["--map fc1.weight: expected ROLE=TENSOR"]),
    "twice": (fit("--map", "up=a", "--map", "up=b"), USAGE, ["the role up is given twice"]),
    "another role": (fit("--map", "in=fc1.weight"), USAGE, ["in=fc1.weight is no role"]),
    "no tensor": (fit("--map", "up=fc9.weight"), FILE, ["has no tensor 'fc9.weight'"]),
    "an empty file": (empty_file, FILE, ["is empty (0 bytes)"]),
    "a pickle": (pickled, FILE, ["m.pt --activation=relu --allow-pickle"]),
    "both kinds of data": (
        lambda folder: [*with_file("x.csv", b"a\n1\n")(folder), "--data-dir", folder],
        USAGE,
        ["--data (--data-dir, --table) is given twice"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_that_helps(name: str, bilens: Shell, tmp_path: Path) -> None:
    prepare, code, words = CASES[name]
    assert_one_line(bilens("--quiet", *prepare(tmp_path)), code, words)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (("fit", "--text", "a.txt", "--activation", "gelu"), "--text and --activation"),
        (("fit", "--text", "a.txt", "--data", "x.csv"), "--text and --data"),
        (("fit", "--activation", "gelu", "--tokens", 9), "--tokens: only with --text"),
        (
            ("fit", "--activation", "gelu", "--train-steps", 9),
            "train_steps (--train-steps): only with data",
        ),
        (("convert", "--to", "bilens", "--tokens", 9), "--tokens: only with --to bilinear"),
        (
            ("convert", "--to", "bilens", "--context-length", 9, "--resume"),
            "--context-length, --re",
        ),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    line: tuple[Any, ...], named: str, bilens: Shell, tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_text("a,b,c,d\n1,2,3,4\n")
    command, *options = line
    options = [tmp_path / one if one == "x.csv" else one for one in options]
    out = ["--out", tmp_path / "out"] if command == "convert" else []
    result = bilens(command, write(tmp_path, pair()), *options, *out)
    assert result.code == USAGE
    assert named in result.err
    assert not (tmp_path / "out").exists()


def halves(d_out: int) -> dict[str, Tensor]:
    """A matrix that gives twice what the next one reads."""
    return {"fc1.weight": randn(16, 5), "fc2.weight": randn(d_out, 8), "fc1.bias": randn(16)}


ASKED = {
    "an activation": (pair(), 1),
    "branches": (halves(3), 2),
    "no names": ({"conv.weight": randn(3, 2, 3, 3), **pair("head.0", "head.3")}, 1),
}


@pytest.mark.parametrize("command", ["fit", "audit"])
@pytest.mark.parametrize("name", ASKED)
def test_each_command_that_is_suggested_works(
    bilens: Shell, tmp_path: Path, name: str, command: str
) -> None:
    tensors, count = ASKED[name]
    path = write(tmp_path, tensors)
    asked = bilens(command, path)
    commands = asked.err.strip().partition(" Run: ")[2].split(", or: ")
    if not asked.code:  # an audit of what the file is
        _, _, said = asked.err.partition(" Or audit it with ")
        commands = [f"bilens audit {path} {said.partition('.' + chr(10))[0]}"]
    assert len(commands) == count
    for line in commands:
        words = shlex.split(line.replace("ACTIVATION", "tanh"))
        assert words[:2] == ["bilens", command]
        assert bilens(*words[1:]).code in (0, 1)
