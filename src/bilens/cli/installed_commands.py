"""Commands that other distributions bring: entry points of the group `bilens.commands`.

A command is a function as those of `cli/commands/` are. The help lists it by the summary of its
distribution, without importing it; it is imported when it runs, or when its options are asked for.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Any

import typer
from typer.core import MarkupMode, TyperCommand, TyperGroup

from bilens.base.errors import MissingExtraError, UsageError, first_line
from bilens.cli.options import expand

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINTS = "bilens.commands"
SATELLITES = {"reproduce": "bilens-studies"}  # commands of bilens that are installed apart


class InstalledCommand(TyperCommand):
    """The place of a command in the list until it is imported."""

    def __init__(self, entry: "EntryPoint", markup: MarkupMode) -> None:
        self.entry, self.markup = entry, markup
        self.source = entry.dist.name if entry.dist else entry.value
        summary = entry.dist.metadata.json.get("summary") if entry.dist else None
        super().__init__(entry.name, short_help=str(summary or f"From {self.source}."))

    @cached_property
    def imported(self) -> Any:
        """The command itself.

        Raises: UsageError if it cannot be imported.
        """
        try:
            function = self.entry.load()
        except Exception as error:
            raise UsageError(
                f"the command {self.entry.name!r} of {self.source} cannot be imported "
                f"({first_line(error)}): install {self.source} again, or uninstall it."
            ) from error
        alone = typer.Typer(rich_markup_mode=self.markup, add_completion=False)
        alone.command(self.entry.name)(expand(function))
        return typer.main.get_command(alone)

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        """Parse the command line with the options of the command itself, which then runs."""
        return self.imported.make_context(*arguments, **more)


class CommandGroup(TyperGroup):
    """The commands of bilens and, behind them, those that are installed; none is replaced."""

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

        for entry in entry_points(group=ENTRY_POINTS):
            if entry.name not in self.commands:
                self.commands[entry.name] = InstalledCommand(entry, self.rich_markup_mode)


def import_all_commands(app: typer.Typer) -> Any:
    """Return the group of a program with every installed command imported."""
    group: Any = typer.main.get_command(app)
    group.find_installed_commands()
    for name, command in group.commands.items():
        group.commands[name] = getattr(command, "imported", command)
    return group
