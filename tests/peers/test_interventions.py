"""One direction is found in weights and changed in three hosts, as they are installed.

The hosts are TransformerLens, nnsight and transformers itself; `make test-peers` installs them.
Broken once: with the direction taken out behind the layer in one of them.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bilens as bl
from bilens.base.errors import UsageError

transformers = pytest.importorskip("transformers")
lens = pytest.importorskip("transformer_lens.model_bridge", reason="`make test-peers` installs it")
nnsight = pytest.importorskip("nnsight", reason="`make test-peers` installs it")

VOCABULARY, WIDTH, PLANTED = 50, 16, 7
TEXT = torch.randint(VOCABULARY, (4, 9), generator=torch.Generator().manual_seed(3))
HOSTS = ("transformers", "TransformerLens", "nnsight")
KINDS = ("llama", "gpt2")


def tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = models.WordLevel({f"t{one}": one for one in range(VOCABULARY)}, "t0")
    made = Tokenizer(words)
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    names = ("unk_token", "bos_token", "eos_token", "pad_token")
    special = {name: f"t{one}" for one, name in enumerate(names)}
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special).save_pretrained(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


def language_model(kind: str) -> tuple[Any, Tensor]:
    """Return a model whose last MLP writes one token where its input has a direction."""
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2}
    if kind == "llama":
        config = transformers.LlamaConfig(
            hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=32, **sizes,
        )  # fmt: skip
        model = transformers.LlamaForCausalLM(config).eval()
        mlp = model.model.layers[1].mlp
        ends = (mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight.T)
    else:
        config = transformers.GPT2Config(n_embd=WIDTH, n_layer=2, n_head=2, n_positions=32, **sizes)
        model = transformers.GPT2LMHeadModel(config).eval()
        mlp = model.transformer.h[1].mlp
        ends = (mlp.c_fc.weight.T, mlp.c_proj.weight)
    direction = torch.nn.functional.normalize(torch.randn(WIDTH), dim=0)
    unembedding = model.lm_head.weight[PLANTED]
    with torch.no_grad():
        for branch in ends[:-1]:
            branch[0] = 2 * direction
        ends[-1][0] = 3 * unembedding / unembedding.norm()
    return model, direction


def in_host(host: str, kind: str, folder: Path) -> tuple[Any, Callable[[], Tensor], Tensor]:
    """Return a model as a host has it, what runs it on the text, and the planted direction."""
    model, direction = language_model(kind)
    if host == "transformers":
        return model, lambda: model(TEXT).logits, direction
    if host == "TransformerLens":
        bridge = lens.TransformerBridge.boot_transformers(
            "tiny", hf_model=model, tokenizer=tokenizer(folder)
        )
        return bridge, lambda: bridge(TEXT), direction
    wrapped = nnsight.TransformersModel(model, task="text-generation", tokenizer=tokenizer(folder))

    def run() -> Tensor:
        with wrapped.trace({"input_ids": TEXT}):
            logits = wrapped.output.logits.save()
        return logits  # noqa: RET504 - nnsight runs the block

    return wrapped, run, direction


Changed = Callable[[Any, str, Tensor, bl.Recording], AbstractContextManager[bl.Intervention]]
CHANGES: dict[str, Changed] = {
    "ablate": lambda x, layer, d, _: bl.ablate(x, layer, d),
    "mean": lambda x, layer, d, seen: bl.ablate(x, layer, d, mean=seen.mean, positions=-1),
    "control": lambda x, layer, d, _: bl.ablate(x, layer, d, control=0),
    "steer": lambda x, layer, d, _: bl.steer(x, layer, d, 3.0, positions=[0, 2]),
    "patch": lambda x, layer, d, seen: bl.patch(x, layer, seen.runs[0].flip(0), d),
    "output": lambda x, layer, d, _: bl.steer(x, layer, d, -2.0, at="output"),
}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_planted_direction_has_one_effect_in_all_hosts(kind: str, tmp_path: Path) -> None:
    made: dict[str, dict[str, Tensor]] = {}
    for host in HOSTS:
        model, run, planted = in_host(host, kind, tmp_path)
        read = bl.from_module(model)
        layer = [*read.layers][1]
        if host == "TransformerLens":
            assert layer == "blocks.1.mlp"
            assert f"{layer}.hook_in" in model.hook_dict
        unembedding = language_model(kind)[0].lm_head.weight[PLANTED].double()
        form = bl.quadratic_fit(read.layers[layer]).quadratic_map.form(unembedding)
        found = bl.eigendecompose(form).eigenvectors[0]
        assert abs(float(found @ planted.double())) > 0.95
        before = run()
        with bl.record(model, layer) as seen:
            run()
        made[host] = {"": before}
        for name, change in CHANGES.items():
            with change(model, layer, found, seen) as counted:
                made[host][name] = run()
            assert counted.runs == 1
        assert torch.equal(run(), before)
    ours = made["transformers"]
    for host in HOSTS[1:]:
        for name, logits in made[host].items():
            torch.testing.assert_close(logits, ours[name], rtol=0, atol=1e-5, msg=f"{host} {name}")
    effect = {name: (ours[""] - ours[name])[..., PLANTED].abs().mean() for name in CHANGES}
    assert effect["ablate"] > 3 * effect["control"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_bridge_whose_weights_were_processed_is_read_again(kind: str, tmp_path: Path) -> None:
    bridge, _, planted = in_host("TransformerLens", kind, tmp_path)
    read = bl.from_module(bridge)
    bridge.enable_compatibility_mode()
    for look in (
        read.layers["blocks.1.mlp"].read,
        lambda: bl.ablate(read, "blocks.1.mlp", planted).__enter__(),
    ):
        with pytest.raises(UsageError, match="was replaced since it was read: read it again"):
            look()
    assert bl.from_module(bridge).layers["blocks.1.mlp"].read()


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_nnsight_that_is_not_loaded_is_refused(kind: str, tmp_path: Path) -> None:
    model, planted = language_model(kind)
    model.save_pretrained(tmp_path)
    words = tokenizer(tmp_path)
    lazy = nnsight.TransformersModel(str(tmp_path), task="text-generation", tokenizer=words)
    layer = [*bl.from_module(model).layers][1]
    with pytest.raises(UsageError, match=r"not loaded yet, .*dispatch=True"):
        bl.ablate(lazy, layer, planted).__enter__()


@pytest.mark.parametrize("host", HOSTS)
def test_layers_of_each_host_are_compared_with_it(host: str, tmp_path: Path) -> None:
    model, _, _ = in_host(host, "llama", tmp_path)
    read = bl.from_module(model)
    assert len(read.layers) == 2
    assert read.load_report is not None
    assert all(one.relative_error < 1e-5 for one in read.load_report.checks.values())
