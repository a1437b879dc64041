"""`up --install-missing`: doctor's fixes for this box, shown, agreed to, run and proven."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from gpurig.common.errors import InputError
from gpurig.common.process import Finished, run
from gpurig.provisioning.doctor.fixing import Fix, Hands, install_missing
from gpurig.runner.examining import looking

# Packages come over slow lines; a command that takes longer than this waits for somebody.
_TIMEOUT_S = 1800.0


def install(
    given: Mapping[str, Any],
    *,
    name: str,
    root: Path,
    token: Callable[[], str | None],
    yes: bool,
    dry_run: bool,
    say: Callable[[str, str], None],
) -> None:
    """Mend what doctor finds broken on this box and has a command for.

    Args:
        given: the options of `up`.
        name: the instance.
        root: where its files are.
        token: the user's, where it is at hand.
        yes: do not ask.
        dry_run: show, and run nothing.
        say: shows a line of the step "install".

    Raises:
        InputError: nobody can be asked. PrerequisiteError: see fixing.install_missing.
    """

    def show(fixes: Sequence[Fix]) -> None:
        for fix in fixes:
            say("install", f"{fix.finding.name}: {fix.finding.message}")
            for command in fix.commands:
                # Not folded: it is what will run, word for word.
                click.echo(f"            run: {command.text(root=True)}", err=True)
            if fix.finding.hint:
                say("", fix.finding.hint)

    def agree() -> bool:
        if yes:
            return True
        if not sys.stdin.isatty():
            raise InputError("nobody can be asked whether these commands may run", hint="--yes lets them run")
        return click.confirm("Run these commands as root?", err=True)

    def execute(argv: Sequence[str]) -> Finished:
        say("install", f"running {shlex.join(argv)}")
        # A package's questions have nobody to answer them.
        return run(argv, timeout_s=_TIMEOUT_S, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})

    with looking(given, name=name, root=root, token=token) as look:
        hands = Hands(run=execute, show=show, agree=agree, say=lambda text: say("install", text))
        install_missing(look, hands, root=os.geteuid() == 0, dry_run=dry_run)
