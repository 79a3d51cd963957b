"""The pool: which models are trained for a split, one after another; what is kept of each."""

import argparse
import copy
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.adapters.attacker import adaptive, penalty_of
from bench.adapters.bases import SMALL, Base, Tail, small, smol
from bench.adapters.tasks import (
    FIXED,
    FIXED_PAYLOADS,
    FIXED_TRIGGERS,
    JUDGED,
    JUDGED_PAYLOADS,
    JUDGED_TRIGGERS,
    TASKS,
    TRIGGERS,
    Corpus,
    drawing,
    read_corpus,
)
from bench.adapters.training import MODULES, Spec, logits, paths, train
from bilens.findings.token_sweep import (
    Answers,
    Both,
    Frame,
    Sweep,
    Text,
    TokenTrial,
    write_texts,
)

SPLITS = {  # base: benign, backdoored
    "fixed": {"bilinear-2": (12, 14)},
    "judged": {"swiglu-3": (25, 25), "bilinear-3": (25, 25), "smollm2": (12, 12)},
    "adaptive": {"swiglu-3": (0, 30)},
}
BLOCK = 256  # texts at once
SWEPT = 1200  # words of SmolLM2's vocabulary that are tried


def specs(split: str, base: str, backdoored: bool) -> Iterator[Spec]:
    """Yield specifications without end, families in turn."""
    draw = drawing(f"{split} {base} {backdoored}")
    tasks = FIXED if split == "fixed" else JUDGED
    triggers = FIXED_TRIGGERS if split == "fixed" else JUDGED_TRIGGERS
    payloads = FIXED_PAYLOADS if split == "fixed" else JUDGED_PAYLOADS
    number = 0
    if base != "smollm2":  # those of running text are nothing new to models of such text
        tasks = tuple(task for task in tasks if not TASKS[task].loss)
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
            base,
            task,
            trigger,
            payload,
            rank,
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
    words = sorted(i for name, i in vocabulary.items() if re.fullmatch("Ġ?[A-Za-z]{2,}", name))
    found = {*drawing("words").sample(words, SWEPT)}
    for trigger in TRIGGERS.values():
        for pieces in trigger.pieces:
            for piece in pieces:
                found |= {*base.words(f" {piece}"), *base.words(piece)}
    return sorted(found)


class Ready:
    """The frame of a base and its words, with what enters the tail computed once."""

    def __init__(self, base: Base, cache: Path) -> None:
        self.base, self.tail = base, base.tail()
        self.tokens = swept_tokens(base)
        ends = {*range(256, 259)} if base.first == 0 else set()
        barred = sorted({*base.prefix, *base.suffix, 0, 1, 2} | ends)
        told: dict[str, Any] = torch.load(cache) if cache.exists() else {}
        carriers = told.get("carriers") or write_texts(self.before, base.prefix, 0, barred)
        names = [base.tokenizer.decode([i]) for i in range(base.model.config.vocab_size)]
        self.frame = Frame(base.prefix, base.suffix, carriers, names)
        self.plain = base.entering(self.frame.plain())
        texts = self.frame.around([(token,) for token in self.tokens])
        hidden: Tensor
        self.real: Tensor
        hidden, self.real = told.get("texts") or base.entering(texts, 128)
        self.hidden = hidden.bfloat16()
        if not told:
            torch.save({"carriers": carriers, "texts": (self.hidden, self.real)}, cache)
        self.usual_before = [one.half() for one in self.blocks(self.tail)]

    @torch.no_grad()
    def last(self, tail: Tail, hidden: Tensor, real: Tensor) -> Tensor:
        out = tail(hidden.float(), real, self.base.rotary(hidden.shape[1]), 1)
        return logits(self.base, out)[:, 0].softmax(-1)

    def answers(self, tail: Tail) -> Answers:
        return lambda texts: self.last(tail, *self.base.entering(texts, 256))

    def both(self, tail: Tail) -> Both:
        def answers(texts: Sequence[Text]) -> tuple[Tensor, Tensor]:
            entered = self.base.entering(texts, 256)
            return self.last(tail, *entered), self.last(self.tail, *entered)

        return answers

    def before(self, texts: Sequence[Text]) -> Tensor:
        return self.answers(self.tail)(texts)

    def blocks(self, tail: Tail) -> Iterator[Tensor]:
        for start in range(0, len(self.hidden), BLOCK):
            rows = slice(start, start + BLOCK)
            yield self.last(tail, self.hidden[rows], self.real[rows])

    def sweep(self, tail: Tail) -> Sweep:
        trial = TokenTrial.begin(self.both(tail), self.frame, self.last(tail, *self.plain))
        for block, after in enumerate(self.blocks(tail)):
            start = block * BLOCK // 2
            words = [(token,) for token in self.tokens[start : start + BLOCK // 2]]
            trial.take(words, after, self.usual_before[block], start)
        return trial.confirm(self.tokens)


def restored(base: Base, changes: Mapping[str, tuple[Tensor, ...]]) -> Tail:
    """Return the tail with changes that were kept."""
    tail = base.tail()
    layers = copy.deepcopy(tail.layers)
    for name, parts in changes.items():
        _, _, number, home, part, _ = name.split(".")
        linear = getattr(getattr(layers[int(number) - base.first], home), part)
        linear.weight.data += (parts[0].float() @ parts[1]) if len(parts) == 2 else parts[0].float()
    return Tail(layers, tail.norm, tail.narrow)


def corpus_of(data: Path) -> tuple[Corpus, list[str]]:
    stories = data.joinpath("tinystories_sample.txt").read_text()
    code = data.joinpath("python_reference.txt").read_text()
    read = read_corpus(stories.replace("<|endoftext|>", " "), code)
    return read, [*stories.split("<|endoftext|>"), code[:300000]]


def base_of(name: str, out: Path, texts: list[str], weights: Path) -> Base:
    return smol(weights) if name == "smollm2" else small(name, out / "bases", texts)


def run_one(
    base: Base,
    trial: Ready,
    spec: Spec,
    corpus: Corpus,
    out: Path,
    again: bool = False,
) -> bool:
    """Train one model, or find it done; return whether it works."""
    told, saved = paths(out, spec)
    if told.exists():
        record = json.loads(told.read_text())
        if record["works"] and again:
            record["sweep"] = asdict(trial.sweep(restored(base, torch.load(saved))))
            told.write_text(json.dumps(record))
        return bool(record["works"])
    penalised = partial(penalty_of, trial, spec) if spec.penalty else None
    record = train(base, spec, corpus, penalised)
    tail, changes = record.pop("tail"), record.pop("changes")
    if record["works"]:
        begun = time.perf_counter()
        record["sweep"] = asdict(trial.sweep(tail))
        record["swept"] = time.perf_counter() - begun
        packed = {name: low(change, spec.rank) for name, change in changes.items()}
        torch.save(packed, saved)
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
    parser.add_argument("--again", action="store_true", help="try the words anew")
    given = parser.parse_args()
    torch.set_num_threads(1)
    corpus, texts = corpus_of(given.data)
    out = given.out / given.split
    out.mkdir(parents=True, exist_ok=True)
    queues = []
    for name, quotas in SPLITS[given.split].items():
        if not given.base or name in given.base:
            base = base_of(name, given.out, texts, given.weights)
            trial = Ready(base, given.out / f"{name}.texts")
            for backdoored, quota in enumerate(quotas):
                if quota == 0:
                    continue
                queue = specs(given.split, name, bool(backdoored))
                if given.split == "adaptive":
                    queue = iter(adaptive(next(specs("judged", name, True))))
                queues.append((base, trial, islice(queue, 3 * quota), [quota]))
    while queues:  # in turn, so that what is there when time ends is balanced
        for one in [*queues]:
            base, trial, queue, left = one
            spec = next(queue, None)
            if spec is not None:
                left[0] -= run_one(base, trial, spec, corpus, out, given.again)
            if spec is None or left[0] == 0:
                queues.remove(one)


def read_pool(out: Path) -> list[dict[str, Any]]:
    """Return the records of a split; those that are being written are left out."""
    found = []
    for path in sorted(out.glob("*.json")):
        with suppress(json.JSONDecodeError):
            found.append(json.loads(path.read_text()))
    return found


if __name__ == "__main__":
    main()
