"""Opens a transformer at one text: patterns and norms held there, compared with the owner's run."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.api.held_host import hold_host, split_heads
from bilens.api.subject import open_subject
from bilens.base.errors import NotQuadraticError, NumericalError, ShapeError, UsageError
from bilens.nn.block import Block
from bilens.nn.polynomial_transformer import PolynomialTransformer
from bilens.nn.real_run import run_as_owner, what_may_differ
from bilens.nn.transformer import BilinearTransformer
from bilens.polynomial.at_text import HeldAttention, HeldMLP, HeldNorm, HeldPart, NetworkAtText
from bilens.polynomial.network import INTEGERS, check_ids
from bilens.polynomial.rotary import rotate, rotation_table

# Of the largest logit, by the dtype of the model; transformers rounds to float32 inside.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4}
IN_TRANSFORMERS = 1e-4
BLOCK = re.compile(r"\.(\d+)\.")


def read_at_text(model: object, tokens: Tensor | Sequence[int]) -> NetworkAtText:
    """Read a transformer with softmax and norms exactly at one text.

    Attention patterns and the factors of norms are held at the values that they have at this text.
    What is left is a polynomial of the embeddings, since every MLP is quadratic, and it is read
    exactly: by paths, by named interactions, each MLP as a `QuadraticMap` of the stream. The sum of
    all parts is compared with the caller's own model as it runs on this text, in evaluation.

    Cost: a run of the model, and one of its parts in float64; of a model of transformers also a
        copy of it in float64, O(parameters) memory.

    Args:
        model: a `bl.nn.BilinearTransformer` without a gate; or a causal model of transformers in
            memory whose MLPs were converted (`bl.load_converted`) or have the activation "linear",
            with RMSNorm or LayerNorm before attention and MLP, and separate maps v_proj and o_proj.
        tokens: the text, (n,), ids of tokens.

    Raises: NotQuadraticError if an MLP has an activation; NumericalError if the parts do not sum to
        what the model computes; UsageError if it is another kind of model, or a token is out of
        range; ShapeError if tokens are no text, (n,).
    """
    if isinstance(model, PolynomialTransformer):
        raise UsageError(
            "a PolynomialTransformer has no softmax and no norm: nothing has to be held at a text. "
            "Read it for all texts with bl.polynomial_network(model)."
        )
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"model is a {type(model).__name__}; expected a transformer in memory: a "
            "bl.nn.BilinearTransformer (bl.load(path).module), or one of transformers "
            "(bl.load_converted(path))."
        )
    dtype = next((one.dtype for one in model.parameters()), torch.float64)
    if dtype not in TOLERANCES:
        raise UsageError(
            f"the model is in {dtype}, in which no sum can be compared with its run: pass a copy "
            "in float32 or float64."
        )
    text = check_text(tokens, model)
    ours = isinstance(model, BilinearTransformer)
    maps = quadratic_mlps(model)
    given: Any = text[None] if ours else {"input_ids": text[None], "use_cache": False}
    hold = hold_ours if ours else hold_host
    with torch.no_grad():
        answer = run_as_owner(model, given)[0]
        made = (answer if isinstance(answer, Tensor) else answer["logits"])[0].detach()
        network = hold(model, text, made, maps)
        return compare_at_text(model, network, TOLERANCES[dtype] if ours else IN_TRANSFORMERS)


def check_text(tokens: object, model: nn.Module) -> Tensor:
    """Return a text as (n,) int64 on the device of the model; its ids are known to the model."""
    try:
        text = tokens if isinstance(tokens, Tensor) else torch.tensor(tokens)
    except (TypeError, ValueError, RuntimeError):
        text = torch.zeros(0, 0)
    if text.ndim != 1 or len(text) == 0 or text.dtype not in INTEGERS:
        raise ShapeError(
            f"tokens are {tokens!r:.60}; expected the ids of one text, (n,), at least one."
        )
    config: Any = getattr(model, "config", None)
    if (known := getattr(config, "vocab_size", None)) is not None:
        check_ids(text, known, "model")
    longest = getattr(config, "n_ctx", None) or getattr(config, "max_position_embeddings", None)
    if longest is not None and len(text) > longest:
        raise UsageError(f"the text has {len(text)} tokens; the model reads at most {longest}.")
    return text.long().to(next(model.parameters()).device)


def quadratic_mlps(model: nn.Module) -> dict[int, QuadraticMap]:
    """Return the map of the MLP of each block, in float64; refuse one with an activation."""
    found: dict[int, QuadraticMap] = {}
    for name, view in open_subject(model, "a reading at a text").layers.items():
        if not view.exact:
            raise NotQuadraticError(
                f"{name} of the {type(model).__name__} has the activation {view.activation}, which "
                "is no polynomial, at a text neither: make it bilinear (`bilens convert MODEL "
                "--to bilinear`, then bl.load_converted), or train with gate=None."
            )
        block = BLOCK.search(name)
        if block is None or int(block[1]) in found:
            raise UsageError(
                f"{name} is not the one MLP of a block: models with experts, or with other MLPs "
                "beside, are not read at a text."
            )
        found[int(block[1])] = view.quadratic_map.detach().to(torch.float64)
    return found


def hold_ours(
    model: nn.Module, text: Tensor, logits: Tensor, maps: Mapping[int, QuadraticMap]
) -> NetworkAtText:
    """Run a transformer of ours in float64, and hold its patterns and factors."""
    assert isinstance(model, BilinearTransformer), "asked by the caller"
    config, epsilon = model.config, model.config.norm_epsilon
    x = embedded = model.embed.weight.detach().double()[text]
    table = rotation_table(len(text), config.d_head, config.rotary_base, x.dtype, x.device)
    cosines, sines = (part[:, None] for part in table)

    def held_norm(x: Tensor) -> HeldNorm:
        return HeldNorm((x.square().mean(dim=-1) + epsilon).rsqrt())

    parts: list[HeldPart] = []
    for number, block in enumerate(model.blocks):
        if not isinstance(block, Block) or number not in maps:
            raise UsageError(f"block {number} is a {type(block).__name__}; it is not read.")
        norm, weight = held_norm(x), block.attention.qkv.weight.detach().double()
        split = (norm(x) @ weight[: 2 * config.d_model].T).view(len(text), 2, -1, config.d_head)
        queries, keys = (rotate(one, cosines, sines).transpose(0, 1) for one in split.unbind(1))
        scores = queries @ keys.mT / math.sqrt(config.d_head)
        later = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
        pattern = scores.masked_fill(later, -math.inf).softmax(dim=-1)
        values = weight[2 * config.d_model :].view(config.n_head, config.d_head, -1)
        out = block.attention.out.weight.detach().double()
        attention = HeldAttention(norm, pattern, values, split_heads(out, config.n_head))
        x = x + attention(x)
        mlp = HeldMLP(held_norm(x), maps[number])
        x = x + mlp(x)
        parts += [attention, mlp]
    head = model.unembed.weight.detach().double()
    return NetworkAtText(text.cpu(), logits, embedded, tuple(parts), held_norm(x), head)


def compare_at_text(model: nn.Module, network: NetworkAtText, tolerance: float) -> NetworkAtText:
    """Return the network with what it was compared with; refuse it where the sum is another."""
    read, made = network(), network.logits.double()
    if read.shape != made.shape:
        raise NumericalError(
            f"the {type(model).__name__} gives logits {tuple(made.shape)}; its parts as read sum "
            f"to {tuple(read.shape)}."
        )
    far, sizes = (one.abs().amax(dim=-1) for one in (read - made, made))
    if not bool((far <= tolerance * sizes + torch.finfo(torch.float32).tiny).all()):
        at = int((far - tolerance * sizes).argmax())
        raise NumericalError(
            f"the parts of the {type(model).__name__} as read sum to logits that differ from its "
            f"own by {float(far[at]):.1e} at position {at}, where the largest is "
            f"{float(sizes[at]):.1e}{what_may_differ(model)}: it does something that is not read."
        )
    return replace(network, checked_against="the model itself, as it runs on this text")
