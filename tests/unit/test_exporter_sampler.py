"""Sampling in the background: a failure is data, and the last good reading stays."""

from __future__ import annotations

import threading

import pytest
from gpurig.runner.exporter.devices.figures import SourceError
from gpurig.runner.exporter.sampler import Sampler


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Source:
    """Answers in turn with what a test gave it."""

    def __init__(self, clock, *answers):
        self.clock = clock
        self.answers = list(answers)

    def __call__(self):
        self.clock.now += 0.25
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def clock():
    return Clock()


def test_before_the_first_reading_nothing_is_known(clock):
    sampler = Sampler("x", Source(clock, 1), period_s=1, monotonic=clock)
    assert (sampler.latest.value, sampler.latest.ok, sampler.latest.tried_at) == (None, False, None)


def test_a_reading_has_its_time_and_duration(clock):
    sampler = Sampler("x", Source(clock, 7), period_s=1, monotonic=clock)
    sampler.sample()
    latest = sampler.latest
    assert (latest.value, latest.ok, latest.duration_s, latest.value_at) == (7, True, 0.25, 100.25)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SourceError("NVML: Driver Not Loaded"), "NVML: Driver Not Loaded"),
        (OSError(5, "Input/output error"), "[Errno 5] Input/output error"),
        (KeyError("gone"), "KeyError: 'gone'"),
        (SourceError("two\nlines\x1b[31m"), "two lines\\x1b[31m"),
    ],
)
def test_a_failed_reading_keeps_the_last_value_and_says_why(clock, error, text):
    sampler = Sampler("x", Source(clock, 7, error), period_s=1, monotonic=clock)
    sampler.sample()
    sampler.sample()
    latest = sampler.latest
    assert (latest.ok, latest.error, latest.value) == (False, text, 7)
    assert (latest.value_at, latest.tried_at) == (100.25, 100.5)


def test_a_failure_is_said_once_and_its_end_too(clock):
    said: list[str] = []
    bad = SourceError("no driver")
    sampler = Sampler("nvidia", Source(clock, bad, bad, 1, 2), period_s=1, monotonic=clock, say=said.append)
    for _ in range(4):
        sampler.sample()
    assert said == ["collector nvidia failed: no driver", "collector nvidia works again"]


def test_another_reason_is_said_as_well(clock):
    said: list[str] = []
    sampler = Sampler(
        "nvidia", Source(clock, SourceError("a"), SourceError("b")), period_s=1, monotonic=clock, say=said.append
    )
    sampler.sample()
    sampler.sample()
    assert said == ["collector nvidia failed: a", "collector nvidia failed: b"]


def test_a_reading_that_hangs_holds_up_nobody_and_not_the_end():
    entered, release, other = threading.Event(), threading.Event(), threading.Event()

    def hang():
        entered.set()
        release.wait(60)

    stuck = Sampler("stuck", hang, period_s=0.05)
    free = Sampler("free", other.set, period_s=0.05)
    stuck.start()
    assert entered.wait(10)
    free.start()
    assert other.wait(10)
    assert stuck.latest.tried_at is None
    stuck.stop(timeout_s=0.01)
    free.stop()
    release.set()
    stuck.stop(timeout_s=10)


def test_the_next_reading_comes_after_the_period_that_holds_then_and_at_once_when_woken(clock):
    periods, naps = iter([1, 5, 5]), []
    sampler = Sampler("x", Source(clock, 1, 2, 3, 4), period_s=lambda: next(periods), monotonic=clock, wait=None)

    def wait(event, seconds):
        naps.append(seconds)
        clock.now += seconds
        if len(naps) == 2:
            sampler.wake()
            assert event.is_set()
        if len(naps) == 3:
            assert not event.is_set()
            sampler.stop()

    sampler._wait = wait
    sampler._run()
    assert naps == [1, 5, 5]
    assert sampler.value == 3
