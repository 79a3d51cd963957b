"""A model in the layout of another library comes back as the same function."""

from pathlib import Path

import pytest
import torch

import bilens as bl
import tiny
from bilens.api.convert import convert_model
from bilens.base.errors import CheckpointError, NumericalError, OutputExistsError, UsageError
from bilens.data.tokenizer import load_tokenizer, train_tokenizer
from bilens.io.model_config import OPTIONAL
from bilens.nn import (
    BilinearClassifier,
    BilinearLayer,
    BilinearMLP,
    BilinearTransformer,
    TopKSAE,
)


def test_a_language_model_goes_to_hugging_face_and_back_with_its_tokenizer(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["a b c d e f g"] * 2, None, "word")
    model = BilinearTransformer(tokenizer.vocab_size, 8, 12, 1, 2, 16)
    folder = bl.save(model, tmp_path / "model")
    tokenizer.save(folder / "tokenizer.json")
    written = convert_model(bl.load(folder), "huggingface", tmp_path / "llama")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(written.files)
    back = convert_model(bl.load(tmp_path / "llama"), "bilens", tmp_path / "back")
    assert back.files == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
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
    with pytest.raises(UsageError, match="layout 'jax' is not known"):
        convert_model(classifier, "jax", tmp_path / "out")  # type: ignore[arg-type]
    with pytest.raises(OutputExistsError, match="already holds model"):
        convert_model(classifier, "bilens", tmp_path / "model")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputExistsError, match="is a file; expected a folder"):
        convert_model(classifier, "bilens", tmp_path / "file")
    assert not (tmp_path / "out").exists()


# ---- ONNX


def onnx_models() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    return {
        "classifier": BilinearClassifier(784, 64, 10),
        "three layers": BilinearClassifier(20, 16, 5, n_layers=3, bias=True, residual=True),
        "float64": BilinearClassifier(30, 16, 3, bias=True).double(),
        "MLP": BilinearMLP(12, 20, 5, bias=True, skip=True),
        "layer": BilinearLayer(6, 9),
    }


@pytest.mark.parametrize("name", [*onnx_models()])
def test_an_onnx_file_of_products_and_sums_gives_the_same_in_onnxruntime(
    name: str, tmp_path: Path
) -> None:
    module = onnx_models()[name].eval()
    written = convert_model(bl.load(bl.save(module, tmp_path / "m")), "onnx", tmp_path / "m.onnx")
    assert written.files == ["m.onnx"]
    assert written.agreement is not None
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert {node.op_type for node in graph.node} <= {"MatMul", "Add", "Mul"}
    dtype = next(module.parameters()).dtype
    width = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    x = torch.randn(200, width, generator=torch.Generator().manual_seed(1), dtype=dtype)
    (made,) = runtime.InferenceSession(tmp_path / "m.onnx").run(["output"], {"input": x.numpy()})
    with torch.no_grad():
        expected = module.double()(x.double())
    off = float((torch.from_numpy(made).double() - expected).abs().max() / expected.abs().max())
    assert off < (1e-6 if dtype == torch.float32 else 1e-14)


def test_an_onnx_file_is_read_back_with_names_units_and_origin(tmp_path: Path) -> None:
    module = BilinearClassifier(2, 4, 3, bias=True).double()
    said = {"input_mean": (50.0, 3e4), "input_scale": (20.0, 1e4), "input_names": ("age", "income")}
    about = {"output_names": ("a", "b", "c"), "provenance": {"data_name": "people"}}
    source = bl.load(bl.save(module, tmp_path / "m", **said, **about))
    convert_model(source, "onnx", tmp_path / "m.onnx")
    back = bl.load(tmp_path / "m.onnx")
    for name in OPTIONAL:
        assert getattr(back, name) == getattr(source, name), name
    assert back.provenance["data_name"] == "people"
    assert back.provenance["format"] == "ONNX file"
    assert back.provenance["weights_sha256"] == source.weights_sha256
    x = torch.tensor([[30.0, 2e4], [70.0, 5e4]], dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(back.layers["layers.0"].quadratic_map(x), source.module(x))


def test_an_onnx_file_with_the_description_of_another_model_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    for width in (2, 3):
        folder = bl.save(tiny.classifier(d_input=width), tmp_path / str(width))
        convert_model(bl.load(folder), "onnx", tmp_path / f"{width}.onnx")
    mixed, other = (onnx.load(tmp_path / f"{width}.onnx") for width in (2, 3))
    del mixed.metadata_props[:]
    mixed.metadata_props.extend(other.metadata_props)
    onnx.save(mixed, tmp_path / "mixed.onnx")
    with pytest.raises(CheckpointError, match="sizes in its metadata are not those of its weights"):
        bl.load(tmp_path / "mixed.onnx")


def test_no_onnx_file_is_written_of_what_computes_something_else(tmp_path: Path) -> None:
    model = bl.load(bl.save(tiny.classifier(), tmp_path / "m"))
    assert model.module is not None
    model.module.register_forward_hook(lambda *run: run[2] * 1.001)
    with pytest.raises(NumericalError):
        convert_model(model, "onnx", tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_what_is_no_product_or_would_be_overwritten_goes_to_no_onnx_file(tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    refused = {
        "has the gate 'relu'": BilinearClassifier(3, 4, 2, gate="relu"),
        r"is in torch\.bfloat16": BilinearClassifier(3, 4, 2).bfloat16(),
        "is a TopKSAE; ONNX files are written of": TopKSAE(6, 12, 3),
    }
    for number, (why, module) in enumerate(refused.items()):
        with pytest.raises(UsageError, match=why):
            convert_model(bl.load(bl.save(module, tmp_path / str(number))), "onnx", out)
    model = bl.load(bl.save(tiny.classifier(), tmp_path / "m"))
    with pytest.raises(UsageError, match=r"a name that ends in \.onnx"):
        convert_model(model, "onnx", tmp_path / "folder")
    assert not out.exists()
    out.write_text("mine")
    with pytest.raises(OutputExistsError, match="already there: choose another name, or pass"):
        convert_model(model, "onnx", out)
    assert out.read_text() == "mine"
    convert_model(model, "onnx", out, overwrite=True)
    assert bl.load(out).network
