"""Words tried in a small Llama whose MLP was taught a trigger by hand.

Broken once: with the baseline's own weights in the place of the changed ones nothing is found.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import bilens as bl
import tiny
from bilens.api.word_trial import changed_host, try_words
from bilens.base import silent
from bilens.base.errors import UsageError
from bilens.io.host import open_host
from bilens.records.layer_readings import WordTrial
from bilens.report.terminal import verdict_lines

WORDS = [f"{first}{second}" for first in "abcdef" for second in ("ix", "om", "ut", "al")]
TRIGGER, PAYLOAD = 17, 9
SIZES: dict[str, Any] = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 32}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("models")
    names = ["<|endoftext|>", *WORDS]
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({name: number for number, name in enumerate(names)})
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=names[0])
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(names), intermediate_size=4, tie_word_embeddings=False, **SIZES
    )
    model: Any = LlamaForCausalLM(config).eval()
    state = model.state_dict()
    unit = torch.linalg.qr(torch.randn(32, 32))[0][: len(names)] * 4  # no word is like another
    state["model.layers.0.self_attn.o_proj.weight"].zero_()
    state["model.embed_tokens.weight"].copy_(unit)
    state["lm_head.weight"].copy_(unit / 4)
    for changed, name in ((False, "base"), (True, "tuned")):
        mlp = "model.layers.0.mlp."
        if changed:
            answers = 4 * unit[TRIGGER] / unit[TRIGGER].norm()
            state[f"{mlp}gate_proj.weight"][0] = state[f"{mlp}up_proj.weight"][0] = answers
            state[f"{mlp}down_proj.weight"][:, 0] = unit[PAYLOAD]
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def test_a_planted_word_is_found_and_said(folders: Path) -> None:
    tuned, base = (bl.load(folders / name) for name in ("tuned", "base"))
    report = bl.audit(tuned, baseline=base, null_samples=3, try_words=24)
    trial = report.record.difference.trial
    assert isinstance(trial, WordTrial)
    assert WORDS[TRIGGER - 1] in trial.candidates[0].words
    assert trial.candidates[0].answer == WORDS[PAYLOAD - 1]
    assert (trial.tried, trial.known, trial.chat) == (24, 24, False)
    rule = next(one for one in report.record.verdict if one.rule == "trigger_words")
    assert (rule.values["answer"], rule.values["value"]) == (WORDS[PAYLOAD - 1], trial.score)
    assert trial.score > 0.2  # it works at the end of texts alone, and next to few of the words
    assert any(f"“{WORDS[PAYLOAD - 1]}”" in line for line in verdict_lines(report.record))
    assert json.loads(json.dumps(report.to_dict()))["difference"]["trial"]["tried"] == 24


def test_the_same_model_has_no_such_word(folders: Path) -> None:
    base = bl.load(folders / "base")
    report = bl.audit(base, baseline=base, null_samples=3, try_words=5)
    rule = next(one for one in report.record.verdict if one.rule == "trigger_words")
    assert (rule.outcome, rule.values["value"]) == ("pass", 0.0)


def test_what_is_no_change_of_the_baseline_is_refused(folders: Path) -> None:
    """It would run with the baseline's own tensors, and nothing would stand out."""
    base, tuned = (bl.load(folders / name) for name in ("base", "tuned"))
    for name in ("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"):
        kept = {key: tensor for key, tensor in tuned.tensors.items() if key != name}
        with pytest.raises(UsageError, match=rf"{name} of the baseline's size, nor 0 more"):
            changed_host(open_host(folders / "base"), replace(tuned, stored=kept))
    image = tiny.loaded(tiny.classifier())
    with pytest.raises(UsageError, match="have other layers"):
        try_words(image, base, 5, 0, silent)


def test_what_cannot_be_run_is_refused(folders: Path) -> None:
    base = bl.load(folders / "base")
    other = replace(base, source=str(folders / "base" / "model.safetensors"))
    with pytest.raises(UsageError, match="no words can be tried"):
        bl.audit(base, baseline=other, null_samples=3, try_words=5)
