"""The program `bilens`: its commands, how it runs them, and how one that fails ends."""

import os
import shlex
import shutil
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated, Any, ClassVar, NoReturn, TextIO

import typer

from bilens.base.errors import BilensError, Retry, UsageError
from bilens.cli.command_group import CommandGroup
from bilens.cli.commands.audit import audit
from bilens.cli.commands.convert import convert
from bilens.cli.commands.decompose import decompose
from bilens.cli.commands.explain import explain
from bilens.cli.commands.fit import fit
from bilens.cli.commands.image import demo, train_image
from bilens.cli.commands.inspect import inspect
from bilens.cli.commands.language import train_language, train_sae
from bilens.cli.commands.push import push
from bilens.cli.commands.read import read
from bilens.cli.commands.robustness import attack, certify
from bilens.cli.commands.sweep import sweep
from bilens.cli.commands.trace import trace
from bilens.cli.commands.train_table import train_table
from bilens.cli.commands.watch import watch
from bilens.cli.console import Output
from bilens.cli.options import Command, Quiet, Verbose, expand
from bilens.version import VERSION

LIMIT, UNEXPECTED, INTERRUPTED = 5, 70, 130  # 70 is EX_SOFTWARE of sysexits.h
NARROW = 72  # columns
TOGETHER = (("train", "language"), ("train", "sae"), ("convert", "bilinear"))  # several processes


class Commands(CommandGroup):
    """The commands of bilens, in the order of the help."""

    functions: ClassVar[list[Command]] = [demo, inspect, decompose, fit, audit, certify, attack]
    functions += [explain, trace, read, convert, push, sweep, watch]


app = typer.Typer(
    name="bilens",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
train_app = typer.Typer(help="Train a model that can be read exactly.", no_args_is_help=True)
for training in (train_image, train_language, train_sae, train_table):
    train_app.command(training.__name__.removeprefix("train_"))(expand(training))
app.add_typer(train_app, name="train")


def version_callback(value: bool) -> None:
    if value:
        typer.echo(f"bilens {VERSION}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    quiet: Quiet = False,
    verbose: Verbose = False,
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
    context.ensure_object(Output).set_flags(quiet, verbose)


def main() -> None:
    """Run the command line; a user's mistake ends in one sentence and the right exit code."""
    # Before torch is imported: threads that wait spin for microseconds and then sleep. Spinning
    # on, as they do by default, makes work on a busy machine up to ten times slower; sleeping at
    # once makes a dense eigensolver on a quiet one up to five times slower.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Closed, as by `>&-`: a result would be lost, and a file take its number.
    if sys.stdout is None:
        fail("stdout is closed, and the result goes there: leave it open, or to /dev/null.", LIMIT)
    output = Output()
    try:
        interrupt_on_signals()
        refuse_bytes(sys.argv)
        if "RANK" in os.environ:  # of torchrun; torch is not imported for less
            from bilens.train.processes import read_launch

            rank, world, _ = read_launch()
            output.first, output.messages.quiet = rank == 0, rank > 0
            refuse_several(sys.argv[1:], world)
        app(prog_name="bilens", obj=output, **narrow())
    except SystemExit as end:  # typer's end of a command, of Ctrl-C too
        if end.code == INTERRUPTED and output.first:
            fail("Interrupted.", INTERRUPTED)
        raise
    except Exception as error:
        if isinstance(error, OSError):
            sys.stdout = nowhere()  # nothing more can be written
        message, code = explain_error(error)
        told = getattr(error, "told", None)  # by another process
        if told or (told is None and not output.first and code != UNEXPECTED):
            sys.exit(code)
        if code == UNEXPECTED or output.verbose:
            complain("".join(traceback.format_exception(error)))
        fail(message, code)


def narrow() -> dict[str, int]:
    """Print no tables of help, which would be cut, on a narrow terminal; return its width."""
    columns = shutil.get_terminal_size().columns
    app.rich_markup_mode = "rich" if columns >= NARROW else None
    return {} if columns >= NARROW else {"terminal_width": columns}


def interrupt_on_signals() -> None:
    """Let a signal to end, or a terminal that goes, do what Ctrl-C does."""

    def interrupt(_number: int, frame: FrameType | None) -> None:
        handler = signal.getsignal(signal.SIGINT)  # that of a training, while there is one
        if not callable(handler):
            raise KeyboardInterrupt
        handler(signal.SIGINT, frame)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores it
            signal.signal(number, interrupt)


def refuse_bytes(arguments: list[str]) -> None:
    """Refuse arguments that are no text: results and provenance name them."""
    for argument in arguments:
        try:
            argument.encode("utf-8")
        except UnicodeEncodeError:
            raise UsageError(
                f"{argument!r} is not UTF-8; results name files and options as text: rename it."
            ) from None


def refuse_several(arguments: list[str], world: int) -> None:
    """Refuse to do with several processes what one does."""
    words = [word for one in arguments if not (word := one.removeprefix("--to=")).startswith("-")]
    known = [words[:1] == [first] and second in words[1:] for first, second in TOGETHER]
    if world > 1 and not any(known):
        raise UsageError(
            f"{' '.join(['bilens', *words[:1]])} is the work of one process: start it without "
            "torchrun, which is for bilens train language, train sae and convert --to bilinear."
        )


def explain_error(error: Exception) -> tuple[str, int]:
    """Return the sentence for an error that ends a command, and the exit code."""
    if isinstance(error, BilensError):
        instead = ", or: ".join(map(command_instead, error.retries))
        return f"{error.sentence} Run: {instead}" if instead else str(error), error.exit_code
    out_of_memory = isinstance(error, RuntimeError) and "allocate memory" in str(error)  # torch's
    if out_of_memory or isinstance(error, MemoryError):
        return "out of memory: use a smaller model or free some memory.", LIMIT
    if isinstance(error, OSError):
        reason = error.strerror or error
        return f"the result cannot be written ({reason}): free some space.", LIMIT
    return "this is a fault of bilens: please report it with the lines above.", UNEXPECTED


def command_instead(retry: Retry) -> str:
    """Return the line to run instead: this command with more options, or `fit` with all."""
    command: Any = typer.main.get_command(app)
    for word in sys.argv[1:]:
        command = getattr(command, "commands", {}).get(word, command)
    command = getattr(command, "built", command)
    known = {text for each in command.params for text in (*each.opts, *each.secondary_opts)}
    instead, asked = retry.path or retry.given, retry.options()
    words = ["fit", instead]
    if retry.given in sys.argv and known.issuperset(option for option, *_ in asked):
        words = [instead if word == retry.given else word for word in sys.argv[1:]]
    there = {word.partition("=")[0] for word in words}
    words += [part for option in asked if option[0] not in there for part in option]
    return shlex.join(["bilens", *words])


def fail(message: str, code: int) -> NoReturn:
    complain(f"error: {message}\n")
    sys.exit(code)


def complain(text: str) -> None:
    """Print a text on stderr; where it is full or closed, the exit code alone must do."""
    try:
        typer.echo(text, err=True, nl=False)
    except OSError:
        sys.stderr = nowhere()  # Python would try again at the end, and change the exit code


def nowhere() -> TextIO:
    return open(os.devnull, "w")  # noqa: PTH123 - open until the process ends
