"""How often the GPUs are read: every second while something uses them, seldom while nothing does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from gpurig.runner.exporter.devices.figures import Figures

# How long nothing uses a GPU before they are read seldom.
IDLE_AFTER_S = 60.0


class Pace:
    """The time between two readings, the same for all GPUs; any thread may note work."""

    def __init__(
        self, busy_s: float, idle_s: float, *, idle_after_s: float = IDLE_AFTER_S, monotonic: Callable[[], float]
    ) -> None:
        """Begin busy: what is not known yet may be work.

        Args:
            busy_s: seconds between two readings while there is work.
            idle_s: the same while there is none; where it is less, `busy_s` counts.
            idle_after_s: seconds without work before there is none.
            monotonic: the clock.
        """
        self._busy_s = busy_s
        self._idle_s = max(idle_s, busy_s)
        self._idle_after_s = idle_after_s
        self._monotonic = monotonic
        self._worked_at = monotonic()
        self._wake: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    @property
    def period_s(self) -> float:
        """Seconds from the end of a reading to the start of the next, now."""
        return self._idle_s if self._idle else self._busy_s

    @property
    def _idle(self) -> bool:
        return self._monotonic() - self._worked_at >= self._idle_after_s

    def on_work(self, wake: Callable[[], None]) -> None:
        """Call `wake` when work begins after there was none."""
        self._wake.append(wake)

    def note(self, *, working: bool) -> None:
        """Say what a reading or the engine showed."""
        if not working:
            return
        with self._lock:
            was_idle = self._idle
            self._worked_at = self._monotonic()
        if was_idle:
            for wake in self._wake:
                wake()


class WorkWatch:
    """Tells from a source's readings whether something works.

    A GPU that is busy works. So does one on which a process has come or gone since the reading before: what holds
    memory and does nothing (a desktop, a model server that waits) is no work. A GPU that tells neither may be working.
    """

    def __init__(self) -> None:
        """Nothing was read yet."""
        self._pids: dict[str, frozenset[int]] = {}

    def shows_work(self, figures: Mapping[str, Figures]) -> bool:
        """Whether this reading does, after the ones before it."""
        working = False
        for uuid, now in figures.items():
            if now.lost:
                self._pids.pop(uuid, None)
                continue
            if now.processes is not None:
                pids = frozenset(one.pid for one in now.processes)
                working |= pids != self._pids.get(uuid, pids)
                self._pids[uuid] = pids
            working |= bool(now.utilization_ratio) or (now.utilization_ratio is None and now.processes is None)
        return working
