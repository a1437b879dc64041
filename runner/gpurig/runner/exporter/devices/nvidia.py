"""NVIDIA's figures, through NVML."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gpurig.provisioning.facts import Gpu
from gpurig.runner.exporter.devices.driver import DriverFacts
from gpurig.runner.exporter.devices.figures import Figures, SourceError
from gpurig.runner.exporter.devices.nvidia_device import GpuGone, NvmlDevice, NvmlGone, Question, check_presence
from gpurig.runner.exporter.devices.nvidia_fields import ALONE, OWN, PLACE, SHARED, figures_of
from gpurig.runner.exporter.devices.nvidia_processes import ProcessUse, merge_processes
from gpurig.runner.exporter.devices.nvml_session import NvmlSession
from gpurig.runner.exporter.devices.retry import Retry

_WHOLE = (*OWN, *ALONE, *SHARED)
_PART = (*OWN, *PLACE)
# A card that is lost: how seldom its handle is asked for, and how seldom NVML is begun anew to look for it.
_HANDLE_RETRY_S = 5.0
_REOPEN_RETRY_S = 60.0
_REOPEN_AFTER_S = 5.0


@dataclass
class _Lost:
    """A card that does not answer: why, since when, whether its driver hangs, when its handle is asked for again."""

    reason: str
    since: float
    hangs: bool = False
    retry: Retry = field(default_factory=Retry)


class NvidiaSource:
    """Reads NVML: what changes every second at every reading, the rest every `nvidia_device.SLOW_S` seconds."""

    def __init__(
        self,
        session: NvmlSession | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; NVML is not loaded yet.

        Args:
            session: NVML; one of its own by default.
            monotonic: the clock.
            now: Unix time in seconds.
        """
        self._session = session or NvmlSession(monotonic=monotonic)
        self._monotonic = monotonic
        self._now = now
        self._generation = 0
        self._devices: dict[str, NvmlDevice] = {}
        self._use: dict[str, ProcessUse] = {}
        self._lost: dict[str, _Lost] = {}
        self._reopening = Retry()

    @property
    def driver(self) -> DriverFacts | None:
        """The driver's and the library's versions; None before NVML was begun for the first time."""
        return self._session.driver

    def read(self, gpus: Sequence[Gpu]) -> Mapping[str, Figures]:
        """Figures by UUID; a GPU that does not answer has a reason instead.

        Raises:
            SourceError: NVML does not answer.
        """
        mine = [gpu for gpu in gpus if gpu.backend == "cuda"]
        if not mine:
            return {}
        try:
            with self._session.use() as nvml:
                self._forget_earlier()
                self._forget_others(mine)
                found = self._read_all(nvml, mine)
        except NvmlGone as error:
            self._session.close(self._generation)
            raise SourceError(f"NVML: {error}") from error
        self._look_for_lost()
        return found

    def close(self) -> None:
        """Let go of NVML."""
        self._session.close()

    def _forget_earlier(self) -> None:
        """Handles are worth nothing after a new beginning, and what a card did not support it may do now."""
        if self._generation != self._session.generation:
            self._generation = self._session.generation
            self._devices.clear()
            for lost in self._lost.values():
                if not lost.hangs:
                    lost.retry.worked()

    def _forget_others(self, gpus: Sequence[Gpu]) -> None:
        """Parts come and go; what is not asked for is nothing to look for."""
        wanted = {uuid for gpu in gpus for uuid in (gpu.uuid, gpu.parent)}
        for known in (self._devices, self._use, self._lost):
            for uuid in known.keys() - wanted:
                del known[uuid]

    def _read_all(self, nvml: Any, gpus: Sequence[Gpu]) -> dict[str, Figures]:
        # A split card is asked once for all its parts.
        cards: dict[str, Mapping[str, Any] | GpuGone] = {}
        found = {}
        for turn, gpu in enumerate(gpus, start=1):
            phase = turn / len(gpus)
            try:
                found[gpu.uuid] = (
                    self._read_part(nvml, gpu, cards, phase) if gpu.mig else self._read_card(nvml, gpu, phase)
                )
            except GpuGone as gone:
                found[gpu.uuid] = Figures(lost=str(gone))
        return found

    def _read_card(self, nvml: Any, gpu: Gpu, phase: float) -> Figures:
        told = dict(self._ask(nvml, gpu.uuid, gpu.index, _WHOLE, phase))
        if told.get("compute") or told.get("graphics"):
            use = self._use.setdefault(gpu.uuid, ProcessUse(self._now))
            told |= self._ask(nvml, gpu.uuid, gpu.index, (use.question,), phase)
        figures = figures_of(told, merge_processes(told, told.get("process use")))
        if gpu.unified and figures.memory_used_bytes is None:
            return replace(figures, memory_used_bytes=_held(figures))
        return figures

    def _read_part(self, nvml: Any, gpu: Gpu, cards: dict[str, Mapping[str, Any] | GpuGone], phase: float) -> Figures:
        if gpu.parent not in cards:
            try:
                cards[gpu.parent] = self._ask(nvml, gpu.parent, gpu.index.partition(":")[0], SHARED, phase)
            except GpuGone as gone:
                cards[gpu.parent] = gone
        card = cards[gpu.parent]
        if isinstance(card, GpuGone):
            raise card
        own = self._ask(nvml, gpu.uuid, "", _PART, phase)
        return figures_of({**card, **own}, merge_processes(own, None))

    def _ask(self, nvml: Any, uuid: str, index: str, questions: Sequence[Question], phase: float) -> Mapping[str, Any]:
        lost = self._lost.get(uuid)
        if lost is not None and self._monotonic() < lost.retry.at:
            raise GpuGone(lost.reason)
        try:
            device = self._devices.get(uuid) or self._open(nvml, uuid, index, phase)
            told = device.ask(questions)
        except GpuGone as gone:
            self._devices.pop(uuid, None)
            now = self._monotonic()
            lost = self._lost.setdefault(uuid, _Lost("", since=now))
            lost.reason = str(gone)
            lost.retry.failed(now, _HANDLE_RETRY_S)
            lost.retry.at = max(lost.retry.at, now + gone.pause_s)
            lost.hangs = gone.pause_s > 0
            raise
        self._lost.pop(uuid, None)
        return told

    def _open(self, nvml: Any, uuid: str, index: str, phase: float) -> NvmlDevice:
        """A handle by the UUID, which stays the card's when numbers change; by number where NVML tells no UUID."""
        try:
            if uuid.startswith(("GPU-", "MIG-")):
                handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
            else:
                handle = nvml.nvmlDeviceGetHandleByIndex(int(index or 0))
        except nvml.NVMLError as error:
            check_presence(error.value, error)
            raise GpuGone(str(error)) from error
        device = self._devices[uuid] = NvmlDevice(nvml, handle, monotonic=self._monotonic, phase=phase)
        return device

    def _look_for_lost(self) -> None:
        """Begin NVML anew while a card is lost, ever more seldom: NVML lists the cards only when it is begun."""
        now = self._monotonic()
        since = min((lost.since for lost in self._lost.values() if not lost.hangs), default=None)
        if since is None:
            self._reopening.worked()
            return
        if now - since < _REOPEN_AFTER_S or now < self._reopening.at:
            return
        self._reopening.failed(now, _REOPEN_RETRY_S)
        self._session.close(self._generation)


def _held(figures: Figures) -> int | None:
    """What processes hold of a memory that is the system's and that NVML does not count; None where it is unknown."""
    if figures.processes is None:
        return None
    held = [process.memory_bytes for process in figures.processes if process.memory_bytes is not None]
    return sum(held) if len(held) == len(figures.processes) else None
