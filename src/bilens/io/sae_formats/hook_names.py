"""Hook points under the names of TransformerLens, which SAELens uses."""

from __future__ import annotations

import re

POINTS = {
    "resid_pre": "hook_resid_pre",
    "attn_out": "hook_attn_out",
    "resid_mid": "hook_resid_mid",
    "mlp_in": "ln2.hook_normalized",
    "mlp_out": "hook_mlp_out",
    "resid_post": "hook_resid_post",
}


def to_transformer_lens(hook: str) -> str:
    """Return blocks.{i}.hook_mlp_out for blocks.{i}.mlp_out, and so on; others as they are."""
    block, _, point = hook.rpartition(".")
    return f"{block}.{POINTS[point]}" if point in POINTS else hook


def from_transformer_lens(name: str) -> str | None:
    """Return the hook point of a name; None if it is none of those above."""
    for point, theirs in POINTS.items():
        match = re.fullmatch(rf"(blocks\.\d+)\.{re.escape(theirs)}", name, re.ASCII)
        if match:
            return f"{match[1]}.{point}"
    return None
