"""`bl.read_network`: a polynomial network to its rules of one, two and three tokens."""

from __future__ import annotations

from bilens.api.network_opening import chosen_tokens, open_network, token_names
from bilens.api.options import ReadNetworkOptions
from bilens.api.provenance import describe_run
from bilens.base.keyword_options import takes_options
from bilens.findings import network_rules as rules
from bilens.polynomial.network import PolynomialNetwork
from bilens.records import network_reading as records
from bilens.report.reports import NetworkReport


@takes_options(ReadNetworkOptions)
def read_network(network: object, options: ReadNetworkOptions) -> NetworkReport:
    """Read which rules of one, two and three tokens a polynomial network holds, from its weights.

    What each token says alone; what an earlier token changes of the probability behind another one,
    at distances 1, 2, …; what three tokens side by side do only together, and whether X Y X is
    followed by Y. Beside each rule of one and two tokens stand how often a network with a turned
    embedding has one as large, and the paths through the network that compute it; and which share
    of all interactions the listed rules hold.

    Cost: tokens² · outputs interactions at each distance, at most 2²⁴ of one table, in float64;
        above it the tokens that do most with a few drawn ones are looked at, and a vocabulary of
        more than 4,096 needs `tokens`.

    Args:
        network: a `bl.PolynomialNetwork`, what `bl.polynomial_network` takes, or a path: a folder
            that bilens saved, or a `.safetensors` file with `roles`.
        options: a `ReadNetworkOptions`, or its fields:

    Returns:
        A report: `to_dict()`, `to_json(path)`, `to_html(path, lang="en" | "ja")`,
        `to_markdown(path)`.

    Raises:
        NotQuadraticError: If the network is no polynomial; one with a softmax is read at a text.
        UsageError: If it reads vectors, or names and options do not fit it.
        MemoryLimitError: If there are too many tokens to choose from.
        CheckpointError, DataError: If a file is missing or damaged.
    """
    opened, source, loaded = open_network(network, options)  # in float64
    names, tokenizer = token_names(options.tokenizer, opened.num_tokens, loaded)
    chosen = chosen_tokens(options.tokens, opened, tokenizer, options.samples)
    limits = options.farthest, options.samples, options.seed, options.k
    plan = rules.plan_reading(opened, chosen, *limits)
    say = options.progress

    def name(token: int) -> str:
        return f"#{token}" if names is None else names[token]

    say("one token", 0, 1)
    single, beyond = rules.read_single(opened, plan, name)
    pairs = rules.read_pairs(opened, plan, name, say)
    say("three tokens", 0, 1)
    triples = rules.read_triples(opened, plan, pairs.strength, name)
    return NetworkReport(
        records.NetworkReading(
            model=summarise_network(opened),
            looked=rules.looked_at(opened, plan, triples),
            single=single,
            single_beyond=beyond,
            pairs=pairs.rules,
            distances=pairs.distances,
            triples=() if triples is None else triples.rules,
            triples_explained=None if triples is None else triples.explained,
            induction=None if triples is None else triples.induction,
            source=source,
            reproduce=describe_run(options.command, options.seed),
        )
    )


def summarise_network(network: PolynomialNetwork) -> records.NetworkSummary:
    """Return the sizes of a network, and what it was compared with."""
    return records.NetworkSummary(
        kind=type(network).__name__,
        parts=network.part_names,
        degree=network.degree,
        num_tokens=network.num_tokens,
        d_model=network.d_in,
        n_ctx=network.n_ctx,
        checked_against=network.checked_against,
    )
