"""A language model that is a polynomial, beside its twin with softmax and norms.

Trains both at equal numbers of weights and tokens, and measures on held-out stories: the losses,
how well interactions read from the weights alone predict what removing or replacing a token does,
and what share of the loss they explain. Run it with
`make bench-polynomial-language CORPUS=file OUT=folder SEEDS="0 1 2"`; models that are in the folder
already are not trained again. It writes docs/benchmarks/polynomial_language.json and the page.
With CHANGE="order_penalty=0.2" one polynomial model of another recipe, of the first seed, is told
beside those that are there.
"""

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from scipy import stats

import bilens as bl
from bench.polynomial_measures import (
    DISTANCES,
    LENGTH,
    LEVEL,
    PLACES,
    RULE_DISTANCES,
    RULES,
    SEEN,
    measure,
    measure_recipe,
)
from bilens.api.provenance import describe_run
from bilens.records.base import to_json
from bilens.train.recipes import ORDER_PENALTY, default_recipe

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks"
RECIPE: dict[str, Any] = {
    "d_model": 128,
    "d_hidden": 448,
    "n_layer": 2,
    "n_head": 4,
    "n_ctx": 128,
    "vocab_size": 1024,
    "batch_size": 16,
    "dropout": 0.0,
}


BASES = ("one", "corpus_bigrams")  # over which a gain is told

# ---- models


def train_pair(corpus: str, out: Path, seed: int, tokens: int, recipe: dict[str, Any]) -> None:
    """Train both models, unless they are there."""
    steps = tokens // (recipe["batch_size"] * recipe["n_ctx"])
    for polynomial in (True, False):
        folder = folder_of(out, seed, polynomial)
        wanted = recipe | {"steps": steps, "seed": seed, "polynomial": polynomial}
        if not polynomial:  # as many weights as the further queries and keys have
            further = 2 * (wanted.pop("pairs", 1) - 1) * recipe["d_model"]
            wanted["d_hidden"] += round(further / 3)
        bl.train_language(corpus, folder, resume=folder.exists(), say=print, **wanted)


def folder_of(out: Path, seed: int, polynomial: bool) -> Path:
    """Return where a model is kept."""
    return out / f"seed-{seed}" / ("polynomial" if polynomial else "softmax")


def try_recipe(corpus: str, out: Path, seed: int, tokens: int, change: str) -> dict[str, Any]:
    """Train a polynomial model of another recipe, such as "pairs=2", and measure it."""
    changes = {
        name: json.loads(value) for name, _, value in (one.partition("=") for one in change.split())
    }
    steps = tokens // (RECIPE["batch_size"] * RECIPE["n_ctx"])
    folder = out / f"seed-{seed}" / change.replace(" ", ",")
    wanted = RECIPE | {"steps": steps, "seed": seed, "polynomial": True} | changes
    bl.train_language(corpus, folder, resume=folder.exists(), say=print, **wanted)
    hardware = describe_run("make bench-polynomial-language", seed).hardware
    return {"change": change, "seed": seed, "hardware": hardware, **measure_recipe(folder)}


def over_seeds(values: list[float]) -> dict[str, Any]:
    """Return the mean over seeds, with the interval of Student's t where there are several."""
    mean, found = statistics.fmean(values), None
    if len(values) > 1:
        width = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)
        error = width * statistics.stdev(values) / math.sqrt(len(values))
        found = [mean - error, mean + error]
    return {"mean": mean, "interval": found, "values": values}


# ---- the page


def mean_of(cases: list[dict[str, Any]], *path: Any) -> float:
    """Return the mean over seeds of a number."""
    values = []
    for case in cases:
        for key in path:
            case = case[key]
        values.append(float(case))  # type: ignore[arg-type]
    return statistics.fmean(values)


def between(found: dict[str, Any] | list[float] | None, digits: int = 3) -> str:
    """Return an interval in words."""
    ends = found["interval"] if isinstance(found, dict) else found
    return "one seed" if ends is None else f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"


def share_over(cases: list[dict[str, Any]], base: str, key: str) -> float:
    """Return which share of the gain over some bigrams is there behind an order, mean of seeds."""
    losses = [case["shares"]["losses"] for case in cases]
    return statistics.fmean((one[base] - one[key]) / (one[base] - one["whole"]) for one in losses)


def tried_rows(result: dict[str, Any]) -> list[str]:
    """Return the rows of recipes that were tried: the usual one and each change of it."""
    first = result["cases"][0]
    usual = {name: first["removals"][name]["pearson"]["value"] for name in ("two", "three")}
    usual |= {"change": f"order_penalty={result['order_penalty']:g}, as above"}
    usual |= {"loss": first["losses"][0]}
    rows = [usual, *(one for one in result.get("tried", ()) if one["seed"] == first["seed"])]
    return [
        f"| {one['change']} | {one['loss']:.3f} | {one['loss'] - first['losses'][1]:+.3f} | "
        f"{one['two']:.3f} | {one['three']:.3f} |"
        for one in rows
    ]


def page(result: dict[str, Any]) -> str:
    """Return the page that is generated from the result."""
    cases, run, losses = result["cases"], result["run"], result["losses"]
    first, versions = cases[0], ", ".join(f"{k} {v}" for k, v in result["run"]["versions"].items())
    removed = [
        f"| {name} | {first['removals'][key]['pearson']['value']:.3f} "
        f"({between(first['removals'][key]['pearson'])}) | "
        f"{first['removals'][key]['spearman']['value']:.3f} "
        f"({between(first['removals'][key]['spearman'])}) | "
        f"{mean_of(cases, 'removals', key, 'pearson', 'value'):.3f} |"
        for key, name in (
            ("two", "two tokens"),
            ("three", "two and three tokens"),
            ("shuffled", "two tokens, of another case"),
        )
    ]
    distances = [
        f"| {distance} | {first['removals']['two']['by_distance'][at]:.3f} | "
        f"{first['removals']['three']['by_distance'][at]:.3f} | "
        f"{first['removals']['shuffled']['by_distance'][at]:+.3f} |"
        for at, distance in enumerate(DISTANCES)
    ]
    shares = first["shares"]["losses"]
    orders = [
        f"| {name} | {shares[key]:.3f} | "
        + " ".join(f"{share_over(cases, base, key):.0%} |" if share else "|" for base in BASES)
        for key, name, share in (
            ("corpus_bigrams", "bigrams counted in the training text", False),
            ("one", "one token: the network's own bigrams", False),
            ("two", "and two tokens", True),
            ("three", "and three", True),
            ("whole", "the whole network", False),
        )
    ]
    tried = [row for row in first["rules"]["rules"] if row["places"]]
    rules = [
        f"| {' … '.join(f'`{part!r}`' for part in row['tokens'][:2])} → `{row['tokens'][2]!r}` | "
        f"{row['distance']} | {row['interaction']:.2f} | {row['predicted']:+.2f} | "
        f"{row['measured']:+.2f} | {row['same_sign']:.0%} of {row['places']} |"
        for row in tried[:15]
    ]
    lines = {
        name: "\n".join(one)
        for name, one in (
            ("removed", removed),
            ("distances", distances),
            ("orders", orders),
            ("rules", rules),
            ("tried", tried_rows(result)),
        )
    }
    apart = between(losses["difference"])
    tested = first["rules"]
    return f"""# A language model that can be read from end to end

Generated by `make bench-polynomial-language` from `polynomial_language.json`; do not edit.

A transformer without softmax and norms (`bilens train language --polynomial --order-penalty
{result["order_penalty"]:g}`): {result["about"]}, {first["weights"][0]:,} weights; beside it the
same command without these two, with {first["weights"][1]:,} weights. Both learn from
{result["tokens"]:,} tokens of {result["corpus"]}.

| held-out loss, nats per token | {len(cases)} {"seed" if len(cases) == 1 else "seeds"} | interval |
|---|---|---|
| polynomial | {losses["polynomial"]["mean"]:.3f} | {between(losses["polynomial"])} |
| softmax and RMSNorm | {losses["softmax"]["mean"]:.3f} | {between(losses["softmax"])} |
| difference, of the same seed | {losses["difference"]["mean"]:+.3f} | {apart} |

Of seed {first["seed"]} alone, over the {first["held_out_tokens"]:,} held-out tokens drawn again
text by text, the difference lies within {between(first["difference_interval"])}.

## What removing a token does

In {first["removals"]["stories"]} held-out stories one token, 1 to 16 places back, is taken out: its
position holds none. By how much does the logit of the true next token change? The weights alone
say it, by exact interactions of two tokens (the removed and the last one) and of three.
{first["removals"]["cases"]:,} cases in contexts of {result["length"]} tokens.

| read from the weights | Pearson | Spearman | Pearson, mean of seeds |
|---|---|---|---|
{lines["removed"]}

| places back | two tokens | two and three | control |
|---|---|---|---|
{lines["distances"]}

## Recipes that were tried

Seed {first["seed"]} alone: what lets two tokens tell more, and what it costs beside the same twin.
`order_penalty` is the weight of a penalty, while training, on what takes three tokens or more
([training](../polynomial.md#training)); {ORDER_PENALTY:g} is the usual one of a text. Changes were
measured on: {", ".join({one["hardware"] for one in result.get("tried", ())}) or "nothing yet"}.

| change of the recipe | loss | beside the twin | two tokens, Pearson | two and three |
|---|---|---|---|---|
{lines["tried"]}

## What the orders explain

The network cut off behind interactions of so many tokens, on the same {first["shares"]["contexts"]}
contexts. The shares, means of seeds, are those of what the whole network gains over its own
bigrams, and over the bigrams counted in the training text, which say more than its own where their
loss is lower.

| | loss, seed {first["seed"]} | share of the gain over its own bigrams | over the text's |
|---|---|---|---|
{lines["orders"]}

## Skip-trigrams

The {RULES} strongest interactions of two tokens on one output, {RULE_DISTANCES[0]} to
{RULE_DISTANCES[-1]} places apart, among tokens that the training text has at least {SEEN} times.
Each is tried at up to {PLACES} places of the held-out text that have its second token: the first
one is put in the place of what stands there. Of {tested["tried"]} that could be tried, the third
token's logit rises on average in {tested["gain"]}; predicted and measured changes have the same
sign at {tested["same_sign"]:.1%} of {tested["places"]:,} places, and a correlation of
{tested["pearson"]:.3f}. The first of them:

| tokens | apart | interaction | predicted | measured | same sign |
|---|---|---|---|---|---|
{lines["rules"]}

* The control takes the interactions of another case at the same distance; pooled over distances it
  keeps what is usual at each, so that it is told by distance, too.
* Interactions in float64 (`bl.token_interactions`), compared with {first["checked_against"]};
  logits are told against the mean of all outputs. Intervals hold {LEVEL:.0%}: over seeds of
  Student's t, else by drawing stories again.
* {run["date"]}; {run["hardware"]}; {versions}.
"""


def summary(cases: list[dict[str, Any]], corpus: str, tokens: int) -> dict[str, Any]:
    """Return the result of all seeds."""
    both = [[case["losses"][at] for case in cases] for at in (0, 1)]
    return {
        "about": "{n_layer} blocks of width {d_model}, {n_head} heads".format(**RECIPE),
        "corpus": Path(corpus).name,
        "tokens": tokens,
        "order_penalty": default_recipe(corpus, polynomial=True).order_penalty,
        "length": LENGTH,
        "losses": {
            "polynomial": over_seeds(both[0]),
            "softmax": over_seeds(both[1]),
            "difference": over_seeds([a - b for a, b in zip(*both, strict=True)]),
        },
        "cases": cases,
        "run": to_json(describe_run("make bench-polynomial-language", cases[0]["seed"])),
    }


def write_result(result: dict[str, Any]) -> None:
    """Write the result and the page that is generated from it."""
    (PAGE / "polynomial_language.json").write_text(json.dumps(result, indent=1) + "\n")
    (PAGE / "polynomial_language.md").write_text(page(result))
    print(page(result))


def main() -> None:
    """Train what is not there yet, measure, and write the result and its page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", help="a text, as of `bilens train language --corpus`")
    parser.add_argument("out", type=Path, help="where models are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tokens", type=int, default=1_800_000, help="to train on, with repeats")
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument("--change", help='of the recipe, such as "pairs=2": told beside the others')
    given = parser.parse_args()
    if given.change:
        result = json.loads((PAGE / "polynomial_language.json").read_text())
        found = try_recipe(given.corpus, given.out, given.seeds[0], given.tokens, given.change)
        others = (one for one in result.get("tried", ()) if one["change"] != given.change)
        write_result(result | {"tried": [*others, found]})
        return
    for seed in given.seeds:
        train_pair(given.corpus, given.out, seed, given.tokens, RECIPE)
    if given.train_only:
        return
    folders = [[folder_of(given.out, seed, kind) for kind in (True, False)] for seed in given.seeds]
    cases = [measure((a, b), seed) for (a, b), seed in zip(folders, given.seeds, strict=True)]
    write_result(summary(cases, given.corpus, given.tokens))


if __name__ == "__main__":
    main()
