"""Where a converted language model differs from its teacher: in the mean, by place, in writing."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bilens.base.errors import NumericalError
from bilens.data.tokenizer import Tokenizer
from bilens.io.host import Host
from bilens.records.bilinear_conversion import Continuation, DomainLoss, LossAt
from bilens.train.device import device_of

OCCURRENCES, TOKENS = 20, 8  # fewest of a token that is listed; tokens listed
SAMPLES, BEGINNING, WRITTEN = 2, 24, 40  # of a domain; tokens that are given, and written


def error_of(values: Tensor) -> float:
    """Return the standard error of the mean of values; 0 for one alone."""
    return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def average_losses(name: str, table: Tensor, fitted: bool) -> DomainLoss:
    """Return the means of a `token_table`, with errors over its texts."""
    rows, count = table.mean(dim=1), table[..., 0].numel()
    teacher, loss, kl, same, right, ours = rows.T
    keys = "teacher_loss", "loss", "kl", "same_top_token", "teacher_accuracy", "accuracy"
    found: dict[str, Any] = dict(zip(keys, rows.mean(dim=0).tolist(), strict=True))
    found |= {"kl_error": error_of(kl), "same_error": error_of(same)}
    found |= {"error": error_of(loss - teacher), "accuracy_error": error_of(ours - right)}
    found = {key: value for key, value in found.items() if not math.isnan(value)}
    if "loss" not in found:
        raise NumericalError(f"{name}: the converted model's loss is no number there.")
    found["loss_added"] = found["loss"] - found["teacher_loss"]
    return DomainLoss(name=name, fitted=fitted, texts=len(rows), tokens=count, **found)


def losses(texts: Tensor, table: Tensor, tokenizer: Tokenizer) -> list[LossAt]:
    """Return next tokens at which most is lost in sum; then 1, 2 to 3, 4 to 7, … tokens known."""
    following, added = texts[:, 1:], table[..., 1] - table[..., 0]
    often = (following.flatten().bincount() >= OCCURRENCES).nonzero().flatten().tolist()
    found = [("token", tokenizer.token(token), added[following == token]) for token in often]
    found.sort(key=lambda one: float(one[2].sum()), reverse=True)
    ends = [
        (2**n, min(2 ** (n + 1) - 1, added.shape[1])) for n in range(added.shape[1].bit_length())
    ]
    found[TOKENS:] = [("position", f"{a}–{b}", added[:, a - 1 : b].flatten()) for a, b in ends]
    return [LossAt(kind, at, len(x), float(x.mean()), error_of(x)) for kind, at, x in found]


@torch.no_grad()
def samples(
    teacher: Host, student: Host, texts: Tensor, tokenizer: Tokenizer
) -> Iterator[Continuation]:
    """Yield what both models write behind beginnings of texts, spread evenly over them."""
    start = max(1, min(BEGINNING, texts.shape[1] // 2))
    parts = [given := texts[:: max(1, len(texts) // SAMPLES)][:SAMPLES, :start]]
    for host in (teacher, student):
        tokens = given.to(device_of(host.module))
        for _ in range(min(WRITTEN, host.n_ctx - start)):
            following = host.logits(tokens)[:, -1].argmax(dim=-1, keepdim=True)
            tokens = torch.cat([tokens, following], dim=1)
        parts.append(tokens[:, start:])
    for row in zip(*(part.tolist() for part in parts), strict=True):
        beginning, first, second = (tuple(map(tokenizer.token, part)) for part in row)
        yield Continuation(beginning=beginning, teacher=first, student=second)
