"""What layers see: streamed, stored and taken up again, split by document, and what it is like."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import bilens as bl
import language_runs
import tiny_language_models as tiny
from bilens.algebra.gaussian import row_moments
from bilens.api.quadratic_fit import fit_on_inputs, seen_inputs
from bilens.base.errors import (
    CheckpointError,
    DataError,
    DiskError,
    NonFiniteError,
    OutputExistsError,
    UsageError,
)
from bilens.data.tokenizer import pack_documents
from bilens.io.host import host_of, open_host
from bilens.nn import BilinearTransformer
from bilens.nn.block import Hooks
from bilens.train import recorded_inputs
from bilens.train.corpus import CorpusOptions
from bilens.train.layer_inputs import LayerRows, Walk
from bilens.train.record_inputs import layer_inputs
from bilens.train.recorded_inputs import LayerInputs, Part
from builders import randn

TEXT = CorpusOptions("grammar", limit=300)
SMALL: dict[str, Any] = {"tokens": 900, "n_ctx": 12}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gated transformer of ours."""
    folder = tmp_path_factory.mktemp("ours") / "run"
    language_runs.go(folder, dataclasses.replace(language_runs.RECIPE, gate="silu"))
    return folder


class Block(nn.Module):
    """A gated MLP and an ordinary one behind a norm, on a residual path."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.gate, self.up, self.down = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 4)
        self.mlp = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        x = x + self.down(nn.functional.silu(self.gate(h)) * self.up(h))
        return x + self.mlp(self.norm(x))


class Loose(nn.Module):
    """An MLP whose weights are in no linear module."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = (nn.Parameter(randn(*s).float()) for s in ((6, 4), (4, 6)))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(nn.functional.linear(x, self.up).relu(), self.down)


def test_rows_are_those_of_a_whole_run_with_their_position_and_token(ours: Path) -> None:
    found = layer_inputs(ours, TEXT, **SMALL)
    model = bl.load(ours).module
    assert isinstance(model, BilinearTransformer)
    assert {part: len(items) for part, items in found.items.items()} == {"fit": 60, "held_out": 15}
    texts, seen = found.items["fit"], []
    hook = model.blocks[1].mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(texts)
    hook.remove()
    rows = found.rows("blocks.1.mlp")
    assert torch.allclose(rows.x, seen[0].flatten(0, 1), atol=1e-6)
    assert torch.equal(rows.places[:, 0], torch.arange(12).repeat(60).int())
    assert torch.equal(rows.places[:, 1], texts.flatten().int())
    streamed = [batch["blocks.1.mlp"].x for batch in found.batches("fit")]
    assert torch.allclose(torch.cat(streamed), rows.x, atol=1e-6)
    first = found.rows("blocks.0.mlp").x  # a walk that goes back
    assert not torch.allclose(first, rows.x)


def test_arrays_of_tokens_run_through_a_language_model(ours: Path, tmp_path: Path) -> None:
    texts = torch.randint(3, 20, (4, 5, 12), generator=torch.Generator().manual_seed(0))
    for number, some in enumerate(texts):
        np.save(tmp_path / f"{number}.npy", some.numpy())
    model = bl.load(ours)
    found = layer_inputs(model, tmp_path, held_out=0.5)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(0))
    assert isinstance(model.module, BilinearTransformer)
    seen: list[Tensor] = []
    with model.module.blocks[1].mlp.register_forward_pre_hook(lambda _, x: seen.append(x[0])):
        model.module(texts[order[2:].sort().values].flatten(0, 1))
    rows = found.rows("blocks.1.mlp")
    assert torch.allclose(rows.x, seen[0].flatten(0, 1), atol=1e-6)
    assert rows.files is not None
    assert rows.files.tolist() == [0] * 60 + [1] * 60
    report = bl.audit(model, tmp_path, null_samples=3).to_dict()
    assert [one["fit"]["over_files"]["files"] for one in report["layers"]["readings"]] == [2, 2]
    np.save(tmp_path / "9.npy", texts[0].numpy() + 10**6)
    with pytest.raises(UsageError, match="the model knows 0 to 83"):
        layer_inputs(model, tmp_path)


def test_no_document_is_on_both_sides(ours: Path) -> None:
    found = layer_inputs(ours, TEXT, **SMALL, held_out=0.3)
    corpus = dataclasses.replace(TEXT, held_out=0.3).load()
    assert found.tokenizer is not None
    sides: dict[Part, tuple[str, ...]] = {"fit": corpus.documents, "held_out": corpus.held_out}
    for part, documents in sides.items():
        tokens = pack_documents(found.tokenizer, documents, 2).tokens.flatten().tolist()
        stream = " ".join(map(str, tokens))
        assert len(found.items[part]) > 20
        assert all(" ".join(map(str, text)) in stream for text in found.items[part].tolist())


def test_a_broken_off_run_goes_on_to_the_same_files(
    ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_inputs, "POSITIONS", 60)
    found = layer_inputs(ours, TEXT, **SMALL)
    whole = found.store(tmp_path / "whole")
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert len(names) > 10
    write, left = recorded_inputs.write_file, [4]

    def killed(path: Path, data: bytes) -> None:
        left[0] -= 1
        if left[0] == 0:
            (path.parent / f".{path.name}.x").write_bytes(data[:9])  # staged by a killed process
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(recorded_inputs, "write_file", killed)
    with pytest.raises(KeyboardInterrupt):
        found.store(tmp_path / "part")
    assert 0 < sum(path.suffix == ".safetensors" for path in (tmp_path / "part").iterdir()) < 5
    monkeypatch.setattr(recorded_inputs, "write_file", write)
    lines: list[tuple[str, int, int]] = []
    again = layer_inputs(ours, TEXT, **SMALL)
    again.store(tmp_path / "part", lambda *line: lines.append(line))
    assert lines[0] == ("activations", 0, len(names) - 1 - 2)  # without run.json and the two there
    assert sorted(path.name for path in (tmp_path / "part").iterdir()) == names
    for name in names:
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    for part in ("fit", "held_out"):
        stored, ran = (one.rows("blocks.1.mlp", part) for one in (whole, found))  # type: ignore[arg-type]
        assert torch.allclose(stored.x, ran.x, atol=1e-6)
        assert torch.equal(stored.places, ran.places)
    about = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert about["recipe"]["model_sha256"] == bl.load(ours).weights_sha256
    assert about["recipe"]["layers"] == ["blocks.0.mlp", "blocks.1.mlp"]


def test_experts_keep_the_places_of_the_tokens_that_reach_them() -> None:
    model = tiny.make("mixtral").float()
    texts = torch.randint(3, 16, (10, 8), generator=torch.Generator().manual_seed(0))
    host = host_of(model, Path("mixtral"))
    sites = {site.name: site for site in host.sites}
    found = LayerInputs(host, sites, {"fit": texts, "held_out": texts}, {})
    names = [name for name in found.sites if name.startswith("layers.0.")]
    places = torch.cat([found.rows(name).places for name in names])
    total = found.items["fit"].numel() * model.config.num_experts_per_tok
    assert len(places) == total
    assert len({*map(tuple, places.tolist())}) > 8
    ran = [one[names[0]].places for one in found.batches("fit", names[:1])]
    assert torch.equal(torch.cat(ran), found.rows(names[0]).places)


def test_any_module_is_hooked_where_its_layers_begin() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(Block(), Block())
    x = randn(25, 3, 4).float()
    found = layer_inputs(module, x)
    assert list(found.sites) == ["0", "0.mlp", "1", "1.mlp"]
    held = found.items["held_out"]
    with torch.no_grad():
        expected = module[1].norm(module[0](held)).flatten(0, 1)
    rows = found.rows("1", "held_out")
    assert torch.allclose(rows.x, expected, atol=1e-6)
    assert rows.places.tolist() == [[position, -1] for position in range(3)] * len(held)
    moments = found.moments("1")
    fit = found.rows("1").x.double()
    assert torch.allclose(moments.covariance, torch.cov(fit.T, correction=0), atol=1e-12)
    assert all(one.requires_grad for one in module.parameters())
    few = fit_on_inputs(layer_inputs(module, x[:9]), samples=100).fits[0]
    assert (few.seen, few.assumed_input) == (None, "N(μ, σ²) of the LayerNorm 0.norm in front")
    audited = bl.audit(module, inputs=found, null_samples=3).to_dict()
    assert [one["fit"]["seen"] for one in audited["layers"]["readings"]] == 4 * [True]
    record = fit_on_inputs(found, samples=100)
    assert record.text is None
    assert record.fits[2].seen is not None
    assert record.fits[2].assumed_input == "15 inputs that nothing was fitted to"


def test_layers_of_equal_weights_are_read_each_where_it_runs() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    module = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    found = layer_inputs(module, randn(20, 3, 8).float())
    paths = [site.paths[0] for site in found.sites.values()]
    assert paths == ["layers.0.linear1", "layers.1.linear1"]
    tied = nn.Sequential(
        *(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4)) for _ in "ab")
    )
    tied[1][0].weight = tied[0][0].weight
    rows = layer_inputs(tied, (x := randn(20, 4).float()))
    with torch.no_grad():
        assert torch.equal(rows.rows("1", "held_out").x, tied[0](rows.items["held_out"]))
    with pytest.raises(UsageError, match="what reaches 1 is the input of no linear module of its"):
        layer_inputs(nn.Sequential(nn.LayerNorm(4), Loose()), x)


def test_inputs_are_floats_as_the_module_has_them_and_some_are_fitted_to() -> None:
    module, x = Block(), randn(10, 4)
    assert x.dtype == torch.float64
    found = layer_inputs(module, x, held_out=0.99)
    assert {part: len(items) for part, items in found.items.items()} == {"fit": 1, "held_out": 9}
    single = layer_inputs(module, x.float(), held_out=0.99).rows("mlp", "held_out").x
    assert torch.equal(found.rows("mlp", "held_out").x, single)
    whole = layer_inputs(module, torch.ones(10, 4, dtype=torch.int64))
    with pytest.raises(
        UsageError, match=r"inputs of torch.int64 .* through the Block .* as floats"
    ):
        whole.rows("mlp")


def test_moments_are_those_of_all_rows() -> None:
    rows = torch.cat([randn(400, 3), 50 + 9 * randn(5, 3, seed=1)]) + torch.tensor([0, 1e4, 3])
    rows = torch.cat([rows, torch.full((405, 1), 0.1)], dim=1).double()
    found = row_moments([rows[:0], *rows.split(50), rows[:0]])
    centred = rows - rows.mean(dim=0)
    expected = centred.pow(4).mean(dim=0) / centred.square().mean(dim=0).square()
    assert torch.allclose(found.kurtosis[:3], expected[:3], rtol=1e-9)
    assert found.kurtosis[3].isnan()
    assert torch.allclose(found.mean, rows.mean(dim=0), rtol=1e-12)
    covariance = torch.cov(rows.T, correction=0)
    assert torch.allclose(found.covariance, covariance, rtol=1e-9, atol=1e-9)
    assert torch.equal(found.norms, rows.norm(dim=1))
    with pytest.raises(UsageError, match="no rows"):
        row_moments([rows[:0]])


def test_fits_are_of_documents_that_are_held_out(ours: Path, tmp_path: Path) -> None:
    options = {"train_steps": 0, "samples": 100, "threshold": 0.9, "seed": 0}
    given = layer_inputs(ours, TEXT, **SMALL, layers=["blocks.1.mlp"])
    (fit,) = fit_on_inputs(given, **options).fits
    rows, held = given.rows("blocks.1.mlp"), given.rows("blocks.1.mlp", "held_out")
    view = bl.load(ours).layers["blocks.1.mlp"]
    alone = bl.quadratic_fit(view, data=rows.x, held_out=held.x)
    assert [one.quadratic.value for one in fit.ladder] == pytest.approx(
        [scores.quadratic.overall for scores in alone.ladder.values()]
    )
    new = [row for row in held.x.tolist() if row not in rows.x.tolist()]  # first tokens repeat
    assert fit.ladder[0].rows == len(new) < len(held.x) == 180
    words = f"{len(new)} tokens in documents of grammar that nothing was fitted to"
    assert fit.assumed_input == words
    seen = fit.seen
    assert seen is not None
    assert seen.fitted == 720
    sizes = view.weights()(rows.x).norm(dim=1)
    assert seen.largest[0].output == pytest.approx(float(sizes.max()), rel=1e-5)
    assert given.tokenizer is not None
    place = rows.places[int(sizes.argmax())].tolist()
    assert [seen.largest[0].position, seen.largest[0].token] == place
    assert seen.largest[0].text == given.tokenizer.token(place[1])
    stored = fit_on_inputs(given.store(tmp_path / "kept"), **options)
    assert stored.fits[0].ladder[-1].quadratic.value == pytest.approx(
        fit.ladder[-1].quadratic.value, abs=1e-5
    )


def test_an_audit_reads_layers_on_what_they_see(ours: Path) -> None:
    model, inputs = bl.load(ours), layer_inputs(ours, TEXT, **SMALL)
    report = bl.audit(model, inputs=inputs, null_samples=3)
    assert isinstance(report, bl.AuditReport)
    record = report.record
    fits = fit_on_inputs(inputs).fits
    for layer, fit in zip(record.layers.readings, fits, strict=True):
        assert layer.fit is not None
        best = next(one for one in fit.ladder if one.fit == fit.chosen)
        assert layer.fit.quadratic == pytest.approx(best.quadratic.value)
        assert (layer.fit.seen, layer.fit.assumed_input) == (True, fit.assumed_input)
        assert layer.stability is None
    assert record.text is not None
    assert record.text.name == "grammar"
    (r2,) = [one for one in record.verdict if one.rule == "r2"]
    assert r2.values["on"] == "_seen"
    strict = bl.audit(model, inputs=inputs, null_samples=3, threshold=1.0)
    assert {layer["outputs"] for layer in strict.to_dict()["layers"]["readings"]} == {None}
    for lang, said in (("en", "held out from the fit"), ("ja", "当てはめに使っていない")):
        assert said in report.to_html(lang=lang)  # type: ignore[arg-type]
    plain = bl.audit(model, null_samples=3)
    for lang, said in (("en", "says nothing of real ones"), ("ja", "仮定した入力での")):
        assert said in plain.to_html(lang=lang)  # type: ignore[arg-type]
    part = dataclasses.replace(inputs, sites={"blocks.1.mlp": inputs.sites["blocks.1.mlp"]})
    mixed = bl.audit(model, inputs=part, null_samples=3).to_dict()
    assert [layer["fit"]["seen"] for layer in mixed["layers"]["readings"]] == [False, True]
    other = dataclasses.replace(inputs, about={"model_sha256": "0"})
    with pytest.raises(UsageError, match="layers of another model"):
        bl.audit(model, inputs=other)


def test_a_folder_of_hugging_face_is_audited_on_what_its_layers_see(
    ours: Path, tmp_path: Path
) -> None:
    module = bl.load(ours).module
    assert isinstance(module, BilinearTransformer)
    module.save_huggingface(tmp_path / "llama", tokenizer=ours / "tokenizer.json")
    scores = []
    for path in (ours, tmp_path / "llama"):
        inputs, model = layer_inputs(path, TEXT, **SMALL), bl.load(path)
        found = bl.audit(model, inputs=inputs, null_samples=3).to_dict()
        assert [layer["fit"]["seen"] for layer in found["layers"]["readings"]] == [True, True]
        scores += [[layer["fit"]["quadratic"] for layer in found["layers"]["readings"]]]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    renamed = {"layers.0.mlp": inputs.sites["blocks.0.mlp"]}
    with pytest.raises(UsageError, match="pass the path of the model to layer_inputs"):
        bl.audit(model, inputs=dataclasses.replace(inputs, sites=renamed))


def test_data_of_a_network_say_what_its_layers_see() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 5), nn.GELU(), nn.Linear(5, 2))
    x, labels = 0.3 * randn(600, 3) + 1, torch.arange(600) % 2
    found = bl.audit(module, (x, labels), null_samples=3).to_dict()
    assert [one["fit"]["seen"] for one in found["layers"]["readings"] if one["fit"]] == [True, True]
    assert found["layers"]["readings"][0]["fit"]["assumed_input"].startswith("120 rows of the data")
    assert found["layers"]["readings"][0]["fit"]["samples"] == 120
    few = bl.audit(module, (x[:499], labels[:499]), null_samples=3).to_dict()
    assert [one["fit"]["seen"] for one in few["layers"]["readings"] if one["fit"]] == [False, False]


def test_other_folders_texts_and_models_are_refused(ours: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    found = layer_inputs(ours, TEXT, **SMALL)
    stored = found.store(kept)
    with pytest.raises(UsageError, match="was started on other text"):
        layer_inputs(ours, dataclasses.replace(TEXT, limit=299), **SMALL).store(kept)
    with pytest.raises(UsageError, match=r"started with layers=\['blocks.0.mlp', 'blocks.1.mlp'\]"):
        layer_inputs(ours, TEXT, **SMALL, layers=["blocks.0.mlp"]).store(kept)
    other = dataclasses.replace(found, about={**found.about, "model_sha256": "0"})
    with pytest.raises(UsageError, match="this command says model_sha256='0'"):
        other.store(kept)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("a")
    for place in (tmp_path / "mine", tmp_path / "mine" / "a.txt"):
        with pytest.raises(OutputExistsError, match="holds no activations"):
            found.store(place)
    (path,) = kept.glob("fit-*")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="fit-00000"):
        stored.rows("blocks.0.mlp")


def test_a_disk_is_never_filled(
    ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = layer_inputs(ours, TEXT, **SMALL)
    usage = shutil.disk_usage(tmp_path)._replace(free=recorded_inputs.LEFT_FREE + 9)
    monkeypatch.setattr(recorded_inputs.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskError, match=r"0\.00 MiB to spare: take fewer tokens"):
        found.store(tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["run.json"]


def test_what_cannot_be_seen_is_refused(ours: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'blocks.7.mlp' is none of the layers .* blocks.0.mlp"):
        layer_inputs(ours, TEXT, layers=["blocks.7.mlp"], **SMALL)
    with pytest.raises(DataError, match="needs 7,999,992 tokens or more, and gets"):
        layer_inputs(ours, TEXT, tokens=9_999_999, n_ctx=12)
    with pytest.raises(DataError, match="a layer of 8 inputs needs 9 tokens or more, and gets 4"):
        layer_inputs(ours, TEXT, tokens=6, n_ctx=2)
    (tmp_path / "empty.txt").write_text("\n \n\n\n")
    with pytest.raises(DataError, match="0 documents; at least 2 were expected"):
        layer_inputs(ours, tmp_path / "empty.txt", **SMALL)
    with pytest.raises(UsageError, match="held_out must be"):
        layer_inputs(ours, TEXT, **SMALL, held_out=1.0)
    with pytest.raises(UsageError, match="pass the path of a language model and a text"):
        layer_inputs(nn.Linear(2, 2), TEXT)
    with pytest.raises(UsageError, match=r"shape \(3,\)"):
        layer_inputs(Block(), torch.zeros(3))
    with pytest.raises(UsageError, match="pass the path of a language model and a text"):
        layer_inputs(ours, torch.zeros(3, 4))
    with pytest.raises(UsageError, match="no "):
        layer_inputs(nn.Tanh(), torch.zeros(3, 4))
    broken = layer_inputs(Block(), torch.full((9, 4), torch.nan))
    with pytest.raises(NonFiniteError, match="what reaches mlp holds"):
        broken.rows("mlp")
    with pytest.raises(UsageError, match="only with data"):
        bl.quadratic_fit(bl.MLPWeights(randn(2, 3), randn(3, 2), "relu"), held_out=randn(20, 2))


class Behind(nn.Module):
    """An MLP behind a function of no weights."""

    def __init__(self, before: Any) -> None:
        super().__init__()
        self.before = before
        self.mlp = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Any:
        return self.mlp(self.before(x))


def test_rows_of_the_same_weights_run_otherwise_are_noticed(tmp_path: Path) -> None:
    one, other, x = Behind(torch.sin), Behind(torch.exp), randn(40, 4)
    other.load_state_dict(one.state_dict())
    layer_inputs(one, x).store(tmp_path / "kept")
    layer_inputs(one, x).store(tmp_path / "kept")
    with pytest.raises(UsageError, match="ran otherwise"):
        layer_inputs(other, x).store(tmp_path / "kept")


def test_inputs_that_stand_still_have_no_kurtosis() -> None:
    x = torch.ones(2000, 8)
    x[:, :3] = randn(2000, 3)
    module = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    (view,) = bl.from_module(module).layers.values()
    rows = LayerRows(x, torch.zeros(2000, 2, dtype=torch.int32))
    assert 2.0 < seen_inputs(view, rows, None).kurtosis[0] < 4.0


class Adding(nn.Module):
    """A block that adds its MLP to what it reads, in place or not, also to what it was given."""

    def __init__(self, in_place: bool, named: bool = False) -> None:
        super().__init__()
        self.in_place, self.named = in_place, named
        self.norm = nn.LayerNorm(4)
        self.a, self.b = nn.Linear(4, 64), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        made = self.b(torch.relu(self.a(input=h) if self.named else self.a(h)))
        if not self.in_place:
            return self.norm(h + made)
        h += made
        x.zero_()
        return self.norm(h)


@pytest.mark.parametrize("named", [False, True], ids=["by place", "by name"])
@pytest.mark.parametrize("files", [False, True], ids=["tensor", "files"])
def test_rows_are_as_a_layer_met_them_whatever_is_done_to_them_later(
    files: bool, named: bool, tmp_path: Path
) -> None:
    """R² was 1.000 of a layer whose own answer had been added to the rows that were kept."""
    for number, x in enumerate(data := randn(8, 20, 4).float()):
        np.save(tmp_path / f"{number}.npy", x.numpy())
    found = []
    for in_place in (False, True):
        torch.manual_seed(0)
        inputs = layer_inputs(
            Adding(in_place, named), tmp_path if files else data.clone(), held_out=0.5
        )
        (layer,) = inputs.sites
        found.append([inputs.rows(layer, part).x for part in ("fit", "held_out")])
        found[-1] += [inputs.rows(layer, "fit").x]  # again
    for plain, other in zip(*found, strict=True):
        assert torch.equal(plain, other)
        assert bool(plain.any())


class PostNorm(nn.Module):
    """A block that adds to its stream, in place or not, and calls its parts by keyword or not."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.norm = nn.LayerNorm(4, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(4, 6), nn.ReLU(way == "activation"), nn.Linear(6, 4))

    def forward(self, x: Tensor) -> Any:
        h = self.norm(x)
        if self.way == "sum":
            h += self.mlp(h)
        elif self.way == "keyword":
            h = h + self.mlp[2](input=self.mlp[1](self.mlp[0](input=h)))
        else:
            h = h + self.mlp(h)
        return self.norm(h)


@pytest.mark.parametrize("way", ["sum", "activation", "keyword"])
def test_rows_are_those_before_a_change_in_place(way: str, tmp_path: Path) -> None:
    module, x = PostNorm(way), 3 * randn(40, 4).float()
    expected = functional.layer_norm(x, (4,))
    for number, part in enumerate(x.chunk(2)):
        np.save(tmp_path / f"{number}.npy", part.numpy())
    for data in (x, str(tmp_path)):  # as rows in memory, and as files that it is run on
        seen = layer_inputs(module, data)
        assert [*seen.sites] == ["mlp"]
        rows = torch.cat([seen.rows("mlp", part).x for part in ("fit", "held_out")])
        apart = torch.cdist(rows.double(), expected.double())
        assert float(apart.min(1).values.max()) < 1e-5
        assert {*apart.argmin(1).tolist()} == {*range(40)}


def test_a_stream_that_a_block_changes_in_place_is_walked_as_it_was(ours: Path) -> None:
    host = open_host(ours)
    texts = torch.randint(0, host.module.config.vocab_size, (3, 8))  # type: ignore[union-attr, arg-type]
    walk, plain = Walk(host, texts, 3), Walk(host, texts, 3)
    block, whole = host.blocks[0], host.blocks[0].forward

    def in_place(x: Tensor, *more: Any, **named: Any) -> Any:
        made = whole(x, *more, **named)
        x.zero_()
        return made

    plain.advance()
    block.forward = in_place  # type: ignore[method-assign]
    walk.inputs([site for site in host.sites if site.block == 0])
    walk.advance()
    torch.testing.assert_close(walk.states[0], plain.states[0])


def test_an_edit_in_place_leaves_what_was_captured() -> None:
    seen = Hooks.for_run(["blocks.0.resid_post"], {"blocks.1.resid_pre": Tensor.zero_}, 2)
    x = torch.ones(2, 3)
    for layer, point in ((0, "resid_post"), (1, "resid_pre")):
        x = seen.observer(layer)(point, x)
    assert not x.any()
    assert bool((seen.captured["blocks.0.resid_post"] == 1).all())
