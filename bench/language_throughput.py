"""Training and evaluating a language model: the loop of bilens against a plain one.

Both train the same function from the same weights on the same texts, with AdamW, clipping and the
batch size of the default recipe; both evaluate the same held-out texts. Rounds alternate, so that
a noisy machine is noisy for both. Run it with `make bench-language CORPUS=file-or-folder`; it
writes docs/benchmarks/language_throughput.json and the page.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from bench.plain_language_model import (
    PlainTransformer,
    Texts,
    collate,
    plain_evaluation,
    plain_steps,
)
from bilens.api.provenance import describe_run
from bilens.data.text import load_text
from bilens.data.tokenizer import train_tokenizer
from bilens.nn.transformer import BilinearTransformer
from bilens.records.base import to_json
from bilens.train.corpus import Batches, CorpusTokens, measured_texts, tokens_of, windows
from bilens.train.recipes import LanguageRecipe, default_recipe
from bilens.train.tasks.language import (
    EVALUATION_TOKENS,
    held_out_loss,
    start_run,
    train_step,
)

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks"
TARGET = 1.3
ROUNDS, STEPS = 9, 8  # the first round warms up and is left out
LONGEST = 256  # tokens of a text: ours reads one less, the plain model reads it whole


@dataclass(frozen=True)
class Round:
    """One round of one loop: seconds of its steps, seconds of an evaluation, and its loss."""

    training: float
    evaluation: float
    loss: float


def our_rounds(
    data: CorpusTokens, recipe: LanguageRecipe, vocab_size: int, compiled: bool = False
) -> Iterator[Round]:
    """Train and evaluate with bilens, whose blocks torch.compile takes if asked to."""
    run = start_run(recipe, vocab_size)
    for block in run.model.blocks if compiled else ():
        block.compile()
    batches, numbers = batches_of(data, recipe), itertools.count()

    def steps() -> None:
        run.model.train()
        for number in itertools.islice(numbers, STEPS):
            train_step(run, batches.batch(number), recipe, number)

    yield from rounds(steps, lambda: held_out_loss(run, data.held_out, recipe.n_ctx))


def batches_of(data: CorpusTokens, recipe: LanguageRecipe) -> Batches:
    """Return the batches of a run."""
    return Batches(data.train, recipe.n_ctx, recipe.batch_size, recipe.seed)


def plain_rounds(data: CorpusTokens, recipe: LanguageRecipe, vocab_size: int) -> Iterator[Round]:
    """Train and evaluate the plain way, from the same weights."""
    model = start_run(recipe, vocab_size).model
    assert isinstance(model, BilinearTransformer), "the recipe is not of a polynomial model"
    plain = PlainTransformer(model.config)
    plain.copy_weights(model)
    texts = windows(data.train, recipe.n_ctx)
    held_out = measured_texts(data.held_out, recipe.n_ctx)
    losses = plain_steps(plain, texts, recipe)
    size = max(1, EVALUATION_TOKENS // recipe.n_ctx)
    loader: DataLoader[Any] = DataLoader(Texts(held_out), size, collate_fn=collate)

    def steps() -> None:
        for _ in itertools.islice(losses, STEPS):
            pass

    yield from rounds(steps, lambda: plain_evaluation(plain, loader))


def rounds(steps: Callable[[], None], evaluate: Callable[[], float]) -> Iterator[Round]:
    """Yield an evaluation of the start without steps, then rounds without an end."""
    yield Round(0.0, 0.0, evaluate())
    while True:
        began = time.perf_counter()
        steps()
        between = time.perf_counter()
        loss = evaluate()
        yield Round(between - began, time.perf_counter() - between, loss)


def summary(found: list[Round], steps_per_line: float) -> dict[str, float]:
    """Return the median times of a step, of an evaluation, and of a line of the history."""
    training = statistics.median(part.training for part in found) / STEPS
    evaluation = statistics.median(part.evaluation for part in found)
    return {
        "step_seconds": training,
        "evaluation_seconds": evaluation,
        "line_seconds": steps_per_line * training + evaluation,
        "final_loss": found[-1].loss,
    }


def measure(data: CorpusTokens, recipe: LanguageRecipe, vocab_size: int) -> dict[str, Any]:
    """Return the result of the benchmark as JSON values."""
    resolved, wide = recipe.resolved(), replace(recipe, precision="float32")
    loops = {
        "plain": plain_rounds(data, recipe, vocab_size),
        "ours": our_rounds(data, resolved, vocab_size),
        "ours in float32": our_rounds(data, wide, vocab_size),
        "ours compiled": our_rounds(data, resolved, vocab_size, compiled=True),
    }
    start = {name: next(loop).loss for name, loop in loops.items()}
    results: dict[str, list[Round]] = {name: [] for name in loops}
    for _ in range(ROUNDS):
        for name, loop in loops.items():
            results[name].append(next(loop))
    results = {name: found[1:] for name, found in results.items()}
    total = batches_of(data, recipe).total_steps(recipe.epochs, recipe.steps)
    steps = total / min(recipe.evaluations, total)
    medians = {name: summary(found, steps) for name, found in results.items()}
    ratios = {
        name: {
            kind: statistics.median(
                getattr(plain, kind) / getattr(ours, kind)
                for plain, ours in zip(results["plain"], found, strict=True)
            )
            for kind in ("training", "evaluation")
        }
        | {"line": medians["plain"]["line_seconds"] / medians[name]["line_seconds"]}
        for name, found in results.items()
    }
    held_out = measured_texts(data.held_out, recipe.n_ctx)
    return {
        "recipe": resolved.to_dict(),
        "start_loss": start,
        "medians": medians,
        "speed": ratios,
        "target": TARGET,
        "steps_per_line": steps,
        "tokens_per_step": recipe.batch_size * recipe.n_ctx,
        "tokens_per_evaluation": held_out[:, 1:].numel(),
        "rounds": {name: [vars(part) for part in found] for name, found in results.items()},
    }


def page(result: dict[str, Any]) -> str:
    """Return the page that is generated from the result."""
    recipe, run, medians = result["recipe"], result["run"], result["medians"]
    speed, start = result["speed"], result["start_loss"]
    formats = {
        "plain": "float32",
        "ours": recipe["precision"],
        "ours in float32": "float32",
        "ours compiled": recipe["precision"],
    }
    rows = "\n".join(
        f"| {name} | {kind} | {result['tokens_per_step'] / medians[name]['step_seconds']:,.0f} "
        f"| {speed[name]['training']:.2f} "
        f"| {result['tokens_per_evaluation'] / medians[name]['evaluation_seconds']:,.0f} "
        f"| {speed[name]['evaluation']:.2f} | **{speed[name]['line']:.2f}** |"
        for name, kind in formats.items()
    )
    versions = ", ".join(f"{name} {value}" for name, value in run["versions"].items())
    apart = max(abs(value - start["plain"]) for value in start.values())
    return f"""# Language models: throughput of training and evaluation

Generated by `make bench-language` from `language_throughput.json`; do not edit.

| loop | training in | trained tokens/s | ratio | evaluated tokens/s | ratio | both |
|---|---|---|---|---|---|---|
{rows}

* **Both**: the time of the plain loop over ours for a line of the history of a run, which is
  {result["steps_per_line"]:.0f} steps and one evaluation of
  {result["tokens_per_evaluation"]:,} held-out tokens; target at least {result["target"]}.
* Ratios are medians over {len(result["rounds"]["plain"])} alternating rounds of {STEPS} steps and
  one evaluation. Every evaluation is in float32.
* The same function: at the start the held-out losses are {apart:.1e} nats apart
  ({start["plain"]:.5f}). After the last round they are
  {medians["plain"]["final_loss"]:.4f} (plain, texts in another order),
  {medians["ours"]["final_loss"]:.4f} and {medians["ours in float32"]["final_loss"]:.4f} (ours).
* Work: {recipe["n_layer"]} blocks of width {recipe["d_model"]} with {recipe["d_hidden"]} products,
  {recipe["n_head"]} heads, {recipe["vocab_size"]} tokens; {recipe["batch_size"]} texts of
  {recipe["n_ctx"] + 1} tokens a step, no dropout; {result["corpus"]}.
* {run["date"]}; {run["hardware"]}; {versions}.

The plain loop attends through torch's fused function in training, and through einsum, mask and
softmax in evaluation; it holds the logits of all tokens and shifts them by a copy; its texts are
dictionaries from a DataLoader. It uses the fused AdamW, as ours does. Ours attends through the
fused function always, forms loss and gradient in pieces of the logits that stay in the cache, cuts
its batches from one tensor, and multiplies in bfloat16 in training where the processor does so
natively. "Compiled" is `torch.compile` of each block, which no command uses: the first round, which
is left out, waits for it.
"""


def prepare(corpus: str) -> tuple[CorpusTokens, LanguageRecipe, int, str]:
    """Return the tokens of a corpus, the recipe for it, its number of tokens, and its name."""
    text = load_text(corpus)
    recipe = default_recipe(corpus)
    recipe = replace(recipe, n_ctx=min(recipe.n_ctx, LONGEST - 1), dropout=0.0)
    tokenizer = train_tokenizer(text.documents, recipe.vocab_size, recipe.tokenizer)
    recipe = replace(recipe, vocab_size=tokenizer.vocab_size)
    return tokens_of(text, tokenizer, recipe.n_ctx), recipe, tokenizer.vocab_size, text.name


def main() -> None:
    """Run the benchmark and write its result and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", default="grammar")
    data, recipe, vocab_size, name = prepare(parser.parse_args().corpus)
    result = measure(data, recipe, vocab_size)
    result |= {"corpus": name, "run": to_json(describe_run("make bench-language", recipe.seed))}
    PAGE.mkdir(parents=True, exist_ok=True)
    (PAGE / "language_throughput.json").write_text(json.dumps(result, indent=1) + "\n")
    (PAGE / "language_throughput.md").write_text(page(result))
    print(page(result))


if __name__ == "__main__":
    main()
