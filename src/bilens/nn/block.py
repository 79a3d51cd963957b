"""One block of a transformer: attention and an MLP, each adding to the residual stream."""

from __future__ import annotations

from torch import Tensor, nn

from bilens.nn.attention import Attention, KeyValueCache, Positions
from bilens.nn.hooks import Observer, unobserved
from bilens.nn.mlp import BilinearMLP
from bilens.nn.ordinary_mlp import MLP
from bilens.nn.rms_norm import RMSNorm
from bilens.nn.transformer_config import TransformerConfig


class Block(nn.Module):
    """x ← x + attention(norm x), then x ← x + mlp(norm x)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        d_model, d_hidden, bias = config.d_model, config.d_hidden, config.bias
        self.attention_norm = RMSNorm(config.norm_epsilon)
        self.attention = Attention(d_model, config.n_head)
        self.mlp_norm = RMSNorm(config.norm_epsilon)
        self.mlp: BilinearMLP | MLP = (
            BilinearMLP(d_model, d_hidden, bias=bias, gate=config.gate)
            if config.mlp_type == "gated"
            else MLP(d_model, 3 * d_hidden // 2, bias=bias)
        )

    def forward(
        self,
        x: Tensor,
        positions: Positions,
        observe: Observer = unobserved,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Return the residual stream behind the block, (batch, tokens, d_model) → the same."""
        x = observe("resid_pre", x)
        x = x + observe("attn_out", self.attention(self.attention_norm(x), positions, cache))
        x = observe("resid_mid", x)
        x = x + observe("mlp_out", self.mlp(observe("mlp_in", self.mlp_norm(x))))
        return observe("resid_post", x)
