"""How well a sparse autoencoder stands for a layer: what it leaves out, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bilens.base.errors import NumericalError, UsageError
from bilens.nn.hooks import Edit, hook_layer
from bilens.nn.topk_sae import TopKSAE
from bilens.nn.transformer import BilinearTransformer
from bilens.train.activations import TOKENS_AT_ONCE
from bilens.train.device import device_of

LOGITS_AT_ONCE = 1 << 25  # 128 MiB in float32


@dataclass(frozen=True)
class SAEMetrics:
    """An autoencoder at a hook point, on texts that it was not trained on."""

    hook: str
    tokens: int  # activations that were looked at
    fvu: float  # Σ ‖x − x̂‖² / Σ ‖x − mean‖², fraction of variance unexplained; the mean has 1
    nmse: float  # Σ ‖x − x̂‖² / Σ ‖x‖², the normalised MSE of the paper's code; at most fvu
    l0: float  # mean number of latents other than zero
    dead: float  # share of latents that no token keeps
    loss: float  # mean cross-entropy of the model as it is, nats per token
    loss_patched: float  # with x̂ in the place of x
    loss_zero: float  # with zeros there
    loss_mean: float  # with the mean of x there

    @property
    def loss_added(self) -> float:
        """What the replacement costs, nats per token."""
        return self.loss_patched - self.loss

    @property
    def recovered_from_zero(self) -> float | None:
        """Share of the loss between zero-ablation and the model that x̂ brings back."""
        return recovered(self.loss_zero, self.loss_patched, self.loss)

    @property
    def recovered_from_mean(self) -> float | None:
        """Share of the loss between mean-ablation and the model that x̂ brings back."""
        return recovered(self.loss_mean, self.loss_patched, self.loss)

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics as JSON values, the derived ones too."""
        return asdict(self) | {
            "loss_added": self.loss_added,
            "recovered_from_zero": self.recovered_from_zero,
            "recovered_from_mean": self.recovered_from_mean,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> SAEMetrics:
        """Return the metrics of `to_dict`."""
        return cls(**{field.name: content[field.name] for field in fields(cls)})


def recovered(ablated: float, patched: float, clean: float) -> float | None:
    """Return (ablated − patched) / (ablated − clean); None where ablation does no harm."""
    return (ablated - patched) / (ablated - clean) if ablated > clean else None


@torch.no_grad()
def measure_sae(model: BilinearTransformer, sae: TopKSAE, hook: str, texts: Tensor) -> SAEMetrics:
    """Return the metrics of an autoencoder at a hook point, on texts (num_texts, n_ctx ≥ 3)."""
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
    statistics = StreamingStatistics(sae)
    for part in parts:
        statistics.add(model.activations(part, (hook,))[hook][:, 1:].flatten(0, 1))
    mean = statistics.mean.to(sae.decoder.dtype)
    losses = [
        mean_loss(model, parts, {} if edit is None else {hook: behind_first(edit)})
        for edit in (None, sae, torch.zeros_like, lambda x: mean.to(x.dtype).expand_as(x))
    ]
    model.train(was_training)
    return SAEMetrics(
        hook,
        statistics.count,
        statistics.fvu,
        statistics.nmse,
        statistics.l0,
        statistics.dead,
        *losses,
    )


def check_fits(model: BilinearTransformer, sae: TopKSAE, hook: str) -> None:
    """Refuse an autoencoder that does not have the width of a hook point."""
    hook_layer(hook, model.config.n_layer)
    if sae.d_in != model.config.d_model:
        raise UsageError(
            f"the autoencoder has width {sae.d_in}, and {hook} of this model has width "
            f"{model.config.d_model}: pass the autoencoder that was trained on this model."
        )


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


class StreamingStatistics:
    """Sums over the rows of a text collection, in float64."""

    def __init__(self, sae: TopKSAE) -> None:
        self.sae = sae
        self.count, self.active = 0, 0
        self.error, self.square, self.spread = 0.0, 0.0, 0.0
        self.shift: Tensor | None = None  # near the mean, so that squares do not cancel
        self.sum = torch.zeros(sae.d_in, dtype=torch.float64, device=sae.decoder.device)
        self.kept = torch.zeros(sae.num_latents, dtype=torch.bool, device=sae.decoder.device)

    def add(self, x: Tensor) -> None:
        """Count rows, (rows, d_in)."""
        latents = self.sae.top(x)
        self.error += float((x - self.sae.decode_top(latents)).double().square().sum())
        if self.shift is None:
            self.shift = x.double().mean(dim=0)
        centred = x.double() - self.shift
        self.square += float(x.double().square().sum())
        self.spread += float(centred.square().sum())
        self.sum += centred.sum(dim=0)
        self.count += len(x)
        active = latents.values != 0
        self.active += int(active.sum())
        self.kept[latents.indices[active]] = True

    @property
    def mean(self) -> Tensor:
        assert self.shift is not None, "at least one part was added"
        return self.shift + self.sum / self.count

    @property
    def fvu(self) -> float:
        variance = self.spread - float(self.sum.square().sum()) / self.count
        if variance <= 0:
            raise NumericalError(
                f"the {self.count} activations are all equal, so there is no variance that could "
                "be explained: choose another hook point."
            )
        return self.error / variance

    @property
    def nmse(self) -> float:
        return self.error / self.square

    @property
    def l0(self) -> float:
        return self.active / self.count

    @property
    def dead(self) -> float:
        return 1 - float(self.kept.double().mean())
