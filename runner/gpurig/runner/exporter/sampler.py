"""Reading in the background, so that a scrape only looks at memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from gpurig.common.terminal import harmless
from gpurig.runner.exporter.devices.figures import SourceError

T = TypeVar("T")


@dataclass(frozen=True)
class Sample(Generic[T]):
    """What is known of a source.

    Attributes:
        value: the last successful reading; None before the first.
        ok: the last attempt succeeded.
        error: why it did not.
        duration_s: seconds the last attempt took.
        value_at: when `value` was read, on the monotonic clock; None before.
        tried_at: when the last attempt ended, on the same clock; None before.
    """

    value: T | None = None
    ok: bool = False
    error: str = ""
    duration_s: float = 0.0
    value_at: float | None = None
    tried_at: float | None = None


class Sampler(Generic[T]):
    """Reads one source again and again in a thread of its own: a driver that hangs holds up no other source."""

    def __init__(
        self,
        name: str,
        read: Callable[[], T],
        *,
        period_s: float | Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], object] = threading.Event.wait,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            name: the collector's name in the metrics.
            read: one reading; a SourceError, an OSError or a ValueError from it is a failed reading.
            period_s: seconds from the end of one reading to the start of the next, or what gives them each time.
            monotonic: the clock.
            wait: lets that many seconds pass, or fewer where the event is set.
            say: called with one line when the source fails and when it works again.
        """
        self.name = name
        self._period_s = period_s
        self._read = read
        self._monotonic = monotonic
        self._say = say
        self._sample: Sample[T] = Sample()
        self._stopped = False
        self._wake = threading.Event()
        self._wait = wait
        self._thread: threading.Thread | None = None

    @property
    def latest(self) -> Sample[T]:
        """What is known now; assignment of one reference needs no lock."""
        return self._sample

    @property
    def value(self) -> T | None:
        """The last successful reading."""
        return self._sample.value

    @property
    def period_s(self) -> float:
        """Seconds between two readings, now."""
        return self._period_s() if callable(self._period_s) else self._period_s

    def sample(self) -> None:
        """Read once, now; never raises."""
        before = self._sample
        start = self._monotonic()
        try:
            value = self._read()
        except Exception as error:  # noqa: BLE001 - whatever a driver's binding throws is data: collector_success 0
            expected = isinstance(error, SourceError | OSError | ValueError)
            text = str(error) if expected else f"{type(error).__name__}: {error}"
            end = self._monotonic()
            self._sample = replace(
                before, ok=False, error=harmless(" ".join(text.split())), duration_s=end - start, tried_at=end
            )
            if before.ok or before.tried_at is None or before.error != self._sample.error:
                self._say(f"collector {self.name} failed: {self._sample.error}")
        else:
            end = self._monotonic()
            self._sample = Sample(value=value, ok=True, duration_s=end - start, value_at=end, tried_at=end)
            if not before.ok and before.tried_at is not None:
                self._say(f"collector {self.name} works again")

    def start(self) -> None:
        """Sample in the background until `stop`."""
        self._thread = threading.Thread(target=self._run, name=f"sampler-{self.name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            self.sample()
            self._wait(self._wake, self.period_s)
            self._wake.clear()
            # After the event, so that a stop is never cleared away unseen.
            if self._stopped:
                return

    def wake(self) -> None:
        """Read at once, and then again after the period; for any thread."""
        self._wake.set()

    def stop(self, timeout_s: float = 1.0) -> None:
        """End the background thread; a reading that hangs is left to the end of the process."""
        self._stopped = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
