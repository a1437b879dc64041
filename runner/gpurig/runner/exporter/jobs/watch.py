"""Following the engine's events: which containers of CI jobs run, and what they ended with.

gitlab-runner removes a job's containers soon after they ended, so each is asked about at once. What is gone by then has
the exit code that the event told, and the host's memory as its end where an `oom` event came; what it wrote is lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from gpurig.runner.exporter.jobs.containers import JOB_LABEL, KEEP_S, JobContainers, job_of, may_be_gpu_oom
from gpurig.runner.exporter.jobs.engine_api import EngineApi, EngineError, EventStream, GoneError
from gpurig.runner.exporter.jobs.gpu_oom import gpu_oom
from gpurig.runner.exporter.jobs.model import JobContainer, OomKind

_ACTIONS = ("start", "die", "oom", "destroy")
# A job's output and its errors come by two pipes: what was written last may stand far before the end.
_TAIL_LINES = 2000
_TAIL_BYTES = 256 * 1024
# Events of containers that are told late, out of order, come again after a break.
_OVERLAP_NS = 2 * 10**9
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 15.0


class JobWatch:
    """Follows one engine in a thread of its own, through its restarts."""

    def __init__(
        self,
        api: EngineApi,
        *,
        on_change: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda _line: None,
        now: Callable[[], float] = time.time,
        first_wait_s: float = _FIRST_WAIT_S,
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            api: the engine.
            on_change: called from the thread after each change.
            say: called with one line when the engine is lost or found again.
            now: Unix time.
            first_wait_s: seconds to the second attempt; it doubles up to 15.
        """
        self._api = api
        self._on_change = on_change
        self._say = say
        self._now = now
        self._first_wait_s = self._wait_s = first_wait_s
        self._containers = JobContainers()
        self._lock = threading.Lock()
        self._since_ns: int | None = None
        # Containers that ended long ago and are still there: nobody needs to be told of them, or to ask again.
        self._old: frozenset[str] = frozenset()
        self._stream: EventStream | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._problem = "the engine was not asked yet"
        self._log_problem = ""
        self._looked = threading.Event()

    def wait_first(self, timeout_s: float) -> None:
        """Return when the engine was asked for the first time, or after that many seconds."""
        self._looked.wait(timeout_s)

    @property
    def problems(self) -> Mapping[str, str]:
        """What does not work now: "engine" itself, "logs" of its containers."""
        found = {"engine": self._problem, "logs": self._log_problem}
        return {name: text for name, text in found.items() if text}

    def containers(self) -> tuple[JobContainer, ...]:
        """The containers of jobs that run, and of those that ended in the last minutes."""
        with self._lock:
            return self._containers.told(self._now())

    def start(self) -> None:
        """Follow in the background until `stop`."""
        self._thread = threading.Thread(target=self._run, name="job-watch", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """End the background thread."""
        self._stop.set()
        self._break()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def check(self) -> None:
        """Hold what is known against what the engine has; an engine that hangs, or lost its stream, is asked anew."""
        if self._problem:
            return
        try:
            self._list()
        except EngineError as error:
            self._failed(error)
            self._break()

    def _break(self) -> None:
        stream = self._stream
        if stream is not None:
            stream.wake()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except EngineError as error:
                self._failed(error)
            except Exception as error:  # noqa: BLE001 - an answer that nobody foresaw must not end the watch unseen
                self._failed(EngineError(f"{type(error).__name__}: {error}"))
            if self._stop.wait(self._wait_s):
                return
            self._wait_s = min(self._wait_s * 2, _LONGEST_WAIT_S)

    def _failed(self, error: EngineError) -> None:
        if not self._stop.is_set() and str(error) != self._problem:
            self._problem = str(error)
            self._say(f"the engine cannot be followed: {error}")
            self._on_change()
        self._looked.set()

    def _follow(self) -> None:
        version = self._api.greet()
        if self._since_ns is None:
            self._since_ns = int(self._now() * 1e9)
        stream = self._api.events(since_ns=self._since_ns - _OVERLAP_NS, label=JOB_LABEL, actions=_ACTIONS)
        self._stream = stream
        try:
            # The stream is open before the list is made: what happens from here on is in one of them.
            self._list()
            self._wait_s = self._first_wait_s
            if self._problem:
                self._problem = ""
                self._say(f"the engine is followed (API {version})")
            self._looked.set()
            self._on_change()
            for event in stream:
                if self._stop.is_set():
                    return
                self._apply(event)
                self._on_change()
        finally:
            self._stream = None
            stream.close()
        raise EngineError("the engine ended its events")

    def _list(self) -> None:
        asked_at = self._now()
        present: set[str] = set()
        for summary in self._api.containers(JOB_LABEL):
            container_id = str(summary.get("Id", ""))
            labels = summary.get("Labels")
            present.add(container_id)
            if isinstance(labels, dict) and job_of(labels) is not None:
                self._listed(container_id, labels, str(summary.get("State", "")))
        with self._lock:
            self._containers.only(present, asked_at)
            self._old &= present

    def _listed(self, container_id: str, labels: Mapping[str, object], status: str) -> None:
        with self._lock:
            known, runs = self._containers.get(container_id), self._containers.runs(container_id)
            old = container_id in self._old
        has_ended = status in {"exited", "dead"}
        if status == "created" or (known is not None and runs != has_ended) or (old and has_ended):
            return
        try:
            state = _state(self._api.inspect(container_id))
        except GoneError:
            return
        began = _time(state.get("StartedAt"))
        if began is None:
            return
        ended = _time(state.get("FinishedAt"))
        if state.get("Running") or ended is None or ended < began:
            ended = None
        with self._lock:
            if ended is not None and self._now() - ended > KEEP_S:
                self._old |= {container_id}
                return
            self._containers.started(container_id, labels, began)
        if ended is not None:
            self._ended(container_id, ended, _code(state.get("ExitCode")))

    def _apply(self, event: Mapping[str, Any]) -> None:
        actor = event.get("Actor")
        if not isinstance(actor, dict) or not isinstance(actor.get("Attributes"), dict):
            return
        container_id, attributes = str(actor.get("ID", "")), actor["Attributes"]
        nanoseconds = event.get("timeNano")
        if not isinstance(nanoseconds, int):
            return
        self._since_ns = max(nanoseconds, self._since_ns or nanoseconds)
        at = nanoseconds / 1e9
        match event.get("Action"):
            case "start":
                with self._lock:
                    self._containers.started(container_id, attributes, at)
            case "oom":
                with self._lock:
                    self._containers.starved(container_id)
            case "die":
                self._ended(container_id, at, _code(attributes.get("exitCode")))
            case "destroy":
                with self._lock:
                    if self._containers.runs(container_id):
                        self._containers.ended(container_id, at, None)

    def _ended(self, container_id: str, at: float, code: int | None) -> None:
        """Ask what it died of, at once: soon it is removed."""
        with self._lock:
            known, run_at = self._containers.get(container_id), self._containers.run_at(container_id)
        oom: OomKind | None = None
        detail = ""
        if code and known is not None and known.exit_code is None:
            oom, detail = self._cause(known, run_at, code)
        with self._lock:
            self._containers.ended(container_id, at, code, oom=oom, detail=detail)

    def _cause(self, container: JobContainer, run_at: float, code: int) -> tuple[OomKind | None, str]:
        """Which memory it lacked, and the message that says so; a call that fails is made once more."""
        problem = ""
        for _ in range(2):
            try:
                found = self._look(container, run_at, code)
            except GoneError:
                break
            except EngineError as error:
                # Also where the engine's log driver keeps nothing that can be read.
                problem = str(error)
            else:
                self._log_problem = ""
                return found
        self._log_problem = problem
        return None, ""

    def _look(self, container: JobContainer, run_at: float, code: int) -> tuple[OomKind | None, str]:
        described = self._api.inspect(container.id)
        if _state(described).get("OOMKilled"):
            return "host", ""
        if not may_be_gpu_oom(container, code):
            return None, ""
        config = described.get("Config")
        tail = self._api.log_tail(
            container.id,
            # What an earlier run wrote is not searched again.
            since_s=run_at - 1,
            tty=bool(config.get("Tty")) if isinstance(config, dict) else False,
            lines=_TAIL_LINES,
            most_bytes=_TAIL_BYTES,
        )
        detail = gpu_oom(tail)
        return ("gpu", detail) if detail else (None, "")


def _state(described: Mapping[str, Any]) -> Mapping[str, Any]:
    state = described.get("State")
    return state if isinstance(state, dict) else {}


def _code(value: object) -> int | None:
    text = str(value)
    return int(text) if text.isdecimal() and len(text) < 6 else None


def _time(value: object) -> float | None:
    """Go's RFC 3339 time, with nanoseconds, as Unix time; None for its zero, which means never."""
    text = str(value)
    if text.startswith("0001-"):
        return None
    head, dot, rest = text.partition(".")
    if dot:
        digits = len(rest) - len(rest.lstrip("0123456789"))
        text = f"{head}.{rest[:digits][:6].ljust(6, '0')}{rest[digits:]}"
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
