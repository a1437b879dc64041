"""The metrics of CI jobs and of their projects."""

from __future__ import annotations

from gpurig.runner.exporter.exposition.metric import Metric

_JOB = ("job_id", "project_id", "pipeline_id", "runner")

JOB_METRICS = (
    Metric(
        "gpurig_job_gpu_memory_bytes",
        "gauge",
        "bytes",
        ("gpu", *_JOB),
        "GPU memory that a job's processes hold now.",
        nvidia="processes' memory",
        amd="fdinfo, KFD's vram_*",
    ),
    Metric(
        "gpurig_job_memory_peak_bytes",
        "gauge",
        "bytes",
        ("gpu", *_JOB),
        "The most that a job's processes held of the GPU's memory, of all readings.",
        nvidia="the same",
        amd="the same",
    ),
    Metric(
        "gpurig_job_gpu_seconds_total",
        "counter",
        "s",
        ("gpu", *_JOB),
        "Time for which the job kept the GPU busy.",
        nvidia="nvmlDeviceGetProcessUtilization, else the GPU's own",
        amd="fdinfo drm-engine-*, KFD's cu_occupancy, else the GPU's own",
    ),
    Metric(
        "gpurig_job_energy_joules_total",
        "counter",
        "J",
        ("gpu", *_JOB),
        "The job's share of the GPU's energy.",
        nvidia="the GPU's energy",
        amd="the GPU's energy",
    ),
    Metric(
        "gpurig_job_oom_total",
        "counter",
        "count",
        (*_JOB, "memory"),
        "How often the job died for want of memory: of the GPU (gpu) or of the host (host).",
    ),
    Metric(
        "gpurig_job_start_timestamp_seconds",
        "gauge",
        "Unix time",
        _JOB,
        "When the job's first container started.",
    ),
    Metric(
        "gpurig_job_end_timestamp_seconds",
        "gauge",
        "Unix time",
        _JOB,
        "When the job's last container ended; no series while it runs.",
    ),
    Metric(
        "gpurig_project_jobs_total",
        "counter",
        "count",
        ("project_id",),
        "Jobs of the project that used a GPU of this box.",
    ),
    Metric(
        "gpurig_project_gpu_seconds_total",
        "counter",
        "s",
        ("project_id",),
        "Time for which the project's jobs kept GPUs busy.",
    ),
    Metric(
        "gpurig_project_energy_joules_total",
        "counter",
        "J",
        ("project_id",),
        "The project's jobs' share of the GPUs' energy.",
    ),
    Metric(
        "gpurig_project_oom_total",
        "counter",
        "count",
        ("project_id", "memory"),
        "How often jobs of the project died for want of memory.",
    ),
)
