"""What NVML is asked for a card's figures, and what its answers mean.

Functions and units: https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html. Power comes in milliwatts,
energy in millijoules, clocks in MHz, shares in percent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpurig.runner.exporter.devices.figures import Figures, GpuProcess
from gpurig.runner.exporter.devices.nvidia_device import Ask, Question

# nvml.h, nvmlClocksEventReason*: bits in the order of their numbers.
_REASONS = (
    "idle",
    "application_clocks",
    "power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal",
    "hw_thermal",
    "hw_power_brake",
    "display_clocks",
)
# nvml.h, nvmlClockType_t.
_CLOCKS = ("graphics", "sm", "memory", "video")
# nvml.h, nvmlTemperatureThresholds_t.
_LIMITS = ("shutdown", "slowdown", "memory", "max_operating")
# nvml.h, nvmlMemoryErrorType_t and nvmlPageRetirementCause_t.
_ECC_KINDS = ("corrected", "uncorrected")
_RETIREMENTS = ("single_bit", "double_bit")
# nvml.h has these as NVML_FI_DEV_MEMORY_TEMP, NVML_AGGREGATE_ECC, NVML_TEMPERATURE_GPU and NVML_PSTATE_UNKNOWN.
_MEMORY_TEMPERATURE = 82
_LIFETIME = 1
_CHIP = 0
_STATE_UNKNOWN = 32


def _fast(name: str, *ways: Ask) -> Question:
    return Question(name, ways)


def _slow(name: str, *ways: Ask) -> Question:
    return Question(name, ways, slow=True)


def _clock(name: str, *ways: Ask) -> Question:
    """Every call costs: the graphics clock is the SMs' on most cards, and nobody steers by the video units'."""
    return _fast(name, *ways) if name in {"clock sm", "clock memory"} else _slow(name, *ways)


def _each(
    make: Callable[..., Question], prefix: str, names: Sequence[str], ask: Callable[[int], Ask]
) -> list[Question]:
    return [make(f"{prefix} {name}", ask(number)) for number, name in enumerate(names)]


def _field(number: int) -> Ask:
    """A field of nvmlDeviceGetFieldValues, which has a return code of its own."""

    def ask(nvml: Any, device: Any) -> Any:
        (value,) = nvml.nvmlDeviceGetFieldValues(device, [number])
        if value.nvmlReturn:
            raise nvml.NVMLError(value.nvmlReturn)
        kinds = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
        return getattr(value.value, kinds[value.valueType])

    return ask


def _fastest_fan(nvml: Any, device: Any) -> int | None:
    speeds = [nvml.nvmlDeviceGetFanSpeed_v2(device, fan) for fan in range(nvml.nvmlDeviceGetNumFans(device))]
    return max(speeds, default=None)


# Of a card and of its MIG parts. NVML's first memory call counts what the driver keeps for itself as used.
OWN = (
    _fast(
        "memory",
        lambda nvml, device: nvml.nvmlDeviceGetMemoryInfo(device, version=nvml.nvmlMemory_v2),
        lambda nvml, device: nvml.nvmlDeviceGetMemoryInfo(device),
    ),
    _fast(
        "compute",
        lambda nvml, device: nvml.nvmlDeviceGetComputeRunningProcesses_v3(device),
        lambda nvml, device: nvml.nvmlDeviceGetComputeRunningProcesses_v2(device),
    ),
    _fast(
        "graphics",
        lambda nvml, device: nvml.nvmlDeviceGetGraphicsRunningProcesses_v3(device),
        lambda nvml, device: nvml.nvmlDeviceGetGraphicsRunningProcesses_v2(device),
    ),
)

# Of a card alone: a part has no share of them that NVML could tell, and they must not be counted once a part.
ALONE = (
    _fast("rates", lambda nvml, device: nvml.nvmlDeviceGetUtilizationRates(device)),
    _fast("power", lambda nvml, device: nvml.nvmlDeviceGetPowerUsage(device)),
    _fast("energy", lambda nvml, device: nvml.nvmlDeviceGetTotalEnergyConsumption(device)),
    _slow("power limit", lambda nvml, device: nvml.nvmlDeviceGetEnforcedPowerLimit(device)),
    _slow("encoder", lambda nvml, device: nvml.nvmlDeviceGetEncoderUtilization(device)[0]),
    _slow("decoder", lambda nvml, device: nvml.nvmlDeviceGetDecoderUtilization(device)[0]),
)

# Of a card, and true for every part of it.
SHARED = (
    _fast(
        "temperature",
        lambda nvml, device: nvml.nvmlDeviceGetTemperature(device, _CHIP),
        lambda nvml, device: nvml.nvmlDeviceGetTemperatureV(device, _CHIP),
    ),
    _fast("memory temperature", _field(_MEMORY_TEMPERATURE)),
    *_each(_clock, "clock", _CLOCKS, lambda kind: lambda nvml, device: nvml.nvmlDeviceGetClockInfo(device, kind)),
    _fast(
        "reasons",
        lambda nvml, device: nvml.nvmlDeviceGetCurrentClocksEventReasons(device),
        lambda nvml, device: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(device),
    ),
    _slow("state", lambda nvml, device: nvml.nvmlDeviceGetPerformanceState(device)),
    *_each(
        _slow, "limit", _LIMITS, lambda kind: lambda nvml, device: nvml.nvmlDeviceGetTemperatureThreshold(device, kind)
    ),
    *_each(_slow, "max clock", _CLOCKS, lambda kind: lambda nvml, device: nvml.nvmlDeviceGetMaxClockInfo(device, kind)),
    _slow("fan", _fastest_fan, lambda nvml, device: nvml.nvmlDeviceGetFanSpeed(device)),
    *_each(
        _slow,
        "ecc",
        _ECC_KINDS,
        lambda kind: lambda nvml, device: nvml.nvmlDeviceGetTotalEccErrors(device, kind, _LIFETIME),
    ),
    *_each(
        _slow,
        "retired",
        _RETIREMENTS,
        lambda cause: lambda nvml, device: len(nvml.nvmlDeviceGetRetiredPages(device, cause)),
    ),
    _slow("retirement pending", lambda nvml, device: nvml.nvmlDeviceGetRetiredPagesPendingStatus(device)),
    _slow("remapped", lambda nvml, device: nvml.nvmlDeviceGetRemappedRows(device)),
    _slow("pcie generation", lambda nvml, device: nvml.nvmlDeviceGetCurrPcieLinkGeneration(device)),
    _slow("pcie width", lambda nvml, device: nvml.nvmlDeviceGetCurrPcieLinkWidth(device)),
    _slow("pcie max generation", lambda nvml, device: nvml.nvmlDeviceGetMaxPcieLinkGeneration(device)),
    _slow("pcie max width", lambda nvml, device: nvml.nvmlDeviceGetMaxPcieLinkWidth(device)),
    _slow("pcie replays", lambda nvml, device: nvml.nvmlDeviceGetPcieReplayCounter(device)),
)

# Which part of a card a handle is.
PLACE = (
    _slow("gpu instance", lambda nvml, device: nvml.nvmlDeviceGetGpuInstanceId(device)),
    _slow("compute instance", lambda nvml, device: nvml.nvmlDeviceGetComputeInstanceId(device)),
)


def figures_of(told: Mapping[str, Any], processes: tuple[GpuProcess, ...] | None) -> Figures:
    """What the answers say.

    Args:
        told: answers by the questions' names.
        processes: who uses the card, or part.
    """
    memory, rates, reasons, state = (told.get(name) for name in ("memory", "rates", "reasons", "state"))
    return Figures(
        memory_used_bytes=None if memory is None else int(memory.used),
        # The first version of the memory call has no such field.
        memory_reserved_bytes=getattr(memory, "reserved", None),
        utilization_ratio=None if rates is None else ratio(rates.gpu),
        memory_utilization_ratio=None if rates is None else ratio(rates.memory),
        encoder_utilization_ratio=ratio(told.get("encoder")),
        decoder_utilization_ratio=ratio(told.get("decoder")),
        temperature_celsius=_scaled(told.get("temperature"), 1),
        # Cards without a sensor say 0.
        memory_temperature_celsius=_scaled(told.get("memory temperature") or None, 1),
        temperature_limits_celsius=_named(told, "limit", _LIMITS),
        power_watts=_scaled(told.get("power"), 1e-3),
        power_limit_watts=_scaled(told.get("power limit"), 1e-3),
        energy_joules=_scaled(told.get("energy"), 1e-3),
        clocks_hertz=_named(told, "clock", _CLOCKS, 1e6),
        max_clocks_hertz=_named(told, "max clock", _CLOCKS, 1e6),
        fan_ratio=_fan_ratio(told.get("fan")),
        performance_state=None if state == _STATE_UNKNOWN else state,
        throttle_reasons=(
            {} if reasons is None else {name: float(reasons >> bit & 1) for bit, name in enumerate(_REASONS)}
        ),
        ecc_errors=_named(told, "ecc", _ECC_KINDS),
        retired_pages=_retired(told),
        memory_repair_pending=_repair_pending(told),
        pcie_generation=told.get("pcie generation"),
        pcie_width=told.get("pcie width"),
        pcie_max_generation=told.get("pcie max generation"),
        pcie_max_width=told.get("pcie max width"),
        pcie_replays=told.get("pcie replays"),
        processes=processes,
    )


def ratio(percent: int | None) -> float | None:
    """A share, 0 to 1; None for a number that is no percentage, as drivers give now and then."""
    return percent / 100 if percent is not None and percent <= 100 else None


def _fan_ratio(percent: int | None) -> float | None:
    """NVML measures against the loudest speed that the maker meant, so a fan may do more: that is full speed."""
    return None if percent is None or percent > 200 else min(percent, 100) / 100


def _scaled(number: float | None, factor: float) -> float | None:
    return None if number is None else number * factor


def _named(told: Mapping[str, Any], prefix: str, names: Sequence[str], factor: float = 1.0) -> dict[str, float]:
    found = {name: told.get(f"{prefix} {name}") for name in names}
    return {name: number * factor for name, number in found.items() if number is not None}


def _retired(told: Mapping[str, Any]) -> dict[str, float]:
    pages = _named(told, "retired", _RETIREMENTS)
    if (rows := told.get("remapped")) is not None:
        pages |= {"remapped_correctable": float(rows[0]), "remapped_uncorrectable": float(rows[1])}
    return pages


def _repair_pending(told: Mapping[str, Any]) -> bool | None:
    """Pages wait to be retired, or rows to be remapped; None for a card that does neither."""
    pages, rows = told.get("retirement pending"), told.get("remapped")
    return None if pages is None and rows is None else bool(pages) or bool(rows and rows[2])
