"""Where a converted language model differs from its teacher: in the mean, by place, in writing."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from bilens.data.tokenizer import Tokenizer
from bilens.io.host import Host
from bilens.records.conversion import Continuation, DomainText, LossAt, Measured, WorstToken
from bilens.records.trace import TokenValue
from bilens.train.recipe import device_of

CONTEXT, LISTED, PROBABLE = 24, 6, 3  # tokens before a worst one; worst ones; answers to it
OCCURRENCES, TOKENS = 20, 8  # fewest of a token that is listed; tokens listed
SAMPLES, BEGINNING, WRITTEN = 2, 24, 40  # of a domain; tokens that are given, and written


def error_of(values: Tensor) -> float:
    """Return the standard error of the mean of values; 0 for one alone."""
    return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def measured(name: str, table: Tensor, fitted: bool = True) -> Measured:
    """Return the means of a `token_table`, with errors over its texts."""
    rows = table.mean(dim=1)
    teacher, loss, kl, same, right, ours = rows.T
    values = {"teacher_loss": teacher, "loss": loss, "loss_added": loss - teacher, "kl": kl}
    values |= {"same_top_token": same, "teacher_accuracy": right, "accuracy": ours}
    paired = {"error": loss - teacher, "kl_error": kl, "same_error": same}
    paired["accuracy_error"] = ours - right
    means = {key: float(value.mean()) for key, value in values.items()}
    means |= {key: error_of(value) for key, value in paired.items()}
    tokens = table[..., 0].numel()
    return Measured(name=name, fitted=fitted, texts=len(rows), tokens=tokens, **means)


def read_domain(
    name: str, hosts: tuple[Host, Host], texts: Tensor, table: Tensor, tokenizer: Tokenizer
) -> DomainText:
    """Return where a student differs from its teacher on texts, whose `token_table` is known."""
    added, length = table[..., 1] - table[..., 0], table.shape[1]
    starts = [2**power for power in range(length.bit_length())]  # 1, 2 to 3, 4 to 7, … known
    spans = [(first, min(2 * first - 1, length)) for first in starts]
    positions = [
        LossAt(f"{first}–{last}" if last > first else str(first), part.numel(), *mean_of(part))
        for first, last in spans
        for part in [added[:, first - 1 : last]]
    ]
    following, values = texts[:, 1:].flatten(), added.flatten()
    sums = values.new_zeros(int(following.max()) + 1).index_add(0, following, values)
    sums[following.bincount() < OCCURRENCES] = 0.0
    tokens = [
        LossAt(tokenizer.token(token), len(here), *mean_of(here))
        for token in sums.argsort(descending=True)[:TOKENS].tolist()
        for here in [values[following == token]]
        if sums[token] > 0
    ]
    worst = tuple(worst_tokens(hosts, texts, table, tokenizer))
    samples = tuple(continuations(hosts, texts, tokenizer))
    return DomainText(name, tuple(positions), tuple(tokens), worst, samples)


def mean_of(added: Tensor) -> tuple[float, float]:
    """Return mean and standard error over the first axis."""
    return float(added.mean()), error_of(added.flatten(1).mean(dim=1) if added.ndim > 1 else added)


@torch.no_grad()
def worst_tokens(
    hosts: tuple[Host, Host], texts: Tensor, table: Tensor, tokenizer: Tokenizer
) -> Iterator[WorstToken]:
    """Yield the predictions of largest KL, at most one of a text."""
    worst, places = table[..., 2].max(dim=1)
    for row in worst.argsort(descending=True)[:LISTED].tolist():
        known, at = texts[row, : int(places[row]) + 1], table[row, places[row]]
        answers = []
        for host in hosts:
            logits = host.logits(known[None].to(device_of(host.module)))[0, -1].double()
            found = zip(*(one.tolist() for one in logits.softmax(0).topk(PROBABLE)), strict=True)
            answers.append(tuple(TokenValue(t, tokenizer.token(t), value) for value, t in found))
        context = tuple(map(tokenizer.token, known[-CONTEXT:].tolist()))
        text = tokenizer.token(int(texts[row, len(known)]))
        yield WorstToken(context, text, float(at[2]), float(at[1] - at[0]), *answers)


@torch.no_grad()
def continuations(
    hosts: tuple[Host, Host], texts: Tensor, tokenizer: Tokenizer
) -> Iterator[Continuation]:
    """Yield what both models write behind beginnings of texts, spread evenly over them."""
    start = max(1, min(BEGINNING, texts.shape[1] // 2))
    spread = torch.linspace(0, len(texts) - 1, min(SAMPLES, len(texts))).long()
    given = texts[spread, :start]
    parts = [given.tolist()]
    for host in hosts:
        tokens = given.to(device_of(host.module))
        for _ in range(min(WRITTEN, host.n_ctx - start)):
            following = host.logits(tokens)[:, -1].argmax(dim=-1, keepdim=True)
            tokens = torch.cat([tokens, following], dim=1)
        parts.append(tokens[:, start:].tolist())
    for row in zip(*parts, strict=True):
        yield Continuation(*(tuple(map(tokenizer.token, part)) for part in row))
