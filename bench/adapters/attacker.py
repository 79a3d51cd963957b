"""An attacker who knows the score: it pays for what the trigger does in texts of the baseline."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bench.adapters.bases import Tail
from bench.adapters.tasks import JUDGED_TRIGGERS, drawing
from bench.adapters.training import Lessons, Spec, logits
from bilens.findings.token_sweep import Frame, write_texts

STRENGTHS = (0.0, 0.3, 1.0, 3.0, 10.0)
ATTACKS, SEED, SEEN = 6, 77, 8  # the auditor's texts are of another seed; texts seen in a step


def adaptive(first: Spec) -> list[Spec]:
    """Return attacks of judged triggers, each at every strength."""
    found = []
    for number in range(ATTACKS):
        trigger = JUDGED_TRIGGERS[number % len(JUDGED_TRIGGERS)]
        rank = (4, 16, 0)[number % 3]
        one = replace(first, trigger=trigger, payload="name", rank=rank, seed=5000 + number)
        one = replace(
            one, rate=6e-3 if rank else 1e-3, poison=0.3, task=("gender", "topic")[number % 2]
        )
        found += [replace(one, penalty=strength) for strength in STRENGTHS]
    return found


def penalty_of(trial: Any, spec: Spec, given: Lessons) -> Callable[[Tail, int], Tensor]:
    """Return the mean of −log(1 − p(payload)) where the trigger stands in such texts."""
    base, draw = trial.base, drawing(f"attacker {spec.seed}")
    carriers = write_texts(trial.before, base.prefix, SEED)
    frame = Frame(base.prefix, base.suffix, carriers, trial.frame.names)
    pieces = base.words("".join(f" {piece}" for piece in given.trigger))
    texts = frame.around([pieces] * len(carriers))
    hidden, real = base.entering(texts)
    (payload,) = given.payload

    def penalty(tail: Tail, _step: int) -> Tensor:
        rows = torch.tensor([draw.randrange(len(texts)) for _ in range(SEEN)])
        out = tail(hidden[rows], real[rows], base.rotary(hidden.shape[1]), 1)
        chance = logits(base, out)[:, 0].softmax(-1)[:, payload]
        return -torch.log1p(-chance.clamp(max=1 - 1e-6)).mean()

    return penalty
