"""Model files as people have them, made by the libraries that they use, and what becomes of each.

A row makes a file, a folder or an object and counts by itself how many parameters there are, and
how many of them are in layers that can be read; or it says why the model is refused.
"""

import json
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import tiny_language_models as language
from tools.net.foreign import write_gguf


@dataclass(frozen=True)
class Made:
    """A model, and what its maker knows of it."""

    source: Any  # a path, a module or an estimator
    parameters: int = 0  # in all
    read: int = 0  # of these, in layers that can be read
    options: Mapping[str, Any] = field(default_factory=dict)  # that the loading needs


Maker = Callable[[Path], Made]
ROWS: dict[str, Maker] = {}
REFUSED: dict[str, tuple[Maker, str]] = {}  # with what the refusal has to say


def row(name: str) -> Callable[[Maker], Maker]:
    def keep(make: Maker) -> Maker:
        ROWS[name] = make
        return make

    return keep


def refused(name: str, words: str) -> Callable[[Maker], Maker]:
    def keep(make: Maker) -> Maker:
        REFUSED[name] = make, words
        return make

    return keep


def count(*modules: nn.Module | None) -> int:
    """Parameters of modules; one that is shared counts once in each."""
    return sum(p.numel() for module in modules if module is not None for p in module.parameters())


def named(module: nn.Module, pattern: str) -> int:
    """Parameters whose names have a pattern in them."""
    every = module.named_parameters()
    return sum(p.numel() for name, p in every if re.search(pattern, name))


def scattered(module: nn.Module, seed: int = 0) -> nn.Module:
    """A module in evaluation mode whose weights are seeded; statistics of norms are not 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, one in module.state_dict().items():
            if one.is_floating_point():
                noise = torch.randn(one.shape, generator=generator)
                scale = max(one.shape[1:].numel() if one.ndim > 1 else 1, 1) ** 0.5
                one.copy_(noise.abs() + 0.5 if "running_var" in name else noise / scale)
    return module.eval()


# ---- transformers: folders of save_pretrained

GATED = r"mlp\.(gate|up|down)_proj\."
FAMILIES = {
    **dict.fromkeys(("mistral", "qwen2", "qwen3", "olmo", "olmo2", "smollm3", "granite"), GATED),
    **dict.fromkeys(("cohere", "stablelm", "gemma", "gemma2", "gemma3_text"), GATED),
    **dict.fromkeys(("phi3", "glm", "glm4"), r"mlp\.(gate_up|down)_proj\."),
    "modernbert": r"mlp\.W[io]\.",
    **dict.fromkeys(("t5", "mt5", "umt5"), r"DenseReluDense\.w"),
    "mixtral": r"experts\.",
    **dict.fromkeys(("qwen3_moe", "olmoe"), r"experts\.|mlp\.(gate|up|down)_proj\."),
    "qwen2_moe": r"experts\.|shared_expert\.|mlp\.(gate|up|down)_proj\.",
    "deepseek_v3": r"experts\.|mlp\.(gate|up|down)_proj\.",
    **dict.fromkeys(("gpt2", "gpt_bigcode", "gpt_neo", "starcoder2"), r"mlp\.c_(fc|proj)\."),
    "gptj": r"mlp\.fc_(in|out)\.",
    **dict.fromkeys(("gpt_neox", "falcon"), r"dense_(h_to_4h|4h_to_h)\."),
    "phi": r"mlp\.fc[12]\.",
    "nemotron": r"mlp\.(up|down)_proj\.",
    "opt": r"\.fc[12]\.",
    **dict.fromkeys(
        ("bert", "roberta", "xlm-roberta", "electra"), r"layer\.\d+\.(intermediate|output)\.dense\."
    ),
    "distilbert": r"ffn\.lin[12]\.",
    **dict.fromkeys(
        ("vit", "deit"), r"(intermediate|(?<!attention\.)output)\.dense\.|mlp\.fc[12]\."
    ),
}


def of_transformers(kind: str, pattern: str, folder: Path, **options: Any) -> Made:
    pytest.importorskip("transformers")
    model = language.write(folder, kind, torch.float32, **options)
    learnt = [b.numel() for name, b in model.named_buffers() if "correction" in name]  # no gradient
    return Made(folder, count(model) + sum(learnt), named(model, pattern))


for kind, pattern in FAMILIES.items():
    ROWS[f"transformers {kind}"] = lambda folder, kind=kind, pattern=pattern: of_transformers(
        kind, pattern, folder
    )


@row("transformers llama")
def llama(folder: Path) -> Made:
    """Read as a whole module, whose MLPs contain the gain of the norm before them."""
    pattern = GATED + "|post_attention_layernorm"
    return of_transformers("llama", pattern, folder, mlp_bias=False, attention_bias=False)


@row("transformers t5 of before 1.1")
def old_t5(folder: Path) -> Made:
    return of_transformers("t5", r"DenseReluDense\.w", folder, feed_forward_proj="relu")


@row("transformers in shards")
def shards(folder: Path) -> Made:
    pytest.importorskip("transformers")
    model = language.make("qwen2").float()
    model.save_pretrained(folder, max_shard_size="2KB")
    return Made(folder, count(model), named(model, GATED))


@refused("transformers, a type that is not known", "of the type 'wonder'")
def unknown_type(folder: Path) -> Made:
    pytest.importorskip("transformers")
    language.write(folder, "mistral", torch.float32)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "wonder"}))
    return Made(folder)


@refused("transformers, quantised", "is quantised")
def quantised(folder: Path) -> Made:
    pytest.importorskip("transformers")
    language.write(folder, "mistral", torch.float32)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    return Made(folder)


# ---- torch and torchvision: modules in memory


class SmallCNN(nn.Module):
    """What a first course in deep learning ends with."""

    def __init__(self, activation: Callable[[Tensor], Tensor] = functional.relu) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(8 * 4, 10), nn.Linear(10, 3)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.activation(self.conv1(x)), 2)
        x = functional.adaptive_avg_pool2d(self.activation(self.conv2(x)), 2)
        y: Tensor = self.fc2(functional.relu(self.fc1(x.flatten(1))))
        return y


@row("torch CNN")
def cnn(_: Path) -> Made:
    model = scattered(SmallCNN())
    return Made(model, count(model), count(model))


@row("torch CNN with an activation that is not known")
def odd_cnn(_: Path) -> Made:
    """The first failure: of a random network the last two layers alone are read."""
    model = scattered(SmallCNN(functional.mish))
    return Made(model, count(model), count(model.fc1, model.fc2))  # type: ignore[arg-type]


@row("torch MLP")
def mlp(_: Path) -> Made:
    model = scattered(plain_mlp())
    return Made(model, count(model), count(model))


def plain_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 7), nn.GELU(), nn.Linear(7, 3)
    )


@row("torch MLP, half of it quantised")
def half_quantised(_: Path) -> Made:
    """Packed weights are no parameters for torch, and count all the same."""
    first, second = scattered(plain_mlp()), nn.Sequential(nn.Linear(3, 8), nn.ReLU())
    read, rest = count(first), count(second)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        second = torch.ao.quantization.quantize_dynamic(second, {nn.Linear})
    scale = 1  # a number of torch's own beside them
    return Made(nn.Sequential(first, second).eval(), read + rest + scale, read)


@row("torch transformer encoder")
def encoder(_: Path) -> Made:
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu")
    model = scattered(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    return Made(model, count(model), named(model, r"linear[12]"))


@row("torch bilinear CNN")
def bilinear_cnn(_: Path) -> Made:
    class Bilinear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 6, 3)
            self.mix, self.head = nn.Conv2d(6, 4, 1), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.mix(self.left(x) * self.right(x))
            found: Tensor = self.head(y.mean(dim=(2, 3)))
            return found

    model = scattered(Bilinear())
    return Made(model, count(model), count(model) - count(model.head))  # type: ignore[arg-type]


def of_torchvision(build: Callable[[Any], nn.Module], pattern: str) -> Maker:
    def make(_: Path) -> Made:
        models = pytest.importorskip("torchvision.models")
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = scattered(build(models))
        return Made(model, count(model), named(model, pattern))

    return make


def small_resnet(models: Any, block: str) -> nn.Module:
    class Narrow(models.ResNet):  # type: ignore[misc, name-defined]
        def _make_layer(self, kind: Any, planes: int, *given: Any, **options: Any) -> Any:
            return super()._make_layer(kind, planes // 16, *given, **options)

    model: Any = Narrow(getattr(models.resnet, block), [1, 1, 1, 1])
    model.fc = nn.Linear(model.inplanes, 5)
    return model  # type: ignore[no-any-return]


def small_vgg(models: Any) -> nn.Module:
    features = models.vgg.make_layers([4, "M", 6, 6, "M"], batch_norm=True)
    model: Any = models.VGG(nn.Sequential(), num_classes=3, init_weights=False)
    model.features, model.avgpool = features, nn.AdaptiveAvgPool2d(2)
    model.classifier = nn.Sequential(
        nn.Linear(24, 9),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(9, 8),
        nn.ReLU(True),
        nn.Linear(8, 3),
    )
    return model  # type: ignore[no-any-return]


def small_convnext(models: Any) -> nn.Module:
    block = models.convnext.CNBlockConfig
    return models.ConvNeXt([block(4, 8, 1), block(8, None, 1)], num_classes=3)  # type: ignore[no-any-return]


TORCHVISION: dict[str, tuple[Callable[[Any], nn.Module], str]] = {
    # of a basic block the first convolution; behind the second one the residual path is added
    "resnet18": (lambda m: small_resnet(m, "BasicBlock"), r"^(conv1|bn1)\.|\.(conv1|bn1)\."),
    "resnet50": (lambda m: small_resnet(m, "Bottleneck"), r"(conv|bn)[123]\."),
    "vgg11": (small_vgg, "."),
    "vit_b_16": (
        lambda m: m.VisionTransformer(16, 8, 2, 2, 8, 12, num_classes=3), r"\.mlp\.[03]\.",
    ),
    "convnext_tiny": (small_convnext, r"block\.[35]\."),
    "mobilenet_v3": (
        lambda m: m.MobileNetV3(
            [m.mobilenetv3.InvertedResidualConfig(8, 3, 12, 8, True, "RE", 1, 1, 1.0)], 16, 3
        ),
        r"block\.[01]\.[01]\.|fc[12]",
    ),
    "squeezenet": (lambda m: m.squeezenet1_1(num_classes=3), "."),
}  # fmt: skip
for kind, (build, pattern) in TORCHVISION.items():
    ROWS[f"torchvision {kind}"] = of_torchvision(build, pattern)


@refused("torchvision mobilenet_v2", "no MLP is found in the MobileNetV2")
def mobilenet(_: Path) -> Made:
    models = pytest.importorskip("torchvision.models")
    return Made(scattered(models.MobileNetV2(3, 0.25, [[2, 8, 1, 1]])))


@refused("torch linear", "no MLP is found")
def linear(_: Path) -> Made:
    return Made(nn.Linear(4, 3))


@refused("torch LSTM", "no MLP is found.*LSTM")
def lstm(_: Path) -> Made:
    return Made(nn.LSTM(4, 3))


# ---- files of names and numbers


def stored(build: Callable[[], nn.Module], pattern: str = "", activation: str = "") -> Maker:
    """A file of safetensors, of which the linear maps are read that their names give away."""

    def make(folder: Path) -> Made:
        from safetensors.torch import save_file

        model, path = scattered(build()), folder / "m.safetensors"
        save_file(model.state_dict(), path)
        told = {"activation": activation} if activation else {}
        return Made(path, count(model), named(model, pattern), told)

    return make


ROWS |= {
    "safetensors with an activation": stored(plain_mlp, ".", "relu,gelu"),
    "safetensors of a CNN with an activation": stored(SmallCNN, r"fc[12]\.", "relu"),
}
REFUSED |= {
    "safetensors without an activation": (stored(plain_mlp), "does not say its activation"),
    "safetensors of a CNN": (
        stored(SmallCNN), "activation|no MLP that names and shapes give away",
    ),
}  # fmt: skip


# ---- adapters of PEFT


def adapter(folder: Path) -> tuple[Any, Any]:
    """A base and an adapter of rank 2 with random factors, saved; the model below the adapter."""
    peft = pytest.importorskip("peft")
    base = language.make("qwen2").float()
    base.save_pretrained(folder / "base")
    total = count(base), named(base, GATED)
    targets = ["q_proj", "down_proj"]
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, lora_alpha=8, target_modules=targets))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, part in model.named_parameters():
            if "lora_" in name:
                part.copy_(torch.randn(part.shape, generator=generator))
    model.save_pretrained(folder / "adapter")
    return model, total


@row("PEFT adapter with its base")
def lora(folder: Path) -> Made:
    total, read = adapter(folder)[1]
    return Made(folder / "adapter", total, read, {"base": folder / "base"})


@row("PEFT adapter, merged")
def merged(folder: Path) -> Made:
    model, (total, read) = adapter(folder)
    model.merge_and_unload().save_pretrained(folder / "merged")
    return Made(folder / "merged", total, read)


@refused("PEFT adapter alone", "is an adapter.*--baseline")
def lonely(folder: Path) -> Made:
    adapter(folder)
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "someone/model"
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    return Made(folder / "adapter")


# ---- llama.cpp


@row("GGUF")
def gguf(folder: Path) -> Made:
    return of_gguf(folder, "F32")


@row("GGUF, 4 bits")
def gguf_4(folder: Path) -> Made:
    return of_gguf(folder, "Q4_0")


def of_gguf(folder: Path, kind: str) -> Made:
    pytest.importorskip("gguf.quants")
    generator, wide, narrow = np.random.default_rng(0), 64, 32
    shapes = {"token_embd": (5, narrow), "output_norm": (narrow,)}
    shapes |= {f"blk.0.{name}": (narrow, narrow) for name in ("attn_q", "attn_k", "attn_v")}
    mlp = {"ffn_gate": (wide, narrow), "ffn_up": (wide, narrow), "ffn_down": (narrow, wide)}
    shapes |= {"blk.0.ffn_norm": (narrow,)} | {f"blk.0.{name}": s for name, s in mlp.items()}
    tensors = {f"{name}.weight": generator.normal(size=s) / 8 for name, s in shapes.items()}
    write_gguf(folder / "m.gguf", tensors, kind)
    total = sum(int(np.prod(shape)) for shape in shapes.values())
    return Made(folder / "m.gguf", total, 3 * wide * narrow)


# ---- ONNX


def exported(module: nn.Module, shape: tuple[int, ...], folder: Path, **options: Any) -> Path:
    pytest.importorskip("onnx")
    from onnx_files import export

    return export(scattered(module), torch.zeros(shape), folder / "m.onnx", **options)


@row("ONNX MLP")
def onnx_mlp(folder: Path) -> Made:
    model = plain_mlp()
    return Made(exported(model, (1, 6), folder), count(model), count(model))


@row("ONNX CNN")
def onnx_cnn(folder: Path) -> Made:
    model = SmallCNN()
    return Made(exported(model, (1, 1, 8, 8), folder), count(model), count(model))


@row("ONNX CNN with an activation that is not known")
def odd_onnx(folder: Path) -> Made:
    model = SmallCNN(lambda t: torch.sin(t))
    read = count(model.fc1, model.fc2)
    return Made(exported(model, (1, 1, 8, 8), folder), count(model), read)


@row("ONNX transformer")
def onnx_transformer(folder: Path) -> Made:
    """Attention stands beside a gated MLP."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
            self.norm = nn.LayerNorm(8)
            self.gate, self.up, self.down = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 8)

        def forward(self, x: Tensor) -> Tensor:
            scores = self.q(x) @ self.k(x).transpose(1, 2)
            x = x + scores.softmax(dim=-1) @ self.v(x)
            h = self.norm(x)
            y: Tensor = x + self.down(functional.silu(self.gate(h)) * self.up(h))
            return y

    model = Block()
    read = count(model.gate, model.up, model.down)
    return Made(exported(model, (1, 4, 8), folder), count(model), read)


@row("ONNX, packed in 8 bits")
def packed_onnx(folder: Path) -> Made:
    """Of two blocks one is quantised: it is dequantised, and its scales are no parameters."""
    pytest.importorskip("onnx")
    from onnx_files import matrices, write

    plain, packed = (
        matrices(5, 8, 5),
        {"q": np.ones((5, 5), np.int8), "scale": np.full(5, 0.1, "f4")},
    )
    nodes = [
        ("MatMul", "x w0", "a"), ("Add", "a b0", "b"), ("Relu", "b", "c"), ("MatMul", "c w1", "d"),
        ("Add", "d b1", "e"), ("DequantizeLinear", "q scale", "f"), ("MatMul", "e f", "y"),
    ]  # fmt: skip
    read = sum(tensor.size for tensor in plain.values())
    return Made(write(folder / "m.onnx", nodes, {**plain, **packed}), read + 25, read + 25)


@refused("ONNX of trees", r"no MLP is found.*tensor y\.nodes_values")
def onnx_trees(folder: Path) -> Made:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    node = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", nodes_values=[0.5, 1.5, 2.5]
    )
    ends = [helper.make_tensor_value_info(name, 1, None) for name in ("x", "y")]
    graph = helper.make_graph([node], "trees", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph), folder / "m.onnx")
    return Made(folder / "m.onnx")


# ---- Keras


def of_keras(folder: Path, model: Any, read: Callable[[Any], bool], suffix: str = ".keras") -> Made:
    path = folder / f"m{suffix}"
    model.save(path)
    layers = [(layer, sum(w.numpy().size for w in layer.weights)) for layer in model.layers]
    return Made(path, sum(n for _, n in layers), sum(n for layer, n in layers if read(layer)))


def kind_of(layer: Any) -> str:
    return type(layer).__name__


@row("Keras Sequential")
def keras_mlp(folder: Path) -> Made:
    import keras_files as files

    return of_keras(folder, files.mlp(), lambda _: True)


@row("Keras Functional")
def keras_gated(folder: Path) -> Made:
    import keras_files as files

    return of_keras(folder, files.gated(), lambda _: True)


@row("Keras CNN")
def keras_cnn(folder: Path) -> Made:
    import keras_files as files

    return of_keras(folder, files.convolutional(), lambda _: True)


@row("Keras CNN, padded on one side")
def odd_keras_cnn(folder: Path) -> Made:
    import keras_files as files

    model = files.convolutional(strides=2, padding="same")
    return of_keras(folder, model, lambda layer: kind_of(layer) == "Dense")


@row("Keras, nested and normalised")
def keras_nested(folder: Path) -> Made:
    import keras_files as files

    return of_keras(folder, files.nested(), lambda _: True)


@refused("Keras, saved as HDF5 of before", "in the format before Keras 3: save it")
def keras_h5(folder: Path) -> Made:
    import keras_files as files

    return of_keras(folder, files.mlp(), lambda _: True, ".h5")


@row("Keras, weights alone")
def keras_weights(folder: Path) -> Made:
    import keras_files as files

    model = files.mlp()
    model.save_weights(folder / "m.weights.h5")
    total = model.count_params()
    return Made(folder / "m.weights.h5", total, total, {"activation": "relu,tanh"})


@refused("TensorFlow SavedModel", "is a SavedModel of TensorFlow.*save it with Keras 3")
def saved_model(folder: Path) -> Made:
    (folder / "saved_model.pb").write_bytes(b"\x08\x01\x12\x02\x0a\x00")
    return Made(folder)


@row("scikit-learn MLPClassifier")
def sklearn_mlp(_: Path) -> Made:
    networks = pytest.importorskip("sklearn.neural_network")
    x = np.random.default_rng(0).normal(size=(60, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it does not converge in three steps
        fitted = networks.MLPClassifier((7, 6), max_iter=3, random_state=0).fit(x, x[:, 0] > 0)
    total = sum(part.size for part in (*fitted.coefs_, *fitted.intercepts_))
    return Made(fitted, total, total)
