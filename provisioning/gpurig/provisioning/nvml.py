"""One pass over NVML through NVIDIA's own binding: what it says, and what it refuses, field by field."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

# nvml.h, enum nvmlReturn_t.
UNINITIALIZED = 1
INVALID_ARGUMENT = 2
NOT_SUPPORTED = 3
NO_PERMISSION = 4
NOT_FOUND = 6
DRIVER_NOT_LOADED = 9
TIMEOUT = 10
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
CORRUPTED_INFOROM = 14
GPU_IS_LOST = 15
RESET_REQUIRED = 16
VERSION_MISMATCH = 18
VGPU_ECC_NOT_SUPPORTED = 22
ARGUMENT_VERSION_MISMATCH = 25
DEPRECATED = 26
GPU_NOT_FOUND = 28
UNKNOWN = 999

# A field that a card, or an older library, does not have: no news.
_ABSENT = {NOT_SUPPORTED, FUNCTION_NOT_FOUND, DEPRECATED}
# The card is gone, whichever field was asked for.
_GONE = {GPU_IS_LOST, RESET_REQUIRED}


@dataclass(frozen=True)
class NvmlFailure:
    """NVML's refusal.

    Attributes:
        code: nvmlReturn_t.
        words: NVML's own words for it.
    """

    code: int
    words: str


@dataclass(frozen=True)
class NvmlDevice:
    """One card, or one MIG part of it, with what NVML gave; a field that it refused has its empty value.

    Attributes:
        index: NVML's number, "0"; for a part the card's and its own, "0:1".
        uuid: "GPU-…" or "MIG-…".
        name: the product's name.
        pci: NVML's bus id, "00000000:01:00.0".
        memory_bytes: the total; None where refused or 0.
        compute: compute capability, (8, 9).
        mig_enabled: the card is in MIG mode: it runs nothing itself, its parts do.
        parts: the card's MIG parts.
        instance: a part's GPU instance, which owns its memory; None for a card or where refused.
        failure: the device as a whole cannot be used.
        refused: (field, failure) for each field refused for another reason than that it is not supported.
    """

    index: str
    uuid: str = ""
    name: str = ""
    pci: str = ""
    memory_bytes: int | None = None
    compute: tuple[int, int] | None = None
    mig_enabled: bool = False
    parts: tuple[NvmlDevice, ...] = ()
    instance: int | None = None
    failure: NvmlFailure | None = None
    refused: tuple[tuple[str, NvmlFailure], ...] = ()


@dataclass(frozen=True)
class NvmlReading:
    """What one pass over NVML gave.

    Attributes:
        driver: the driver's version, "" where refused.
        cuda: the highest CUDA version the driver supports, "12.8"; "" where refused.
        library: NVML's own version, "" where refused.
        devices: the cards in NVML's order.
        failure: NVML could not be used at all.
    """

    driver: str = ""
    cuda: str = ""
    library: str = ""
    devices: tuple[NvmlDevice, ...] = ()
    failure: NvmlFailure | None = None


class NvmlSource(Protocol):
    """Where NVIDIA facts come from: the real binding, or a test's own reading."""

    def read(self) -> NvmlReading:
        """Everything detection wants, in one pass; never raises for hardware trouble."""


@dataclass(frozen=True)
class FixedNvml:
    """A source that gives the same reading again and again: a machine without NVIDIA, a recorded one."""

    reading: NvmlReading = NvmlReading(failure=NvmlFailure(LIBRARY_NOT_FOUND, "NVML Shared Library Not Found"))

    def read(self) -> NvmlReading:
        """The reading."""
        return self.reading


class PynvmlSource:
    """NVML through nvidia-ml-py, opened for the reading and closed again."""

    def read(self) -> NvmlReading:
        """Everything detection wants, in one pass; never raises for hardware trouble."""
        import pynvml  # noqa: PLC0415 - 30 ms and a library search that `--help` must not pay

        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            return NvmlReading(library=library_version(pynvml), failure=_failure(error))
        try:
            return _read_all(pynvml)
        finally:
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()


def _failure(error: Any) -> NvmlFailure:
    return NvmlFailure(code=int(error.value), words=str(error))


def library_version(nvml: Any) -> str:
    """NVML's own version, which it also tells where it cannot talk to the kernel module."""
    try:
        return text(nvml.nvmlSystemGetNVMLVersion())
    except (nvml.NVMLError, UnicodeDecodeError):
        return ""


def text(value: str | bytes) -> str:
    """What NVML calls a string: older bindings give bytes, newer ones str."""
    return (value.decode(errors="replace") if isinstance(value, bytes) else value).strip("\0 ")


def cuda_version(number: int | None) -> str:
    """CUDA's version in words: 12080 is "12.8" (cuda.h, CUDA_VERSION); "" for none."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else ""


class _Fields:
    """Asks one device for one field after the other and keeps what was refused."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self.refused: list[tuple[str, NvmlFailure]] = []
        self.gone: NvmlFailure | None = None

    def ask(self, field: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """The call's answer; None where it was refused."""
        if self.gone:
            return None
        try:
            return call(*arguments)
        except self._nvml.NVMLError as error:
            failure = _failure(error)
            if failure.code in _GONE:
                self.gone = failure
            elif failure.code not in _ABSENT:
                self.refused.append((field, failure))
        except UnicodeDecodeError:
            self.refused.append((field, NvmlFailure(UNKNOWN, "not UTF-8 text")))
        return None


def _read_all(nvml: Any) -> NvmlReading:
    system = _Fields(nvml)
    driver = text(system.ask("driver version", nvml.nvmlSystemGetDriverVersion) or "")
    cuda = system.ask("CUDA version", nvml.nvmlSystemGetCudaDriverVersion_v2)
    library = library_version(nvml)
    try:
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as error:
        return NvmlReading(driver=driver, library=library, failure=_failure(error))
    return NvmlReading(
        driver=driver,
        cuda=cuda_version(cuda),
        library=library,
        devices=tuple(_read_device(nvml, index) for index in range(count)),
    )


def _read_device(nvml: Any, index: int) -> NvmlDevice:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError as error:
        return NvmlDevice(index=str(index), failure=_failure(error))
    fields = _Fields(nvml)
    uuid = text(fields.ask("UUID", nvml.nvmlDeviceGetUUID, handle) or "")
    name = text(fields.ask("name", nvml.nvmlDeviceGetName, handle) or "")
    pci = fields.ask("PCI address", nvml.nvmlDeviceGetPciInfo, handle)
    memory = fields.ask("memory", nvml.nvmlDeviceGetMemoryInfo, handle)
    compute = fields.ask("compute capability", nvml.nvmlDeviceGetCudaComputeCapability, handle)
    mig = fields.ask("MIG mode", nvml.nvmlDeviceGetMigMode, handle)
    mig_enabled = bool(mig and mig[0])
    parts = _read_parts(nvml, handle, index, fields) if mig_enabled else ()
    return NvmlDevice(
        index=str(index),
        uuid=uuid,
        name=name,
        pci=text(pci.busId) if pci else "",
        memory_bytes=(int(memory.total) or None) if memory else None,
        compute=tuple(compute) if compute else None,
        mig_enabled=mig_enabled,
        parts=parts,
        failure=fields.gone,
        refused=tuple(fields.refused),
    )


def _read_parts(nvml: Any, card: Any, index: int, card_fields: _Fields) -> tuple[NvmlDevice, ...]:
    parts = []
    for number in range(card_fields.ask("MIG count", nvml.nvmlDeviceGetMaxMigDeviceCount, card) or 0):
        try:
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(card, number)
        except nvml.NVMLError as error:
            # The numbers run to the most parts that a card can have; places without one say NotFound.
            if not isinstance(error, nvml.NVMLError_NotFound):
                card_fields.refused.append((f"MIG part {number}", _failure(error)))
            continue
        fields = _Fields(nvml)
        memory = fields.ask("memory", nvml.nvmlDeviceGetMemoryInfo, handle)
        parts.append(
            NvmlDevice(
                index=f"{index}:{number}",
                uuid=text(fields.ask("UUID", nvml.nvmlDeviceGetUUID, handle) or ""),
                name=text(fields.ask("name", nvml.nvmlDeviceGetName, handle) or ""),
                memory_bytes=(int(memory.total) or None) if memory else None,
                instance=fields.ask("GPU instance", nvml.nvmlDeviceGetGpuInstanceId, handle),
                failure=fields.gone,
                refused=tuple(fields.refused),
            )
        )
    return tuple(parts)
