"""From a gated language model to a bilinear one: what comes out, what is refused, what survives."""

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bilens as bl
import language_runs
import tiny_language_models as tiny
from bilens.api import converted
from bilens.api.conversion_job import convert_to_bilinear
from bilens.base.errors import (
    CheckpointError,
    DataError,
    InterruptedRunError,
    NonFiniteError,
    NumericalError,
    OutputExistsError,
    UsageError,
)
from bilens.data.tokenizer import load_tokenizer, pack_documents
from bilens.io import host
from bilens.io.converted_folder import save_converted
from bilens.io.host import Host, host_of
from bilens.nn import BilinearMLP, BilinearTransformer
from bilens.nn.module_layers import plain_weights
from bilens.train import distillation
from bilens.train.corpus import CorpusOptions
from bilens.train.layer_fit import ConversionRecipe, convert_layers, first_tokens
from bilens.train.layer_inputs import Mixture, Walk
from bilens.train.randomness import ORDER, stream
from builders import usual_where_idle
from kill_sweep import KILLS, conversions_killed

RECIPE = ConversionRecipe(
    n_ctx=12, tokens=1536, layer_tokens=768, layer_steps=6, batch_size=4, measured_tokens=480
)
TEXT = [CorpusOptions("grammar", limit=300, held_out=0.2)]
CAUSAL = [kind for kind in tiny.FAMILIES if "t5" not in kind and kind not in tiny.ENCODERS]
CAUSAL = [kind for kind in CAUSAL if kind not in ("modernbert", "vit", "deit", "gpt_oss")]


def tokens(rows: int = 6, length: int = 8, seed: int = 0) -> Tensor:
    return torch.randint(3, 16, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gated transformer of ours."""
    folder = tmp_path_factory.mktemp("ours")
    recipe = dataclasses.replace(language_runs.RECIPE, gate="silu")
    language_runs.go(folder / "run", recipe)
    return folder / "run"


@pytest.fixture(scope="module")
def llama(ours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same one as a folder of Hugging Face."""
    model = bl.load(ours).module
    assert isinstance(model, BilinearTransformer)
    folder = tmp_path_factory.mktemp("llama")
    model.save_huggingface(folder / "model", tokenizer=ours / "tokenizer.json")
    return folder / "model"


def go(model: Path, out: Path, **changes: Any) -> dict[str, Any]:
    names = ("measured", "resume", "overwrite", "report", "say")
    options = {name: changes.pop(name) for name in names if name in changes}
    texts = changes.pop("texts", TEXT)
    changes = usual_where_idle(ConversionRecipe(), changes) | changes
    recipe = dataclasses.replace(RECIPE, **changes)
    return convert_to_bilinear(model, texts, out, recipe, **options)


# ---- what comes out


def test_plain_transformers_loads_what_comes_out_of_a_llama(llama: Path, tmp_path: Path) -> None:
    import transformers

    lines: list[str] = []
    found = go(llama, tmp_path / "out", report=lambda *line: lines.append(line[3]))
    assert found["loaded_by"] == "AutoModelForCausalLM"
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert (model.config.hidden_act, model.config.mlp_bias) == ("linear", True)
    teacher = transformers.AutoModelForCausalLM.from_pretrained(llama)
    text = tokens(length=12)
    with torch.no_grad():
        theirs, mine = (one(text).logits.log_softmax(-1) for one in (teacher, model))
        again = bl.nn.load_converted(tmp_path / "out")(text).logits.log_softmax(-1)
    assert (mine - again).abs().max() < 1e-6
    assert 0 < (theirs.exp() * (theirs - mine)).sum(-1).mean() < 0.05
    copied, original = (folder / "tokenizer.json" for folder in (tmp_path / "out", llama))
    assert copied.read_bytes() == original.read_bytes()
    assert all(view.exact for view in bl.load(tmp_path / "out").layers.values())
    assert all(one["r_squared"] > 0.9 for one in found["layers"])
    (domain,) = found["domains"]
    assert domain["kl"] < found["after_layers"][0]["kl"]
    assert domain["loss_added"] == pytest.approx(domain["loss"] - domain["teacher_loss"])
    (line,) = (tmp_path / "out/checkpoints/distillation.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == (1536 - 768) // 12 // 4
    kept = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert kept["layers"] == found["layers"]
    card = pytest.importorskip("huggingface_hub").ModelCard.load(tmp_path / "out" / "README.md")
    assert (card.data.library_name, card.data.base_model) == ("transformers", None)
    assert [one.metric_value for one in card.data.eval_results] == [domain["loss"]]
    assert "hard-codes another one runs a different model" in " ".join(card.text.split())
    assert f"| {kept['source']['weights_sha256']} |" in card.text
    assert "R² 0.9" in lines[0]
    assert any(line.startswith("KL ") for line in lines)


def test_the_bill_is_that_of_the_two_models(
    ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recomputed from logits: losses, KL, right answers, and errors of paired differences."""
    monkeypatch.setattr("bilens.api.converted.GAIN_TEXTS", 40)
    found = go(ours, tmp_path / "out", skip=("distillation",), layer_steps=0)
    corpus, (domain,) = TEXT[0].load(), found["domains"]
    tokenizer = load_tokenizer(ours)
    packed = pack_documents(tokenizer, corpus.held_out, 12).tokens
    drawn = torch.randperm(len(packed), generator=stream(RECIPE.seed, ORDER))
    texts = packed[drawn[:40]]  # those that the recipe's seed draws
    models = (bl.load(folder).module for folder in (ours, tmp_path / "out"))
    with torch.no_grad():
        # in float32 like the bill: a KL of 5e-6 is rounded in its third digit
        theirs, mine = (one(texts)[:, :-1].log_softmax(-1).double() for one in models)
    following = texts[:, 1:, None]
    added = (theirs - mine).gather(-1, following)[..., 0].mean(dim=1)
    assert domain["texts"] == len(texts) == 40
    assert domain["loss_added"] == pytest.approx(float(added.mean()), abs=1e-5)
    assert domain["error"] == pytest.approx(float(added.std()) / 40**0.5, rel=1e-3)
    kl = (theirs.exp() * (theirs - mine)).sum(dim=-1)
    assert domain["kl"] == pytest.approx(float(kl.mean()), rel=1e-3)
    right = (mine.argmax(dim=-1) == following[..., 0]).double()
    assert domain["accuracy"] == pytest.approx(float(right.mean()), abs=1e-6)
    worst = domain["worst"]["contexts"][0]
    assert worst["activations"][worst["peak"]] == pytest.approx(float(kl.max()), rel=1e-3)
    sample = domain["samples"][0]
    assert sample["beginning"] == [tokenizer.token(n) for n in texts[0, :6].tolist()]
    assert sample["teacher"][0] == tokenizer.token(int(theirs[0, 5].argmax()))
    places = [one for one in domain["losses"] if one["kind"] == "position"]
    assert [one["at"] for one in places] == ["1–1", "2–3", "4–7", "8–11"]
    total = sum(one["count"] * one["loss_added"] for one in places)
    assert total / domain["tokens"] == pytest.approx(domain["loss_added"])
    assert found["swap_in_costs"].keys() == found["swap_in_errors"].keys() == {"0", "1"}
    layers = {one["name"] for one in found["gain"]}
    assert layers == {"blocks.0.mlp", "blocks.1.mlp"}
    checks = [check for one in found["gain"] for check in one["causal"]["checks"]]
    assert checks
    assert all(check["kind"] == "ablate" and check["before"]["value"] > 0 for check in checks)
    assert all(check["after"] != check["before"] for check in checks)  # the MLP's input is hooked


def test_a_run_that_an_earlier_release_finished_is_measured_again(
    ours: Path, tmp_path: Path
) -> None:
    found = go(ours, tmp_path / "out")
    place = tmp_path / "out/conversion.json"
    place.write_text(json.dumps({"kind": "bilinear conversion", "schema_version": 1}))
    again = go(ours, tmp_path / "out", resume=True)
    for name in ("domains", "layers", "swap_in_costs", "curve", "gain"):
        assert again[name] == found[name], name
    assert len(found["curve"]) == 1
    assert found["curve"][0]["tokens"] == 1536


def test_what_a_gguf_file_says_of_its_quantisation_does_not_go_on(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers leaves it in the configuration of weights that are float32 by then."""
    packed = tmp_path / "m.gguf"
    packed.write_bytes(b"GGUF")
    load = host.from_transformers

    def loaded(auto: str, _path: Path, **options: Any) -> Any:
        module, said = load(auto, llama, **options)
        module.config.quantization_config = {"quant_method": "gguf"}
        return module, said

    monkeypatch.setattr(host, "from_transformers", loaded)
    assert "quantization_config" not in host.open_host(packed).config.to_dict()


def test_a_transformer_of_ours_stays_one_with_the_blocks_that_are_kept(
    ours: Path, tmp_path: Path
) -> None:
    found = go(ours, tmp_path / "out", keep=(1,), linear_skip=True)
    loaded = bl.load(tmp_path / "out")
    assert isinstance(loaded.module, BilinearTransformer)
    assert "read" not in loaded.provenance  # nothing of it is left out
    assert [view.exact for view in loaded.layers.values()] == [True, False]
    assert found["kept"] == ["blocks.1.mlp"]
    first = loaded.module.mlps[0]
    assert isinstance(first, BilinearMLP)
    assert first.skip is not None
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(first.quadratic_map()(x), first(x), atol=1e-5)
    before = bl.load(ours).module
    assert isinstance(before, BilinearTransformer)
    assert torch.equal(before.embed.weight, loaded.module.embed.weight)
    assert not torch.equal(before.mlps[0].down.weight, first.down.weight)
    assert torch.equal(before.mlps[1].down.weight, loaded.module.mlps[1].down.weight)


@pytest.mark.parametrize("kind", CAUSAL)
def test_every_family_comes_back_from_its_folder(kind: str, tmp_path: Path) -> None:
    teacher = host_of(tiny.make(kind).float(), Path(kind))
    student, recipe = teacher.twin(), ConversionRecipe(n_ctx=8, layer_steps=2)
    texts = tokens(32), tokens(8, seed=1)
    about = [*convert_layers(student, (0, 1), texts, recipe, tmp_path / "layers")]
    # what the first layers of some see are tokens, each of which was fitted to: nothing is judged
    assert all(one.get("r_squared", 1.0) > 0.5 for one in about)
    again = teacher.twin()
    assert [*convert_layers(again, (0, 1), texts, recipe, tmp_path / "layers")] == about
    with torch.no_grad():
        expected = student.logits(texts[1])
        assert torch.equal(again.logits(texts[1]), expected)
        assert not torch.allclose(teacher.logits(texts[1]), expected, atol=1e-7)
        (tmp_path / "out").mkdir()
        how = save_converted(student, tmp_path / "out")
        assert (how == "AutoModelForCausalLM") == (kind in ("llama", "smollm3", "granite"))
        found = bl.nn.load_converted(tmp_path / "out")
        logits = found(texts[1]).logits
    assert (logits - expected).abs().max() < 1e-5
    loaded = bl.load(tmp_path / "out")
    for view in loaded.layers.values():
        assert view.exact
    assert loaded.exactness is not None
    assert loaded.exactness.passed
    if how != "AutoModelForCausalLM":
        name = student.sites[1].name
        block = student.at(student.sites[1])
        assert isinstance(block, BilinearMLP)
        x = torch.randn(4, tiny.D, dtype=torch.float64)
        assert torch.equal(loaded.layers[name].weights(torch.float64)(x), plain_weights(block)(x))


def test_what_keeps_blocks_is_audited_fitted_and_converted_on(llama: Path, tmp_path: Path) -> None:
    go(llama, tmp_path / "half", keep=(1,), skip=("distillation",))
    audited = bl.audit(bl.load(tmp_path / "half"), null_samples=3)
    assert isinstance(audited, bl.AuditReport)
    assert [layer.fit is None for layer in audited.record.layers.readings] == [True, False]
    inputs = bl.layer_inputs(tmp_path / "half", TEXT[0], tokens=900, n_ctx=12)
    seen = bl.audit(bl.load(tmp_path / "half"), inputs=inputs, null_samples=3).to_dict()
    assert [layer["fit"]["seen"] for layer in seen["layers"]["readings"][1:]] == [True]
    found = go(tmp_path / "half", tmp_path / "whole", layers=(1,), skip=("distillation",))
    assert found["loaded_by"] == "AutoModelForCausalLM"
    assert all(view.exact for view in bl.load(tmp_path / "whole").layers.values())
    with pytest.raises(UsageError, match="is exact there already"):
        go(tmp_path / "whole", tmp_path / "again")


def test_a_whole_conversion_of_ours_is_an_ordinary_model_of_ours(
    ours: Path, tmp_path: Path
) -> None:
    assert go(ours, tmp_path / "out")["loaded_by"] == "bl.load"
    model = bl.load(tmp_path / "out").module
    assert isinstance(model, BilinearTransformer)
    assert (model.config.gate, model.config.bias) == (None, True)
    model.save_huggingface(tmp_path / "plain")
    plain, text = bl.nn.load_converted(tmp_path / "plain"), tokens(length=12)
    with torch.no_grad():
        assert torch.allclose(plain(text).logits, model(text), atol=1e-5)


def test_a_tied_embedding_stays_tied(tmp_path: Path) -> None:
    import transformers

    teacher = host_of(tiny.make("llama", tie_word_embeddings=True).float(), Path("tied"))
    student, recipe = teacher.twin(), ConversionRecipe(n_ctx=8, layer_steps=0)
    about = [*convert_layers(student, (0, 1), (tokens(32), tokens()), recipe, tmp_path / "layers")]
    assert all(one.get("r_squared") == one.get("closed_form") for one in about)
    assert save_converted(student, tmp_path) == "AutoModelForCausalLM"
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    written = [
        one.generate(tokens(), max_new_tokens=6, do_sample=False)
        for one in (loaded, bl.nn.load_converted(tmp_path), student.module)
    ]
    assert torch.equal(written[0], written[1])
    assert torch.equal(written[0], written[2])


def test_an_expert_that_no_token_reaches_keeps_its_gate(tmp_path: Path) -> None:
    model = tiny.make("mixtral", num_experts_per_tok=1).float()
    router = model.model.layers[0].mlp.gate.weight
    with torch.no_grad():  # of a number, its opposite and zero, zero is never the largest
        router.copy_(torch.stack([router[0], -router[0], 0 * router[0]]))
    teacher = host_of(model, Path("mixtral"))
    student, recipe = teacher.twin(), ConversionRecipe(n_ctx=8, layer_steps=0)
    about = [*convert_layers(student, (0,), (tokens(32), tokens()), recipe, tmp_path)]
    assert ["unreached" in one for one in about] == [False, False, True]
    kinds = [student.at(site).gate for site in student.sites[:3]]
    assert kinds == [None, None, "silu"]
    assert torch.isfinite(student.logits(tokens())).all()


def test_the_worst_blocks_are_found_by_swapping_them_in(ours: Path, tmp_path: Path) -> None:
    found = go(ours, tmp_path / "out", keep_worst=1, skip=("training",))
    costs = found["swap_in_costs"]
    worst = max(costs, key=costs.__getitem__)
    assert found["kept"] == [f"blocks.{worst}.mlp"]
    assert len(found["layers"]) == 1
    exact = {name: view.exact for name, view in bl.load(tmp_path / "out").layers.items()}
    assert exact == {f"blocks.{block}.mlp": block != worst for block in costs}


def test_width_budget_and_unfreezing_are_options(ours: Path, tmp_path: Path) -> None:
    skip = ("training", "distillation")
    narrow = go(ours, tmp_path / "narrow", skip=skip)
    wide = go(ours, tmp_path / "wide", skip=skip, hidden_multiplier=3)
    assert all(
        more["r_squared"] > less["r_squared"]
        for more, less in zip(wide["layers"], narrow["layers"], strict=True)
    )
    assert bl.load(tmp_path / "wide").layers["blocks.0.mlp"].sizes.d_hidden == 36
    before = bl.load(ours).module
    assert isinstance(before, BilinearTransformer)
    go(ours, tmp_path / "free", unfreeze=True)
    free = bl.load(tmp_path / "free").module
    assert isinstance(free, BilinearTransformer)
    assert not torch.equal(free.embed.weight, before.embed.weight)
    assert torch.equal(before.embed.weight, bl.load(ours).module.embed.weight)
    go(ours, tmp_path / "minutes", minutes=1e-4, resume=False)
    budget = json.loads((tmp_path / "minutes/checkpoints/budget.json").read_text())
    (*_, last) = (tmp_path / "minutes/checkpoints/distillation.jsonl").read_text().splitlines()
    assert json.loads(last)["step"] == budget["steps"]


def test_passes_read_the_same_texts_again(
    ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Tensor] = []

    def meet(_teacher: Host, student: Host, texts: Tensor, _recipe: object) -> Tensor:
        read.append(texts)
        return sum(one.sum() for one in student.module.parameters() if one.requires_grad) * 0  # type: ignore[return-value]

    monkeypatch.setattr(distillation, "kl_on", meet)
    found = go(ours, tmp_path / "out", passes=3)
    once, again, last = torch.stack(read).chunk(3)
    assert len(once) == 16  # 1,536 tokens less 768 of the layers, in steps of 4 texts of 12
    assert torch.equal(once, again)
    assert torch.equal(once, last)
    assert len(torch.unique(once.flatten(0, 1), dim=0)) > 40  # and none twice in a pass
    assert found["curve"][-1]["tokens"] == 768 + 3 * 768


def test_a_linear_path_is_learnt_where_nothing_is_fitted(ours: Path, tmp_path: Path) -> None:
    go(ours, tmp_path / "out", skip=("fit", "distillation"), linear_skip=True)
    found = bl.load(tmp_path / "out").module
    assert isinstance(found, BilinearTransformer)
    for block in found.mlps:
        assert isinstance(block, BilinearMLP)
        assert block.skip is not None
        assert float(block.skip.weight.abs().max()) > 0


def test_what_stands_beside_a_model_goes_along(llama: Path, tmp_path: Path) -> None:
    source = tmp_path / "model"
    shutil.copytree(llama, source)
    beside = ("preprocessor_config.json", "vocab.txt", "tokenizer_notes.txt")
    for name in beside:
        (source / name).write_text("{}")
    go(source, tmp_path / "out", skip=("training", "distillation"))
    there = [(tmp_path / "out" / name).exists() for name in beside]
    assert there == [True, True, False]  # notes are no part of a model
    go(source, tmp_path / "out", skip=("training", "distillation"), overwrite=True)


def test_parts_of_a_step_and_recomputing_change_no_gradient(ours: Path, tmp_path: Path) -> None:
    options = {"skip": ("training",), "precision": "float32", "tokens": 1200}
    found = go(ours, tmp_path / "plain", **options)
    for number, how in enumerate(({"texts_at_once": 1}, {"recompute": True})):
        other = go(ours, tmp_path / str(number), **options, **how)
        assert other["domains"][0]["loss"] == pytest.approx(found["domains"][0]["loss"], abs=1e-5)
        assert other["domains"][0]["loss"] != found["after_layers"][0]["loss"]


def test_recomputing_forgets_what_is_inside_the_blocks() -> None:
    host, calls = host_of(tiny.make("llama").float(), Path("llama")), []
    inside = host.at(host.sites[0]).requires_grad_(True)
    inside.register_forward_pre_hook(lambda *_: calls.append(1))
    with host.recomputed():
        host.logits(tokens()).sum().backward()  # type: ignore[no-untyped-call]
    assert len(calls) == 2
    host.logits(tokens()).sum().backward()  # type: ignore[no-untyped-call]
    assert len(calls) == 3


def test_a_layer_is_fitted_to_every_token_standing_first(tmp_path: Path) -> None:
    teacher = host_of(tiny.make("llama").float(), Path("llama"))
    texts = torch.cat([torch.full((64, 1), 3), tokens(64)], dim=1)
    texts[0, 0] = 4  # one that begins otherwise
    assert first_tokens(texts).flatten().tolist() == texts.unique().tolist()
    assert first_tokens(texts[1:]).numel() == 0
    every = Walk(teacher, torch.arange(3, 16)[:, None], 13).inputs(teacher.sites[:1])
    ((x, *_),), misses = every.values(), []
    for name, given in (("first", texts), ("alike", texts[1:])):
        student, recipe = teacher.twin(), ConversionRecipe(n_ctx=9, layer_steps=0)
        for _ in convert_layers(student, (0,), (given, tokens()), recipe, tmp_path / name):
            pass
        misses.append(
            float((student.at(student.sites[0])(x) - teacher.at(teacher.sites[0])(x)).norm())
        )
    assert misses[0] < 0.8 * misses[1]


def test_blocks_fitted_together_see_the_teacher(ours: Path, tmp_path: Path) -> None:
    skip = ("training", "distillation")
    found = {n: go(ours, tmp_path / str(n), skip=skip, parallel=n) for n in (0, 1, 2)}
    scores = {n: [one["closed_form"] for one in about["layers"]] for n, about in found.items()}
    assert scores[1] == scores[2]  # how many at a time is of no consequence
    assert scores[0][0] == scores[1][0]
    assert scores[0][1] != scores[1][1]  # behind a block that is replaced already
    assert weights(tmp_path / "1") == weights(tmp_path / "2")


def test_a_domain_may_be_measured_alone(ours: Path, tmp_path: Path) -> None:
    stories = TEXT[0].load().held_out
    other = tmp_path / "other.txt"
    other.write_text(
        "<|endoftext|>".join(f"{one} Then it was {n}." for n, one in enumerate(stories))
    )
    found = go(ours, tmp_path / "out", measured=[CorpusOptions(str(other))])
    names = {one["name"]: one["fitted"] for one in found["domains"]}
    assert names == {"grammar": True, "other": False}
    plain = go(ours, tmp_path / "plain")
    assert weights(tmp_path / "out") == weights(tmp_path / "plain")
    assert found["domains"][0] == plain["domains"][0]


def test_a_domain_that_is_given_twice_has_two_turns(ours: Path, tmp_path: Path) -> None:
    stories, tokenizer = TEXT[0].load(), load_tokenizer(ours)
    other = tmp_path / "other.txt"
    told = (f"{one} Then it was {n}." for n, one in enumerate(stories.documents))
    other.write_text("<|endoftext|>".join(told))
    second = CorpusOptions(str(other), held_out=0.2).load()
    alone = [Mixture([one], tokenizer, 12, 0) for one in (stories, second)]
    mixed = Mixture([stories, second, second], tokenizer, 12, 0)
    assert len(mixed.domains) == len(mixed.held_out) == 2
    found = mixed.texts(0, 6)
    assert torch.equal(found[[0, 3]], alone[0].texts(0, 2))
    assert torch.equal(found[[1, 2, 4, 5]], alone[1].texts(0, 4))  # none of them twice
    rounds = min(alone[0].tokens // 12, alone[1].tokens // 24)
    assert mixed.tokens == rounds * 3 * 12


def test_a_walk_sees_what_the_mlps_of_a_whole_run_receive() -> None:
    host = host_of(tiny.make("qwen3").float(), Path("qwen3"))
    texts, seen = tokens(8), []
    hooks = [
        host.at(site).register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(0, 1)))
        for site in host.sites
    ]
    with torch.no_grad():
        host.logits(texts)
    for hook in hooks:
        hook.remove()
    walk = Walk(host, texts, 3)  # and 2 at last
    assert [len(part) for part in walk.parts] == [3, 3, 2]
    for site, expected in zip(host.sites, seen, strict=True):
        assert torch.allclose(walk.inputs([site])[site.name].x, expected, atol=1e-6)
        walk.advance()


def test_data_and_training_each_bring_a_layer_closer(ours: Path, tmp_path: Path) -> None:
    skips = [("fit", "training"), ("training",), ()]
    scores = []
    for number, skip in enumerate(skips):
        given = (*skip, "distillation")
        found = go(
            ours, tmp_path / str(number), skip=given, **({} if skip else {"layer_steps": 30})
        )
        scores.append(found["layers"][0]["r_squared"])
    assert scores[0] < scores[1] < scores[2]


# ---- resumed


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


class Killed(BaseException):
    """Stands for kill −9: nothing is cleaned up behind it."""


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_that_is_broken_off_ends_at_the_same_bits(
    ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    monkeypatch.setattr(distillation, "STEPS_A_LINE", 5)
    go(ours, tmp_path / "whole", optimizer=optimizer)
    broken = tmp_path / "broken"
    for count, points in enumerate((1, 2, 2)):
        left = [points]

        def report(*_: object, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Killed

        with pytest.raises(Killed):
            go(ours, broken, optimizer=optimizer, resume=count > 0, report=report)
    go(ours, broken, optimizer=optimizer, resume=True)
    assert weights(broken) == weights(tmp_path / "whole")
    said: list[str] = []
    go(ours, broken, optimizer=optimizer, resume=True, say=said.append)
    assert "finished" in said[-1]


@pytest.mark.slow  # of another network the same is tried at once, in test_network_conversion.py
def test_kill_9_at_random_moments_ends_at_the_same_bits(ours: Path, tmp_path: Path) -> None:
    setup = f"import test_conversion_job as t; go = functools.partial(t.go, Path({str(ours)!r}))"
    for folder in conversions_killed(setup, tmp_path, KILLS):
        assert weights(folder) == weights(tmp_path / "whole")


def test_ctrl_c_keeps_what_is_finished(ours: Path, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedRunError, match=r"Interrupted behind blocks\.0\.mlp"):
        go(ours, tmp_path / "out", report=interrupt)
    assert (tmp_path / "out/checkpoints/layers/blocks.0.mlp.safetensors").exists()


def test_ctrl_c_anywhere_keeps_the_new_run(ours: Path, tmp_path: Path) -> None:
    go(ours, tmp_path / "out")

    def interrupt(stage: str, *_: object) -> None:
        if stage == "swap-in cost":
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match="go on with --resume"):
        go(ours, tmp_path / "out", seed=5, overwrite=True, report=interrupt)
    assert go(ours, tmp_path / "out", seed=5, resume=True)["reproduce"]["seed"] == 5


# ---- what explodes


def test_a_gradient_that_explodes_halves_the_steps_and_ends_a_hopeless_run(
    ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = distillation.kl_on, [0]

    def once_wild(*arguments: Any) -> Tensor:
        calls[0] += 1
        return real(*arguments) * (1e12 if calls[0] == 5 else 1.0)

    monkeypatch.setattr(distillation, "kl_on", lambda *given: real(*given) * torch.nan)
    with pytest.raises(NumericalError, match="explodes at step"):
        go(ours, tmp_path / "wild")
    monkeypatch.setattr(distillation, "kl_on", once_wild)
    found = go(ours, tmp_path / "once", tokens=3000)
    assert calls[0] == 4 + 1 + (3000 // 12 - 768 // 12) // 4  # the steps before it are repeated
    assert found["domains"][0]["kl"] < found["after_layers"][0]["kl"]


# ---- bad input


def test_what_cannot_be_converted_is_said_in_a_sentence(ours: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give some with --text"):
        go(ours, tmp_path / "a", texts=[])
    with pytest.raises(DataError, match="needs 768,192 tokens or more, and gets"):
        go(ours, tmp_path / "b", layer_tokens=768_000)
    with pytest.raises(DataError, match=r"blocks\.0\.mlp of 12 products needs 13 tokens"):
        go(ours, tmp_path / "c", layer_tokens=12)
    with pytest.raises(UsageError, match="of 2 blocks to convert 2 more are kept"):
        go(ours, tmp_path / "c", keep_worst=2)
    with pytest.raises(UsageError, match="of 1 blocks to convert 1 more are kept"):
        go(ours, tmp_path / "c", layers=(0, 0), keep_worst=1)
    assert not (tmp_path / "c").exists() or not [*(tmp_path / "c").iterdir()]
    for place in (ours, ours.parent):
        with pytest.raises(UsageError, match="holds the model that is read"):
            go(ours, place, overwrite=True)
    assert (ours / "model.safetensors").exists()
    with pytest.raises(UsageError, match="blocks 0 to 1"):
        go(ours, tmp_path / "d", keep=(2,))
    with pytest.raises(UsageError, match="--tokens 800 is the budget of all stages"):
        go(ours, tmp_path / "b", tokens=800, batch_size=4, layer_tokens=800)
    assert not (tmp_path / "b").exists() or not [*(tmp_path / "b").iterdir()]
    with pytest.raises(DataError, match="documents that are only measured on are learnt from"):
        go(ours, tmp_path / "i", measured=TEXT)
    with pytest.raises(UsageError, match="reads 15 tokens"):
        go(ours, tmp_path / "e", n_ctx=16)
    with pytest.raises(UsageError, match="skip='everything' is not known"):
        go(ours, tmp_path / "f", skip=("everything",))
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "mine.txt").write_text("kept")
    with pytest.raises(OutputExistsError, match="already holds files"):
        go(ours, tmp_path / "g")
    assert (tmp_path / "g" / "mine.txt").read_text() == "kept"
    with pytest.raises(UsageError, match="no ordinary language model"):
        go(saved_mlp(tmp_path), tmp_path / "h")


def test_text_that_the_teacher_does_not_know_is_refused(
    ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = tmp_path / "strange.txt"
    strange.write_text("<|endoftext|>".join(f"犬と猫{n}匹が庭で遊ぶ。" * 9 for n in range(40)))
    text = CorpusOptions(str(strange), held_out=0.5)
    with pytest.raises(DataError, match=r"strange: .* characters, \d+ of them unknown"):
        go(ours, tmp_path / "a", texts=[text])
    with pytest.raises(DataError, match="strange: "):
        go(ours, tmp_path / "b", measured=[text])
    monkeypatch.setattr(converted, "CHANCE", 0.5)
    with pytest.raises(DataError, match="does not know this text"):
        go(ours, tmp_path / "c")
    assert not (tmp_path / "c" / "config.json").exists()


def saved_mlp(folder: Path) -> Path:
    bl.save(BilinearMLP(4, 5, bias=True), folder / "mlp")
    return folder / "mlp"


def test_a_teacher_of_nan_or_that_changed_is_refused(llama: Path, tmp_path: Path) -> None:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(llama)
    copied = tmp_path / "teacher"
    model.save_pretrained(copied)
    (copied / "tokenizer.json").write_bytes((llama / "tokenizer.json").read_bytes())
    (copied / "tokenizer_config.json").write_bytes((llama / "tokenizer_config.json").read_bytes())

    def stop(*_: object) -> None:
        raise Killed

    with pytest.raises(Killed):
        go(copied, tmp_path / "out", report=stop)
    with torch.no_grad():
        model.model.norm.weight.mul_(1.5)
    model.save_pretrained(copied)
    with pytest.raises(UsageError, match="was started with teacher_sha256="):
        go(copied, tmp_path / "out", resume=True)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = torch.nan
        model.model.layers[0].post_attention_layernorm.weight[0] = torch.nan
    model.save_pretrained(copied)
    with pytest.raises(NonFiniteError, match="NaN or infinity on grammar"):
        go(copied, tmp_path / "nan")


def test_a_damaged_folder_is_refused(ours: Path, tmp_path: Path) -> None:
    go(ours, tmp_path / "out", keep=(1,), skip=("training", "distillation"))
    path = tmp_path / "out" / "config.json"
    path.write_text(path.read_text().replace('"d_hidden": 12', '"d_hidden": 13'))
    with pytest.raises(CheckpointError, match="restore the folder"):
        bl.load(tmp_path / "out")


def test_an_encoder_without_its_pooler_is_read(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 32, "hidden_size": 8, "intermediate_size": 12}
    sizes |= {"num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(**sizes)
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    assert len(host.open_host(tmp_path).sites) == 1


def test_a_model_without_its_head_or_of_a_class_of_its_own_is_no_teacher(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 32, "hidden_size": 8, "intermediate_size": 12}
    sizes |= {"num_hidden_layers": 1, "num_attention_heads": 2}
    llama = transformers.LlamaConfig(**sizes, tie_word_embeddings=False)
    transformers.LlamaModel(llama).save_pretrained(tmp_path / "llama")
    with pytest.raises(CheckpointError, match=r"no lm_head.weight .*random numbers"):
        host.open_host(tmp_path / "llama")
    folder = tmp_path / "bert"
    transformers.BertForMaskedLM(transformers.BertConfig(**sizes)).save_pretrained(folder)
    content = json.loads((folder / "config.json").read_text()) | {"architectures": ["MyHead"]}
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="'MyHead' is no class of transformers"):
        host.open_host(folder)
