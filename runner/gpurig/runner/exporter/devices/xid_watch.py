"""Watches for Xid errors, in threads of its own: NVML's events and the kernel's log."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpurig.provisioning.facts import Gpu
from gpurig.provisioning.nvml import TIMEOUT
from gpurig.runner.exporter.devices.figures import SourceError
from gpurig.runner.exporter.devices.kernel_log import KMSG, KernelLog
from gpurig.runner.exporter.devices.nvml_session import NvmlSession
from gpurig.runner.exporter.devices.retry import Retry
from gpurig.runner.exporter.devices.xid import XidCounts, XidSeen, card_of, parse_xid

# Waiting for an event holds NVML; nobody can begin it anew meanwhile.
_WAIT_MS = 1000
_LOG_PERIOD_S = 1.0
# Cards that take no events now: a lost one, one without them (WSL2).
_REGISTER_PERIOD_S = 5.0
_RETRY_S = 30.0
# nvml.h: an event of no instance.
_NO_INSTANCE = 2**32 - 1
_MOST_CODE = 9999


class XidWatch:
    """Counts each GPU's Xid errors."""

    def __init__(
        self,
        session: NvmlSession,
        gpus: Callable[[], Sequence[Gpu]],
        *,
        kernel_log: Path = KMSG,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            session: NVML.
            gpus: every GPU that is known now.
            kernel_log: the log's device.
            now: Unix time in seconds.
            monotonic: the kernel's clock.
            say: called with one line when the log cannot be read, and when it can again.
        """
        self._session = session
        self._gpus = gpus
        self._log = KernelLog(kernel_log)
        self._now = now
        self._monotonic = monotonic
        self._say = say
        self._counts = XidCounts()
        self._instances: dict[str, int] = {}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._log_failure = ""
        self._read_at: float | None = None
        self._set: Any = None
        self._cards: dict[int, str] = {}
        self._register_at = float("-inf")
        self._asked: Sequence[Gpu] = ()
        session.at_close(self._forget_set)

    @property
    def latest(self) -> Mapping[str, Mapping[int, XidSeen]]:
        """The errors seen so far: by UUID, by number; touches no device."""
        return self._counts.of(self._gpus(), dict(self._instances))

    def start(self) -> None:
        """Watch in the background until `stop`; errors that are in the log already are known when it returns."""
        self.read_log()
        for name, run in (("xid-log", self._watch_log), ("xid-events", self._watch_events)):
            thread = threading.Thread(target=run, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """End the threads; one that hangs in the driver is left to the end of the process."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout_s)
        self._log.close()

    def _cuda_gpus(self) -> list[Gpu]:
        return [gpu for gpu in self._gpus() if gpu.backend == "cuda"]

    def _watch_log(self) -> None:
        while not self._stop.is_set():
            self.read_log()
            self._stop.wait(_LOG_PERIOD_S)

    def read_log(self) -> None:
        """Read what the log has; never raises."""
        now, uptime = self._now(), self._monotonic()
        try:
            lines = self._log.read()
        except OSError as error:
            failure = f"the kernel's log cannot be read ({error.strerror or error}): Xid errors come from NVML alone"
            if failure != self._log_failure and self._cuda_gpus():
                self._say(failure)
                self._log_failure = failure
            return
        if self._log_failure:
            self._say("the kernel's log can be read again")
        self._log_failure = ""
        # The kernel's clock drifts from the one that NTP corrects, seconds a day: what is new since the last reading
        # happened since then.
        earliest = self._read_at if self._read_at is not None else 0.0
        self._read_at = now
        for line in lines:
            if (xid := parse_xid(line.text)) is not None:
                at = min(max(now - (uptime - line.uptime_s), earliest), now)
                self._counts.add("log", xid.pci, xid.code, at, xid.instance)

    def _watch_events(self) -> None:
        retry = Retry()
        while not self._stop.is_set():
            try:
                registered = self.read_events(_WAIT_MS)
            except SourceError:
                # Without a driver, or while a card is lost, NVML answers at once.
                retry.failed(self._monotonic(), _RETRY_S)
                self._stop.wait(max(1.0, retry.at - self._monotonic()))
            else:
                retry.worked()
                if not registered:
                    self._stop.wait(_REGISTER_PERIOD_S if self._cuda_gpus() else 1.0)

    def read_events(self, timeout_ms: int) -> bool:
        """Wait for one event, and count it.

        Returns:
            Whether any card tells events at all.

        Raises:
            SourceError: NVML does not answer, or a card was lost.
        """
        if not self._cuda_gpus():
            return False
        with self._session.use() as nvml:
            try:
                self._register(nvml)
                if not self._cards:
                    return False
                event = nvml.nvmlEventSetWait_v2(self._set, timeout_ms)
            except nvml.NVMLError as error:
                if error.value == TIMEOUT:
                    return True
                # The set is of no use after a card was lost: it says so again and again.
                self._forget_set(nvml)
                raise SourceError(f"NVML: {error}") from error
            self._note(nvml, event)
            return True

    def _note(self, nvml: Any, event: Any) -> None:
        card = self._cards.get(_address(event.device))
        code = int(event.eventData)
        if card is None or event.eventType != nvml.nvmlEventTypeXidCriticalError or not 0 < code <= _MOST_CODE:
            return
        instance = None if event.gpuInstanceId == _NO_INSTANCE else int(event.gpuInstanceId)
        self._counts.add("event", card, code, self._now(), instance)

    def _register(self, nvml: Any) -> None:
        """Have every card's events told; cards that refuse, and new ones, are asked again now and then."""
        gpus = self._cuda_gpus()
        now = self._monotonic()
        if self._set is not None and gpus == self._asked and now < self._register_at:
            return
        self._asked, self._register_at = gpus, now + _REGISTER_PERIOD_S
        if self._set is None:
            self._set = nvml.nvmlEventSetCreate()
        for gpu in gpus:
            self._register_card(nvml, gpu)

    def _register_card(self, nvml: Any, gpu: Gpu) -> None:
        known = set(self._cards.values())
        try:
            if gpu.mig and gpu.uuid not in self._instances:
                part = nvml.nvmlDeviceGetHandleByUUID(gpu.uuid)
                self._instances[gpu.uuid] = nvml.nvmlDeviceGetGpuInstanceId(part)
            if card_of(gpu) in known:
                return
            # Parts tell no events of their own.
            handle = nvml.nvmlDeviceGetHandleByUUID(gpu.parent or gpu.uuid)
            wanted = nvml.nvmlEventTypeXidCriticalError
            if nvml.nvmlDeviceGetSupportedEventTypes(handle) & wanted:
                nvml.nvmlDeviceRegisterEvents(handle, wanted, self._set)
                self._cards[_address(handle)] = card_of(gpu)
        except nvml.NVMLError:
            # The source tells what is wrong with the card.
            return

    def _forget_set(self, nvml: Any) -> None:
        held, self._set = self._set, None
        self._cards = {}
        if held is not None:
            try:
                nvml.nvmlEventSetFree(held)
            except nvml.NVMLError:
                # NVML has forgotten it already.
                return


def _address(handle: Any) -> int:
    """A handle as a number: the binding makes a new object of it each time."""
    return ctypes.cast(handle, ctypes.c_void_p).value or 0
