"""What `up`, `status` and `down` share on the command line: which instance, and the user's token."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from gpurig.common.errors import InputError
from gpurig.common.files import read_text
from gpurig.common.terminal import harmless

TOKEN_VARIABLE = "GPURIG_TOKEN"  # noqa: S105 - a name, no secret

F = TypeVar("F", bound=Callable[..., Any])


def instance_options(command: F) -> F:
    """`--name` and `--root`, which say which instance is meant."""
    command = click.option(
        "--root",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("/"),
        show_default=True,
        help="Keep etc/ and var/lib/ below this folder.",
    )(command)
    return click.option(
        "--name", default="gpurig", show_default=True, help="The instance's name, for several on one box."
    )(command)


class UserToken:
    """The user's token: from a file, standard input or the environment, else from a hidden prompt."""

    def __init__(self, token_file: str | None) -> None:
        """Read a token that is given already: one of the wrong kind is refused before anything happens.

        Args:
            token_file: a path, "-" for standard input, None for the environment or the prompt.

        Raises:
            InputError: the token is of a kind that cannot create runners; its value does not show.
        """
        from gpurig.provisioning.settings import check_token  # noqa: PLC0415 - pydantic is heavy

        self._check = check_token
        given, where = None, "--token-file"
        if token_file == "-":  # noqa: S105 - a file's name
            given = sys.stdin.read()
        elif token_file is not None:
            given = read_text(Path(token_file))
        elif os.environ.get(TOKEN_VARIABLE):
            given, where = os.environ[TOKEN_VARIABLE], TOKEN_VARIABLE
        try:
            self._known = None if given is None else check_token(given)
        except InputError as error:
            raise InputError(f"{where}: {error.message}", hint=error.hint) from error

    def get(self) -> str:
        """The token, asked for on a terminal where it is not known.

        Raises:
            InputError: nobody can be asked, or what was typed is no such token.
        """
        if self._known is None:
            if not (sys.stdin.isatty() and sys.stderr.isatty()):
                raise InputError(
                    "a GitLab token is needed to create the runner",
                    hint=f"--token-file FILE (or - for standard input), or the variable {TOKEN_VARIABLE}; "
                    "its scope is create_runner",
                )
            typed = click.prompt("GitLab token (scope create_runner)", hide_input=True, err=True)
            self._known = self._check(str(typed))
        return self._known

    def at_hand(self) -> str | None:
        """The token, where it is known."""
        return self._known


def say_step(name: str, text: str, *, to_stderr: bool = False) -> None:
    """One step's line, folded at 80 columns."""
    lines = textwrap.wrap(harmless(text), 68, break_on_hyphens=False) or [""]
    for number, line in enumerate(lines):
        click.echo(f"{name if number == 0 else '':<10}  {line}", err=to_stderr)
