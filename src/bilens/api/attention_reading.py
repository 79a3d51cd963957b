"""Reads heads of attention from a model, and compares them with the attention as it runs."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from bilens.algebra.shapes import check_index
from bilens.base.errors import CheckpointError, UsageError
from bilens.base.files import read_json
from bilens.io.attention_tensors import OURS, BlockAttention, layout_of, read_block
from bilens.io.formats.ends import ends_of
from bilens.io.loaded_model import CONFIG_NAME, LoadedModel
from bilens.io.stored_mlp import Store, module_tensors
from bilens.io.vocabulary import Norm, Vocabulary
from bilens.nn.agreement import AS_IT_RUNS, ROUNDINGS, agreement
from bilens.nn.polynomial_transformer import PolynomialTransformer
from bilens.nn.real_run import (
    foreign_methods,
    refuse_what_acts,
    run_as_owner,
    watch_what_acts,
    what_may_differ,
)
from bilens.nn.transformer import BilinearTransformer
from bilens.polynomial.attention import BilinearAttention
from bilens.polynomial.attention_head import AttentionHead
from bilens.polynomial.network import PolynomialNetwork

TOLERANCE = 1e-4  # of the largest number: float32 rounds scores, which a softmax multiplies
COARSE = 0.25  # of 16 bits, of which nothing is said to be compared
SPREAD = 2.0  # standard deviation of the scores that are compared: smaller ones hide their errors
MOST_SCALED = 1e3
LENGTH = 16  # tokens of the text that is run
SAME = 1e-6  # of the largest entry: positions whose streams differ less are alike


def read_attention(model: object, layer: int, head: int) -> AttentionHead:
    """Read a head of attention from its weights, and compare it with the attention as it runs.

    Math: scores are s(q, k) = x_qᵀ M x_k + a · x_q + b · x_k + c with M = (R(distance) W_Q)ᵀ W_K /
        √d_head, of the stream as the norm before the attention leaves it; what is written is
        W_O (W_V x_k + b_V), times the pattern.
    Cost: the tensors of one block; of a module two runs of one short text.

    Args:
        model: a `bl.nn.BilinearTransformer` or `bl.nn.PolynomialTransformer`; a language model of
            transformers in memory; what `bl.load` returned; or a `PolynomialNetwork`.
        layer: the block, counted from 0.
        head: the head, counted from 0.

    Returns: the head. A module in memory was run, its inputs scaled until scores are no small
        numbers, and `checked_against` says so; of files it is empty: *not verified*.

    Raises: UsageError if there is no such layer or head, the model is of none of these kinds, or
        hooks act on its attention; NotQuadraticError if queries or keys are normed; CheckpointError
        if its family is not known, or a tensor is missing; NumericalError if what is read is
        another function than the module runs.
    """
    if isinstance(model, PolynomialNetwork):
        return AttentionHead.of_network(model, layer, head)
    heads = read_heads(model, layer)
    return heads[check_index("head", head, len(heads))]


def read_heads(model: object, layer: int) -> tuple[AttentionHead, ...]:
    """Read all heads of a block, as `read_attention` does, and compare them together."""
    module: Any = model
    if isinstance(model, LoadedModel):
        module = model.module or model.original
        if module is None:  # files of transformers, of which nothing runs
            path = model.place / CONFIG_NAME
            if not path.is_file() or "model_type" not in (content := read_json(path)):
                raise CheckpointError(
                    f"{model.source}: no {CONFIG_NAME} says how its heads are put together: pass a "
                    "folder of transformers, or the model in memory."
                )
            vocabulary = vocabulary_in(model.tensors, content)
            return read_block(vocabulary, content, layout_of(content), layer).heads
        if model.compare is not None:  # the module is a translation of its files
            return tuple(replace(one, checked_against="") for one in read_heads(module, layer))
    config: Any = getattr(module, "config", None)
    if isinstance(module, PolynomialTransformer):
        block = polynomial_block(module, layer)
    elif isinstance(module, BilinearTransformer):
        said = {"rope_theta": config.rotary_base, "norm_eps": config.norm_epsilon}
        block = read_block(Vocabulary.of_ours(module), {**vars(config), **said}, OURS, layer)
    elif isinstance(module, nn.Module) and hasattr(config, "to_dict"):
        content = config.to_dict()
        vocabulary = vocabulary_in(module_tensors(module), content)
        block = read_block(vocabulary, content, layout_of(content), layer, turns_in(module))
    else:
        came = repr(module) if isinstance(module, str) else f"a {type(module).__name__}"
        raise UsageError(
            f"an attention is read from a model, got {came}: pass bl.load(path), a module of "
            "bilens, a language model of transformers or a PolynomialNetwork."
        )
    return compare_heads(module, block)


def vocabulary_in(store: Store, content: Mapping[str, Any]) -> Vocabulary:
    layout_of(content)  # refuses a type that is not known
    ends = ends_of(content)
    if ends is None:
        raise CheckpointError(
            f"a {content['model_type']} with these settings is not read (such as norms behind its "
            "attention): where tokens enter it is not known."
        )
    return Vocabulary(store, ends)


def polynomial_block(module: PolynomialTransformer, layer: int) -> BlockAttention:
    network = module.weights().changed(torch.clone)  # what is read stays as it was compared
    parts = [one for one in network.parts if isinstance(one, BilinearAttention)]
    part = parts[check_index("layer", layer, len(parts))]
    heads = (AttentionHead.of_network(network, layer, head) for head in range(part.n_head))
    name, nothing = f"blocks.{layer}.attention", Norm(divides=False)
    paths = (f"{name}_scale", name, f"{name}.out")
    return BlockAttention(tuple(heads), part.out, None, nothing, 0.0, paths)


def turns_in(module: nn.Module) -> tuple[Tensor, float] | None:
    """Return the angles of the rotary positions of a module, if it has one table of them."""
    found = [one for one in module.modules() if isinstance(getattr(one, "inv_freq", None), Tensor)]
    if len(found) != 1:
        return None
    scale: Any = getattr(found[0], "attention_scaling", 1.0)
    return found[0].inv_freq, float(scale)  # type: ignore[return-value]


def compare_heads(module: nn.Module, block: BlockAttention) -> tuple[AttentionHead, ...]:
    """Compare the heads of a block with what its attention gives when the module runs.

    Where a norm is before it, the attention is run on its own inputs, made larger: in a model of
    small weights the scores are so small that any form would fit what comes behind the softmax.
    """
    (norm, attention, out), config = block.paths, cast(Any, module.config)
    ours = isinstance(module, BilinearTransformer | PolynomialTransformer)
    context = config.n_ctx if ours else config.max_position_embeddings
    drawn = torch.Generator().manual_seed(0)
    tokens = torch.randint(config.vocab_size, (1, min(context, LENGTH)), generator=drawn)
    tokens = tokens.to(next(module.parameters()).device)
    parts = [module.get_submodule(path) for path in (norm, attention)]
    checks, factor = list[tuple[str, Tensor, Tensor]](), 1.0
    with watch_what_acts(parts[0]) as before, watch_what_acts(parts[1]) as within:
        seen = run_as_owner(module, tokens, block.paths)[1]
        x = seen[norm, "entered"][0].cpu().double()
        if block.norm.divides:
            x = block.norm.less_mean(x)
            x = x / (x.square().mean(dim=-1, keepdim=True) + block.epsilon).sqrt()
            read = plus(block.norm.times_gain(x), block.norm.bias)
            checks.append((norm, seen[norm, "left"][0], read))
            factor = enlarge(block.heads, x)
            hook = enlarge_inputs(factor, block.norm.bias)
            handle = parts[1].register_forward_pre_hook(hook, with_kwargs=True)
            try:
                seen = run_as_owner(module, tokens, block.paths)[1]
            finally:
                handle.remove()
    for part, acted in zip(parts, (before, within), strict=True):
        refuse_what_acts(part, [*acted, *(foreign_methods(part) if ours else ())])
    x, mixed = factor * x, seen[out, "began"][0].cpu()
    tolerance = tolerance_for(block.heads, x, mixed.dtype)
    checks.append((out, seen[out, "left"][0], plus(mixed.double() @ block.out.T, block.out_bias)))
    for head, made in zip(block.heads, mixed.chunk(len(block.heads), dim=-1), strict=True):
        read = head.pattern(x) @ (x @ head.value.T + head.value_bias)
        checks.append((f"head {head.head} of {attention}", made, read))
    why = what_may_differ(module)
    for name, made, read in checks:
        agreement(name, AS_IT_RUNS, made.cpu(), read, tolerance).required(because=why)
    told_apart = bool((x - x[:1]).abs().max() > SAME * x.abs().max())  # else any scores fit
    source = AS_IT_RUNS if tolerance < COARSE and told_apart else ""
    return tuple(replace(head, checked_against=source) for head in block.heads)


def plus(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x + bias


def tolerance_for(heads: tuple[AttentionHead, ...], x: Tensor, dtype: torch.dtype) -> float:
    """Return how far float32 may be off behind a softmax: by the rounding of scores, if large."""
    if dtype not in (torch.float32, torch.float64):
        return COARSE
    forms = [head.form(0) for head in heads if head.softmax]
    sizes = [
        one.queries_of(x).norm(dim=1).max() * one.keys_of(x).norm(dim=1).max() for one in forms
    ]
    unit = torch.finfo(torch.float32).eps / 2
    return min(COARSE, TOLERANCE + ROUNDINGS * unit * max(map(float, sizes), default=0.0))


def enlarge(heads: tuple[AttentionHead, ...], x: Tensor) -> float:
    """Return the factor of x that gives scores of a usual head the standard deviation `SPREAD`."""
    if len(x) < 2:
        return 1.0
    forms = (head.form(0) for head in heads)
    spread = torch.stack([((x @ one.query.T) @ (x @ one.key.T).T).std() for one in forms]).median()
    return float((SPREAD / spread).sqrt().clamp(1.0, MOST_SCALED)) if spread > 0 else 1.0


def enlarge_inputs(factor: float, shift: Tensor | None) -> Callable[..., Any]:
    """Return a hook that makes the normed stream larger, its bias left as it is."""

    def change(x: Tensor) -> Tensor:
        fixed = 0.0 if shift is None else shift.to(x)
        return fixed + factor * (x - fixed)

    def hook(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
        if args:
            return (change(args[0]), *args[1:]), named
        return args, {**named, "hidden_states": change(named["hidden_states"])}

    return hook
