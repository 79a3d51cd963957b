"""What `bilens train sae` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bilens.api.train_sae import train_sae
from bilens.base.errors import UsageError
from bilens.cli.console import Output
from bilens.train.device import Device
from bilens.train.language.corpus import CorpusOptions
from bilens.train.sae.loop import SAELine
from bilens.train.sae.recipe import SAERecipe

Text = tuple[str | None, str | None, int | None]  # corpus, column, limit


def run_train_sae_command(
    output: Output,
    out: Path,
    model: Path,
    text: Text,
    options: dict[str, Any],
    device: Device,
    resume: bool,
    overwrite: bool,
    json: bool,
) -> None:
    """`bilens train sae`."""
    recipe = SAERecipe.from_dict(options)
    with output.progress() as progress:

        def show(line: SAELine, lines: int) -> None:
            worst = max(line.fvu, key=line.fvu.__getitem__)
            text = (
                f"step {line.step}, {line.fvu[worst]:.3f} of the variance left at {worst}, "
                f"{line.tokens_per_second:,.0f} tokens/s"
            )
            progress("training", line.epoch, lines, text)

        result = train_sae(
            out,
            model,
            recipe,
            corpus=corpus_options(text),
            resume=resume,
            overwrite=overwrite,
            device=device,
            on_line=show,
            say=output.say,
        )
    document = result.to_dict()
    if json:
        output.json(document)
        return
    for sae in document["saes"]:
        output.result.print(sae_lines(sae), highlight=False, markup=False, soft_wrap=True)


def corpus_options(text: Text) -> CorpusOptions | None:
    """Return the corpus that the options name; None for the model's own.

    Raises:
        UsageError: If a column or a limit is given without a corpus.
    """
    corpus, column, limit = text
    if corpus is not None:
        return CorpusOptions(corpus, column=column, limit=limit)
    if column is not None or limit is not None:
        raise UsageError("--column and --limit are about --corpus: give it, or leave them out.")
    return None


def sae_lines(sae: dict[str, Any]) -> str:
    """Return what a person reads about one autoencoder."""
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
    """Return a share in per cent; none where there is none."""
    return "undefined" if value is None else f"{value:.1%}"
