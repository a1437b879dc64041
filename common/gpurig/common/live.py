"""Lines that stay, and below them, on a terminal, one that changes: for work of many steps beside each other."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from gpurig.common.terminal import shorten

_TICK_S = 1.0
# A log's reader wants to know that a step of minutes is alive, and not much more.
_LOG_TICK_S = 60.0


class LiveLines:
    """Says lines, and every second what is going on now; in a log (a CI job's) the latter once a minute."""

    def __init__(self, now: Callable[[], str], *, stream: TextIO | None = None, tick_s: float | None = None) -> None:
        """Prepare.

        Args:
            now: what is going on, one line; "" for nothing.
            stream: standard error where None.
            tick_s: seconds between two looks at `now`; 1 on a terminal and 60 elsewhere where None.
        """
        self._now = now
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._tick_s = tick_s or (_TICK_S if self._terminal else _LOG_TICK_S)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        with self._lock:
            self._wipe()
            self._stream.flush()

    def say(self, line: str) -> None:
        """A line that stays."""
        with self._lock:
            self._wipe()
            self._stream.write(line + "\n")
            self._show()
            self._stream.flush()

    def refresh(self) -> None:
        """Show what is going on now, on a terminal, without waiting for the second to pass."""
        with self._lock:
            self._wipe()
            self._show()
            self._stream.flush()

    def _tick(self) -> None:
        while not self._ended.wait(self._tick_s):
            if self._terminal:
                self.refresh()
            elif text := self._now():
                self.say(text)

    def _wipe(self) -> None:
        if self._terminal:
            self._stream.write("\r\x1b[K")

    def _show(self) -> None:
        if self._terminal and not self._ended.is_set():
            self._stream.write(shorten(self._now(), shutil.get_terminal_size().columns - 1))
