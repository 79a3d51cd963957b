"""What is measured of a polynomial language model: removed and replaced tokens, orders, losses."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional

import bilens as bl
from bench.token_effects import (
    Contexts,
    Effects,
    centred_rows,
    effects_of,
    readings,
    removals,
    replacements,
)
from bilens.data.tokenizer import Tokenizer
from bilens.train.corpus import (
    CorpusDescription,
    CorpusTokens,
    ModelBundle,
    measured_texts,
    open_model_bundle,
    tokens_of,
)

DISTANCES = range(1, 17)  # of a removed token
LENGTH, PER_STORY = 48, 2  # tokens of a context, and contexts of a story
RULES, RULE_DISTANCES, PLACES = 50, (2, 3, 4), 20  # skip-trigrams, and places each is tried at
SEEN, DRAWS, SEED, LEVEL = 200, 1000, 0, 0.95


def interval(draws: list[float] | np.ndarray[Any, Any]) -> list[float]:
    """Return the interval that holds LEVEL of some draws."""
    low, high = np.quantile(np.asarray(draws), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]


def losses_of(model: Any, texts: Tensor) -> Tensor:
    """Compute the mean cross-entropy of each text, (texts,)."""
    with torch.no_grad():
        return torch.stack([model.next_token_loss(text[None]) for text in texts])


def correlations(
    read: Tensor, measured: Tensor, story: Tensor, generator: np.random.Generator
) -> dict[str, Any]:
    """Compute Pearson's and Spearman's correlation, with intervals by drawing stories again."""
    x, y, numbers = read.numpy(), measured.numpy(), story.numpy()
    rows = {number: np.flatnonzero(numbers == number) for number in np.unique(numbers)}
    kinds = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}
    draws: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(DRAWS // 5):
        chosen = generator.choice([*rows], len(rows))
        at = np.concatenate([rows[number] for number in chosen])
        for kind, measure in kinds.items():
            draws[kind].append(float(measure(x[:, at].ravel(), y[:, at].ravel())[0]))
    return {
        kind: {"value": float(measure(x.ravel(), y.ravel())[0]), "interval": interval(draws[kind])}
        for kind, measure in kinds.items()
    }


def by_distance(read: Tensor, measured: Tensor) -> list[float]:
    """Compute Pearson's correlation at each distance."""
    pairs = zip(read.numpy(), measured.numpy(), strict=True)
    return [float(stats.pearsonr(x, y)[0]) for x, y in pairs]


def measure_removals(
    network: bl.PolynomialNetwork, contexts: Contexts, effects: Effects
) -> dict[str, Any]:
    """Compare what removing a token does with what the weights say."""
    generator = np.random.default_rng(SEED)
    measured = removals(network, contexts, DISTANCES)
    rows = centred_rows(network, contexts.then)
    two, three = readings(effects, rows, DISTANCES)
    order = torch.from_numpy(generator.permutation(len(contexts.then)))
    found = {
        name: correlations(read, measured, contexts.story, generator)
        | {"by_distance": by_distance(read, measured)}
        for name, read in {"two": two, "three": three, "shuffled": two[:, order]}.items()
    }
    return {"cases": measured.numel(), "stories": len({*contexts.story.tolist()}), **found}


def measure_shares(
    network: bl.PolynomialNetwork, contexts: Contexts, effects: Effects, bigrams: Tensor
) -> dict[str, Any]:
    """Compute the loss of the network cut off behind each order."""
    assert network.head is not None, "a language model has a head"
    orders = [effects.alone, effects.pairs.sum(dim=0), effects.triples.sum(dim=0) / 2]
    terms = torch.stack([one @ network.head.T for one in orders])
    whole = network(contexts.tokens)[:, -1]

    def loss(logits: Tensor, rows: Tensor | slice = slice(None)) -> float:
        return float(functional.cross_entropy(logits[rows], contexts.then[rows]))

    losses = {
        "corpus_bigrams": float(-bigrams[contexts.tokens[:, -1], contexts.then].log().mean()),
        "one": loss(terms[0]),
        "two": loss(terms[:2].sum(dim=0)),
        "three": loss(terms.sum(dim=0)),
        "whole": loss(whole),
    }
    gain = losses["one"] - losses["whole"]
    return {
        "losses": losses,
        "shares": {name: (losses["one"] - losses[name]) / gain for name in ("two", "three")},
        "contexts": len(contexts.then),
    }


def bigrams_of(tokens: Tensor, vocab_size: int) -> Tensor:
    """Compute the bigram probabilities of a text, backing off to its unigrams."""
    single = torch.bincount(tokens, minlength=vocab_size).double() + 0.5
    pairs = tokens[:-1] * vocab_size + tokens[1:]
    table = torch.bincount(pairs, minlength=vocab_size**2).view(vocab_size, vocab_size).double()
    table += 10 * single / single.sum()
    return table / table.sum(dim=1, keepdim=True)


def measure_rules(
    network: bl.PolynomialNetwork,
    train: Tensor,
    held_out: Tensor,
    tokenizer: Tokenizer,
    length: int,
    num: int,
) -> dict[str, Any]:
    """Try the strongest skip-trigrams on held-out text, the first token put in its place."""
    often = (torch.bincount(train, minlength=network.num_tokens) >= SEEN).nonzero()[:, 0]
    often = often[: num or None]
    rules: list[tuple[float, int, list[int]]] = []
    single = network.to(torch.float32)
    for distance in RULE_DISTANCES:
        found = bl.token_interactions(single, 2, distance=distance, tokens=[often, often], k=RULES)
        values = found.strongest_values.tolist()
        rules += [
            (x, distance, row) for x, row in zip(values, found.strongest.tolist(), strict=True)
        ]
    rows, measured, predicted = [], [], []
    for value, distance, (first, now, then) in sorted(rules, reverse=True)[:RULES]:
        ends = (held_out[length - 1 :] == now).nonzero()[:PLACES, 0]
        row: dict[str, Any] = {"tokens": [tokenizer.decode([one]) for one in (first, now, then)]}
        row |= {"distance": distance, "interaction": value, "places": len(ends)}
        if len(ends):
            texts = torch.stack([held_out[end : end + length] for end in ends.tolist()])
            done, said = replacements(network, (first, now, then), distance, texts)
            row |= {"measured": float(done.mean()), "predicted": float(said.mean())}
            row["same_sign"] = float((done * said > 0).double().mean())
            measured.append(done)
            predicted.append(said)
        rows.append(row)
    x, y = torch.cat(predicted), torch.cat(measured)
    return {
        "rules": rows,
        "tried": sum(row["places"] > 0 for row in rows),
        "gain": sum(row.get("measured", 0) > 0 for row in rows),
        "same_sign": float((x * y > 0).double().mean()),
        "pearson": float(stats.pearsonr(x.numpy(), y.numpy())[0]),
        "places": len(x),
    }


@dataclass(frozen=True, eq=False)
class Trained:
    """A polynomial model with its text, and what its tokens do at places of held-out stories."""

    bundle: ModelBundle
    data: CorpusTokens
    network: bl.PolynomialNetwork
    contexts: Contexts
    effects: Effects

    @classmethod
    def open(cls, folder: Path, length: int = LENGTH) -> Trained:
        """Open a folder, and compute all interactions of two and three tokens there."""
        bundle = open_model_bundle(folder)
        text = CorpusDescription.read_from(bundle.folder).load()
        data = tokens_of(text, bundle.tokenizer, bundle.model.config.n_ctx)
        network = bl.polynomial_network(bundle.model)
        end = (data.held_out == bundle.tokenizer.end_of_text).nonzero()[:, 0].tolist()
        stories = [data.held_out[a:b] for a, b in zip([0, *end], [*end, None], strict=True)]
        contexts = Contexts.draw(stories, length, PER_STORY, SEED)
        return cls(bundle, data, network, contexts, effects_of(network, contexts.tokens))

    @property
    def texts(self) -> Tensor:
        """The texts on which losses are measured."""
        return measured_texts(self.data.held_out, self.bundle.model.config.n_ctx)


def measure_recipe(folder: Path) -> dict[str, float]:
    """Measure the loss of a polynomial model, and how well its weights tell what removing does."""
    trained = Trained.open(folder)
    measured = removals(trained.network, trained.contexts, DISTANCES).numpy().ravel()
    rows = centred_rows(trained.network, trained.contexts.then)
    two, three = readings(trained.effects, rows, DISTANCES)
    return {
        "loss": float(losses_of(trained.bundle.model, trained.texts).mean()),
        "two": float(stats.pearsonr(two.numpy().ravel(), measured)[0]),
        "three": float(stats.pearsonr(three.numpy().ravel(), measured)[0]),
    }


def measure(
    folders: tuple[Path, Path], seed: int, length: int = LENGTH, num: int = 0
) -> dict[str, Any]:
    """Measure a polynomial model and its twin; of the rules' tokens at most `num`, 0 for all."""
    began = time.perf_counter()
    trained = Trained.open(folders[0], length)
    bundles = [trained.bundle, open_model_bundle(folders[1])]
    data, texts = trained.data, trained.texts
    losses = [losses_of(one.model, texts) for one in bundles]
    difference, generator = (losses[0] - losses[1]).numpy(), np.random.default_rng(SEED)
    draws = [generator.choice(difference, len(difference)).mean() for _ in range(DRAWS)]
    network, contexts, effects = trained.network, trained.contexts, trained.effects
    bigrams = bigrams_of(data.train, network.num_tokens)
    tokenizer = trained.bundle.tokenizer
    return {
        "seed": seed,
        "weights": [sum(one.numel() for one in bundle.model.parameters()) for bundle in bundles],
        "checked_against": network.checked_against,
        "losses": [float(one.mean()) for one in losses],
        "difference_interval": interval(draws),
        "held_out_tokens": texts[:, 1:].numel(),
        "removals": measure_removals(network, contexts, effects),
        "shares": measure_shares(network, contexts, effects, bigrams),
        "rules": measure_rules(network, data.train, data.held_out, tokenizer, length, num),
        "seconds": time.perf_counter() - began,
    }
