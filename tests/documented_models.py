"""A folder in which the commands of the pages run: tiny models and data under the pages' names."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import bilens as bl
import onnx_files
import tiny
import traced_models
from commands import with_data
from explorer_folder import run
from polynomial.test_reading import ROLES, transformer
from tools.net.foreign import write_gguf

WIDTH, HIDDEN = 32, 64
LABELS = [str(digit) for digit in range(10)]
WORDS = [f"{first}{second}" for first in "abcdef" for second in ("ix", "om", "ut", "al")]


def write_everything(root: Path) -> Path:
    """Write all that the pages name."""
    runs = root / "runs"
    runs.mkdir(parents=True)
    write_digits(root)
    write_language_models(root)
    write_tables(root)
    write_files(root)
    return root


def write_digits(root: Path) -> None:
    """Images of ten classes, IDX files and arrays of them, and classifiers: `runs/mnist`."""
    generator = torch.Generator().manual_seed(0)
    shapes = torch.rand(10, tiny.PIXELS, generator=generator)

    def drawn(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) % 10
        noise = 0.2 * torch.rand(count, tiny.PIXELS, generator=generator)
        return ((0.8 * shapes[labels] + noise) * 255).round() / 255, labels

    (x, y), (x_test, y_test) = drawn(400), drawn(100)
    parts = {"train_images": x, "train_labels": y, "test_images": x_test, "test_labels": y_test}
    with_data(root / "data", replace(tiny.images(name="mnist"), **parts, class_names=(*LABELS,)))
    cells = (tiny.SIDE, tiny.SIDE)
    np.savez(root / "mnist.npz", x_test=x_test.numpy().reshape(-1, *cells), y_test=y_test.numpy())
    for name, layers in (("mnist", 1), ("demo", 1), ("deep", 2), ("a", 1), ("b", 1)):
        line = ["--data-dir", root / "data", "--out", root / "runs" / name, "--layers", layers]
        line += ["--hidden=16", "--epochs=8", "--batch-size=40", "--learning-rate=0.02"]
        run("--quiet", "train", "image", *line)
    for name in ("good", "scratched"):
        (root / "photos/test" / name).mkdir(parents=True)
        for number in range(4):
            pixels = torch.rand(cells, generator=generator).mul(255).byte().numpy()
            Image.fromarray(pixels).save(root / "photos/test" / name / f"{number}.png")
    parts_names = ("good", "scratched")
    model = tiny.classifier(d_output=2)
    bl.save(model, root / "runs/parts", input_shape=cells, output_names=parts_names)


def write_language_models(root: Path) -> None:
    """A Llama, one tuned, an adapter and a quantisation of it; a model of ours with a corpus."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    names = ["<|endoftext|>", *WORDS]
    inner = Tokenizer(
        models.WordLevel({name: number for number, name in enumerate(names)}, names[0])
    )
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=names[0])
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": 2}
    config = LlamaConfig(vocab_size=len(names), num_attention_heads=2, **sizes)
    model: Any = LlamaForCausalLM(config).eval()
    saved = {name: one.numpy().copy() for name, one in model.state_dict().items()}
    down = "model.layers.0.mlp.down_proj"
    low_rank = torch.ones(WIDTH, 2) @ torch.ones(2, HIDDEN) / 50
    for name in ("runs/base", "models/SmolLM2", "runs/tuned", "runs/merged"):
        if name == "runs/tuned":
            model.state_dict()[f"{down}.weight"] += low_rank
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    for path in ("model-q8.gguf", "smollm2.gguf", "models/c.gguf"):
        write_gguf(root / path, gguf_tensors(saved), "Q8_0", blocks=2)
    adapter = root / "runs/adapter"
    adapter.mkdir()
    pair = {"lora_A": torch.ones(2, HIDDEN) / 50, "lora_B": torch.ones(WIDTH, 2)}
    tensors = {f"base_model.model.{down}.{name}.weight": one for name, one in pair.items()}
    save_file(tensors, adapter / "adapter_model.safetensors")
    about = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": "../base"}
    (adapter / "adapter_config.json").write_text(json.dumps(about))
    drawn = np.random.default_rng(0).choice(WORDS, (420, 80))
    texts = "\n\n".join(" ".join(words) for words in drawn)
    (root / "corpus.txt").write_text(texts)
    (root / "stories.txt").write_text(texts)
    traced_models.write_model(root / "runs/stories", n_layer=2)
    for end in ("in", "out"):
        traced_models.write_sae(root / "saes" / end, f"mlp_{end}", hook=f"blocks.1.mlp_{end}")


def gguf_tensors(saved: dict[str, Any]) -> dict[str, Any]:
    """The weights under the names of llama.cpp."""
    found = {"token_embd.weight": saved["model.embed_tokens.weight"]}
    found["output_norm.weight"] = saved["model.norm.weight"]
    for block in range(2):
        for part in ("gate", "up", "down"):
            name = f"model.layers.{block}.mlp.{part}_proj.weight"
            found[f"blk.{block}.ffn_{part}.weight"] = saved[name]
    return found


def write_tables(root: Path) -> None:
    """Rows of wines with their cultivar, and of what `mlp.safetensors` reads with a grade."""
    random = np.random.default_rng(0)
    x = random.normal(size=(120, 4))
    frame = pd.DataFrame(x, columns=["alcohol", "ash", "hue", "proline"])
    frame["cultivar"] = np.where(x[:, 0] * x[:, 1] > 0, "a", "b")
    frame.to_csv(root / "wine.csv", index=False)
    frame.to_csv(root / "wine_test.csv", index=False)
    line = [root / "wine.csv", "--target", "cultivar", "--out", root / "runs/wine"]
    run("--quiet", "train", "table", *line)
    rows = pd.DataFrame(x, columns=list("abcd"))
    rows["grade"] = (x[:, 0] > 0).astype(int)
    rows.to_csv(root / "rows.csv", index=False)
    np.save(root / "x.npy", x.astype(np.float32))
    np.save(root / "y.npy", rows["grade"].to_numpy())


def write_files(root: Path) -> None:
    """Files of other tools."""
    torch.manual_seed(0)
    small = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    save_file(small.state_dict(), root / "mlp.safetensors")
    torch.save(small.state_dict(), root / "checkpoint.pt")
    torch.save(small.state_dict(), root / "model.pt")
    onnx_files.export(small.float(), torch.zeros(1, 4), root / "model.onnx")
    head = nn.Sequential(nn.AvgPool2d(160), nn.Flatten(), *small_detector())
    onnx_files.export(head, torch.zeros(1, 3, 480, 640), root / "detector.onnx")
    gated = {
        f"h.{block}.{name}": torch.randn(*shape)
        for block in range(2)
        for name, shape in (("w1", (8, 4)), ("w3", (8, 4)), ("w2", (4, 8)))
    }
    torch.save(gated, root / "gated.pt")
    save_file(transformer().state_dict(), root / "network.safetensors")
    (root / "roles.json").write_text(json.dumps(asdict(ROLES)))
    (root / "names.json").write_text(json.dumps({"tokens": list("abcdefg")}))
    (root / "tokenizer.json").write_text(json.dumps({"tokens": list("abcdefg")}))
    tokens = torch.arange(12).reshape(2, 6) % 7
    probe = {"tokens": tokens, "logits": transformer()(tokens).detach()}
    save_file(probe, root / "probe.safetensors")


def small_detector() -> list[nn.Module]:
    return [nn.Linear(36, 16), nn.ReLU(), nn.Linear(16, 2)]


def named_file(root: Path) -> None:
    shapes = {"fc1.weight": (8, 4), "fc2.weight": (2, 8)}
    save_file({n: torch.randn(*s) for n, s in shapes.items()}, root / "mlp.safetensors")


def deep_file(root: Path) -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    named = {f"net.{name}": one for name, one in net.state_dict().items()}
    save_file(named, root / "mlp.safetensors")


def gated_file(root: Path) -> None:
    shapes = {"w1": (8, 4), "w3": (8, 4), "w2": (4, 8)}
    save_file({n: torch.randn(*s) for n, s in shapes.items()}, root / "mlp.safetensors")


# Words of a line → what lies there under the name of the file, of which a page shows several.
BEFORE: dict[str, Callable[[Path], None]] = {
    "--map up=fc1.weight": named_file,
    "--map up.0=net.0.weight": deep_file,
    "--map gate=w1 ": gated_file,
}
