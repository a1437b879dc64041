"""Faults on purpose: which calls meet which, in the order they were asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["status", "garbage", "not-http", "cut", "reset", "silence", "slow"]


@dataclass
class Fault:
    """What some calls meet.

    Attributes:
        kind: "status" answers `status` with `body`; "garbage" a login page with 200; "not-http" bytes that are no
            HTTP; "cut" half of the true answer; "reset" a connection that closes without a byte; "silence" nothing
            until the server closes; "slow" the true answer after `delay_s`.
        method: of the calls, None for any.
        path: a regular expression that the whole path (without query) must match.
        skip: how many matching calls pass first.
        times: how many calls then meet it; None for all.
        done_first: do the call's work and lose the answer; otherwise nothing was done.
    """

    kind: Kind
    method: str | None = None
    path: str = ".*"
    status: int = 500
    body: str = '{"message":"500 Internal Server Error"}'
    content_type: str = "application/json"
    skip: int = 0
    times: int | None = None
    delay_s: float = 0.0
    done_first: bool = False
    met: int = 0

    def takes(self, method: str, path: str) -> bool:
        """Whether this call meets the fault; counts it."""
        if self.method not in {None, method} or not re.fullmatch(self.path, path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None and self.met >= self.times:
            return False
        self.met += 1
        return True
