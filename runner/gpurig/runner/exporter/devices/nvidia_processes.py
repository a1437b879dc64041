"""Which processes use an NVIDIA card, and how much.

NVML lists a process once for what it computes and once for what it draws, each time with all its memory. How busy it
kept the card stands elsewhere: nvmlDeviceGetProcessUtilization gives a mean since a time for each process that used the
card since then, and NVML_ERROR_NOT_FOUND where none did or where the driver took no sample since then; it takes one
each sixth of a second to each second, depending on the card.
https://docs.nvidia.com/deploy/nvml-api/group__nvmlGridQueries.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gpurig.provisioning.nvml import NOT_FOUND
from gpurig.runner.exporter.devices.figures import GpuProcess
from gpurig.runner.exporter.devices.nvidia_device import Question

# How long the last samples stand while the card works and the driver has no newer ones: twice its longest period.
_STANDS_US = 2_000_000
# The first question is about the last second.
_FIRST_US = 1_000_000
# nvml.h: the instance of a process on a card that is not split.
_NO_INSTANCE = 2**32 - 1


def merge_processes(told: Mapping[str, Any], use: Mapping[int, float] | None) -> tuple[GpuProcess, ...] | None:
    """The processes of one card, or of one part, by pid; None where the driver does not tell.

    Args:
        told: answers: "compute" and "graphics" are lists of what NVML calls nvmlProcessInfo_t; "gpu instance" and
            "compute instance" say which part was asked, and processes of others are left out.
        use: how busy each kept the card, 0 to 1: one that is missing did not; None where the driver does not tell.
    """
    listed = [told[name] for name in ("compute", "graphics") if name in told]
    if not listed:
        return None
    memory: dict[int, int | None] = {}
    for process in (process for processes in listed for process in processes):
        if not _is_here(process, told):
            continue
        known = memory.get(process.pid)
        # None is a driver that does not tell (WDDM).
        memory[process.pid] = max(filter(None, (known, process.usedGpuMemory)), default=process.usedGpuMemory)
    return tuple(
        GpuProcess(
            pid,
            memory_bytes=used,
            # Windows lists its programs for WSL2 without memory, and samples none of them.
            utilization_ratio=None if use is None else use.get(pid, None if used is None else 0.0),
        )
        for pid, used in sorted(memory.items())
    )


def _is_here(process: Any, told: Mapping[str, Any]) -> bool:
    for name, attribute in (("gpu instance", "gpuInstanceId"), ("compute instance", "computeInstanceId")):
        own, its = told.get(name), getattr(process, attribute, _NO_INSTANCE)
        if own is not None and its not in {own, _NO_INSTANCE}:
            return False
    return True


class ProcessUse:
    """How busy processes keep one card; remembers up to which time it knows that."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Take the clock, Unix time in seconds: the driver stamps its samples with it."""
        self._now = now
        self._known_until_us = 0
        self._use: dict[int, float] = {}
        self.question = Question("process use", (self._ask,))

    def _ask(self, nvml: Any, device: Any) -> Mapping[int, float]:
        """Shares by pid, 0 to 1; a process that is not there did not use the card.

        Raises:
            NVMLError: the driver does not tell.
        """
        now_us = int(self._now() * 1e6)
        # A clock that was set back, or a sample from the future, would hide all others.
        since_us = self._known_until_us if self._known_until_us <= now_us else 0
        since_us = max(since_us, now_us - 60 * 1_000_000) if since_us else now_us - _FIRST_US
        try:
            samples = nvml.nvmlDeviceGetProcessUtilization(device, since_us)
        except nvml.NVMLError as error:
            # The binding raises NVML_SUCCESS for an empty list.
            if error.value not in {NOT_FOUND, 0}:
                raise
            samples = ()
        fresh = [sample for sample in samples if since_us < sample.timeStamp <= now_us + _FIRST_US]
        if fresh:
            self._known_until_us = max(sample.timeStamp for sample in fresh)
            self._use = _shares(fresh)
        elif now_us - self._known_until_us > _STANDS_US:
            self._use = {}
        return self._use


def _shares(samples: Iterable[Any]) -> dict[int, float]:
    """The latest sample of each process that is a percentage; drivers give garbage now and then."""
    ordered = sorted(samples, key=lambda sample: int(sample.timeStamp))
    return {sample.pid: sample.smUtil / 100 for sample in ordered if sample.smUtil <= 100}
