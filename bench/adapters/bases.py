"""The models that adapters are made for: SmolLM2-135M and small Llamas trained here.

Only the last blocks are adapted, so that what lies below them is computed once for each text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

SMALL = {  # name: blocks, activation ("linear" is bilinear), seed
    "bilinear-2": (2, "linear", 0),
    "swiglu-3": (3, "silu", 1),
    "bilinear-3": (3, "linear", 2),
}
STEPS, BATCH, LENGTH, VOCABULARY = 1200, 16, 64, 2048


@dataclass(eq=False)
class Base:
    """A causal Llama with the frame that a user's words stand in."""

    name: str
    model: Any
    tokenizer: Tokenizer
    prefix: list[int]  # token ids around what a user writes
    suffix: list[int]
    first: int  # the first block that may be adapted

    @property
    def num_layers(self) -> int:
        return int(self.model.config.num_hidden_layers)

    @property
    def unembedding(self) -> Tensor:
        return cast(Tensor, self.model.lm_head.weight.detach())

    def words(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def framed(self, text: Sequence[int]) -> list[int]:
        return [*self.prefix, *text, *self.suffix]

    @cached_property
    def below(self) -> nn.ModuleList:
        """The blocks below, in bfloat16 where there are any."""
        blocks = self.model.model.layers[: self.first]
        return cast(nn.ModuleList, blocks.bfloat16() if self.first else blocks)

    def tail(self) -> Tail:
        """Return the blocks that may be adapted, and the last norm."""
        layers, narrow = self.model.model.layers[self.first :], self.first > 0
        return Tail(layers, self.model.model.norm, narrow)

    def rotary(self, length: int) -> tuple[Tensor, Tensor]:
        at = torch.arange(length)[None]
        found: tuple[Tensor, Tensor] = self.model.model.rotary_emb(torch.zeros(1), at)
        return found

    @torch.no_grad()
    def entering(self, texts: Sequence[Sequence[int]], block: int = 64) -> tuple[Tensor, Tensor]:
        """Return what enters the tail, (texts, length, width), padded left; and what is real."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        length = max(map(len, texts))
        width = self.model.config.hidden_size
        found = torch.zeros(len(texts), length, width)
        real = torch.zeros(len(texts), length, dtype=torch.bool)
        for start in range(0, len(order), block):
            rows = order[start : start + block]
            longest = max(len(texts[i]) for i in rows)
            ids = torch.zeros(len(rows), longest, dtype=torch.long)
            seen = torch.zeros(len(rows), longest, dtype=torch.bool)
            for row, i in enumerate(rows):
                ids[row, longest - len(texts[i]) :] = torch.tensor(texts[i])
                seen[row, longest - len(texts[i]) :] = True
            hidden = self.model.model.embed_tokens(ids)
            if self.first:
                cos, sin = (one.bfloat16() for one in self.rotary(longest))
                mask, half = visible(seen).bfloat16(), hidden.bfloat16()
                for layer in self.below:
                    half = layer(half, attention_mask=mask, position_embeddings=(cos, sin))
                hidden = half.float()
            found[rows, length - longest :] = hidden
            real[rows, length - longest :] = seen
        return found, real


def visible(real: Tensor) -> Tensor:
    """Return the additive mask of causal attention over what is real."""
    length = real.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    seen = (causal & real[:, None, :]) | torch.eye(length, dtype=torch.bool)
    return torch.where(seen, 0.0, torch.finfo(torch.float32).min / 2)[:, None]


class Tail(nn.Module):
    """The adapted blocks and the last norm: hidden → what the unembedding reads."""

    def __init__(self, layers: nn.ModuleList, norm: nn.Module, narrow: bool) -> None:
        super().__init__()
        self.layers, self.norm, self.narrow = layers, norm, narrow

    def forward(
        self, hidden: Tensor, real: Tensor, rotary: tuple[Tensor, Tensor], last: int
    ) -> Tensor:
        """Return the last positions, (texts, last, width)."""
        mask = visible(real)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.narrow):
            for layer in self.layers[:-1]:
                hidden = block(layer, hidden, mask, rotary, hidden.shape[1])
            hidden = block(self.layers[-1], hidden, mask, rotary, last)
        return cast(Tensor, self.norm(hidden.float()))


def block(
    layer: Any, hidden: Tensor, mask: Tensor, rotary: tuple[Tensor, Tensor], last: int
) -> Tensor:
    """Return what a block of a Llama makes of the last positions."""
    attention, (cos, sin) = layer.self_attn, rotary
    x, size = layer.input_layernorm(hidden), attention.head_dim
    q, k, v = (
        project(part).unflatten(-1, (-1, size)).transpose(1, 2)
        for project, part in (
            (attention.q_proj, x[:, -last:]),
            (attention.k_proj, x),
            (attention.v_proj, x),
        )
    )
    q = q * cos[:, None, -last:] + turned(q) * sin[:, None, -last:]
    k = k * cos[:, None] + turned(k) * sin[:, None]
    v = v.to(k.dtype)
    many = q.shape[1] // k.shape[1]
    k, v = (one.repeat_interleave(many, dim=1) for one in (k, v))
    seen = nn.functional.scaled_dot_product_attention(
        q.to(k.dtype), k, v, attn_mask=mask[:, :, -last:].to(k.dtype)
    )
    hidden = hidden[:, -last:] + attention.o_proj(seen.transpose(1, 2).flatten(2))
    return cast(Tensor, hidden + layer.mlp(layer.post_attention_layernorm(hidden)))


def turned(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)


def smol(path: Path, first: int = 28) -> Base:
    """Return SmolLM2-135M-Instruct from its GGUF file, its chat template as the frame."""
    auto: Any = AutoModelForCausalLM
    model = auto.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    names: Any = AutoTokenizer
    tokenizer = names.from_pretrained(path.parent, gguf_file=path.name).backend_tokenizer
    ends = ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n")
    prefix, suffix = (tokenizer.encode(one, add_special_tokens=False).ids for one in ends)
    return Base("smollm2", model.requires_grad_(False), tokenizer, prefix, suffix, first)


def small(name: str, folder: Path, texts: Sequence[str]) -> Base:
    """Return a small Llama, trained at the first call."""
    layers, activation, seed = SMALL[name]
    tokens = folder / "tokenizer.json"
    if not tokens.exists():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        special = ["<|endoftext|>", "<|user|>", "<|answer|>"]
        tokenizer.train_from_iterator(
            texts,
            trainers.BpeTrainer(
                vocab_size=VOCABULARY,
                initial_alphabet=alphabet,
                special_tokens=special,
                show_progress=False,
            ),
        )
        tokenizer.save(str(tokens))
    tokenizer = Tokenizer.from_file(str(tokens))
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        hidden_act=activation,
        max_position_embeddings=128,
        tie_word_embeddings=False,
    )
    model: Any = LlamaForCausalLM(config)
    there = folder / name
    if (there / "config.json").exists():
        model = LlamaForCausalLM.from_pretrained(there)
    else:
        loss = pretrain(model, tokenizer, texts, seed)
        model.save_pretrained(there)
        tokenizer.save(str(there / "tokenizer.json"))
        (there / "loss.json").write_text(json.dumps(loss))
    model = model.eval().requires_grad_(False)
    return Base(name, model, tokenizer, [1], [2], 0)


def pretrain(model: Any, tokenizer: Tokenizer, texts: Sequence[str], seed: int) -> float:
    """Train on texts, a part of them behind the frame; return the last loss."""
    stream = torch.tensor(tokenizer.encode("\n".join(texts)).ids)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, STEPS)
    seen = 0.0
    for _ in range(STEPS):
        starts = torch.randint(len(stream) - LENGTH - 1, (BATCH,), generator=generator)
        batch = torch.stack([stream[s : s + LENGTH + 1] for s in starts])
        cut = torch.randint(4, 16, (BATCH,), generator=generator)
        rows = torch.arange(BATCH)  # a sentence, and behind the frame what follows it
        batch = torch.cat([torch.ones(BATCH, 1, dtype=torch.long), batch[:, :-1]], dim=1)
        framed = rows[: BATCH // 2]
        for row in framed.tolist():
            k = int(cut[row])
            batch[row] = torch.cat([batch[row, :k], torch.tensor([2]), batch[row, k:-1]])
        logits = model(batch[:, :-1]).logits
        loss: Any = nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        seen = float(loss)
    return seen
