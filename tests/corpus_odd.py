"""Rows of the corpus: what trainings and exporters leave, and what only looks like a model."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tiny_language_models as language
from corpus import (
    REFUSED,
    ROWS,
    Made,
    Maker,
    count,
    exported,
    named,
    of_keras,
    plain_mlp,
    refused,
    row,
    scattered,
    small_resnet,
)
from corpus_files import TOLD, saved, text

# ---- files of trainings


def wrapped(state: dict[str, Tensor], wrapper: str) -> dict[str, Tensor]:
    return {f"{wrapper}.{name}".replace(".", f".{wrapper}.", 1): t for name, t in state.items()}


def with_average(state: dict[str, Tensor], key: str) -> dict[str, Any]:
    """The weights, and beside them their moving average."""
    return {"state_dict": state, key: {name: tensor + 1 for name, tensor in state.items()}}


def averaged(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What torch.optim.swa_utils.AveragedModel saves."""
    return {"n_averaged": torch.tensor(3), **{f"module.{name}": t for name, t in state.items()}}


def in_four_bits(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What bitsandbytes makes of a state dict."""
    found = {}
    for name, tensor in state.items():
        found[name] = tensor if tensor.ndim < 2 else tensor.to(torch.uint8).reshape(-1, 1)[::2]
        found[f"{name}.absmax"] = torch.ones(1)
    return found


def of_optimizer(_: dict[str, Tensor]) -> dict[str, Any]:
    model = plain_mlp()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.zeros(1, 6)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


ROWS |= {
    "FSDP": saved(partial(wrapped, wrapper="_fsdp_wrapped_module")),
    "PyTorch, compiled inside": saved(partial(wrapped, wrapper="_orig_mod")),
    "PyTorch with a moving average": saved(partial(with_average, key="ema_state_dict")),
    "PyTorch AveragedModel": saved(averaged),
    "DeepSpeed": saved(lambda state: {"module": state, "ds_config": {}, "optimizer": None}),
    "Lightning with its optimizer": saved(
        lambda state: {"state_dict": state, "optimizer_states": [of_optimizer({})]}, ".ckpt"
    ),
    "PyTorch in bfloat16": saved(lambda s: {name: t.bfloat16() for name, t in s.items()}),
}
UNDECIDED = "no MLP that names and shapes give away"
REFUSED |= {
    "the state of an optimizer": (saved(of_optimizer), "holds no tensors of a model.*optimizer's"),
    "a checkpoint of an optimizer": (
        saved(lambda state: {"optimizer": of_optimizer(state)}), "optimizer's are none",
    ),
    "PyTorch in 8 bits": (
        saved(lambda s: {name: (9 * t).to(torch.int8) for name, t in s.items()}), "of torch.int8",
    ),
    "PyTorch in 8-bit floats": (
        saved(lambda s: {name: t.to(torch.float8_e4m3fn) for name, t in s.items()}),
        "or of 8-bit floats",
    ),
    "bitsandbytes": (saved(in_four_bits), UNDECIDED),
    "two models in one file": (
        saved(lambda s: {"generator": s, "discriminator": {name: -t for name, t in s.items()}}),
        UNDECIDED,
    ),
}  # fmt: skip


def changed(change: Callable[[nn.Module], Any]) -> Maker:
    """A state dict of a module to which something was done that only its code undoes."""

    def make(folder: Path) -> Made:
        model = scattered(plain_mlp())
        model = change(model) or model
        torch.save(model.state_dict(), folder / "m.pt")
        return Made(folder / "m.pt", options=TOLD)

    return make


def normed(model: nn.Sequential) -> None:
    nn.utils.parametrizations.weight_norm(model[0])


def pruned(model: nn.Sequential) -> None:
    from torch.nn.utils import prune

    prune.l1_unstructured(model[0], "weight", 0.5)


def quantised(model: nn.Sequential) -> nn.Module:
    found: nn.Module = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    return found


REFUSED |= {
    "PyTorch, weights as length and direction": (changed(normed), UNDECIDED),
    "PyTorch, pruned": (changed(pruned), UNDECIDED),
    "PyTorch, quantised": (changed(quantised), "not of dense numbers.*quantised"),
}


@refused("torchvision resnet18, state dict", UNDECIDED)
def resnet_weights(folder: Path) -> Made:
    models = pytest.importorskip("torchvision.models")
    torch.save(scattered(small_resnet(models, "BasicBlock")).state_dict(), folder / "m.pth")
    return Made(folder / "m.pth", options={"allow_pickle": True, "activation": "relu"})


@row("timm vision transformer")
def timm_vit(folder: Path) -> Made:
    """By the names of timm: the MLPs of its blocks are read, and attention stands beside them."""
    block = {"norm1": (8,), "attn.qkv": (24, 8), "attn.proj": (8, 8), "norm2": (8,)}
    block |= {"mlp.fc1": (16, 8), "mlp.fc2": (8, 16)}
    shapes = {"patch_embed.proj": (8, 3, 8, 8), "norm": (8,), "head": (3, 8)}
    shapes |= {f"blocks.{k}.{name}": shape for k in range(2) for name, shape in block.items()}
    state = {f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    state |= {f"{name}.bias": torch.randn(shape[0]) for name, shape in shapes.items()}
    state |= {"cls_token": torch.randn(1, 1, 8), "pos_embed": torch.randn(1, 5, 8)}
    torch.save(state, folder / "m.pth")
    read = sum(tensor.numel() for name, tensor in state.items() if ".mlp." in name)
    total = sum(tensor.numel() for tensor in state.values())
    return Made(folder / "m.pth", total, read, {"allow_pickle": True, "activation": "gelu"})


# ---- folders


def sentence_transformer(folder: Path, name: str) -> Made:
    """BERT with a dense layer of its own behind it, in a folder inside."""
    from safetensors.torch import save_file

    pytest.importorskip("transformers")
    model = language.write(folder, "bert", torch.float32)
    (folder / "modules.json").write_text("[]")
    (folder / "2_Dense").mkdir()
    dense = {"linear.weight": torch.ones(4, 8), "linear.bias": torch.ones(4)}
    (save_file if name == "model.safetensors" else torch.save)(dense, folder / "2_Dense" / name)
    pattern = r"layer\.\d+\.(intermediate|output)\.dense\."
    return Made(folder, count(model) + 36, named(model, pattern))


ROWS["sentence-transformers"] = partial(sentence_transformer, name="model.safetensors")
REFUSED["sentence-transformers, in part a pickle"] = (
    partial(sentence_transformer, name="pytorch_model.bin"), "is a part of the model, and a pickle",
)  # fmt: skip


@refused("a folder of diffusers", "has format None.*model_type of a model of Hugging Face")
def diffusers(folder: Path) -> Made:
    from safetensors.torch import save_file

    (folder / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    save_file({"conv_in.weight": torch.ones(4, 4, 3, 3)}, folder / "model.safetensors")
    return Made(folder)


@refused("transformers, a shard is missing", "no such file")
def missing_shard(folder: Path) -> Made:
    pytest.importorskip("transformers")
    language.make("qwen2").float().save_pretrained(folder, max_shard_size="2KB")
    sorted(folder.glob("model-*"))[1].unlink()
    return Made(folder)


@row("transformers, tied and in a pickle")
def tied(folder: Path) -> Made:
    from safetensors.torch import load_file

    pytest.importorskip("transformers")
    model = language.write(folder, "qwen2", torch.float32, tie_word_embeddings=True)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    read = named(model, r"mlp\.(gate|up|down)_proj\.")
    return Made(folder, count(model), read, {"allow_pickle": True})


@row("PEFT adapter on a state dict")
def adapter_on_tensors(folder: Path) -> Made:
    peft = pytest.importorskip("peft")
    base = plain_mlp()
    torch.save(base.state_dict(), folder / "base.pt")
    total, config = count(base), peft.LoraConfig(r=2, target_modules=["0", "5"])
    peft.get_peft_model(base, config).save_pretrained(folder / "adapter")
    return Made(folder / "adapter", total, total, {**TOLD, "base": folder / "base.pt"})


# ---- ONNX and Keras


@row("ONNX for batches of any size")
def dynamic(folder: Path) -> Made:
    model = nn.Sequential(nn.Flatten(), plain_mlp())
    options: dict[str, Any] = {"input_names": ["x"], "dynamic_axes": {"x": {0: "batch"}}}
    return Made(exported(model, (2, 2, 3), folder, **options), count(model), count(model))


@row("ONNX with its weights beside it")
def external(folder: Path) -> Made:
    model = plain_mlp()
    path = exported(model, (1, 6), folder)
    import onnx

    where = {"save_as_external_data": True, "location": "m.onnx.data", "size_threshold": 0}
    onnx.save(onnx.load(path), path, **where)
    return Made(path, count(model), count(model))


@row("ONNX, normalised")
def normalised(folder: Path) -> Made:
    """Of the normalisations one joins a layer, one of the images themselves none."""
    model = nn.Sequential(
        nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(36, 5), nn.Tanh(), nn.BatchNorm1d(5),
        nn.Linear(5, 2),
    )  # fmt: skip
    path = exported(model, (2, 3, 8, 8), folder)
    return Made(path, count(model), named(model, r"^(1|7|9|10)\."))


@refused("ONNX of an LSTM", "no MLP is found.*tensor onnx::LSTM")
def onnx_lstm(folder: Path) -> Made:
    return Made(exported(nn.LSTM(4, 3), (2, 5, 4), folder))


@row("Keras, two inputs")
def two_inputs(folder: Path) -> Made:
    import keras_files as files

    keras = files.library()
    dense, ends = keras.layers.Dense, [keras.Input((5,)), keras.Input((4,))]
    both = keras.layers.Concatenate()([dense(6, "relu")(one) for one in ends])
    model = keras.Model(ends, dense(3)(dense(7, "gelu")(both)))
    return of_keras(folder, files.scattered(model), lambda _: True)


@row("Keras of texts")
def keras_texts(folder: Path) -> Made:
    import keras_files as files

    keras = files.library()
    layers = keras.layers
    parts = keras.Input((8,)), layers.Embedding(10, 6), layers.LSTM(4)
    model = keras.Sequential([*parts, layers.Dense(5, "relu"), layers.Dense(2)])
    return of_keras(folder, files.scattered(model), lambda one: type(one).__name__ == "Dense")


@row("Keras of a table")
def keras_table(folder: Path) -> Made:
    """A scaler that was fitted to the columns joins the first layer; its count is no parameter."""
    import keras_files as files

    keras = files.library()
    scaler = keras.layers.Normalization()
    scaler.adapt(np.random.default_rng(0).normal(3, 2, size=(20, 5)))
    dense = keras.layers.Dense(6, "relu"), keras.layers.Dense(2)
    model = keras.Sequential([keras.Input((5,)), scaler, *dense])
    made = of_keras(folder, model, lambda _: True)
    return Made(made.source, made.parameters - 1, made.read - 1)


@refused("Keras, an archive of something else", "no readable Sequential or Functional")
def no_keras(folder: Path) -> Made:
    return text("m.keras", json.dumps({"config": {}}).encode())(folder)
