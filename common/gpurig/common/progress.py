"""Progress a person can watch and a log can keep: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self, TextIO

import click

from gpurig.common.terminal import size_text
from gpurig.common.waiting import Clock, SystemClock

_LOG_EVERY_S = 10.0
_DRAW_EVERY_S = 0.1


class _Shown:
    """What a bar on a terminal and lines in a log have in common: how they begin and end."""

    _bar: Any = None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.__enter__()
        else:
            self._say()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, error, trace)
        elif kind is None:
            self._say()

    def _say(self) -> None:
        raise NotImplementedError


class Progress(_Shown):
    """Counts finished units of one stage.

    On a terminal it is a bar with the time left; in a log (a CI job's) it is one line at the start, one every
    10 seconds and one at the end, because a bar's carriage returns make a log unreadable. Where units are answers, it
    says how many tokens a second are written.
    """

    def __init__(
        self, label: str, total: int, *, done: int = 0, stream: TextIO | None = None, clock: Clock | None = None
    ) -> None:
        """Prepare for `total` units, `done` of them finished in an earlier run."""
        self._label = label
        self._total = total
        self._count = self._before = done
        self._tokens = 0
        self._stream = stream or sys.stderr
        self._clock = clock or SystemClock()
        self._terminal = self._stream.isatty()
        self._started_at = self._said_at = self._clock.monotonic()
        self._bar = (
            click.progressbar(
                length=total,
                label=f"{label:<9}",
                file=self._stream,
                show_pos=True,
                width=30,
                item_show_func=lambda note: note or "",
            )
            if self._terminal
            else None
        )
        if self._bar is not None:
            self._bar.update(done)

    def advance(self, note: str = "", *, tokens: int = 0) -> None:
        """One more unit is finished, of so many tokens; behind the bar stands how fast they come, or else `note`."""
        self._count += 1
        self._tokens += tokens
        if self._bar is not None:
            self._bar.update(1, current_item=self._speed() or note)
        elif self._count < self._total and self._clock.monotonic() - self._said_at >= _LOG_EVERY_S:
            self._say()

    def _speed(self) -> str:
        passed = self._clock.monotonic() - self._started_at
        return f"{self._tokens / passed:.0f} tokens/s" if self._tokens and passed > 0 else ""

    def _left(self) -> str:
        """How long the rest takes, if it goes on as it went."""
        passed, done = self._clock.monotonic() - self._started_at, self._count - self._before
        if done <= 0 or self._count >= self._total:
            return ""
        seconds = round((self._total - self._count) * passed / done)
        return f"{seconds // 60} min {seconds % 60} s left" if seconds >= 60 else f"{seconds} s left"

    def _say(self) -> None:
        self._said_at = self._clock.monotonic()
        figures = ", ".join(filter(None, (f"{self._label}: {self._count}/{self._total}", self._speed(), self._left())))
        self._stream.write(f"{figures}\n")
        self._stream.flush()


class ByteProgress(_Shown):
    """Counts the bytes of one transfer: how much, how fast, how long still.

    On a terminal it is a bar; in a log one line at the start, one every 10 seconds and one at the end.
    """

    def __init__(
        self, label: str, total: int | None, *, done: int = 0, stream: TextIO | None = None, clock: Clock | None = None
    ) -> None:
        """Prepare for `total` bytes (None where nobody knows), `done` of them there from an earlier run."""
        self._label = label
        self._total = total
        self._count = self._before = done
        self._stream = stream or sys.stderr
        self._clock = clock or SystemClock()
        self._started_at = self._said_at = self._clock.monotonic()
        self._bar = (
            click.progressbar(
                length=max(total, 1),
                label=f"{label:<9}",
                file=self._stream,
                width=24,
                item_show_func=lambda note: note or "",
            )
            if total is not None and self._stream.isatty()
            else None
        )
        if self._bar is not None:
            self._bar.update(done)

    def reach(self, count: int) -> None:
        """`count` bytes are there now; fewer than before where a transfer had to begin again."""
        if count < self._count:
            self._before, self._started_at = count, self._clock.monotonic()
        self._count, now = count, self._clock.monotonic()
        if self._bar is None:
            if now - self._said_at >= _LOG_EVERY_S:
                self._say()
        elif now - self._said_at >= _DRAW_EVERY_S or count == self._total:
            self._said_at = now
            self._bar.update(count - self._bar.pos, current_item=self._figures())

    def _rate(self) -> float:
        """Bytes a second since this run began."""
        passed = self._clock.monotonic() - self._started_at
        return (self._count - self._before) / passed if passed > 0 else 0.0

    def _figures(self) -> str:
        of = "" if self._total is None else f"/{size_text(self._total)}"
        rate = self._rate()
        return f"{size_text(self._count)}{of}" + (f" {size_text(rate)}/s" if rate > 0 else "")

    def _say(self) -> None:
        self._said_at = self._clock.monotonic()
        rate, left = self._rate(), ""
        if self._total is not None and rate > 0 and self._count < self._total:
            left = f", {(self._total - self._count) / rate:.0f} s left"
        self._stream.write(f"{self._label}: {self._figures()}{left}\n")
        self._stream.flush()
