"""The jobs and the box of the demo: what the engine, state.json and job accounting would tell of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpurig.provisioning.facts import Gpu
from gpurig.runner.exporter.demo_schedule import (
    ORIGIN,
    RUNNERS,
    DemoJob,
    DemoSum,
    gpu_joules,
    job_joules,
    jobs_at,
    sums_at,
)
from gpurig.runner.exporter.devices.xid import XidSeen
from gpurig.runner.exporter.jobs.model import (
    Accounts,
    BoxFacts,
    Disk,
    GpuUse,
    JobContainer,
    JobUse,
    OomKind,
    ProjectUse,
    RunnerEntry,
)

_GB, _DAY_S = 10**9, 86400.0
_OOM_DETAIL = "CUDA out of memory. Tried to allocate 2.00 GiB."


def demo_box(now: float, gpus: Sequence[Gpu], keep_s: float) -> BoxFacts:
    """What the watcher would tell at that time; `keep_s` is for how many seconds ended jobs are shown."""
    tags = (("gpurig", "gpu", "cuda", "vram-16gb", "vram-24gb"), ("gpurig", "gpu", "rocm", "vram-16gb", "vram-24gb"))
    today = now // _DAY_S * _DAY_S
    return BoxFacts(
        written_at=now,
        containers=tuple(_container(job) for job in jobs_at(len(gpus), now, keep_s)),
        runners=tuple(
            RunnerEntry(
                id=1001 + number,
                description=f"demo box, GPU {number}",
                tags=tags[number],
                expires_at=today + 20 * _DAY_S if number else None,
                short=short,
            )
            for number, short in enumerate(RUNNERS)
        ),
        image_bytes={"job": 2_310_000_000, "exporter": 152_000_000, "runner": 98_000_000},
        model_bytes=int(14.2 * _GB),
        disks=(
            Disk("models", free_bytes=212 * _GB, total_bytes=500 * _GB),
            Disk("engine", free_bytes=int((60 - (now - today) / _DAY_S * 20) * _GB), total_bytes=250 * _GB),
        ),
    )


def _container(job: DemoJob) -> JobContainer:
    died = job.oom if job.ended_at is not None else None
    return JobContainer(
        id=f"{int(job.key.job_id):064x}",
        job=job.key,
        kind="build",
        started_at=job.started_at,
        ended_at=job.ended_at,
        exit_code=job.exit_code,
        oom=died,
        oom_detail=_OOM_DETAIL if died == "gpu" else "",
    )


def demo_accounts(now: float, gpus: Sequence[Gpu], keep_s: float) -> Accounts:
    """What job accounting would tell at that time."""
    sums = sums_at(len(gpus), now)
    projects = sorted({project for _, project in sums})
    return Accounts(
        jobs=tuple(_job(job, gpus[job.gpu]) for job in jobs_at(len(gpus), now, keep_s)),
        projects=tuple(
            _project(project, [one for (_, of), one in sums.items() if of == project]) for project in projects
        ),
        energy_joules={
            gpu.uuid: gpu_joules(sum(one.gpu_milliseconds for (number, _), one in sums.items() if number == index), now)
            for index, gpu in enumerate(gpus)
        },
    )


def _job(job: DemoJob, gpu: Gpu) -> JobUse:
    memory_bytes = gpu.memory_bytes or 0
    died = job.oom if job.ended_at is not None else None
    return JobUse(
        key=job.key,
        uses=(
            GpuUse(
                uuid=gpu.uuid,
                memory_bytes=int(memory_bytes * job.memory_ratio),
                memory_peak_bytes=int(memory_bytes * job.memory_peak_ratio),
                gpu_seconds=job.gpu_milliseconds / 1000,
                energy_joules=job_joules(job.gpu_milliseconds),
            ),
        ),
        started_at=job.started_at,
        ended_at=job.ended_at,
        exit_code=job.exit_code,
        oom={died: 1} if died else {},
    )


def _project(project_id: str, sums: Sequence[DemoSum]) -> ProjectUse:
    busy_ms = sum(one.gpu_milliseconds for one in sums)
    oom: dict[OomKind, int] = {"gpu": sum(one.gpu_ooms for one in sums), "host": sum(one.host_ooms for one in sums)}
    return ProjectUse(
        project_id,
        jobs=sum(one.jobs for one in sums),
        gpu_seconds=busy_ms / 1000,
        energy_joules=job_joules(busy_ms),
        oom=oom,
    )


def demo_xids(now: float, gpus: Sequence[Gpu]) -> Mapping[str, Mapping[int, XidSeen]]:
    """Errors that the driver would have reported, by UUID: at noon of each day a program on the first NVIDIA card."""
    first = next((gpu for gpu in gpus if gpu.backend == "cuda"), None)
    days = int((now - ORIGIN - _DAY_S / 2) // _DAY_S) + 1
    if first is None or days <= 0:
        return {}
    return {first.uuid: {13: XidSeen(days, ORIGIN + (days - 0.5) * _DAY_S)}}
