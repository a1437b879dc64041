"""Job accounting: takes each reading of the GPUs and what the watcher tells, and shows what every job used."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from gpurig.provisioning.facts import Gpu
from gpurig.runner.exporter.devices.energy import Energy, advance
from gpurig.runner.exporter.devices.figures import Figures
from gpurig.runner.exporter.jobs.attribution import Share, shares
from gpurig.runner.exporter.jobs.ledger import Ledger, Limits
from gpurig.runner.exporter.jobs.model import Accounts, BoxFacts
from gpurig.runner.exporter.jobs.state_file import Kept, StateFile, encode
from gpurig.runner.exporter.jobs.summary import UsageFolder

# A reading that came later than this says nothing about the time before it.
LONGEST_GAP_S = 30.0
_MOST_GPUS = 256
# How often the state file is written anew and waited for.
_WRITE_EVERY_S = 30.0


class Accounting:
    """The ledger and the GPUs' energy, for several threads: the sources' samplers add, one publishes, scrapes look."""

    def __init__(
        self,
        *,
        containers_of: Callable[[int], tuple[str, ...]],
        box: Callable[[], BoxFacts | None],
        gpus: Callable[[], Mapping[str, Gpu]] = dict,
        limits: Limits | None = None,
        longest_gap_s: float = LONGEST_GAP_S,
        state: StateFile | None = None,
        usage: UsageFolder | None = None,
        say: Callable[[str], None] = lambda _line: None,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Begin with what the state file has.

        Args:
            containers_of: the containers of a process by its pid, the innermost first; none for one that is in none, or
                is not there any more.
            box: what the watcher told last; None where it has told nothing. The same object means the same content.
            gpus: the box's GPUs by UUID, for the jobs' summaries.
            limits: how much is remembered.
            longest_gap_s: no job gets what happened between two readings that lie further apart, seconds.
            state: where counters outlive the exporter; None to begin at 0 every time.
            usage: where jobs find their summaries; None for nowhere.
            say: called with one line when the state file cannot be used.
            monotonic: seconds that never go back.
            wall: Unix time.

        Raises:
            PrerequisiteError: the state file may not be read.
        """
        self._containers_of = containers_of
        self._box = box
        self._gpus = gpus
        self._longest_gap_s = longest_gap_s
        self._state = state
        self._usage = usage
        self._monotonic = monotonic
        self._wall = wall
        self._lock = threading.Lock()
        # For `containers_of`: who publishes does not wait for /proc.
        self._finding = threading.Lock()
        self._energy: dict[str, Energy] = {}
        self._kept_energy: dict[str, tuple[object, ...]] = {}
        self._read_at: dict[str, float] = {}
        self._containers: dict[str, dict[int, tuple[str, ...]]] = {}
        self._told: BoxFacts | None = None
        self._snapshot = Accounts()
        self._written_at: float | None = None
        # Something is not as the state file's first line has it.
        self._changed = False
        kept = state.load(say) if state is not None else Kept()
        self._energy.update(kept.energy)
        self._ledger = Ledger(limits, kept.jobs.values(), kept.projects.values())
        self._ledger.resume(monotonic(), wall())

    def observe(self, figures: Mapping[str, Figures]) -> None:
        """Add a reading of some GPUs, by UUID; never waits for a disk."""
        with self._finding:
            found = {uuid: self._find_containers(uuid, one) for uuid, one in figures.items()}
        with self._lock:
            now = self._monotonic()
            self._listen(now)
            for uuid, one in figures.items():
                self._add(uuid, one, found[uuid], now)

    def _find_containers(self, uuid: str, figures: Figures) -> dict[int, tuple[str, ...]]:
        """The containers of each process by pid.

        A process that ended since it was seen has those that it had in the reading before, once.
        """
        before = self._containers.get(uuid, {})
        now = {process.pid: self._containers_of(process.pid) for process in figures.processes or ()}
        self._containers[uuid] = now
        return {pid: containers or before.get(pid, ()) for pid, containers in now.items()}

    def _listen(self, now: float) -> None:
        facts = self._box()
        if facts is not None and facts is not self._told:
            self._told = facts
            self._ledger.told(facts, now)

    def _add(self, uuid: str, figures: Figures, containers: Mapping[int, tuple[str, ...]], now: float) -> None:
        energy, step = advance(self._energy.get(uuid, Energy()), figures, now, longest_gap_s=self._longest_gap_s)
        self._energy[uuid] = energy
        before = self._read_at.get(uuid)
        self._read_at[uuid] = now
        seconds = now - before if before is not None and now - before <= self._longest_gap_s else None
        found: dict[str, Share] | None = None
        if figures.processes is not None:
            found = shares(
                figures,
                {pid: self._ledger.owner_of(one) for pid, one in containers.items()},
                seconds=seconds,
                energy=step,
                idle_watts=energy.idle_power_watts(figures.power_limit_watts),
            )
        self._ledger.add(uuid, found, now)

    def _forget_gpus(self) -> None:
        """Parts of a card get new UUIDs when it is split anew: those that were not read for longest go."""
        while len(self._energy) > _MOST_GPUS:
            uuid = min(self._energy, key=lambda one: (self._read_at.get(one, 0.0), one))
            for known in (self._energy, self._kept_energy, self._read_at, self._containers):
                known.pop(uuid, None)

    def publish(self) -> Accounts:
        """Make what is known now the snapshot, after it is kept; write the summaries that are due.

        One thread calls it, again and again.

        Raises:
            PrerequisiteError: a file cannot be written. The snapshot is the new one all the same.
        """
        with self._lock:
            now = self._monotonic()
            self._listen(now)
            for uuid, read_at in self._read_at.items():
                if now - read_at > self._longest_gap_s:
                    # Its source fails or hangs: who holds memory now is not known.
                    self._ledger.add(uuid, None, now)
            self._ledger.expire(now)
            self._forget_gpus()
            line, whole = self._line_to_keep(now)
            snapshot = Accounts(
                jobs=tuple(job.use() for job in self._ledger.jobs.values()),
                projects=tuple(self._ledger.projects.values()),
                energy_joules={uuid: one.joules for uuid, one in self._energy.items() if one.told},
            )
        try:
            if self._state is not None and line:
                self._keep(self._state, line, now, whole=whole)
        finally:
            self._snapshot = snapshot
        if self._usage is not None:
            self._usage.prune(now, self._wall())
            self._usage.write(snapshot.jobs, self._gpus(), now, self._wall())
        return snapshot

    def _line_to_keep(self, now: float) -> tuple[str, bool]:
        """What the state file gets, "" for nothing, and whether it replaces what is there; the lock is held.

        It is text already: the ledger goes on while the disk is waited for.
        """
        ledger = self._ledger
        change = Kept(
            energy={uuid: one for uuid, one in self._energy.items() if one.lasting != self._kept_energy.get(uuid)},
            jobs={key: ledger.jobs[key] for key in ledger.changed_jobs},
            projects={one: ledger.projects[one] for one in ledger.changed_projects},
        )
        ledger.changed_jobs.clear()
        ledger.changed_projects.clear()
        self._kept_energy.update((uuid, one.lasting) for uuid, one in change.energy.items())
        self._changed = self._changed or bool(change)
        if self._state is None or not self._changed:
            return "", False
        if self._state.ready and self._written_at is not None and now - self._written_at < _WRITE_EVERY_S:
            return (encode(change) if change else ""), False
        return self._whole_line(), True

    def _whole_line(self) -> str:
        whole = Kept(energy=self._energy, jobs=self._ledger.jobs, projects=self._ledger.projects)
        return encode(whole, written_at=self._wall())

    def _keep(self, state: StateFile, line: str, now: float, *, whole: bool) -> None:
        if not whole:
            state.append(line)
            return
        state.write(line)
        self._written_at, self._changed = now, False

    @property
    def snapshot(self) -> Accounts:
        """What was published last."""
        return self._snapshot

    def close(self) -> None:
        """Keep everything, and let go of the state file; nothing may be added any more.

        Raises:
            PrerequisiteError: it cannot be written.
        """
        if self._state is None:
            return
        with self._lock:
            state, self._state = self._state, None
            line = self._whole_line()
        try:
            state.write(line)
        finally:
            state.close()
