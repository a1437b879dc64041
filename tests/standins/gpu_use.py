"""Cards, and what jobs used of them."""

from __future__ import annotations

from typing import Any

from gpurig.provisioning.facts import Gpu
from gpurig.runner.exporter.jobs.model import GpuUse, JobKey, JobUse

from standins.accounting import EPOCH, GIB
from standins.accounting import key as job_key

CARD = Gpu("cuda", "gpu-a", "NVIDIA GeForce RTX 4090", "0000:01:00.0", memory_bytes=24564 * 1024**2)
OTHER = Gpu("rocm", "gpu-b", "AMD Radeon RX 7900 XTX", "0000:03:00.0", memory_bytes=24560 * 1024**2)
TWIN = Gpu("cuda", "gpu-c", "NVIDIA GeForce RTX 4090", "0000:02:00.0", memory_bytes=24564 * 1024**2)
GPUS = {one.uuid: one for one in (CARD, OTHER, TWIN)}


def used(
    uuid: str = "gpu-a", peak: float | None = 5.3, seconds: float | None = 412.4, joules: float | None = 38_210.0
) -> GpuUse:
    """A use of a GPU; the peak in GiB."""
    return GpuUse(uuid, 0, None if peak is None else int(peak * GIB), seconds, joules)


def job_use(*uses: GpuUse, key: JobKey | None = None, **more: Any) -> JobUse:
    """A job that ended, but for what `more` says."""
    return JobUse(key or job_key(7), uses, **{"started_at": EPOCH, "ended_at": EPOCH + 500} | more)
