"""Everything that the exporter wants to know of the box, kept up to date: the engine's jobs, and what the box tells."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpurig.provisioning.container_spec import LABEL_ROLE
from gpurig.provisioning.paths import Paths
from gpurig.runner.exporter.devices.figures import SourceError
from gpurig.runner.exporter.jobs.box_reading import disk, folder_bytes, image_bytes, read_runners
from gpurig.runner.exporter.jobs.engine_api import EngineApi
from gpurig.runner.exporter.jobs.model import BoxFacts, Disk
from gpurig.runner.exporter.jobs.watch import JobWatch

# The source that the engine's own problem goes by.
ENGINE = "engine"
# Free space in whole MB: a change of some bytes is no news.
_MEGABYTE = 10**6
# How long a start waits for what there is to know.
_FIRST_S = 3.0


@dataclass(frozen=True)
class _Part:
    """One thing that is read now and then.

    Attributes:
        name: its name among the problems.
        period_s: seconds from one reading to the next.
        read: gives the facts that it changes, by their names in BoxFacts.
    """

    name: str
    period_s: float
    read: Callable[[], dict[str, Any]]


class BoxWatch:
    """Follows the engine and reads the box in threads of its own; `facts` never waits for either."""

    def __init__(
        self,
        socket: Path | None,
        paths: Paths,
        *,
        engine_dir: Path | None = None,
        say: Callable[[str], None] = lambda _line: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            socket: the engine's; None to watch the box alone.
            paths: where the instance keeps its files.
            engine_dir: a folder on the file system where the engine keeps images and containers; what the engine says
                where None.
            say: called with one line when something fails or works again.
            now: Unix time.
        """
        self._paths = paths
        self._engine_dir = engine_dir
        self._say = say
        self._now = now
        # A signal's handler may put something in while the same thread takes something out, which an Event forbids.
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._known = BoxFacts(written_at=0.0)
        self._disks: dict[str, Disk] = {}
        self._problems: dict[str, str] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._read_once = threading.Event()
        self._thread = threading.Thread(target=self._read_on, name="box-watch", daemon=True)
        self._jobs: JobWatch | None = None
        self._parts = [
            _Part("state", 10.0, lambda: {"runners": read_runners(paths)}),
            _Part("models-disk", 30.0, lambda: self._space("models", _nearest(paths.models))),
            # A walk over a folder is dearer than the rest, and models come and go seldom.
            _Part("models", 300.0, lambda: {"model_bytes": folder_bytes(paths.models)}),
        ]
        if socket is not None:
            self._follow(socket)

    def _follow(self, socket: Path) -> None:
        api = EngineApi(socket)
        jobs = JobWatch(EngineApi(socket), on_change=self.wake, say=self._say, now=self._now)

        def check() -> dict[str, Any]:
            jobs.check()
            return {}

        def images() -> dict[str, Any]:
            api.greet()
            runners = {str(one.get("ImageID", "")) for one in api.containers(f"{LABEL_ROLE}=runner")}
            return {"image_bytes": image_bytes(api.images(), runners)}

        def space() -> dict[str, Any]:
            if self._engine_dir is not None:
                return self._space("engine", self._engine_dir)
            api.greet()
            return self._space("engine", Path(api.root_dir() or "/"))

        self._jobs = jobs
        self._parts += [
            _Part(ENGINE, 60.0, check),
            _Part("images", 60.0, images),
            _Part("engine-disk", 30.0, space),
        ]

    def facts(self) -> BoxFacts:
        """What is known now."""
        with self._lock:
            known = replace(self._known, disks=tuple(self._disks.values()))
            problems = dict(self._problems)
        sources = [part.name for part in self._parts]
        if self._jobs is not None:
            problems |= self._jobs.problems
            sources.append("logs")
            known = replace(known, containers=self._jobs.containers())
        return replace(known, written_at=self._now(), sources=tuple(sorted(sources)), problems=problems)

    def start(self) -> None:
        """Watch in the background until `stop`; what is known within some seconds is known when it returns."""
        self._thread.start()
        if self._jobs is not None:
            self._jobs.start()
            self._jobs.wait_first(_FIRST_S)
        self._read_once.wait(_FIRST_S)

    def stop(self) -> None:
        """End the threads; a reading that hangs is left to the end of the process."""
        self._stop.set()
        self.wake()
        if self._jobs is not None:
            self._jobs.stop()
        self._thread.join(2.0)

    def wake(self) -> None:
        """Let who waits go on; from any thread, and from a signal's handler."""
        if self._news.empty():
            self._news.put(None)

    def wait(self, timeout_s: float) -> None:
        """Return when something may have changed, or after that many seconds."""
        with contextlib.suppress(queue.Empty):
            self._news.get(timeout=timeout_s)
            while True:
                self._news.get_nowait()

    def _read_on(self) -> None:
        due = dict.fromkeys(self._parts, 0.0)
        while not self._stop.is_set():
            now = time.monotonic()
            for part, at in due.items():
                if at <= now and not self._stop.is_set():
                    self._read(part)
                    due[part] = time.monotonic() + part.period_s
            self._read_once.set()
            self._stop.wait(max(0.1, min(due.values()) - time.monotonic()))

    def _read(self, part: _Part) -> None:
        found: dict[str, Any] = {}
        problem = ""
        try:
            found = part.read()
        except (SourceError, OSError, ValueError) as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - one part that is broken must not end the others
            problem = f"{type(error).__name__}: {error}"
        with self._lock:
            before = self._problems.pop(part.name, "")
            self._known = replace(self._known, **found)
            if problem:
                self._problems[part.name] = problem
        if problem != before:
            self._say(f"{part.name}: {problem or 'works again'}")
        self.wake()

    def _space(self, purpose: str, folder: Path) -> dict[str, Any]:
        with self._lock:
            self._disks.pop(purpose, None)
        found = disk(purpose, folder)
        with self._lock:
            self._disks[purpose] = replace(found, free_bytes=found.free_bytes // _MEGABYTE * _MEGABYTE)
        return {}


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next((one for one in (folder, *folder.parents) if one.is_dir()), Path("/"))
