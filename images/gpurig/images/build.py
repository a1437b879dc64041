"""Building a planned image on an engine."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from gpurig.common.errors import ApplianceError
from gpurig.common.files import write_problem
from gpurig.common.waiting import Clock, SystemClock
from gpurig.images.build_errors import build_problem
from gpurig.images.build_events import BuildEvent, Output, StepBegan
from gpurig.images.builders import Builder, chooser
from gpurig.images.plan import BASE_ARGS, ImagePlan
from gpurig.provisioning.engine import translated

if TYPE_CHECKING:
    import docker

_TAIL_LINES = 40


@dataclass(frozen=True)
class BuiltImage:
    """An image that the engine has.

    Attributes:
        tag: its tag, as planned.
        id: its id, "sha256:…".
        built: it was built just now; False where it was there.
    """

    tag: str
    id: str
    built: bool


def ensure_image(
    client: docker.DockerClient,
    plan: ImagePlan,
    *,
    on_line: Callable[[str], None] = lambda _: None,
    on_event: Callable[[BuildEvent], None] = lambda _: None,
    choose: Callable[[ImagePlan], Builder] | None = None,
    log: Path | None = None,
    keep_log: bool = False,
    on_start: Callable[[Builder, Path], None] = lambda _builder, _log: None,
) -> BuiltImage:
    """Build the image unless the engine has one of that tag.

    An interrupted or failed build leaves no tag: the next call builds again, from the layers that were finished.

    Args:
        client: the engine.
        plan: what to build.
        on_line: called for every line of the log, harmless for a terminal.
        on_event: called for everything that happens, before its line.
        choose: says what builds it, asked only where it must be built; the best that the engine has where None.
        log: where the output is kept; None for a temporary file.
        keep_log: the temporary file stays also where the build succeeded or was interrupted.
        on_start: called with the builder and the log's path where there is something to build.

    Raises:
        PrerequisiteError: the build failed; the message has its last meaningful lines, the hint the log's path.
        InputError: the builder would leave a secret of the plan behind.
    """
    there = present(client, plan.tag)
    if there:
        return BuiltImage(tag=plan.tag, id=there, built=False)
    builder = (choose or chooser(client))(plan)
    path = log or _temporary_log(plan.tag)
    passing = log is None and not keep_log
    on_start(builder, path)
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    try:
        with LogFile(path) as file:

            def note(event: BuildEvent) -> None:
                on_event(event)
                line = file.add(event)
                if isinstance(event, Output) and event.key:
                    tail.append(event.line)
                on_line(line)

            error = builder.build(plan, note)
            if error:
                file.write(error)
    except BaseException:
        # Interrupted: no message names the temporary file, so nobody would look for it.
        if passing:
            path.unlink(missing_ok=True)
        raise
    built = "" if error else present(client, plan.tag)
    if not built:
        raise build_problem(
            plan.tag,
            error or "the engine ended the build without an image",
            tail,
            base=_missing_base(client, plan, error),
            log=str(path),
        )
    if passing:
        path.unlink(missing_ok=True)
    return BuiltImage(tag=plan.tag, id=built, built=True)


def _missing_base(client: docker.DockerClient, plan: ImagePlan, error: str) -> str:
    """Which of the images that a build begins with it failed of, if it did: the one named, else the one not there."""
    images = [image for name in BASE_ARGS if (image := plan.build_args.get(name, ""))]
    # An engine's own error may name a registry alone.
    candidates = [image for image in images if image in error] or images
    # It can be the engine that is gone.
    with contextlib.suppress(ApplianceError):
        for image in candidates:
            if not present(client, image):
                return image
    return candidates[0] if candidates else ""


def present(client: docker.DockerClient, tag: str) -> str:
    """The id of the image with that tag; "" where there is none."""
    import docker.errors  # noqa: PLC0415 - 100 ms that `--help` must not pay

    with translated("looking for the image"):
        try:
            return str(client.images.get(tag).id)
        except docker.errors.ImageNotFound:
            return ""


class LogFile:
    """A build's events as lines: a step's head, what it prints behind its place, how it ended."""

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        """Write to `path`, counting the seconds of steps by `clock`; by the machine's own where None.

        Raises:
            PrerequisiteError: it cannot be written.
        """
        self._path = path
        self._clock = clock or SystemClock()
        self._began: dict[str, tuple[str, float]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise write_problem(path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def add(self, event: BuildEvent) -> str:
        """Write the line of an event; the line.

        Raises:
            PrerequisiteError: it cannot be written.
        """
        line = self._line(event)
        self.write(line)
        return line

    def write(self, line: str) -> None:
        """Write a line as it is.

        Raises:
            PrerequisiteError: it cannot be written.
        """
        try:
            self._stream.write(line + "\n")
        except OSError as error:
            raise write_problem(self._path, error) from error

    def _line(self, event: BuildEvent) -> str:
        if isinstance(event, StepBegan):
            self._began[event.key] = (event.place or event.title, self._clock.monotonic())
            return f"[{event.place}] {event.title}" if event.place else f"[{event.title}]"
        if isinstance(event, Output) and not event.key:
            return event.line
        place, since = self._began.get(event.key, (event.key, self._clock.monotonic()))
        if isinstance(event, Output):
            return f"{place} | {event.line}"
        return f"[{place}] {event.outcome}, {self._clock.monotonic() - since:.1f} s"


def _temporary_log(tag: str) -> Path:
    """A new, empty file for the log of a build."""
    descriptor, name = tempfile.mkstemp(prefix=f"{tag.replace(':', '-')}-", suffix=".log")
    os.close(descriptor)
    return Path(name)
