"""CI jobs, their containers and processes on GPUs, for tests of the accounting."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from gpurig.runner.exporter.devices.figures import Figures, GpuProcess
from gpurig.runner.exporter.jobs.accounting import Accounting
from gpurig.runner.exporter.jobs.model import BoxFacts, JobContainer, JobKey, JobUse

GIB = 1024**3
# Unix time at which a simulation begins, and what the monotonic clock shows then.
EPOCH, BOOT = 1_700_000_000.0, 5_000.0


def key(job: int, project: int = 1, pipeline: int = 1, runner: str = "abc123") -> JobKey:
    """A job's key."""
    return JobKey(str(job), str(project), str(pipeline), runner)


def container_id(number: int) -> str:
    """64 hexadecimal digits."""
    return f"{number:064x}"


class Box:
    """A box on a fake clock: containers that start and end, processes that work."""

    def __init__(self, *, passed: float = 0.0, **settings: Any) -> None:
        """An accounting with nothing in it, after so many seconds; `settings` are its own."""
        self.passed = passed
        self.containers: dict[str, JobContainer] = {}
        self.pids: dict[int, str] = {}
        self.facts: BoxFacts | None = None
        self.accounting = Accounting(
            containers_of=lambda pid: (self.pids[pid],) if pid in self.pids else (),
            box=lambda: self.facts,
            monotonic=lambda: BOOT + self.passed,
            wall=lambda: EPOCH + self.passed,
            **settings,
        )

    def tell(self) -> None:
        """The watcher writes what there is."""
        self.facts = BoxFacts(written_at=EPOCH + self.passed, containers=tuple(self.containers.values()))

    def start(self, number: int, job: JobKey, *, kind: str = "build", tell: bool = True) -> str:
        """A container of a job starts."""
        name = container_id(number)
        self.containers[name] = JobContainer(name, job, kind, started_at=EPOCH + self.passed)
        if tell:
            self.tell()
        return name

    def end(self, number: int, *, exit_code: int = 0, **changes: Any) -> None:
        """It ends, and its processes with it."""
        name = container_id(number)
        self.containers[name] = dataclasses.replace(
            self.containers[name],
            ended_at=EPOCH + self.passed,
            exit_code=exit_code,
            **changes,
        )
        for pid in [pid for pid, container in self.pids.items() if container == name]:
            del self.pids[pid]
        self.tell()

    def forget(self, number: int) -> None:
        """The watcher has no word of it any more."""
        del self.containers[container_id(number)]
        self.tell()

    def run(self, seconds: float, figures: Mapping[str, Figures] | None = None, *, period_s: float = 1.0) -> None:
        """Time passes, read every period; at its end it is published."""
        for _ in range(round(seconds / period_s)):
            self.passed += period_s
            self.accounting.observe(figures or {})
        self.accounting.publish()

    def job(self, job: JobKey) -> JobUse:
        """What the snapshot tells of a job."""
        return {one.key: one for one in self.accounting.snapshot.jobs}[job]


def gpu(
    *processes: GpuProcess | tuple[int, float] | tuple[int, float, float],
    busy: float | None = 1.0,
    watts: float | None = 300.0,
    joules: float | None = None,
    limit: float | None = 400.0,
) -> Figures:
    """A GPU with processes, each (pid, GiB) or (pid, GiB, utilization)."""
    return Figures(
        utilization_ratio=busy,
        power_watts=watts,
        power_limit_watts=limit,
        energy_joules=joules,
        processes=tuple(_process(one) for one in processes),
    )


def _process(one: GpuProcess | Sequence[float]) -> GpuProcess:
    if isinstance(one, GpuProcess):
        return one
    return GpuProcess(int(one[0]), int(one[1] * GIB), one[2] if len(one) > 2 else None)
