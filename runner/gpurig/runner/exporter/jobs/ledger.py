"""The ledger: what each CI job and each project used of each GPU, from the shares of every reading.

Everything in it is bounded: jobs that ended expire, projects beyond a number are summed, and of the containers that
nobody told of only the latest wait to be told of.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from gpurig.runner.exporter.jobs.attribution import Share
from gpurig.runner.exporter.jobs.model import BoxFacts, GpuUse, JobContainer, JobKey, JobUse, OomKind, ProjectUse

OTHER = "other"
# Labels come from outside; GitLab's numbers are far shorter.
_LONGEST_LABEL = 64
# A container of which nothing was told after so long is no job's.
_UNKNOWN_S = 600.0
# A job that ended within this time is news, although nobody saw it run.
_NEWS_S = 60.0
# gitlab-runner stops one container of a job before it starts the next.
_SETTLE_S = 10.0


@dataclass(frozen=True)
class Limits:
    """How much the ledger remembers.

    Attributes:
        keep_finished_s: seconds for which a job that ended is still shown.
        jobs: that many jobs at once; of those that ended the oldest go first.
        projects: that many have a sum of their own; later ones are summed as "other".
        unknown: that many containers wait to be told of; the one longest not seen goes first.
    """

    keep_finished_s: float = 300.0
    jobs: int = 200
    projects: int = 200
    unknown: int = 64


@dataclass(slots=True)
class Use:
    """What a job, or a container nobody knows yet, used of one GPU; as GpuUse, growing."""

    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    busy_s: float | None = None
    joules: float | None = None

    def add(self, share: Share) -> None:
        """Add time and energy; memory is the caller's, because a job may have several containers on the GPU."""
        self.busy_s = _plus(self.busy_s, share.busy_s)
        self.joules = _plus(self.joules, share.joules)

    def hold(self, memory_bytes: int | None) -> None:
        """Hold so much memory from now on."""
        self.memory_bytes = memory_bytes
        if memory_bytes is not None:
            self.memory_peak_bytes = max(self.memory_peak_bytes or 0, memory_bytes)


@dataclass(slots=True)
class Job:
    """A job of the ledger.

    Attributes:
        uses: by the GPU's UUID.
        started_at: Unix time, of its first container.
        ended_at: Unix time; None while it runs.
        ooms: each container that died for want of memory, with its start: told again, it is not another one.
        counted: whether its project's number of jobs has it.
        quiet_at: monotonic time since when none of its containers runs; None while one does.
        quiet_end: Unix time at which the last of them ended.
        shown: the JobUse of the last change; None since then.
    """

    key: JobKey
    started_at: float
    uses: dict[str, Use] = field(default_factory=dict)
    ended_at: float | None = None
    exit_code: int | None = None
    ooms: set[tuple[str, OomKind, float]] = field(default_factory=set)
    counted: bool = False
    quiet_at: float | None = None
    quiet_end: float | None = None
    shown: JobUse | None = None

    def use(self) -> JobUse:
        """The job as the world may see it."""
        if self.shown is None:
            self.shown = JobUse(
                key=self.key,
                uses=tuple(
                    GpuUse(
                        uuid,
                        memory_bytes=0 if self.ended_at is not None else use.memory_bytes,
                        memory_peak_bytes=use.memory_peak_bytes,
                        gpu_seconds=use.busy_s,
                        energy_joules=use.joules,
                    )
                    for uuid, use in sorted(self.uses.items())
                ),
                started_at=self.started_at,
                ended_at=self.ended_at,
                exit_code=self.exit_code,
                oom=_count(kind for _, kind, _ in self.ooms),
            )
        return self.shown


@dataclass(slots=True)
class _Unknown:
    uses: dict[str, Use]
    seen_at: float


def _count(kinds: Iterable[OomKind]) -> dict[OomKind, int]:
    counts: dict[OomKind, int] = {}
    for kind in kinds:
        counts[kind] = counts.get(kind, 0) + 1
    return counts


class Ledger:
    """Jobs and projects; one thread at a time.

    `changed_jobs` and `changed_projects` collect what is not as it was; who publishes the ledger empties them.
    """

    def __init__(
        self, limits: Limits | None = None, jobs: Iterable[Job] = (), projects: Iterable[ProjectUse] = ()
    ) -> None:
        """Begin with what an earlier process left."""
        self.limits = limits or Limits()
        self.jobs: dict[JobKey, Job] = {job.key: job for job in jobs}
        self.projects: dict[str, ProjectUse] = {project.project_id: project for project in projects}
        self.changed_jobs: set[JobKey] = set()
        self.changed_projects: set[str] = set()
        self._owners: dict[str, JobKey] = {}
        self._unknown: dict[str, _Unknown] = {}
        self._expired: set[JobKey] = set()

    def resume(self, now: float, wall: float) -> None:
        """Go on with the jobs of an earlier process: those that ended are shown for the rest of their time.

        Args:
            now: monotonic time.
            wall: Unix time.
        """
        for job in self.jobs.values():
            if job.ended_at is not None:
                job.quiet_at, job.quiet_end = now - max(0.0, wall - job.ended_at), job.ended_at

    def owner_of(self, containers: tuple[str, ...]) -> str | None:
        """Which of the containers that a process is in counts: the outermost of those that are jobs'.

        What a job starts in a container of its own (Docker in Docker) is the job's. Where none of them was told of, it
        is the outermost; None where there is none.

        Args:
            containers: the innermost first.
        """
        if not containers:
            return None
        return next((one for one in reversed(containers) if one in self._owners), containers[-1])

    def told(self, facts: BoxFacts, now: float) -> None:
        """Take what the watcher tells of containers; where it could not ask the engine, that is nothing.

        Args:
            facts: the newest.
            now: on the monotonic clock.
        """
        if "engine" in facts.problems:
            return
        listed: dict[JobKey, list[JobContainer]] = {}
        self._owners = {}
        for container in facts.containers:
            key = _bounded(container.job)
            listed.setdefault(key, []).append(container)
        self._expired &= listed.keys()
        for key, containers in sorted(listed.items()):
            job = self._job(key, containers, facts.written_at)
            if job is None:
                continue
            self._owners.update((one.id, key) for one in containers)
            self._follow(job, containers, facts.written_at, now)
            for one in sorted(containers, key=lambda each: each.id):
                self._claim(job, one.id)
        for key, job in self.jobs.items():
            if key not in listed and job.ended_at is None:
                self._follow(job, [], facts.written_at, now)

    def _job(self, key: JobKey, containers: list[JobContainer], written_at: float) -> Job | None:
        """The job, a new one where it is not known; None where it is not to be shown."""
        job = self.jobs.get(key)
        if job is not None:
            return job
        last_end, oldest = _end(containers), written_at - max(self.limits.keep_finished_s, _NEWS_S)
        if key in self._expired or (last_end is not None and last_end < oldest):
            return None
        if len(self.jobs) >= self.limits.jobs:
            ended = [one for one in self.jobs.values() if one.ended_at is not None]
            if not ended:
                return None
            self._expire(min(ended, key=lambda one: (one.quiet_at or 0.0, one.key)))
        job = self.jobs[key] = Job(key, started_at=min(one.started_at for one in containers))
        self.changed_jobs.add(key)
        return job

    def _follow(self, job: Job, containers: list[JobContainer], written_at: float, now: float) -> None:
        """Take what is told of the job's containers."""
        before = job.started_at, job.exit_code, job.ended_at, len(job.ooms)
        for one in containers:
            job.started_at = min(job.started_at, one.started_at)
            if one.kind == "build" and one.exit_code is not None:
                job.exit_code = one.exit_code
            if one.oom is not None and (event := (one.id, one.oom, one.started_at)) not in job.ooms:
                job.ooms.add(event)
                project = self._project(job)
                self._set(replace(project, oom={**project.oom, one.oom: project.oom.get(one.oom, 0) + 1}))
        if containers and _end(containers) is None:
            job.quiet_at = job.quiet_end = job.ended_at = None
        else:
            if job.quiet_at is None:
                job.quiet_at = now
            if containers or job.quiet_end is None:
                job.quiet_end = _end(containers) or written_at
            self._settle(job, now if containers else math.inf)
        if before != (job.started_at, job.exit_code, job.ended_at, len(job.ooms)):
            self._touch(job)

    def _settle(self, job: Job, now: float) -> None:
        """End the job where all of its containers ended a while ago."""
        if job.ended_at is not None or job.quiet_at is None or now - job.quiet_at < _SETTLE_S:
            return
        # The clock may have been set back meanwhile; a job does not end before it starts.
        job.ended_at = max(job.started_at, job.quiet_end or job.started_at)
        for use in job.uses.values():
            use.memory_bytes = 0
        self._touch(job)

    def _claim(self, job: Job, container: str) -> None:
        """Give the job what one of its containers used before it was told of."""
        unknown = self._unknown.pop(container, None)
        for uuid, use in unknown.uses.items() if unknown is not None else ():
            self._add(job, uuid, Share(use.memory_bytes, use.busy_s, use.joules))
            mine = job.uses[uuid]
            mine.hold(use.memory_peak_bytes)
            mine.hold(use.memory_bytes)

    def add(self, uuid: str, shares: Mapping[str, Share] | None, now: float) -> None:
        """Add a reading of a GPU.

        Args:
            uuid: the GPU's.
            shares: by container; None where it is not known who uses the GPU now.
            now: on the monotonic clock.
        """
        held: dict[JobKey, int | None] = {}
        for container, share in sorted((shares or {}).items()):
            key = self._owners.get(container)
            if key is None:
                self._wait(container, uuid, share, now)
                continue
            self._add(self.jobs[key], uuid, share)
            memory, before = share.memory_bytes, held.get(key)
            held[key] = before if memory is None else memory + (before or 0)
        for key, job in self.jobs.items():
            use = job.uses.get(uuid)
            if use is None:
                continue
            if key in held:
                use.hold(held[key])
            elif use.memory_bytes != (memory := None if shares is None and job.ended_at is None else 0):
                use.hold(memory)
                self._touch(job)

    def _add(self, job: Job, uuid: str, share: Share) -> None:
        use = job.uses.get(uuid)
        if use is None:
            use = job.uses[uuid] = Use()
        use.add(share)
        project = self._project(job)
        if share.busy_s is not None or share.joules is not None or not job.counted:
            self._set(
                replace(
                    project,
                    jobs=project.jobs + (not job.counted),
                    gpu_seconds=_plus(project.gpu_seconds, share.busy_s),
                    energy_joules=_plus(project.energy_joules, share.joules),
                )
            )
            job.counted = True
        self._touch(job)

    def _wait(self, container: str, uuid: str, share: Share, now: float) -> None:
        unknown = self._unknown.get(container)
        if unknown is None:
            if len(self._unknown) >= self.limits.unknown:
                del self._unknown[min(self._unknown, key=lambda one: (self._unknown[one].seen_at, one))]
            unknown = self._unknown[container] = _Unknown({}, now)
        unknown.seen_at = now
        use = unknown.uses.setdefault(uuid, Use())
        use.add(share)
        use.hold(share.memory_bytes)

    def expire(self, now: float) -> None:
        """End the jobs that ended, and let go of what was kept long enough."""
        for job in tuple(self.jobs.values()):
            self._settle(job, now)
            if job.ended_at is not None and now - (job.quiet_at or 0.0) >= self.limits.keep_finished_s:
                self._expire(job)
        for container in [one for one, unknown in self._unknown.items() if now - unknown.seen_at >= _UNKNOWN_S]:
            del self._unknown[container]

    def _expire(self, job: Job) -> None:
        del self.jobs[job.key]
        self._expired.add(job.key)
        self.changed_jobs.discard(job.key)
        self._owners = {container: key for container, key in self._owners.items() if key != job.key}

    def _touch(self, job: Job) -> None:
        job.shown = None
        self.changed_jobs.add(job.key)

    def _project(self, job: Job) -> ProjectUse:
        wanted = job.key.project_id
        if wanted not in self.projects and len(self.projects) >= self.limits.projects:
            wanted = OTHER
        return self.projects.get(wanted) or ProjectUse(wanted)

    def _set(self, project: ProjectUse) -> None:
        self.projects[project.project_id] = project
        self.changed_projects.add(project.project_id)


def _plus(total: float | None, more: float | None) -> float | None:
    return total if more is None else (total or 0.0) + more


def _bounded(key: JobKey) -> JobKey:
    if max(len(key.job_id), len(key.project_id), len(key.pipeline_id), len(key.runner)) <= _LONGEST_LABEL:
        return key
    return JobKey(*(one[:_LONGEST_LABEL] for one in (key.job_id, key.project_id, key.pipeline_id, key.runner)))


def _end(containers: list[JobContainer]) -> float | None:
    """When the last of them ended; None while one runs, or where there is none."""
    ends = [one.ended_at for one in containers]
    return max((end for end in ends if end is not None), default=None) if None not in ends else None
