"""A build for a person to watch: a line for each step that is done, and what runs now."""

from __future__ import annotations

import re

from gpurig.common.live import LiveLines
from gpurig.common.terminal import shorten
from gpurig.common.waiting import Clock, SystemClock
from gpurig.images.build_events import BuildEvent, StepBegan, StepEnded

_WIDTH = 80
# Instructions that do something; the others are a moment's work and a line's noise.
_SHOWN = ("FROM ", "RUN ", "COPY ", "ADD ")


class BuildProgress:
    """Takes a build's events and keeps the picture; `now` and `line` put it into words."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        """Count seconds by `clock`; by the machine's own where None."""
        self._clock = clock or SystemClock()
        self._open: dict[str, tuple[StepBegan, float]] = {}

    def take(self, event: BuildEvent, lines: LiveLines) -> None:
        """Show what an event changes."""
        if isinstance(event, StepBegan):
            # Another thread reads the steps: they are replaced, never changed.
            self._open = {**self._open, event.key: (event, self._clock.monotonic())}
            lines.refresh()
        elif isinstance(event, StepEnded) and event.key in self._open:
            step, since = self._open[event.key]
            self._open = {key: value for key, value in self._open.items() if key != event.key}
            if step.place and step.title.startswith(_SHOWN):
                took = f"{self._clock.monotonic() - since:.1f} s" if event.outcome == "done" else event.outcome
                lines.say(_row(step, took))

    def now(self) -> str:
        """The step that has been running longest, and how many others run beside it; "" where none does."""
        steps = [one for one in self._open.values() if one[0].place]
        if not steps:
            return ""
        step, since = steps[0]
        others = f", {len(steps) - 1} more" if len(steps) > 1 else ""
        return _row(step, f"{self._clock.monotonic() - since:.0f} s …{others}")


def _row(step: StepBegan, end: str) -> str:
    # How most of our RUNs begin, and what says nothing to who watches.
    title = re.sub(r"^RUN (set -eu;? ?|NETRC=\S+ )", "RUN ", step.title)
    left = f"{step.place:<15} "
    return f"{left}{shorten(title, _WIDTH - len(left) - len(end) - 2)}  {end}"
