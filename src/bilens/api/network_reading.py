"""`bl.read_network`: a polynomial network to its rules of one, two and three tokens."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import structs

from bilens.base.checks import check_count
from bilens.base.errors import CheckpointError, DataError, UsageError
from bilens.base.files import check_path, check_regular_file, file_sha256, read_json
from bilens.base.keyword_options import JobOptions, takes_options
from bilens.base.option_rules import check_seed, option
from bilens.data.tokenizer import Tokenizer, check_tokenizer_fits, load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from bilens.api.polynomial_network import TransformerRoles
    from bilens.polynomial.network import PolynomialNetwork
    from bilens.records.common import Source
    from bilens.report.reports import NetworkReport
else:  # the command line reads the types of the fields, and knows nothing of torch
    Tensor = TransformerRoles = Any

LARGEST = 1 << 26  # bytes of a list of names
USUAL_TOKENS = 64  # of a text whose most frequent tokens are looked at, where more would fit


@dataclass(frozen=True, kw_only=True)
class ReadNetworkOptions(JobOptions):
    """How a network is opened, how its tokens are called, and how much of it is looked at."""

    UNCHECKED: ClassVar = ("roles",)  # a file, and not texts ROLE=TENSOR

    roles: TransformerRoles | str | Path | None = option(
        None,
        "Which tensor of a .safetensors file is what: JSON of the fields of bl.TransformerRoles.",
        "--roles",
        kind=Path | None,
    )
    probe: tuple[Tensor, Tensor] | str | Path | None = option(
        None,
        "Of such a file: a .safetensors with tokens and the logits of its owner, to compare with.",
        kind=Path | None,
    )
    tokenizer: Tokenizer | Sequence[str] | str | Path | None = option(
        None,
        "Names of the tokens: a tokenizer.json, or a JSON list of names by id.",
        "--tokens",
        kind=Path | None,
    )
    tokens: Sequence[int] | str | Path | None = option(
        None,
        "Look only at the most frequent tokens of this text; needs --tokens with a tokenizer.",
        "--tokens-of",
        kind=Path | None,
    )
    farthest: int = option(12, "Distances of two tokens to look at: 1 to this one.", min=1)
    k: int = option(30, "Rules to list of each kind.", "--rules", min=1)
    samples: int = option(
        10, "Networks with a turned embedding beside each table, for chance; 0 for none.", min=0
    )
    seed: int = option(0, "Of the turned embeddings.", min=0)


@takes_options(ReadNetworkOptions)
def read_network(network: object, options: ReadNetworkOptions) -> NetworkReport:
    """Read which rules of one, two and three tokens a polynomial network holds, from its weights.

    What each token says alone; what an earlier token changes of the probability behind another one,
    at distances 1, 2, …; what three tokens side by side do only together, and whether X Y X is
    followed by Y. Beside each rule stand how often a network with a turned embedding has one as
    large, and the paths through the network that compute it; and which share of all interactions
    the listed rules hold.

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
    import torch

    from bilens.api.provenance import describe_run
    from bilens.findings import network_rules as rules
    from bilens.polynomial.attention import BilinearAttention
    from bilens.records import network_reading as records
    from bilens.report.reports import NetworkReport

    check_seed(options.seed)
    for name, least in (("farthest", 1), ("k", 1), ("samples", 0)):
        check_count(name, getattr(options, name), minimum=least)
    opened, source = open_network(network, options)
    opened = opened.to(torch.float64)
    names, tokenizer = token_names(options.tokenizer, opened.num_tokens)
    chosen = chosen_tokens(options.tokens, opened, tokenizer)
    limits = options.farthest, options.samples, options.seed, options.k
    plan = rules.plan_reading(opened, chosen, *limits)
    say = options.progress

    def name(token: int) -> str:
        return f"#{token}" if names is None else names[token]

    say("one token", 0, 1)
    single, beyond = rules.read_single(opened, plan, name)
    pairs = rules.read_pairs(opened, plan, name, say)
    triples, explained, induction, count = (), None, None, 0
    attends = any(isinstance(part, BilinearAttention) for part in opened.parts)
    if attends and plan.distances and max(plan.distances) >= rules.TRIPLE[0]:
        say("three tokens", 0, 1)
        triples, explained, induction, count = rules.read_triples(  # type: ignore[assignment]
            opened, plan, pairs.strength, name
        )
    return NetworkReport(
        records.NetworkReading(
            model=records.NetworkSummary(
                kind=type(opened).__name__,
                parts=opened.part_names,
                degree=opened.degree,
                num_tokens=opened.num_tokens,
                d_model=opened.d_in,
                n_ctx=opened.n_ctx,
                checked_against=opened.checked_against,
            ),
            looked=rules.looked_at(plan, count),
            single=single,
            single_beyond=beyond,
            pairs=pairs.rules,
            distances=pairs.distances,
            triples=triples,
            triples_explained=explained,
            induction=induction,
            source=source,
            reproduce=describe_run(options.command, options.seed),
        )
    )


def open_network(given: object, options: ReadNetworkOptions) -> tuple[PolynomialNetwork, Source]:
    """Return a network and where its weights come from."""
    from bilens.api.polynomial_network import TransformerRoles, polynomial_network
    from bilens.api.provenance import describe_source, files_read
    from bilens.io.load import load
    from bilens.polynomial.network import PolynomialNetwork
    from bilens.records.common import IN_MEMORY, Source

    of_a_file = {"roles": options.roles, "probe": options.probe}
    said = [f"{name}=" for name, value in of_a_file.items() if value is not None]
    if not isinstance(given, str | Path):
        if said:
            raise UsageError(f"{said[0]} is of a .safetensors file; leave it out for an object.")
        is_one = isinstance(given, PolynomialNetwork)
        return (given if is_one else polynomial_network(given)), IN_MEMORY  # type: ignore[return-value]
    path = check_path("network", given)
    if options.roles is None:
        if said:
            raise UsageError(f"{said[0]} is of a .safetensors file with roles: give roles=, too.")
        loaded = load(path)
        source = structs.replace(describe_source(loaded), files=files_read(loaded))
        return polynomial_network(loaded), source
    check_regular_file(path, "expected a .safetensors file of the network")
    roles = options.roles
    roles = roles if isinstance(roles, TransformerRoles) else read_roles_file(Path(roles))
    probe = options.probe
    pair = read_probe(Path(probe)) if isinstance(probe, str | Path) else probe
    sha256 = file_sha256(path)
    source = Source(str(path), sha256, {}, {path.name: sha256})
    return polynomial_network(path, roles, probe=pair), source


def read_roles_file(path: Path) -> TransformerRoles:
    """Return the roles of a JSON file with the fields of `TransformerRoles`."""
    import msgspec

    from bilens.api.polynomial_network import TransformerRoles

    content = read_json(path)
    known = {one.name for one in fields(TransformerRoles)}
    if unknown := sorted({*content} - known):
        raise CheckpointError(
            f"{path}: {unknown[0]!r} is no field of TransformerRoles; they are "
            f"{', '.join(sorted(known))}."
        )
    try:
        return msgspec.convert(content, TransformerRoles)
    except (msgspec.ValidationError, UsageError) as error:
        raise CheckpointError(f"{path}: the roles cannot be read: {error}") from None


def read_probe(path: Path) -> tuple[Tensor, Tensor]:
    """Return tokens and logits of a .safetensors file."""
    from bilens.io.formats.named_roles import open_tensors

    check_regular_file(path, "expected a .safetensors file with tokens and logits")
    store = open_tensors(path).store
    if missing := [name for name in ("tokens", "logits") if name not in store]:
        raise CheckpointError(f"{path}: there is no {missing[0]}; a probe has tokens and logits.")
    return store["tokens"].read_tensor(), store["logits"].read_tensor()


def token_names(given: object, size: int) -> tuple[list[str] | None, Tokenizer | None]:
    """Return the name of each token, and the tokenizer, as far as they are given."""
    if given is None:
        return None, None
    if isinstance(given, str | Path):
        path, content = Path(given), None
        if path.is_file() and path.stat().st_size <= LARGEST:
            content = plain_names(path)
        given = load_tokenizer(path) if content is None else content
    if isinstance(given, Tokenizer):
        check_tokenizer_fits(given, size)
        known = given.vocab_size  # of a model whose embedding is rounded up
        return [given.token(at) if at < known else f"#{at}" for at in range(size)], given
    names = [*given] if isinstance(given, Sequence) else []
    if len(names) != size or not all(isinstance(one, str) for one in names):
        raise UsageError(
            f"the names are {len(names):,}, and the network has {size:,} tokens: expected a "
            "tokenizer of the network, or a list of as many texts."
        )
    return names, None


def plain_names(path: Path) -> list[str] | None:
    """Return the names of a JSON list, or of the list `tokens` in an object; None for neither."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        short = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: is no tokenizer.json and no list of names ({short}).") from None
    found = content.get("tokens") if isinstance(content, Mapping) else content
    return found if isinstance(found, list) else None


def chosen_tokens(
    given: object, network: PolynomialNetwork, tokenizer: Tokenizer | None
) -> Tensor | None:
    """Return the tokens to look at, as they are given or as a text has them; None for all."""
    from bilens.polynomial.token_interactions import token_ids

    if given is None:
        return None
    if not isinstance(given, str | Path):
        return token_ids(network, given).unique()
    if tokenizer is None:
        raise UsageError("the tokens of a text are those of a tokenizer: give it (--tokens).")
    path = Path(given)
    check_regular_file(path, "expected a text", DataError)
    try:
        counts = Counter(tokenizer.encode(path.read_text("utf-8")))
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8: save it as that.") from None
    if not counts:
        raise DataError(f"{path}: has no tokens; expected a text.")
    most = max(1, int(((1 << 24) // network.d_out) ** 0.5))
    return token_ids(network, [one for one, _ in counts.most_common(min(most, USUAL_TOKENS))])
