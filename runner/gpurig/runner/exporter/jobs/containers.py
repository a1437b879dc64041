"""Bookkeeping of CI jobs' containers: the engine's events and listings tell of them in any order, and repeatedly."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from gpurig.runner.exporter.jobs.model import JobContainer, JobKey, OomKind

# gitlab-runner's own labels on job containers (executors/docker/internal/labels/labels.go).
LABEL = "com.gitlab.gitlab-runner"
JOB_LABEL = f"{LABEL}.job.id"

_NUMBER = re.compile(r"[0-9]{1,20}")
_WORD = re.compile(r"[A-Za-z0-9_.-]{0,64}")
_ID = re.compile(r"[0-9a-f]{64}")

# How long a container that ended is told of, in seconds, and how many of those, and of those that run, at most.
KEEP_S = 600.0
MOST_ENDED = 256
MOST_RUNNING = 1024

# A list may be made a moment before or after it was asked for, by the engine's clock.
_ASKED_S = 1.0

# What a program that runs out of the GPU's memory never ends with: it is these that somebody else's signal makes.
# SIGINT, SIGKILL (without the host's own OOM killer: a job that was cancelled or took too long) and SIGTERM.
_BY_SIGNAL = frozenset({130, 137, 143})


def job_of(labels: Mapping[str, object]) -> tuple[JobKey, str] | None:
    """Whose container it is, and what kind of one, by gitlab-runner's labels; None where it is no job's.

    Anybody who may start containers may label them: values that gitlab-runner does not write are refused.
    """
    job, project, pipeline, runner, kind = (
        str(labels.get(f"{LABEL}.{name}", "")) for name in ("job.id", "project.id", "pipeline.id", "runner.id", "type")
    )
    numbers_fine = _NUMBER.fullmatch(job) and _NUMBER.fullmatch(project)
    words_fine = (not pipeline or _NUMBER.fullmatch(pipeline)) and _WORD.fullmatch(runner) and _WORD.fullmatch(kind)
    if not (numbers_fine and words_fine):
        return None
    return JobKey(job_id=job, project_id=project, pipeline_id=pipeline, runner=runner), kind


def may_be_gpu_oom(container: JobContainer, exit_code: int) -> bool:
    """Whether its log is worth a look: it runs the job's own programs, and ended as a failing program ends."""
    return container.kind in {"build", "service"} and exit_code not in {0, *_BY_SIGNAL}


@dataclass(frozen=True)
class _Seen:
    """A container.

    Attributes:
        told: what is told of it.
        run_at: when its present or last run began.
        first: that is its first run: gitlab-runner starts the build container again for after_script, which says
            nothing of how the job ended.
        starved: the kernel killed something in its first run for want of memory.
    """

    told: JobContainer
    run_at: float
    first: bool = True
    starved: bool = False


class JobContainers:
    """What is known of the containers of jobs.

    The same news may come twice, by an event and by a listing, and old news after new: all of it is told with the
    engine's own times, which order the runs of a container.
    """

    def __init__(self, *, keep_s: float = KEEP_S) -> None:
        """Nothing is known yet; a container that ended is told of for `keep_s` seconds."""
        self._keep_s = keep_s
        self._seen: dict[str, _Seen] = {}

    def get(self, container_id: str) -> JobContainer | None:
        """What is told of a container; None for one that is not known."""
        seen = self._seen.get(container_id)
        return None if seen is None else seen.told

    def run_at(self, container_id: str) -> float:
        """When its present or last run began, Unix time; 0 for one that is not known."""
        seen = self._seen.get(container_id)
        return 0.0 if seen is None else seen.run_at

    def runs(self, container_id: str) -> bool:
        """Whether it is known and has not ended."""
        told = self.get(container_id)
        return told is not None and told.ended_at is None

    def started(self, container_id: str, labels: Mapping[str, object], at: float) -> None:
        """A run of it began at `at`; nothing where it is no job's."""
        seen = self._seen.get(container_id)
        if seen is None:
            job = job_of(labels)
            if job is not None and _ID.fullmatch(container_id):
                key, kind = job
                self._seen[container_id] = _Seen(JobContainer(container_id, key, kind, started_at=at), run_at=at)
            return
        if seen.told.ended_at is not None and at > seen.told.ended_at:
            self._seen[container_id] = _Seen(replace(seen.told, ended_at=None), run_at=at, first=False)

    def starved(self, container_id: str) -> None:
        """The kernel killed a process in it for want of the host's memory.

        That alone is no death: what was killed may have been started again. It counts when the container fails.
        """
        seen = self._seen.get(container_id)
        if seen is None or not seen.first:
            return
        self._seen[container_id] = replace(seen, starved=True)
        if seen.told.ended_at is not None:
            # The news of its end came first.
            self.ended(container_id, seen.told.ended_at, seen.told.exit_code)

    def ended(
        self, container_id: str, at: float, exit_code: int | None, *, oom: OomKind | None = None, detail: str = ""
    ) -> None:
        """A run of it ended.

        Args:
            container_id: whose.
            at: Unix time.
            exit_code: None where it is not known.
            oom: which memory it lacked, where somebody knows better than the events.
            detail: the line that says so.
        """
        seen = self._seen.get(container_id)
        if seen is None or at < seen.run_at:
            return
        told = seen.told
        if told.exit_code is None and exit_code is not None:
            told = replace(told, exit_code=exit_code)
        kind = oom or ("host" if seen.starved and exit_code else None)
        if seen.first and told.oom is None and kind is not None:
            told = replace(told, oom=kind, oom_detail=detail)
        ended_at = at if told.ended_at is None else told.ended_at
        self._seen[container_id] = replace(seen, told=replace(told, ended_at=ended_at))

    def only(self, present: Collection[str], asked_at: float) -> None:
        """These are all that the engine had at `asked_at`: one that ran then and is not among them ended unseen."""
        for container_id in self._seen.keys() - set(present):
            if self.runs(container_id) and self.run_at(container_id) < asked_at - _ASKED_S:
                self.ended(container_id, asked_at, None)

    def told(self, now: float) -> tuple[JobContainer, ...]:
        """Those that run, and those that ended within the last minutes, in the order of their start."""
        for container_id, seen in list(self._seen.items()):
            if seen.told.ended_at is not None and now - seen.told.ended_at > self._keep_s:
                del self._seen[container_id]
        every = [seen.told for seen in self._seen.values()]
        ended = sorted((one for one in every if one.ended_at is not None), key=lambda one: one.ended_at or 0.0)
        running = sorted((one for one in every if one.ended_at is None), key=lambda one: one.started_at)
        for one in (*ended[:-MOST_ENDED], *running[:-MOST_RUNNING]):
            del self._seen[one.id]
        kept = (*ended[-MOST_ENDED:], *running[-MOST_RUNNING:])
        return tuple(sorted(kept, key=lambda one: (one.started_at, one.id)))
