"""The metrics of the box, its runner entries, and the exporter itself."""

from __future__ import annotations

from gpurig.runner.exporter.exposition.metric import Metric

BOX_METRICS = (
    Metric(
        "gpurig_build_info",
        "gauge",
        "1",
        ("version", "python"),
        "The exporter's version.",
    ),
    Metric(
        "gpurig_driver_info",
        "gauge",
        "1",
        ("backend", "driver", "library", "cuda"),
        "The GPU driver, and the library that the exporter reads it with.",
        nvidia="nvmlSystemGetDriverVersion, nvmlSystemGetNVMLVersion, nvmlSystemGetCudaDriverVersion",
        amd="/sys/module/amdgpu/version, else the kernel's release",
    ),
    Metric(
        "gpurig_detection_problems",
        "gauge",
        "count",
        ("source",),
        "Problems the last detection met; `gpurig detect` names them.",
    ),
    Metric(
        "gpurig_detection_ignored_gpus",
        "gauge",
        "count",
        (),
        "GPUs that are no runner GPUs: integrated ones beside a card, too old ones.",
    ),
    Metric(
        "gpurig_runner_entries",
        "gauge",
        "count",
        (),
        "Runner entries of this box.",
    ),
    Metric(
        "gpurig_runner_info",
        "gauge",
        "1",
        ("runner_id", "description", "tags"),
        "A runner entry: its number in GitLab, its description, its tags.",
    ),
    Metric(
        "gpurig_runner_token_expiry_timestamp_seconds",
        "gauge",
        "Unix time",
        ("runner_id",),
        "When the runner entry's token ends; no series for one that never does.",
    ),
    Metric(
        "gpurig_runner_vram_bytes",
        "gauge",
        "bytes",
        ("runner_id",),
        "The largest size that the runner entry's vram tags promise.",
    ),
    Metric(
        "gpurig_runner_jobs_running",
        "gauge",
        "count",
        ("runner",),
        "CI jobs that run now.",
    ),
    Metric(
        "gpurig_images_bytes",
        "gauge",
        "bytes",
        ("kind",),
        "Size of gpurig's images on the engine: job, exporter, runner.",
    ),
    Metric(
        "gpurig_models_bytes",
        "gauge",
        "bytes",
        (),
        "Size of the box's models.",
    ),
    Metric(
        "gpurig_disk_free_bytes",
        "gauge",
        "bytes",
        ("purpose",),
        "Free space where models, or the engine's images and containers, lie.",
    ),
    Metric(
        "gpurig_disk_total_bytes",
        "gauge",
        "bytes",
        ("purpose",),
        "Size of that file system.",
    ),
    Metric(
        "gpurig_collector_success",
        "gauge",
        "0 or 1",
        ("collector",),
        "1 when the collector's last reading succeeded.",
    ),
    Metric(
        "gpurig_collector_duration_seconds",
        "gauge",
        "s",
        ("collector",),
        "How long the collector's last reading took.",
    ),
    Metric(
        "gpurig_collector_age_seconds",
        "gauge",
        "s",
        ("collector",),
        "Time since the collector's last successful reading.",
    ),
    Metric(
        "gpurig_collector_period_seconds",
        "gauge",
        "s",
        ("collector",),
        "Time between two readings now; longer while nothing uses the GPUs.",
    ),
)
