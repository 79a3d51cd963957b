"""What `bilens train language` does."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from bilens.api.train_language import train_language
from bilens.cli.console import Output
from bilens.train.device import Device
from bilens.train.language.corpus import CorpusOptions
from bilens.train.language.loop import LanguageMetrics
from bilens.train.language.recipe import default_recipe


def run_train_language_command(
    output: Output,
    out: Path,
    corpus: CorpusOptions,
    options: dict[str, Any],
    device: Device,
    resume: bool,
    overwrite: bool,
    json: bool,
) -> None:
    """`bilens train language`; options that are None are those of the recipe for the corpus."""
    given = {name: value for name, value in options.items() if value is not None}
    recipe = dataclasses.replace(default_recipe(corpus.corpus), **given)
    with output.progress() as progress:

        def show(line: LanguageMetrics, lines: int) -> None:
            text = (
                f"step {line.step}, loss {line.train_loss:.3f}, held out {line.held_out_loss:.3f}, "
                f"{line.tokens_per_second:,.0f} tokens/s"
            )
            progress("training", line.epoch, lines, text)

        result = train_language(
            out,
            corpus,
            recipe,
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
    output.result.print(
        f"Held-out loss {document['held_out_loss']:.4f} nats per token "
        f"({document['held_out_bits_per_byte']:.4f} bits per byte, "
        f"{document['held_out_bits_per_character']:.4f} per character) after "
        f"{document['step']:,} steps in {document['total_seconds']:.0f} s.\n\n"
        f"{result.sample}\n\nModel: {out}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
