"""`bilens train language` and `bilens train sae`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bilens.api.training_options import InParts, PartOfCorpus, Running, Together
from bilens.base.option_rules import refuse_idle
from bilens.cli.console import Output
from bilens.cli.options import LanguageModel, RunFolder
from bilens.cli.shared_options import Text
from bilens.train.recipes import GRAMMAR_RECIPE, LanguageRecipe, SAERecipe, default_recipe

if TYPE_CHECKING:
    from bilens.train.corpus import CorpusOptions
    from bilens.train.tasks.language import LanguageMetrics
    from bilens.train.tasks.sae import SAELine


@dataclass(frozen=True, kw_only=True)
class Corpus(PartOfCorpus):
    """A corpus, and the part of it that is read."""

    corpus: Annotated[
        str,
        typer.Option(
            help="A text file, a folder of .txt files, a table (.json, .csv, .parquet), 'grammar' "
            "for stories with a known rule, or a Hugging Face data set."
        ),
    ]

    def options(self) -> CorpusOptions:
        from bilens.train.corpus import CorpusOptions

        given = dict(vars(self))
        return CorpusOptions(seed=given.pop("corpus_seed"), **given)


def train_language(
    output: Output,
    corpus: Corpus,
    out: RunFolder,
    changes: Annotated[dict[str, Any], LanguageRecipe, GRAMMAR_RECIPE],
    together: Together,
    parts: InParts,
    running: Running,
) -> None:
    """Train a language model; Ctrl-C saves it, the same command with --resume goes on.

    Options that are left out fit the corpus: a small model for the story grammar, one that a
    laptop trains in minutes for text.

    Example: bilens train language --corpus stories.txt --out runs/stories
    """
    from bilens.api import train as job

    facts = [] if "steps" in changes else ["without steps"]
    facts += ["with polynomial"] if changes.get("polynomial") else []
    refuse_idle("train language", changes, *facts)
    usual = default_recipe(corpus.corpus, bool(changes.get("polynomial")))
    recipe = dataclasses.replace(usual, **changes)
    with output.progress() as progress:

        def show(line: LanguageMetrics, lines: int) -> None:
            text = (
                f"step {line.step}, loss {line.train_loss:.3f}, held out {line.held_out_loss:.3f}, "
                f"{line.tokens_per_second:,.0f} tokens/s"
            )
            progress("training", line.epoch, lines, text)

        how: dict[str, Any] = {**vars(together), **vars(parts), **vars(running)}
        how["say"] = output.say
        result = job.train_language(out, corpus.options(), recipe, on_line=show, **how)
    document = result.to_dict()
    output.answer(
        document,
        f"Held-out loss {document['held_out_loss']:.4f} nats per token "
        f"({document['held_out_bits_per_byte']:.4f} bits per byte, "
        f"{document['held_out_bits_per_character']:.4f} per character) after "
        f"{document['step']:,} steps in {document['total_seconds']:.0f} s.\n\n"
        f"{result.sample}\n\nModel: {out}",
    )


def train_sae(
    output: Output,
    model: LanguageModel,
    hook: Annotated[
        list[str],
        typer.Option(
            help="Where activations are read, for instance blocks.0.mlp_out; may be repeated: "
            "several are trained in one pass over the model. Points: resid_pre, attn_out, "
            "resid_mid, mlp_in, mlp_out, resid_post."
        ),
    ],
    out: RunFolder,
    text: Text,
    changes: Annotated[dict[str, Any], SAERecipe],
    together: Together,
    running: Running,
) -> None:
    """Train sparse autoencoders on a layer; Ctrl-C saves them, --resume goes on.

    Example: bilens train sae runs/stories --hook blocks.0.mlp_in --hook blocks.0.mlp_out
    --out runs/stories-sae
    """
    from bilens.api import train as job

    recipe = SAERecipe(tuple(hook), **changes)
    with output.progress() as progress:

        def show(line: SAELine, lines: int) -> None:
            worst = max(line.fvu, key=line.fvu.__getitem__)
            said = (
                f"step {line.step}, {line.fvu[worst]:.3f} of the variance left at {worst}, "
                f"{line.tokens_per_second:,.0f} tokens/s"
            )
            progress("training", line.epoch, lines, said)

        how: dict[str, Any] = {"say": output.say, **vars(together), **vars(running)}
        result = job.train_sae(out, model, recipe, corpus=text.options(), on_line=show, **how)
    document = result.to_dict()
    output.answer(document, *map(sae_lines, document["saes"]))


def sae_lines(sae: dict[str, Any]) -> str:
    return (
        f"{sae['hook']}: normalised MSE {sae['nmse']:.4f}, of the variance {sae['fvu']:.4f}, "
        f"L0 {sae['l0']:.1f}, dead "
        f"{sae['dead_in_training']:.1%} in training, {sae['dead']:.1%} on {sae['tokens']:,} "
        f"held-out tokens\n"
        f"  loss {sae['loss']:.4f}, with the SAE in place {sae['loss_patched']:.4f} "
        f"({sae['loss_added']:+.4f}), zeros {sae['loss_zero']:.4f}, the mean "
        f"{sae['loss_mean']:.4f}\n"
        f"  loss recovered {share(sae['recovered_from_zero'])} against zero-ablation, "
        f"{share(sae['recovered_from_mean'])} against mean-ablation\n"
        f"  SAE: {sae['folder']}"
    )


def share(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.1%}"
