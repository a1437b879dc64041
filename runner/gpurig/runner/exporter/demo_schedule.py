"""What happens on the demo's box: a function of the clock alone, so that two runs show the same.

Every GPU runs a job for four minutes and rests for one; now and then a job dies of memory half-way. All sums have
closed forms: nothing is integrated, and a restart changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from gpurig.runner.exporter.jobs.model import JobKey, OomKind

# Sums count from here: 2026-01-01.
ORIGIN = 1_767_225_600.0
CYCLE_S, JOB_S, OOM_AFTER_S = 300.0, 240.0, 90.0
IDLE_WATTS, BUSY_WATTS, LIMIT_WATTS = 22, 322, 355
# The second GPU is so much ahead of the first.
_OFFSET_S = 120.0
_PROJECTS = ("41", "42", "57")
RUNNERS = ("dEmO-gPu0", "dEmO-gPu1")
# After so many cycles projects and deaths repeat: the least common multiple of 3 projects, 4 and 8 cycles.
_PATTERN = 24


@dataclass(frozen=True)
class DemoJob:
    """The job of one cycle on one GPU.

    Attributes:
        gpu: the GPU's number.
        cycle: the cycle's, of that GPU.
        at: the moment that is asked about, Unix time.
    """

    gpu: int
    cycle: int
    at: float

    @property
    def key(self) -> JobKey:
        """Numbers as GitLab gives them: growing."""
        return JobKey(
            job_id=str(self.cycle * len(RUNNERS) + self.gpu),
            project_id=_PROJECTS[(self.cycle + self.gpu) % len(_PROJECTS)],
            pipeline_id=str(self.cycle // 2),
            runner=RUNNERS[self.gpu % len(RUNNERS)],
        )

    @property
    def oom(self) -> OomKind | None:
        """What it dies of: of GPU 0 every fourth of the GPU's memory, of the others every eighth of the host's."""
        if self.gpu == 0:
            return "gpu" if self.cycle % 4 == 3 else None
        return "host" if self.cycle % 8 == 5 else None

    @property
    def duration_s(self) -> float:
        """How long it runs in all."""
        return OOM_AFTER_S if self.oom else JOB_S

    @cached_property
    def started_at(self) -> float:
        """Unix time."""
        return self.cycle * CYCLE_S - self.gpu * _OFFSET_S

    @property
    def ended_at(self) -> float | None:
        """Unix time; None while it runs."""
        end = self.started_at + self.duration_s
        return end if self.at >= end else None

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        if self.ended_at is None:
            return None
        return {None: 0, "gpu": 1, "host": 137}[self.oom]

    @property
    def running_s(self) -> float:
        """For how long it has run."""
        return min(max(self.at - self.started_at, 0.0), self.duration_s)

    @property
    def busy_ratio(self) -> float:
        """How busy it keeps its GPU now: what it does trembles a little."""
        return 0.9 + 0.08 * math.sin(self.running_s / 3) if self.ended_at is None else 0.0

    @property
    def gpu_milliseconds(self) -> int:
        """The integral of `busy_ratio` since its start."""
        # Whole numbers: their sums are exact, and no counter falls by a crumb, which Prometheus takes for a restart.
        return math.floor(900 * self.running_s + 240 * (1 - math.cos(self.running_s / 3)))

    @property
    def memory_ratio(self) -> float:
        """Its share of the GPU's memory now; one that dies of that takes all there is."""
        return self.memory_peak_ratio if self.ended_at is None else 0.0

    @property
    def memory_peak_ratio(self) -> float:
        """The most it has had; it only grows."""
        if self.oom == "gpu":
            return 0.97 * self.running_s / OOM_AFTER_S
        return 0.69 * min(1.0, self.running_s / 30)


def job_joules(gpu_milliseconds: int) -> float:
    """A job's energy: what its GPU takes above idling."""
    return (BUSY_WATTS - IDLE_WATTS) * gpu_milliseconds / 1000


def gpu_joules(gpu_milliseconds: int, now: float) -> float:
    """A GPU's energy since ORIGIN, of which its jobs kept it busy for that long."""
    idle_millijoules = math.floor(IDLE_WATTS * 1000 * max(now - ORIGIN, 0.0))
    return (idle_millijoules + (BUSY_WATTS - IDLE_WATTS) * gpu_milliseconds) / 1000


def job_at(gpu: int, now: float) -> DemoJob:
    """The job of a GPU's cycle at that time; it may have ended."""
    return DemoJob(gpu, math.floor((now + gpu * _OFFSET_S) / CYCLE_S), now)


def jobs_at(gpus: int, now: float, keep_s: float) -> Iterator[DemoJob]:
    """Those that run, and those that ended less than `keep_s` seconds ago."""
    for gpu in range(gpus):
        newest = job_at(gpu, now).cycle
        for cycle in range(newest - math.ceil(keep_s / CYCLE_S), newest + 1):
            job = DemoJob(gpu, cycle, now)
            if job.ended_at is None or now - job.ended_at < keep_s:
                yield job


@dataclass(frozen=True)
class DemoSum:
    """Jobs of a GPU since ORIGIN, the one that runs included."""

    jobs: int = 0
    gpu_milliseconds: int = 0
    gpu_ooms: int = 0
    host_ooms: int = 0

    def plus(self, job: DemoJob, times: int) -> DemoSum:
        """With so many more like this one."""
        died = job.oom if job.ended_at is not None else None
        return DemoSum(
            self.jobs + times,
            self.gpu_milliseconds + job.gpu_milliseconds * times,
            self.gpu_ooms + times * (died == "gpu"),
            self.host_ooms + times * (died == "host"),
        )


def sums_at(gpus: int, now: float) -> dict[tuple[int, str], DemoSum]:
    """By GPU and project."""
    found: dict[tuple[int, str], DemoSum] = {}
    for gpu in range(gpus):
        first, newest = job_at(gpu, ORIGIN).cycle, job_at(gpu, now).cycle
        # All jobs of one place in the pattern are alike, but for the newest, which may run.
        for cycle in range(first, min(first + _PATTERN, newest)):
            alike = DemoJob(gpu, cycle, now)
            key = gpu, alike.key.project_id
            found[key] = found.get(key, DemoSum()).plus(alike, math.ceil((newest - cycle) / _PATTERN))
        if newest >= first:
            last = DemoJob(gpu, newest, now)
            key = gpu, last.key.project_id
            found[key] = found.get(key, DemoSum()).plus(last, 1)
    return found
