"""The watcher: it follows the engine and the box, and writes what the exporter may know into one file."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from gpurig.common.errors import ApplianceError, PrerequisiteError
from gpurig.common.files import make_directory
from gpurig.provisioning.paths import Paths
from gpurig.runner.exporter.ending import told_to_end
from gpurig.runner.exporter.jobs.box_file import HEARTBEAT_S, BoxWriter
from gpurig.runner.exporter.jobs.box_watch import ENGINE, BoxWatch

# Many containers may end at once; what happens within this time is one writing.
_SETTLE_S = 0.1


def watch(
    path: Path,
    *,
    socket: Path,
    paths: Paths,
    engine_dir: Path | None,
    say: Callable[[str], None],
    patience_s: float | None = None,
) -> None:
    """Watch until SIGTERM or SIGINT.

    Args:
        path: the file.
        socket: the engine's.
        paths: where the instance keeps its files.
        engine_dir: see BoxWatch.
        say: called with one line when something fails or works again.
        patience_s: seconds for which the engine may be silent; None for ever.

    Raises:
        PrerequisiteError: the file cannot be written at the start; later that is said, and tried again. Or the engine
            was silent for too long.
    """
    writer = BoxWriter(path)
    watched = BoxWatch(socket, paths, engine_dir=engine_dir, say=say)
    make_directory(path.parent)
    writer.write(watched.facts())
    with ExitStack() as stack:
        ended = stack.enter_context(told_to_end(watched.wake))
        watched.start()
        stack.callback(watched.stop)
        say(f"watching {socket}, writing {path}")
        _write_on(writer, watched, ended, say, patience_s)
        say("ending")


def _write_on(
    writer: BoxWriter, watched: BoxWatch, ended: threading.Event, say: Callable[[str], None], patience_s: float | None
) -> None:
    problem = ""
    heard_at = time.monotonic()
    while not ended.is_set():
        watched.wait(HEARTBEAT_S if patience_s is None else min(HEARTBEAT_S, patience_s))
        if ended.wait(_SETTLE_S):
            return
        facts = watched.facts()
        if ENGINE not in facts.problems:
            heard_at = time.monotonic()
        elif patience_s is not None and time.monotonic() - heard_at > patience_s:
            raise PrerequisiteError(
                f"the engine was silent for {patience_s:g} s: {facts.problems[ENGINE]}",
                hint="check that it runs: docker version",
            )
        try:
            writer.write(facts)
        except ApplianceError as error:
            if error.message != problem:
                problem = error.message
                say(problem)
            time.sleep(_SETTLE_S)
        else:
            if problem:
                problem = ""
                say("writes again")
