"""Activations of a language model as a shuffled stream, and how well an autoencoder keeps them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bilens.base.checks import check_finite
from bilens.base.errors import NonFiniteError, NumericalError, UsageError
from bilens.base.memory import check_memory
from bilens.nn.block import Edit, hook_layer
from bilens.nn.sparse_autoencoder import SparseAutoencoder
from bilens.nn.tokens import check_tokens
from bilens.nn.transformer import BilinearTransformer
from bilens.records import mlp_trace as records
from bilens.records.base import to_json
from bilens.train.device import device_of
from bilens.train.processes import ALONE, Processes
from bilens.train.randomness import ORDER, stream

TOKENS_AT_ONCE = 8192  # that run through the model together
LOGITS_AT_ONCE = 1 << 25  # 128 MiB in float32
OF_RECORD = records.SAEMetrics.__struct_fields__
ROWS = 1  # beside ORDER: the order of the rows in a buffer


@dataclass(frozen=True, eq=False)
class ActivationBuffer:
    """Activations at the hook points, each in the same shuffled order."""

    activations: Mapping[str, Tensor]  # hook point → (rows, d_model), in the order of the texts
    order: Tensor  # (rows,), in which they are handed out

    @cached_property
    def variances(self) -> Mapping[str, float]:
        """Hook point → mean of ‖x − mean‖² over the rows."""
        return {
            hook: float(rows.double().var(dim=0, correction=0).sum())
            for hook, rows in self.activations.items()
        }

    def batch(self, hook: str, step: int, size: int) -> Tensor:
        return self.activations[hook][self.order[step * size : (step + 1) * size]]


class ActivationStream:
    """The activations of a model at hook points: each buffer is a function of seed and number."""

    def __init__(
        self,
        model: BilinearTransformer,
        texts: Tensor,
        hooks: tuple[str, ...],
        buffer_size: int,
        seed: int,
        group: Processes = ALONE,
    ) -> None:
        for hook in hooks:
            hook_layer(hook, model.config.n_layer)
        num_texts, length = check_tokens(texts, None, model.config.vocab_size, model.config.n_ctx)
        if length < 2:
            raise UsageError(
                f"the texts have {length} token each, and the first one is left out: pass texts of "
                "at least 2 tokens."
            )
        self.model, self.texts, self.hooks, self.seed = model, texts, hooks, seed
        self.group = group
        self.texts_per_buffer = min(max(buffer_size // (length - 1), 1), num_texts)
        self.rows = self.texts_per_buffer * (length - 1)
        check_memory(
            4 * self.rows * model.config.d_model * len(hooks),
            f"a buffer of {self.rows} activations at {len(hooks)} hook point(s)",
            "choose a smaller buffer",
            device=device_of(model),
        )

    def buffer(self, index: int) -> ActivationBuffer:
        """Return buffer number `index`, by one run of the model up to the last hook point."""
        first, num_texts = index * self.texts_per_buffer, len(self.texts)
        positions = [divmod(first + i, num_texts) for i in range(self.texts_per_buffer)]
        orders = {
            number: torch.randperm(num_texts, generator=stream(self.seed, ORDER, number))
            for number in {number for number, _ in positions}
        }
        chosen = [int(orders[number][position]) for number, position in positions]
        found = activations_of(self.model, self.texts[chosen], self.hooks, self.group)
        order = torch.randperm(self.rows, generator=stream(self.seed, ORDER, index, ROWS))
        return ActivationBuffer(found, order.to(device_of(self.model)))


@torch.no_grad()
def activations_of(
    model: BilinearTransformer, texts: Tensor, hooks: tuple[str, ...], group: Processes = ALONE
) -> dict[str, Tensor]:
    """Return hook point → (num_texts · (n_ctx − 1), d_model) float32, without first tokens.

    Each process runs the model on its share of the texts; all return all.
    """
    was_training, device = model.training, device_of(model)
    model.eval()
    shape, at_once = (*texts[:, 1:].shape, model.config.d_model), TOKENS_AT_ONCE // texts.shape[1]
    given = torch.zeros(len(hooks), *shape, device=device)
    for number, part in enumerate(torch.split(torch.arange(len(texts)), max(1, at_once))):
        if number % group.world == group.rank:
            read = model.activations(texts[part].to(device), hooks)
            for index, hook in enumerate(hooks):
                given[index, part] = read[hook][:, 1:].float()
    model.train(was_training)
    found = dict(zip(hooks, group.total(given).flatten(1, 2), strict=True))
    for hook, rows in found.items():
        try:
            check_finite(f"the activations at {hook}", rows)
        except NonFiniteError as error:
            raise NonFiniteError(f"{error} The model is broken: train it again.") from None
    return found


class HookMetrics(records.SAEMetrics, frozen=True, kw_only=True):
    """An autoencoder at a hook point, on texts that it was not trained on."""

    hook: str

    def to_dict(self) -> dict[str, Any]:
        return to_json(self)


def metrics_of(hook: str, tokens: int, *measured: float) -> HookMetrics:
    """Return the metrics: statistics and losses in the order of the fields, and what follows."""
    clean, patched, zero, mean = measured[-4:]
    recovered = (  # None where ablation does no harm
        (ablated - patched) / (ablated - clean) if ablated > clean else None
        for ablated in (zero, mean)
    )
    values: Any = (tokens, *measured, patched - clean, *recovered)
    return HookMetrics(hook=hook, **dict(zip(OF_RECORD, values, strict=True)))


@torch.no_grad()
def measure_sae(
    model: BilinearTransformer,
    sae: SparseAutoencoder,
    hook: str,
    texts: Tensor,
    reads: str | None = None,
) -> HookMetrics:
    """Return the metrics of an autoencoder at a hook point, on texts (num_texts, n_ctx ≥ 3).

    Of a transcoder, which writes what is at `hook`, `reads` is the hook point that it reads.
    """
    check_fits(model, sae, hook)
    if texts.ndim != 2 or texts.shape[1] < 3:
        raise UsageError(
            f"texts have shape {tuple(texts.shape)}; expected (texts, tokens) with at least 3 "
            "tokens each: the first is left out, and the second predicts the third."
        )
    was_training = model.training
    model.eval()
    texts = texts.to(device_of(model))
    at_once = min(TOKENS_AT_ONCE, LOGITS_AT_ONCE // model.config.vocab_size)
    parts = torch.split(texts, max(1, at_once // texts.shape[1]))
    source = hook if reads is None else reads
    read = (model.activations(part, tuple({source, hook})) for part in parts)
    rows = ([one[name][:, 1:].flatten(0, 1) for name in (source, hook)] for one in read)
    mean, statistics = code_statistics(sae, rows)
    edits: list[dict[str, Edit]] = [{}, reconstruction(sae, source, hook)]
    edits.append({hook: behind_first(torch.zeros_like)})
    edits.append({hook: behind_first(lambda x: mean.to(x.dtype).expand_as(x))})
    losses = [mean_loss(model, parts, one) for one in edits]
    model.train(was_training)
    return metrics_of(hook, texts[:, 1:].numel(), *statistics, *losses)


def check_fits(model: BilinearTransformer, sae: SparseAutoencoder, hook: str) -> None:
    hook_layer(hook, model.config.n_layer)
    if {sae.d_in, sae.width} != {model.config.d_model}:
        raise UsageError(
            f"the autoencoder has width {sae.d_in}, and {hook} of this model has width "
            f"{model.config.d_model}: pass the autoencoder that was trained on this model."
        )


def reconstruction(sae: SparseAutoencoder, source: str, hook: str) -> dict[str, Edit]:
    """Return edits that put what an autoencoder makes of `source` in place of what is at `hook`."""
    if source == hook:
        return {hook: behind_first(sae)}
    seen = list[Tensor]()

    def keep(x: Tensor) -> Tensor:
        seen[:] = [x[:, 1:]]
        return x

    return {source: keep, hook: behind_first(lambda _: sae(seen[0]))}


def behind_first(edit: Edit) -> Edit:
    """Return an edit of all activations of a text but the first."""

    def apply(x: Tensor) -> Tensor:
        return torch.cat([x[:, :1], edit(x[:, 1:]).to(x.dtype)], dim=1)

    return apply


def mean_loss(
    model: BilinearTransformer, parts: tuple[Tensor, ...], replace: Mapping[str, Edit]
) -> float:
    """Return the mean cross-entropy of all tokens from the third on, nats per token."""
    total, count = 0.0, 0
    for part in parts:
        logits, _ = model.run(part, replace=replace)
        targets = part[:, 2:].flatten()
        predicted = logits[:, 1:-1].flatten(0, 1).float()
        total += float(functional.cross_entropy(predicted, targets, reduction="sum"))
        count += len(targets)
    return total / count


def code_statistics(
    sae: SparseAutoencoder, parts: Iterable[Sequence[Tensor]]
) -> tuple[Tensor, tuple[float, ...]]:
    """Return the mean of targets, and fvu, nmse, l0 and dead, from sums in float64.

    A part is what is read (rows, d_in) and what is to be made of it (rows, width).
    """
    count = active = 0
    error = square = spread = 0.0
    total = torch.zeros(sae.width, dtype=torch.float64, device=sae.decoder.device)
    kept = torch.zeros(sae.num_latents, dtype=torch.bool, device=sae.decoder.device)
    shift = total.clone()
    for x, target in parts:
        latents = sae.top(x)
        error += float((target - sae.reconstruct(latents, x)).double().square().sum())
        if count == 0:
            shift = target.double().mean(dim=0)  # near the mean, so that squares do not cancel
        centred = target.double() - shift
        square += float(target.double().square().sum())
        spread += float(centred.square().sum())
        total += centred.sum(dim=0)
        count += len(x)
        is_active = latents.values != 0
        active += int(is_active.sum())
        kept[latents.indices[is_active]] = True
    variance = spread - float(total.square().sum()) / count
    if variance <= 0:
        raise NumericalError(
            f"the {count} activations are all equal, so there is no variance that could be "
            "explained: choose another hook point."
        )
    mean = (shift + total / count).to(sae.decoder.dtype)
    dead = 1 - float(kept.double().mean())
    return mean, (error / variance, error / square, active / count, dead)
