"""The one place that starts programs: no shell, a time limit, and errors that name the program."""

from __future__ import annotations

import subprocess  # noqa: TID251 - this is the one place
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpurig.common.errors import PrerequisiteError


@dataclass(frozen=True)
class Finished:
    """A program that ended by itself.

    Attributes:
        argv: what was run.
        code: its exit code; negative for a signal.
        stdout: what it printed, decoded with replacement; empty where the output was passed through.
        stderr: likewise.
    """

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str


def run(
    argv: Sequence[str],
    *,
    timeout_s: float | None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    passthrough: bool = False,
) -> Finished:
    """Run a program and wait for it; its exit code is the caller's to judge.

    Args:
        argv: the program and its arguments; secrets do not belong here, every user can list them.
        timeout_s: seconds it may take; None for a program the user watches.
        cwd: its working directory.
        env: its whole environment; the caller's where None.
        stdin: text for its standard input.
        passthrough: leave standard output and error connected to ours.

    Raises:
        PrerequisiteError: no such program, not executable, or it outlasted `timeout_s` (it is killed then).
    """
    try:
        done = subprocess.run(
            list(argv),
            check=False,
            capture_output=not passthrough,
            cwd=cwd,
            env=dict(env) if env is not None else None,
            input=stdin.encode(),
            timeout=timeout_s,
        )
    except FileNotFoundError as error:
        raise PrerequisiteError(
            f"{argv[0]} is not installed", hint=f"install it, or put it on PATH: {argv[0]}"
        ) from error
    except OSError as error:
        raise PrerequisiteError(
            f"cannot run {argv[0]}: {error.strerror}", hint="check that it is a program that this user may run"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise PrerequisiteError(
            f"{argv[0]} did not finish within {error.timeout:g} s", hint="run it by hand to see what it waits for"
        ) from error
    return Finished(
        argv=tuple(argv),
        code=done.returncode,
        stdout=(done.stdout or b"").decode(errors="replace"),
        stderr=(done.stderr or b"").decode(errors="replace"),
    )
