"""The words of job accounting: what the engine tells of CI jobs, and what is known of their use of GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

# What ended a job for want of memory: the GPU's, or the host's.
OomKind = Literal["gpu", "host"]


@dataclass(frozen=True, order=True)
class JobKey:
    """A CI job, as gitlab-runner labels its containers (executors/docker/internal/labels/labels.go).

    Attributes:
        job_id, project_id, pipeline_id: GitLab's numbers.
        runner: what names the runner entry there.
    """

    job_id: str
    project_id: str
    pipeline_id: str
    runner: str


@dataclass(frozen=True)
class JobContainer:
    """A container of a job; a job has several: the build, its services, the helpers.

    Attributes:
        id: the engine's, 64 hexadecimal digits.
        kind: label `type`: build, predefined, service.
        started_at: Unix time in seconds.
        ended_at: Unix time; None while it runs, which it may do again: the build container runs once more for
            after_script.
        exit_code: of its first run, which is the job's script; None until that ended, or where it is not known.
        oom: what kind of memory it died of; None where it did not.
        oom_detail: the line that says so, of a program that ran out of the GPU's memory: what a job wrote, hostile.
    """

    id: str
    job: JobKey
    kind: str
    started_at: float
    ended_at: float | None = None
    exit_code: int | None = None
    oom: OomKind | None = None
    oom_detail: str = ""


@dataclass(frozen=True)
class RunnerEntry:
    """One runner entry of this box, without its token.

    Attributes:
        id: the runner's number in GitLab.
        description: as GitLab shows it.
        tags: its tags.
        expires_at: when its token ends, Unix time; None where it never does.
        short: what a job's container has as label `runner.id`; "" where it is not known.
    """

    id: int
    description: str
    tags: tuple[str, ...]
    expires_at: float | None = None
    short: str = ""


@dataclass(frozen=True)
class Disk:
    """Space where gpurig or the engine keeps something: `purpose` is models or engine."""

    purpose: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class BoxFacts:
    """What the watcher tells the exporter, which has neither the engine's socket nor a token.

    Attributes:
        written_at: Unix time.
        containers: of jobs that run, and of those that ended in the last minutes.
        runners: the runner entries; None where there is no state.json.
        image_bytes: size of gpurig's images on the engine, by kind: job, exporter, runner.
        model_bytes: size of the box's models folder; None where it is not known.
        disks: free space.
        sources: what is looked at: engine, logs, state, images, models, models-disk, engine-disk.
        problems: what could not be read, and why, by source.
    """

    written_at: float
    containers: tuple[JobContainer, ...] = ()
    runners: tuple[RunnerEntry, ...] | None = None
    image_bytes: Mapping[str, int] = field(default_factory=dict)
    model_bytes: int | None = None
    disks: tuple[Disk, ...] = ()
    sources: tuple[str, ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class GpuUse:
    """What a job used of one GPU, since it began; None where the card or its driver does not tell.

    Attributes:
        uuid: the GPU's.
        memory_bytes: now; 0 once the job has ended.
        memory_peak_bytes: the most that a reading saw.
        gpu_seconds: busy time of the GPU that is the job's.
        energy_joules: the GPU's energy that is the job's.
    """

    uuid: str
    memory_bytes: int | None = 0
    memory_peak_bytes: int | None = 0
    gpu_seconds: float | None = 0.0
    energy_joules: float | None = 0.0


@dataclass(frozen=True)
class JobUse:
    """A job and its use of each GPU.

    Attributes:
        key: which job.
        uses: by GPU, those that it used.
        started_at: Unix time, of its first container.
        ended_at: Unix time; None while it runs.
        exit_code: of its build container; None while it runs or where it is not known.
        oom: how often it died of which memory.
    """

    key: JobKey
    uses: tuple[GpuUse, ...]
    started_at: float
    ended_at: float | None = None
    exit_code: int | None = None
    oom: Mapping[OomKind, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ProjectUse:
    """The sum over a project's jobs on this box, those that ended long ago included; `project_id` may be "other".

    Time and energy are None where no card told them.
    """

    project_id: str
    jobs: int = 0
    gpu_seconds: float | None = None
    energy_joules: float | None = None
    oom: Mapping[OomKind, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Accounts:
    """What job accounting knows at one moment.

    Attributes:
        jobs: those that run, and those that ended lately.
        projects: their sums, over restarts of the exporter too.
        energy_joules: what each GPU took since its energy is counted, by UUID; not those that tell neither energy nor
            power.
    """

    jobs: tuple[JobUse, ...] = ()
    projects: tuple[ProjectUse, ...] = ()
    energy_joules: Mapping[str, float] = field(default_factory=dict)
