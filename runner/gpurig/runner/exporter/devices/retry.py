"""When to ask again what failed: at once after a first failure, ever more seldom after more."""

from __future__ import annotations

from dataclasses import dataclass

_NEVER_FAILED = float("-inf")


@dataclass
class Retry:
    """The failures in a row of one question.

    Attributes:
        failures: how many there were.
        at: when to ask again, on the clock of the calls.
    """

    failures: int = 0
    at: float = _NEVER_FAILED

    def failed(self, now: float, most_s: float) -> None:
        """Note a failure: the next try is due now, then after 1, 2, 4 … and at most `most_s` seconds."""
        self.failures += 1
        wait_s = 2.0 ** min(self.failures - 2, 16) if self.failures > 1 else 0.0
        self.at = now + min(wait_s, most_s)

    def worked(self) -> None:
        """Forget the failures."""
        self.failures = 0
        self.at = _NEVER_FAILED
