"""What a job used of the GPUs, as a file that the job's own report can show.

One JSON file a job, `<project_id>/<job_id>.json`, described in docs/formats.md; config.toml mounts the folder read-only
into jobs at /run/gpurig/usage.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from gpurig.common.amounts import energy_text, gib_text, seconds_text
from gpurig.common.errors import ApplianceError
from gpurig.common.files import make_directory, write_atomic
from gpurig.provisioning.facts import Gpu
from gpurig.provisioning.tags import short_name
from gpurig.runner.exporter.jobs.model import GpuUse, JobKey, JobUse

SCHEMA = "gpurig.gpu-use/1"
KEEP_S = 7 * 86_400.0
_PRUNE_EVERY_S = 3_600.0
_REFRESH_S = 5.0
_LAST_SECOND = 253_402_300_799.0
# What becomes a path: GitLab's numbers, nothing else.
_NUMBER = re.compile(r"[0-9]{1,20}")
# With what a killed writer left of one.
_FILE = re.compile(r"[0-9]{1,20}\.json|\.[0-9]{1,20}\.json\..*\.tmp")

_OOM_WORDS = {
    "gpu": "The job ran out of GPU memory",
    "host": "The job ran out of main memory, and the kernel ended it",
}


class UsageFolder:
    """The folder of the files; one thread at a time."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; it is made with the first file."""
        self._folder = folder
        self._written: dict[JobKey, tuple[JobUse, float]] = {}
        self._pruned_at: float | None = None

    def write(self, jobs: Iterable[JobUse], gpus: Mapping[str, Gpu], now: float, written_at: float) -> None:
        """Write the files that are due: of a job that runs every few seconds, of one that ended once more.

        Args:
            jobs: all that are known; the same object means the same content.
            gpus: the box's, by UUID.
            now: monotonic time.
            written_at: Unix time.

        Raises:
            PrerequisiteError: a file cannot be written; the others are.
        """
        problem: ApplianceError | None = None
        written: dict[JobKey, tuple[JobUse, float]] = {}
        for job in jobs:
            last, last_at = self._written.get(job.key, (None, -math.inf))
            path = self._path(job.key)
            if path is None or last is job or (job.ended_at is None and now - last_at < _REFRESH_S):
                if last is not None:
                    written[job.key] = last, last_at
                continue
            try:
                # Whoever may remove what lies in the one folder may do so in the other.
                make_directory(path.parent, self._folder.stat().st_mode & 0o777 if self._folder.exists() else 0o755)
                write_atomic(path, summary_json(job, gpus, written_at), sync=job.ended_at is not None)
                written[job.key] = job, now
            except ApplianceError as error:
                problem = error
        self._written = written
        if problem is not None:
            raise problem

    def _path(self, key: JobKey) -> Path | None:
        if not (_NUMBER.fullmatch(key.project_id) and _NUMBER.fullmatch(key.job_id)):
            return None
        return self._folder / key.project_id / f"{key.job_id}.json"

    def prune(self, now: float, wall: float) -> None:
        """Remove the files that are older than a week, once an hour; what is not ours stays.

        Args:
            now: monotonic time.
            wall: Unix time.
        """
        if self._pruned_at is not None and now - self._pruned_at < _PRUNE_EVERY_S:
            return
        self._pruned_at = now
        # One that cannot be removed is tried again in an hour.
        with contextlib.suppress(OSError):
            for folder in self._folder.iterdir():
                if _NUMBER.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
                    _prune_folder(folder, wall - KEEP_S)


def _prune_folder(folder: Path, oldest: float) -> None:
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if _FILE.fullmatch(path.name) and path.lstat().st_mtime < oldest:
                path.unlink()
    with contextlib.suppress(OSError):
        # Only an empty one goes.
        folder.rmdir()


def summary_json(job: JobUse, gpus: Mapping[str, Gpu], written_at: float) -> str:
    """The file's text; docs/formats.md says what its fields mean.

    Args:
        job: the job.
        gpus: the box's, by UUID; of one that is not there name and size are unknown.
        written_at: Unix time.
    """
    return (
        json.dumps(
            {
                "schema": SCHEMA,
                "written": _iso(written_at),
                "job_id": job.key.job_id,
                "project_id": job.key.project_id,
                "pipeline_id": job.key.pipeline_id,
                "runner": job.key.runner,
                "started": _iso(job.started_at),
                "ended": None if job.ended_at is None else _iso(job.ended_at),
                "exit_code": job.exit_code,
                "gpus": [_gpu(use, gpus.get(use.uuid)) for use in job.uses],
                "oom": sorted(job.oom),
                "text": summary_text(job, gpus),
            },
            indent=1,
        )
        + "\n"
    )


def _gpu(use: GpuUse, gpu: Gpu | None) -> dict[str, object]:
    return {
        "uuid": use.uuid,
        "name": gpu.name if gpu else "",
        "memory_total_bytes": gpu.memory_bytes if gpu else None,
        "memory_peak_bytes": use.memory_peak_bytes,
        "gpu_seconds": None if use.gpu_seconds is None else round(use.gpu_seconds, 3),
        "energy_joules": None if use.energy_joules is None else round(use.energy_joules, 3),
    }


def summary_text(job: JobUse, gpus: Mapping[str, Gpu]) -> str:
    """The use in one line for people; what is not known is left out."""
    cards = _cards(job, gpus) or ["not used"]
    sums = [
        *_known_sum((use.gpu_seconds for use in job.uses), lambda seconds: f"{seconds_text(seconds)} GPU-seconds"),
        *_known_sum((use.energy_joules for use in job.uses), energy_text),
    ]
    use = ("; " if len(cards) > 1 else ", ").join(["; ".join(cards), *([", ".join(sums)] if sums else [])])
    return ". ".join([f"GPU: {use}", *(_OOM_WORDS[kind] for kind in sorted(job.oom))])


def _cards(job: JobUse, gpus: Mapping[str, Gpu]) -> list[str]:
    """Each model of card with the highest peak on one of that model."""
    models: dict[tuple[str, int | None], list[GpuUse]] = {}
    for use in job.uses:
        gpu = gpus.get(use.uuid)
        model = (short_name(gpu.name), gpu.memory_bytes) if gpu else ("unknown GPU", None)
        models.setdefault(model, []).append(use)
    return [_card(name, total, uses) for (name, total), uses in models.items()]


def _card(name: str, total: int | None, uses: list[GpuUse]) -> str:
    count = f"{len(uses)} x " if len(uses) > 1 else ""
    peak = max((use.memory_peak_bytes for use in uses if use.memory_peak_bytes is not None), default=None)
    if peak is None:
        return f"{count}{name}"
    of = "" if total is None else f" of {gib_text(total)}"
    return f"{count}{name}, peak {gib_text(peak)}{of} GiB"


def _known_sum(values: Iterable[float | None], text: Callable[[float], str]) -> list[str]:
    known = [value for value in values if value is not None]
    return [text(sum(known))] if known else []


def _iso(moment: float) -> str:
    # A clock may show anything; a date has four digits for the year.
    return (
        datetime.fromtimestamp(min(max(moment, 0.0), _LAST_SECOND), UTC)
        .isoformat(timespec="seconds")
        .replace("+00:00", "Z")
    )
