"""A foreign polynomial transformer with known rules, read from its weights: which are found?

The weights, the rules and a probe were published by others (see the README beside them); nothing
was tuned on them but the choice of scores, which the page names. Run it with
`make bench-ground-truth DATA=folder`; it writes docs/benchmarks/ground_truth.json and the page.
"""

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors.torch import load_file
from torch import Tensor

import bilens as bl
from bench.known_rules import DISTANCES, NEAR, Rule, Rules, bigram_errors, induced, skip_right
from bilens.api.provenance import describe_run
from bilens.polynomial.chance import turned_networks
from bilens.polynomial.token_interactions import Measure, interactions_of
from bilens.records.base import to_json

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks"
LAST = "bilinear_transformer"
CHECKPOINTS = {f"{LAST}_step500": 500, f"{LAST}_step5000": 5_000, LAST: 50_000}  # steps
LEVEL, TURNED, SAMPLES, SEED = 0.01, 200, 20, 0
FALSE, APART = 0.05, 5  # of what is counted as beyond chance; the distance of a skip-trigram
ROLES = bl.TransformerRoles(
    embedding="embed.weight",
    head="unembed.weight",
    query=("blocks.{block}.attn.q1_proj.weight", "blocks.{block}.attn.q2_proj.weight"),
    key=("blocks.{block}.attn.k1_proj.weight", "blocks.{block}.attn.k2_proj.weight"),
    value="blocks.{block}.attn.v_proj.weight",
    out="blocks.{block}.attn.o_proj.weight",
    left="blocks.{block}.mlp.w_m.weight",
    right="blocks.{block}.mlp.w_n.weight",
    down="blocks.{block}.mlp.w_proj.weight",
    attention_scale="blocks.{block}.norm_attn.scale",
    mlp_scale="blocks.{block}.norm_mlp.scale",
    head_scale="final_norm.scale",
    n_ctx=64,
)


def published_rules(folder: Path) -> Rules:
    """Read the rules beside the weights."""
    said = json.loads((folder / "rules.json").read_text("utf-8"))
    ids = {name: at for at, name in enumerate(said["tokens"])}
    bigrams = {
        ids[first]: {ids[then]: share for then, share in after.items()}
        for first, after in said["bigram"].items()
    }
    skip = [
        tuple(ids[rule[part]] for part in ("loc", "adj", "conn")) for rule in said["skip_trigram"]
    ]
    silent = frozenset(said["induction"]["not_after"])
    return Rules(tuple(said["tokens"]), bigrams, skip, silent)


def among_first(values: Tensor, rules: list[Rule], kinds: list[list[int]]) -> int:
    """Count the rules among the first of an array, as many as there are rules."""
    chosen = torch.full_like(values, -torch.inf)
    index = torch.meshgrid(*(torch.tensor(one) for one in kinds), indexing="ij")
    chosen[index] = values[index]
    first = chosen.flatten().topk(len(rules)).indices
    places = torch.stack(torch.unravel_index(first, values.shape), dim=1).tolist()
    return len({*map(tuple, places)} & {*rules})


def p_values(network: bl.PolynomialNetwork, firsts: Tensor, distance: int | None) -> Tensor:
    """Compute how likely a change of a probability as large is by chance, (n, outputs).

    Chance is the same entry, the same tokens and output, in each of TURNED networks behind a turned
    embedding: p = (1 + how many of them are at least as large) / (1 + TURNED).
    """
    found = interactions_of(network, firsts, distance, "probability")
    above = torch.zeros_like(found)
    for turned in turned_networks(network, TURNED, SEED):
        above += interactions_of(turned, firsts, distance, "probability") >= found
    return (1 + above) / (1 + TURNED)


def tested(
    network: bl.PolynomialNetwork, known: list[Rule], wrong: list[Rule], distance: int | None
) -> dict[str, int]:
    """Count the rules, and the wrong ones of the same kinds, whose p-value is below LEVEL."""
    firsts = sorted({rule[:-1] for rule in (*known, *wrong)})
    shares = p_values(network, torch.tensor(firsts), distance)
    place = {first: at for at, first in enumerate(firsts)}

    def below(rules: list[Rule]) -> int:
        return sum(float(shares[place[rule[:-1]], rule[-1]]) < LEVEL for rule in rules)

    return {"rules": below(known), "of": len(known), "wrong": below(wrong), "wrong_of": len(wrong)}


def beyond_chance(
    network: bl.PolynomialNetwork, order: int, rules: list[Rule], distance: int | None
) -> dict[str, int]:
    """Count the largest changes of a probability that are beyond chance, and the rules in them."""
    sizes: dict[str, Any] = {"distance": distance, "measure": "probability"}
    found = bl.token_interactions(network, order, **sizes)
    chance = bl.interaction_chance(network, order, **sizes, num_samples=SAMPLES, seed=SEED)
    count, values = chance.count_beyond(found, FALSE), found.values
    assert values is not None, "63 tokens fit"
    first = values.flatten().topk(count).indices
    places = torch.stack(torch.unravel_index(first, values.shape), dim=1).tolist()
    return {"entries": count, "rules": len({*map(tuple, places)} & {*rules}), "of": len(rules)}


def measure_chance(network: bl.PolynomialNetwork, rules: Rules) -> dict[str, Any]:
    """Compare rules, and wrong ones of the same kinds, with turned networks."""
    kinds = [rules.kind("LOC"), rules.kind("ADJ"), rules.kind("CONN")]
    triples = [one for one in itertools.product(*kinds) if one not in {*rules.skip}]
    verbs = [(first, then) for first, after in rules.bigrams.items() for then in after]
    pairs = itertools.product(rules.bigrams, rules.kind("VERB"))
    others: list[Rule] = [one for one in pairs if one not in {*verbs}]
    return {
        "bigrams_tested": tested(network, [*rules.firsts], others, None),
        "skip_tested": tested(network, rules.skip, triples, APART),
        "bigrams_beyond": beyond_chance(network, 1, [*verbs], None),
        "skip_beyond": beyond_chance(network, 2, rules.skip, APART),
    }


def measure(folder: Path, name: str, rules: Rules) -> dict[str, Any]:
    """Read one checkpoint and count what is found."""
    began = time.perf_counter()
    probe = load_file(folder / "probe.safetensors")
    known = (probe["tokens"], probe["logits"]) if name == LAST else None
    read = bl.polynomial_network(folder / f"{name}.safetensors", ROLES, probe=known)
    network = read.to(torch.float64)
    errors = bigram_errors(network, rules)
    arrays: dict[str, Tensor] = {}
    right = []
    for kind in get_args(Measure):
        total: Any = 0.0
        for distance in DISTANCES:
            found = bl.token_interactions(network, 2, distance=distance, measure=kind)
            values = found.values
            assert values is not None, "63 tokens fit"
            total = total + values / len(DISTANCES)
            if kind == "logits":
                right.append(skip_right(values, rules))
        arrays[kind] = total
    kinds = [rules.kind("LOC"), rules.kind("ADJ"), rules.kind("CONN")]
    every = [[*range(len(rules.names))]] * 3
    return {
        "checkpoint": name,
        "checked_against": read.checked_against,
        "bigrams": sum(error <= NEAR for error in errors),
        "bigrams_of": len(errors),
        "largest_error": max(errors),
        "skip_right": right,
        "skip_right_of": len(rules.skip),
        "skip_first": {kind: among_first(one, rules.skip, every) for kind, one in arrays.items()},
        "skip_first_of_kinds": {
            kind: among_first(one, rules.skip, kinds) for kind, one in arrays.items()
        },
        "induction": induced(network, rules),
        "induction_of": len(rules.induction),
        **measure_chance(network, rules),
        "seconds": time.perf_counter() - began,
    }


def induced_share(case: dict[str, Any]) -> float:
    """Compute the share of induction that is found."""
    share: float = case["induction"] / case["induction_of"]
    return share


def of_all(counts: dict[str, int], what: str) -> int:
    """Return how many rules, or wrong ones, there are."""
    return counts["of" if what == "rules" else "wrong_of"]


def page(result: dict[str, Any]) -> str:
    """Return the page that is generated from the result."""
    heads = "".join(f" {steps:,} |" for steps in CHECKPOINTS.values())

    def row(what: str, show: Any) -> str:
        return f"| {what} |" + "".join(f" {show(case)} |" for case in result["cases"])

    last, run = result["cases"][-1], result["run"]
    rows = [
        row("bigram rules with all probabilities within 0.05", lambda c: f"{c['bigrams']} of 8"),
        row("largest error of a probability", lambda c: f"{c['largest_error']:.3f}"),
        row(
            "skip-trigram rules whose word has the largest interaction, by distance 1 to 12",
            lambda c: f"{min(c['skip_right'])} to {max(c['skip_right'])} of 24",
        ),
        *(
            row(f"rules among the first 24 of {text}, by {how}", lambda c, k=key, m=kind: c[k][m])
            for key, text in (
                ("skip_first", "all 250,047 triples"),
                ("skip_first_of_kinds", "the 512 triples of their kinds"),
            )
            for kind, how in (("logits", "logit"), ("probability", "probability"))
        ),
        row(
            "induction (X Y X → Y) with Y first",
            lambda c: f"{c['induction']:,} of {c['induction_of']:,}: {induced_share(c):.1%}",
        ),
        *(
            row(
                f"{text} with p < {LEVEL:g}",
                lambda c, k=key, m=of: f"{c[k][m]} of {of_all(c[k], m)}",
            )
            for key, of, text in (
                ("bigrams_tested", "rules", "bigram rules"),
                ("bigrams_tested", "wrong", "control: wrong subjects and verbs"),
                ("skip_tested", "rules", "skip-trigram rules"),
                ("skip_tested", "wrong", "control: wrong triples of the same kinds"),
            )
        ),
        *(
            row(
                f"largest changes by {text} beyond chance, and how many of them are rules",
                lambda c, k=key: f"{c[k]['entries']:,}: {c[k]['rules']} of {c[k]['of']}",
            )
            for key, text in (("bigrams_beyond", "one token"), ("skip_beyond", "two tokens"))
        ),
        row("seconds", lambda c: f"{c['seconds']:.0f}"),
    ]
    lines = "\n".join(rows)
    versions = ", ".join(f"{name} {value}" for name, value in run["versions"].items())
    return f"""# A transformer with known rules, read from its weights

Generated by `make bench-ground-truth` from `ground_truth.json`; do not edit.

A polynomial transformer of two blocks (bilinear attention with two query-key pairs, bilinear MLPs,
scales in place of norms, 63 tokens) that others trained on three known rules: bigrams,
skip-trigrams (a place within the last 12 positions and an adjective → a connective) and induction.
The last checkpoint was compared with {last["checked_against"]}; no training data are used.

| steps of training |{heads}
|---|{"---|" * len(CHECKPOINTS)}
{lines}

* Interactions are exact: inclusion and exclusion over which positions hold a token
  (`bl.token_interactions`), in float64. Skip-trigrams are ranked by their mean over the distances
  1 to 12, at which the rule holds. In logits an entry is told against the mean of all outputs; the
  change of the probability is that of the softmax.
* Induction is tried with every X after which texts have it (no subject, no filler) and every other
  token with content as Y, at distances 2 and 1. The rules of a place and an adjective go first in
  the texts, too.
* p < {LEVEL:g}: the same entry (the same tokens and output; of a bigram the probability of its most
  frequent verb, of a skip-trigram the change of the probability at distance {APART}) is as large
  in so few of {TURNED} networks behind a turned embedding: p = (1 + number at least as large) /
  {TURNED + 1}. It says that the entry is larger than the geometry of its embedding makes it; it
  does not say that it is a rule of the texts. How often others pass, too, the controls show:
  verbs that do not follow their subject, and all other triples of a place, an adjective and a
  connective.
  Where many of these pass, the criterion does not tell rules from what is not one.
* Largest changes beyond chance: the k largest of the whole table of probabilities of which
  {SAMPLES} turned networks, brought to the network's own size in logits, have on average at most
  {FALSE:.0%} · k as large (`InteractionChance.count_beyond`); at distance {APART} for two tokens.
  Of one token all three verbs of each subject are rules; induction is not among the rules counted.
* {run["date"]}; {run["hardware"]}; {versions}.
"""


def main() -> None:
    """Run the benchmark and write its result and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="with the weights, rules.json and the probe")
    folder = parser.parse_args().folder
    rules = published_rules(folder)
    cases = [measure(folder, name, rules) for name in CHECKPOINTS]
    result = {"cases": cases, "run": to_json(describe_run("make bench-ground-truth", SEED))}
    (PAGE / "ground_truth.json").write_text(json.dumps(result, indent=1) + "\n")
    (PAGE / "ground_truth.md").write_text(page(result))
    print(page(result))


if __name__ == "__main__":
    main()
