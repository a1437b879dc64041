"""Everything that the exporter wants to know of the box, kept up to date: the engine's jobs, and what the box tells."""

from __future__ import annotations

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

# Free space in whole MB: a change of some bytes is no news.
_MEGABYTE = 10**6


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
        socket: Path,
        paths: Paths,
        *,
        engine_dir: Path | None = None,
        say: Callable[[str], None] = lambda _line: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            socket: the engine's.
            paths: where the instance keeps its files.
            engine_dir: a folder on the file system where the engine keeps images and containers; what the engine says
                where None.
            say: called with one line when something fails or works again.
            now: Unix time.
        """
        self._api = EngineApi(socket)
        self._paths = paths
        self._engine_dir = engine_dir
        self._say = say
        self._now = now
        self._changed = threading.Event()
        self._jobs = JobWatch(EngineApi(socket), on_change=self._changed.set, say=say, now=now)
        self._known = BoxFacts(written_at=0.0)
        self._disks: dict[str, Disk] = {}
        self._problems: dict[str, str] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read_on, name="box-watch", daemon=True)
        self._parts = (
            _Part("state", 10.0, self._runners),
            _Part("jobs", 60.0, self._check),
            _Part("models-disk", 30.0, lambda: self._space("models", self._models_dir)),
            _Part("engine-disk", 30.0, lambda: self._space("engine", self._engines_dir)),
            _Part("images", 60.0, self._images),
            # A walk over a folder is dearer than the rest, and models come and go seldom.
            _Part("models", 300.0, lambda: {"model_bytes": folder_bytes(paths.models)}),
        )

    def facts(self) -> BoxFacts:
        """What is known now."""
        with self._lock:
            known = replace(self._known, disks=tuple(self._disks.values()))
            problems = {**self._problems, **self._jobs.problems}
        return replace(known, written_at=self._now(), containers=self._jobs.containers(), problems=problems)

    def start(self) -> None:
        """Watch in the background until `stop`."""
        self._jobs.start()
        self._thread.start()

    def stop(self) -> None:
        """End the threads; a reading that hangs is left to the end of the process."""
        self._stop.set()
        self.wake()
        self._jobs.stop()
        self._thread.join(2.0)

    def wake(self) -> None:
        """Let who waits go on; from any thread, and from a signal's handler."""
        self._changed.set()

    def wait(self, timeout_s: float) -> None:
        """Return when something may have changed, or after that many seconds."""
        self._changed.wait(timeout_s)
        self._changed.clear()

    def _read_on(self) -> None:
        due = dict.fromkeys(self._parts, 0.0)
        while not self._stop.is_set():
            now = time.monotonic()
            for part, at in due.items():
                if at <= now and not self._stop.is_set():
                    self._read(part)
                    due[part] = time.monotonic() + part.period_s
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
        self._changed.set()

    def _runners(self) -> dict[str, Any]:
        return {"runners": read_runners(self._paths)}

    def _check(self) -> dict[str, Any]:
        self._jobs.check()
        return {}

    def _images(self) -> dict[str, Any]:
        self._api.greet()
        runners = {str(one.get("ImageID", "")) for one in self._api.containers(f"{LABEL_ROLE}=runner")}
        return {"image_bytes": image_bytes(self._api.images(), runners)}

    def _space(self, purpose: str, folder: Callable[[], Path]) -> dict[str, Any]:
        with self._lock:
            self._disks.pop(purpose, None)
        found = disk(purpose, folder())
        with self._lock:
            self._disks[purpose] = replace(found, free_bytes=found.free_bytes // _MEGABYTE * _MEGABYTE)
        return {}

    def _models_dir(self) -> Path:
        """The folder of models, or the nearest above it that is there."""
        return next((one for one in (self._paths.models, *self._paths.models.parents) if one.is_dir()), Path("/"))

    def _engines_dir(self) -> Path:
        if self._engine_dir is not None:
            return self._engine_dir
        self._api.greet()
        return Path(self._api.root_dir() or "/")
