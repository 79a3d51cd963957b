"""The same transformer as research code commonly writes it, and a plain way to train it.

In training it attends through torch's fused function, in evaluation through einsum, a mask and a
softmax; norms and rotations are written out; the model returns logits for every token, and the
loss shifts them. Texts come as dictionaries, one at a time, from a DataLoader. This is the style
of the paper's repository, without the overhead of the trainer that it uses on top.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from bilens.nn import BilinearTransformer
from bilens.nn.block import TransformerConfig
from bilens.train.tasks.language import BETAS, LanguageRecipe


class Norm(nn.Module):
    """x over its root mean square."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised inputs."""
        y: Tensor = x / (x.pow(2).mean(dim=-1, keepdim=True) + 1e-5).sqrt()
        return y


class Attention(nn.Module):
    """Causal attention with rotary positions."""

    mask: Tensor
    cosines: Tensor
    sines: Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model, bias=False)
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)
        mask = torch.ones(config.n_ctx + 1, config.n_ctx + 1).tril()
        self.register_buffer("mask", mask, persistent=False)
        exponents = torch.arange(0, config.d_head, 2).float() / config.d_head
        positions = torch.arange(config.n_ctx + 1).float()
        angles = torch.outer(positions, 1.0 / config.rotary_base**exponents)
        angles = torch.cat([angles, angles], dim=-1)
        self.register_buffer("cosines", angles.cos(), persistent=False)
        self.register_buffer("sines", angles.sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the heads add."""
        batch, tokens, d_model = x.shape
        q, k, v = (
            part.view(batch, tokens, self.n_head, -1).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        cosines, sines = self.cosines[:tokens], self.sines[:tokens]
        q, k = (part * cosines + half_turned(part) * sines for part in (q, k))
        if self.training:
            heads = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = torch.einsum("bhqd,bhkd->bhqk", q, k) / math.sqrt(q.shape[-1])
            scores = scores.masked_fill(self.mask[:tokens, :tokens] == 0, -torch.inf)
            heads = torch.einsum("bhqk,bhkd->bhqd", scores.softmax(dim=-1), v)
        y: Tensor = self.out(heads.transpose(1, 2).reshape(batch, tokens, d_model))
        return y


def half_turned(x: Tensor) -> Tensor:
    """Return (−second half, first half)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)


class MLP(nn.Module):
    """Both branches from one matrix, their product, and down."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.branches = nn.Linear(config.d_model, 2 * config.d_hidden, bias=False)
        self.down = nn.Linear(config.d_hidden, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the MLP adds."""
        left, right = self.branches(x).chunk(2, dim=-1)
        y: Tensor = self.down(left * right)
        return y


class Layer(nn.Module):
    """Attention and MLP on the residual stream."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(config), MLP(config)
        self.attention_norm, self.mlp_norm = Norm(), Norm()

    def forward(self, x: Tensor) -> Tensor:
        """Return the residual stream behind the layer."""
        x = x + self.attention(self.attention_norm(x))
        y: Tensor = x + self.mlp(self.mlp_norm(x))
        return y


class PlainTransformer(nn.Module):
    """Tokens → logits."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layer))
        self.norm = Norm()
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return logits for every token."""
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def loss(self, input_ids: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of each token given those before it."""
        shifted = self(input_ids)[:, :-1].contiguous()
        targets = labels[:, 1:].contiguous()
        return functional.cross_entropy(shifted.view(-1, shifted.shape[-1]), targets.view(-1))

    def copy_weights(self, model: BilinearTransformer) -> None:
        """Become the same function as a model of ours."""
        state = {"embed.weight": model.embed.weight, "head.weight": model.unembed.weight}
        ours = model.state_dict()
        for index in range(model.config.n_layer):
            theirs, block = f"layers.{index}.", f"blocks.{index}."
            branches = [ours[f"{block}mlp.{side}.weight"] for side in ("left", "right")]
            state[f"{theirs}mlp.branches.weight"] = torch.cat(branches)
            state[f"{theirs}mlp.down.weight"] = ours[f"{block}mlp.down.weight"]
            for name in ("qkv", "out"):
                weight = ours[f"{block}attention.{name}.weight"]
                state[f"{theirs}attention.{name}.weight"] = weight
        self.load_state_dict(state)


class Texts(Dataset[dict[str, Any]]):
    """Texts as dictionaries of lists, as a tokenised data set hands them out."""

    def __init__(self, texts: Tensor) -> None:
        self.texts = texts.tolist()

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        text = self.texts[index]
        return {"input_ids": text, "attention_mask": [1] * len(text)}


def collate(items: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Make a batch of texts; the labels are the texts themselves."""
    batch = {name: torch.tensor([item[name] for item in items]) for name in items[0]}
    return {**batch, "labels": batch["input_ids"].clone()}


def plain_steps(model: PlainTransformer, texts: Tensor, recipe: LanguageRecipe) -> Iterator[float]:
    """Train without an end; yields the loss of each step."""
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        betas=BETAS,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    loader: DataLoader[Any] = DataLoader(
        Texts(texts), recipe.batch_size, shuffle=True, drop_last=True, collate_fn=collate
    )
    while True:
        for batch in loader:
            model.train()
            loss = model.loss(batch["input_ids"], batch["labels"])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            yield loss.item()


@torch.no_grad()
def plain_evaluation(model: PlainTransformer, loader: DataLoader[Any]) -> float:
    """Return the mean loss over texts of one length."""
    model.eval()
    total, count = 0.0, 0
    for batch in loader:
        loss = model.loss(batch["input_ids"], batch["labels"])
        total += loss.item() * len(batch["input_ids"])
        count += len(batch["input_ids"])
    return total / count
