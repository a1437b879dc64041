"""A click group whose commands are imported when they are called, so that `--help` stays fast."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

import click


@dataclass(frozen=True)
class LazyCommand:
    """Where a command lives.

    Attributes:
        target: "module:attribute" of the click command.
        summary: its line in the group's help; a test holds it against the command's own.
    """

    target: str
    summary: str


class LazyGroup(click.Group):
    """A group that imports a command's module only to run it or to show its own help."""

    def __init__(self, *, lazy: Mapping[str, LazyCommand], **attributes: object) -> None:
        """Take the commands in the order in which help shall list them."""
        super().__init__(**attributes)  # type: ignore[arg-type]  # click's own keywords
        self.lazy = dict(lazy)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order given."""
        return [*self.lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        entry = self.lazy.get(cmd_name)
        if entry is None:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = entry.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry.target} is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by their given summaries: nothing is imported."""
        rows = [(name, entry.summary) for name, entry in self.lazy.items()]
        rows += [
            (name, command.get_short_help_str())
            for name in super().list_commands(ctx)
            if (command := super().get_command(ctx, name)) is not None
        ]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)
