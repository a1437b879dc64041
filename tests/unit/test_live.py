"""Lines for a person and lines for a log."""

from __future__ import annotations

import io

from gpurig.common.live import LiveLines
from gpurig.common.waiting import wait_for
from gpurig.images.build_events import Output, StepBegan, StepEnded
from gpurig.images.build_progress import BuildProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class FakeClock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def test_a_log_gets_whole_lines_and_nothing_that_a_terminal_obeys():
    log = io.StringIO()
    with LiveLines(lambda: "compiling", stream=log) as lines:
        lines.say("one")
        lines.refresh()
        lines.say("two")
    assert log.getvalue() == "one\ntwo\n"


def test_a_log_hears_from_time_to_time_that_a_long_step_is_alive():
    log = io.StringIO()
    with LiveLines(lambda: "compiling", stream=log, tick_s=0.01):
        assert wait_for(lambda: "compiling\n" in log.getvalue(), timeout_s=10, interval_s=0.01)


def test_on_a_terminal_the_last_line_changes_and_is_gone_at_the_end():
    terminal = Terminal()
    with LiveLines(lambda: "compiling", stream=terminal, tick_s=0.01) as lines:
        lines.say("one")
        assert wait_for(lambda: terminal.getvalue().count("compiling") > 2, timeout_s=10, interval_s=0.01)
    assert "one\n" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_a_line_that_changes_is_never_wider_than_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    terminal = Terminal()
    with LiveLines(lambda: "x" * 200, stream=terminal, tick_s=60) as lines:
        lines.refresh()
    assert max(len(part) for part in terminal.getvalue().split("\r\x1b[K")) == 39


def test_a_build_is_a_line_a_step_with_its_seconds():
    clock, log = FakeClock(), io.StringIO()
    progress = BuildProgress(clock=clock)
    with LiveLines(progress.now, stream=log) as lines:
        progress.take(StepBegan("1", "", "[internal] load build definition"), lines)
        progress.take(StepBegan("2", "compiler 2/9", "RUN set -eu; apt-get update -qq; " + "x" * 100), lines)
        progress.take(StepBegan("3", "packages 1/2", "COPY a b"), lines)
        clock.seconds = 34.2
        assert progress.now().startswith("compiler 2/9    RUN apt-get update -qq;")
        assert progress.now().endswith("34 s …, 1 more")
        progress.take(Output("2", "hello"), lines)
        progress.take(StepEnded("1", "done"), lines)
        progress.take(StepEnded("2", "done"), lines)
        progress.take(StepEnded("3", "cached"), lines)
        progress.take(StepBegan("4", "packages 2/2", "ENV A=b"), lines)
        progress.take(StepEnded("4", "done"), lines)
        assert progress.now() == ""
    shown = log.getvalue().splitlines()
    assert [line[:15].strip() for line in shown] == ["compiler 2/9", "packages 1/2"]
    assert shown[0].endswith("  34.2 s")
    assert shown[1].endswith("  cached")
    assert max(map(len, shown)) <= 80
