"""Sleeping AMD cards: a reading wakes none, and keeps none awake that could fall asleep.

The kernel suspends a card that nothing uses (runtime power management; amdgpu does so on cards without a display that
can switch themselves off). Reading a sensor of such a card wakes it on kernels before 6.15 and is refused (EPERM) on
later ones. On all of them it starts the time anew after which a card that is awake may fall asleep: 5 seconds, no more
than the time between two readings of an idle box. So a card that has idled for a minute is left alone for longer.
https://docs.kernel.org/power/runtime_pm.html; amdgpu_pm.c, amdgpu_pm_get_access_if_active()
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from gpurig.runner.exporter.devices.amd_files import read_number, read_text

SleepState = Literal["awake", "asleep", "resting"]

_ASLEEP = {"suspended", "suspending", "resuming"}
# How long nothing uses a card before it is let fall asleep.
IDLE_S = 60.0
# How much longer than the driver wants it is left alone.
_MARGIN_S = 5.0
# A card whose readings would be too old to show by then is read on.
_LONGEST_REST_S = 20.0
# How soon it is tried again with one that did not fall asleep: it has a display, or cannot.
_AGAIN_S = 600.0


class Sleep:
    """Whether one card sleeps, or may."""

    def __init__(self, folder: str, *, monotonic: Callable[[], float]) -> None:
        """Take the card's folder in sysfs, and the clock."""
        self._power = f"{folder}/power"
        self._monotonic = monotonic
        self._idle_since: float | None = None
        self._rest_until: float | None = None
        self._not_before = float("-inf")

    def look(self, *, working: bool) -> SleepState:
        """What it does; "resting" is to be left alone, so that it falls asleep.

        Args:
            working: something uses it, or did at the last reading.
        """
        now = self._monotonic()
        if read_text(f"{self._power}/runtime_status") in _ASLEEP:
            self._idle_since = self._rest_until = None
            self._not_before = now
            return "asleep"
        if working:
            self._idle_since = self._rest_until = None
            return "awake"
        if self._rest_until is not None:
            if now < self._rest_until:
                return "resting"
            self._rest_until = None
            self._not_before = now + _AGAIN_S
        if self._idle_since is None:
            self._idle_since = now
        if now - self._idle_since < IDLE_S or now < self._not_before:
            return "awake"
        rest_s = self._needed_rest_s()
        if rest_s is None:
            return "awake"
        self._rest_until = now + rest_s
        return "resting"

    def _needed_rest_s(self) -> float | None:
        """How long it must be left alone; None for a card that the kernel does not suspend by itself."""
        if read_text(f"{self._power}/control") != "auto":
            return None
        delay_ms = read_number(f"{self._power}/autosuspend_delay_ms")
        if delay_ms is None or delay_ms < 0:
            return None
        rest_s = delay_ms / 1000 + _MARGIN_S
        return rest_s if rest_s <= _LONGEST_REST_S else None
