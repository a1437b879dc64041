"""NVML for several threads: begun once, and anew where the driver went away."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gpurig.provisioning.host import nvidia_module_version
from gpurig.provisioning.nvml import VERSION_MISMATCH, cuda_version, library_version, text
from gpurig.runner.exporter.devices.driver import DriverFacts
from gpurig.runner.exporter.devices.figures import SourceError
from gpurig.runner.exporter.devices.retry import Retry

# A library that finds no driver runs nvidia-modprobe: not every second.
_RETRY_S = 15.0
# A thread waits for events a second at a time; one that stays longer hangs in the driver.
_LEAVE_S = 5.0


def load_binding() -> Any:
    """NVIDIA's binding."""
    import pynvml  # noqa: PLC0415 - 30 ms and a library search that `--help` must not pay

    return pynvml


class NvmlSession:
    """One nvmlInit that every reader of this process uses.

    NVML lists the GPUs when it is begun, and counts those who began it: it sees a card that came back only after
    everybody has let go. So nobody else may begin it for long, and a new beginning waits until no thread is inside.
    """

    def __init__(
        self,
        load: Callable[[], Any] = load_binding,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        root: Path = Path("/"),
    ) -> None:
        """Prepare; NVML is not loaded yet.

        Args:
            load: gives the binding.
            monotonic: the clock.
            root: below which the kernel tells the version of its module.
        """
        self._load = load
        self._monotonic = monotonic
        self._root = root
        self._changed = threading.Condition()
        self._nvml: Any = None
        self._inside = 0
        self._closing = False
        self._retry = Retry()
        self._failure = ""
        self._at_close: list[Callable[[Any], None]] = []
        # Counts the beginnings: handles and event sets of an earlier one are void.
        self.generation = 0
        # The versions, as of the last beginning; None before the first.
        self.driver: DriverFacts | None = None

    def at_close(self, forget: Callable[[Any], None]) -> None:
        """Have `forget` called with the binding before NVML is let go, while no thread is inside."""
        self._at_close.append(forget)

    @contextlib.contextmanager
    def use(self) -> Iterator[Any]:
        """NVML's binding, begun, for as long as the block runs.

        Raises:
            SourceError: NVML does not start.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._closing)
            if self._nvml is None:
                self._begin()
            nvml = self._nvml
            self._inside += 1
        try:
            yield nvml
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def _begin(self) -> None:
        if self._monotonic() < self._retry.at:
            raise SourceError(self._failure)
        nvml = self._load()
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            self._failure = f"NVML: {error}{self._versions(nvml, error)}"
            self._retry.failed(self._monotonic(), _RETRY_S)
            raise SourceError(self._failure) from error
        self._retry.worked()
        self._nvml = nvml
        self.generation += 1
        self.driver = _driver_facts(nvml)

    def _versions(self, nvml: Any, error: Any) -> str:
        """For a library and a kernel module that do not fit, which they are, and what helps."""
        if error.value != VERSION_MISMATCH:
            return ""
        versions = {"library": library_version(nvml), "kernel module": nvidia_module_version(self._root)}
        told = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        # A process keeps the library that it has loaded.
        return f" ({told}): start the exporter again" if told else ": start the exporter again"

    def close(self, generation: int | None = None) -> bool:
        """Let go of NVML, unless that was done since `generation`; the next use begins it anew.

        Call it outside of `use`.

        Returns:
            Whether NVML is closed; not where a thread hangs in the driver.
        """
        with self._changed:
            if self._nvml is None or generation not in {None, self.generation}:
                return True
            self._closing = True
            try:
                if not self._changed.wait_for(lambda: self._inside == 0, timeout=_LEAVE_S):
                    return False
                for forget in self._at_close:
                    forget(self._nvml)
                with contextlib.suppress(self._nvml.NVMLError):
                    self._nvml.nvmlShutdown()
                self._nvml = None
                return True
            finally:
                self._closing = False
                self._changed.notify_all()


def _driver_facts(nvml: Any) -> DriverFacts:
    driver = cuda = None
    # A driver that does not tell its version is used all the same.
    with contextlib.suppress(nvml.NVMLError, UnicodeDecodeError):
        driver = nvml.nvmlSystemGetDriverVersion()
    with contextlib.suppress(nvml.NVMLError):
        cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
    return DriverFacts("cuda", driver=text(driver or ""), library=library_version(nvml), cuda=cuda_version(cuda))
