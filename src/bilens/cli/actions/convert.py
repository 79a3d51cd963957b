"""What `bilens convert` does."""

from __future__ import annotations

from pathlib import Path

from bilens.api.convert import Target, convert_model
from bilens.cli.actions.shared import Source, open_model, say_how_it_was_read
from bilens.cli.console import Output


def run_convert_command(
    output: Output, source: Source, target: Target, out: Path, *, overwrite: bool, json: bool
) -> None:
    """`bilens convert`."""
    model = open_model(source)
    if model.module is not None:  # what cannot be converted is refused first
        say_how_it_was_read(model, output.say)
    written = convert_model(model, target, out, overwrite=overwrite)
    if json:
        output.json(
            {
                "schema_version": 1,
                "kind": "conversion",
                "source": model.source,
                "weights_sha256": model.weights_sha256,
                "layout": target,
                "folder": str(out),
                "files": written,
            }
        )
        return
    output.result.print(
        f"Written to {out}: {', '.join(written)}", highlight=False, markup=False, soft_wrap=True
    )
