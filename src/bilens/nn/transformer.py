"""The language model of the paper: attention and bilinear MLPs on one residual stream."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.shapes import check_index
from bilens.base.errors import UsageError
from bilens.base.files import write_new_files
from bilens.nn.block import (
    Block,
    Edit,
    Hooks,
    KeyValueCache,
    MLPType,
    Positions,
    RMSNorm,
    TiedHead,
    TransformerConfig,
    hook_layer,
    unobserved,
    visible_keys,
)
from bilens.nn.huggingface import huggingface_files, llama_card
from bilens.nn.mlp import MLP, BilinearMLP, Gate
from bilens.nn.real_run import check_as_rebuilt, first_tokens
from bilens.nn.tokens import TextModel, check_tokens, mean_cross_entropy
from bilens.polynomial.rotary import rotation_table

START_DEVIATION = 0.02  # of every weight at the start, as in GPT-2


class BilinearTransformer(TextModel):
    """Tokens → logits of the next token, (batch, tokens) → (batch, tokens, vocab_size).

    Pre-normalised by RMSNorm without gains, rotary positions, causal attention, no dropout.
    Without a gate every MLP is an exact quadratic map of what it reads: `layer_map`.

    Args:
        vocab_size: number of tokens.
        d_model: width of the residual stream.
        d_hidden: number of products in each MLP.
        n_layer: number of blocks.
        n_head: heads of each attention; d_model / n_head must be even.
        n_ctx: longest text, in tokens.
        gate: None (bilinear), "relu", "gelu" or "silu", on the left branch of each MLP.
        tied: whether the unembedding is the embedding.
        bias: whether the MLPs have biases.
        rotary_base: base of the rotary angles.
        norm_epsilon: added to the mean square in each norm.
        mlp_type: "gated" (bilinear or with the gate), or "ordinary": GELU and one branch, with
            3/2 · d_hidden neurons, so that it has as many weights.

    Raises: UsageError if a size, the gate or the type of MLP is not as above.

    Source: arXiv:2410.08417, §5 and App. G.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        d_hidden: int,
        n_layer: int,
        n_head: int,
        n_ctx: int,
        gate: Gate | None = None,
        *,
        tied: bool = False,
        bias: bool = False,
        rotary_base: float = 10000.0,
        norm_epsilon: float = 1e-5,
        mlp_type: MLPType = "gated",
    ) -> None:
        super().__init__()
        self.config = TransformerConfig(
            vocab_size, d_model, d_hidden, n_layer, n_head, n_ctx,
            gate, tied, bias, rotary_base, norm_epsilon, mlp_type,
        )  # fmt: skip
        self.embed = nn.Embedding(vocab_size, d_model)
        self.blocks = nn.ModuleList(Block(self.config) for _ in range(n_layer))
        self.final_norm = RMSNorm(norm_epsilon)
        self.unembed: nn.Linear | TiedHead = (
            TiedHead(self.embed) if tied else nn.Linear(d_model, vocab_size, bias=False)
        )
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:  # what adds to the residual stream starts smaller
                adds = name.endswith(("attention.out.weight", "mlp.down.weight"))
                scale = 1 / math.sqrt(2 * n_layer) if adds else 1.0
                nn.init.normal_(parameter, std=START_DEVIATION * scale)

    @property
    def mlps(self) -> list[BilinearMLP | MLP]:
        """The MLP of each block."""
        return [block.mlp for block in self.blocks if isinstance(block, Block)]

    def forward(self, tokens: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Return the logits of the token that follows each one; padding changes none of them.

        Args:
            tokens: (batch, tokens), integers below `vocab_size`.
            padding_mask: (batch, tokens), True at real tokens; None if all are.

        Raises: UsageError if the tokens are out of range, or more than `n_ctx`; ShapeError if they
            are no batch of integers, or the mask does not fit them.
        """
        return self._logits(self.stream(tokens, padding_mask))

    def next_token_loss(self, texts: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Return the mean cross-entropy of each token given those before it, in nats.

        The logits of all tokens are never held at once.

        Args:
            texts: (batch, tokens), two to `n_ctx` + 1 tokens.
            padding_mask: as in `forward`; padding is neither read nor predicted.

        Raises: UsageError as in `forward`, or if there is nothing to predict; ShapeError as in
            `forward`.
        """
        check_tokens(texts, padding_mask, self.config.vocab_size, self.config.n_ctx + 1)
        read, known = padding_mask, torch.ones_like(texts[:, 1:], dtype=torch.bool)
        if padding_mask is not None:
            read, known = padding_mask[:, :-1], padding_mask[:, :-1] & padding_mask[:, 1:]
        if not bool(known.any()):
            raise UsageError("there is no token to predict: expected texts of at least two tokens.")
        x, targets = self.final_norm(self.stream(texts[:, :-1], read)), texts[:, 1:].long()
        if padding_mask is not None:
            x, targets = x[known], targets[known]
        return mean_cross_entropy(x.flatten(0, -2), self.unembed.weight, targets.flatten())

    def run(
        self,
        tokens: Tensor,
        *,
        capture: Collection[str] = (),
        replace: Mapping[str, Edit] | None = None,
        padding_mask: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the logits and the activations at named points, some of them replaced.

        The points are blocks.{i}. and resid_pre, attn_out, resid_mid, mlp_in (behind the norm),
        mlp_out or resid_post; at each stands a tensor (batch, tokens, d_model). Captured
        tensors stay in the graph of gradients where one is being built.

        Args:
            tokens: as in `forward`, and so is `padding_mask`.
            capture: the names to keep.
            replace: name → function of the activations that returns what takes their place.
            padding_mask: True at real tokens.

        Raises: UsageError if there is no such point, or as in `forward`; ShapeError if a
            replacement has another shape, or as in `forward`.
        """
        hooks = Hooks.for_run(capture, replace or {}, self.config.n_layer)
        return self._logits(self.stream(tokens, padding_mask, hooks)), hooks.captured

    def activations(
        self, tokens: Tensor, capture: Collection[str], padding_mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the activations at named points; blocks behind the last one are not computed.

        Raises: UsageError if there is no such point, or as in `forward`.
        """
        hooks = Hooks.for_run(capture, {}, self.config.n_layer)
        last = max((hook_layer(name, self.config.n_layer) for name in hooks.capture), default=-1)
        self.stream(tokens, padding_mask, hooks, n_layer=last + 1)
        return hooks.captured

    def stream(
        self,
        tokens: Tensor,
        padding_mask: Tensor | None = None,
        hooks: Hooks | None = None,
        n_layer: int | None = None,
    ) -> Tensor:
        """Return the residual stream behind the first `n_layer` blocks (None: all), no norm.

        Raises: UsageError as in `forward`; ShapeError as in `forward`.
        """
        check_tokens(tokens, padding_mask, self.config.vocab_size, self.config.n_ctx)
        positions = self._positions(tokens.shape[1], padding_mask)
        x: Tensor = self.embed(tokens)
        for index, block in enumerate(self.blocks[:n_layer]):
            x = block(x, positions, unobserved if hooks is None else hooks.observer(index))
        return x

    def _logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.unembed(self.final_norm(x))
        return logits

    def _positions(
        self, length: int, padding_mask: Tensor | None = None, start: int = 0
    ) -> Positions:
        """Return the positions of `length` tokens from `start`, padding not counted."""
        weight = self.embed.weight
        d_head = self.config.d_head
        # few sizes, so that the tables are kept
        size = min(self.config.n_ctx, 1 << (start + length - 1).bit_length())
        table = rotation_table(size, d_head, self.config.rotary_base, weight.dtype, weight.device)
        if padding_mask is None:
            cosines, sines = (part[None, start : start + length, None] for part in table)
            return Positions(cosines, sines, None)
        token_positions = (padding_mask.cumsum(dim=1) - 1).clamp(min=0)
        cosines, sines = (part[token_positions][:, :, None] for part in table)
        return Positions(cosines, sines, visible_keys(padding_mask))

    def layer_map(self, index: int) -> QuadraticMap:
        """Return the exact map of the MLP of block `index`, mlp_in → mlp_out.

        Raises: UsageError if there is no such block; NotQuadraticError if the MLP is gated or an
            ordinary one.
        """
        return self.mlps[check_index("block", index, self.config.n_layer)].quadratic_map()

    def next_logits(self, texts: Tensor, total: int) -> Callable[[Tensor], Tensor]:
        """Return a function that reads on from keys and values that it keeps; see `TextModel`."""
        shape = (len(texts), self.config.n_head, total, self.config.d_head)
        weight = self.embed.weight
        caches = [
            KeyValueCache(weight.new_empty(shape), weight.new_empty(shape)) for _ in self.blocks
        ]

        def read_on(new: Tensor) -> Tensor:
            x: Tensor = self.embed(new)
            positions = self._positions(new.shape[1], start=caches[0].length)
            for block, cache in zip(self.blocks, caches, strict=True):
                x = block(x, positions, cache=cache)
            return self._logits(x[:, -1])

        return read_on

    def save_huggingface(
        self,
        folder: str | Path,
        *,
        tokenizer: str | Path | None = None,
        end_of_text: str = "<|endoftext|>",
        provenance: Mapping[str, str] | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write a folder that `AutoModelForCausalLM.from_pretrained` loads, with equal logits.

        It is a Llama with the activation "linear" (or the gate's), without code of its own.

        Args:
            folder: where to; other files in it are left alone.
            tokenizer: a tokenizer.json to put beside it, for `AutoTokenizer`; None for none.
            end_of_text: its token that ends a text.
            provenance: where the weights come from: seed, data, versions.
            overwrite: whether a model that is already there may be replaced.

        Raises: UsageError if the MLPs are ordinary or altered ones, or the tokenizer does not fit;
            OutputExistsError if the folder holds a model and `overwrite` is off; NonFiniteError if
            a weight is NaN or infinite; DiskError if the disk is full; FileError if the folder
            cannot be written to.
        """
        gates = {getattr(mlp, "gate", None) for mlp in self.mlps}
        if gates != {self.config.gate}:
            raise UsageError(
                f"the MLPs have the gates {gates}, and the model was built with "
                f"{self.config.gate!r}: a Llama has one for all of them."
            )
        paths = any(getattr(mlp, "skip", None) is not None for mlp in self.mlps)
        if paths or {getattr(mlp, "has_bias", None) for mlp in self.mlps} != {self.config.bias}:
            raise UsageError(
                "an MLP has a linear path, or biases where the model was built without them or "
                "none where it has them, for which a Llama has no place: build the model with the "
                "MLPs that it has."
            )
        path = None if tokenizer is None else Path(tokenizer)
        state, said = self.state_dict(), provenance or {}
        files = huggingface_files(self.config, state, path, end_of_text, said)
        with torch.device("meta"):
            rebuilt = BilinearTransformer(**asdict(self.config))
        rebuilt.load_state_dict(state, assign=True)
        tokens = first_tokens(self.config.vocab_size, self.config.n_ctx)
        check_as_rebuilt(self, rebuilt, tokens.to(self.embed.weight.device))
        card = llama_card(Path(folder), self.config, files["model.safetensors"], said)
        write_new_files(Path(folder), files | card, overwrite)
        return Path(folder)
