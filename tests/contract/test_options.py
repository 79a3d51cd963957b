"""Guards against options that are accepted and do nothing: each row of the table, both ways.

The use that would do nothing is refused; the use that counts changes the result or its record.
"""

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import bilens as bl
import tiny
import traced_models
from bilens.api.classifier import attack_model, certify_model
from bilens.api.network_conversion import RECIPE
from bilens.api.quadratic_fit import fit_layers_of
from bilens.base.errors import UsageError
from bilens.base.option_rules import COMMAND_LINE, RULES, is_given, refuse_idle
from bilens.io.load import LoadedModel
from bilens.nn import BilinearClassifier
from commands import Shell
from contract.table import cell

WIDTH, ROWS = 9, 120
OWN = {"reproduce", "seed", "command", "date"}  # of a record, which say how and not what


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(capsys, monkeypatch)


@dataclass(frozen=True)
class Models:
    exact: LoadedModel
    gated: LoadedModel
    table: LoadedModel
    path: Path
    pair: tuple[torch.Tensor, torch.Tensor]
    traced: tuple[Path, Path, Path]
    images: Any


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder, draw = tmp_path_factory.mktemp("options"), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    exact, gated = BilinearClassifier(WIDTH, 6, 3), BilinearClassifier(WIDTH, 6, 3, gate="relu")
    x = torch.rand(ROWS, WIDTH, generator=draw)
    y = exact(x).argmax(dim=1)
    np.savez(folder / "data.npz", x=x.numpy(), y=y.numpy(), other=(2 - y).numpy())
    named = bl.save(
        BilinearClassifier(2, 4, 2),
        folder / "table",
        input_names=("a", "b"),
        input_mean=(0.0, 0.0),
        input_scale=(1.0, 1.0),
    )
    saved = (bl.save(one, folder / name) for name, one in (("exact", exact), ("gated", gated)))
    traced_models.write_sae(folder / "traced" / "attended", "resid_pre")
    return Models(
        *map(bl.load, saved),
        bl.load(named),
        folder / "data.npz",
        (x, y),
        traced_models.write_all(folder / "traced"),
        tiny.images(),
    )


def content(found: Any) -> str:
    """A report without what says how it was made."""

    def plain(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: plain(value) for key, value in part.items() if key not in OWN}
        return [*map(plain, part)] if isinstance(part, list | tuple) else part

    return json.dumps(plain(found.to_dict()), default=str)


@dataclass(frozen=True)
class Use:
    """A use of an option, and what it is compared with; `run` takes keyword arguments."""

    verb: str
    option: str
    run: Callable[..., Any]
    value: Any
    idle: dict[str, Any]  # with these it would do nothing
    counts: dict[str, Any] | None  # with these it counts; None where that takes too long


def uses(m: Models) -> list[Use]:
    def audit(model: str = "exact", **said: Any) -> str:
        return content(bl.audit(getattr(m, model), **said))

    def certify(**said: Any) -> str:
        return content(certify_model(m.exact, **said))

    def attack(**said: Any) -> str:
        return content(attack_model(m.exact, m.path, epsilons=[0.1], restarts=1, **said))

    def fit(model: str = "gated", **said: Any) -> str:
        found = bl.quadratic_fit(getattr(m, model), **said)
        down = found.quadratic_map.tensor.down
        return f"{found.ladder} {found.usable} {found.threshold} {down.sum():.12g}"

    def learn(**said: Any) -> str:
        return str(bl.train_language("grammar", m.path.parent / "run", **said))

    attended = m.traced[0].parent / "attended"

    def trace(saes: bool = True, **said: Any) -> str:
        model, before, behind = m.traced
        around = {"input_sae": before, "output_sae": behind, "tokens": 320} if saes else {}
        return content(bl.trace(model, 0, **{"pairs": 3, **around, **said}))

    def pairs(**said: Any) -> str:
        equal = torch.eye(30, dtype=torch.float64)  # all eigenvalues are one: none is proven last
        matrix = bl.InteractionMatrix(equal, equal, equal.diag())
        form = bl.QuadraticForm(matrix, equal[0] * 0, equal[0, 1])
        found = bl.eigendecompose(form, k=2, **{"method": "lanczos", **said})
        return f"{found.complete} {found.residuals}"

    def convert(**said: Any) -> str:
        network = nn.Sequential(nn.Linear(WIDTH, 4), nn.ReLU(), nn.Linear(4, 2))
        recipe = replace(RECIPE, **said)
        found = bl.convert_network(network, m.pair[0], m.path.parent / "out", recipe)
        return str(found["domains"])

    def inputs(**said: Any) -> str:
        network = nn.Sequential(nn.Linear(WIDTH, 4), nn.ReLU(), nn.Linear(4, 2))
        return str(bl.layer_inputs(network, m.pair[0], **said).about)

    def images(**said: Any) -> str:
        given = m.images if said.pop("whole", False) else m.images.train_images
        return str(bl.train_image(given, said.pop("labels", None), m.path.parent / "i", **said))

    def table(**said: Any) -> str:
        fitted = bl.sklearn.BilinearClassifier(random_state=0, **said).fit(*m.pair)
        return f"{fitted.alpha_} {fitted.quadratic_map_.tensor.left} {fitted.choice_}"

    data, x = {"data": m.path}, m.pair[0].double()
    own = m.pair
    alone = {"skip": ("distillation",)}
    rows: dict[str, Any] = {"data": x}
    few = {"null_samples": 3}
    ones, twice = torch.ones(WIDTH).double(), 2 * torch.eye(WIDTH).double()
    return [
        Use("data", "labels", audit, "other", {}, data),
        Use("data", "labels", audit, "other", {"data": m.pair}, data),
        Use("data", "labels", certify, "other", {"samples": 9} | {"data": m.pair}, data),
        Use("audit", "train_labels", audit, "other", data, {**data, "train_data": m.path}),
        Use("audit", "try_words", audit, 9, {"model": "gated", **few}, None),
        Use("audit", "train_data", audit, m.path, {"model": "gated", **few}, data),
        Use("audit", "null_samples", audit, 39, {"model": "table"}, {"model": "exact"}),
        Use("audit", "threshold", audit, 0.999, {}, {"model": "gated", **few}),
        Use("audit", "threshold", audit, 0.999, {"model": "table"}, {"model": "gated", **few}),
        Use("audit", "inputs", audit, "inputs", {}, None),
        Use("certify", "samples", certify, 7, {}, data),
        Use("attack", "pairs", attack, True, {"target": 1, "source": 2}, {"target": 1}),
        Use("attack", "pairs", attack, True, {"source": 2}, {"target": 1}),
        Use("quadratic fit", "train_steps", fit, 2, {}, rows),
        Use("quadratic fit", "train_steps", fit, 2, {"model": "exact", **rows}, rows),
        Use("quadratic fit", "held_out", fit, x[:60], {}, rows),
        Use("quadratic fit", "mean", fit, ones, rows, {}),
        Use("quadratic fit", "covariance", fit, twice, rows, {}),
        Use("quadratic fit", "samples", fit, 200, rows, {}),
        Use("quadratic fit", "threshold", fit, 0.5, {"model": "exact"}, {}),
        Use("trace", "latents", trace, [1], {"saes": False}, {}),
        Use("trace", "corpus", trace, "grammar", {"saes": False}, None),
        Use("trace", "features", trace, 2, {"saes": False}, {}),
        Use("trace", "top", trace, 3, {"saes": False}, {}),
        Use("trace", "tokens", trace, 200, {"saes": False}, {}),
        Use("trace", "toward", trace, ["the"], {}, {"saes": False}),
        Use("trace", "outputs", trace, 2, {"latents": [1]}, {}),
        Use("trace", "dictionaries", trace, 2, {"saes": False}, {}),
        Use("trace", "attention_sae", trace, attended, {"saes": False}, {}),
        Use("trace", "distance", trace, 3, {}, {"attention_sae": attended}),
        Use("train language", "epochs", learn, 1.0, {"steps": 2}, None),
        Use("train language", "pairs", learn, 2, {}, None),
        Use("train language", "order_penalty", learn, 0.1, {}, None),
        Use("eigenpairs", "verify", pairs, True, {"method": "dense"}, {}),
        Use("eigenpairs", "verify", pairs, True, {"method": "factored"}, {}),
        Use("convert", "layer_steps", convert, 7, {"skip": ("training",)}, None),
        Use("convert", "tokens", convert, 500, alone, None),
        Use("convert", "tokens", convert, 500, {"minutes": 1.0}, None),
        Use("convert", "minutes", convert, 0.5, alone, None),
        Use("convert", "passes", convert, 2, alone, None),
        Use("convert", "learning_rate", convert, 0.1, alone, None),
        Use("convert", "optimizer", convert, "muon", alone, None),
        Use("convert", "texts_at_once", convert, 2, alone, None),
        Use("convert", "recompute", convert, True, alone, None),
        Use("convert", "unfreeze", convert, True, alone, None),
        Use("layer inputs", "tokens", inputs, 900, {}, None),
        Use("layer inputs", "n_ctx", inputs, 16, {}, None),
        Use("layer inputs", "rows", inputs, 99, {}, None),
        Use("layer inputs", "normalise", inputs, "0..255", {}, None),
        Use("layer inputs", "size", inputs, [9], {}, None),
        Use("train image", "labels", images, own[1], {"whole": True}, None),
        Use("train image", "test", images, own, {"whole": True}, None),
        Use("train image", "class_names", images, ["a"], {"whole": True}, None),
        Use("train image", "dataset", images, "fashion-mnist", {"labels": own[1]}, None),
        Use(
            "train table",
            "n_components",
            table,
            2,
            {"quadratic_scale": 0.0},
            {"quadratic_scale": 0.1},
        ),
    ]


@cell("audit", "without effect")
@cell("certify", "without effect")
@cell("attack", "without effect")
@cell("fit", "without effect")
@cell("trace", "without effect")
@cell("compare", "without effect")
def test_an_option_counts_or_is_refused(models: Models) -> None:
    """Both ways of each row, on the models above."""
    wrong = []
    plain: dict[str, str] = {}
    for use in uses(models):
        said = {use.option: use.value}
        with pytest.raises(UsageError, match=rf"{use.option}\b.*: only "):
            use.run(**use.idle, **said)
        if use.counts is None:
            continue
        key = f"{use.run.__name__} {use.counts.keys()} {use.counts.get('model')}"
        if key not in plain:
            plain[key] = use.run(**use.counts)
        if use.run(**{**use.counts, **said}) == plain[key]:
            wrong.append((use.verb, use.option))
    assert wrong == []


@cell("fit", "without effect")
def test_of_many_layers_an_option_counts_where_one_is_approximated(models: Models) -> None:
    assert fit_layers_of(models.gated, threshold=0.5).fits[0].threshold == 0.5
    with pytest.raises(UsageError, match="approximated"):
        fit_layers_of(models.exact, threshold=0.5)


def test_every_row_of_the_table_of_python_is_used(models: Models) -> None:
    """A new row has to be added to `uses`, so that both ways of it are run."""
    used = {(use.verb, use.option) for use in uses(models)}
    rows = {
        (verb, option)
        for verb, needs in RULES.items()
        if verb not in COMMAND_LINE
        for options in needs.values()
        for option in options
    }
    assert rows - used == {("data", "encoding"), ("trace", "graph")}  # of commands, below


MODEL, DATA = "MODEL", "DATA"
LINES: list[tuple[str, str, str]] = [  # verb of the table, a line that is refused, its option
    ("data", f"audit {MODEL} --encoding cp932", "--encoding"),
    ("data", f"audit {MODEL} --data {DATA} --encoding cp932", "--encoding"),
    ("data", f"audit {MODEL} --labels y", "--labels"),
    ("data", f"certify {MODEL} --labels y", "--labels"),
    ("data", f"attack {MODEL} --labels y", "--labels"),
    ("data", f"explain {MODEL} --index 0 --labels y", "--labels"),
    ("audit", f"audit {MODEL} --train-labels y", "--train-labels"),
    ("text", f"audit {MODEL} --tokens 9", "--tokens"),
    ("text", f"fit {MODEL} --held-out 0.3", "--held-out"),
    ("text", f"fit {MODEL} --activations somewhere", "--activations"),
    ("text", f"audit {MODEL} --rows 99", "--rows"),
    ("text", f"fit {MODEL} --normalise 0..255", "--normalise"),
    ("text", f"audit {MODEL} --size 9", "--size"),
    # with the default value
    ("text", f"fit {MODEL} --held-out 0.2", "--held-out"),
    ("text", f"audit {MODEL} --tokens 20000", "--tokens"),
    ("certify", f"certify {MODEL} --samples 1000", "--samples"),
    ("audit", f"audit {MODEL} --threshold 0.9", "--threshold"),
    ("quadratic fit", f"fit {MODEL} --data {DATA} --samples 10000", "--samples"),
    ("sweep", f"sweep {MODEL} --do fit --null-samples 19 --out place", "--null-samples"),
    ("", f"convert {MODEL} --to bilens --out place --seed 0", "--seed"),
    ("train language", "train language --corpus grammar --out r --steps 2 --epochs 6", "--epochs"),
    (
        "convert",
        f"convert GATED --to bilinear --out o --data {DATA} --skip training --layer-steps 300",
        "--layer-steps",
    ),
    ("decompose", f"decompose {MODEL} --spectrum top --null-samples 59", "--null-samples"),
    ("decompose", f"decompose {MODEL} --method dense --verify", "--verify"),
    ("decompose", f"decompose {MODEL} --method factored --precision float64", "--precision"),
    ("decompose", f"decompose {MODEL} --data {DATA}", "--data"),
    ("decompose", f"decompose {MODEL} --dataset mnist", "--dataset"),
    ("decompose", f"decompose {MODEL} --labels y", "--labels"),
    ("decompose", f"decompose {MODEL} --encoding cp932", "--encoding"),
    ("trace", "trace TRACED --layer 0 --graph somewhere", "--graph"),
    ("corpus", "trace TRACED --layer 0 --column text", "--column"),
    ("corpus", "trace TRACED --layer 0 --limit 9", "--limit"),
    ("sweep", f"sweep {MODEL} --do fit --null-samples 9 --out place", "--null-samples"),
    ("sweep", f"sweep {MODEL} --do audit --samples 900 --out place", "--samples"),
    ("sweep", f"sweep {MODEL} --do convert --threshold 0.5 --out place", "--threshold"),
    ("sweep", f"sweep {MODEL} --do audit --directions 9 --out place", "--directions"),
    ("sweep", f"sweep {MODEL} --do audit --top 9 --out place", "--top"),
    ("sweep", f"sweep {MODEL} --do audit --layer-steps 9 --out place", "--layer-steps"),
    ("sweep", f"sweep {MODEL} --do convert --layer-steps 9 --out place", "--layer-steps"),
    ("sweep", f"sweep {MODEL} --do audit --baseline other --out place", "--baseline"),
    ("sweep", f"sweep {MODEL} --do audit --activations there --out place", "--activations"),
    (
        *("train table", "train table DATA --target a --out r --quadratic-scale 0 --components 3"),
        "--components",
    ),
]


@cell("audit", "without effect")
@cell("certify", "without effect")
@cell("attack", "without effect")
@cell("explain", "without effect")
@cell("decompose", "without effect")
@cell("trace", "without effect")
@cell("sweep", "without effect")
@cell("train table", "without effect")
@cell("convert", "without effect")
@pytest.mark.parametrize(("line", "option"), [one[1:] for one in LINES])
def test_a_line_with_an_idle_option_is_refused(
    shell: Shell, models: Models, line: str, option: str
) -> None:
    places = {
        MODEL: str(models.exact.source),
        DATA: str(models.path),
        "TRACED": str(models.traced[0]),
        "GATED": str(models.gated.source),
    }
    result = shell(*(places.get(word, word) for word in line.split()))
    assert result.code == 2
    assert option in result.err
    assert ": only " in result.err


@cell("explore", "without effect")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--lang", "en"], "--lang: only with --export"),
        (["--export", "e.html", "--no-open"], "--open: --export starts no server"),
        (["--export", "e.html", "--port", "8737"], "--port: --export starts no server"),
    ],
)
def test_an_explorer_refuses_what_would_do_nothing(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], words: str
) -> None:
    """The default value of an option was passed over, and a server started."""
    pytest.importorskip("starlette")
    importlib.import_module("bilens_explorer.app")  # it looks at the type that is replaced
    monkeypatch.chdir(tmp_path)

    def no_folder(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing is served")

    monkeypatch.setattr("bilens_explorer.folder.ServedFolder", no_folder)
    result = shell("serve", str(tmp_path), *options)
    assert result.code == 2
    assert words in result.err


def test_every_row_of_a_command_has_a_line() -> None:
    told_of = {(verb, option) for verb, _, option in LINES}
    for verb in COMMAND_LINE:
        for options in RULES[verb].values():
            for name in options:
                assert any(one == verb for one, _ in told_of)
                spelled = {"n_components": "components", "validation_fraction": "validation"}
                assert (verb, f"--{spelled.get(name, name.replace('_', '-'))}") in told_of


@cell("load file", "without effect")
def test_what_a_file_does_not_need_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "m.safetensors"
    save_file({"up": torch.randn(5, 4), "down": torch.randn(3, 5)}, path)
    roles = {"up": "up", "down": "down"}
    assert bl.load(path, roles=roles, activation="relu", transposed=False).layers
    with pytest.raises(UsageError, match="leave the option out"):
        bl.load(path, roles=roles, activation="relu", transposed=False, residual=True)


@pytest.mark.parametrize("value", [None, (), 0.9])
def test_a_default_is_not_told(value: Any) -> None:
    assert not is_given(value, 0.9)
    refuse_idle("audit", {"threshold": value})
