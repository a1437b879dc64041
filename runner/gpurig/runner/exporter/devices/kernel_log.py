"""The kernel's log: /dev/kmsg, from the oldest line that the kernel still has.

Format: https://docs.kernel.org/admin-guide/abi-testing.html, /dev/kmsg: "<facility and level>,<number>,<microseconds>,
<flags>;<message>", further lines of a record begin with a space. What a program writes into the log has another
facility than the kernel's own, so that no program can forge a line of the driver.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

KMSG = Path("/dev/kmsg")

# A record has at most 8 KiB (CONSOLE_EXT_LOG_MAX); one that does not fit cannot be read at all.
_CHUNK = 65536
# One reading's share of a log that grows faster than it can be read.
_MOST = 20_000
_KERNEL = 0


@dataclass(frozen=True)
class LogLine:
    r"""A line that the kernel itself wrote.

    Attributes:
        number: counts the log's records since the boot.
        uptime_s: when, on the kernel's clock, which begins with the boot and stops while the machine sleeps.
        text: the message; the kernel writes what is no printable ASCII as `\xNN`.
    """

    number: int
    uptime_s: float
    text: str


def parse_line(line: bytes) -> LogLine | None:
    """A line of /dev/kmsg; None for one that is no kernel message: a program's, a further line, a damaged one."""
    head, semicolon, message = line.partition(b";")
    fields = head.split(b",")
    # int() is kinder than the format: it takes signs, spaces and underscores.
    if not semicolon or len(fields) < 3 or not all(field.isdigit() for field in fields[:3]):
        return None
    # The longest number has 20 digits (64 bits); more would be slow to read.
    if any(len(field) > 20 for field in fields[:3]):
        return None
    priority, number, microseconds = (int(field) for field in fields[:3])
    # The lowest three bits are the level.
    if priority >> 3 != _KERNEL:
        return None
    return LogLine(number, microseconds / 1e6, message.decode("utf-8", errors="replace"))


class KernelLog:
    """Reads the log from its beginning, and then what was added; never waits."""

    def __init__(self, path: Path = KMSG) -> None:
        """Take the device; it is opened at the first reading."""
        self._path = path
        self._descriptor: int | None = None
        self._rest = b""
        self._last = -1

    def read(self) -> list[LogLine]:
        """The lines since the reading before, at most some thousand.

        Raises:
            OSError: the log cannot be read: a container without it, a kernel that keeps it for root.
        """
        found: list[LogLine] = []
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            for _ in range(_MOST):
                chunk = self._chunk(self._descriptor)
                if chunk is None:
                    break
                found += self._lines(chunk)
        except OSError:
            self.close()
            raise
        return found

    @staticmethod
    def _chunk(descriptor: int) -> bytes | None:
        """One record, or more of a plain file; None where there is no more."""
        try:
            return os.read(descriptor, _CHUNK) or None
        except BlockingIOError:
            return None
        except BrokenPipeError:
            # Lines were overwritten before they could be read; the next call goes on behind them.
            return b""

    def _lines(self, chunk: bytes) -> list[LogLine]:
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        # No line is longer than a record.
        self._rest = self._rest[-_CHUNK:]
        parsed = [line for line in map(parse_line, whole) if line is not None]
        # A log that is opened again begins at its beginning.
        fresh = [line for line in parsed if line.number > self._last]
        if fresh:
            self._last = max(line.number for line in fresh)
        return fresh

    def close(self) -> None:
        """Let go of the device."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
        self._descriptor = None
        self._rest = b""
