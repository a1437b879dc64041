"""The one place that tries again: waits grow, a server's own wish counts, and progress starts the count anew."""

from __future__ import annotations

import email.utils
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from gpurig.common.errors import TransientError
from gpurig.common.waiting import Clock

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long somebody goes on.

    Attributes:
        attempts: failures in a row, without progress between them, after which the last one is raised.
        first_s: seconds before the second attempt; each further wait is twice the one before.
        longest_s: seconds that a wait grows to.
        longest_asked_s: seconds that a server may ask for; one that asks for more is not waited for.
    """

    attempts: int = 6
    first_s: float = 1.0
    longest_s: float = 30.0
    longest_asked_s: float = 300.0


def retrying(
    action: Callable[[], T],
    *,
    patience: Patience,
    clock: Clock,
    say: Callable[[str], None],
    progress: Callable[[], int] = lambda: 0,
) -> T:
    """Call `action` until it does not raise TransientError.

    Args:
        action: what may fail; it goes on where the last call broke off.
        patience: how often and how long.
        clock: what waits.
        say: told of each failure and the wait that follows.
        progress: a number that grows while `action` gets somewhere, for example the bytes that are on disk.

    Raises:
        TransientError: the last failure, when patience is at its end. Anything else that `action` raises.
    """
    failures, reached = 0, progress()
    while True:
        try:
            return action()
        except TransientError as error:
            now = progress()
            failures = 1 if now > reached else failures + 1
            reached = now
            asked = error.retry_after_s
            if failures >= patience.attempts or (asked is not None and asked > patience.longest_asked_s):
                raise
            grown = min(patience.first_s * 2 ** (failures - 1), patience.longest_s)
            wait_s = grown if asked is None else max(asked, 0.0)
            say(f"{error.message}; trying again in {wait_s:g} s")
            clock.sleep(wait_s)


def retry_after_s(value: str | None, *, now: datetime | None = None) -> float | None:
    """Seconds that a `Retry-After` header asks for: a number, or a date (RFC 9110, 10.2.3); None where it is neither.

    Args:
        value: the header's value; None where there is none.
        now: the time that a date is held against.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text) if len(text) <= 9 else 1e9
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())
