"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    """What waiting needs of a clock, so that tests bring their own."""

    def monotonic(self) -> float:
        """Seconds that never go back."""

    def sleep(self, seconds: float) -> None:
        """Let that many seconds pass."""


@dataclass(frozen=True)
class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let that many seconds pass."""
        time.sleep(seconds)


def wait_for(
    condition: Callable[[], T | None], *, timeout_s: float, interval_s: float = 0.1, clock: Clock | None = None
) -> T | None:
    """Ask `condition` until it answers something true, at most for `timeout_s` seconds.

    Returns:
        The condition's answer, or None when the time ran out.
    """
    ticking = clock or SystemClock()
    end = ticking.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        left = end - ticking.monotonic()
        if left <= 0:
            return None
        ticking.sleep(min(interval_s, left))
