"""Lets any single call of a set of interfaces fail, or be the last one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any


class Killed(BaseException):
    """The process is gone: nothing it wanted to do after this happens."""


@dataclass
class Faults:
    """Lets one call of all that are counted go wrong.

    Attributes:
        at: which call, from 0; -1 for none.
        after: the call is done before it fails: its answer is lost.
        kill: the process dies there, and no call after it happens.
        calls: what was called, in order.
    """

    at: int = -1
    after: bool = False
    kill: bool = False
    calls: list[str] = field(default_factory=list)
    dead: bool = False

    def wrap(self, target: Any, name: str, error: type[Exception]) -> Any:
        """`target` with every method counted."""
        return _Counted(self, target, name, error)

    def call(self, name: str, error: type[Exception], method: Callable[..., Any], *given: Any, **named: Any) -> Any:
        """Do one call, or not."""
        if self.dead:
            raise Killed
        number = len(self.calls)
        self.calls.append(name)
        if number != self.at:
            return method(*given, **named)
        if self.after:
            method(*given, **named)
        if self.kill:
            self.dead = True
            raise Killed
        raise error(f"{name} failed because the test wants it")


class _Counted:
    def __init__(self, faults: Faults, target: Any, name: str, error: type[Exception]) -> None:
        self._faults, self._target, self._name, self._error = faults, target, name, error

    def __getattr__(self, method: str) -> Any:
        real = getattr(self._target, method)
        if method == "lock" or not callable(real):
            return real

        def counted(*given: Any, **named: Any) -> Any:
            return self._faults.call(f"{self._name}.{method}", self._error, real, *given, **named)

        return counted


def every_fault(total: int) -> Iterator[Faults]:
    """Every way in which one of `total` calls can go wrong."""
    for number, after, kill in itertools.product(range(total), (False, True), (False, True)):
        yield Faults(at=number, after=after, kill=kill)
