"""Trying again happens in one place, with growing waits, and ends."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from gpurig.common.errors import InputError, RemoteError, TransientError
from gpurig.common.retrying import Patience, retry_after_s, retrying
from hypothesis import given
from hypothesis import strategies as st
from standins.clocks import FakeClock


def failing(times: int, *, retry_after: float | None = None):
    left = [times]

    def action() -> str:
        if left[0]:
            left[0] -= 1
            raise TransientError("it broke", retry_after_s=retry_after)
        return "done"

    return action


def test_waits_grow_to_their_limit_and_are_told() -> None:
    clock, said = FakeClock(), []
    patience = Patience(attempts=7, first_s=1, longest_s=8)
    assert retrying(failing(6), patience=patience, clock=clock, say=said.append) == "done"
    assert clock.naps == [1, 2, 4, 8, 8, 8]
    assert said[0] == "it broke; trying again in 1 s"


def test_patience_ends_with_the_last_failure() -> None:
    clock = FakeClock()
    with pytest.raises(TransientError, match="it broke"):
        retrying(failing(9), patience=Patience(attempts=3), clock=clock, say=lambda _: None)
    assert len(clock.naps) == 2


def test_what_does_not_pass_by_itself_is_not_tried_again() -> None:
    clock = FakeClock()
    for error in (RemoteError("no"), InputError("no"), ZeroDivisionError()):

        def action(error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error)):
            retrying(action, patience=Patience(), clock=clock, say=lambda _: None)
    assert clock.naps == []


def test_a_servers_wish_counts_and_one_that_is_too_long_ends_it() -> None:
    clock = FakeClock()
    retrying(failing(2, retry_after=17), patience=Patience(), clock=clock, say=lambda _: None)
    assert clock.naps == [17, 17]
    with pytest.raises(TransientError):
        retrying(failing(2, retry_after=301), patience=Patience(), clock=clock, say=lambda _: None)
    assert clock.naps == [17, 17]


def test_progress_starts_the_count_anew() -> None:
    clock, reached, left = FakeClock(), [0], [20]

    def action() -> None:
        if left[0]:
            left[0] -= 1
            reached[0] += 1
            raise TransientError("it broke")

    retrying(action, patience=Patience(attempts=2), clock=clock, say=lambda _: None, progress=lambda: reached[0])
    assert clock.naps == [1.0] * 20


NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 5 ", 5),
        ("Wed, 25 Nov 2026 12:00:30 GMT", 30),
        ("Wed, 25 Nov 2026 11:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        ("", None),
        (None, None),
    ],
)
def test_a_wish_to_wait_is_a_number_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value, now=NOW) == seconds


@given(st.text(max_size=40))
def test_no_wish_is_a_bug(value: str) -> None:
    seconds = retry_after_s(value, now=NOW)
    assert seconds is None or seconds >= 0
