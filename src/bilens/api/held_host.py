"""A model of transformers at one text: patterns and factors of norms as a copy in float64 ran."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import UsageError
from bilens.io.vocabulary import Norm, Vocabulary, vocabulary_of
from bilens.nn.real_run import Seen, run_as_owner
from bilens.polynomial.at_text import HeldAttention, HeldMLP, HeldNorm, HeldPart, NetworkAtText


def refuse(model: nn.Module, why: str) -> NoReturn:
    raise UsageError(f"a {type(model).__name__} is not read at a text: {why}.")


def hold_host(
    model: nn.Module, text: Tensor, logits: Tensor, maps: Mapping[int, QuadraticMap]
) -> NetworkAtText:
    """Run a copy of a model of transformers in float64, and hold its patterns and factors."""
    vocabulary, config = vocabulary_of(model), getattr(model, "config", None)
    if vocabulary is None or vocabulary.last is None or not hasattr(config, "to_dict"):
        refuse(model, "expected a bl.nn.BilinearTransformer, or a causal one of transformers")
    ends, layers = vocabulary.ends, getattr(config, "num_hidden_layers", 0)
    if ends.behind_attention or ends.behind_mlp:
        refuse(model, "it has norms behind its parts")
    if sorted(maps) != [*range(layers)]:
        refuse(model, "it has blocks without an MLP that is read")
    paths = {number: norm_paths(model, vocabulary, number) for number in range(layers)}
    last = vocabulary.names[f"{ends.norm}.weight"].rpartition(".")[0]
    twin: Any = copy.deepcopy(model).double()
    twin.set_attn_implementation("eager")  # which alone gives its patterns
    given = {"input_ids": text[None], "use_cache": False, "output_attentions": True}
    watched = [*(path for both in paths.values() for path in both), last]
    answer, seen = run_as_owner(twin, given, watched)
    patterns = answer["attentions"]
    if len(patterns or ()) != layers:
        refuse(model, "it does not give its attention patterns")
    parts: list[HeldPart] = []
    for number, (attention, mlp) in paths.items():
        before = f"layers.{number}."
        norms = [
            held_as_run(vocabulary.norm(before, names), path, seen)
            for names, path in ((ends.before_attention, attention), (ends.before_mlp, mlp))
        ]
        pattern = patterns[number][0].double()
        parts.append(held_attention(vocabulary, f"{before}self_attn.", pattern, norms[0]))
        parts.append(HeldMLP(norms[1], maps[number] * ends.residual_scale))
    return NetworkAtText(
        text.cpu(),
        logits,
        vocabulary.embedding.detach().double()[text],
        tuple(parts),
        held_as_run(vocabulary.last, last, seen),
        vocabulary.head.detach().double() * ends.logit_scale,
        wide(vocabulary.tensor(f"{ends.head}.bias"), ends.logit_scale),
    )


def norm_paths(model: nn.Module, vocabulary: Vocabulary, number: int) -> tuple[str, str]:
    """Return the paths of the two norms of a block; refuse a block that is built otherwise."""
    names, ends, before = vocabulary.names, vocabulary.ends, f"layers.{number}."
    for part in ("v_proj", "o_proj"):
        if f"{before}self_attn.{part}.weight" not in names:
            refuse(model, f"its attention has no map {part} of its own")
    found = []
    for parts in (ends.before_attention, ends.before_mlp):
        there = (names.get(f"{before}{part}.weight", "") for part in parts)
        found.append(next(filter(None, there), "").rpartition(".")[0])
    if not all(found):
        refuse(model, f"block {number} has no known norm")
    if found[0] == found[1]:
        refuse(model, "attention and MLP of a block read the same stream")
    return found[0], found[1]


def held_attention(
    vocabulary: Vocabulary, name: str, pattern: Tensor, norm: HeldNorm
) -> HeldAttention:
    """Return an attention with its pattern; a value that several heads share stands in each."""
    scale, heads = vocabulary.ends.residual_scale, len(pattern)
    value, out = (wide(vocabulary.tensor(f"{name}{part}_proj.weight")) for part in "vo")
    assert value is not None, "asked for before"
    assert out is not None, "asked for before"
    d_head = out.shape[1] // heads
    shared = heads * d_head // len(value)
    bias = wide(vocabulary.tensor(f"{name}v_proj.bias"))
    return HeldAttention(
        norm,
        pattern,
        value.view(-1, d_head, value.shape[1]).repeat_interleave(shared, dim=0),
        split_heads(out * scale, heads),
        None if bias is None else bias.view(-1, d_head).repeat_interleave(shared, dim=0),
        wide(vocabulary.tensor(f"{name}o_proj.bias"), scale),
    )


def held_as_run(norm: Norm | None, path: str, seen: Seen) -> HeldNorm:
    """Return a norm with the factors by which it divided in a run."""
    assert norm is not None, "its gain is there"
    x, y = (seen[path, side][0].double() for side in ("entered", "left"))
    bias = wide(norm.bias)
    plain = HeldNorm(x.new_ones(len(x)), wide(norm.gain), None, norm.centred)
    flat = plain(x)
    size = flat.square().sum(dim=-1).clamp(min=torch.finfo(x.dtype).tiny)
    factor = ((y if bias is None else y - bias) * flat).sum(dim=-1) / size
    return replace(plain, factor=factor, bias=bias)


def wide(tensor: Tensor | None, scale: float = 1.0) -> Tensor | None:
    return None if tensor is None else tensor.detach().double() * scale


def split_heads(out: Tensor, heads: int) -> Tensor:
    """Split the columns of an output map, (d_model, heads · d_head) → (heads, d_model, d_head)."""
    return out.view(len(out), heads, -1).transpose(0, 1)
