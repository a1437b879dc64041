"""The GPU use of the pipeline's jobs, as the reports show it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gpurig.common.amounts import energy_text, gib_text, seconds_text
from gpurig.evaljobs.results import GpuCardUse, JobGpuUse, Results

_SHOWN_JOBS = 20
_OOM_WORDS = {"gpu": "ran out of GPU memory", "host": "ran out of main memory"}


@dataclass(frozen=True)
class GpuUseRow:
    """One job on one GPU, in words; "" for what is not known."""

    job_id: str
    job: str
    gpu: str
    peak: str
    seconds: str
    energy: str


@dataclass(frozen=True)
class GpuUseSum:
    """What a run used of the GPUs; None where nothing tells.

    Attributes:
        memory_peak_bytes: the highest peak of one job on one GPU, and `memory_total_bytes` of that GPU.
        gpu_seconds, energy_joules: added up.
    """

    memory_peak_bytes: float | None
    memory_total_bytes: float | None
    gpu_seconds: float | None
    energy_joules: float | None


def use_rows(results: Results) -> list[GpuUseRow]:
    """A row for each job and GPU, of the last jobs."""
    return [
        GpuUseRow(
            job_id=job.job_id,
            job=_job_words(job, results),
            gpu=card.name or "GPU",
            peak=_peak(card),
            seconds="" if card.gpu_seconds is None else seconds_text(card.gpu_seconds),
            energy="" if card.energy_joules is None else energy_text(card.energy_joules),
        )
        for job in results.gpu_use[-_SHOWN_JOBS:]
        for card in job.gpus
    ]


def deaths(results: Results) -> list[str]:
    """A sentence for each job that died for want of memory."""
    return [
        f"Job {job.job_id} {_OOM_WORDS[kind]}."
        for job in results.gpu_use[-_SHOWN_JOBS:]
        for kind in job.oom
        if kind in _OOM_WORDS
    ]


def left_out(results: Results) -> int:
    """How many earlier jobs the rows leave out."""
    return max(0, len(results.gpu_use) - _SHOWN_JOBS)


def run_use(results: Results) -> GpuUseSum | None:
    """What the run used: this job's use; that of the whole pipeline where this job used no GPU (a job that reports).

    None where no job used one.
    """
    own = [job for job in results.gpu_use if job.job_id == results.job.id and job.gpus]
    cards = [card for job in own or results.gpu_use for card in job.gpus]
    if not cards:
        return None
    highest = max(cards, key=lambda card: -1.0 if card.memory_peak_bytes is None else card.memory_peak_bytes)
    return GpuUseSum(
        memory_peak_bytes=highest.memory_peak_bytes,
        memory_total_bytes=highest.memory_total_bytes,
        gpu_seconds=_sum(card.gpu_seconds for card in cards),
        energy_joules=_sum(card.energy_joules for card in cards),
    )


def own_text(results: Results) -> str:
    """This job's use in one line; "" where it is not known."""
    return next((job.text for job in results.gpu_use if job.job_id == results.job.id), "")


def _job_words(job: JobGpuUse, results: Results) -> str:
    if job.job_id == results.job.id:
        return "this job"
    return "" if job.ended else "still running"


def _peak(card: GpuCardUse) -> str:
    if card.memory_peak_bytes is None:
        return ""
    of = "" if card.memory_total_bytes is None else f" of {gib_text(card.memory_total_bytes)}"
    return f"{gib_text(card.memory_peak_bytes)}{of} GiB"


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
