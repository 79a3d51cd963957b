"""The program `bilens`: its commands, and how it runs them."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from bilens.cli.commands.attack import attack
from bilens.cli.commands.audit import audit
from bilens.cli.commands.certify import certify
from bilens.cli.commands.convert import convert
from bilens.cli.commands.decompose import decompose
from bilens.cli.commands.demo import demo
from bilens.cli.commands.explain import explain
from bilens.cli.commands.fit import fit
from bilens.cli.commands.reproduce import reproduce
from bilens.cli.commands.trace import trace
from bilens.cli.commands.train_image import train_image
from bilens.cli.commands.train_language import train_language
from bilens.cli.commands.train_sae import train_sae
from bilens.cli.commands.train_table import train_table
from bilens.cli.console import Output
from bilens.cli.failure import INTERRUPTED, UNEXPECTED, complain, explain_error, fail, nowhere
from bilens.version import VERSION

app = typer.Typer(
    name="bilens",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command in (demo, decompose, fit, audit, certify, attack, explain, trace, convert, reproduce):
    app.command()(command)
train_app = typer.Typer(help="Train a model that can be read exactly.", no_args_is_help=True)
train_app.command("image")(train_image)
train_app.command("language")(train_language)
train_app.command("sae")(train_sae)
train_app.command("table")(train_table)
app.add_typer(train_app, name="train")


def version_callback(value: bool) -> None:
    """Print the version and stop."""
    if value:
        typer.echo(f"bilens {VERSION}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no messages.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=version_callback, is_eager=True, help="Version.")
    ] = False,
) -> None:
    """Read what an MLP computes straight from its weights.

    Results go to stdout, progress to stderr.

    Exit codes: 0 ok, 1 an audit condition failed, 2 usage,
    3 bad or unsafe file, 4 numerical failure, 5 resource limit,
    70 a fault of bilens, 130 interrupted.
    """
    context.obj = Output(quiet)


def main() -> None:
    """Run the command line; a user's mistake ends in one sentence and the right exit code."""
    # Before torch is imported: threads that wait spin for microseconds and then sleep. Spinning
    # on, as they do by default, makes work on a busy machine up to ten times slower; sleeping at
    # once makes a dense eigensolver on a quiet one up to five times slower.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        app(prog_name="bilens")
    except SystemExit as end:  # typer's end of a command, of Ctrl-C too
        if end.code == INTERRUPTED:
            fail("Interrupted.", INTERRUPTED)
        raise
    except Exception as error:
        if isinstance(error, OSError):
            sys.stdout = nowhere()  # nothing more can be written
        message, code = explain_error(error)
        if code == UNEXPECTED:
            complain("".join(traceback.format_exception(error)))
        fail(message, code)
