"""The commands of the program, each built when it runs or when its options are asked for.

Beside those of bilens stand the commands that other distributions bring: entry points of the group
`bilens.commands`, functions as those of `cli/commands/` are. The help lists them by the summary of
their distribution, without importing them.
"""

import re
from collections.abc import Callable
from functools import cached_property, partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar

import typer
from typer.core import MarkupMode, TyperCommand, TyperGroup

from bilens.base.errors import MissingExtraError, UsageError, first_line
from bilens.cli.options import Command, expand

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINTS = "bilens.commands"
SATELLITES = {
    "reproduce": "bilens-studies",
    "serve": "bilens-explorer",
}  # commands of bilens that are installed apart


class DeferredCommand(TyperCommand):
    """The place of a command in the list until it is built."""

    def __init__(
        self, name: str, text: str | None, load: Callable[[], Command], markup: MarkupMode
    ) -> None:
        super().__init__(name, help=text)
        self.load, self.markup = load, markup

    @cached_property
    def built(self) -> Any:
        """The command itself."""
        alone = typer.Typer(rich_markup_mode=self.markup, add_completion=False)
        alone.command(self.name)(self.load())
        return typer.main.get_command(alone)

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        """Parse the command line with the options of the command itself, which then runs.

        An empty value, as of a variable that is not set, would stand for the current folder.
        """
        words = more["args"] if "args" in more else arguments[1]
        if empty := [word for word in words if re.fullmatch(r"(--[\w-]+=)?", word)]:
            raise UsageError(
                f"an argument of `bilens {self.name}` is empty{empty[0] and f', {empty[0]}'}: is a "
                "variable of the shell not set? The current folder is written as a dot."
            )
        return self.built.make_context(*arguments, **more)


class CommandGroup(TyperGroup):
    """The commands of bilens and, behind them, those that are installed; none is replaced."""

    functions: ClassVar[list[Command]] = []  # of bilens itself

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        others, self.commands = self.commands, {}
        for function in self.functions:
            self.add_deferred(function.__name__, function.__doc__, partial(for_typer, function))
        self.commands.update(others)

    def add_deferred(self, name: str, text: str | None, load: Callable[[], Command]) -> None:
        self.commands[name] = DeferredCommand(name, text, load, self.rich_markup_mode)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands."""
        self.find_installed_commands()
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of a name; what is installed is looked for where there is none."""
        if cmd_name not in self.commands:
            self.find_installed_commands()
        found = super().get_command(ctx, cmd_name)
        if found is None and cmd_name in SATELLITES:
            raise MissingExtraError(SATELLITES[cmd_name], "", f"bilens {cmd_name}")
        return found

    def find_installed_commands(self) -> None:
        """Add the commands of all entry points under their names."""
        from importlib.metadata import entry_points  # 15 ms, which most commands do not need

        for entry in sorted(entry_points(group=ENTRY_POINTS), key=attrgetter("name")):
            if entry.name not in self.commands:
                about = entry.dist.metadata.json if entry.dist else {}
                text = str(about.get("summary") or f"From {entry.value}.")
                self.add_deferred(entry.name, text, partial(import_command, entry))


def for_typer(function: Command) -> Command:
    """Return a command as typer takes it; what `expand` made is one already."""
    return function if hasattr(function, "__signature__") else expand(function)


def import_command(entry: "EntryPoint") -> Command:
    """Return the command of an entry point.

    Raises: UsageError if it cannot be imported.
    """
    source = entry.dist.name if entry.dist else entry.value
    try:
        function = entry.load()
    except Exception as error:
        raise UsageError(
            f"the command {entry.name!r} of {source} cannot be imported ({first_line(error)}): "
            f"install {source} again, or uninstall it."
        ) from error
    return for_typer(function)


def build_all_commands(app: typer.Typer) -> Any:
    """Return the group of a program with every command built, installed ones too."""
    group: Any = typer.main.get_command(app)
    group.find_installed_commands()
    for name, command in group.commands.items():
        group.commands[name] = getattr(command, "built", command)
    return group
