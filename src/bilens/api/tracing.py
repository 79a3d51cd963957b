"""`bl.trace`: a layer of a language model to how its outputs are built from its inputs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from msgspec import structs
from torch import Tensor

from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.hosvd import hosvd
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.rotation_null import rotation_null
from bilens.api.provenance import describe_run, describe_source, files_read
from bilens.api.subject import open_subject
from bilens.api.trace_latents import LISTED_TOKENS, SHOWN_EIGENVECTORS, latent_findings
from bilens.api.trace_records import causal_reading, token_ends, traced_spectrum
from bilens.base import Progress, silent
from bilens.base.checks import check_count
from bilens.base.errors import UsageError
from bilens.base.keyword_options import takes_options
from bilens.base.option_rules import ATTENTION, NO_SAES, SAES, refuse_idle
from bilens.data.tokenizer import Tokenizer
from bilens.findings.spectrum_summaries import MINIMUM_SAMPLES
from bilens.interp.behaviour import DIRECTIONS, Trial, trial_of_direction
from bilens.interp.interventions import Edit
from bilens.interp.random_dictionaries import NUM_DICTIONARIES, random_turn
from bilens.interp.trace_options import TraceOptions
from bilens.interp.traced_layer import (
    LoadedSAE,
    TracedLayer,
    eigenvector_tokens,
    held_out_text,
    open_layer,
    open_sae,
    output_tokens,
)
from bilens.io.host import Host, Site
from bilens.io.load import LoadedModel, load
from bilens.io.vocabulary import vocabulary_of
from bilens.nn.agreement import normal_inputs
from bilens.records import mlp_trace as records
from bilens.report.reports import TraceReport
from bilens.train.device import device_of
from bilens.train.layer_inputs import rows_given

CHECKED_INPUTS = 256  # random inputs on which map and module are compared


@takes_options(TraceOptions)
def trace(model: str | Path | LoadedModel, layer: int, options: TraceOptions) -> TraceReport:
    """Return how the outputs of a bilinear MLP are built from its inputs.

    With autoencoders before and behind the MLP: every output latent as a quadratic form of the
    input latents, their ranking, and circuits of the leading ones with causal checks. Without:
    output directions and their eigenvectors straight as tokens, from weights alone.

    Cost: for each output latent an eigendecomposition and O(latents² · hidden) for all pairs of
        input latents; five runs of the model over the text for each autoencoder, and some for
        each causal check; for each random dictionary the eigenvalues and the checks once more.

    Args:
        model: the folder of a language model with its tokenizer.json, or what `bl.load` returned.
        layer: the block, counted from 0.
        options: a `TraceOptions`, or its fields:

    Returns: A report: `to_dict()`, `to_json(path)`, `to_html(path, lang="en" | "ja")`,
        `to_graphs(folder)`.

    Raises: UsageError if the model is no language model, an autoencoder does not fit the layer,
        only one is given, there is no such layer or latent, or a number is out of range;
        NotQuadraticError if the MLP is gated or an ordinary one; CheckpointError if a folder is
        missing or damaged; DataError if tokenizer or text are missing, or the text is shorter than
        one block; NonFiniteError if a weight or an activation is NaN or infinite; MemoryLimitError
        if the work would not fit.

    Source: arXiv:2410.08417, §5 and App. F to N.
    """
    subject = open_layer(read_or_open(model), layer, options.tokenizer)
    saes = open_autoencoders(subject, options)
    if saes is None:
        found = direction_findings(subject, options)
    else:
        attended = open_attended(subject, options)
        text = held_out_text(subject, options.corpus, options.tokens, options.say, options.seed)
        found = latent_findings(subject, saes, text, options, attended)
    return TraceReport(
        records.Trace(
            **describe_layer(subject),
            **found,
            seed=options.seed,
            source=structs.replace(
                describe_source(subject.loaded), files=files_read(subject.loaded)
            ),
            reproduce=describe_run(options.command, options.seed),
        )
    )


def open_autoencoders(
    subject: TracedLayer, options: TraceOptions
) -> tuple[LoadedSAE, LoadedSAE] | None:
    """Open the autoencoders on both sides of a layer; None, and nothing of theirs, without."""
    paths = options.input_sae, options.output_sae
    given = [path for path in paths if path is not None]
    if len(given) == 1:
        one, other = ("input", "output") if options.output_sae is None else ("output", "input")
        raise UsageError(
            f"only the {one} autoencoder was given: give the {other} one, too, or neither."
        )
    facts = [SAES if given else NO_SAES]
    facts += ["without latents"] if options.latents is None else []
    facts += [ATTENTION] if options.attention_sae is not None else []
    refuse_idle("trace", vars(options), *facts)
    if not given:
        return None
    before, behind = (read_or_open(path) for path in given)
    for line in (x for one in (before, behind) if one.load_report for x in one.load_report.lines()):
        options.say(line)
    return open_sae(before, subject, "mlp_in"), open_sae(behind, subject, "mlp_out")


def open_attended(subject: TracedLayer, options: TraceOptions) -> LoadedSAE | None:
    """Open the autoencoder of what the attention before the MLP reads; None where none is given."""
    if options.attention_sae is None:
        return None
    loaded, usual = read_or_open(options.attention_sae), subject.hook("resid_pre")
    earlier = (f"blocks.{block}" for block in range(subject.index))
    known = {usual, *(f"{name}.{point}" for name in earlier for point in ("attn_out", "mlp_out"))}
    known |= {f"blocks.{subject.index - 1}.resid_post"} if subject.index else set()
    hook = loaded.provenance.get("hook", usual)
    if hook not in known:
        raise UsageError(
            f"{loaded.source} was trained at {hook}, which is not written into the stream that the "
            f"attention of block {subject.index} reads: expected {', '.join(sorted(known))}."
        )
    return open_sae(loaded, subject, hook)


def direction_findings(subject: TracedLayer, options: TraceOptions) -> dict[str, Any]:
    """Read output directions of a layer; return the fields of a `records.Trace` about them."""
    vocabulary = subject.vocabulary
    return {
        **dict.fromkeys(("saes", "ranking", "clusters", "circuits", "input_latents"), ()),
        "num_outputs": subject.f.sizes.d_out,
        "cluster_threshold": 1.0,
        "contrasts": records.Contrasts(0, ()),
        "correlations": None,
        "data": None,
        "null": None,
        "readings": direction_readings(
            subject.f,
            vocabulary.unembedding,
            vocabulary.embedding,
            subject.tokenizer,
            options.toward,
            options.outputs,
            options.pairs,
            options.progress,
        ),
    }


def read_or_open(given: str | Path | LoadedModel) -> LoadedModel:
    """Load the model at a path, or compare a loaded one as it is now."""
    return open_subject(load(given) if isinstance(given, str | Path) else given, "a trace")


def describe_layer(subject: TracedLayer) -> dict[str, Any]:
    config, tokenizer, module = subject.module.config, subject.tokenizer, subject.module
    sizes = ("vocab_size", "d_model", "d_hidden", "n_layer", "n_head", "n_ctx")
    return {
        "model": records.LanguageModel(
            kind=type(module).__name__,
            **{name: getattr(config, name) for name in sizes},
            num_parameters=sum(weight.numel() for weight in module.parameters()),
            dtype=str(module.embed.weight.dtype).removeprefix("torch."),
        ),
        "layer": records.LayerLocation(
            index=subject.index,
            name=f"blocks.{subject.index}.mlp",
            input=subject.hook("mlp_in"),
            output=subject.hook("mlp_out"),
        ),
        "exactness": compare_with_module(subject),
        "tokens_carry_spaces": any(
            tokenizer.token(number).startswith(" ") for number in range(tokenizer.vocab_size)
        ),
    }


def compare_with_module(subject: TracedLayer) -> records.MapError:
    """Return how far map and MLP are apart, on random inputs of root mean square 1."""
    x = normal_inputs(subject.f.sizes.d_in, CHECKED_INPUTS)
    x = (x / x.square().mean(dim=1, keepdim=True).sqrt()).to(subject.f.device)
    mlp = subject.module.mlps[subject.index]
    dtype = subject.module.embed.weight.dtype
    with torch.no_grad():
        truth = mlp(x.to(dtype)).double()
        error = (subject.f(x) - truth).abs().max()
    return records.MapError(float(error), float(truth.square().mean().sqrt()), CHECKED_INPUTS)


def direction_readings(
    f: QuadraticMap,
    unembed: Tensor,
    embed: Tensor,
    tokenizer: Tokenizer,
    toward: Sequence[str],
    outputs: int,
    pairs: int,
    progress: Progress = silent,
) -> tuple[records.DirectionReading, ...]:
    """Return output directions of a layer, read as tokens."""
    outputs, pairs = check_count("outputs", outputs, 1), check_count("pairs", pairs, 1)
    about: list[tuple[str, str, float | None, float | None]]
    if toward:
        rows = unembed[[token_id(tokenizer, text) for text in toward]].double()
        directions = rows - unembed.double().mean(dim=0)
        about = [("token", text, None, None) for text in toward]
    else:
        found = hosvd(f, min(outputs, f.sizes.d_out))
        directions, total = found.output_directions, float(found.frobenius_squared)
        about = [
            ("hosvd", "", value, value**2 / total if total else 0.0)
            for value in found.singular_values.tolist()
        ]
    units = directions / torch.linalg.vector_norm(directions, dim=1, keepdim=True)
    eigenpairs = eigendecompose_all(
        f,
        units,
        min(pairs, f.sizes.d_in),
        progress=lambda done, count: progress("eigenvectors", done, count),
    )
    name, readings = tokenizer.token, []
    for row, ((kind, token, value, share), direction) in enumerate(zip(about, units, strict=True)):
        effect = output_tokens(direction, unembed, LISTED_TOKENS)
        single = eigenpairs[row]
        vectors = eigenvector_tokens(single, embed, LISTED_TOKENS)[: 2 * SHOWN_EIGENVECTORS]
        readings.append(
            records.DirectionReading(
                kind=kind,
                name=token,
                singular_value=value,
                share=share,
                output=token_ends(effect, name),
                spectrum=traced_spectrum(single, vectors, None, row, name),
            )
        )
    return tuple(readings)


@torch.no_grad()
def read_converted(
    host: Host, sites: Sequence[Site], tokenizer: Tokenizer, texts: Tensor, seed: int
) -> Iterator[records.DirectionReading]:
    """Yield two leading output directions of a few converted MLPs, beside the rotation null.

    Whether their leading eigenvectors cause what goes with them is checked on `texts`.

    Cost: for each of three MLPs twice `hosvd`, whole spectra for each rotation, and 120 runs of the
    texts.
    """
    vocabulary = vocabulary_of(host.module)
    if vocabulary is None:
        return
    for place in sorted({0, len(sites) // 2, len(sites) - 1} if sites else ()):
        block: Any = host.at(sites[place])
        f = block.quadratic_map().detach().to(torch.float64)
        view = sites[place].view
        unembed = vocabulary.unembedding_of(view)
        embed = vocabulary.read_by(view, divided=False)
        if unembed is None or embed is None:
            continue
        units, generator = hosvd(f, 2).output_directions, torch.Generator().manual_seed(seed)
        edges = rotation_null(f, units, generator, MINIMUM_SAMPLES).edges()
        found = direction_readings(f, unembed, embed, tokenizer, (), 2, 8)
        trained, *null = trials_in_host(host, sites[place], texts, f, units, unembed, generator)
        for row, one in enumerate(found):
            random = (trials[row] for trials in null)
            shares = [{} if trial is None else trial.shares(create=False) for trial in random]
            yield structs.replace(
                one,
                name=sites[place].name,
                edges=(float(edges[0][row]), float(edges[1][row])),
                causal=causal_reading(
                    trained[row], generator, shares, tokenizer.token, create=False
                ),
            )


def trials_in_host(
    host: Host,
    site: Site,
    texts: Tensor,
    f: QuadraticMap,
    directions: Tensor,
    unembed: Tensor,
    generator: torch.Generator,
) -> Iterator[list[Trial | None]]:
    """Yield trials of output directions of one MLP, and then of the same ones turned at random.

    A trial is of the eigenvectors that may cause what goes with a direction.
    """
    texts = texts.to(device_of(host.module))
    given = rows_given(host.module, [site], texts, lambda: host.logits(texts))[site.name].x
    if len(given) != texts.numel():  # an expert
        yield [None] * len(directions)
        return
    inputs = given.view(*texts.shape, -1)[:, 1:].double()
    outputs = f(inputs.flatten(0, 1))

    def logits(edit: Edit | None) -> Tensor:
        if edit is None:
            return host.logits(texts)
        hooked, change = host.module.get_submodule(site.paths[0]), edit
        handle = hooked.register_forward_pre_hook(lambda _, args: (change(args[0]), *args[1:]))
        try:
            return host.logits(texts)
        finally:
            handle.remove()

    for index in range(1 + NUM_DICTIONARIES):
        rows = directions if index == 0 else directions @ random_turn(outputs, generator)[0]
        pairs = eigendecompose_all(f, rows, DIRECTIONS)
        values = (outputs @ rows.T).T.view(-1, *inputs.shape[:2])
        tokens = [output_tokens(row, unembed, LISTED_TOKENS) for row in rows]
        yield [
            trial_of_direction(logits, texts, inputs, values[at], pairs[at], one, generator)
            for at, one in enumerate(tokens)
        ]


def token_id(tokenizer: Tokenizer, text: str) -> int:
    found = tokenizer.encode(text)
    known = len(found) == 1 and tokenizer.token(found[0]).strip(" ") == text.strip(" ")
    if not known:
        pieces = ", ".join(repr(tokenizer.token(number)) for number in found)
        raise UsageError(
            f"{text!r} is not one token of the model but {pieces or 'nothing'}: name one token, "
            "with a space before it where its tokens carry spaces."
        )
    return found[0]
