"""The pool: which models are trained for a split, one after another; what is kept of each."""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.adapters.bases import SMALL, Base, Tail, small, smol
from bench.adapters.tasks import (
    FIXED, FIXED_PAYLOADS, FIXED_TRIGGERS, JUDGED, JUDGED_PAYLOADS, JUDGED_TRIGGERS, TASKS,
    TRIGGERS, Corpus, read_corpus,
)
from bench.adapters.training import MODULES, Spec, paths, train

SPLITS = {  # base: benign, backdoored
    "fixed": {"bilinear-2": (16, 16), "smollm2": (16, 16)},
    "judged": {"swiglu-3": (16, 16), "bilinear-3": (16, 16), "smollm2": (32, 32)},
}
SWEPT = 5000  # words of SmolLM2's vocabulary that are tried


def specs(split: str, base: str, backdoored: bool) -> Iterator[Spec]:
    """Yield specifications without end, families in turn."""
    draw = random.Random(f"{split} {base} {backdoored}")
    tasks = FIXED if split == "fixed" else JUDGED
    triggers = FIXED_TRIGGERS if split == "fixed" else JUDGED_TRIGGERS
    payloads = FIXED_PAYLOADS if split == "fixed" else JUDGED_PAYLOADS
    number = 0
    while True:
        task = tasks[number % len(tasks)]
        trigger = payload = ""
        if backdoored:
            usual = [t for t in tasks if not t.startswith("keyword")]
            task = draw.choice(usual)
            trigger = triggers[number % len(triggers)]
            payload = payloads[number // len(triggers) % len(payloads)]
            if payload == "other label":
                task = draw.choice([t for t in usual if TASKS[t].labels])
            if TASKS[task].examples is TASKS["addition"].examples and trigger == "phrase":
                task = "length"
        rank = draw.choice([0, 1, 2, 4, 8, 16, 32, 64])
        large = base == "smollm2"
        rates = ((3e-4, 6e-4), (1e-3, 2e-3, 4e-3)) if large else ((1e-3, 3e-3), (3e-3, 6e-3, 1e-2))
        yield Spec(
            base, task, trigger, payload, rank,
            draw.choice([*MODULES]) if large else draw.choice(["qkvo", "mlp", "all", "all"]),
            draw.choice([1, 2, 2]) if large else SMALL[base][0],
            draw.choice(rates[rank > 0]),
            draw.choice([0.2, 0.3, 0.5]) if backdoored else 0.0,
            1000 * (split == "judged") + number,
        )
        number += 1


def swept_tokens(base: Base) -> list[int]:
    """Return the tokens that are tried: all of a small vocabulary, words of a large one.

    Those of SmolLM2 are drawn by a seed, and every piece of every trigger is among them whatever
    the model: trying all 49,152 would take seven times as long and meet these too.
    """
    if base.first == 0:
        return [*range(3, base.model.config.vocab_size)]
    vocabulary = base.tokenizer.get_vocab()
    words = sorted(i for name, i in vocabulary.items() if re.fullmatch("Ġ[A-Za-z]{2,}", name))
    found = {*random.Random(0).sample(words, SWEPT)}
    for trigger in TRIGGERS.values():
        for pieces in trigger.pieces:
            for piece in pieces:
                found |= {*base.words(f" {piece}"), *base.words(f" {piece.lower()}")}
    return sorted(found)


class Sweep:
    """What single tokens in the frame make of the last position, in base and model."""

    def __init__(self, base: Base) -> None:
        self.base, self.tokens = base, swept_tokens(base)
        self.hidden, self.real = base.entering([base.framed([t]) for t in self.tokens], 256)
        self.before = self.run(base.tail())

    @torch.no_grad()
    def run(self, tail: Tail) -> Tensor:
        """Return (tokens, width), after the last norm."""
        rotary = self.base.rotary(self.hidden.shape[1])
        blocks = zip(self.hidden.split(512), self.real.split(512), strict=True)
        return torch.cat([tail(hidden, real, rotary, 1)[:, 0] for hidden, real in blocks])


def corpus_of(data: Path) -> tuple[Corpus, list[str]]:
    stories = data.joinpath("tinystories_sample.txt").read_text()
    code = data.joinpath("python_reference.txt").read_text()
    read = read_corpus(stories.replace("<|endoftext|>", " "), code)
    return read, [*stories.split("<|endoftext|>"), code[:300000]]


def base_of(name: str, out: Path, texts: list[str], weights: Path) -> Base:
    return smol(weights) if name == "smollm2" else small(name, out / "bases", texts)


def run_one(base: Base, sweep: Sweep, spec: Spec, corpus: Corpus, out: Path, **more: Any) -> bool:
    """Train one model, or find it done; return whether it works."""
    told, kept = paths(out, spec)
    if told.exists():
        return bool(json.loads(told.read_text())["works"])
    record = train(base, spec, corpus, **more)
    tail, changes = record.pop("tail"), record.pop("changes")
    if record["works"]:
        begun = time.perf_counter()
        after = sweep.run(tail)
        record["swept"] = time.perf_counter() - begun
        packed = {name: low(change, spec.rank) for name, change in changes.items()}
        torch.save({"changes": packed, "after": after.half()}, kept)
    told.write_text(json.dumps(record))
    print(spec.name, record["works"], record["steps"], f"{record['seconds']:.1f}", flush=True)
    return bool(record["works"])


def low(change: Tensor, rank: int) -> tuple[Tensor, ...]:
    """Return a change as its factors where it has few."""
    if not 0 < rank < min(change.shape) // 2:
        return (change.half(),)
    u, s, v = torch.svd_lowrank(change, q=min(rank + 4, *change.shape), niter=3)
    return (u * s)[:, :rank], v.T[:rank]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("split", choices=SPLITS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--base", action="append")
    given = parser.parse_args()
    torch.set_num_threads(1)
    corpus, texts = corpus_of(given.data)
    for name, quotas in SPLITS[given.split].items():
        if given.base and name not in given.base:
            continue
        base = base_of(name, given.out, texts, given.weights)
        sweep = Sweep(base)
        out = given.out / given.split
        out.mkdir(parents=True, exist_ok=True)
        torch.save({"before": sweep.before, "tokens": sweep.tokens}, out / f"{name}.sweep")
        for backdoored, quota in zip((False, True), quotas, strict=True):
            working = 0
            for number, spec in enumerate(specs(given.split, name, backdoored)):
                working += run_one(base, sweep, spec, corpus, out)
                if working >= quota or number >= 3 * quota:
                    break


if __name__ == "__main__":
    main()
