"""The metrics of CI jobs and of their projects."""

from __future__ import annotations

from typing import get_args

from gpurig.runner.exporter.exposition.metric import Metric, job_labels, of_jobs, of_projects, of_uses
from gpurig.runner.exporter.jobs.model import OomKind

_JOB = ("job_id", "project_id", "pipeline_id", "runner")

# Both, 0 included: from a counter that begins with 1 nobody sees an increase.
_OOM_KINDS: tuple[OomKind, ...] = get_args(OomKind)

JOB_METRICS = (
    Metric(
        "gpurig_job_gpu_memory_bytes",
        "gauge",
        "bytes",
        ("gpu", *_JOB),
        "GPU memory that a job's processes hold now.",
        of_uses(lambda use: use.memory_bytes),
        nvidia="processes' memory",
        amd="fdinfo, KFD's vram_*",
    ),
    Metric(
        "gpurig_job_memory_peak_bytes",
        "gauge",
        "bytes",
        ("gpu", *_JOB),
        "The most that a job's processes held of the GPU's memory, of all readings.",
        of_uses(lambda use: use.memory_peak_bytes),
        nvidia="the same",
        amd="the same",
    ),
    Metric(
        "gpurig_job_gpu_seconds_total",
        "counter",
        "s",
        ("gpu", *_JOB),
        "Time for which the job kept the GPU busy.",
        of_uses(lambda use: use.gpu_seconds),
        nvidia="nvmlDeviceGetProcessUtilization, else the GPU's own",
        amd="fdinfo drm-engine-*, KFD's cu_occupancy, else the GPU's own",
    ),
    Metric(
        "gpurig_job_energy_joules_total",
        "counter",
        "J",
        ("gpu", *_JOB),
        "The job's share of the GPU's energy.",
        of_uses(lambda use: use.energy_joules),
        nvidia="the GPU's energy",
        amd="the GPU's energy",
    ),
    Metric(
        "gpurig_job_oom_total",
        "counter",
        "count",
        (*_JOB, "memory"),
        "How often the job died for want of memory: of the GPU (gpu) or of the host (host).",
        lambda view: [
            ((*job_labels(one), kind), one.oom.get(kind, 0)) for one in view.accounts.jobs for kind in _OOM_KINDS
        ],
    ),
    Metric(
        "gpurig_job_start_timestamp_seconds",
        "gauge",
        "Unix time",
        _JOB,
        "When the job's first container started.",
        of_jobs(lambda job: job.started_at),
    ),
    Metric(
        "gpurig_job_end_timestamp_seconds",
        "gauge",
        "Unix time",
        _JOB,
        "When the job's last container ended; no series while it runs.",
        of_jobs(lambda job: job.ended_at),
    ),
    Metric(
        "gpurig_project_jobs_total",
        "counter",
        "count",
        ("project_id",),
        "Jobs of the project that used a GPU of this box.",
        of_projects(lambda one: one.jobs),
    ),
    Metric(
        "gpurig_project_gpu_seconds_total",
        "counter",
        "s",
        ("project_id",),
        "Time for which the project's jobs kept GPUs busy.",
        of_projects(lambda one: one.gpu_seconds),
    ),
    Metric(
        "gpurig_project_energy_joules_total",
        "counter",
        "J",
        ("project_id",),
        "The project's jobs' share of the GPUs' energy.",
        of_projects(lambda one: one.energy_joules),
    ),
    Metric(
        "gpurig_project_oom_total",
        "counter",
        "count",
        ("project_id", "memory"),
        "How often jobs of the project died for want of memory.",
        lambda view: [
            ((one.project_id, kind), one.oom.get(kind, 0)) for one in view.accounts.projects for kind in _OOM_KINDS
        ],
    ),
)
