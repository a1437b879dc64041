"""The metrics of the box, its runner entries, and the exporter itself."""

from __future__ import annotations

import platform
import re
from collections import Counter
from collections.abc import Sequence

from gpurig.common.version import __version__
from gpurig.provisioning.vram import GIB
from gpurig.runner.exporter.exposition.metric import Metric, Row
from gpurig.runner.exporter.exposition.view import View
from gpurig.runner.exporter.jobs.model import RunnerEntry

# The tags of provisioning/tags.py; a runner entry may have others, which say nothing.
_VRAM_TAG = re.compile(r"vram-([0-9]{1,5})gb")


def _problems(view: View) -> list[Row]:
    counts = Counter(problem.source for problem in view.facts.problems) if view.facts else {}
    return [((source,), count) for source, count in sorted(counts.items())]


def _entries(view: View) -> Sequence[RunnerEntry] | None:
    return view.box.runners if view.box else None


def _vram_bytes(entry: RunnerEntry) -> int | None:
    classes = (_VRAM_TAG.fullmatch(tag) for tag in entry.tags)
    return max((int(found[1]) * GIB for found in classes if found), default=None)


def _jobs_running(view: View) -> list[Row]:
    """Of every runner entry whose label is known, those without a job included."""
    if view.box is None:
        return []
    running = {one.job for one in view.box.containers if one.ended_at is None}
    counts = Counter({one.short: 0 for one in view.box.runners or () if one.short})
    counts.update(job.runner for job in running)
    return [((runner,), count) for runner, count in counts.items()]


BOX_METRICS = (
    Metric(
        "gpurig_build_info",
        "gauge",
        "1",
        ("version", "python"),
        "The exporter's version.",
        lambda _view: [((__version__, platform.python_version()), 1)],
    ),
    Metric(
        "gpurig_driver_info",
        "gauge",
        "1",
        ("backend", "driver", "library", "cuda"),
        "The GPU driver, and the library that the exporter reads it with.",
        lambda view: [((one.backend, one.driver, one.library, one.cuda), 1) for one in view.drivers],
        nvidia="nvmlSystemGetDriverVersion, nvmlSystemGetNVMLVersion, nvmlSystemGetCudaDriverVersion",
        amd="/sys/module/amdgpu/version, else the kernel's release",
    ),
    Metric(
        "gpurig_detection_problems",
        "gauge",
        "count",
        ("source",),
        "Problems the last detection met; `gpurig detect` names them.",
        _problems,
    ),
    Metric(
        "gpurig_detection_ignored_gpus",
        "gauge",
        "count",
        (),
        "GPUs that are no runner GPUs: integrated ones beside a card, too old ones.",
        lambda view: [((), len(view.facts.ignored))] if view.facts else [],
    ),
    Metric(
        "gpurig_runner_entries",
        "gauge",
        "count",
        (),
        "Runner entries of this box.",
        lambda view: [((), None if (entries := _entries(view)) is None else len(entries))],
    ),
    Metric(
        "gpurig_runner_info",
        "gauge",
        "1",
        ("runner_id", "description", "tags"),
        "A runner entry: its number in GitLab, its description, its tags.",
        lambda view: [((str(one.id), one.description, ",".join(one.tags)), 1) for one in _entries(view) or ()],
    ),
    Metric(
        "gpurig_runner_token_expiry_timestamp_seconds",
        "gauge",
        "Unix time",
        ("runner_id",),
        "When the runner entry's token ends; no series for one that never does.",
        lambda view: [((str(one.id),), one.expires_at) for one in _entries(view) or ()],
    ),
    Metric(
        "gpurig_runner_vram_bytes",
        "gauge",
        "bytes",
        ("runner_id",),
        "The largest size that the runner entry's vram tags promise.",
        lambda view: [((str(one.id),), _vram_bytes(one)) for one in _entries(view) or ()],
    ),
    Metric(
        "gpurig_runner_jobs_running",
        "gauge",
        "count",
        ("runner",),
        "CI jobs that run now.",
        _jobs_running,
    ),
    Metric(
        "gpurig_images_bytes",
        "gauge",
        "bytes",
        ("kind",),
        "Size of gpurig's images on the engine: job, exporter, runner.",
        lambda view: [((kind,), size) for kind, size in view.box.image_bytes.items()] if view.box else [],
    ),
    Metric(
        "gpurig_models_bytes",
        "gauge",
        "bytes",
        (),
        "Size of the box's models.",
        lambda view: [((), view.box.model_bytes)] if view.box else [],
    ),
    Metric(
        "gpurig_disk_free_bytes",
        "gauge",
        "bytes",
        ("purpose",),
        "Free space where models, or the engine's images and containers, lie.",
        lambda view: [((one.purpose,), one.free_bytes) for one in view.box.disks] if view.box else [],
    ),
    Metric(
        "gpurig_disk_total_bytes",
        "gauge",
        "bytes",
        ("purpose",),
        "Size of that file system.",
        lambda view: [((one.purpose,), one.total_bytes) for one in view.box.disks] if view.box else [],
    ),
    Metric(
        "gpurig_collector_success",
        "gauge",
        "0 or 1",
        ("collector",),
        "1 when the collector's last reading succeeded.",
        lambda view: [((one.name,), one.ok) for one in view.collectors],
    ),
    Metric(
        "gpurig_collector_duration_seconds",
        "gauge",
        "s",
        ("collector",),
        "How long the collector's last reading took.",
        lambda view: [((one.name,), one.duration_s) for one in view.collectors],
    ),
    Metric(
        "gpurig_collector_age_seconds",
        "gauge",
        "s",
        ("collector",),
        "Time since the collector's last successful reading.",
        lambda view: [((one.name,), one.age_s) for one in view.collectors],
    ),
    Metric(
        "gpurig_collector_period_seconds",
        "gauge",
        "s",
        ("collector",),
        "Time between two readings now; longer while nothing uses the GPUs.",
        lambda view: [((one.name,), one.period_s) for one in view.collectors],
    ),
)
