"""Guards against a file that is read as another function than its owner's, or not at all.

Each was seen to fail: an adapter of the embedding changed the head that is tied to it, which PEFT
keeps; three layers w1, w2, w3 one behind the other were guessed to be a gated MLP; a tensor of
8-bit floats beside the layers ended a comparison in an error of torch's; a share of 180 rows was
told as that many of 1,000.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bilens as bl
import tiny_language_models as tiny
from bilens.api.comparison import vocabulary_of_model
from bilens.base.errors import BilensError, CheckpointError, NonFiniteError, UsageError
from bilens.report.reports import ConversionReport
from builders import randn
from contract.table import cell
from conversion_documents import make_rows
from io_mapped import gated, pair, write

# ---- adapters on a model whose head is its embedding


def adapted(folder: Path, kind: str, **options: Any) -> Any:
    """PEFT's own model with a changed adapter, saved beside its base."""
    peft = pytest.importorskip("peft")
    base = tiny.make(kind, tie_word_embeddings=True).float()
    base.save_pretrained(folder / "base")
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, lora_alpha=4, **options))
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=draw))
    model.save_pretrained(folder / "adapter")
    return model.eval()


def read(folder: Path) -> Any:
    return bl.load(folder / "adapter", base=folder / "base")


@pytest.mark.parametrize("saved", ["embed_tokens", "lm_head"])
@pytest.mark.parametrize("kind", ["llama", "gemma2"])
@cell("load file", "own object")
def test_of_a_tied_head_and_its_embedding_the_adapter_changes_one(
    kind: str, saved: str, tmp_path: Path
) -> None:
    theirs = adapted(tmp_path, kind, target_modules=["up_proj"], modules_to_save=[saved])
    ours = vocabulary_of_model(read(tmp_path))
    assert ours is not None

    def table(end: nn.Module) -> Tensor:
        whole = getattr(end, "modules_to_save", {"default": end})["default"]
        found: Tensor = whole.weight.detach()
        return found

    ends = table(theirs.get_input_embeddings()), table(theirs.get_output_embeddings())
    assert not torch.allclose(*ends, atol=0.1)
    scale = ours.ends.embedding_scale
    assert torch.allclose(ours.embedding.float(), ends[0] * scale, atol=1e-5)
    assert torch.allclose(ours.head.float(), ends[1], atol=1e-6)
    with pytest.raises(UsageError, match="has a head of its own"):
        bl.audit(read(tmp_path), baseline=bl.load(tmp_path / "base"), try_words=5)


@cell("load file", "own object")
def test_what_is_added_to_a_tied_embedding_is_refused(tmp_path: Path) -> None:
    adapted(tmp_path, "llama", target_modules=["embed_tokens", "up_proj"])
    with pytest.raises(CheckpointError, match=r"to the embedding alone, and to both once .* merg"):
        read(tmp_path)


@cell("load file", "own object")
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
def test_what_is_added_to_a_tied_head_is_refused_for_what_it_is(
    kind: str, both: bool, tmp_path: Path
) -> None:
    """It was told that the base was the wrong one."""
    modules = ["lm_head", "c_fc" if kind == "gpt2" else "up_proj"]
    adapted(tmp_path, kind, target_modules=modules, ensure_weight_tying=both)
    with pytest.raises(CheckpointError, match=r"is the embedding of the model below as well"):
        read(tmp_path)


@cell("load file", "own object")
def test_an_adapter_that_keeps_both_tied_changes_both(tmp_path: Path) -> None:
    options = {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}
    theirs = adapted(tmp_path, "llama", target_modules=["up_proj"], **options)
    ours = vocabulary_of_model(read(tmp_path))
    assert ours is not None
    head = theirs.get_output_embeddings()
    expected = getattr(head, "modules_to_save", {"default": head})["default"].weight
    assert torch.allclose(ours.head.float(), expected.detach(), atol=1e-6)
    assert torch.equal(ours.head, ours.embedding)


# ---- names that number the matrices


@pytest.mark.parametrize("widths", [(4, 4, 4), (6, 4, 6)], ids=["square", "of two widths"])
@pytest.mark.parametrize("ends", ["", ".weight"])
@cell("load file", "own object")
def test_numbered_matrices_may_be_layers_or_a_gated_one(
    widths: tuple[int, ...], ends: str, tmp_path: Path
) -> None:
    """Of w1, w2, w3 the guess was a gated MLP, off by 1.3 of the largest output."""
    shapes = zip(widths, (4, *widths), strict=False)
    tensors = {f"w{k + 1}{ends}": randn(*one, seed=k) for k, one in enumerate(shapes)}
    path = write(tmp_path, tensors)
    with pytest.raises(BilensError, match="a gated MLP, or three layers one behind the other"):
        bl.load(path, activation="relu")
    roles = {"up.0": f"w1{ends}", "up.1": f"w2{ends}", "down.1": f"w3{ends}"}
    model = bl.load(path, activation="relu", roles=roles, transposed=False)
    x = randn(5, 4, seed=9)
    expected = x
    for index, weight in enumerate(tensors.values()):
        expected = (expected.relu() if index else expected) @ weight.T
    found = x
    for view in model.network:
        found = view.weights(found.dtype)(found)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("home", ["feed_forward.", "block_sparse_moe.experts.0.", "mlp."])
@cell("load file", "own object")
def test_names_of_a_gated_family_are_no_guess(home: str, tmp_path: Path) -> None:
    tensors = gated("") if home == "mlp." else {}
    tensors = {f"{home}{name}": one for name, one in tensors.items()} or {
        f"{home}w{k}.weight": randn(4, 4, seed=k) for k in (1, 2, 3)
    }
    model = bl.load(write(tmp_path, tensors), activation="silu", transposed=False)
    assert [view.gated for view in model.layers.values()] == [True]


# ---- what lies beside the layers


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"])
@cell("compare", "other dtype", "own object")
def test_floats_of_8_bits_beside_the_layers_are_compared(dtype: str, tmp_path: Path) -> None:
    models = []
    for name, last in (("a", 2.0), ("b", 2.0), ("c", 4.0)):
        beside = torch.tensor([1.0, last]).to(getattr(torch, dtype))
        path = write(tmp_path, {**pair(), "scales": beside}, f"{name}.safetensors")
        models.append(bl.load(path, activation="relu"))
    first, same, other = models
    assert changed(same, first) == []
    ((name, change),) = changed(other, first)
    assert (name, round(change, 6)) == ("scales", round(2 / 5**0.5, 6))
    if dtype != "float8_e8m0fnu":
        beside = torch.tensor([1.0, float("nan")]).to(getattr(torch, dtype))
        path = write(tmp_path, {**pair(), "scales": beside}, "d.safetensors")
        broken = bl.load(path, activation="relu")
        assert [name for name, _ in changed(broken, first)] == ["scales"]
        with pytest.raises(NonFiniteError, match="first one at index"):
            broken.tensors["scales"].read_tensor()


def changed(model: Any, baseline: Any) -> list[tuple[str, Any]]:
    difference = bl.audit(model, baseline=baseline).record.difference
    assert difference is not None
    assert difference.whole is not None
    return [(one.name, one.change) for one in difference.whole.changed]


# ---- shares that were written as numbers of rows


def test_a_share_of_rows_is_no_number_of_them() -> None:
    """Of 180 rows held out it was said that 844 of 1,000 are right."""
    for language in ("en", "ja"):
        page = ConversionReport(make_rows("nats per row")).to_html(lang=language)
        assert "48.4%" in page
        assert "1,000" not in page
