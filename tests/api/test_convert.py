"""A model in the layout of another library comes back as the same function."""

from pathlib import Path

import pytest
import torch

import bilens as bl
import tiny
from bilens.api.convert import convert_model
from bilens.base.errors import OutputExistsError, UsageError
from bilens.data.tokenizer import load_tokenizer, train_tokenizer
from bilens.nn import BilinearTransformer, TopKSAE


def test_a_language_model_goes_to_hugging_face_and_back_with_its_tokenizer(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["a b c d e f g"] * 2, None, "word")
    model = BilinearTransformer(tokenizer.vocab_size, 8, 12, 1, 2, 16)
    folder = bl.save(model, tmp_path / "model")
    tokenizer.save(folder / "tokenizer.json")
    written = convert_model(bl.load(folder), "huggingface", tmp_path / "llama")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(written)
    back = convert_model(bl.load(tmp_path / "llama"), "bilens", tmp_path / "back")
    assert back == ["config.json", "model.safetensors", "tokenizer.json"]
    found_tokenizer = load_tokenizer(tmp_path / "back" / "tokenizer.json")
    assert found_tokenizer.sha256 == tokenizer.sha256
    (tmp_path / "other").mkdir()
    tokenizer.save(tmp_path / "other" / "tokenizer.json")
    with pytest.raises(OutputExistsError, match=r"already holds a tokenizer\.json"):
        convert_model(bl.load(tmp_path / "llama"), "bilens", tmp_path / "other")
    tokens = torch.arange(6)[None]
    with torch.no_grad():
        found = bl.load(tmp_path / "back").module(tokens)
        torch.testing.assert_close(found, model(tokens), rtol=1e-5, atol=1e-6)


def test_a_sparse_autoencoder_goes_to_every_layout_that_holds_its_sign(tmp_path: Path) -> None:
    for sign, layouts in (("relu", ("saelens", "sparsify", "bilens")), ("raw", ("official",))):
        sae = TopKSAE(6, 12, 3, sign=sign)
        source = bl.load(bl.save(sae, tmp_path / sign, provenance={"hook": "blocks.1.mlp_out"}))
        x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
        for layout in layouts:
            convert_model(source, layout, tmp_path / layout)
            back = bl.load(tmp_path / layout).module
            with torch.no_grad():
                torch.testing.assert_close(back(x), sae(x), rtol=1e-5, atol=1e-6)


def test_named_inputs_are_kept(tmp_path: Path) -> None:
    folder = bl.save(tiny.classifier(d_input=2), tmp_path / "model", input_names=["a", "b"])
    convert_model(bl.load(folder), "bilens", tmp_path / "copy")
    assert bl.load(tmp_path / "copy").input_names == ("a", "b")


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    classifier = bl.load(bl.save(tiny.classifier(), tmp_path / "model"))
    with pytest.raises(UsageError, match="'huggingface' holds a language model: use --to bilens"):
        convert_model(classifier, "huggingface", tmp_path / "out")
    with pytest.raises(UsageError, match="'saelens' holds a sparse autoencoder"):
        convert_model(classifier, "saelens", tmp_path / "out")
    with pytest.raises(UsageError, match="layout 'onnx' is not known"):
        convert_model(classifier, "onnx", tmp_path / "out")  # type: ignore[arg-type]
    with pytest.raises(OutputExistsError, match="already holds model"):
        convert_model(classifier, "bilens", tmp_path / "model")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputExistsError, match="is a file; expected a folder"):
        convert_model(classifier, "bilens", tmp_path / "file")
    assert not (tmp_path / "out").exists()
