"""Finding the processes that have an AMD GPU open, on a host with thousands of others.

What a process has open is dear to look through: a call for each of its files. So the host is listed every ten seconds;
a process is looked through soon after it was first seen and ever more seldom after that, a few hundred at a reading. Of
one that has a GPU open only those files are read again each time.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

from gpurig.runner.exporter.devices.amd_fdinfo import DrmClient, parse_fdinfo
from gpurig.runner.exporter.devices.amd_files import list_names, read_bytes

LIST_S = 10.0
# How soon a process is looked through again: after that, then after twice, four times … as long.
_FIRST_S = 10.0
_LONGEST_S = 320.0
# One that has a GPU open may open another, or open it anew.
_KNOWN_S = 10.0
# At one reading, so that a large host's first look does not hold up the others.
MOST_LOOKS = 200
# Of one process: a job may open a million files, and a GPU as often.
_MOST_FILES = 4096
_MOST_GPU_FILES = 64
_DEVICES = "/dev/dri/"


@dataclass
class _Process:
    """What is known of a process.

    Attributes:
        files: its descriptors that were a GPU's.
        wait_s: the time until it is looked through again.
    """

    files: tuple[str, ...] = ()
    wait_s: float = _FIRST_S / 2


@dataclass(frozen=True)
class Clients:
    """What was found.

    Attributes:
        by_pid: the GPU files of each process that has any.
        processes: how many there are on the host.
        hidden: how many of them the kernel does not let us look into.
    """

    by_pid: dict[int, tuple[DrmClient, ...]] = field(default_factory=dict)
    processes: int = 0
    hidden: int = 0


class ClientFinder:
    """Remembers which processes have a GPU open."""

    def __init__(self, proc: str, *, monotonic: Callable[[], float]) -> None:
        """Look below `proc`; nothing is read yet."""
        self._proc = proc
        self._monotonic = monotonic
        self._processes: dict[int, _Process] = {}
        # (when, -pid): of those that are due at once, the newest pids first.
        self._due: list[tuple[float, int]] = []
        self._list_at = float("-inf")
        self._users: set[int] = set()
        self._hidden: set[int] = set()

    def read(self) -> Clients:
        """The clients now."""
        now = self._monotonic()
        if now >= self._list_at:
            self._list_at = now + LIST_S
            self._list(now)
        self._look_through(now)
        read = ((pid, self._clients(pid, self._processes[pid])) for pid in sorted(self._users))
        by_pid = {pid: clients for pid, clients in read if clients}
        return Clients(by_pid, processes=len(self._processes), hidden=len(self._hidden))

    def _list(self, now: float) -> None:
        there = {int(name) for name in list_names(self._proc) if name.isascii() and name.isdecimal()}
        for pid in self._processes.keys() - there:
            del self._processes[pid]
            self._users.discard(pid)
            self._hidden.discard(pid)
        for pid in there - self._processes.keys():
            self._processes[pid] = _Process()
            heapq.heappush(self._due, (now, -pid))

    def _look_through(self, now: float) -> None:
        for _ in range(MOST_LOOKS):
            if not self._due or self._due[0][0] > now:
                return
            _, negative = heapq.heappop(self._due)
            pid = -negative
            process = self._processes.get(pid)
            if process is None:
                continue
            process.files = self._look(pid)
            (self._users.add if process.files else self._users.discard)(pid)
            process.wait_s = _KNOWN_S if process.files else min(2 * process.wait_s, _LONGEST_S)
            heapq.heappush(self._due, (now + process.wait_s, negative))

    def _look(self, pid: int) -> tuple[str, ...]:
        """The descriptors of a process that are a GPU's."""
        folder = f"{self._proc}/{pid}/fd"
        self._hidden.discard(pid)
        try:
            with os.scandir(folder) as entries:
                names = (entry.name for entry in islice(entries, _MOST_FILES))
                gpus = (name for name in names if _target(f"{folder}/{name}").startswith(_DEVICES))
                return tuple(islice(gpus, _MOST_GPU_FILES))
        except PermissionError:
            self._hidden.add(pid)
        except OSError:
            # It ended meanwhile.
            pass
        return ()

    def _clients(self, pid: int, process: _Process) -> tuple[DrmClient, ...]:
        found: dict[tuple[str, int], DrmClient] = {}
        for name in process.files:
            try:
                client = parse_fdinfo(read_bytes(f"{self._proc}/{pid}/fdinfo/{name}"))
            except OSError:
                continue
            # A file that was opened once may stand under several descriptors.
            if client is not None:
                found[client.pci, client.number] = client
        return tuple(found.values())


def _target(link: str) -> str:
    try:
        return os.readlink(link)  # noqa: PTH115 - as above
    except OSError:
        return ""
