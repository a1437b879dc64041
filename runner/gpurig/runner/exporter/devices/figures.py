"""What a source tells of a GPU at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gpurig.provisioning.facts import Gpu


class SourceError(Exception):
    """A source cannot be read at all; its message says why, one line."""


@dataclass(frozen=True)
class GpuProcess:
    """A process that uses a GPU.

    Attributes:
        pid: as the process namespace of the host numbers it.
        memory_bytes: what it holds of the GPU's memory; None where the driver does not tell.
        utilization_ratio: the share of the time since the reading before in which it kept the GPU busy, 0 to 1; None
            where the driver does not tell.
    """

    pid: int
    memory_bytes: int | None = None
    utilization_ratio: float | None = None


@dataclass(frozen=True)
class Figures:
    """One GPU's readings; None, or no entry, where the card or its driver does not tell.

    Attributes:
        memory_used_bytes: memory in use, without `memory_reserved_bytes` where that is told.
        memory_reserved_bytes: what the driver and the card's firmware keep for themselves.
        utilization_ratio: share of the last moments in which the GPU worked, 0 to 1.
        memory_utilization_ratio: share of the last moments in which its memory was read or written, 0 to 1.
        encoder_utilization_ratio, decoder_utilization_ratio: of the video units, 0 to 1.
        temperature_celsius: of the chip.
        hotspot_temperature_celsius: of the chip's hottest place (AMD: junction).
        memory_temperature_celsius: of the memory.
        temperature_limits_celsius: by what happens there: slowdown, shutdown, max_operating, memory.
        power_watts: of the whole card where the vendor tells it, of the chip elsewhere.
        power_limit_watts: what the driver lets it take.
        energy_joules: the card's own counter; it starts at 0 when the driver is loaded.
        clocks_hertz: by domain: graphics, sm, memory, video.
        max_clocks_hertz: the same, the highest each can be set to.
        fan_ratio: of the fans' full speed, 0 to 1; the fastest one's.
        performance_state: NVIDIA's P-state, 0 for the fastest.
        throttle_reasons: by reason, whether it holds the clocks down now (`exposition.gpu_metrics.THROTTLE_REASONS`).
        ecc_errors: lifetime counts, by kind: corrected, uncorrected.
        retired_pages: by cause: single_bit, double_bit; rows that were remapped count as remapped_correctable,
            remapped_uncorrectable; AMD's bad pages as bad.
        memory_repair_pending: pages or rows wait for a reset to be taken out of use.
        pcie_generation, pcie_width: the link as it is now; an idle card lowers its generation.
        pcie_max_generation, pcie_max_width: what card and slot can do together.
        pcie_replays: counts packets that had to be sent again.
        processes: who uses it; None where the driver does not tell.
        lost: why it does not answer; "" for a GPU that does.
    """

    memory_used_bytes: int | None = None
    memory_reserved_bytes: int | None = None
    utilization_ratio: float | None = None
    memory_utilization_ratio: float | None = None
    encoder_utilization_ratio: float | None = None
    decoder_utilization_ratio: float | None = None
    temperature_celsius: float | None = None
    hotspot_temperature_celsius: float | None = None
    memory_temperature_celsius: float | None = None
    temperature_limits_celsius: Mapping[str, float] = field(default_factory=dict)
    power_watts: float | None = None
    power_limit_watts: float | None = None
    energy_joules: float | None = None
    clocks_hertz: Mapping[str, float] = field(default_factory=dict)
    max_clocks_hertz: Mapping[str, float] = field(default_factory=dict)
    fan_ratio: float | None = None
    performance_state: int | None = None
    throttle_reasons: Mapping[str, float] = field(default_factory=dict)
    ecc_errors: Mapping[str, float] = field(default_factory=dict)
    retired_pages: Mapping[str, float] = field(default_factory=dict)
    memory_repair_pending: bool | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None
    pcie_max_generation: int | None = None
    pcie_max_width: int | None = None
    pcie_replays: int | None = None
    processes: tuple[GpuProcess, ...] | None = None
    lost: str = ""


class Source(Protocol):
    """Reads the figures of one vendor's GPUs."""

    def read(self, gpus: Sequence[Gpu]) -> Mapping[str, Figures]:
        """Figures by UUID, for those of `gpus` that are this source's.

        Raises:
            SourceError: none of them can be read.
        """
