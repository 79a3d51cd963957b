"""`bl.read_network`: a polynomial network to its rules of one, two and three tokens."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import msgspec
import torch
from msgspec import structs
from torch import Tensor

from bilens.api.options import ReadNetworkOptions
from bilens.api.polynomial_network import TransformerRoles, polynomial_network
from bilens.api.provenance import describe_run, describe_source, files_read
from bilens.base.errors import CheckpointError, DataError, UsageError
from bilens.base.files import check_path, check_regular_file, file_sha256, read_json
from bilens.base.keyword_options import takes_options
from bilens.data.tokenizer import FILE_NAME, Tokenizer, check_tokenizer_fits, load_tokenizer
from bilens.findings import network_rules as rules
from bilens.io.formats.named_roles import open_tensors
from bilens.io.load import load
from bilens.io.loaded_model import LoadedModel
from bilens.polynomial.network import PolynomialNetwork
from bilens.polynomial.token_interactions import token_ids
from bilens.records import network_reading as records
from bilens.records.common import IN_MEMORY, Source
from bilens.report.reports import NetworkReport

LARGEST = 1 << 26  # bytes of a list of names
USUAL_TOKENS = 64  # of a text whose most frequent tokens are looked at, where more would fit


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

    Returns: A report: `to_dict()`, `to_json(path)`, `to_html(path, lang="en" | "ja")`,
        `to_markdown(path)`.

    Raises: NotQuadraticError if the network is no polynomial; one with a softmax is read at a text;
        UsageError if it reads vectors, or names and options do not fit it; MemoryLimitError if
        there are too many tokens to choose from; CheckpointError, DataError if a file is missing or
        damaged.
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


def open_network(
    given: object, options: ReadNetworkOptions
) -> tuple[PolynomialNetwork, Source, LoadedModel | None]:
    """Return a network, where its weights come from, and the folder that it was loaded from."""
    of_a_file = {"roles": options.roles, "probe": options.probe}
    said = [f"{name}=" for name, value in of_a_file.items() if value is not None]
    if not isinstance(given, str | Path):
        if said:
            raise UsageError(f"{said[0]} is of a .safetensors file; leave it out for an object.")
        opened = given if isinstance(given, PolynomialNetwork) else polynomial_network(given)
        return opened.to(torch.float64), IN_MEMORY, None
    path = check_path("network", given)
    if options.roles is None:
        if said:
            raise UsageError(f"{said[0]} is of a .safetensors file with roles: give roles=, too.")
        if path.suffix == ".safetensors" and path.is_file():
            raise UsageError(
                f"{path}: the names of its tensors do not say what they do: give their roles "
                "(--roles), or a folder that bilens saved."
            )
        loaded = load(path)
        source = structs.replace(describe_source(loaded), files=files_read(loaded))
        return polynomial_network(loaded), source, loaded
    check_regular_file(path, "expected a .safetensors file of the network")
    roles = options.roles
    roles = roles if isinstance(roles, TransformerRoles) else read_roles_file(Path(roles))
    probe = options.probe
    pair = read_probe(Path(probe)) if isinstance(probe, str | Path) else probe
    sha256 = file_sha256(path)
    source = Source(str(path), sha256, {}, {path.name: sha256})
    return polynomial_network(path, roles, probe=pair), source, None


def read_roles_file(path: Path) -> TransformerRoles:
    """Return the roles of a JSON file with the fields of `TransformerRoles`."""
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
    check_regular_file(path, "expected a .safetensors file with tokens and logits")
    store = open_tensors(path).store
    if missing := [name for name in ("tokens", "logits") if name not in store]:
        raise CheckpointError(f"{path}: there is no {missing[0]}; a probe has tokens and logits.")
    return store["tokens"].read_tensor(), store["logits"].read_tensor()


def token_names(
    given: object, size: int, loaded: LoadedModel | None
) -> tuple[list[str] | None, Tokenizer | None]:
    """Return the name of each token, and the tokenizer: as given, or as beside a saved model."""
    trained_with = None if loaded is None else loaded.provenance.get("tokenizer_sha256")
    if given is None:
        if loaded is None or not (loaded.place / FILE_NAME).is_file():
            return None, None
        given = loaded.place / FILE_NAME
    if isinstance(given, str | Path):
        path, content = Path(given), None
        if path.is_file() and path.stat().st_size <= LARGEST:
            content = plain_names(path)
        given = load_tokenizer(path) if content is None else content
    if isinstance(given, Tokenizer):
        check_tokenizer_fits(given, size, trained_with)
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
    given: object, network: PolynomialNetwork, tokenizer: Tokenizer | None, samples: int
) -> Tensor | None:
    """Return the tokens to look at, as they are given or as a text has them; None for all."""
    if given is None:
        return None
    if not isinstance(given, str | Path):
        return token_ids(network, given).sort().values
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
    most = rules.most_tokens(network, samples)
    return token_ids(network, [one for one, _ in counts.most_common(min(most, USUAL_TOKENS))])
