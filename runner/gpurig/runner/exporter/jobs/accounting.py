"""Job accounting: takes each reading of the GPUs and what the watcher tells, and shows what every job used."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gpurig.runner.exporter.devices.energy import Energy, advance
from gpurig.runner.exporter.devices.figures import Figures
from gpurig.runner.exporter.jobs.attribution import Share, shares
from gpurig.runner.exporter.jobs.ledger import Ledger, Limits
from gpurig.runner.exporter.jobs.model import BoxFacts, JobUse, ProjectUse

# A reading that came later than this says nothing about the time before it.
LONGEST_GAP_S = 30.0


@dataclass(frozen=True)
class Snapshot:
    """What is known at one moment.

    Attributes:
        jobs: those that run and those that ended lately.
        projects: sums since the state file began.
        energy_joules: each GPU's total by UUID, where the card tells energy or power.
    """

    jobs: tuple[JobUse, ...] = ()
    projects: tuple[ProjectUse, ...] = ()
    energy_joules: Mapping[str, float] = field(default_factory=dict)


class Accounting:
    """The ledger and the GPUs' energy, for several threads: the sources' samplers add, one publishes, scrapes look."""

    def __init__(
        self,
        *,
        container_of: Callable[[int], str | None],
        box: Callable[[], BoxFacts | None],
        limits: Limits | None = None,
        longest_gap_s: float = LONGEST_GAP_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nothing.

        Args:
            container_of: a process' container by its pid; None for one that is in none, or is not there any more.
            box: what the watcher told last; None where it has told nothing. The same object means the same content.
            limits: how much is remembered.
            longest_gap_s: no job gets what happened between two readings that lie further apart, seconds.
            monotonic: the clock.
        """
        self._container_of = container_of
        self._box = box
        self._longest_gap_s = longest_gap_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._ledger = Ledger(limits)
        self._energy: dict[str, Energy] = {}
        self._read_at: dict[str, float] = {}
        self._owners: dict[str, dict[int, str | None]] = {}
        self._told: BoxFacts | None = None
        self._snapshot = Snapshot()

    def observe(self, figures: Mapping[str, Figures]) -> None:
        """Add a reading of some GPUs, by UUID; never waits for a disk."""
        found = {uuid: self._find_owners(uuid, one) for uuid, one in figures.items()}
        with self._lock:
            now = self._monotonic()
            self._listen(now)
            for uuid, one in figures.items():
                self._add(uuid, one, found[uuid], now)

    def _find_owners(self, uuid: str, figures: Figures) -> dict[int, str | None]:
        """The container of each process by pid.

        A process that ended since it was seen has the one that it had in the reading before, once.
        """
        before = self._owners.get(uuid, {})
        now = {process.pid: self._container_of(process.pid) for process in figures.processes or ()}
        self._owners[uuid] = now
        return {pid: before.get(pid) if container is None else container for pid, container in now.items()}

    def _listen(self, now: float) -> None:
        facts = self._box()
        if facts is not None and facts is not self._told:
            self._told = facts
            self._ledger.told(facts, now)

    def _add(self, uuid: str, figures: Figures, owners: Mapping[int, str | None], now: float) -> None:
        energy, step = advance(self._energy.get(uuid, Energy()), figures, now, longest_gap_s=self._longest_gap_s)
        self._energy[uuid] = energy
        before = self._read_at.get(uuid)
        self._read_at[uuid] = now
        seconds = now - before if before is not None and now - before <= self._longest_gap_s else None
        found: dict[str, Share] | None = None
        if figures.processes is not None:
            found = shares(
                figures,
                owners,
                seconds=seconds,
                energy=step,
                idle_watts=energy.idle_power_watts(figures.power_limit_watts),
            )
        self._ledger.add(uuid, found, now)

    def publish(self) -> Snapshot:
        """Make what is known now the snapshot."""
        with self._lock:
            now = self._monotonic()
            self._listen(now)
            for uuid, read_at in self._read_at.items():
                if now - read_at > self._longest_gap_s:
                    # Its source fails or hangs: who holds memory now is not known.
                    self._ledger.add(uuid, None, now)
            self._ledger.expire(now)
            self._ledger.changed_jobs.clear()
            self._ledger.changed_projects.clear()
            self._snapshot = Snapshot(
                jobs=tuple(job.use() for job in self._ledger.jobs.values()),
                projects=tuple(self._ledger.projects.values()),
                energy_joules={uuid: one.joules for uuid, one in self._energy.items() if one.told},
            )
        return self._snapshot

    @property
    def snapshot(self) -> Snapshot:
        """What was published last."""
        return self._snapshot
