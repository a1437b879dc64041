"""Which processes use an AMD GPU, and how much: what KFD and the open GPU files tell, put together.

ROCm's memory is in both: a process that computes has its address space in a GPU file, so that what KFD counts is part
of what the file counts. The larger of both is what it holds. What ROCm computes is in neither, because it goes to the
GPU past the kernel: the time for which the GPU was busy, less what the kernel saw others do, is the computing
processes'. One alone has all of it; several share it as they occupy compute units, where the kernel tells that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from gpurig.provisioning.facts import Gpu
from gpurig.runner.exporter.devices.amd_clients import ClientFinder, Clients
from gpurig.runner.exporter.devices.amd_fdinfo import DrmClient
from gpurig.runner.exporter.devices.amd_kfd import KfdPart, KfdUse, read_part, read_uses
from gpurig.runner.exporter.devices.figures import GpuProcess

N = TypeVar("N", int, float)


@dataclass(frozen=True)
class DrmUse:
    """What a process has of one GPU by its open files.

    Attributes:
        memory_bytes: what it holds; None where the kernel does not tell.
        busy_ratio: the share of the time since the reading before in which its work kept the GPU busy; None at first.
    """

    memory_bytes: int | None
    busy_ratio: float | None


@dataclass(frozen=True)
class GpuUsers:
    """Who uses a GPU.

    Attributes:
        kfd: processes that compute on it, by pid.
        drm: processes that have it open, by pid.
        known: the kernel told who does; else both are empty for want of knowledge.
        used_bytes: memory in use on a partition; None where it is not known.
    """

    kfd: Mapping[int, KfdUse] = field(default_factory=dict)
    drm: Mapping[int, DrmUse] = field(default_factory=dict)
    known: bool = True
    used_bytes: int | None = None

    @property
    def working(self) -> bool:
        """Something works on it, or keeps it awake as every process that computes does."""
        return bool(self.kfd) or any(use.busy_ratio is None or use.busy_ratio > 0 for use in self.drm.values())

    def processes(self, utilization: float | None) -> tuple[GpuProcess, ...] | None:
        """The processes by pid; None where the kernel does not tell.

        Args:
            utilization: the GPU's, 0 to 1; None where it is not known.
        """
        if not self.known:
            return None
        seen = {pid: use.busy_ratio for pid, use in self.drm.items()}
        shares: Mapping[int, float | None] = seen
        if self.kfd:
            computing = _computing(self.kfd, _rest(utilization, seen.values()))
            # Where it is not known how the computing processes share, nobody's share is told: the others' alone would
            # look as if those did nothing.
            shares = (
                {}
                if computing is None
                else {**seen, **{pid: (seen.get(pid) or 0) + share for pid, share in computing.items()}}
            )
        return tuple(
            GpuProcess(pid, memory_bytes=self._memory(pid), utilization_ratio=_capped(shares.get(pid)))
            for pid in sorted(self.kfd.keys() | self.drm.keys())
        )

    def _memory(self, pid: int) -> int | None:
        held = (use.memory_bytes for use in (self.kfd.get(pid), self.drm.get(pid)) if use is not None)
        return max((one for one in held if one is not None), default=None)


def _rest(utilization: float | None, seen: Iterable[float | None]) -> float | None:
    """The share of the time in which the GPU was busy with what the kernel did not see."""
    return None if utilization is None else max(0.0, utilization - sum(one or 0.0 for one in seen))


def _computing(uses: Mapping[int, KfdUse], rest: float | None) -> dict[int, float] | None:
    """Each computing process' part of `rest`; None where it is not known."""
    if rest is None:
        return None
    if len(uses) == 1:
        return dict.fromkeys(uses, rest)
    units = {pid: use.occupied_units for pid, use in uses.items()}
    known = {pid: max(0, one) for pid, one in units.items() if one is not None}
    total = sum(known.values())
    if len(known) < len(units) or total == 0:
        return None
    return {pid: rest * one / total for pid, one in known.items()}


def _capped(share: float | None) -> float | None:
    return None if share is None else min(1.0, share)


class AmdProcesses:
    """Reads who uses the GPUs; remembers how long their work had kept them busy."""

    def __init__(
        self,
        root: Path = Path("/"),
        *,
        monotonic: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            root: below which /sys and /proc lie.
            monotonic: the clock.
            say: called with one line about what cannot be seen.
        """
        self._root = root
        self._monotonic = monotonic
        self._say = say
        self._finder = ClientFinder(str(root / "proc"), monotonic=monotonic)
        self._busy = _BusyTime()
        self._told = False

    def read(self, gpus: Sequence[Gpu]) -> Mapping[str, GpuUsers]:
        """The users of each GPU, by its UUID."""
        parts = {gpu.uuid: read_part(self._root, gpu.index) for gpu in gpus}
        uses = read_uses(self._root, {part.gpu_id for part in parts.values() if part is not None})
        clients = self._finder.read()
        self._tell_hidden(clients)
        computing = frozenset(pid for by_pid in (uses or {}).values() for pid in by_pid)
        owners = _owners(clients.by_pid, computing)
        busy = self._busy.advance(owners, self._monotonic())
        moment = _Moment(uses, owners, busy, complete=clients.processes > 0 and not clients.hidden)
        return {gpu.uuid: moment.users(gpu, parts[gpu.uuid]) for gpu in gpus}

    def _tell_hidden(self, clients: Clients) -> None:
        if clients.hidden and not self._told:
            self._told = True
            self._say(
                f"{clients.hidden} processes of other users may not be looked into (CAP_SYS_PTRACE): if they use an "
                "AMD GPU without ROCm, that is not seen"
            )


def _owners(by_pid: Mapping[int, Iterable[DrmClient]], computing: frozenset[int]) -> dict[int, tuple[DrmClient, ...]]:
    """Each client once, with one of the processes that have it: a worker that was forked has its parent's files.

    It is the one that computes, as KFD knows the process that opened it; else the one with the lowest pid.
    """
    owner: dict[tuple[str, int], int] = {}
    for pid in sorted(by_pid, key=lambda pid: (pid not in computing, pid)):
        for client in by_pid[pid]:
            owner.setdefault((client.pci, client.number), pid)
    return {
        pid: tuple(client for client in clients if owner[client.pci, client.number] == pid)
        for pid, clients in by_pid.items()
    }


class _BusyTime:
    """How long each client had kept its GPU busy at the reading before."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], int] = {}
        self._at = 0.0

    def advance(self, owners: Mapping[int, Iterable[DrmClient]], now: float) -> Mapping[tuple[str, int], float]:
        """The share of the time since then in which each did, by address and number; none for a new one.

        The kernel's counter may fall for a moment; the larger value stands until it has caught up.
        """
        seconds, self._at = now - self._at, now
        before, self._known = self._known, {}
        shares = {}
        for client in (client for clients in owners.values() for client in clients):
            key = (client.pci, client.number)
            was = before.get(key)
            self._known[key] = max(client.busy_ns, was or 0)
            if was is not None and seconds > 0:
                shares[key] = min(1.0, (self._known[key] - was) / 1e9 / seconds)
        return shares


@dataclass(frozen=True)
class _Moment:
    """What the kernel told at one reading.

    Attributes:
        uses: by KFD's number for the GPU and pid; None where the kernel has no KFD.
        owners: the clients of each process, each client once.
        busy: by address and number of the client.
        complete: every process of the host may be looked into.
    """

    uses: Mapping[int, Mapping[int, KfdUse]] | None
    owners: Mapping[int, tuple[DrmClient, ...]]
    busy: Mapping[tuple[str, int], float]
    complete: bool

    def users(self, gpu: Gpu, part: KfdPart | None) -> GpuUsers:
        """Who uses the GPU, which KFD knows as `part`."""
        drm = {}
        # The file of a partition names no PCI device, and that of a card would be counted once a partition.
        if not gpu.parent:
            for pid, clients in self.owners.items():
                mine = [client for client in clients if client.pci == gpu.pci_address]
                if mine:
                    drm[pid] = self._drm_use(mine, unified=gpu.unified)
        if self.uses is None or part is None:
            return GpuUsers(drm=drm, known=not gpu.parent and (bool(drm) or self.complete))
        kfd = self.uses.get(part.gpu_id, {})
        held = sum(use.memory_bytes or 0 for use in kfd.values())
        return GpuUsers(kfd=kfd, drm=drm, used_bytes=held if part.used_bytes is None else part.used_bytes)

    def _drm_use(self, clients: Iterable[DrmClient], *, unified: bool) -> DrmUse:
        held, shares = [], []
        for client in clients:
            held += [client.vram_bytes, client.gtt_bytes if unified else None]
            shares.append(self.busy.get((client.pci, client.number)))
        return DrmUse(_total(held), _capped(_total(shares)))


def _total(numbers: Iterable[N | None]) -> N | None:
    known = [number for number in numbers if number is not None]
    return sum(known[1:], known[0]) if known else None
