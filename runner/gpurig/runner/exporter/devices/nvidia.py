"""NVIDIA's figures, through NVML."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpurig.provisioning.facts import Gpu
from gpurig.runner.exporter.devices.figures import Figures, SourceError


class NvidiaSource:
    """Reads NVML; initialised at the first reading and again after the driver was reloaded."""

    def __init__(self) -> None:
        """Prepare; NVML is not loaded yet."""
        self._ready = False

    def read(self, gpus: Sequence[Gpu]) -> Mapping[str, Figures]:
        """Figures by UUID; a GPU that fell off the bus has a reason instead.

        Raises:
            SourceError: NVML does not answer.
        """
        mine = [gpu for gpu in gpus if gpu.backend == "cuda"]
        if not mine:
            return {}
        import pynvml  # noqa: PLC0415 - loads the vendor's library

        try:
            if not self._ready:
                pynvml.nvmlInit()
                self._ready = True
            return {gpu.uuid: _read_gpu(pynvml, gpu) for gpu in mine}
        except pynvml.NVMLError as error:
            self.close()
            raise SourceError(f"NVML: {error}") from error

    def close(self) -> None:
        """Let go of NVML."""
        import pynvml  # noqa: PLC0415

        if self._ready:
            self._ready = False
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()


def _read_gpu(nvml: Any, gpu: Gpu) -> Figures:
    gone = (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_ERROR_RESET_REQUIRED)

    def field(ask: Callable[[], Any]) -> Any:
        """One field; None where this card does not have it."""
        try:
            return ask()
        except nvml.NVMLError as error:
            # Only these are about the field. A lost GPU or a gone driver is for the callers.
            if error.value in {
                nvml.NVML_ERROR_NOT_SUPPORTED,
                nvml.NVML_ERROR_NO_PERMISSION,
                nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
                nvml.NVML_ERROR_INVALID_ARGUMENT,
                nvml.NVML_ERROR_UNKNOWN,
            }:
                return None
            raise

    try:
        handle = nvml.nvmlDeviceGetHandleByUUID(gpu.uuid)
        memory = field(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        rates = field(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        temperature = field(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        power = field(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        limit = field(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
    except nvml.NVMLError as error:
        if error.value in gone:
            return Figures(lost=str(error))
        raise
    return Figures(
        memory_used_bytes=None if memory is None else int(memory.used),
        utilization_ratio=None if rates is None else rates.gpu / 100,
        temperature_celsius=None if temperature is None else float(temperature),
        # NVML counts milliwatts.
        power_watts=None if power is None else power / 1000,
        power_limit_watts=None if limit is None else limit / 1000,
    )
