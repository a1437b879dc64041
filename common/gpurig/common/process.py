"""The one place that starts programs: no shell, a time limit, and errors that name the program."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess  # noqa: TID251 - this is the one place
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

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
        with _startable(argv[0]):
            done = subprocess.run(
                list(argv),
                check=False,
                capture_output=not passthrough,
                cwd=cwd,
                env=dict(env) if env is not None else None,
                input=stdin.encode(),
                timeout=timeout_s,
            )
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


# A line without an end must not fill the memory.
_LONGEST_LINE = 2**16
_MERCY_S = 10.0


def stream(
    argv: Sequence[str],
    *,
    on_line: Callable[[str], None],
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
) -> int:
    """Run a program, hand over every line that it prints, and wait for it.

    Whatever `on_line` raises, Ctrl-C included, ends the program: it is asked to end, and killed after 10 s.

    Args:
        argv: the program and its arguments, without secrets.
        on_line: called for each line of standard output and error together, as they come, without its end.
        stdin: bytes for its standard input.
        env: its whole environment; the caller's where None.

    Returns:
        Its exit code; negative for a signal.

    Raises:
        PrerequisiteError: no such program, or not executable.
    """
    with _startable(argv[0]):
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(env) if env is not None else None,
        )
    with process:
        # Beside reading: a program that prints before it has read everything would wait for us, and we for it.
        feeder = threading.Thread(target=_feed, args=(process.stdin, stdin), daemon=True)
        feeder.start()
        try:
            for line in _lines(process.stdout):
                on_line(line)
            return process.wait()
        except BaseException:
            process.terminate()
            try:
                process.wait(_MERCY_S)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
        finally:
            process.wait()
            feeder.join()


def attend(argv: Sequence[str], *, env: Mapping[str, str], needed: Callable[[], bool]) -> int:
    """Run a program on our own terminal, and wait for it; signals that ask us to end reach it.

    To be called in the main thread. A terminal's Ctrl-C is sent to the program by the terminal itself, and not once
    more by us; a second one is.

    Args:
        argv: the program and its arguments, without secrets.
        env: its whole environment.
        needed: asked every half second; the program is ended where this is no longer true.

    Returns:
        Its exit code; 128 and the signal's number where a signal ended it, as a shell says it.

    Raises:
        PrerequisiteError: no such program, or not executable.
    """
    started: list[subprocess.Popen[bytes]] = []
    told: list[int] = []

    def forward(number: int, _: object) -> None:
        twice = number in told
        told.append(number)
        if started and (twice or number != signal.SIGINT or not _in_foreground()):
            started[0].send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with _startable(argv[0]):
            process = subprocess.Popen(list(argv), env=dict(env))
        started.append(process)
        for number in told:
            process.send_signal(number)
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(0.5)
                    return code if code >= 0 else 128 - code
                if not needed():
                    break
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_MERCY_S)
        finally:
            if process.poll() is None:
                process.kill()
            code = process.wait()
        return code if code >= 0 else 128 - code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    """Whether a terminal sends its Ctrl-C to our process group, and so to the programs that we start."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _lines(stream: IO[bytes] | None) -> Iterator[str]:
    while stream is not None and (line := stream.readline(_LONGEST_LINE)):
        yield line.decode(errors="replace").rstrip("\r\n")


def _feed(pipe: IO[bytes] | None, data: bytes) -> None:
    # A program may end without having read it all.
    with contextlib.suppress(OSError):
        if pipe is not None:
            with pipe:
                pipe.write(data)


@contextlib.contextmanager
def _startable(program: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise PrerequisiteError(
            f"{program} is not installed", hint=f"install it, or put it on PATH: {program}"
        ) from error
    except OSError as error:
        raise PrerequisiteError(
            f"cannot run {program}: {error.strerror}", hint="check that it is a program that this user may run"
        ) from error
